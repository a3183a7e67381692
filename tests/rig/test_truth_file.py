"""Truth in files: what is written is read, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facility.errors import ChannelError, InternalError
from ioc_sim.layout import TRUTH_DTYPE
from ioc_sim.plant import check_ring
from rig.processes.plant import TRACE_RECORDS
from rig.truth_file import (
    TRACE_FILE,
    TruthNow,
    TruthTrace,
    gained,
    read_last_ticks,
    read_now,
    read_spots,
    read_ticks,
    write_spots,
)


def test_what_came_between_two_looks() -> None:
    before = {1: np.array([[5.0, 1.0, 2.0, 3.0, 4.0]]), 2: np.ones((2, 5)), 3: np.ones((1, 5))}
    after = {1: np.array([[9.0, 2.0, 5.0, 3.0, 8.0]]), 2: np.full((3, 5), 7.0), 3: before[3].copy(), 4: np.ones((1, 5))}
    found = gained(after, before)
    assert found[1].tolist() == [[4.0, 1.0, 3.0, 3.0, 8.0]]
    assert found[2].tolist() == after[2].tolist(), "another layer with the same token has come whole"
    assert found[3][0, :3].tolist() == [0.0, 0.0, 0.0]
    assert found[4].tolist() == after[4].tolist()
    assert after[1][0, 0] == 9.0


def test_header_comes_back(tmp_path):
    trace = TruthTrace(tmp_path, 8)
    now = TruthNow(123, 4, 5.5, 99)
    trace.stamp(now)
    assert read_now(tmp_path) == now


def test_ring_is_read_oldest_first(tmp_path):
    trace = TruthTrace(tmp_path, 4)
    for i in range(6):
        trace.ring["t_ns"][i % 4] = i
    trace.stamp(TruthNow(5, 6, 0.0, 0))
    assert read_ticks(tmp_path)["t_ns"].tolist() == [2, 3, 4, 5]
    trace.stamp(TruthNow(5, 3, 0.0, 0))
    assert len(read_ticks(tmp_path)) == 3


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_header_is_not_believed_the_other_one_is(tmp_path, torn):
    trace = TruthTrace(tmp_path, 4)
    trace.stamp(TruthNow(7, 1, 1.0, 1))
    path = tmp_path / TRACE_FILE
    raw = bytearray(path.read_bytes())
    raw[20 + 64 * torn] ^= 1
    path.write_bytes(raw)
    assert read_now(tmp_path).t_ns == (0 if torn == 0 else 7)
    raw[20 + 64 * (1 - torn)] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ChannelError, match="whole"):
        read_now(tmp_path)


def test_spots_come_back(tmp_path):
    rows = np.arange(10.0).reshape(2, 5)
    write_spots(tmp_path, {7: rows}, TruthNow(1, 0, 2.0, 0))
    now, spots = read_spots(tmp_path)
    assert (now.t_ns, now.total_ions) == (1, 2.0)
    assert np.array_equal(spots[7], rows)


def test_no_truth(tmp_path):
    for read in (read_now, read_spots):
        with pytest.raises(ChannelError, match="no truth"):
            read(tmp_path)


def test_a_ring_whose_mask_would_lose_records_is_refused():
    check_ring(np.zeros(TRACE_RECORDS, TRUTH_DTYPE))
    for records in (0, 3, 2_000_000):
        with pytest.raises(InternalError, match="power of two"):
            check_ring(np.zeros(records, TRUTH_DTYPE))


def test_the_last_ticks_are_those_of_the_whole_ring(tmp_path: Path) -> None:
    trace = TruthTrace(tmp_path, 8)
    for count in (3, 8, 13):
        trace.ring["t_ns"][:] = [max(range(place, count, 8), default=-1) for place in range(8)]
        trace.stamp(TruthNow(0, count, 0.0, 0))
        whole = read_ticks(tmp_path)["t_ns"]
        for most in (2, 8, 20):
            assert list(read_last_ticks(tmp_path, most)["t_ns"]) == list(whole[-most:])
