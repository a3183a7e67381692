"""The compiled kernel and the plain Python below it are one and the same."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from facility import jit

ROOT = Path(__file__).resolve().parent.parent.parent
_PARTS = ("facility", "channels", "journal", "interlocks", "ioc_sim", "control", "configs")


def _run(root: Path, *, plain: bool = False) -> str:
    environment = dict(os.environ, PYTHONPATH=str(root))
    environment.pop("NUMBA_DISABLE_JIT", None)
    if plain:
        environment["NUMBA_DISABLE_JIT"] = "1"
    done = subprocess.run([sys.executable, "-m", "tests.plant.digest_run"], cwd=root, env=environment,
                          capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr[-2000:])
    return done.stdout.strip()


def test_compiled_and_plain_runs_agree_bit_for_bit() -> None:
    compiled = _run(ROOT)
    assert compiled.startswith("DONE ")
    assert _run(ROOT, plain=True) == compiled


def test_an_edited_limit_of_the_evaluator_is_obeyed_by_the_compiled_kernel(tmp_path: Path) -> None:
    """The cache of everybody, an edit in a module that the kernel only calls: the new code must run."""
    copy = tmp_path / "tree"
    for part in _PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "plant", copy / "tests" / "plant", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests" / "__init__.py").touch()
    assert _run(copy).startswith("DONE ")
    evaluator = copy / "interlocks" / "fast.py"
    source = evaluator.read_text()
    edited = source.replace('vb <= rule["hi"])', 'vb <= rule["hi"] * 0.01)')
    assert edited != source
    evaluator.write_text(edited)
    assert not _run(copy).startswith("DONE ")


def _constants_from(path: Path) -> set[str]:
    """Modules of the ground floor from which a source takes constants."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("facility."):
            continue
        if any(name.name == name.name.upper() for name in node.names):
            found.add(f"{(node.module or '').replace('.', '/')}.py")
    return found


def test_every_module_that_gives_the_kernel_a_constant_is_in_its_key() -> None:
    keyed = {path for pattern in jit._COMPILED for path in ROOT.glob(pattern)}
    compiled = (path for path in keyed if "@kernel" in path.read_text(encoding="utf-8") or path.name == "layout.py")
    needed = set[str]().union(*map(_constants_from, compiled))
    assert "facility/physics/chamber.py" in needed
    assert {ROOT / name for name in needed} <= keyed
