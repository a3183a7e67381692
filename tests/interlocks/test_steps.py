"""Latch and permit: the pure steps, by example and by property."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facility.states import Action
from interlocks import latch, permit
from interlocks.latch import Effect, LatchSpec, LatchState, Observed, Reset
from interlocks.permit import Granted, PermitState

MS = 1_000_000
ABORT = LatchSpec(Action.ABORT, True, "physicist", 0)
PAUSE = LatchSpec(Action.PAUSE, True, "operator", 5 * MS)
HOLD = LatchSpec(Action.HOLD, False, "none", 0)
GOOD = Observed(True, 1.0, 2.0)
BAD = Observed(False, 3.0, 2.0)


def walk(spec: LatchSpec, *events: latch.Event) -> tuple[LatchState, list[Effect]]:
    """Events a millisecond apart from 0."""
    state, effects = LatchState(), []
    for k, event in enumerate(events):
        state, found = latch.step(spec, state, event, k * MS)
        effects += found
    return state, effects


def test_trips_latches_and_is_reset_when_the_cause_is_gone() -> None:
    state, effects = walk(ABORT, GOOD, BAD)
    assert state.present
    assert state.latched
    assert (state.trip_value, state.trip_limit, state.t_condition_ns, state.t_decision_ns) == (3.0, 2.0, MS, MS)
    assert effects == [Effect.APPEARED, Effect.TRIPPED]
    assert walk(ABORT, GOOD, BAD, Reset("physicist"))[1][-1] is Effect.REFUSED_PRESENT
    state, effects = walk(ABORT, GOOD, BAD, GOOD)
    assert (state.present, state.latched, effects[-1]) == (False, True, Effect.GONE)
    assert walk(ABORT, GOOD, BAD, GOOD, Reset("operator"))[1][-1] is Effect.REFUSED_ROLE
    assert walk(ABORT, GOOD, BAD, GOOD, Reset("control"))[1][-1] is Effect.REFUSED_ROLE
    state, effects = walk(ABORT, GOOD, BAD, GOOD, Reset("physicist"))
    assert (state.latched, effects[-1]) == (False, Effect.CLEARED)
    assert walk(ABORT, GOOD, Reset("physicist"))[1] == []


def test_hold_is_in_force_while_present_only() -> None:
    state, effects = walk(HOLD, GOOD, BAD)
    assert latch.in_force(HOLD, state) is Action.HOLD
    assert effects == [Effect.APPEARED]
    state, _ = walk(HOLD, GOOD, BAD, GOOD)
    assert latch.in_force(HOLD, state) is Action.NONE


def test_debounce_in_one_piece() -> None:
    state, _ = walk(PAUSE, GOOD, *[BAD] * 5)
    assert not state.present
    assert latch.deadline_ns(PAUSE, state) == 6 * MS
    state, effects = walk(PAUSE, GOOD, *[BAD] * 6)
    assert effects == [Effect.APPEARED, Effect.TRIPPED]
    assert (state.t_condition_ns, state.t_decision_ns) == (6 * MS, 6 * MS)
    assert latch.deadline_ns(PAUSE, state) is None
    state, _ = walk(PAUSE, GOOD, *[BAD] * 5, GOOD, *[BAD] * 5)
    assert not state.present
    assert latch.deadline_ns(PAUSE, LatchState()) is None


def test_does_not_latch_before_it_was_good_once() -> None:
    state, effects = walk(ABORT, BAD, BAD)
    assert state.present
    assert not state.latched
    assert effects == [Effect.APPEARED]
    state, effects = walk(ABORT, BAD, GOOD, BAD)
    assert state.latched


def test_trip_values_are_of_the_trip() -> None:
    state, _ = walk(ABORT, GOOD, BAD, Observed(False, 9.0, 2.0))
    assert (state.value, state.trip_value) == (9.0, 3.0)


observations = st.builds(Observed, st.booleans(), st.floats(), st.floats())
events = st.one_of(observations, st.builds(Reset, st.sampled_from(["none", "operator", "physicist", "control", ""])))
specs = st.builds(
    lambda action, debounce: LatchSpec(
        action,
        action >= Action.PAUSE,
        "physicist" if action is Action.ABORT else "operator" if action is Action.PAUSE else "none",
        debounce * MS,
    ),
    st.sampled_from([Action.INHIBIT, Action.HOLD, Action.PAUSE, Action.ABORT]),
    st.integers(0, 3),
)


@given(specs, st.lists(events, max_size=40))
def test_properties_of_the_latch(spec: LatchSpec, history: list[latch.Event]) -> None:
    state = LatchState()
    for k, event in enumerate(history):
        before = state
        state, effects = latch.step(spec, state, event, k * MS)
        assert not (state.latched and not spec.latching)
        if before.latched and not state.latched:  # let go only by a person of rank, and not while present
            assert isinstance(event, Reset)
            assert latch.RANK[event.role] >= latch.RANK[spec.reset]
            assert not before.present
            assert Effect.CLEARED in effects
        if state.latched and not before.latched:
            assert isinstance(event, Observed)
            assert not event.good
            assert state.present
        if isinstance(event, Observed) and event.good:
            assert not state.present
        if isinstance(event, Reset):
            assert (state.present, state.armed) == (before.present, before.armed)
        if latch.in_force(spec, state) is Action.NONE:
            assert not state.present
            assert not state.latched


def seen(
    action: Action = Action.NONE, mask: int = 0, fast_action: Action | None = None, inhibited: bool = False
) -> permit.Observed:
    if fast_action is None:
        fast_action = Action.ABORT if mask else Action.NONE
    return permit.Observed(action, inhibited, mask, fast_action)


def permit_walk(*events: permit.Event) -> tuple[PermitState, list[permit.Effect]]:
    state, effects = PermitState(), []
    for k, event in enumerate(events):
        state, found = permit.step(state, event, k * MS)
        effects += found
    return state, effects


def test_begins_away_as_abort_and_comes_by_a_reset_only() -> None:
    assert permit.lines(PermitState()) == (False, False)
    assert permit_walk(Granted(0))[1] == [permit.Effect.NOT_GRANTED]
    state, _ = permit_walk(seen(), seen())
    assert permit.lines(state) == (False, False)
    state, effects = permit_walk(seen(), Granted(0))
    assert permit.lines(state) == (True, False)
    assert effects == [permit.Effect.RELEASED]
    assert permit_walk(seen(), Granted(0), Granted(0))[1] == [permit.Effect.RELEASED]


def test_lines_say_what_took_the_permit() -> None:
    released = (seen(), Granted(0))
    assert permit.lines(permit_walk(*released, seen(Action.HOLD))[0]) == (True, True)
    assert permit.lines(permit_walk(*released, seen(Action.HOLD), seen())[0]) == (True, False)
    assert permit.lines(permit_walk(*released, seen(Action.INHIBIT, inhibited=True))[0]) == (True, False)
    paused = permit_walk(*released, seen(Action.PAUSE))
    assert permit.lines(paused[0]) == (False, True)
    assert paused[1][-1] is permit.Effect.DROPPED
    assert permit.lines(permit_walk(*released, seen(Action.PAUSE), seen())[0]) == (False, True)
    assert permit.lines(permit_walk(*released, seen(Action.PAUSE), seen(Action.ABORT), seen())[0]) == (False, False)
    assert permit.lines(permit_walk(*released, seen(mask=1))[0]) == (False, False)
    assert permit.lines(permit_walk(*released, seen(mask=1, fast_action=Action.PAUSE))[0]) == (False, True)


@pytest.mark.parametrize("against", [seen(Action.PAUSE), seen(mask=2)])
def test_not_granted_while_something_stands_against_it(against: permit.Observed) -> None:
    assert permit_walk(against, Granted(0))[1] == [permit.Effect.NOT_GRANTED]


def test_an_inhibit_lets_latches_go_and_no_permit_come() -> None:
    state, effects = permit_walk(seen(inhibited=True), Granted(0))
    assert (state.released, effects) == (False, [permit.Effect.INHIBITED])
    fast = (seen(mask=1), seen(mask=1, inhibited=True), Granted(1))
    state, effects = permit_walk(*fast, seen(inhibited=True))
    assert (state.released, state.waits_until_ns, effects) == (
        False,
        None,
        [permit.Effect.RESET_FAST, permit.Effect.INHIBITED],
    )
    assert not permit_walk(*fast, seen(inhibited=True), seen())[0].released
    assert permit_walk(*fast, seen(inhibited=True), seen(), Granted(0))[0].released
    assert permit_walk(seen(), Granted(0), seen(inhibited=True), Granted(0))[0].released  # it takes none away


def test_a_reset_of_fast_latches_waits_for_the_rack() -> None:
    sent = (seen(), Granted(0), seen(mask=3), seen(mask=3), Granted(3))
    state, effects = permit_walk(*sent)
    assert (state.reset_seq, state.reset_mask) == (1, 3)
    assert effects[-1] is permit.Effect.RESET_FAST
    assert permit.lines(state) == (False, False)
    state, _ = permit_walk(*sent, seen(mask=1))
    assert not state.released
    state, effects = permit_walk(*sent, seen(mask=1), seen())
    assert (state.released, effects[-1]) == (True, permit.Effect.RELEASED)
    for hindrance in (seen(Action.PAUSE, 1), seen(mask=4)):
        state, effects = permit_walk(*sent, hindrance)
        assert (state.released, effects[-1]) == (False, permit.Effect.RESET_INCOMPLETE)
        assert (state.reset_seq, state.reset_mask) == (1, 0)  # a frame that comes late asks for nothing
        state, _ = permit_walk(*sent, hindrance, seen())
        assert not state.released


def test_a_rack_that_does_not_let_go_ends_the_wait() -> None:
    state, _ = permit_walk(seen(mask=1), Granted(1))
    late = MS + permit.RESET_WAIT_NS
    assert permit.step(state, seen(mask=1), late - 1)[1] == ()
    state, effects = permit.step(state, seen(mask=1), late)
    assert effects == (permit.Effect.RESET_INCOMPLETE,)
    assert (state.reset_seq, state.reset_mask) == (1, 0)
    state, _ = permit.step(state, seen(), late + MS)
    assert not state.released


permit_events = st.one_of(
    st.builds(
        permit.Observed,
        st.sampled_from(Action),
        st.booleans(),
        st.integers(0, 7),
        st.sampled_from([Action.PAUSE, Action.ABORT]),
    ).map(lambda e: e if e.fast_latched else e._replace(fast_action=Action.NONE)),
    st.builds(Granted, st.integers(0, 7)),
)


@given(st.lists(st.tuples(permit_events, st.integers(1, 500)), max_size=60))
def test_properties_of_the_permit(history: list[tuple[permit.Event, int]]) -> None:
    state, t_ns = PermitState(), 0
    granted_since_drop = False
    for event, wait_ms in history:
        t_ns += wait_ms * MS
        before = state
        state, effects = permit.step(state, event, t_ns)
        lines = permit.lines(state)
        if isinstance(event, Granted):
            granted_since_drop = granted_since_drop or permit.Effect.NOT_GRANTED not in effects
        elif max(event.action, event.fast_action) >= Action.PAUSE:
            assert not lines.permit  # a permit implies that nothing objects
            if before.waits_until_ns is None:
                granted_since_drop = False
        if permit.Effect.RESET_INCOMPLETE in effects:
            granted_since_drop = False
        if lines.permit:
            assert state.released
            assert granted_since_drop  # no way back but a person's reset
        assert state.reset_seq >= before.reset_seq
        assert not (state.waits_until_ns is not None and state.released)


def test_unknown_values_stay_unknown() -> None:
    assert math.isnan(LatchState().value)
