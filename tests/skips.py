"""The list of allowed skips (`allowed_skips.toml`): a reason that is not on it, or is not true here, is a failure."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LIST = TESTS / "allowed_skips.toml"


@dataclass(frozen=True)
class AllowedSkip:
    """A reason for which a test may skip, and what on this machine would make it untrue."""

    reason: str
    """Regular expression over the whole reason."""
    because: str
    unless_program: str = ""
    """On PATH: then nothing may skip for this reason."""
    unless_path: str = ""
    """Relative to the repository: if it exists, nothing may skip for this reason."""
    unless_module: str = ""
    """Importable: then nothing may skip for this reason."""

    def untrue(self) -> str:
        """What is there after all; empty if the reason holds."""
        if self.unless_program and shutil.which(self.unless_program):
            return f"{self.unless_program} is installed"
        if self.unless_path and (TESTS.parent / self.unless_path).exists():
            return f"{self.unless_path} is there"
        if self.unless_module and find_spec(self.unless_module):
            return f"module {self.unless_module} is installed"
        return ""


def read_allowed(path: Path = LIST) -> list[AllowedSkip]:
    """All entries of the list."""
    return [AllowedSkip(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["skip"]]


def objection(reason: str, allowed: list[AllowedSkip]) -> str:
    """Why this skip is not allowed; empty if it is."""
    reason = reason.removeprefix("Skipped: ")
    fitting = [entry for entry in allowed if re.fullmatch(entry.reason, reason)]
    if not fitting:
        return f"skipped for a reason that tests/allowed_skips.toml does not hold: {reason!r}"
    untrue = [entry.untrue() for entry in fitting]
    if all(untrue):
        return f"skipped because {reason!r}, but {untrue[0]}"
    return ""
