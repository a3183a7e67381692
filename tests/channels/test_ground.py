"""Facility time, ids and events: the same run gives the same bytes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facility.errors import InternalError
from facility.events import Event, EventLog, canonical_json
from facility.ids import IdSource, derived_hex, run_id
from facility.timebase import (
    BEAM_TICK_NS,
    IDLE_TICK_NS,
    Clock,
    ManualClock,
    epics_stamp,
    from_epics_stamp,
    from_unix_seconds,
    seconds_to_ns,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: "\\ud" not in json.dumps(value))


def test_time_goes_forward_only() -> None:
    clock = ManualClock()
    assert isinstance(clock, Clock)
    assert clock.advance_ns(5) == 5
    with pytest.raises(InternalError):
        clock.set_ns(4)
    assert clock.now_ns() == 5
    assert (BEAM_TICK_NS, IDLE_TICK_NS) == (10_000, 1_000_000)
    assert seconds_to_ns(0.1) == 100_000_000


@given(st.integers(0, 2**60))
def test_epics_stamps_keep_every_nanosecond(t_ns: int) -> None:
    seconds, ns = epics_stamp(t_ns)
    assert 0 <= ns < 1_000_000_000
    assert from_epics_stamp(seconds, ns) == t_ns


def test_facility_time_zero_is_shown_as_the_first_of_january_2020() -> None:
    assert from_unix_seconds(1_577_836_800.0) == 0
    assert epics_stamp(0) == (946_684_800, 0)


@given(json_values)
def test_canonical_json_is_canonical(value: object) -> None:
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once
    assert b"\n" not in once


def test_canonical_json_is_sorted_compact_and_refuses_what_json_cannot_hold() -> None:
    assert canonical_json({"b": 1, "a": [1.0, "\xe9"], "c": np.float64(0.5), "d": np.int32(3)}) == (
        '{"a":[1.0,"\xe9"],"b":1,"c":0.5,"d":3}'.encode()
    )
    loop: list[object] = []
    loop.append(loop)
    for broken in (float("nan"), float("inf"), {1, 2}, b"bytes", np.float64("nan"), {(1,): 2}, "\ud800", loop):
        with pytest.raises(InternalError):
            canonical_json(broken)


def test_ids_follow_from_seed_and_counter() -> None:
    one, same, other = IdSource(1), IdSource(1), IdSource(2)
    first = [one.session(), one.session(), one.command(), one.event()]
    assert first == [same.session(), same.session(), same.command(), same.event()]
    assert len({*first, other.session()}) == 5
    assert first[0].startswith("S-")
    assert len(first[0]) == 14
    state = one.state()
    following = one.session()
    one.restore(state)
    assert one.session() == following
    assert IdSource(1).session("one plan") != IdSource(1).session("another")
    assert IdSource(1).session("one plan") == IdSource(1).session("one plan")
    assert run_id(1, "a") != run_id(1, "b")
    assert len(derived_hex(1, "x", 0, 64)) == 64


def test_a_later_boot_has_a_higher_identity() -> None:
    ids = IdSource(9)
    boots = [ids.boot_identity("plant") for _ in range(50)]
    assert boots == sorted(set(boots))
    assert boots[-1] < 2**64


def make_log(sink: io.BytesIO | None = None) -> EventLog:
    clock = ManualClock()
    log = EventLog("R-1", clock, sink)
    trip = log.emit("safety", "interlock.trip", {"rule": "H-OVERDOSE", "dose_gy": 0.1})
    clock.advance_ns(17)
    log.emit("plant", "beam.off", cause_seq=trip.seq)
    log.emit("plant", "earlier", t_ns=3)
    return log


def test_a_log_is_the_same_bytes_every_time_in_memory_and_in_the_file() -> None:
    sink = io.BytesIO()
    log = make_log(sink)
    assert sink.getvalue() == log.to_bytes() == make_log().to_bytes()
    lines = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert lines[1] == {
        "schema": "ionctl.event/1",
        "run": "R-1",
        "seq": 1,
        "t_ns": 17,
        "source": "plant",
        "kind": "beam.off",
        "cause_seq": 0,
        "data": {},
    }
    assert [event.kind for event in log.since(1)] == ["beam.off", "earlier"]
    assert log.next_seq == 3


def test_an_event_cannot_be_caused_by_what_has_not_happened() -> None:
    log = make_log()
    with pytest.raises(InternalError):
        log.emit("plant", "x", cause_seq=3)
    with pytest.raises(InternalError):
        log.emit("plant", "x", cause_seq=-1)


def test_memory_is_bounded_and_nothing_is_lost_unseen() -> None:
    full = EventLog("R-1", ManualClock(), memory_limit=2)
    full.emit("a", "b")
    full.emit("a", "b")
    with pytest.raises(InternalError):
        full.emit("a", "b")
    sink = io.BytesIO()
    rolling = EventLog("R-1", ManualClock(), sink, memory_limit=2)
    for _ in range(5):
        rolling.emit("a", "b")
    assert [event.seq for event in rolling.events] == [3, 4]
    assert len(sink.getvalue().splitlines()) == 5


def test_an_event_that_json_cannot_hold_has_no_line() -> None:
    with pytest.raises(InternalError):
        Event("R-1", 0, 0, "a", "b", None, {"x": float("nan")}).line()
