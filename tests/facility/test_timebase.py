"""Facility time: what is repeated at whole multiples of a period."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facility.timebase import to_next_s


@given(st.integers(0, 10**13), st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5]))
def test_the_next_whole_multiple_is_ahead_and_near(now_ns: int, period_s: float) -> None:
    now_s = now_ns * 1e-9
    left_s = to_next_s(now_s, period_s)
    assert 1e-3 * period_s < left_s <= 1.001 * period_s
    assert (now_s + left_s) / period_s == pytest.approx(round((now_s + left_s) / period_s), abs=1e-6)
