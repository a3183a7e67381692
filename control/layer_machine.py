"""The energy-layer state machine: what treatment control may do next, as one explicit, pure table.

`step(state, event)` gives the next state and the effects the caller has to carry out. Every state answers every
event, in one of three ways: it **moves** (next state, effects), it **refuses** (state kept, `Effect.REFUSE`: somebody
asked for something that is not allowed now) or it **ignores** (state kept, no effect: a report that means nothing
here). The table is checked for completeness when the module is loaded.

What the table guarantees, whatever the order of events:

- beam is only asked for (`Effect.ARM`, `Effect.RESUME_BEAM`) on the way into ARMED;
- after an ABORT the only way to ARMED leads through PREPARE, READY and a new START;
- after a PAUSE, a lost link, a time-out or an operator's pause the only way is an operator's RESUME.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from facility.errors import CommandRefused, InternalError
from facility.pv_catalogue import TCS_STATES


class State(Enum):
    """States; the number on the wire is the index in `TCS_STATES`."""

    STANDBY = "STANDBY"
    """No program."""
    LOADED = "LOADED"
    """A program is there; nothing has been checked at the machine."""
    PREPARED = "PREPARED"
    """Links, room and range shifters are right; the safety controller does not permit beam yet."""
    READY = "READY"
    """Waits for START, nothing else."""
    SELECT_ENERGY = "SELECT_ENERGY"
    """The ring is asked for the layer's cycle."""
    LOAD_SPOTS = "LOAD_SPOTS"
    """The layer's table goes to the front end and is checked there."""
    ARMED = "ARMED"
    """The front end starts by itself when ring, permit and gate agree."""
    IRRADIATING = "IRRADIATING"
    HELD = "HELD"
    """No beam, goes on by itself: gate, next cycle of the same layer."""
    VERIFY_LAYER = "VERIFY_LAYER"
    """The register is read and compared with the prescription."""
    COMPLETED = "COMPLETED"
    INTERRUPTED = "INTERRUPTED"
    """Beam off; goes on at the exact remainder after an operator's RESUME."""
    TERMINATED = "TERMINATED"
    """Beam off for good; the rest can only be given after PREPARE and a new START."""

    @property
    def index(self) -> int:
        """Number on the wire."""
        return TCS_STATES.index(self.value)


class Event(Enum):
    """What can happen. The first group is asked for by a person, the rest is reported by the machine."""

    LOAD = "LOAD"
    PREPARE = "PREPARE"
    START = "START"
    RESUME = "RESUME"
    """Go on; the front end still holds the unfinished layer."""
    RESELECT = "RESELECT"
    """Go on; the front end holds no unfinished layer, so the next layer is selected afresh."""
    OPERATOR_PAUSE = "OPERATOR_PAUSE"
    OPERATOR_STOP = "OPERATOR_STOP"
    CLOSE = "CLOSE"
    # reports
    CHECKS_PASSED = "CHECKS_PASSED"
    """All that PREPARE asked for is in place."""
    NOTHING_LEFT = "NOTHING_LEFT"
    """What PREPARE found: every layer has been delivered and verified, and nobody lived to say so."""
    PERMIT_GIVEN = "PERMIT_GIVEN"
    PERMIT_LOST = "PERMIT_LOST"
    ENERGY_SELECTED = "ENERGY_SELECTED"
    SPOTS_LOADED = "SPOTS_LOADED"
    ARMED_OK = "ARMED_OK"
    BEAM_ON = "BEAM_ON"
    HOLD = "HOLD"
    LAYER_DONE = "LAYER_DONE"
    VERIFIED_MORE = "VERIFIED_MORE"
    VERIFIED_LAST = "VERIFIED_LAST"
    VERIFY_FAILED = "VERIFY_FAILED"
    PAUSED_BY_INTERLOCK = "PAUSED_BY_INTERLOCK"
    ABORTED_BY_INTERLOCK = "ABORTED_BY_INTERLOCK"
    LINK_LOST = "LINK_LOST"
    TIMEOUT = "TIMEOUT"
    REFUSED = "REFUSED"
    """The machine refused a command."""


