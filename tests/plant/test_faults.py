"""What each kind of fault does to a quantity, tick by tick."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facility.errors import CommandRefused
from ioc_sim.faults import F_COLUMNS, N_FAULT_POINTS, Fault, FaultKind, _failed, fault_row

TICK_NS = 10_000
BEGIN_NS = 1_000_000


def seen(kind: FaultKind, value: float, quantity: np.ndarray, seed: int = 1, point: str = "ic1.hv") -> np.ndarray:
    """The quantity, one value a tick from BEGIN_NS on, as the failed hardware gives it."""
    fault = Fault(point, kind, value, at_ns=BEGIN_NS)
    table = np.zeros((N_FAULT_POINTS, F_COLUMNS))
    i = fault.index()
    table[i] = fault_row(fault, seed)
    return np.array([_failed(table, i, float(q), BEGIN_NS + k * TICK_NS) for k, q in enumerate(quantity)])


RAMP = np.arange(1000.0)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (FaultKind.STUCK, 0.0, np.zeros(1000)),
        (FaultKind.SET, 7.0, np.full(1000, 7.0)),
        (FaultKind.OFFSET, 2.0, RAMP + 2.0),
        (FaultKind.SCALE, -3.0, -3.0 * RAMP),
        (FaultKind.DRIFT, 100.0, RAMP + 100.0 * RAMP * 1e-5),
        (FaultKind.NAN, 0.0, np.full(1000, math.nan)),
        (FaultKind.DEAD, 0.0, np.zeros(1000)),
        (FaultKind.INVERT, 1.0, 1.0 - RAMP),
        (FaultKind.SATURATED, 300.0, np.minimum(RAMP, 300.0)),
        (FaultKind.RIPPLE, 0.5, RAMP * (1.0 + 0.5 * np.sin(2.0 * math.pi * 50.0 * RAMP * 1e-5))),
    ],
)
def test_what_a_kind_does(kind: FaultKind, value: float, expected: np.ndarray) -> None:
    np.testing.assert_allclose(seen(kind, value, RAMP), expected, rtol=1e-9, atol=1e-9)


def test_noise_has_its_rms_and_its_seed() -> None:
    first = seen(FaultKind.NOISE, 3.0, np.zeros(20_000))
    assert first.std() == pytest.approx(3.0, rel=0.03)
    assert abs(first.mean()) < 0.1
    assert np.array_equal(first, seen(FaultKind.NOISE, 3.0, np.zeros(20_000)))
    assert not np.array_equal(first, seen(FaultKind.NOISE, 3.0, np.zeros(20_000), seed=2))
    assert not np.array_equal(first, seen(FaultKind.NOISE, 3.0, np.zeros(20_000), point="ic2.hv"))


def test_late_holds_and_then_follows_by_its_delay() -> None:
    late = seen(FaultKind.LATE, 3.1, RAMP)  # 310 ticks, in steps of 10
    assert not late[:300].any()
    assert np.all(np.abs(RAMP[320:] - 310.0 - late[320:]) <= 10.0)


def test_slow_has_its_time_constant() -> None:
    step = np.concatenate(([0.0], np.ones(999)))
    slow = seen(FaultKind.SLOW, 2.0, step)
    np.testing.assert_allclose(slow, 1.0 - np.exp(-np.arange(1000) * 1e-2 / 2.0), atol=1e-9)


@pytest.mark.parametrize("kind", [FaultKind.LATE, FaultKind.SLOW, FaultKind.SATURATED])
def test_a_value_that_makes_no_sense_is_refused(kind: FaultKind) -> None:
    with pytest.raises(CommandRefused, match="give more than 0"):
        Fault("ic1.hv", kind, 0.0).index()
