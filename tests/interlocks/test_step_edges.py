"""Edges of the steps of bypass and field: instants, bounds and places in masks, one by one."""

from __future__ import annotations

import itertools

import pytest

from interlocks import bypass, field
from interlocks.bypass import BypassSpec, BypassState, Entry, Kind, Passed, RulePolicy, Unwanted, Wanted
from interlocks.field import Closed, Effect, FieldSpec, FieldState, Observed, Opened

S = 1_000_000_000
NAMES = ("a", "b", "c", "d")
BYPASSES = BypassSpec(tuple(RulePolicy(name, "clinical", False) for name in NAMES), 100 * S, 3)


def entries(*names: str, until_ns: int = 50 * S) -> BypassState:
    return BypassState(tuple(Entry(name, "ph", "phantom", 0, until_ns) for name in names))


def want(duration_ns: int, rule: str = "a") -> Wanted:
    return Wanted(rule, "ph", "phantom", duration_ns, "qa")


@pytest.mark.parametrize("late_ns", [0, 1, 7 * S])
def test_a_bypass_is_over_at_its_end_and_ever_after(late_ns: int) -> None:
    state, effects = bypass.step(BYPASSES, entries("a"), Passed("qa"), 50 * S + late_ns)
    assert (state, effects) == (BypassState(), ((Kind.EXPIRED, "a"),))


@pytest.mark.parametrize("t_ns", [0, S, 3 * S, 5 * S + 1])
@pytest.mark.parametrize("duration_ns", [1, 2, S, 3 * S, 100 * S])
def test_a_bypass_lasts_as_long_as_was_wanted(t_ns: int, duration_ns: int) -> None:
    state, _ = bypass.step(BYPASSES, BypassState(), want(duration_ns), t_ns)
    assert state.entries == (Entry("a", "ph", "phantom", t_ns, t_ns + duration_ns),)


@pytest.mark.parametrize("duration_ns", [-1, 0, 100 * S + 1])
def test_no_time_and_more_than_the_longest_are_refused(duration_ns: int) -> None:
    assert bypass.step(BYPASSES, BypassState(), want(duration_ns), 0)[1] == ((Kind.REFUSED_TIME, "a"),)


@pytest.mark.parametrize("most", range(4))
def test_no_more_than_the_most_at_once(most: int) -> None:
    spec, state = BYPASSES._replace(most=most), entries("b", "c")
    kind = bypass.step(spec, state, want(S), 0)[1][0].kind
    assert kind is (Kind.BEGUN if most > 2 else Kind.REFUSED_MANY)


@pytest.mark.parametrize("name", NAMES)
def test_ending_one_leaves_the_others(name: str) -> None:
    state, effects = bypass.step(BYPASSES, entries("a", "b", "c"), Unwanted(name), 0)
    assert [entry.rule for entry in state.entries] == [other for other in "abc" if other != name]
    assert effects == ((Kind.REFUSED_NONE if name == "d" else Kind.ENDED, name),)


FIELDS = FieldSpec(("x", "y", "z"), (1, 1, 1), 2)


def bits(mask: int) -> tuple[int, ...]:
    return tuple(mask >> place & 1 for place in range(3))


@pytest.mark.parametrize("before", range(8))
def test_each_hold_that_comes_is_counted_at_its_place(before: int) -> None:
    state = FieldState((5, 6, 7), begun=True, holding=before, released=True)
    for now in range(8):
        after, effects = field.step(FIELDS, state, Observed(True, now, True, False))
        new = bits(now & ~before)
        assert after.holds == tuple(a + b for a, b in zip((5, 6, 7), new, strict=True))
        assert (after.holding, effects) == (now, (Effect.HELD,) if any(new) else ())


def test_an_allowance_is_spent_only_by_a_hold_that_is_present_and_beyond_it() -> None:
    for holding, holds in itertools.product(range(8), itertools.product((0, 1, 2), repeat=3)):
        state = FieldState(holds, holding=holding)
        spent = any(bit and count > 1 for bit, count in zip(bits(holding), holds, strict=True))
        assert field.hold_ok(FIELDS, state) is not spent


def test_counts_of_other_rules_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        field.hold_ok(FIELDS, FieldState((0, 0)))


@pytest.mark.parametrize("pauses", range(5))
def test_pauses_up_to_the_most_are_good(pauses: int) -> None:
    assert field.pause_ok(FIELDS, FieldState((0, 0, 0), pauses=pauses)) is (pauses <= 2)


@pytest.mark.parametrize("other", ["S-0", "S-2", ""])
def test_another_session_is_opened_and_none_but_its_own_is_closed(other: str) -> None:
    state = FieldState((1, 2, 3), "S-1", begun=True, pauses=1, holding=5, released=True)
    opened, effects = field.step(FIELDS, state, Opened(other, False))
    assert (opened, effects) == (FieldState((0, 0, 0), other, holding=5, released=True), (Effect.OPENED,))
    assert field.step(FIELDS, state, Closed(other, False)) == (state, (Effect.REFUSED_OTHER,))
    closed, effects = field.step(FIELDS, state, Closed("S-1", False))
    assert (closed, effects) == (FieldState((0, 0, 0), "", holding=5, released=True), (Effect.CLOSED,))
