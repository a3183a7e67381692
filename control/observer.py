"""Reads the machine's levels as events of the layer machine."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

from control.layer_machine import BEAM_POSSIBLE, DELIVERING, Event, State, matters
from control.machine_link import MachineLink
from control.machine_status import FeStatus
from control.session import Session
from control.stages import ACTIVE, UNFINISHED
from facility.errors import CommandRefused
from facility.states import Action, FrontEndState, HoldReason
from facility.timebase import CLOCK_STEP_S

Found = tuple[Event, str]

_WATCHED = DELIVERING | {State.PREPARED, State.READY, State.INTERRUPTED}
"""States that a lost link or an interlock concerns."""
_ENDED = frozenset({State.INTERRUPTED, State.TERMINATED, State.COMPLETED})
_STRAY_EVERY_S = 1.0
UNNAMED = "an interlock or the front end itself, not named yet"
"""Of beam, or readiness, that was taken while the name is still on its way: what is done about it waits for nothing, so
the step of the layer machine goes on record first. The trip's own entry has the name."""
_BY_ITSELF = {
    HoldReason.NO_PERMIT: ": permit, range shifter or beam stopper",
    HoldReason.HANG: ": it did not run for a while",
}
"""What a front end may have seen that pauses without a trip, for people."""


class Observer:
    """What the machine says now, for a given state of the layer machine.

    Args:
        link: the machine.
        progress_limit_s: event-loop s without any delivery, with a layer armed, that are a time-out.
        journal_fault: why the journal cannot be relied upon, None if it can: nothing is delivered that is not booked.
        fast_rules: ids of the fast rules, in the order by which the front end numbers them.
    """

    def __init__(
        self, link: MachineLink, progress_limit_s: float, journal_fault: Callable[[], str | None] = lambda: None,
        fast_rules: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._link = link
        self._journal_fault = journal_fault
        self._limit_s = progress_limit_s
        self._fast_rules = tuple(fast_rules)
        self._last: tuple[object, ...] = ()
        self._since_s = 0.0
        self._stray_s = -math.inf
        self._resuming = False

    def restart(self) -> None:
        """A layer is armed or resumed now: its time without delivery begins."""
        self._last = ()

    @contextlib.contextmanager
    def resuming(self) -> Iterator[None]:
        """Inside, a paused front end is what it should be, no reason to stop."""
        self.restart()
        self._resuming = True
        try:
            yield
        finally:
            self._resuming = False

    def stray_handled(self) -> None:
        """Something is being done about beam where there should be none."""
        self._stray_s = asyncio.get_running_loop().time()

    def stop(self, state: State, session: Session | None) -> Found | None:
        """A reason to stop, strongest first; None if there is none that matters in this state."""
        return next((found for found in self._reasons(state, session) if matters(state, found[0])), None)

    def _reasons(self, state: State, session: Session | None) -> Iterator[Found]:
        fe = self._own(session)
        if state in _WATCHED:
            armed = state in BEAM_POSSIBLE or state is State.INTERRUPTED
            # what control begins by itself ends with an interlock that was reset before control looked, too
            action = self._link.worst_action if state in DELIVERING else self._link.action
            if action is Action.ABORT or (armed and fe is not None and fe.state is FrontEndState.ABORTED):
                yield Event.ABORTED_BY_INTERLOCK, self._named() or UNNAMED
            if (lost := self._link.lost()) is not None:
                yield Event.LINK_LOST, f"link lost: {lost}"
                return  # whatever else was known is old
            paused = armed and fe is not None and fe.state is FrontEndState.PAUSED and not self._resuming
            if action is Action.PAUSE or paused:
                yield Event.PAUSED_BY_INTERLOCK, self._named() or UNNAMED
        if session is not None and state not in BEAM_POSSIBLE and self._stray_beam(state):
            yield Event.BEAM_ON, "beam, or a front end that waits for it, although nothing is armed"
        if (late := self._timeout(state, fe)) is not None:
            yield late
        if state in BEAM_POSSIBLE and (fault := self._journal_fault()) is not None:
            yield Event.TIMEOUT, fault

    def progress(self, state: State, session: Session | None) -> Found | None:
        """How delivery goes on; None if nothing is new."""
        if state in (State.PREPARED, State.READY):
            given = self._link.permit and self._link.action in (Action.NONE, Action.HOLD)
            event = Event.PERMIT_GIVEN if given else Event.PERMIT_LOST
            return (event, "") if matters(state, event) else None
        fe = self._own(session)
        if fe is None or state not in BEAM_POSSIBLE:
            return None
        if fe.state is FrontEndState.DONE:
            return Event.LAYER_DONE, ""
        if fe.state is FrontEndState.LOADED and session is not None and fe.permit_epoch != session.permit_epoch:
            return Event.REFUSED, "the front end has not armed: the permit was lost since somebody started"
        if fe.state is FrontEndState.IRRADIATING and state is not State.IRRADIATING:
            return Event.BEAM_ON, ""
        if fe.state is FrontEndState.HELD and state is not State.HELD:
            return Event.HOLD, ""
        return None

    def resume_event(self, session: Session) -> Event:
        """RESUME if the front end still holds the unfinished or unread layer, RESELECT if nothing is at stake there.

        Raises CommandRefused, in words, while going on is not possible.
        """
        if (lost := self._link.lost()) is not None:
            raise CommandRefused("control.link", lost, "resume", "wait for the link, or stop")
        if not self._link.permit or self._link.action >= Action.PAUSE:
            why = f"no beam permit: {self._rule()}"
            raise CommandRefused("control.permit", why, "resume", "reset the interlock first")
        fe = self._own(session)
        if fe is not None and (fe.state in UNFINISHED or fe.state is FrontEndState.DONE) and session.unaccounted:
            return Event.RESUME
        if session.unaccounted:
            what = f"the front end no longer holds layer {session.index}"
            fix = "stop, then prepare: the register decides what is left"
            raise CommandRefused("control.unaccounted", what, "resume", fix)
        return Event.RESELECT

    async def rule_name(self, timeout_s: float) -> str:
        """Name of the rule that tripped first, waiting `timeout_s` (event-loop s) at most for it to arrive."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not self._link.tripped and (left := end - loop.time()) >= CLOCK_STEP_S:
            await self._link.changed(left)
        return self._rule()

    def _named(self) -> str:
        """The rule that tripped first, as far as it has been told; empty otherwise."""
        if self._link.tripped:
            return self._link.tripped
        fe = self._link.fe
        if fe is not None and fe.first_rule >= 0:
            known = fe.first_rule < len(self._fast_rules)
            return self._fast_rules[fe.first_rule] if known else f"fast rule {fe.first_rule}"
        return ""

    def _rule(self) -> str:
        if name := self._named():
            return name
        fe = self._link.fe
        if fe is not None and fe.state is FrontEndState.PAUSED and self._link.action is Action.NONE:
            return f"the front end itself{_BY_ITSELF.get(fe.hold_reason, '')}"  # no rule of the safety controller
        return "unknown rule"

    def _own(self, session: Session | None) -> FeStatus | None:
        """Front-end status if it is about the present layer."""
        fe = self._link.fe
        if fe is None or session is None or session.finished or fe.token != session.book.layer.token:
            return None
        return fe

    def _stray_beam(self, state: State) -> bool:
        """Beam where there should be none, or after the end of a delivery a front end that would still start by itself,
        since the command that should have stopped it was lost; at most once a second, since what is done about it takes
        its time."""
        fe = self._link.fe
        if fe is None:
            return False
        waits = state in _ENDED and fe.state in ACTIVE and self._link.lost() is None
        if not waits and fe.state is not FrontEndState.IRRADIATING:
            return False
        return asyncio.get_running_loop().time() - self._stray_s >= _STRAY_EVERY_S

    def _timeout(self, state: State, fe: FeStatus | None) -> Found | None:
        if state not in BEAM_POSSIBLE:
            return None
        now_s = asyncio.get_running_loop().time()
        seen = () if fe is None else (fe.done_spots, fe.ic1_ions)
        if seen != self._last or not self._last:
            self._last, self._since_s = seen or (None,), now_s
        elif now_s - self._since_s > self._limit_s:
            reason = "" if fe is None else f", held because of {fe.hold_reason.name}"
            return Event.TIMEOUT, f"timeout.{state.value.lower()}: nothing delivered for {self._limit_s:g} s{reason}"
        return None
