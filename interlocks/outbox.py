"""What the safety controller has to tell, until its owner takes it."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from channels.command import CommandResult
from interlocks.snapshot import SafetyEvent

T = TypeVar("T")
MAX_EVENTS = 10_000
"""Events and results kept for whoever takes them; older ones are lost."""


class Outbox:
    """Events, and final results of commands that were only accepted before, in order."""

    def __init__(self) -> None:
        self.events: deque[SafetyEvent] = deque(maxlen=MAX_EVENTS)
        self.results: deque[CommandResult] = deque(maxlen=MAX_EVENTS)

    def take_events(self) -> list[SafetyEvent]:
        """Events since the last call."""
        return _taken(self.events)

    def take_results(self) -> list[CommandResult]:
        """Results since the last call."""
        return _taken(self.results)


def _taken(kept: deque[T]) -> list[T]:
    found = list(kept)
    kept.clear()
    return found
