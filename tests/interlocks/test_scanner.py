"""What the scanner leaves out: rules on which nothing has changed are not judged again, boxes and views are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from interlocks import process_image
from interlocks.evaluator import INPUT_PLACE, code_limits
from interlocks.model import Rule
from interlocks.process_image import INVALID, N_IMAGE
from interlocks.scanner import Scanner
from tests.interlocks.support import MS, OWN, good_signals, rule_set

SCANNED = rule_set().scanned
GOOD = process_image.image_of(good_signals()).tolist()


class Eager(Scanner):
    """Judges everything, and keeps nothing."""

    def judge(self, own, fresh, now_ns, permitted=True):  # type: ignore[no-untyped-def]
        for watched in self._watched:
            watched.settled, watched.boxes, watched.view = False, None, None
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
