"""What a reset is answered: at once, or when the fast tier has let its latches go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from channels.command import Command, CommandResult, Status
from interlocks.snapshot import RuleView
from interlocks.standing import inhibiting


class ResetAnswer:
    """A reset that waits for the fast tier, if there is one."""

    def __init__(self) -> None:
        self._command = ""
        self._cleared: list[str] = []

    def wait(self, command: Command, cleared: list[str], views: Iterable[RuleView], released: bool) -> CommandResult:
        """The fast tier has been asked: the answer for now."""
        self._command, self._cleared = command.id, cleared
        data = _data(cleared, [], views, released)
        return CommandResult(command.id, Status.ACCEPTED, words="waits for the fast tier", data=data)

    def end(
        self, status: Status, code: str, words: str, views: Sequence[RuleView], released: bool
    ) -> CommandResult | None:
        """The final answer to the reset that waits; None if none does."""
        command, self._command = self._command, ""
        if not command:
            return None
        latched = [view.rule.id for view in views if view.latched]
        cleared = [rule_id for rule_id in self._cleared if rule_id not in latched]
        return CommandResult(command, status, code, words, _data(cleared, latched, views, released))


def done(command: Command, words: str, cleared: list[str], views: Iterable[RuleView], released: bool) -> CommandResult:
    """The answer to a reset that needs nothing of the fast tier."""
    return CommandResult(command.id, Status.DONE, words=words, data=_data(cleared, [], views, released))


def _data(cleared: list[str], latched: list[str], views: Iterable[RuleView], released: bool) -> dict[str, Any]:
    inhibited = [view.rule.id for view in inhibiting(views)]
    return {"cleared": cleared, "latched": latched, "inhibited": inhibited, "permit": released}
