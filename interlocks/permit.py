"""The beam permit of the safety controller, as a pure step: (state, event, time) -> (state, effects).

The permit begins away and comes only by a person's reset while nothing stands against it.  Whatever takes it away also
takes the release away, so that a cause that goes by itself, a peer that restarts or a link that returns leaves it away.

Two lines carry it, and no power on both is the strongest: permit 0 hold 0 is ABORT, 0/1 PAUSE, 1/1 HOLD, 1/0 beam.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias

from facility.states import Action

RESET_WAIT_NS = 200_000_000
"""Longest wait for the fast tier to let its latches go after a reset: many link periods."""


class PermitState(NamedTuple):
    """What the permit remembers."""

    released: bool = False
    """A person has let the beam, and nothing has objected since."""
    dropped: Action = Action.ABORT
    """Strongest action since the release went: what the lines say while there is no permit."""
    action: Action = Action.NONE
    """In force at the last observation."""
    blocked: bool = True
    """At the last observation the safety controller itself had a PAUSE or an ABORT in force."""
    inhibited: bool = False
    """At the last observation a rule with INHIBIT was present: latches may go, no permit is released."""
    reset_seq: int = 0
    """Rises with every reset that goes to the fast tier."""
    reset_mask: int = 0
    waits_until_ns: int | None = None
    """A reset waits for the fast tier until then."""


class Observed(NamedTuple):
    """What stands against the permit, all rules of both tiers looked at."""

    action: Action
    """Strongest action in force in the safety controller itself."""
    inhibited: bool
    """A rule with INHIBIT is present: it takes no permit away, but none is released."""
    fast_latched: int
    """Latched rules of the fast tier, mask."""
    fast_action: Action
    """Strongest action of the fast tier's latches."""


class Granted(NamedTuple):
    """A person's reset was found good; `fast_mask` are latches that the fast tier has to let go."""

    fast_mask: int


class HandedBack(NamedTuple):
    """The field is over: whoever was given the permit gives it back, and nothing has tripped."""


Event: TypeAlias = Observed | Granted | HandedBack


class Effect(Enum):
    """What a step leads to."""

    RELEASED = "released"
    DROPPED = "dropped"
    HANDED_BACK = "handed-back"
    RESET_FAST = "reset-fast"
    RESET_INCOMPLETE = "reset-incomplete"
    NOT_GRANTED = "not-granted"
    INHIBITED = "inhibited"
    """The latches have gone, the permit is not released: a rule with INHIBIT is present."""


class Lines(NamedTuple):
    """The two lines to the rack."""

    permit: bool
    hold: bool


def step(state: PermitState, event: Event, t_ns: int) -> tuple[PermitState, tuple[Effect, ...]]:
    """The next state and what follows."""
    if isinstance(event, Granted):
        return _granted(state, event, t_ns)
    if isinstance(event, HandedBack):
        return _handed_back(state)
    action = max(event.action, event.fast_action)
    seen = state._replace(action=action, blocked=event.action >= Action.PAUSE, inhibited=event.inhibited)
    if state.waits_until_ns is not None:
        return _waiting(seen, event, t_ns)
    if action < Action.PAUSE:
        return seen, ()
    worst = action if state.released else max(state.dropped, action)
    effects = (Effect.DROPPED,) if state.released else ()
    return seen._replace(released=False, dropped=worst), effects


def _handed_back(state: PermitState) -> tuple[PermitState, tuple[Effect, ...]]:
    if not state.released:
        return state, ()
    return state._replace(released=False, dropped=Action.PAUSE), (Effect.HANDED_BACK,)


def _granted(state: PermitState, event: Granted, t_ns: int) -> tuple[PermitState, tuple[Effect, ...]]:
    if state.blocked:
        return state, (Effect.NOT_GRANTED,)
    if event.fast_mask == 0 and state.action >= Action.PAUSE:  # a fast latch that the reset does not speak of
        return state, (Effect.NOT_GRANTED,)
    if event.fast_mask == 0:
        return _release(state)
    waiting = state._replace(
        released=False,
        reset_seq=state.reset_seq + 1,
        reset_mask=event.fast_mask,
        waits_until_ns=t_ns + RESET_WAIT_NS,
    )
    return waiting, (Effect.RESET_FAST,)


def _waiting(state: PermitState, event: Observed, t_ns: int) -> tuple[PermitState, tuple[Effect, ...]]:
    """A reset is on its way to the fast tier: released when its latches are gone, given up on anything else."""
    foreign = event.fast_latched & ~state.reset_mask
    if state.blocked or foreign != 0:
        worst = max(state.dropped, state.action)
        return _given_up(state._replace(dropped=worst))
    if event.fast_latched == 0:
        return _release(state)
    if state.waits_until_ns is not None and t_ns >= state.waits_until_ns:
        return _given_up(state)
    return state, ()


def _given_up(state: PermitState) -> tuple[PermitState, tuple[Effect, ...]]:
    """A reset that has failed is not carried out later: frames that still say its number ask for nothing."""
    return state._replace(waits_until_ns=None, reset_mask=0), (Effect.RESET_INCOMPLETE,)


def _release(state: PermitState) -> tuple[PermitState, tuple[Effect, ...]]:
    """Nothing is latched any more: the permit comes unless a rule inhibits it; one that is there stays."""
    state = state._replace(waits_until_ns=None)
    if state.released:
        return state, ()
    if state.inhibited:
        return state, (Effect.INHIBITED,)
    return state._replace(released=True), (Effect.RELEASED,)


def lines(state: PermitState) -> Lines:
    """What the rack is told."""
    if state.released and state.action < Action.PAUSE:
        return Lines(True, state.action == Action.HOLD)
    return Lines(False, state.dropped == Action.PAUSE)
