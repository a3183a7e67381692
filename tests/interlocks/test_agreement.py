"""The comparison of the two evaluators by itself: what counts as a difference, what stays, who lets go."""

from __future__ import annotations

import math

import pytest

from facility.states import Action
from interlocks.agreement import Agreement
from interlocks.own_inputs import OWN_INPUTS
from interlocks.process_image import PLACE
from interlocks.second import SecondEvaluator, complement_of
from tests.interlocks.support import body, one_rule

RULE = one_rule(body()).rules[0]
GOOD, BAD, TRIPPED = (True, False, False), (False, True, False), (False, True, True)
LATCHED = (True, False, True)


def pair(*, ruled: bool = True) -> Agreement:
    return Agreement(RULE if ruled else None, ["a", "b"])


@pytest.mark.parametrize(
    ("one", "other"),
    [(GOOD, BAD), (BAD, GOOD), (GOOD, (True, True, False)), ((True, True, False), GOOD), (GOOD, LATCHED),
     (LATCHED, GOOD), (TRIPPED, BAD), (BAD, TRIPPED)],
)  # fmt: skip
def test_any_difference_trips_once_and_names_its_rule(
    one: tuple[bool, bool, bool], other: tuple[bool, bool, bool]
) -> None:
    it = pair()
    assert it.compare([GOOD, GOOD], [GOOD, GOOD], True, 5) is False
    assert (it.good, it.latched, it.differing, it.action) == (True, False, (), Action.NONE)
    assert it.compare([GOOD, one], [GOOD, other], True, 7) is True
    assert (it.good, it.latched, it.differing, it.action) == (False, True, ("b",), Action.ABORT)
    assert it.compare([GOOD, one], [GOOD, other], True, 8) is False
    assert it.latched
    view = it.view(RULE)
    assert (view.trip_value, view.trip_limit, view.since_ns, view.limit) == (0.0, 1.0, 7, 1.0)


def test_what_both_find_is_no_difference() -> None:
    it = pair()
    for both in (GOOD, BAD, TRIPPED, LATCHED):
        assert it.compare([both, GOOD], [both, GOOD], True, 1) is False
    assert it.view(RULE).value == 1.0


def test_another_image_is_a_difference_without_a_rule() -> None:
    it = pair()
    assert it.compare([GOOD, GOOD], [GOOD, GOOD], False, 1) is True
    assert (it.differing, it.good, it.view(RULE).present, it.view(RULE).value) == ((), False, True, 0.0)


def test_both_judge_the_same_rules_or_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        pair().compare([GOOD, GOOD], [GOOD], True, 1)


def test_a_latch_of_one_alone_is_news_once_and_again_after_it_was_gone() -> None:
    it = pair()
    assert it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 1)
    assert it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 2) is False
    assert (it.good, it.differing, it.action) == (True, (), Action.ABORT)
    assert it.compare([LATCHED, LATCHED], [GOOD, GOOD], True, 3) is False
    assert (it.good, it.differing) == (False, ("b",))
    it.compare([GOOD, GOOD], [GOOD, GOOD], True, 4)
    it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 5)
    assert it.differing == ("a",)


def test_rules_that_differ_are_named_in_order_those_that_differ_now_first() -> None:
    it = pair()
    it.compare([LATCHED, BAD], [GOOD, GOOD], True, 1)
    assert it.differing == ("b", "a")


@pytest.mark.parametrize("role", ["none", "control", "operator", "z", ""])
def test_a_physicist_lets_go_and_nobody_else(role: str) -> None:
    it = pair()
    it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 1)
    it.reset("physicist")
    assert it.latched  # they still differ
    it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 2)
    it.reset(role)
    assert (it.latched, it.action) == (True, Action.ABORT)
    it.reset("physicist")
    assert (it.latched, it.action) == (False, Action.NONE)
    assert it.compare([LATCHED, GOOD], [GOOD, GOOD], True, 3) is True  # a latch of one alone does not outlive the reset


def test_without_a_rule_of_it_nothing_stays() -> None:
    it = pair(ruled=False)
    assert it.compare([BAD, GOOD], [GOOD, GOOD], True, 1) is True
    assert (it.latched, it.action) == (False, Action.ABORT)
    assert it.compare([GOOD, GOOD], [GOOD, GOOD], True, 2) is False
    assert it.action is Action.NONE


def test_a_comparison_that_never_tripped_shows_no_trip() -> None:
    view = pair().view(RULE)
    assert (view.present, view.latched, view.value, view.limit, view.since_ns) == (False, False, 1.0, 1.0, 0)
    assert math.isnan(view.trip_value)
    assert math.isnan(view.trip_limit)


@pytest.mark.parametrize(
    ("role", "operators", "physicists"),
    [("operator", True, False), ("physicist", True, True), ("control", False, False), ("none", False, False)],
)
def test_the_second_evaluator_knows_who_may_reset(role: str, operators: bool, physicists: bool) -> None:
    for reset, goes in (("operator", operators), ("physicist", physicists)):
        rules = one_rule(body(tier="P", inputs=["ic1.hv_rel"], action="PAUSE", reset=reset))
        it = SecondEvaluator(rules)
        own = [1] * len(OWN_INPUTS)
        for code in (100_000, 0, 100_000):
            it.take([~code if name == "ic1.hv_rel" else ~0 for name in PLACE], 0)
            it.judge(own, True, 0, [True])
        assert list(it.decisions()) == [LATCHED]
        it.reset(role)
        assert list(it.decisions()) == [(True, False, not goes)]


def test_a_complement_is_made_of_the_first_codes_of_a_payload() -> None:
    assert complement_of(b"\x00\x00\x00\x05\xff\xff\xff\xff\x80\x00\x00\x00", 2) == (~5, 0)


@pytest.mark.parametrize(("low", "high", "ends"), [(0.5, None, (50_000, math.inf)), (None, 1.5, (-math.inf, 150_000)),
                                                   (0.5, 1.5, (50_000, 150_000))])  # fmt: skip
def test_the_second_evaluator_tells_open_limits_as_infinite(
    low: float | None, high: float | None, ends: tuple[float, float]
) -> None:
    it = SecondEvaluator(one_rule(body(tier="P", inputs=["ic1.hv_rel"], low=low, high=high)))
    assert list(it.boxes()) == []
    it.take([~100_000 if name == "ic1.hv_rel" else ~0 for name in PLACE], 0)
    it.judge([1] * len(OWN_INPUTS), True, 0, [True])
    assert list(it.boxes()) == [(PLACE["ic1.hv_rel"], *ends)]


def test_a_trip_at_the_beginning_of_time_is_one() -> None:
    it = pair()
    assert math.isnan(it.view(RULE).trip_value)
    assert it.compare([GOOD, BAD], [GOOD, GOOD], True, 0) is True
    view = it.view(RULE)
    assert (view.trip_value, view.trip_limit, view.since_ns) == (0.0, 1.0, 0)
