"""Lines into and out of a plant: the safety link, the panel of the room, an I/O card."""

from __future__ import annotations

from facility.errors import CommandRefused
from facility.states import Action
from ioc_sim import commands, rack
from ioc_sim.plant_core import PlantCore
from ioc_sim.signals_tick import publish_latch


class PlantLines(PlantCore):
    """Lines, buttons and switches; they act at the next tick."""

    def set_safety_lines(
        self, permit: bool, hold: bool, link_ok: bool, bypass_mask: int = 0, personnel: bool = False, field: int = 0
    ) -> None:
        """The lines of the safety link, the fast rules that are bypassed, the number of the field that is open at the
        safety controller (0: none); they act from the next tick."""
        self._later(self._lines_now, permit, hold, link_ok, personnel)
        if bypass_mask != self._bypass_mask:
            self._bypass_mask = bypass_mask
            self._later(self._bypass_now, bypass_mask & self._bypassable)
        if field != self._field_told:
            self._field_told = field
            self._later(self._tell_field_now, field)

    def _tell_field_now(self, field: int) -> None:
        self._state[0].field_told = field

    def _lines_now(self, permit: bool, hold: bool, link_ok: bool, personnel: bool) -> None:
        """A permit that was taken away and given again between two ticks comes back only after one without it, as
        what it was taken for: a PAUSE is no ABORT."""
        s = self._state[0]
        early = permit and link_ok and commands.loss_unseen(s)
        commands.safety_lines(s, permit and not early, bool(s.p_hold) if early else hold, link_ok, personnel)
        if early:
            self._pending.insert(0, (self.t_ns + 1, self._lines_now, (permit, hold, link_ok, personnel)))

    def _bypass_now(self, mask: int) -> None:
        commands.bypass_rules(self.rule_rows, *self._compiled, mask)
        self._let_go(0)

    def reset_fast(self, mask: int) -> int:
        """Clear fast latches in ``mask`` whose cause is gone; returns the mask of those still latched."""
        self._note(self._now_ns, self.reset_fast, mask)
        return self._let_go(mask)

    def _let_go(self, mask: int) -> int:
        left = int(rack.reset(self.rule_rows, self._latch, mask))
        s = self._state[0]
        s.action = int(self._latch[rack.IN_FORCE])
        if not left and not int(s.unconfirmed):
            s.escalated = 0
        publish_latch(self.signals, self._latch)
        return left

    def output_lines(self) -> tuple[bool, bool, bool]:
        """Lines to an I/O card: the permit stands, no fast rule stronger than HOLD is in force, beam is asked for."""
        return (self._read("permit_line") == 1, self._read("action") < Action.PAUSE, self._read("demand") == 1)

    def set_late_ms(self, late_ms: float) -> None:
        """How late the pacing of the plant is; written by whoever paces it."""
        self._note(self._now_ns, self.set_late_ms, late_ms)
        self._state[0].late_ms = late_ms

    def prove(self, action: int, seq: int) -> None:
        """Carry out an action of the proof tests, a `ProofAction`; `proof.seq` becomes `seq` at its end."""
        self._later(commands.begin_proof, self._state[0], self._v, action, seq)

    def set_door(self, a_closed: bool, b_closed: bool) -> None:
        """Both door contacts."""
        self._later(commands.set_lines, self._state[0], "door", a_closed, b_closed)

    def press_search(self, button: str) -> None:
        """Press a search button: 'far', at the far end of the room, or 'exit'."""
        if button not in ("far", "exit"):
            raise CommandRefused("room.button", f"no button {button!r}", "press_search", "far or exit")
        self._later(commands.press, self._state[0], button)

    def press_estop(self) -> None:
        """Press the emergency stop of the room: it stays down until somebody at the button lets it go."""
        self._later(commands.set_lines, self._state[0], "estop", False, False)

    def release_estop(self) -> None:
        """Turn the emergency stop to let it go, at the button itself."""
        self._later(commands.set_lines, self._state[0], "estop", True, True)

    def turn_key(self, position: int) -> None:
        """Turn the mode key switch: 1 clinical, 2 QA, 3 service, 0 between two positions."""
        if not 0 <= position <= 3:
            raise CommandRefused("key.position", f"position {position!r}", "turn_key", "give 0 to 3")
        self._later(commands.turn_key, self._state[0], position)

    def set_gating(self, on: bool) -> None:
        """Switch the motion gate on or off."""
        self._later(commands.gating, self._state[0], on)
