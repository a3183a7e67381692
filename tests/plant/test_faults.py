"""What each kind of fault does to a quantity, tick by tick."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facility.errors import CommandRefused
from facility.signals import INDEX
from facility.states import FrontEndState, HoldReason
from ioc_sim.faults import F_COLUMNS, N_FAULT_POINTS, Fault, FaultKind, _failed, fault_row
from ioc_sim.plant import Plant
from tests.plant.layers import MS, go, grid, new_plant, run_until, start

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


# --- what is no number, in beam ------------------------------------------------------------------------------------
OBEYS = {"rfko.on": "rfko.obeys", "quad.open": "quad.obeys", "chopper.open": "chopper.obeys", "dump.cmd": "dump.obeys"}


def in_beam() -> Plant:
    plant = new_plant()
    start(plant, grid(), level=1e8)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + 5 * MS)
    return plant


@pytest.mark.parametrize("device", OBEYS)
def test_a_beam_off_device_that_tells_no_number_never_obeys(device: str) -> None:
    plant = in_beam()
    place = INDEX[OBEYS[device]]
    assert plant.signals[place] == 1.0
    plant.inject(Fault(device, FaultKind.NAN))
    go(plant, plant._now_ns + 2 * MS)
    assert plant.signals[place] == 0.0
    plant.set_safety_lines(False, False, True, personnel=True)  # also while it is told to take the beam off
    go(plant, plant._now_ns + 2 * MS)
    assert plant.signals[place] == 0.0


@pytest.mark.parametrize("device", ["quad.open", "chopper.open"])
def test_a_beam_off_device_of_which_nothing_is_known_takes_no_beam_off(device: str) -> None:
    plant = in_beam()
    plant.inject(Fault(device, FaultKind.NAN))
    before = plant.truth_total_ions
    go(plant, plant._now_ns + 5 * MS)
    assert plant.truth_total_ions > before + 2e5
    assert math.isfinite(plant.status.stored_ions)


def test_beam_that_is_no_number_is_none_and_leaves_the_ring_as_it_is() -> None:
    plant = in_beam()
    plant.inject(Fault("spill.rate", FaultKind.NAN))
    stored = plant.status.stored_ions
    go(plant, plant._now_ns + 5 * MS)
    assert 0.99 * stored < plant.status.stored_ions <= stored


def test_a_source_inhibit_that_tells_no_number_is_published_as_none() -> None:
    plant = new_plant()
    plant.inject(Fault("source.inhibit", FaultKind.NAN))
    go(plant, plant._now_ns + 2 * MS)
    assert math.isnan(plant.signals[INDEX["source.inhibited"]])


def test_a_lease_that_is_no_number_lets_no_beam() -> None:
    plant = in_beam()
    plant.grant_lease(plant._read("load_seq"), math.nan)
    go(plant, plant._now_ns + MS)
    assert (plant.status.state, plant.status.hold_reason) == (FrontEndState.HELD, HoldReason.REGISTER)


def test_who_says_nothing_of_the_personnel_line_keeps_the_stopper_in() -> None:
    plant = new_plant()
    go(plant, 1000 * MS)
    assert not plant.status.stopper_in
    plant.set_safety_lines(True, False, True)
    go(plant, 2000 * MS)
    assert plant.status.stopper_in
    assert plant.signals[INDEX["source.inhibited"]] == 1.0
