"""Mutation testing of interlocks/: `make mutants`, or `python scripts/mutants.py [MODULE ...]`.

cosmic-ray finds the mutants and writes each into a copy of the tree; what is its own here is only how a test run
starts: a process that has the third parties imported forks for each mutant, so that a run costs the tests and not the
imports.  Everything runs uncompiled.  A session is a SQLite file in build/mutants/, one for each module; a stopped run
goes on where it was, and a session whose module or tests have changed begins anew.

mutants.toml says which modules, with which tests, and which operators are left out.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"
os.environ["IONCTL_TEST_PROFILE"] = "mutants"
sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "mutants"
COPIED = ("facility", "channels", "interlocks", "ioc_sim", "control", "rig", "console", "configs", "tests", "docs")
THIRD_PARTIES = ("numpy", "numba", "pydantic", "pytest", "pytest_asyncio", "hypothesis", "cryptography", "caproto",
                 "structlog")  # fmt: skip


def main() -> int:
    """Run what is asked for; exit code 1 if the score is below what mutants.toml asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules as in mutants.toml, like interlocks/latch.py; default all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; run again to go on")
    parser.add_argument("--report", action="store_true", help="only report what there is")
    options = parser.parse_args()
    settings = tomllib.loads((ROOT / "mutants.toml").read_text(encoding="utf-8"))
    wanted = options.modules or list(settings["module"])
    end = time.monotonic() + options.seconds
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.report:
        with tempfile.TemporaryDirectory(prefix="ionctl-mutants-") as scratch:
            tree = Path(scratch) / "tree"
            copy_tree(tree)
            os.chdir(tree)
            sys.path.insert(0, str(tree))
            for name in THIRD_PARTIES:
                __import__(name)
            for module in wanted:
                run_module(module, settings, end)
            os.chdir(ROOT)
    return report(wanted, settings)


def copy_tree(tree: Path) -> None:
    """What tests of interlocks/ need, as it stands in the working tree: cosmic-ray edits files in place."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, tree / name)


def session_path(module: str) -> Path:
    """The session of a module."""
    return OUT / (module.replace("/", ".").removesuffix(".py") + ".sqlite")


def fingerprint(module: str, settings: dict[str, Any]) -> str:
    """What a session's results depend on: the module, its tests, the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in (module, *settings["module"][module], "tests/interlocks/support.py"):
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()


def run_module(module: str, settings: dict[str, Any], end: float) -> None:
    """All pending mutants of a module, until `end` (monotonic s)."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import use_db

    path, mark = session_path(module), session_path(module).with_suffix(".sha256")
    found = fingerprint(module, settings)
    fresh = not (path.exists() and mark.exists() and mark.read_text() == found)
    if fresh:
        path.unlink(missing_ok=True)
    tests = list(settings["module"][module])
    begin = time.monotonic()
    baseline = run_tests(tests, 600.0)
    if baseline != "survived":
        sys.exit(f"{module}: its tests fail without a mutant")
    timeout_s = 10.0 + 5.0 * (time.monotonic() - begin)
    with use_db(str(path)) as work:
        if fresh:
            init([Path(module)], work, {})
            leave_out(work, Path(module), settings["exclude_operators"])
            mark.write_text(found)
        pending = list(work.pending_work_items)
        print(f"{module}: {len(pending)} of {work.num_work_items} to run", flush=True)
        for item in pending:
            if time.monotonic() > end:
                return
            work.set_result(item.job_id, judge(item, tests, settings["wider"], timeout_s))


def judge(item: Any, tests: list[str], wider: list[str], timeout_s: float) -> Any:
    """Write a mutant, run the module's own tests and then, if none has noticed, the others; put the module back."""
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    spec = item.mutations[0]
    operator = get_operator(spec.operator_name)(**spec.operator_args)
    with use_mutation(spec.module_path, operator, spec.occurrence) as (_, mutated):
        if mutated is None:
            return WorkResult(WorkerOutcome.NO_TEST)
        outcome = run_tests(tests, timeout_s)
        others = [path for path in wider if path not in tests]
        if outcome == "survived" and others:
            outcome = run_tests(others, timeout_s + 120.0)
        return WorkResult(WorkerOutcome.NORMAL, "", TestOutcome(outcome), "")


def run_tests(tests: list[str], timeout_s: float) -> str:
    """Fork, run the tests, say `killed` or `survived`; a run that takes too long is killed."""
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        code = 1
        try:
            code = int(
                pytest.main(
                    ["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-m", "not ca", "--timeout=120", *tests]
                )
            )
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"


def leave_out(work: Any, module: Path, operators: list[str]) -> None:
    """Skip what cannot matter: annotations, which nothing evaluates, and operators that mutants.toml leaves out."""
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    spans = list(annotations(ast.parse(module.read_text(encoding="utf-8"))))
    unwanted = re.compile("|".join(operators) or "$.")
    for item in list(work.pending_work_items):
        spec = item.mutations[0]
        start = tuple(spec.start_pos)
        if unwanted.search(spec.operator_name) or any(low <= start < high for low, high in spans):
            work.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED, "left out"))


def annotations(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Places of annotations, first and one past the last (line, column)."""
    for node in ast.walk(tree):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef):
            found = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found = [node.annotation]
        for one in found:
            if one is not None:
                yield (one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0)


def report(modules: list[str], settings: dict[str, Any]) -> int:
    """Score of each module and all survivors, in words a reader can find again."""
    killed_all = total_all = 0
    survivors: list[str] = []
    print(f"{'module':40} {'mutants':>8} {'run':>6} {'killed':>7} {'score':>7}")
    for module in modules:
        if session_path(module).exists():
            killed, run, total, alive = tally(module)
            survivors += alive
            killed_all, total_all = killed_all + killed, total_all + run
            print(f"{module:40} {total:8} {run:6} {killed:7} {percent(killed, run):>7}")
    print(f"{'all':40} {'':8} {total_all:6} {killed_all:7} {percent(killed_all, total_all):>7}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"commit {commit.stdout.strip()}")
    print(*survivors, sep="\n")
    return 0 if total_all and killed_all >= settings["score"] * total_all else 1


def percent(part: int, whole: int) -> str:
    """A share as a person reads it."""
    return f"{100.0 * part / whole:.1f} %" if whole else "-"


def tally(module: str) -> tuple[int, int, int, list[str]]:
    """Killed, run, all mutants that count, and the survivors, each on a line."""
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    lines = (ROOT / module).read_text(encoding="utf-8").splitlines()
    with use_db(str(session_path(module))) as work:
        items = {item.job_id: item.mutations[0] for item in work.work_items}
        results = {job: result for job, result in work.results if result.worker_outcome is not WorkerOutcome.SKIPPED}
        skipped = sum(result.worker_outcome is WorkerOutcome.SKIPPED for _, result in work.results)
    alive = [items[job] for job, result in results.items() if result.test_outcome is TestOutcome.SURVIVED]
    alive.sort(key=lambda spec: (spec.start_pos, spec.operator_name))
    words = [
        f"{module}:{spec.start_pos[0]}: {spec.operator_name.removeprefix('core/')} #{spec.occurrence}: "
        f"{lines[spec.start_pos[0] - 1].strip()}"
        for spec in alive
    ]
    return len(results) - len(alive), len(results), len(items) - skipped, words


if __name__ == "__main__":
    raise SystemExit(main())
