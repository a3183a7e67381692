"""What the scanner leaves out: rules on which nothing has changed are not judged again, boxes and views are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlocks import process_image
from interlocks.evaluator import INPUT_PLACE, code_limits
from interlocks.latch import Effect
from interlocks.model import Rule
from interlocks.process_image import INVALID, N_IMAGE, PLACE
from interlocks.scanner import Scanner
from tests.interlocks.support import MS, OWN, body, good_signals, one_rule, rule_set

SCANNED = rule_set().scanned
GOOD = process_image.image_of(good_signals()).tolist()


class Eager(Scanner):
    """Judges everything, and keeps nothing."""

    def judge(self, own, fresh, now_ns, permitted=True):  # type: ignore[no-untyped-def]
        for watched in self._watched:
            watched.settled, watched.boxes, watched.viewed = False, None, None
        return super().judge(own, fresh, now_ns, permitted)


CODES = st.sampled_from([INVALID, 0, 1, 2, 99_000, 100_000, 500_000])
EVENT = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 2), CODES),
    st.tuples(st.just("nudge"), st.integers(-1, 1), st.integers(-1, 1)),
    st.tuples(st.just("scan"), st.integers(1, 3), st.sampled_from([True, True, False])),
    st.tuples(st.just("scan"), st.integers(1, 3), st.just(True)),
    st.tuples(st.just("scan"), st.integers(20, 100), st.just(True)),
    st.tuples(st.just("mend"), st.just(0), st.just(0)),
    st.tuples(st.just("reset"), st.just(0), st.sampled_from(["operator", "physicist"])),
    st.tuples(st.just("bypass"), st.just(0), st.booleans()),
    st.tuples(st.just("permit"), st.just(0), st.booleans()),
)
SLOW = [rule for rule in SCANNED if rule.debounce_us > 0.0]


def see(scanner: Scanner, rule: Rule) -> tuple[object, ...]:
    low, high = code_limits(scanner.boxes())
    return (scanner.decisions(), repr(scanner.view(rule.id)), repr(low.tolist()), repr(high.tolist()), scanner.action,
            scanner.inhibited, scanner.personnel_ok, list(scanner.deadlines()))  # fmt: skip


@given(st.one_of(st.sampled_from(SCANNED), st.sampled_from(SLOW)), st.lists(EVENT, max_size=25))
@settings(max_examples=250)
def test_what_is_left_out_changes_nothing(rule: Rule, events: list[tuple[str, int, int]]) -> None:
    both = (Scanner([rule]), Eager([rule]))
    places = [INPUT_PLACE[name] for name in (*rule.inputs, *([rule.when] if rule.when else []))]
    codes, own, t_ns, permitted = list(GOOD), list(OWN), 0, True
    for kind, number, value in [("scan", 1, True), *events, ("scan", 1, True), ("scan", 100, True)]:
        if kind == "set":
            place = places[number % len(places)]
            (codes if place < N_IMAGE else own)[place % N_IMAGE] = value
        elif kind == "nudge":
            for place, step in zip(places, (number, number + value // 2, number), strict=False):
                if place < N_IMAGE and abs(codes[place]) < 2**30:
                    codes[place] += step
        elif kind == "permit":
            permitted = bool(value)
        elif kind == "mend":
            codes, own = list(GOOD), list(OWN)
        t_ns += number * MS if kind == "scan" else 0
        found = []
        for scanner in both:
            if kind == "scan":
                if value:
                    scanner.take(process_image.decode(np.array(codes, dtype=np.int32)), t_ns - MS // 2)
                found.append(scanner.judge(own, bool(value), t_ns, permitted))
            elif kind == "reset":
                found.append(scanner.reset(str(value), t_ns))
            elif kind == "bypass":
                scanner.bypass(frozenset([rule.id] if value else []))
        assert not found or found[0] == found[1]
        assert see(both[0], rule) == see(both[1], rule)


# --- each of what may be left out, by itself: the walk above finds it too, and takes its time -----------------------
HV, OTHER = PLACE["ic1.hv_rel"], PLACE["ic2.hv_rel"]


class Looked:
    """A scanner over one rule of tier P."""

    def __init__(self, **changes: object) -> None:
        keys: dict[str, object] = {"tier": "P", "inputs": ["ic1.hv_rel"], "unit": "1"}
        self.scanner = Scanner(one_rule(body(**(keys | changes))).rules)
        self.codes, self.t_ns = list(GOOD), 0

    def scan(self, ms: int = 1, permitted: bool = True, **changes: int) -> list[Effect]:
        """A scan after so many ms, codes of inputs set first; what it led to."""
        for name, code in changes.items():
            self.codes[PLACE[name.replace("__", ".")]] = code
        self.t_ns += ms * MS
        self.scanner.take(process_image.decode(np.array(self.codes, dtype=np.int32)), self.t_ns)
        return [effect for _, effect in self.scanner.judge(OWN, True, self.t_ns, permitted)]

    def boxes(self) -> list[tuple[int, float, float]]:
        return list(self.scanner.boxes())


def test_a_permit_that_comes_has_all_judged_again_though_no_input_has_changed() -> None:
    it = Looked(standing=True)
    it.scan(permitted=False)
    assert it.scan(permitted=False, ic1__hv_rel=200_000) == [Effect.APPEARED]
    assert it.scan(permitted=False) == []
    assert it.scan(permitted=True) == [Effect.TRIPPED]


@pytest.mark.parametrize("when", ["fe.active", "gate.open"])
def test_a_condition_that_comes_has_its_rule_judged_though_no_input_has_changed(when: str) -> None:
    it = Looked(when=when)
    key = when.replace(".", "__")
    it.scan(**{key: 1})
    assert it.scan(**{key: 0}, ic1__hv_rel=200_000) == []
    assert it.scan(**{key: 0}) == []
    assert it.scan(**{key: 1}) == [Effect.APPEARED, Effect.TRIPPED]


def test_the_end_of_a_debounce_comes_though_no_input_has_changed() -> None:
    it = Looked(debounce_us=5000.0)
    it.scan()
    assert it.scan(ic1__hv_rel=200_000) == []
    assert list(it.scanner.deadlines()) == [it.t_ns + 5 * MS]
    assert it.scan(ms=4) == []
    assert it.scan() == [Effect.APPEARED, Effect.TRIPPED]
    assert list(it.scanner.deadlines()) == []


def test_a_heartbeat_that_stands_still_is_overdue_by_time_alone() -> None:
    it = Looked(kind="beat", inputs=["fe.heartbeat"], unit="ms", low=None, high=20.0)
    assert list(it.scanner.deadlines()) == []
    it.scan(fe__heartbeat=1)
    assert it.scan(fe__heartbeat=2) == []
    assert list(it.scanner.deadlines()) == [it.t_ns + 20 * MS + 1]
    assert it.scan(ms=20) == []
    assert it.scan() == [Effect.APPEARED, Effect.TRIPPED]
    assert list(it.scanner.deadlines()) == []  # it is bad: time changes nothing more


def test_a_rule_that_has_been_judged_is_settled_and_its_limits_stay_its_box() -> None:
    it = Looked()
    it.scan(ic1__hv_rel=100_000)
    assert it.scanner._watched[0].settled
    (box,) = it.boxes()
    kept = it.scanner._watched[0].boxes
    it.scan(ic1__hv_rel=105_000)
    assert it.scanner._watched[0].boxes is kept
    it.scan(ic1__hv_rel=200_000)
    assert it.boxes() != [box]
    it.scan(ic1__hv_rel=100_000)
    assert it.boxes() == [box]


@pytest.mark.parametrize("keys", [{"kind": "equal", "high": None}, {"kind": "mismatch", "high": 0.5}])
def test_the_box_of_two_inputs_goes_with_them(keys: dict[str, object]) -> None:
    it = Looked(inputs=["ic1.hv_rel", "ic2.hv_rel"], low=None, **keys)
    for code in (100_000, 120_000):
        it.scan(ic1__hv_rel=code, ic2__hv_rel=code)
        middle = [(place, (low + high) / 2) for place, low, high in it.boxes()]
        assert middle == [(HV, pytest.approx(code, abs=1)), (OTHER, pytest.approx(code, abs=1))]
