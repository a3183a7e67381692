"""Scene `delivery`: the layer machine of treatment control, a front end, and a person.

`control.layer_machine.step` is what is explored, its effects carried out in order as `control.sequencer` does, each of
them able to fail.  The permit goes at any moment, as PAUSE or ABORT, and comes back by a person's reset: that no other
way leads back is what the scene `permit` proves.

Nothing is assumed of how fast a person is, or of how late control hears: a trip may come and be reset between any two
things that control does, control may hear of it late or never, and what a person asks for waits until control is free.
A loss of the permit is as long as a tick at least: `ioc_sim.plant.Plant` holds back lines that give it again sooner.
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
    Effect.CHECK_MACHINE: (Event.CHECKS_PASSED, Event.NOTHING_LEFT, Event.VERIFY_FAILED),
    Effect.SELECT_ENERGY: (Event.ENERGY_SELECTED, Event.TIMEOUT),
    Effect.READ_REGISTER: (Event.VERIFIED_MORE, Event.VERIFIED_LAST, Event.VERIFY_FAILED),
}
TICKS = (
    ("tick", True, False, False), ("tick no-ring", False, False, False), ("tick done", True, True, False),
    ("tick stop", True, False, True),
)  # fmt: skip
"""Words, whether there is a flat top, the last spot is full, a spot ends with a stop."""
_GIVEN_UP = frozenset({*_RESULTS, Effect.ARM, Effect.RESUME_BEAM})
"""What control gives up for something more urgent."""
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
    worst: Action = Action.NONE
    """As control knows it: the worst since a person last let it go on."""
    heard: str = "abort"
    """The line as control heard of it last."""
    permit: bool = False
    """The permit line of the rack's last tick."""
    told: bool = True
    """Control has heard of the epoch of the permit that this tick made, or of none since."""
    asked: Event | None = None
    """START or resume, asked for by a person and not taken up by control yet."""
    asked_current: bool = False
    """It was asked for in the epoch of the permit that stands."""
    current: bool = False
    """What control works on was started or resumed in the epoch that stands."""
    owes_reset: bool = True
    owes_go: bool = True
    """After the reset somebody must start or resume: witnesses, nothing acts on them."""
    asked_owes: bool = True
    """It was asked for before the reset."""

    def forgotten(self) -> State:
        """Nothing is asked for: what it was like matters no more."""
        return self._replace(asked_current=False, asked_owes=True)


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
        for words, ring, done, stop in TICKS:
            ticked = _ticked(state, permit)
            front = ticked.front.tick(permit, hold, action, ring, done, stop)
            if (front != state.front or ticked != state) and (not done or state.front.state is F.IRRADIATING):
                yield words, ticked._replace(front=front)
        for line in WORSE[state.line]:
            yield f"line {line}", _tripped(state, line)
        heard = "beam" if state.line == "hold" else state.line  # control lets a HOLD be
        if heard != state.heard:
            worst = max(state.worst, LINE[heard][2]) if state.control in DELIVERING else state.worst
            yield "control hears of the line", state._replace(heard=heard, worst=worst)
        if not state.told:
            yield "control hears of the front end", state._replace(told=True)
        yield from self._perform(state) if state.queue else self._react(state)
        yield from self._person(state)

    # --- control ----------------------------------------------------------------------------------------------
    def _perform(self, state: State) -> Iterator[tuple[str, State]]:
        effect, rest = state.queue[0], state.queue[1:]
        name = f"control {effect.name}"
        front = state.front
        if effect in _COMMAND:
            front = front.command(_COMMAND[effect], state.permit, state.current)
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
        if effect in _GIVEN_UP:
            yield f"{name} given up", state._replace(queue=rest)

    def _react(self, state: State) -> Iterator[tuple[str, State]]:
        """What the sequencer looks at when it is free: reasons to stop, results, progress, in this order."""
        stop = self._stop(state)
        if state.asked is not None:
            yield f"takes up {state.asked.name}", _taken_up(state, state.asked)
        elif stop is not None:
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
            action = state.worst if control in DELIVERING else LINE[state.heard][2]
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
            return Event.PERMIT_GIVEN if LINE[state.heard][0] else Event.PERMIT_LOST
        if control not in BEAM_POSSIBLE:
            return None
        if front is F.DONE:
            return Event.LAYER_DONE
        if front is F.LOADED and state.told and not state.current:
            return Event.REFUSED
        if front is F.IRRADIATING and control is not C.IRRADIATING:
            return Event.BEAM_ON
        return Event.HOLD if front is F.HELD and control is not C.HELD else None

    # --- a person ---------------------------------------------------------------------------------------------
    def _person(self, state: State) -> Iterator[tuple[str, State]]:
        if state.line in ("pause", "abort") and not state.permit:
            yield "person reset", state._replace(line="beam", owes_reset=False)
        if state.asked is not None:
            return
        for event in REQUESTS:
            if refused(state.control, event) or not self._offered(state, event):
                continue
            if event in _GO_ON:  # when it was asked for matters
                yield (
                    f"person {event.name}",
                    state._replace(asked=event, asked_current=state.told, asked_owes=state.owes_reset),
                )
            elif not state.queue:
                yield f"person {event.name}", _taken_up(state, event)

    @staticmethod
    def _offered(state: State, event: Event) -> bool:
        """A resume is offered under a permit only, as what fits the front end."""
        if event not in (Event.RESUME, Event.RESELECT):
            return True
        holds = state.front.state in UNFINISHED or state.front.state is F.DONE
        return LINE[state.heard][0] and holds == (event is Event.RESUME)

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
        line=line, owes_reset=state.owes_reset or trip, owes_go=state.owes_go or trip,
        asked_owes=state.asked_owes or trip,
    )  # fmt: skip


def _ticked(state: State, permit: bool) -> State:
    """The rack's next tick makes its permit line; a change begins another epoch, which nobody has read yet."""
    if permit == state.permit:
        return state
    return state._replace(
        permit=permit, front=state.front.permit_changed(), told=False, asked_current=False, current=False
    )


def _taken_up(state: State, event: Event) -> State:
    """Control comes to what was asked for; it may not be possible any more."""
    state = state._replace(asked=None)
    if refused(state.control, event):
        return state.forgotten()
    if event in _GO_ON:
        state = state._replace(
            worst=LINE[state.heard][2], current=state.asked_current, owes_go=state.owes_go and state.asked_owes
        )
    return _apply(state._replace(result=None).forgotten(), event)


def _apply(state: State, event: Event) -> State:
    if not matters(state.control, event):
        return state
    control, effects = step(state.control, event)
    after = state._replace(control=control, queue=tuple(e for e in effects if e in _COMMAND or e in _RESULTS))
    # a person's word to go on sets both anew
    return after if control in DELIVERING else after._replace(worst=Action.NONE, current=False)


def _owes_nothing(before: State, _label: str, after: State) -> bool:
    return not after.front.demand or before.front.demand or not (after.owes_reset or after.owes_go)


def _asked_in_armed(before: State, _label: str, after: State) -> bool:
    asked = {Effect.ARM, Effect.RESUME_BEAM}
    return not (asked & set(after.queue)) or bool(asked & set(before.queue)) or after.control is C.ARMED


def _closed(state: State) -> bool:
    return state.control is C.STANDBY and state.front.state not in UNFINISHED and not state.queue


def _beam_again(_from: Control):  # type: ignore[no-untyped-def]
    return lambda before, label, after: before.control is _from and label == "takes up RESUME"
