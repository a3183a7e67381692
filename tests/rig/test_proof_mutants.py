"""Each mutant of production code breaks the very property it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "mutants"
MUTANTS = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    """Properties that broke, by mutant; one process applies all, uncompiled, to modules as they are imported."""
    command = [sys.executable, str(Path(__file__).with_name("mutant_runner.py"))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["mutant"]: line["broken"] for line in lines}


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 12


@pytest.mark.parametrize("name", MUTANTS)
def test_is_caught_by_the_property_it_names(name: str, outcomes: dict[str, list[str]]) -> None:
    mutant = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert outcomes[name] == [mutant["property"]]
