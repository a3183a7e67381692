"""What only a mutant would get wrong: ranks one by one, edges of times, states that no step reaches."""

from __future__ import annotations

import pytest

from facility.states import Action
from interlocks import latch, permit
from interlocks.latch import Effect, LatchSpec, LatchState, Observed, Reset
from interlocks.permit import Granted, PermitState
from tests.interlocks.support import body, one_rule

MS = 1_000_000
MAY = {
    "none": {"none", "operator", "physicist", "control"},
    "operator": {"operator", "physicist"},
    "physicist": {"physicist"},
}


@pytest.mark.parametrize("wanted", ["none", "operator", "physicist"])
@pytest.mark.parametrize("role", ["none", "operator", "physicist", "control"])
def test_who_may_reset_what(wanted: latch.Role, role: str) -> None:
    spec = LatchSpec(Action.PAUSE, True, wanted, 0)
    state, effects = latch.step(spec, LatchState(armed=True, latched=True), Reset(role), 0)
    cleared = role in MAY[wanted]
    assert (state.latched, effects) == (not cleared, (Effect.CLEARED if cleared else Effect.REFUSED_ROLE,))


def test_a_rule_gives_its_latch_action_role_and_debounce_in_ns() -> None:
    rule = one_rule(body(debounce_us=1500.0)).rules[0]
    assert latch.spec_of(rule) == LatchSpec(Action.ABORT, True, "physicist", 1_500_000)


def test_a_latch_begins_with_no_times() -> None:
    state = LatchState()
    assert (state.t_condition_ns, state.t_decision_ns, state.bad_since_ns) == (0, 0, None)


def test_a_debounce_that_was_not_looked_at_in_time_is_over_all_the_same() -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 5 * MS)
    state, _ = latch.step(spec, LatchState(armed=True), Observed(False, 1.0, 0.0), 0)
    late, _ = latch.step(spec, state, Observed(False, 1.0, 0.0), 9 * MS)
    assert (late.present, late.t_condition_ns, late.t_decision_ns) == (True, 5 * MS, 9 * MS)


@pytest.mark.parametrize("before", [(1.0, 2.0), (3.0, 2.0), (2.0, 1.0), (2.0, 3.0)])
def test_a_good_value_is_followed(before: tuple[float, float]) -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 0)
    state = LatchState(armed=True, value=before[0], limit=before[1])
    after, effects = latch.step(spec, state, Observed(True, 2.0, 2.0), 0)
    assert (after.value, after.limit, after.armed, effects) == (2.0, 2.0, True, ())


@pytest.mark.parametrize(("armed", "since"), [(False, None), (True, 3)])
def test_the_same_good_value_arms_and_ends_a_debounce(armed: bool, since: int | None) -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 5 * MS)
    state = LatchState(armed=armed, value=2.0, limit=3.0, bad_since_ns=since)
    after, _ = latch.step(spec, state, Observed(True, 2.0, 3.0), 4)
    assert (after.armed, after.bad_since_ns) == (True, None)


def seen(action: Action = Action.NONE, mask: int = 0, fast: Action = Action.NONE) -> permit.Observed:
    return permit.Observed(action, False, mask, fast)


def test_the_fast_tier_has_200_ms_to_let_go() -> None:
    assert permit.RESET_WAIT_NS == 200 * MS
    state, _ = permit.step(PermitState(), seen(mask=1, fast=Action.ABORT), 0)
    state, _ = permit.step(state, Granted(1), 0)
    assert permit.step(state, seen(mask=1, fast=Action.ABORT), 201 * MS)[1] == (permit.Effect.RESET_INCOMPLETE,)


@pytest.mark.parametrize("action", [Action.PAUSE, Action.ABORT])
def test_a_fast_latch_that_the_reset_does_not_speak_of_stands_against_it(action: Action) -> None:
    state, _ = permit.step(PermitState(), seen(mask=1, fast=action), 0)
    assert permit.step(state, Granted(0), 0) == (state, (permit.Effect.NOT_GRANTED,))


@pytest.mark.parametrize("action", [Action.PAUSE, Action.ABORT])
def test_an_own_action_stands_against_a_reset_of_the_fast_tier(action: Action) -> None:
    state, _ = permit.step(PermitState(), seen(action), 0)
    assert permit.step(state, Granted(1), 0) == (state, (permit.Effect.NOT_GRANTED,))


def test_each_reset_of_the_fast_tier_has_a_number_of_its_own() -> None:
    state, _ = permit.step(PermitState(), seen(mask=1, fast=Action.ABORT), 0)
    assert (state.reset_seq, state.reset_mask) == (0, 0)
    numbers = []
    for _ in range(3):
        state, _ = permit.step(state, Granted(1), 0)
        numbers.append(state.reset_seq)
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize("action", [Action.PAUSE, Action.ABORT])
def test_lines_give_no_permit_against_an_action_whatever_was_released(action: Action) -> None:
    assert not permit.lines(PermitState(released=True, action=action)).permit


@pytest.mark.parametrize("dropped", [action for action in Action if action is not Action.PAUSE])
def test_only_a_pause_shows_as_pause(dropped: Action) -> None:
    assert permit.lines(PermitState(dropped=dropped)) == (False, False)


def test_a_latch_begins_unarmed_and_a_permit_begins_away_and_blocked() -> None:
    state = LatchState()
    assert (state.armed, state.present, state.latched) == (False, False, False)
    assert PermitState() == (False, Action.ABORT, Action.NONE, True, False, 0, 0, None)


def test_the_last_trip_is_remembered_when_its_cause_has_gone() -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 0)
    state, _ = latch.step(spec, LatchState(armed=True), Observed(False, 7.0, 5.0), 3 * MS)
    state, _ = latch.step(spec, state, Observed(True, 4.0, 5.5), 9 * MS)
    assert state == LatchState(True, False, True, None, 4.0, 5.5, 7.0, 5.0, 3 * MS, 3 * MS)
