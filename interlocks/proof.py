"""Pre-beam proof tests as a pure step: (state, event, time) -> (state, effects).

The rack carries out one action after another; each gives up to four values, and each proof test judges one of them.
What was judged is remembered with its time and expires.  A test that is being run is missing until it is judged again.

The permit loop is proven from this end: both lines are raised to permit *and hold*, which lets no beam, and must be
seen in the process image, then dropped, and seen again.  Whatever trips meanwhile ends the test as failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, TypeAlias

from facility.states import ProofAction

NS_PER_MS = 1_000_000
VALUES = 4
"""Values an action gives at most."""


class Proof(NamedTuple):
    """One proof test, its limits resolved for a facility."""

    id: str
    title: str
    hazard: str
    action: ProofAction
    place: int
    """Which of the action's values it judges, from 0."""
    low: float
    high: float
    unit: str
    valid_ns: int

    def passes(self, value: float) -> bool:
        """Whether a value is within the limits; not-a-number is not."""
        return self.low <= value <= self.high

    def limits(self) -> str:
        """The limits in words."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        if math.isinf(self.low):
            return f"at most {self.high:.6g}{unit}"
        return f"{self.low:.6g} to {self.high:.6g}{unit}"


class Outcome(NamedTuple):
    """What a test gave last."""

    value: float
    passed: bool
    t_ns: int


class Loop(Enum):
    """Where the test of the permit loop is."""

    REST = 0
    RAISED = 1
    DROPPED = 2


class ProofState(NamedTuple):
    """What is remembered; `outcomes` in the order of the tests, None for one that has not been run."""

    outcomes: tuple[Outcome | None, ...]
    wanted: frozenset[int] = frozenset()
    """Tests that are still to be judged in this run."""
    queue: tuple[ProofAction, ...] = ()
    action: ProofAction | None = None
    seq: int = 0
    """Number of the last request to the rack; the rack says it when the action is over."""
    since_ns: int = 0
    loop: Loop = Loop.REST
    loop_ns: int = 0
    raise_ms: float = 0.0


class Begin(NamedTuple):
    """Run these tests."""

    tests: frozenset[int]


class Seen(NamedTuple):
    """What the process image says; `seq` and `values` of the rack's last action, the two lines as the rack has them."""

    seq: float
    values: tuple[float, ...]
    permit: float
    hold: float
    quiet: bool
    """No flat top, no active layer, no PAUSE and no ABORT in force."""


class Blind(NamedTuple):
    """There is no image to believe."""


Event: TypeAlias = Begin | Seen | Blind


class Effect(Enum):
    """What a step leads to."""

    ASKED = "asked"
    """The rack is asked for an action, or the loop's lines change."""
    JUDGED = "judged"
    FINISHED = "finished"


def step(
    proofs: tuple[Proof, ...], longest_ns: int, state: ProofState, event: Event, t_ns: int
) -> tuple[ProofState, tuple[Effect, ...]]:
    """The next state and what follows; an action that takes longer than `longest_ns` has failed."""
    if isinstance(event, Begin):
        outcomes = tuple(None if i in event.tests else known for i, known in enumerate(state.outcomes))
        actions = {proofs[i].action for i in event.tests}
        queue = tuple(action for action in ProofAction if action in actions)
        return _next(state._replace(outcomes=outcomes, wanted=event.tests, queue=queue, action=None), t_ns)
    if state.action is None:
        return _idle(state, event), ()
    if isinstance(event, Blind) or t_ns - state.since_ns > longest_ns:
        return _judge(proofs, state, (math.nan,) * VALUES, t_ns)
    if state.action is ProofAction.PERMIT_LOOP:
        return _loop(proofs, state, event, t_ns)
    if event.seq != state.seq:
        return state, ()
    return _judge(proofs, state, event.values, t_ns)


def _idle(state: ProofState, event: Seen | Blind) -> ProofState:
    """Nothing is asked for: note the number that the rack shows, of a controller before this one perhaps."""
    if isinstance(event, Seen) and math.isfinite(event.seq):
        return state._replace(seq=max(state.seq, int(event.seq)))
    return state


def _next(state: ProofState, t_ns: int) -> tuple[ProofState, tuple[Effect, ...]]:
    """Ask for the next action; its number is above all that the rack has shown."""
    if not state.queue:
        return state._replace(action=None, wanted=frozenset(), loop=Loop.REST), (Effect.FINISHED,)
    action, *queue = state.queue
    loop = Loop.RAISED if action is ProofAction.PERMIT_LOOP else Loop.REST
    asked = state._replace(action=action, queue=tuple(queue), seq=state.seq + 1, since_ns=t_ns, loop=loop, loop_ns=t_ns)
    return asked, (Effect.ASKED,)


def _loop(
    proofs: tuple[Proof, ...], state: ProofState, event: Seen, t_ns: int
) -> tuple[ProofState, tuple[Effect, ...]]:
    took_ms = (t_ns - state.loop_ns) / NS_PER_MS
    if not event.quiet:
        return _judge(proofs, state, (math.nan,) * VALUES, t_ns)
    if state.loop is Loop.RAISED:
        if event.permit != 1.0 or event.hold != 1.0:
            return state, ()
        return state._replace(loop=Loop.DROPPED, loop_ns=t_ns, raise_ms=took_ms), (Effect.ASKED,)
    if event.permit != 0.0:
        return state, ()
    return _judge(proofs, state, (state.raise_ms, took_ms, math.nan, math.nan), t_ns)


def _judge(
    proofs: tuple[Proof, ...], state: ProofState, values: tuple[float, ...], t_ns: int
) -> tuple[ProofState, tuple[Effect, ...]]:
    """Judge the tests of the action that is over, and go on."""
    outcomes = list(state.outcomes)
    done = frozenset(i for i in state.wanted if proofs[i].action is state.action)
    for i in done:
        value = values[proofs[i].place]
        outcomes[i] = Outcome(value, proofs[i].passes(value), t_ns)
    judged = state._replace(outcomes=tuple(outcomes), wanted=state.wanted - done)
    following, effects = _next(judged, t_ns)
    return following, (Effect.JUDGED, *effects)


def raises(state: ProofState) -> bool:
    """Whether the lines of the permit loop are to be raised to permit and hold."""
    return state.loop is Loop.RAISED


def valid(proof: Proof, outcome: Outcome | None, t_ns: int) -> bool:
    """Whether a test has passed and still counts."""
    return outcome is not None and outcome.passed and t_ns - outcome.t_ns < proof.valid_ns


def missing(proofs: tuple[Proof, ...], state: ProofState, t_ns: int) -> int:
    """Tests that have not been run, have failed or have expired."""
    return sum(not valid(proof, outcome, t_ns) for proof, outcome in zip(proofs, state.outcomes, strict=True))


def expiries(proofs: tuple[Proof, ...], state: ProofState, t_ns: int) -> Iterator[int]:
    """When each test that counts ceases to."""
    for proof, outcome in zip(proofs, state.outcomes, strict=True):
        if outcome is not None and valid(proof, outcome, t_ns):
            yield outcome.t_ns + proof.valid_ns


def deadline_ns(proofs: tuple[Proof, ...], longest_ns: int, state: ProofState, t_ns: int) -> int | None:
    """When time alone changes something: an action that has taken too long, a test that expires; None if never."""
    times = [state.since_ns + longest_ns + 1] if state.action is not None else []
    times += expiries(proofs, state, t_ns)
    return min(times, default=None)