class Effect(Enum):
    """What the caller of `step` must do, in the order given."""

    REFUSE = "REFUSE"
    """Tell whoever asked that this is not possible now."""
    REPORT = "REPORT"
    """Tell the operator why the machine is not prepared."""
    OPEN_SESSION = "OPEN_SESSION"
    CHECK_MACHINE = "CHECK_MACHINE"
    """Account for what an earlier, stopped delivery gave; check links and room; put the range shifters in place."""
    SELECT_ENERGY = "SELECT_ENERGY"
    LOAD_SPOTS = "LOAD_SPOTS"
    ARM = "ARM"
    PREFETCH = "PREFETCH"
    """Ask the ring for the next layer's cycle and write its table."""
    RESUME_BEAM = "RESUME_BEAM"
    """Lift the front end's pause."""
    PAUSE_BEAM = "PAUSE_BEAM"
    """Pause the front end if it could start or has beam."""
    STOP_BEAM = "STOP_BEAM"
    """Disarm the front end, end the cycle."""
    READ_REGISTER = "READ_REGISTER"
    """Read, verify, book the layer."""
    PEEK = "PEEK"
    """Read the register of an interrupted layer for the record; nothing is booked."""
    ACCOUNT = "ACCOUNT"
    """Read the register of an unfinished layer and book what was delivered."""
    END_CYCLE = "END_CYCLE"
    CLOSE_RECORD = "CLOSE_RECORD"
    """Write the summary."""
    CLOSE_SESSION = "CLOSE_SESSION"


Outcome = tuple[State, tuple[Effect, ...]]

REQUESTS = frozenset(
    {
        Event.LOAD,
        Event.PREPARE,
        Event.START,
        Event.RESUME,
        Event.RESELECT,
        Event.OPERATOR_PAUSE,
        Event.OPERATOR_STOP,
        Event.CLOSE,
    }
)
"""Events that a person asks for: never ignored, refused where they are not allowed."""

DELIVERING = frozenset(
    {
        State.SELECT_ENERGY,
        State.LOAD_SPOTS,
        State.ARMED,
        State.IRRADIATING,
        State.HELD,
        State.VERIFY_LAYER,
    }
)
"""States in which control acts by itself."""
BEAM_POSSIBLE = frozenset({State.ARMED, State.IRRADIATING, State.HELD})
"""States in which the front end may have beam."""
HOLDING = DELIVERING | {State.INTERRUPTED}
"""States in which what the front end holds is the open session's."""

_S, _E, _F = State, Event, Effect

_INTERRUPT = (_F.PAUSE_BEAM, _F.PEEK, _F.CLOSE_RECORD)
_TERMINATE = (_F.STOP_BEAM, _F.ACCOUNT, _F.CLOSE_RECORD)

_STOPS: dict[Event, Outcome] = {
    _E.OPERATOR_PAUSE: (_S.INTERRUPTED, _INTERRUPT),
    _E.PAUSED_BY_INTERLOCK: (_S.INTERRUPTED, _INTERRUPT),
    _E.LINK_LOST: (_S.INTERRUPTED, (_F.PAUSE_BEAM, _F.CLOSE_RECORD)),
    _E.TIMEOUT: (_S.INTERRUPTED, _INTERRUPT),
    _E.REFUSED: (_S.INTERRUPTED, _INTERRUPT),
    _E.OPERATOR_STOP: (_S.TERMINATED, _TERMINATE),
    _E.ABORTED_BY_INTERLOCK: (_S.TERMINATED, _TERMINATE),
    _E.VERIFY_FAILED: (_S.TERMINATED, _TERMINATE),
}
"""What takes every delivering state out of delivery."""

_BACK: dict[Event, Outcome] = {
    _E.LINK_LOST: (_S.LOADED, (_F.REPORT,)),
    _E.TIMEOUT: (_S.LOADED, (_F.REPORT,)),
    _E.REFUSED: (_S.LOADED, (_F.REPORT,)),
    _E.VERIFY_FAILED: (_S.LOADED, (_F.REPORT,)),
    _E.CLOSE: (_S.STANDBY, (_F.CLOSE_SESSION,)),
    _E.BEAM_ON: (_S.TERMINATED, _TERMINATE),
}
"""What takes a prepared machine back to LOADED: what was checked is not known any more."""

_STRAY_BEAM: dict[Event, Outcome] = {_E.BEAM_ON: (_S.TERMINATED, _TERMINATE)}
"""Beam although nothing is armed."""

