"""Errors that a person reads, and the exit codes that go with them.

Every error says what is wrong, where, and what to do; none carries a bare number. A process that ends
because of one returns the class's `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar

_FEW = 12
"""Names that an error lists; of more it gives those that are close."""


class ExitCode(IntEnum):
    """Exit codes of every `ionctl` process."""

    OK = 0
    USAGE = 2
    CONFIGURATION = 3
    PLAN_REFUSED = 4
    INTERRUPTED = 5
    TARGET_UNAVAILABLE = 6
    VERIFICATION_FAILED = 7
    INTERNAL = 70


class IonctlError(Exception):
    """Base of all errors meant for a person.

    Args:
        code: stable dotted identifier for programs, for example `config.unknown-key`.
        what: what is wrong, with the offending value.
        where: file and key, or plan, beam, layer and spot, or PV.
        fix: what would be accepted, or what to do next.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, code: str, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(code, what, where, fix)  # all four, so that it survives pickling
        self.code = code
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" ({self.where})"
        if self.fix:
            text += f": {self.fix}"
        return text

    def to_dict(self) -> dict[str, str | int]:
        """The error as JSON-ready data: error, code, what, where, fix, exit_code."""
        return {
            "error": type(self).__name__,
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "fix": self.fix,
            "exit_code": int(self.exit_code),
        }


class UsageError(IonctlError):
    """What a person typed makes no sense: a name that there is not, a value out of range, a file that cannot be."""

    exit_code = ExitCode.USAGE


class ConfigError(IonctlError):
    """A configuration file or table is missing, malformed or contradicts itself."""

    exit_code = ExitCode.CONFIGURATION


class PlanError(IonctlError):
    """A plan cannot be read, or this facility cannot deliver it."""

    exit_code = ExitCode.PLAN_REFUSED


class ChannelError(IonctlError):
    """A device, IOC or target does not answer or is not the one expected."""

    exit_code = ExitCode.TARGET_UNAVAILABLE


class CommandRefused(IonctlError):  # noqa: N818 - a refusal is an answer, the name says so
    """A server understood a command and would not do it; nothing was delivered because of it."""

    exit_code = ExitCode.INTERRUPTED


class JournalError(IonctlError):
    """The delivery journal is unreadable, or its hash chain or ledger does not verify."""

    exit_code = ExitCode.VERIFICATION_FAILED


class InternalError(IonctlError):
    """A condition that the code rules out; a defect, never the user's doing."""

    exit_code = ExitCode.INTERNAL


def no_such(code: str, kind: str, name: str, known: Iterable[str], where: str = "", lister: str = "") -> UsageError:
    """The error for a name that there is not: `kind` is what it should be the name of, `lister` what lists them."""
    listed = f"list them: {lister}" if lister else ""
    return UsageError(code, f"no {kind} '{name}'", where, "; ".join(filter(None, (names_meant(name, known), listed))))


def names_meant(name: str, known: Iterable[str]) -> str:
    """What to type instead of a name that there is not: those that are close, and all where they are few."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
    listed = f"known: {', '.join(names)}" if len(names) <= _FEW else ""
    return "; ".join(filter(None, (hint, listed)))
