"""Scene `delivery`: the layer machine of treatment control, a front end, and a person.

`control.layer_machine.step` is what is explored, its effects carried out in order as `control.sequencer` does, each of
them able to fail.  The permit goes at any moment, as PAUSE or ABORT, and comes back by a person's reset: that no other
way leads back is what the scene `permit` proves.  Assumed of the order of things: a person acts later than an update
of a PV takes, so that control knows of a trip before somebody has reset it (`MachineLink.worst_action` keeps it even if
control was busy); what control is about to command when a trip comes has been carried out, refused or lost by then; and
the front end, which needs 10 us, has followed its lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from control.layer_machine import BEAM_POSSIBLE, DELIVERING, REQUESTS, Effect, Event, matters, refused, step
from control.layer_machine import State as Control
from control.stages import ACTIVE, UNFINISHED
from facility.states import Action, FrontEndState
from rig.proof.explore import Occurs, Property, Recurs, Step
from rig.proof.rack_parts import FrontEnd

F, C = FrontEndState, Control
LINE = {
    "beam": (True, False, Action.NONE), "hold": (True, True, Action.HOLD), "pause": (False, True, Action.PAUSE),
    "abort": (False, False, Action.ABORT),
}  # fmt: skip
"""Permit line, hold line and action in force."""
WORSE = {"beam": ("hold", "pause", "abort"), "hold": ("beam", "pause", "abort"), "pause": ("abort",), "abort": ()}
_WATCHED = DELIVERING | {C.PREPARED, C.READY, C.INTERRUPTED}
_ENDED = (C.INTERRUPTED, C.TERMINATED, C.COMPLETED)
_GO_ON = (Event.START, Event.RESUME, Event.RESELECT)
_RESULTS = {
    Effect.CHECK_MACHINE: (Event.CHECKS_PASSED, Event.VERIFY_FAILED),
    Effect.SELECT_ENERGY: (Event.ENERGY_SELECTED, Event.TIMEOUT),
    Effect.READ_REGISTER: (Event.VERIFIED_MORE, Event.VERIFIED_LAST, Event.VERIFY_FAILED),
}
_COMMAND = {
    Effect.CHECK_MACHINE: "disarm", Effect.LOAD_SPOTS: "load", Effect.ARM: "arm", Effect.RESUME_BEAM: "resume",
    Effect.PAUSE_BEAM: "pause", Effect.STOP_BEAM: "disarm",
}  # fmt: skip
_ANSWER = {Effect.LOAD_SPOTS: (F.LOADED, Event.SPOTS_LOADED), Effect.ARM: (F.ARMED, Event.ARMED_OK)}


class State(NamedTuple):
    """Control, front end, permit, and what a person owes since the last trip."""

    control: Control = C.STANDBY
    queue: tuple[Effect, ...] = ()
    result: Event | None = None
    front: FrontEnd = FrontEnd()
    line: str = "abort"
    worst: Action = Action.ABORT
    """As control knows it: the worst since a person last let it go on."""
    owes_reset: bool = True
    owes_go: bool = True
    """After the reset somebody must start or resume: witnesses, nothing acts on them."""


class DeliveryScene:
    """See the module."""

    name = "delivery"
    words = "layer machine, front end and a person; trips, failures and lost commands at any moment"

    def initial(self) -> Iterable[tuple[str, State]]:
        """Nothing loaded, no permit."""
        yield "start", State()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """The front end follows its lines, the permit changes, control works, a person acts."""
        permit, hold, action = LINE[state.line]
        for words, ring, done in (("tick", True, False), ("tick no-ring", False, False), ("tick done", True, True)):
            front = state.front.tick(permit, hold, action, ring, done)
            if front != state.front and (not done or state.front.demand):
                yield words, state._replace(front=front)
        for line in WORSE[state.line]:
            yield f"line {line}", _tripped(state, line)
        yield from self._perform(state) if state.queue else self._react(state)
        if action < Action.PAUSE or state.front.tick(permit, hold, action, True, False) == state.front:
            yield from self._person(state)

    # --- control ----------------------------------------------------------------------------------------------
    def _perform(self, state: State) -> Iterator[tuple[str, State]]:
        effect, rest = state.queue[0], state.queue[1:]
        name = f"control {effect.name}"
        permit = LINE[state.line][0]
        front = state.front
        if effect in _COMMAND:
            front = front.command(_COMMAND[effect], permit)
        after = state._replace(queue=rest, front=front)
        if effect in _RESULTS:
            for event in _RESULTS[effect]:
                yield f"{name} {event.name}", after._replace(result=event)
        elif effect in _ANSWER:
            wanted, event = _ANSWER[effect]
            yield name, after._replace(result=event if front.state is wanted else Event.REFUSED)
        elif effect is Effect.RESUME_BEAM and front.state is F.PAUSED:
            yield name, after._replace(result=Event.REFUSED)
        else:
            yield name, after
        if effect in _COMMAND:
            lost = None if effect in (Effect.PAUSE_BEAM, Effect.STOP_BEAM) else Event.TIMEOUT
            yield f"{name} lost", state._replace(queue=rest, result=lost or state.result)
        if effect in _RESULTS and self._stop(state) is not None:
            yield f"{name} given up", state._replace(queue=rest)

    def _react(self, state: State) -> Iterator[tuple[str, State]]:
        """What the sequencer looks at when it is free: reasons to stop, results, progress, in this order."""
        stop = self._stop(state)
        if stop is not None:
            yield f"observe {stop.name}", _apply(state, stop)
        elif state.result is not None:
            yield f"result {state.result.name}", _apply(state._replace(result=None), state.result)
        else:
            event = self._progress(state)
            if event is not None and matters(state.control, event):
                yield f"observe {event.name}", _apply(state, event)
        if state.control in _WATCHED and matters(state.control, Event.LINK_LOST):
            yield "observe LINK_LOST", _apply(state, Event.LINK_LOST)

    def _stop(self, state: State) -> Event | None:
        """As `control.observer.Observer.stop`."""
        found: list[Event] = []
        control, front = state.control, state.front.state
        if control in _WATCHED:
            armed = control in BEAM_POSSIBLE or control is C.INTERRUPTED
            action = state.worst if control in DELIVERING else LINE[state.line][2]
            if action is Action.ABORT or (armed and front is F.ABORTED):
                found.append(Event.ABORTED_BY_INTERLOCK)
            if action is Action.PAUSE or (armed and front is F.PAUSED):
                found.append(Event.PAUSED_BY_INTERLOCK)
        stray = front is F.IRRADIATING or (control in _ENDED and front in ACTIVE)
        if control not in BEAM_POSSIBLE and control is not C.STANDBY and stray:
            found.append(Event.BEAM_ON)
        return next((event for event in found if matters(control, event)), None)

    def _progress(self, state: State) -> Event | None:
        """As `control.observer.Observer.progress`."""
        control, front = state.control, state.front.state
        if control in (C.PREPARED, C.READY):
            return Event.PERMIT_GIVEN if LINE[state.line][0] else Event.PERMIT_LOST
        if control not in BEAM_POSSIBLE:
            return None
        if front is F.DONE:
            return Event.LAYER_DONE
        if front is F.IRRADIATING and control is not C.IRRADIATING:
            return Event.BEAM_ON
        return Event.HOLD if front is F.HELD and control is not C.HELD else None

    # --- a person ---------------------------------------------------------------------------------------------
    def _person(self, state: State) -> Iterator[tuple[str, State]]:
        if state.queue:
            return
        if state.line in ("pause", "abort"):
            yield "person reset", state._replace(line="beam", owes_reset=False)
        for event in REQUESTS:
            if refused(state.control, event) or not self._offered(state, event):
                continue
            after = state._replace(result=None)
            if event in _GO_ON:
                after = after._replace(worst=LINE[state.line][2], owes_go=state.owes_reset)
            yield f"person {event.name}", _apply(after, event)

    @staticmethod
    def _offered(state: State, event: Event) -> bool:
        """A resume is offered under a permit only, as what fits the front end."""
        if event not in (Event.RESUME, Event.RESELECT):
            return True
        holds = state.front.state in UNFINISHED or state.front.state is F.DONE
        return LINE[state.line][0] and holds == (event is Event.RESUME)

    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Step("no path from ABORT or PAUSE to beam without a person's reset and a separate start", _owes_nothing),
            Step("beam is asked for on the way into ARMED only", _asked_in_armed),
            Recurs("every trip leads to reset or to closing the field", _closed),
            Occurs("a field is completed", lambda _b, _l, after: after.control is C.COMPLETED),
            Occurs("beam after a PAUSE", _beam_again(C.INTERRUPTED)),
            Occurs("a field is terminated", lambda _b, _l, after: after.control is C.TERMINATED),
        )

    def describe(self, state: State) -> str:
        """One line."""
        queue = ",".join(effect.name for effect in state.queue) or "-"
        return (
            f"control={state.control.name} does={queue} front={state.front.state.name} line={state.line} "
            f"worst={state.worst.name} owes={'reset ' if state.owes_reset else ''}{'start' if state.owes_go else ''}"
        )


def _tripped(state: State, line: str) -> State:
    action = LINE[line][2]
    trip = action >= Action.PAUSE
    return state._replace(
        line=line, worst=max(state.worst, action), owes_reset=state.owes_reset or trip, owes_go=state.owes_go or trip
    )


def _apply(state: State, event: Event) -> State:
    if not matters(state.control, event):
        return state
    control, effects = step(state.control, event)
    return state._replace(control=control, queue=tuple(e for e in effects if e in _COMMAND or e in _RESULTS))


def _owes_nothing(before: State, _label: str, after: State) -> bool:
    return not after.front.demand or before.front.demand or not (after.owes_reset or after.owes_go)


def _asked_in_armed(before: State, _label: str, after: State) -> bool:
    asked = {Effect.ARM, Effect.RESUME_BEAM}
    return not (asked & set(after.queue)) or bool(asked & set(before.queue)) or after.control is C.ARMED


def _closed(state: State) -> bool:
    return state.control is C.STANDBY and state.front.state not in UNFINISHED and not state.queue


def _beam_again(_from: Control):  # type: ignore[no-untyped-def]
    return lambda before, label, after: before.control is _from and label == "person RESUME"