_MOVES: dict[State, dict[Event, Outcome]] = {
    _S.STANDBY: {
        _E.LOAD: (_S.LOADED, (_F.OPEN_SESSION,)),
        _E.BEAM_ON: (_S.STANDBY, (_F.STOP_BEAM,)),
    },
    _S.LOADED: _BACK | {
        _E.LOAD: (_S.LOADED, (_F.CLOSE_SESSION, _F.OPEN_SESSION)),
        _E.PREPARE: (_S.LOADED, (_F.CHECK_MACHINE,)),
        _E.CHECKS_PASSED: (_S.PREPARED, ()),
        _E.NOTHING_LEFT: (_S.COMPLETED, (_F.CLOSE_RECORD,)),
    },
    _S.PREPARED: _BACK | {
        _E.PREPARE: (_S.LOADED, (_F.CHECK_MACHINE,)),
        _E.PERMIT_GIVEN: (_S.READY, ()),
    },
    _S.READY: _BACK | {
        _E.PREPARE: (_S.LOADED, (_F.CHECK_MACHINE,)),
        _E.PERMIT_LOST: (_S.PREPARED, ()),
        _E.PAUSED_BY_INTERLOCK: (_S.PREPARED, ()),
        _E.ABORTED_BY_INTERLOCK: (_S.LOADED, ()),
        _E.START: (_S.SELECT_ENERGY, (_F.SELECT_ENERGY,)),
    },
    _S.SELECT_ENERGY: _STOPS | _STRAY_BEAM | {
        _E.ENERGY_SELECTED: (_S.LOAD_SPOTS, (_F.LOAD_SPOTS,)),
    },
    _S.LOAD_SPOTS: _STOPS | _STRAY_BEAM | {
        _E.SPOTS_LOADED: (_S.ARMED, (_F.ARM,)),
    },
    _S.ARMED: _STOPS | {
        _E.ARMED_OK: (_S.ARMED, (_F.PREFETCH,)),
        _E.BEAM_ON: (_S.IRRADIATING, ()),
        _E.HOLD: (_S.HELD, ()),
        _E.LAYER_DONE: (_S.VERIFY_LAYER, (_F.READ_REGISTER,)),
    },
    _S.IRRADIATING: _STOPS | {
        _E.ARMED_OK: (_S.IRRADIATING, (_F.PREFETCH,)),
        _E.HOLD: (_S.HELD, ()),
        _E.LAYER_DONE: (_S.VERIFY_LAYER, (_F.READ_REGISTER,)),
    },
    _S.HELD: _STOPS | {
        _E.ARMED_OK: (_S.HELD, (_F.PREFETCH,)),
        _E.BEAM_ON: (_S.IRRADIATING, ()),
        _E.LAYER_DONE: (_S.VERIFY_LAYER, (_F.READ_REGISTER,)),
    },
    _S.VERIFY_LAYER: _STOPS | _STRAY_BEAM | {
        _E.VERIFIED_MORE: (_S.SELECT_ENERGY, (_F.SELECT_ENERGY,)),
        _E.VERIFIED_LAST: (_S.COMPLETED, (_F.END_CYCLE, _F.CLOSE_RECORD)),
    },
    _S.COMPLETED: {
        _E.BEAM_ON: (_S.COMPLETED, (_F.STOP_BEAM,)),
        _E.CLOSE: (_S.STANDBY, (_F.CLOSE_SESSION,)),
    },
    _S.INTERRUPTED: {
        _E.BEAM_ON: (_S.INTERRUPTED, (_F.PAUSE_BEAM,)),
        _E.RESUME: (_S.ARMED, (_F.RESUME_BEAM,)),
        _E.RESELECT: (_S.SELECT_ENERGY, (_F.SELECT_ENERGY,)),
        _E.ABORTED_BY_INTERLOCK: (_S.TERMINATED, _TERMINATE),
        _E.OPERATOR_STOP: (_S.TERMINATED, _TERMINATE),
    },
    _S.TERMINATED: {
        _E.BEAM_ON: (_S.TERMINATED, (_F.STOP_BEAM,)),
        _E.PREPARE: (_S.LOADED, (_F.CHECK_MACHINE,)),
        _E.CLOSE: (_S.STANDBY, (_F.CLOSE_SESSION,)),
    },
}  # fmt: skip

