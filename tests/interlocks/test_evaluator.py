"""The interpreter of tier P: every kind, and the values within which it does not change its mind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlocks.evaluator import (
    INPUT_PLACE,
    Probe,
    applies,
    beat,
    beat_age_ms,
    code_box,
    code_limits,
    judge,
    probe,
    quiet_box,
)
from interlocks.process_image import N_IMAGE, PLACE, RESOLUTION
from tests.interlocks.support import body, one_rule

MS = 1_000_000
A, B = INPUT_PLACE["ic1.hv_rel"], INPUT_PLACE["ic2.hv_rel"]
PAIR: dict[str, object] = {"inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": None, "tier": "P"}


def make(**changes: object) -> Probe:
    return probe(one_rule(body(**({"inputs": ["ic1.hv_rel"], "tier": "P"} | changes))).rules[0])


MISMATCH = make(**PAIR | {"kind": "mismatch", "relative": 0.1, "high": 0.5})
EXCESS = make(**PAIR | {"kind": "excess", "relative": 1.1, "high": 0.5})
EQUAL = make(**PAIR | {"kind": "equal"})
EITHER = make(**PAIR | {"kind": "either", "equals": 1.0})
BOTH = make(**PAIR | {"kind": "digital", "equals": 1.0})
LIMIT = make()
ABOVE = make(high=None)
BELOW = make(low=None)
ALL = (MISMATCH, EXCESS, EQUAL, EITHER, BOTH, LIMIT, ABOVE, BELOW)


def inputs(a: float, b: float = 0.0) -> list[float]:
    values = [0.0] * (N_IMAGE + 2)
    values[A], values[B] = a, b
    return values


@pytest.mark.parametrize(
    ("it", "a", "b", "good", "value", "limit"),
    [
        (MISMATCH, 10.0, 8.5, True, 1.5, 1.5),
        (MISMATCH, 10.0, 8.4, False, 1.6, 1.5),
        (MISMATCH, -8.4, -10.0, False, 1.6, 1.5),
        (EXCESS, 2.7, 2.0, True, 2.7, 2.7),
        (EXCESS, 2.8, 2.0, False, 2.8, 2.7),
        (EQUAL, 3.0, 3.0, True, 3.0, 3.0),
        (EQUAL, 3.0, 4.0, False, 3.0, 4.0),
        (EITHER, 1.0, 0.0, True, 1.0, 1.0),
        (EITHER, 0.0, 1.0, True, 0.0, 1.0),
        (EITHER, 0.0, 0.0, False, 0.0, 1.0),
        (BOTH, 1.0, 1.0, True, 1.0, 1.0),
        (BOTH, 1.0, 0.0, False, 0.0, 1.0),
        (LIMIT, 1.0, 0.0, True, 1.0, 1.1),
        (LIMIT, 1.2, 0.0, False, 1.2, 1.1),
        (LIMIT, 0.8, 0.0, False, 0.8, 0.9),
        (ABOVE, 0.8, 0.0, False, 0.8, 0.9),
        (BELOW, -5.0, 0.0, True, -5.0, 1.1),
    ],
)  # fmt: skip
def test_kinds(it: Probe, a: float, b: float, good: bool, value: float, limit: float) -> None:
    found = judge(it, inputs(a, b))
    assert found.good is good
    assert (found.value, found.limit) == (pytest.approx(value), pytest.approx(limit))


@pytest.mark.parametrize("it", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_finite_number_is_bad_at_every_place(it: Probe, bad: float) -> None:
    for place in it.places:
        values = inputs(1.0, 1.0)
        values[place] = bad
        assert not judge(it, values).good


@pytest.mark.parametrize("it", ALL)
@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_within_the_box_the_judgement_stays(it: Probe, a: float, b: float, x: float, y: float) -> None:
    values = inputs(a, b)
    good = judge(it, values).good
    moved = list(values)
    for place, low, high in quiet_box(it, values, good):
        share = x if place == A else y
        low, high = max(low, -5.0), min(high, 5.0)
        assert low <= values[place] <= high
        moved[place] = low + share * (high - low)
    assert judge(it, moved).good is good


@pytest.mark.parametrize("it", ALL)
@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(0.0, 1.0), st.sampled_from([0.0, 1.0, math.nan]))
def test_within_the_box_a_rule_that_applies_at_times_stays_as_it_is(
    it: Probe, a: float, b: float, x: float, when: float
) -> None:
    it = it._replace(when=INPUT_PLACE["fe.demand"])
    values = inputs(a, b)
    values[it.when] = when
    found = judge(it, values)
    moved = [value if place in (it.when, *it.places) else 7.0 for place, value in enumerate(values)]
    box = list(quiet_box(it, values, found.good))
    if [place for place, _, _ in box] == [it.when]:
        moved[A], moved[B] = 3.0 * x, -x  # whatever they are
        assert box == [(it.when, 0.0, 0.0)]
    for place, low, high in box:
        low, high = max(low, -5.0), min(high, 5.0)
        if low <= high:  # not NaN
            moved[place] = low + x * (high - low)
    assert (judge(it, moved).good or not applies(it, moved)) is (found.good or not applies(it, values))


@pytest.mark.parametrize(("a", "lowest"), [(0.0, "below"), (1.6, "at")])
def test_an_excess_lets_the_first_rise_to_its_limit_and_the_second_rise(a: float, lowest: str) -> None:
    values = inputs(a, 1.0)
    (first, _, top), (second, low, _) = quiet_box(EXCESS, values, True)
    assert (first, second) == (A, B)
    assert a <= top <= 1.6
    assert (low < 1.0) is (lowest == "below")


def test_beats_prove_life_for_as_long_as_they_are_many() -> None:
    state = beat(None, 5.0, 0)
    assert beat_age_ms(state, 5.0, 0) == 0.0
    state = beat(state, 15.0, 20 * MS)
    assert beat_age_ms(state, 15.0, 20 * MS) == 10.0
    state = beat(state, 15.0, 25 * MS)
    assert beat_age_ms(state, 15.0, 25 * MS) == 15.0
    state = beat(state, 16.0, 26 * MS)  # it lives again
    assert beat_age_ms(state, 16.0, 26 * MS) == 0.0
    assert beat(state, math.nan, 27 * MS) == state
    assert math.isnan(beat_age_ms(state, math.nan, 27 * MS))
    assert math.isnan(beat_age_ms(None, 1.0, 0))
    state = beat(state, 10.0, 30 * MS)
    assert beat_age_ms(state, 10.0, 30 * MS) == 4.0


def test_code_limits_are_the_intersection_of_boxes_between_codes() -> None:
    place = PLACE["ic1.hv_rel"]
    step = RESOLUTION[place]
    low, high = code_limits(map(code_box, [(place, 0.95, math.inf), (place, -math.inf, 1.05)]))
    assert low[place] == pytest.approx(0.95 / step - 0.49)
    assert high[place] == pytest.approx(1.05 / step + 0.49)
    assert np.isinf(np.delete(low, place)).all()
    low, high = code_limits(map(code_box, [(place, 0.950004, 1.049996)]))
    assert low[place] == 95001 - 0.49
    assert high[place] == 104999 + 0.49
    low, high = code_limits(map(code_box, [(place, math.nan, math.nan)]))
    assert np.isnan([low[place], high[place]]).all()
