"""Edges of the interpreter, the scanner and the process image: limits met exactly, nanoseconds, single codes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facility.errors import InternalError
from facility.signals import MASK_BITS
from interlocks import process_image
from interlocks.evaluator import (
    INPUT_PLACE,
    OWN_UNITS,
    BeatState,
    Judgement,
    Probe,
    applies,
    beat,
    beat_age_ms,
    code_box,
    code_limits,
    judge,
    own_values,
    probe,
    quiet_box,
)  # fmt: skip
from interlocks.latch import Effect
from interlocks.model import BEAT_MODULUS
from interlocks.process_image import INVALID, MAX_CODE, N_IMAGE, NO_FAULT, PLACE, STEPS, FastFault, OtherFault
from interlocks.scanner import Scanner
from tests.interlocks.support import body, one_rule

MS = 1_000_000
A, B = INPUT_PLACE["ic1.hv_rel"], INPUT_PLACE["ic2.hv_rel"]
PAIR: dict[str, object] = {"inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": None}
BEAT: dict[str, object] = {"inputs": ["fe.heartbeat"], "kind": "beat", "unit": "ms", "low": None, "high": 20.0}
OWN = [1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
ALIVE = [*OWN, *[1] * (len(OWN_UNITS) - len(OWN))]


def make(**changes: object) -> Probe:
    return probe(one_rule(body(**({"inputs": ["ic1.hv_rel"], "tier": "P"} | changes))).rules[0])


def inputs(a: float = 0.0, b: float = 0.0, **others: float) -> list[float]:
    values = [0.0] * len(INPUT_PLACE)
    values[A], values[B] = a, b
    for name, value in others.items():
        values[INPUT_PLACE[name.replace("__", ".")]] = value
    return values


# --- own inputs, heartbeats -----------------------------------------------------------------------------------------


def test_own_inputs_are_as_many_as_there_are_ages_in_ms() -> None:
    codes = [3_500_000 if unit == "ms" else 1 for unit in OWN_UNITS]
    assert own_values(codes) == [3.5 if unit == "ms" else 1.0 for unit in OWN_UNITS]
    unknown = own_values([INVALID] * len(OWN_UNITS))
    assert unknown == [math.inf if unit == "ms" else float(INVALID) for unit in OWN_UNITS]
    for wrong in (codes[1:], [*codes, 1]):
        with pytest.raises(ValueError, match="zip"):
            own_values(wrong)


@pytest.mark.parametrize(("risen", "proves"), [(BEAT_MODULUS // 2 - 1, True), (BEAT_MODULUS // 2, False),
                                               (BEAT_MODULUS // 3 + 1, True), (BEAT_MODULUS - 1, False)])  # fmt: skip
def test_a_count_that_rose_by_half_its_range_has_fallen(risen: int, proves: bool) -> None:
    late = BEAT_MODULUS * 2 * MS
    state = beat(BeatState(5, 0, 0), float((5 + risen) % BEAT_MODULUS), late)
    assert state == BeatState((5 + risen) % BEAT_MODULUS, late, risen * MS if proves else 0)


@pytest.mark.parametrize("looked_ns", [0, 3 * MS, 3 * MS + 1])
@pytest.mark.parametrize("risen", [1, 2, 7])
@pytest.mark.parametrize("more_ns", [-2, -1, 0, 1, 2, 3])
def test_beats_cover_less_than_one_more_than_they_are(looked_ns: int, risen: int, more_ns: int) -> None:
    t_ns = looked_ns + (risen + 1) * MS + more_ns
    state = beat(BeatState(9, looked_ns, looked_ns), 9.0 + risen, t_ns)
    assert state == BeatState(9 + risen, t_ns, t_ns if more_ns < 0 else looked_ns + risen * MS)


def test_a_count_that_stands_proves_nothing_however_soon_one_looks() -> None:
    for t_ns in (10, MS // 2, MS - 1):
        assert beat(BeatState(9, 0, -3), 9.0, t_ns) == BeatState(9, t_ns, -3)


def test_life_that_was_proven_adds_up_but_never_beyond_now() -> None:
    assert beat(BeatState(9, 0, MS), 10.0, 50 * MS) == BeatState(10, 50 * MS, 2 * MS)
    assert beat(BeatState(9, 0, 49 * MS), 11.0, 50 * MS) == BeatState(11, 50 * MS, 50 * MS)


def test_an_age_has_fractions_of_a_millisecond() -> None:
    assert beat_age_ms(BeatState(9, 0, 0), 9.0, 1_500_001) == 1.500001


# --- judging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "good"), [(0.0, False), (1.0, True), (-1.0, True), (math.nan, True)])
def test_a_rule_applies_unless_its_when_is_zero(value: float, good: bool) -> None:
    it = make(when="fe.active")
    assert it.when == INPUT_PLACE["fe.active"] > 0
    assert applies(it, inputs(fe__active=value)) is good
    assert applies(make(), inputs(fe__active=value))
    first = it._replace(when=0)
    assert applies(first, [value, *inputs()[1:]]) is good


def test_a_limit_that_is_met_exactly_is_kept_and_named() -> None:
    both = make()
    assert judge(both, inputs(0.9)) == Judgement(True, 0.9, 1.1)
    assert judge(both, inputs(1.1)) == Judgement(True, 1.1, 1.1)
    assert judge(both, inputs(math.nextafter(0.9, 0.0))).limit == 0.9
    assert judge(make(high=None), inputs(2.0)) == Judgement(True, 2.0, 0.9)
    assert judge(make(high=None), inputs(0.9)) == Judgement(True, 0.9, 0.9)
    assert judge(make(low=None), inputs(1.2)) == Judgement(False, 1.2, 1.1)


def test_pairs_without_a_relative_part_or_with_a_limit_of_zero() -> None:
    mismatch = make(**PAIR | {"kind": "mismatch", "high": 0.5})
    assert judge(mismatch, inputs(2.0, 2.5)) == Judgement(True, 0.5, 0.5)
    assert judge(mismatch, inputs(2.0, 2.75)) == Judgement(False, 0.75, 0.5)
    same = make(**PAIR | {"kind": "mismatch", "high": 0.0})
    assert judge(same, inputs(2.0, 2.0)) == Judgement(True, 0.0, 0.0)
    assert judge(same, inputs(2.0, 2.25)) == Judgement(False, 0.25, 0.0)
    ratio = make(**PAIR | {"kind": "excess", "relative": 2.0, "high": 0.0})
    assert judge(ratio, inputs(4.0, 2.0)) == Judgement(True, 4.0, 4.0)
    assert judge(ratio, inputs(4.25, 2.0)) == Judgement(False, 4.25, 4.0)
    flat = make(**PAIR | {"kind": "excess", "relative": 0.0, "high": 1.0})
    assert judge(flat, inputs(1.0, 9.0)) == Judgement(True, 1.0, 1.0)
    assert not judge(flat, inputs(1.25, 9.0)).good


# --- boxes ----------------------------------------------------------------------------------------------------------


def test_beyond_a_limit_any_value_on_the_same_side_is_as_bad() -> None:
    plain, conditional = make(), make(when="fe.active")
    above, below = math.nextafter(1.1, math.inf), math.nextafter(0.9, -math.inf)
    values = inputs(2.0, fe__active=3.0)
    assert list(quiet_box(plain, values, False)) == [(A, above, MAX_CODE * STEPS[A])]
    assert list(quiet_box(plain, inputs(0.5), False)) == [(A, -MAX_CODE * STEPS[A], below)]
    assert list(quiet_box(make(high=None), inputs(0.5), False)) == [(A, -MAX_CODE * STEPS[A], below)]
    negative = make(low=-1.1, high=-0.9)
    assert next(quiet_box(negative, inputs(-2.0), False))[2] == math.nextafter(-1.1, -math.inf)
    pinned = (INPUT_PLACE["fe.active"], 3.0, 3.0)
    assert list(quiet_box(conditional, values, False)) == [(A, above, MAX_CODE * STEPS[A]), pinned]


def test_a_bad_comparison_of_two_or_of_no_number_pins_all_it_looks_at() -> None:
    pair = PAIR | {"kind": "equal", "equals": None}
    plain, conditional = make(**pair), make(**pair, when="fe.active")
    values = inputs(2.0, 1.0, fe__active=3.0)
    differing = make(**(PAIR | {"kind": "mismatch", "equals": None, "high": 0.1}))
    assert list(quiet_box(differing, values, False)) == [(A, 2.0, 2.0), (B, 1.0, 1.0)]
    assert list(quiet_box(plain, values, False)) == [(A, 2.0, 2.0), (B, 1.0, 1.0)]
    assert list(quiet_box(conditional, values, False))[2] == (INPUT_PLACE["fe.active"], 3.0, 3.0)
    assert [box[0] for box in quiet_box(make(), inputs(math.nan), False)] == [A]
    conditional, values = make(when="fe.active"), inputs(math.inf, fe__active=3.0)
    values = inputs(2.0, fe__active=3.0)
    at_zero = conditional._replace(when=0)
    assert list(quiet_box(at_zero, [4.0, *values[1:]], False))[1] == (0, 4.0, 4.0)


def test_a_heartbeat_that_lives_pins_nothing_and_one_that_does_not_pins_its_count() -> None:
    it, values = make(**BEAT), inputs(fe__heartbeat=7.0)
    assert list(quiet_box(it, values, True)) == []
    assert list(quiet_box(it, values, False)) == [(INPUT_PLACE["fe.heartbeat"], 7.0, 7.0)]


@pytest.mark.parametrize("kind", ["digital", "either", "equal"])
def test_kinds_that_compare_for_equality_pin_their_inputs(kind: str) -> None:
    it = make(**PAIR | {"kind": kind, "equals": None if kind == "equal" else 1.0})
    assert list(quiet_box(it, inputs(1.0, 1.0), True)) == [(A, 1.0, 1.0), (B, 1.0, 1.0)]


@pytest.mark.parametrize(("relative", "divisor"), [(None, 2.0), (0.5, 2.5)])
def test_a_mismatch_lets_both_move_by_their_share_of_what_is_left(relative: float | None, divisor: float) -> None:
    it = make(**PAIR | {"kind": "mismatch", "high": 0.5, "relative": relative})
    values = inputs(1.0, 1.25)
    limit = 0.5 + (relative or 0.0) * 1.25
    slack = 0.99 * (limit - 0.25) / divisor
    (a, a_low, a_high), (b, b_low, b_high) = quiet_box(it, values, True)
    assert (a, b) == (A, B)
    assert (a_low, a_high) == pytest.approx((1.0 - slack, 1.0 + slack), abs=1e-12)
    assert (b_low, b_high) == pytest.approx((1.25 - slack, 1.25 + slack), abs=1e-12)


def test_an_excess_leaves_room_down_to_the_least_code_and_up_to_the_largest() -> None:
    it = make(**PAIR | {"kind": "excess", "relative": 1.0, "high": 0.5})
    (a, a_low, a_high), (b, b_low, b_high) = quiet_box(it, inputs(1.0, 1.0, fe__active=1.0), True)
    assert (a, b) == (A, B)
    assert (a_low, b_high) == (-MAX_CODE * STEPS[A], MAX_CODE * STEPS[B])
    assert b_low == 1.0 - STEPS[B]
    assert a_high == pytest.approx(1.5 - STEPS[B], abs=1e-12)


def test_between_two_layers_an_excess_lets_its_second_input_be_given_anew() -> None:
    it = make(**PAIR | {"kind": "excess", "relative": 2.0, "high": 0.5})
    (_, _, a_high), (_, b_low, _) = quiet_box(it, inputs(1.0, 1.0), True)
    assert b_low == pytest.approx(1.0 - 0.9 * 1.5 / 2.0, abs=1e-12)
    assert a_high == pytest.approx(0.5 + 2.0 * b_low, abs=1e-12)
    flat = make(**PAIR | {"kind": "excess", "relative": 0.0, "high": 1.5})
    (_, _, a_high), (_, b_low, _) = quiet_box(flat, inputs(1.0, 1.0), True)
    assert (a_high, b_low) == (1.5, 1.0 - STEPS[B])
    (_, _, a_high), (_, b_low, _) = quiet_box(it, inputs(2.5, 1.0), True)  # at its limit: nothing to give up
    assert (a_high, b_low) == (2.5, 1.0)


@pytest.mark.parametrize(
    ("kind", "within", "between"),
    [("digital", [A], [A]), ("limit", [A], [A]), ("equal", [A, B], ["when"]), ("either", ["when"], ["when"])],
)
def test_a_rule_that_does_not_apply_minds_what_stands_still(
    kind: str, within: list[object], between: list[object]
) -> None:
    changes: dict[str, object] = {"kind": kind}
    if kind in ("equal", "either"):
        changes |= PAIR | {"kind": kind}
    if kind in ("digital", "either"):
        changes |= {"equals": 1.0, "low": None, "high": None}
    it = make(**changes | {"when": "fe.demand"})
    for active, expected in ((1.0, within), (0.0, between)):
        found = [place for place, _, _ in quiet_box(it, inputs(1.0, 1.0, fe__active=active), True)]
        assert found == [it.when if place == "when" else place for place in expected]


def test_an_excess_of_own_inputs_takes_a_unit_for_their_resolution() -> None:
    names = ["console.age_ms", "control.age_ms"]
    it = make(**PAIR | {"kind": "excess", "relative": 1.0, "high": 10.0, "inputs": names, "unit": "ms"})
    values = inputs(console__age_ms=3.0, control__age_ms=5.0, fe__active=1.0)
    (a, a_low, a_high), (b, b_low, b_high) = quiet_box(it, values, True)
    assert (a, b) == tuple(INPUT_PLACE[name] for name in names)
    assert (a_low, a_high, b_low, b_high) == (-MAX_CODE, 14.0, 4.0, MAX_CODE)
    first = it._replace(places=(N_IMAGE, N_IMAGE))  # the first own input is the controller's, not the image's
    assert next(iter(quiet_box(first, inputs(), True)))[1] == -MAX_CODE


def test_limits_in_codes_are_those_of_all_boxes_and_know_no_inside_of_nan() -> None:
    low, high = code_limits(map(code_box, [(A, 0.5, 2.0), (A, 1.0, 3.0)]))
    assert (low[A], high[A]) == (round(1.0 / STEPS[A]) - 0.49, round(2.0 / STEPS[A]) + 0.49)
    low, high = code_limits(map(code_box, [(A, 0.5, math.nan), (B, math.nan, 2.0)]))
    assert (high[A], low[B]) == (-math.inf, math.inf)
    assert (low[A], high[B]) == (round(0.5 / STEPS[A]) - 0.49, round(2.0 / STEPS[B]) + 0.49)


# --- the scanner ----------------------------------------------------------------------------------------------------


def image(**values: float) -> np.ndarray:
    found = np.zeros(N_IMAGE)
    for name, value in values.items():
        found[PLACE[name.replace("__", ".")]] = value
    return found


def scanner(**changes: object) -> Scanner:
    return Scanner(one_rule(body(**({"inputs": ["ic1.hv_rel"], "tier": "P"} | changes))).scanned)


def test_before_the_first_image_unknown_values_are_judged_and_later_old_ones_are_kept() -> None:
    it = scanner()
    assert it.judge(ALIVE, False, 1) == [("some-rule", Effect.APPEARED)]
    it.take(image(ic1__hv_rel=1.0), 2)
    assert it.judge(ALIVE, False, 2) == []
    assert it.present_ids() == ["some-rule"]
    assert it.judge(ALIVE, True, 3) == [("some-rule", Effect.GONE)]
    it.take(image(ic1__hv_rel=0.0), 4)
    assert it.judge(ALIVE, False, 4) == []
    assert it.present_ids() == []
    assert it.judge(ALIVE, True, 5) == [("some-rule", Effect.APPEARED), ("some-rule", Effect.TRIPPED)]


@pytest.mark.parametrize(("image_ns", "now_ns"), [(2, 2), (3, 10), (6, 9), (5 * MS + 1, 6 * MS)])
def test_a_heartbeat_is_overdue_a_nanosecond_after_its_limit(image_ns: int, now_ns: int) -> None:
    it = scanner(**BEAT)
    it.take(image(fe__heartbeat=5.0), image_ns)
    it.judge(ALIVE, True, now_ns)
    assert list(it.deadlines()) == [image_ns + 20 * MS + 1 + now_ns - image_ns]
    assert list(it.deadlines(beats=False)) == []


def test_codes_are_what_32_bits_hold_and_the_lowest_is_none() -> None:
    assert (MAX_CODE, INVALID) == (2**31 - 1, -(2**31))
    assert NO_FAULT.rule < 0
    values = np.zeros(N_IMAGE)
    for code in (2**31 - 1, 2**31, 2**31 + 1, 2**32):
        for signed in (code, -code):
            values[PLACE["fe.token"]] = signed
            found = int(process_image.encode(values)[PLACE["fe.token"]])
            assert found == (signed if code == 2**31 - 1 else INVALID)


def test_inputs_are_the_image_and_behind_it_what_the_controller_knows_by_itself() -> None:
    assert sorted(INPUT_PLACE.values()) == list(range(N_IMAGE + len(OWN_UNITS)))
    assert [INPUT_PLACE[name] for name in PLACE] == list(PLACE.values())


@pytest.mark.parametrize(("permitted", "trips"), [((), True), ((True,), True), ((False,), False)])
def test_what_stands_trips_unless_it_is_said_that_there_is_no_permit(permitted: tuple[bool, ...], trips: bool) -> None:
    it = scanner(action="PAUSE", reset="operator", standing=True)
    it.take(image(ic1__hv_rel=1.0), 0)
    it.judge(ALIVE, True, 0, *permitted)
    it.take(image(ic1__hv_rel=0.0), 1)
    assert it.judge(ALIVE, True, 1, *permitted) == [
        ("some-rule", effect) for effect in (Effect.APPEARED, *([Effect.TRIPPED] if trips else []))
    ]


def test_only_heartbeats_and_debounces_have_deadlines() -> None:
    it = scanner(debounce_us=1500.0)
    it.take(image(ic1__hv_rel=1.0), 5)
    it.judge(ALIVE, True, 7)
    assert list(it.deadlines()) == []
    it.take(image(ic1__hv_rel=0.0), 8)
    it.judge(ALIVE, True, 9)
    assert list(it.deadlines()) == [9 + 1_500_000]


def test_a_scanner_tells_where_its_rules_do_not_change_their_minds() -> None:
    it = scanner()
    it.take(image(ic1__hv_rel=1.0), 0)
    it.judge(ALIVE, True, 0)
    assert list(it.boxes()) == [(A, 90_000.0, 110_000.0)]
    assert it.value("ic1.hv_rel") == 1.0


@pytest.mark.parametrize("chain", ["personnel", "patient", "machine"])
def test_the_personnel_chain_is_good_while_none_of_its_rules_is_present_or_latched(chain: str) -> None:
    it = scanner(chain=chain)
    assert it.personnel_ok is False
    people = chain == "personnel"
    found = []
    for value in (1.0, 0.0, 1.0):
        it.take(image(ic1__hv_rel=value), 0)
        it.judge(ALIVE, True, 0)
        found.append(it.personnel_ok)
    it.reset("physicist", 1)
    assert [*found, it.personnel_ok] == [True, not people, not people, True]
    unseen = scanner(chain=chain)
    unseen.judge(ALIVE, False, 0)  # present, and not latched: it was never good
    assert unseen.personnel_ok is not people


# --- the process image ----------------------------------------------------------------------------------------------


def test_a_code_has_the_same_value_alone_and_in_the_image() -> None:
    for code in (-7, 1, 3, 95_000):
        values = process_image.decode(np.full(N_IMAGE, code, dtype=np.int32))
        assert [process_image.value_of(code, place) for place in range(N_IMAGE)] == values.tolist()
        assert values == pytest.approx(code * np.array(STEPS))
    assert process_image.value_of(95_000, A) == 0.95


@pytest.mark.parametrize("length", [0, N_IMAGE - 1, N_IMAGE + 1])
def test_an_image_of_another_length_is_an_error(length: int) -> None:
    with pytest.raises(InternalError):
        process_image.pack(np.zeros(length, dtype=np.int32))
    with pytest.raises(InternalError):
        process_image.encode(np.zeros(length))
    with pytest.raises(InternalError):
        process_image.pack(np.zeros((2, N_IMAGE), dtype=np.int32))


@pytest.mark.parametrize("count", range(5))
def test_faults_come_through_with_their_times_in_ticks(count: int) -> None:
    told = tuple(OtherFault(k, 1.5 + k, -2.0 * k, 50_000 + 120_000 * k) for k in range(count))
    payload = process_image.pack(np.zeros(N_IMAGE, dtype=np.int32), FastFault(7, 3.0, 4.0, 50_000, told))
    found = process_image.unpack(payload)
    assert found is not None
    assert found[1] == FastFault(7, 3.0, 4.0, 50_000, told[:3])
    for wrong in (payload[:-1], payload + b"\0", b""):
        assert process_image.unpack(wrong) is None


def test_a_fault_before_the_first_counts_as_of_its_time_and_a_late_one_as_of_the_latest() -> None:
    told = (OtherFault(1, math.inf, -math.inf, 10), OtherFault(2, 0.0, 0.0, 10**18))
    found = process_image.unpack(process_image.pack(np.zeros(N_IMAGE, dtype=np.int32), NO_FAULT._replace(
        t_ns=500_000, others=told)))  # fmt: skip
    assert found is not None
    early, late = found[1].others
    assert (early.t_ns, late.t_ns) == (500_000, 500_000 + (2**31 - 1) * 10_000)
    biggest = float(np.finfo(np.float32).max)
    assert (early.value, early.limit) == (biggest, -biggest)


@pytest.mark.parametrize("code", [-1, INVALID, 1 << MASK_BITS, MAX_CODE])
def test_a_word_that_is_no_mask_is_all_of_its_bits(code: int) -> None:
    codes = np.zeros(N_IMAGE, dtype=np.int32)
    codes[PLACE["h.latched"]] = code
    assert process_image.mask_of(codes, "h.latched") == (1 << MASK_BITS) - 1
    codes[PLACE["h.latched"]], codes[PLACE["h.latched_high"]] = 5, code
    assert process_image.mask_of(codes, "h.latched") == 5 | ((1 << MASK_BITS) - 1) << MASK_BITS
