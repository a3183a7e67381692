"""How a stage of a delivery ends that did not succeed."""

from __future__ import annotations

from control.layer_machine import Event
from facility.errors import ChannelError, CommandRefused, JournalError


class StageFault(Exception):  # noqa: N818 - becomes an event, no error of its own
    """A stage failed: the event to report, and why."""

    def __init__(self, event: Event, reason: str) -> None:
        super().__init__(event, reason)
        self.event = event
        self.reason = reason


class Preempted(Exception):  # noqa: N818 - no error
    """A wait was given up for something more urgent."""


def as_fault(error: CommandRefused | ChannelError | JournalError) -> StageFault:
    """The event that a failed command, read or commit means."""
    if isinstance(error, JournalError):
        return StageFault(Event.VERIFY_FAILED, f"journal: {error}")
    if isinstance(error, CommandRefused):
        return StageFault(Event.REFUSED, f"command refused: {error}")
    if error.code in ("channel.timeout", "command.no-answer"):
        return StageFault(Event.TIMEOUT, f"timeout.command: {error}")
    return StageFault(Event.LINK_LOST, str(error))
