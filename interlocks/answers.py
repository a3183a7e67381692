"""Answers to commands that are refused: one form for all verbs of the safety controller."""

from __future__ import annotations

from collections.abc import Sequence

from channels.command import Command, CommandResult, Status
from interlocks.snapshot import RuleView

WORDS_MAX = 1000
"""Longest words of an answer, characters."""


def refused(command: Command, code: str, words: str, views: Sequence[RuleView] = ()) -> CommandResult:
    """A refusal, with the rules that stand against what was asked for."""
    data = {"latched": [view.rule.id for view in views]} if views else {}
    return CommandResult(command.id, Status.REFUSED, code, words[:WORDS_MAX], data)
