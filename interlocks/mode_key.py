"""The operating mode: set by a physicist between fields, in force only while the key switch says the same."""

from __future__ import annotations

from collections.abc import Callable

from channels.command import Command, CommandResult, Status
from interlocks.answers import refused
from interlocks.bypass import NO_MODE
from interlocks.field import FieldState
from interlocks.model import MODE_CODES
from interlocks.snapshot import Mode


class ModeKey:
    """Mode and key switch.

    Args:
        mode: the mode at the start.
        value: an input as it was seen last; NaN before the first image.
    """

    def __init__(self, mode: Mode, value: Callable[[str], float]) -> None:
        self.mode = mode
        self._value = value

    def stands_at(self, mode: str) -> bool:
        """Both banks of the key switch say this mode."""
        code = float(MODE_CODES[mode])
        return self._value("key.a") == code and self._value("key.b") == code

    @property
    def in_force(self) -> str:
        """The mode that was set, if the key switch agrees; else NO_MODE."""
        return self.mode.value if self.stands_at(self.mode.value) else NO_MODE

    def set(self, command: Command, released: bool, field: FieldState) -> CommandResult:
        """Verb `set_mode` {mode}: without a permit, between fields; QA and service with the key turned to them."""
        wanted = command.args.get("mode")
        known = {mode.value: mode for mode in Mode}
        if not isinstance(wanted, str) or wanted not in known:
            return refused(command, "safety.mode", f"no mode {str(wanted)[:60]!r}; there are {', '.join(known)}")
        if released:
            return refused(command, "safety.permit", "the mode changes only without a permit")
        if field.session or field.begun or field.unresolved:
            return refused(command, "safety.field", f"field {field.session or 'without a name'} is not closed")
        if wanted != Mode.CLINICAL.value and not self.stands_at(wanted):
            return refused(command, "safety.key", f"turn the key switch to {wanted} first")
        self.mode = known[wanted]
        return CommandResult(command.id, Status.DONE, data={"mode": self.mode.value})
