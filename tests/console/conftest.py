"""The command line as a user types it: one call, its exit code, what went to stdout and stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from console.main import run


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Ionctl = Callable[..., Outcome]


@pytest.fixture
def ionctl(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ionctl:
    monkeypatch.setenv("IONCTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IONCTL_CONFIG", raising=False)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call
