"""The account of a field, as a pure step: (spec, state, event) -> (state, effects).

A HOLD resumes by itself, but not without end: each HOLD rule may do so `max_holds` times in a field; from then on
`hold_ok` is false while it is present.  Interruptions of the permit are counted too; beyond `max_pauses`, `pause_ok` is
false.  Rules make a PAUSE and an ABORT of that.

A field is *begun* once a layer has been active under a permit.  An ABORT of a field that has begun is a termination; it
is *unresolved* until a physicist says in words what became of it.  Only signed words of a person change which field it
is or clear a count: opening a field with another session, closing one, resolving a termination.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, TypeAlias

from facility.states import Action
from interlocks.model import PolicySettings, Rule


class FieldSpec(NamedTuple):
    """Bounds of one field."""

    rules: tuple[str, ...]
    """HOLD rules that are counted, by id."""
    max_holds: tuple[int, ...]
    max_pauses: int


class FieldState(NamedTuple):
    """What is remembered of the field under way."""

    holds: tuple[int, ...]
    """How often each HOLD rule has held a layer."""
    session: str = ""
    """Empty: nobody has named it."""
    begun: bool = False
    pauses: int = 0
    unresolved: bool = False
    holding: int = 0
    """HOLD rules present at the last observation, mask."""
    released: bool = False
    """There was a permit at the last observation."""


class Observed(NamedTuple):
    """A scan has been made."""

    active: bool
    """A layer is armed, irradiating, held or paused."""
    holding: int
    """HOLD rules that are present, mask by place in the spec."""
    released: bool
    aborted: bool
    """There is no permit, and an ABORT took it or has come since."""


class Opened(NamedTuple):
    """A person begins a field."""

    session: str
    active: bool


class Closed(NamedTuple):
    """A person ends a field that is over."""

    session: str
    active: bool


class Resolved(NamedTuple):
    """A physicist has accounted for a termination."""

    session: str
    resume: bool
    """The field goes on; otherwise it is closed."""


Event: TypeAlias = Observed | Opened | Closed | Resolved


class Effect(Enum):
    """What a step leads to; the refusals change nothing."""

    BEGUN = "begun"
    HELD = "held"
    PAUSED = "paused"
    TERMINATED = "terminated"
    OPENED = "opened"
    CLOSED = "closed"
    RESOLVED = "resolved"
    REFUSED_ACTIVE = "active"
    REFUSED_UNRESOLVED = "unresolved"
    REFUSED_SAME = "same"
    REFUSED_OTHER = "other"
    REFUSED_NOTHING = "nothing"


def spec_of(rules: Iterable[Rule], settings: PolicySettings) -> FieldSpec:
    """What the rules and `[policy]` say.  The rack's echo of a HOLD from here is no HOLD of its own."""
    found = [rule for rule in rules if rule.strength == Action.HOLD and not rule.is_echo]
    bounds = (settings.max_holds if rule.max_holds is None else rule.max_holds for rule in found)
    return FieldSpec(tuple(rule.id for rule in found), tuple(bounds), settings.max_pauses)


def fresh(spec: FieldSpec) -> FieldState:
    """Nothing has happened yet."""
    return FieldState((0,) * len(spec.rules))


def step(spec: FieldSpec, state: FieldState, event: Event) -> tuple[FieldState, tuple[Effect, ...]]:
    """The next state and what follows."""
    match event:
        case Observed():
            return _observed(state, event)
        case Resolved():
            return _resolved(spec, state, event)
        case _:
            return _named(spec, state, event)


def _observed(state: FieldState, event: Observed) -> tuple[FieldState, tuple[Effect, ...]]:
    effects: list[Effect] = []
    if event.released and event.active and not state.begun:
        state = state._replace(begun=True)
        effects.append(Effect.BEGUN)
    new = event.holding & ~state.holding if event.released and event.active else 0
    if new:
        holds = tuple(count + (new >> place & 1) for place, count in enumerate(state.holds))
        state = state._replace(holds=holds)
        effects.append(Effect.HELD)
    if state.begun and state.released and not event.released and not event.aborted:
        state = state._replace(pauses=state.pauses + 1)
        effects.append(Effect.PAUSED)
    if state.begun and event.aborted and not state.unresolved:
        state = state._replace(unresolved=True)
        effects.append(Effect.TERMINATED)
    return state._replace(holding=event.holding, released=event.released), tuple(effects)


def _named(spec: FieldSpec, state: FieldState, event: Opened | Closed) -> tuple[FieldState, tuple[Effect, ...]]:
    if state.unresolved:
        return state, (Effect.REFUSED_UNRESOLVED,)
    if event.active:
        return state, (Effect.REFUSED_ACTIVE,)
    if isinstance(event, Opened):
        if event.session == state.session:
            return state, (Effect.REFUSED_SAME,)
        return _anew(spec, state, event.session), (Effect.OPENED,)
    if event.session != state.session:
        return state, (Effect.REFUSED_OTHER,)
    return _anew(spec, state, ""), (Effect.CLOSED,)


def _resolved(spec: FieldSpec, state: FieldState, event: Resolved) -> tuple[FieldState, tuple[Effect, ...]]:
    if not state.unresolved:
        return state, (Effect.REFUSED_NOTHING,)
    if event.session != state.session:
        return state, (Effect.REFUSED_OTHER,)
    return _anew(spec, state, state.session if event.resume else ""), (Effect.RESOLVED,)


def _anew(spec: FieldSpec, state: FieldState, session: str) -> FieldState:
    """Counts at zero; what is present now and whether there is a permit stay as they are."""
    return fresh(spec)._replace(session=session, holding=state.holding, released=state.released)


def hold_ok(spec: FieldSpec, state: FieldState) -> bool:
    """No HOLD is present that has used up its allowance."""
    return not any(
        state.holding >> place & 1 and count > most
        for place, (count, most) in enumerate(zip(state.holds, spec.max_holds, strict=True))
    )


def pause_ok(spec: FieldSpec, state: FieldState) -> bool:
    """The field has not been interrupted too often."""
    return state.pauses <= spec.max_pauses
