"""One rule's memory, as a pure step: (state, event, time) -> (state, effects).

A rule is *present* while its condition holds (for longer than its debounce), *latched* from the first presence until a
person with the right role resets it after the cause has gone.  HOLD and INHIBIT never latch: they are in force while
present.  A rule begins *unarmed*: it latches only after it has been good once, so that a controller that has just
started and sees nothing yet does not report forty faults; without a permit nothing depends on that.  A *standing* rule
latches only under a permit, or in a field that is under way: without, what it watches is opened and left every day.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple, TypeAlias

from facility.states import Action
from interlocks.model import Role, Rule

RANK: dict[str, int] = {"none": 0, "operator": 1, "physicist": 2}
"""What a role may reset: everything that a lower one may."""


class LatchSpec(NamedTuple):
    """What the memory of a rule needs to know of it."""

    action: Action
    latching: bool
    reset: Role
    debounce_ns: int
    standing: bool = False


class LatchState(NamedTuple):
    """Memory of a rule."""

    armed: bool = False
    present: bool = False
    latched: bool = False
    bad_since_ns: int | None = None
    """When the comparison turned bad; None while it is good."""
    value: float = math.nan
    limit: float = math.nan
    trip_value: float = math.nan
    trip_limit: float = math.nan
    t_condition_ns: int = 0
    """When the condition, with its debounce, held first; of the last trip."""
    t_decision_ns: int = 0


class Observed(NamedTuple):
    """A comparison was made."""

    good: bool
    value: float
    limit: float
    permitted: bool = True
    """There is a permit, or a field is under way."""


class Reset(NamedTuple):
    """A person with this role wants the latch to go."""

    role: str


Event: TypeAlias = Observed | Reset


class Effect(Enum):
    """What a step leads to."""

    APPEARED = "appeared"
    GONE = "gone"
    TRIPPED = "tripped"
    CLEARED = "cleared"
    REFUSED_PRESENT = "refused-present"
    REFUSED_ROLE = "refused-role"


def spec_of(rule: Rule) -> LatchSpec:
    """What the latch needs of a rule."""
    return LatchSpec(rule.strength, rule.latches, rule.reset, round(rule.debounce_us * 1000.0), rule.standing)


def masked(spec: LatchSpec) -> LatchSpec:
    """The spec of a rule while it is bypassed: it is present as before, and neither acts nor latches anew."""
    return spec._replace(action=Action.NONE, latching=False)


def step(spec: LatchSpec, state: LatchState, event: Event, t_ns: int) -> tuple[LatchState, tuple[Effect, ...]]:
    """The next state and what follows."""
    if isinstance(event, Reset):
        return _reset(spec, state, event)
    if event.good:
        return _good(state, event)
    since = t_ns if state.bad_since_ns is None else state.bad_since_ns
    seen = state._replace(value=event.value, limit=event.limit, bad_since_ns=since)
    if t_ns - since < spec.debounce_ns:
        return seen, ()
    return _present(spec, seen, event.permitted or not spec.standing, t_ns)


def _good(state: LatchState, event: Observed) -> tuple[LatchState, tuple[Effect, ...]]:
    if state.armed and state.bad_since_ns is None and (state.value, state.limit) == (event.value, event.limit):
        return state, ()  # nothing is new: by far the commonest step
    gone = (Effect.GONE,) if state.present else ()
    # armed, present, latched, bad_since_ns, value, limit; the last trip stays
    return LatchState(True, False, state.latched, None, event.value, event.limit, *state[6:]), gone


def _present(spec: LatchSpec, state: LatchState, trips: bool, t_ns: int) -> tuple[LatchState, tuple[Effect, ...]]:
    effects = () if state.present else (Effect.APPEARED,)
    state = state._replace(present=True)
    if state.latched or not spec.latching or not state.armed or not trips:
        return state, effects
    since = t_ns if state.bad_since_ns is None else state.bad_since_ns
    tripped = state._replace(
        latched=True,
        trip_value=state.value,
        trip_limit=state.limit,
        t_condition_ns=since + spec.debounce_ns,
        t_decision_ns=t_ns,
    )
    return tripped, (*effects, Effect.TRIPPED)


def _reset(spec: LatchSpec, state: LatchState, event: Reset) -> tuple[LatchState, tuple[Effect, ...]]:
    if not state.latched:
        return state, ()
    if RANK.get(event.role, 0) < RANK[spec.reset]:
        return state, (Effect.REFUSED_ROLE,)
    if state.present:
        return state, (Effect.REFUSED_PRESENT,)
    return state._replace(latched=False), (Effect.CLEARED,)


def in_force(spec: LatchSpec, state: LatchState) -> Action:
    """What the rule does now."""
    return spec.action if state.present or state.latched else Action.NONE


def deadline_ns(spec: LatchSpec, state: LatchState) -> int | None:
    """When time alone makes the condition present: the end of its debounce."""
    if state.bad_since_ns is None or state.present:
        return None
    return state.bad_since_ns + spec.debounce_ns