_REQUESTS_REFUSED: dict[State, frozenset[Event]] = {
    _S.STANDBY: REQUESTS - {_E.LOAD},
    _S.LOADED: REQUESTS - {_E.LOAD, _E.PREPARE, _E.CLOSE},
    _S.PREPARED: REQUESTS - {_E.PREPARE, _E.CLOSE},
    _S.READY: REQUESTS - {_E.PREPARE, _E.START, _E.CLOSE},
    _S.SELECT_ENERGY: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.LOAD_SPOTS: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.ARMED: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.IRRADIATING: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.HELD: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.VERIFY_LAYER: REQUESTS - {_E.OPERATOR_PAUSE, _E.OPERATOR_STOP},
    _S.COMPLETED: REQUESTS - {_E.CLOSE},
    _S.INTERRUPTED: REQUESTS - {_E.RESUME, _E.RESELECT, _E.OPERATOR_STOP},
    _S.TERMINATED: REQUESTS - {_E.PREPARE, _E.CLOSE},
}

_REPORTS_IGNORED: dict[State, frozenset[Event]] = {
    _S.STANDBY: frozenset(_E) - REQUESTS - {_E.BEAM_ON},
    _S.LOADED: frozenset(
        {_E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.ARMED_OK, _E.HOLD, _E.LAYER_DONE,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST, _E.PAUSED_BY_INTERLOCK, _E.ABORTED_BY_INTERLOCK}
    ),
    _S.PREPARED: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.ARMED_OK, _E.HOLD, _E.LAYER_DONE,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST, _E.PAUSED_BY_INTERLOCK, _E.ABORTED_BY_INTERLOCK}
    ),
    _S.READY: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.ARMED_OK, _E.HOLD, _E.LAYER_DONE,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST}
    ),
    _S.SELECT_ENERGY: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.SPOTS_LOADED, _E.ARMED_OK, _E.HOLD, _E.LAYER_DONE,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST}
    ),
    _S.LOAD_SPOTS: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.ARMED_OK, _E.HOLD, _E.LAYER_DONE,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST}
    ),
    _S.ARMED: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.VERIFIED_MORE,
         _E.VERIFIED_LAST}
    ),
    _S.IRRADIATING: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.BEAM_ON,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST}
    ),
    _S.HELD: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.HOLD,
         _E.VERIFIED_MORE, _E.VERIFIED_LAST}
    ),
    _S.VERIFY_LAYER: frozenset(
        {_E.CHECKS_PASSED, _E.NOTHING_LEFT,
         _E.PERMIT_GIVEN, _E.PERMIT_LOST, _E.ENERGY_SELECTED, _E.SPOTS_LOADED, _E.ARMED_OK, _E.HOLD,
         _E.LAYER_DONE}
    ),
    _S.COMPLETED: frozenset(_E) - REQUESTS - {_E.BEAM_ON},
    _S.INTERRUPTED: frozenset(_E) - REQUESTS - {_E.BEAM_ON, _E.ABORTED_BY_INTERLOCK},
    _S.TERMINATED: frozenset(_E) - REQUESTS - {_E.BEAM_ON},
}  # fmt: skip


def _build() -> Mapping[tuple[State, Event], Outcome]:
    """One cell for each pair; InternalError where two answers or none are given."""
    table: dict[tuple[State, Event], Outcome] = {}
    for state in State:
        answers: list[tuple[Event, Outcome]] = list(_MOVES[state].items())
        answers += [(event, (state, (Effect.REFUSE,))) for event in _REQUESTS_REFUSED[state]]
        answers += [(event, (state, ())) for event in _REPORTS_IGNORED[state]]
        given = [event for event, _ in answers]
        if len(given) != len(set(given)) or set(given) != set(Event):
            raise InternalError("layer-machine.table", f"{state.name} does not answer each event once", __name__)
        table.update({(state, event): outcome for event, outcome in answers})
    return MappingProxyType(table)


TABLE: Mapping[tuple[State, Event], Outcome] = _build()
"""(state, event) -> (next state, effects), complete."""


def step(state: State, event: Event) -> Outcome:
    """Next state and effects; pure."""
    return TABLE[state, event]


def refused(state: State, event: Event) -> bool:
    """Whether this state refuses this event."""
    return Effect.REFUSE in TABLE[state, event][1]


def matters(state: State, event: Event) -> bool:
    """Whether the event changes the state or has an effect."""
    return TABLE[state, event] != (state, ())


def not_now(state: State, event: Event) -> CommandRefused:
    """What somebody is told who asks for something that a state refuses."""
    allowed = ", ".join(sorted(e.name for e in REQUESTS - {Event.RESELECT} if not refused(state, e)))
    what = f"{event.name} is not possible in {state.name}"
    return CommandRefused("control.state", what, "sequencer", f"possible: {allowed or 'nothing'}")
