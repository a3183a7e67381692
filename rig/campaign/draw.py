"""What goes wrong in a run of a campaign, drawn from its seed: several causes, at the worst moments.

The first cause comes at an instant of the delivery as it goes without a fault: at a change of control's state, at a
spot edge, at a change of the ring's phase, or anywhere. Others come right beside it, or in the recovery: so long after
control has entered a state for the n-th time since the first cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from control.layer_machine import State
from facility.timebase import BEAM_TICK_NS, NS_PER_MS, NS_PER_S
from rig.scenario.timeline import Timeline

MAX_CAUSES = 4
SHARES = {"rule": 0.5, "fault": 0.3, "operator": 0.2}
"""Of the kinds of causes."""
_COUNT_SHARES = (0.35, 0.35, 0.2, 0.1)
_BESIDE_SHARE = 0.5
_BESIDE_NS = 8.0 * NS_PER_MS
_GIVES_UP_SHARE = 0.04
_ANCHORS = (
    State.INTERRUPTED, State.TERMINATED, State.LOADED, State.PREPARED, State.READY, State.SELECT_ENERGY,
    State.LOAD_SPOTS, State.ARMED, State.IRRADIATING, State.HELD, State.VERIFY_LAYER,
)  # fmt: skip
LEAD_NS = 2 * NS_PER_MS
"""A run begins so long before its first cause."""
LASTS_MAX_NS = 150 * NS_PER_MS
"""Somebody mends quickly: a device that is ill for seconds shows nothing new, and costs a scan each millisecond."""
OPERATOR = ("pause", "stop", "start", "resume", "reset", "prepare", "load", "reset-storm", "pause-storm")


@dataclass(frozen=True)
class Cause:
    """One thing that goes wrong, or that somebody does at the wrong moment."""

    what: str
    """`rule/ID`: the cause with which this rule is tried; `fault/NAME` of the catalogue; `operator/VERB`."""
    at_ns: int
    """Facility time, or the delay after `after`."""
    after: str = ""
    """Control enters this state; empty: `at_ns` is a time."""
    nth: int = 1
    """For the n-th time since the first cause."""
    lasts_ns: int = 0
    """How long until somebody mends it, unless the operator finds it before."""
    value: float | None = None
    """Of a fault that takes one, in its unit."""

    def words(self) -> str:
        """As a person reads it."""
        when = f"{self.at_ns / NS_PER_S:.6f} s"
        if self.after:
            when = f"{self.at_ns / NS_PER_MS:.2f} ms after {self.after} no. {self.nth}"
        value = "" if self.value is None else f" of {self.value:g}"
        return f"{self.what}{value} at {when} for {self.lasts_ns / NS_PER_MS:.1f} ms"


@dataclass(frozen=True)
class Manner:
    """How the operator behaves."""

    delay_ns: int
    """Until something is done about a trip."""
    gives_up: bool
    """Lets a termination be: the field ends there."""


@dataclass(frozen=True)
class Drawn:
    """One run: everything follows from these and the trunk it leaves."""

    seed: int
    causes: tuple[Cause, ...]
    manner: Manner

    @property
    def fork_ns(self) -> int:
        """When the run leaves the trunk."""
        return min(cause.at_ns for cause in self.causes if not cause.after) - LEAD_NS


@dataclass(frozen=True)
class Instants:
    """What is drawn from, of the delivery without a fault: facility times, ns."""

    begin_ns: int
    end_ns: int
    states: tuple[int, ...]
    phases: tuple[int, ...]
    edges: tuple[int, ...]
    """The beam leaves a spot for the next one."""

    @classmethod
    def of(cls, timeline: Timeline, begin_ns: int, end_ns: int) -> Instants:
        """Of a delivery, from one instant to another."""
        kept = (t_ns for t_ns in timeline.edges_ns().tolist() if t_ns > begin_ns)
        states, phases = (tuple(t_ns for t_ns, *_ in rows) for rows in (timeline.states, timeline.phases))
        return cls(begin_ns, end_ns, states, phases, tuple(kept))


@dataclass(frozen=True)
class Choice:
    """What may be drawn."""

    pool: Mapping[str, tuple[str, ...]]
    """Names by kind."""
    touches: Callable[[str], frozenset[str]]
    """Devices that a cause makes fail: no two causes of a run have one in common."""
    value: Callable[[str, np.random.Generator], float | None]
    """Draws the value of a cause that takes one."""


def draw(seed: int, instants: Instants, choice: Choice) -> Drawn:
    """The run of a seed."""
    random = np.random.default_rng([seed, 4])
    count = 1 + int(random.choice(MAX_CAUSES, p=_COUNT_SHARES))
    causes = [_cause(random, choice, _instant_ns(random, instants))]
    for _ in range(count - 1):
        further = _further(random, choice, causes[0].at_ns, instants)
        if not any(choice.touches(further.what) & choice.touches(cause.what) for cause in causes):
            causes.append(further)
    manner = Manner(_log_uniform(random, 5 * NS_PER_MS, NS_PER_S), bool(random.random() < _GIVES_UP_SHARE))
    return Drawn(seed, tuple(causes), manner)


def _cause(random: np.random.Generator, choice: Choice, at_ns: int, after: str = "", nth: int = 1) -> Cause:
    kinds = [kind for kind in SHARES if choice.pool.get(kind)]
    shares = np.array([SHARES[kind] for kind in kinds])
    names = choice.pool[kinds[int(random.choice(len(kinds), p=shares / shares.sum()))]]
    what = names[int(random.integers(len(names)))]
    return Cause(what, at_ns, after, nth, _log_uniform(random, NS_PER_MS, LASTS_MAX_NS), choice.value(what, random))


def _instant_ns(random: np.random.Generator, instants: Instants) -> int:
    kind = random.random()
    if kind < 0.25:
        t_ns = int(random.choice(instants.states)) + int(random.integers(-3 * NS_PER_MS, 5 * NS_PER_MS))
    elif kind < 0.6:
        t_ns = int(random.choice(instants.edges)) + int(random.integers(-5 * BEAM_TICK_NS, 5 * BEAM_TICK_NS))
    elif kind < 0.75:
        t_ns = int(random.choice(instants.phases)) + int(random.integers(-2 * NS_PER_MS, 2 * NS_PER_MS))
    else:
        t_ns = int(random.integers(instants.begin_ns, instants.end_ns))
    return min(max(t_ns, instants.begin_ns + LEAD_NS), instants.end_ns)


def _further(random: np.random.Generator, choice: Choice, first_ns: int, instants: Instants) -> Cause:
    if random.random() < _BESIDE_SHARE:
        at_ns = first_ns + round(float(random.exponential(_BESIDE_NS)) * random.choice((-1.0, 1.0)))
        return _cause(random, choice, max(at_ns, instants.begin_ns + LEAD_NS))
    after = _ANCHORS[int(random.integers(len(_ANCHORS)))].name
    nth = 1 + int(random.random() < 0.3)
    return _cause(random, choice, _log_uniform(random, 10_000, 300 * NS_PER_MS), after, nth)


def _log_uniform(random: np.random.Generator, low: int, high: int) -> int:
    return round(float(np.exp(random.uniform(np.log(low), np.log(high)))))
