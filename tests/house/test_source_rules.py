"""Rules over the source itself that no linter of ours knows: clocks, randomness, assertions, length, reasons."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.own_packages import OWN_PACKAGES as PRODUCTION

ROOT = Path(__file__).resolve().parents[2]
TIMELESS = ("facility", "dose", "channels", "journal", "interlocks", "ioc_sim", "control", "records")
"""Folders below rig: they get time, ids and random numbers handed in."""

ADAPTERS: dict[str, str] = {}
"""Modules below rig that may read the wall clock, with the reason."""

WHOLLY = ("time", "random", "secrets")
WALL_CLOCK = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom", "getrandom"},
}
SEEDABLE = {"random", "default_rng", "Generator"}
"""numpy.random: what a seed can govern; the bare module is judged by what is taken from it."""
LENGTH_MAX = 400
LONG_MODULES: dict[str, str] = {}
"""Modules of more than LENGTH_MAX lines, each with the reason why it is not cut."""


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Path from the root, and text, of every module of these folders."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return ""


def outside_sources(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each use of the wall clock or of randomness that no seed governs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name in WHOLLY:
                    yield node.lineno, f"import {name.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {alias.name for alias in node.names}
            if node.module in (*WHOLLY, "numpy.random"):
                yield node.lineno, f"from {node.module}"
            elif forbidden := names & (WALL_CLOCK.get(node.module, set())):
                yield node.lineno, f"from {node.module} import {', '.join(sorted(forbidden))}"
        elif isinstance(node, ast.Attribute):
            name = dotted(node)
            parts = name.split(".")
            unseeded = parts[0] in ("np", "numpy") and parts[1:2] == ["random"] and parts[-1] not in SEEDABLE
            if unseeded or (len(parts) >= 2 and parts[-1] in WALL_CLOCK.get(parts[-2], set())):
                yield node.lineno, name
        elif isinstance(node, ast.Call):
            called = dotted(node.func).split(".")[-1]
            if called == "generate_uid" and not any(keyword.arg == "entropy_srcs" for keyword in node.keywords):
                yield node.lineno, "generate_uid without entropy_srcs"
            if called == "default_rng" and not (node.args or node.keywords):
                yield node.lineno, "default_rng without a seed"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.search(
                r"CURRENT_TIME(STAMP)?\b|CURRENT_DATE\b|datetime\('now'|randomblob\(|\bRANDOM\(\)", node.value
            )
            if found:
                yield node.lineno, f"SQL {found.group()}"


@pytest.mark.parametrize(
    "careless",
    [
        "import time",
        "from time import monotonic_ns",
        "import random",
        "import numpy as np\nnp.random.normal(1)",
        "import numpy as np\nnp.random.default_rng()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.utcnow()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4",
        "import os\nos.urandom(8)",
        "from pydicom.uid import generate_uid\ngenerate_uid()",
        "SQL = 'create table t (at text default CURRENT_TIMESTAMP)'",
    ],
)
def test_the_clock_rule_finds(careless: str) -> None:
    assert list(outside_sources(ast.parse(careless)))


def test_below_rig_nothing_reads_a_clock_or_dice() -> None:
    found = [
        f"{path}:{line}: {what}"
        for path, text in sources(*TIMELESS)
        if path not in ADAPTERS
        for line, what in outside_sources(ast.parse(text))
    ]
    assert not found, "facility time, ids and random numbers are handed in:\n" + "\n".join(found)


def test_every_adapter_on_the_list_needs_to_be_there() -> None:
    for path in ADAPTERS:
        assert list(outside_sources(ast.parse((ROOT / path).read_text(encoding="utf-8")))), f"{path} reads no clock"


def test_production_code_does_not_assert() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, text in sources(*PRODUCTION)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert)
    ]
    assert not found, f"`python -O` strips assertions; raise instead: {found}"


def test_long_modules_are_listed_with_a_reason() -> None:
    long = {path: text.count("\n") for path, text in sources(*PRODUCTION) if text.count("\n") > LENGTH_MAX}
    unlisted = {path: lines for path, lines in long.items() if path not in LONG_MODULES}
    assert not unlisted, f"more than {LENGTH_MAX} lines: cut them, or list them with a reason"
    assert set(LONG_MODULES) <= set(long), "no longer long: take them off the list"


def test_ground_floor_packages_are_empty_where_the_design_says_so() -> None:
    text = (ROOT / "interlocks/__init__.py").read_text(encoding="utf-8")
    assert not text.strip(), (
        "interlocks/__init__.py stays empty: the rack compiles interlocks.fast and imports nothing else"
    )


def test_every_dependency_has_a_reason() -> None:
    """The line above each dependency in pyproject.toml is a comment."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads("\n".join(lines))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for requirement in wanted:
        at = next((i for i, line in enumerate(lines) if line.strip() == f'"{requirement}",'), None)
        assert at is not None, f"{requirement} does not stand on a line of its own"
        assert lines[at - 1].strip().startswith("# "), f"{requirement} has no reason"


def test_every_direct_dependency_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for requirement in wanted:
        name = re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")
        assert re.search(rf"^{re.escape(name)}==\S+$", pins, re.MULTILINE), (
            f"{name} is not in constraints.txt: make lock"
        )
    lines = [line for line in pins.splitlines() if not line.startswith("#")]
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.!+-]+", line) for line in lines), "exact versions only, no paths"
