"""What the safety controller makes of the fast tier's masks: who has latched, who acts, what a reset speaks of."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from facility.signals import MASK_BITS
from facility.states import Action
from interlocks.fast_mirror import FastMirror
from interlocks.process_image import INVALID, N_IMAGE, NO_FAULT, PLACE, FastFault, OtherFault
from tests.interlocks.support import body, one_rule

IDS = ("r-a", "r-b", "r-c", "r-d")
ACTIONS = {"r-a": "HOLD", "r-b": "PAUSE", "r-c": "ABORT", "r-d": "PAUSE"}
RESETS = {"HOLD": "none", "PAUSE": "operator", "ABORT": "physicist"}
RULES = tuple(one_rule(body(id=i, action=a, reset=RESETS[a])).rules[0] for i, a in ACTIONS.items())


def image(latched: int = 0, present: int = 0, first: int = -1) -> NDArray[np.int32]:
    codes = np.zeros(N_IMAGE, dtype=np.int32)
    codes[PLACE["h.latched"]], codes[PLACE["h.present"]], codes[PLACE["h.first"]] = latched, present, first
    return codes


def mirror(latched: int = 0, present: int = 0) -> FastMirror:
    it = FastMirror(RULES)
    it.take(image(latched, present), NO_FAULT, 1)
    return it


@pytest.mark.parametrize("latched", range(16))
def test_what_acts_and_what_a_reset_speaks_of(latched: int) -> None:
    bits = [k for k in range(4) if latched >> k & 1]
    for present, bypassed in itertools.product((0, 0b0101, 0b1111), (0, 0b0011, 0b0110, 0b1111)):
        it = mirror(latched, present)
        it.bypassed_mask = bypassed
        acting = [k for k in bits if not bypassed >> k & 1]
        assert it.acting_mask == sum(1 << k for k in acting)
        assert it.acting == max((RULES[k].strength for k in acting), default=Action.NONE)
        stays = [k for k in bits if not (bypassed >> k & 1 and present >> k & 1)]
        assert it.resettable_mask == sum(1 << k for k in stays)
        assert it.present_ids() == [IDS[k] for k in range(4) if present >> k & 1]
        assert [it.view(i).latched for i in IDS] == [bool(latched >> k & 1) for k in range(4)]
        assert [it.view(i).present for i in IDS] == [bool(present >> k & 1) for k in range(4)]


def test_a_mirror_that_has_seen_nothing_knows_nothing() -> None:
    it = FastMirror(RULES)
    assert (it.present_mask, it.latched_mask, it.bypassed_mask, it.acting) == (0, 0, 0, Action.NONE)
    boxes = list(it.boxes())
    assert [place for place, _, _ in boxes] == [PLACE[n] for n in ("h.latched", "h.latched_high", "h.present",
                                                                     "h.present_high", "h.first")]  # fmt: skip
    assert all(math.isnan(low) and math.isnan(high) for _, low, high in boxes)


def test_any_code_of_a_mask_that_changes_is_news() -> None:
    it = FastMirror(RULES)
    codes = image(5, 3, 2)
    codes[PLACE["h.latched_high"]], codes[PLACE["h.present_high"]] = 7, 9
    it.take(codes, NO_FAULT, 1)
    assert [(low, high) for _, low, high in it.boxes()] == [(k, k) for k in (5.0, 7.0, 3.0, 9.0, 2.0)]


def test_bits_of_rules_that_are_not_there_are_left_out() -> None:
    it = mirror(0b110001, 0b100010)
    assert (it.latched_mask, it.present_mask) == (0b0001, 0b0010)
    it.take(image(INVALID, INVALID), NO_FAULT, 2)
    assert (it.latched_mask, it.present_mask) == (0b1111, 0b1111)
    high = image()
    high[PLACE["h.latched_high"]] = 1
    many = FastMirror([rule.model_copy(update={"id": f"x{k}"}) for k, rule in enumerate(RULES * 10)])
    assert many.take(high, NO_FAULT, 1) == [f"x{MASK_BITS}"]


@pytest.mark.parametrize(("before", "after"), [((3, 3), (3, 1)), ((3, 1), (3, 3)), ((1, 0), (0, 0)), ((0, 0), (1, 0))])
def test_a_change_in_either_mask_either_way_is_followed(before: tuple[int, int], after: tuple[int, int]) -> None:
    it = mirror(*before)
    it.take(image(*after), NO_FAULT, 2)
    assert (it.latched_mask, it.present_mask) == after
    assert [it.view(i).present for i in IDS[:2]] == [bool(after[1] & 1), bool(after[1] & 2)]
    assert [it.view(i).latched for i in IDS[:2]] == [bool(after[0] & 1), bool(after[0] & 2)]


@pytest.mark.parametrize("first", range(4))
def test_the_first_fault_is_told_first_then_the_order_of_the_file(first: int) -> None:
    it = FastMirror(RULES)
    found = it.take(image(0b1111, 0b1111, first), FastFault(first, 1.0, 2.0, 3), 9)
    assert found == [IDS[first], *(rule for rule in IDS if rule != IDS[first])]
    assert it.take(image(0b1111, 0b0111, first), NO_FAULT, 10) == []


def test_only_what_has_latched_since_is_told() -> None:
    it = mirror(0b0010)
    assert it.take(image(0b1010), NO_FAULT, 2) == ["r-d"]
    assert it.take(image(0b1000), NO_FAULT, 3) == []
    assert it.take(image(0b1010), NO_FAULT, 4) == ["r-b"]


def test_value_limit_and_time_of_a_trip_are_those_the_rack_tells() -> None:
    it = FastMirror(RULES)
    it.take(image(0b0111, 0, 1), FastFault(1, 1.5, 2.5, 30, (OtherFault(2, 3.5, 4.5, 40),)), 99)
    first, other, unknown = it.view("r-b"), it.view("r-c"), it.view("r-a")
    assert (first.value, first.limit, first.trip_value, first.trip_limit, first.since_ns) == (1.5, 2.5, 1.5, 2.5, 30)
    assert (other.value, other.limit, other.trip_value, other.trip_limit, other.since_ns) == (3.5, 4.5, 3.5, 4.5, 40)
    assert unknown.since_ns == 99
    assert math.isnan(unknown.trip_value)
    assert math.isnan(unknown.trip_limit)
    it.take(image(0b1111, 0, 1), FastFault(1, 7.0, 8.0, 50), 100)
    assert it.view("r-b").since_ns == 30  # an older latch keeps its own
    it.take(image(0), NO_FAULT, 101)
    it.take(image(0b0010), NO_FAULT, 102)
    again = it.view("r-b")
    assert (again.since_ns, again.value, math.isnan(again.trip_value), math.isnan(again.trip_limit)) == (
        102, 1.5, True, True)  # fmt: skip


def test_what_has_not_changed_is_shown_by_the_very_view_of_the_last_time() -> None:
    it = mirror(latched=0b1010, present=0b1010)
    before = list(it.views())
    it.take(image(latched=0b1110, present=0b1001), NO_FAULT, 2)
    after = list(it.views())
    assert [one is other for one, other in zip(before, after, strict=True)] == [False, False, False, True]
    assert [view.rule.id for view in after] == list(IDS)
    it.take(image(latched=0b0101, present=0b1001), NO_FAULT, 3)
    assert [view.latched for view in it.views()] == [True, False, True, False]
    assert it.views()[2] is after[2]
