"""The lines of tier T as the safety controller hears them: what treatment control vouches for, as long as it lives.

Control checks the procedure (plan, set points, session, authority) and says what it found in signed keep-alives.  The
lines are those of the last genuine, newer frame, and 0 when none has come for too long.  A frame that is repeated,
late, forged or of an older start changes nothing, so that it cannot keep a line up.  A control that has restarted is
heard only after a scan without lines: what the one before it vouched for ends there.  Lines only take a permit.
"""

from __future__ import annotations

from typing import NamedTuple

from channels import keepalive
from channels.keepalive import Beat, Fault, KeepAliveState
from interlocks.console_watch import Console, silence_ns
from interlocks.own_inputs import CONTROL_INPUT, LINE_INPUTS
from interlocks.process_image import INVALID
from interlocks.rules import RuleSet

NOT_HEARD = (INVALID, *(0 for _ in LINE_INPUTS))
"""What the rules see of a control that was never heard: age, lines."""


class LineState(NamedTuple):
    """What is known of control."""

    watch: KeepAliveState
    bits: int = 0
    heard: bool = False
    """A frame has come since listening began."""
    restarted: bool = False
    """A newer start has spoken; it is listened to after the next scan."""


def take(state: LineState, frame: bytes, now_ns: int) -> tuple[LineState, bool]:
    """A frame that arrived at `now_ns` (ns); True if it changes what the rules see."""
    if state.restarted:  # nothing counts before the rules have seen that there are no lines
        return state, False
    before = bits(state, now_ns)
    watch, outcome = keepalive.check(state.watch, frame, now_ns)
    if isinstance(outcome, Beat):
        after = state._replace(watch=watch, bits=outcome.bits, heard=True)
        return after, not is_alive(state, now_ns) or outcome.bits != before
    if outcome is Fault.RESTARTED:
        return state._replace(watch=watch, bits=0, heard=False, restarted=True), True
    return state, False


def scanned(state: LineState, now_ns: int) -> LineState:
    """The rules have seen the lines as they stand at `now_ns`."""
    if not state.restarted:
        return state
    return state._replace(watch=keepalive.admit(state.watch, now_ns), restarted=False)


def is_alive(state: LineState, now_ns: int) -> bool:
    """Whether control is heard."""
    return state.heard and not keepalive.expired(state.watch, now_ns)


def bits(state: LineState, now_ns: int) -> int:
    """The lines in the order of LINE_INPUTS, the first in bit 0; 0 while control is silent."""
    return state.bits if is_alive(state, now_ns) else 0


def age_ns(state: LineState, now_ns: int) -> int:
    """Time since the last sign of life; INVALID before the first."""
    return now_ns - state.watch.since_ns if state.heard else INVALID


def codes(state: LineState, now_ns: int) -> tuple[int, ...]:
    """Own inputs of the controller: age in ns, then each line as 0 or 1."""
    mask = bits(state, now_ns)
    return (age_ns(state, now_ns), *(mask >> k & 1 for k in range(len(LINE_INPUTS))))


def deadline_ns(state: LineState, now_ns: int) -> int | None:
    """When silence alone makes the lines fall; None if they are down."""
    return state.watch.since_ns + state.watch.max_age_ns + 1 if is_alive(state, now_ns) else None


class LineWatch:
    """The lines of one control; without one they stay down.

    Args:
        control: whose keep-alives count; None: nobody's.
        rules: the rule on `control.age_ms` says how long control may be silent; ConfigError if there is none.
        now_ns: facility time of the start.
    """

    def __init__(self, control: Console | None, rules: RuleSet, now_ns: int) -> None:
        self._state: LineState | None = None
        if control is not None:
            limit_ns = silence_ns(rules, CONTROL_INPUT)
            self._state = LineState(KeepAliveState(control.source, control.key, limit_ns, now_ns, lines=True))

    def heard(self, frame: bytes, now_ns: int) -> bool:
        """A frame has come; True if the rules see something new."""
        if self._state is None:
            return False
        self._state, changed = take(self._state, frame, now_ns)
        return changed

    def scanned(self, now_ns: int) -> None:
        """All rules have been judged on the lines as they stand."""
        self._state = self._state and scanned(self._state, now_ns)

    def codes(self, now_ns: int) -> tuple[int, ...]:
        """Own inputs of the controller: age in ns, then each line as 0 or 1."""
        return NOT_HEARD if self._state is None else codes(self._state, now_ns)

    def deadline_ns(self, now_ns: int) -> int | None:
        """When silence alone makes the lines fall; None if they are down."""
        return None if self._state is None else deadline_ns(self._state, now_ns)
