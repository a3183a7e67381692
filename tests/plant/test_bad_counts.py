"""A count register that is not a number stops the beam and spoils nothing that was counted before."""

from __future__ import annotations

import numpy as np
import pytest

from facility import signals as g
from facility.config import load_facility
from facility.intensity import spot_tolerance_ions
from facility.states import FrontEndState
from interlocks.rules import load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, S, Spots, check_truth, go, grid, new_plant, run_until, start


def in_beam() -> tuple[Plant, Spots, int]:
    """A plant with rules that has begun a layer; its spots; an instant 33 ms later, ns."""
    facility = load_facility("wuwei")
    plant = new_plant(facility=facility, rules=load_rules(facility, "1", "carbon").fast(), seed=4)
    spots = grid(half_mm=12.0)
    start(plant, spots, level=1e7)
    run_until(plant, "BEAM_ON")
    return plant, spots, plant.t_ns + 33 * MS


@pytest.mark.parametrize("device", ["ic1.counts", "ic2.counts"])
def test_nan_counts_trip_and_the_register_stays_whole(device: str) -> None:
    plant, spots, at_ns = in_beam()
    plant.inject(Fault(device, FaultKind.NAN, at_ns=at_ns))
    go(plant, at_ns + 20 * MS)
    assert plant.status.state == FrontEndState.ABORTED
    assert np.isfinite(plant.register()).all()
    assert np.isnan(plant.signals[g.IC1_IONS if device.startswith("ic1") else g.IC2_IONS])
    plant.clear_faults()
    go(plant, plant._now_ns + 3 * S)
    assert plant.reset_fast(2**60 - 1) == 0
    go(plant, plant._now_ns + MS)
    start(plant, spots, level=1e7, token=78)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, 1e7, token=78)


@pytest.mark.parametrize("device", ["ic1", "ic2"])
@pytest.mark.parametrize(("kind", "value"), [(FaultKind.OFFSET, -300.0), (FaultKind.DEAD, 0.0), (FaultKind.NAN, 0.0)])
def test_a_register_that_falls_is_a_fault_of_its_electronics_within_two_ticks(
    device: str, kind: FaultKind, value: float
) -> None:
    """300 counts back are 22,000 ions: less than the chambers may differ by, and a tenth of a spot and more."""
    plant, spots, at_ns = in_beam()
    plant.inject(Fault(f"{device}.counts", kind, value, at_ns=at_ns))
    go(plant, at_ns + 20 * MS)
    row = plant.rule_rows[plant.rule_ids.index(f"chamber-electronics-{device}")]
    assert row["latched"] == 1
    assert at_ns <= row["t_decision_ns"] <= at_ns + 20_000
    assert plant.status.state == FrontEndState.ABORTED
    truth = plant.truth_spots()[77]
    tolerance, _ = spot_tolerance_ions(spots.ions, 1e7, plant.ions_per_count, float(spots.ions.max()))
    assert (truth[:, 0] <= spots.ions + tolerance).all()
    plant.clear_faults()
    go(plant, plant._now_ns + 3 * S)
    assert plant.reset_fast(2**60 - 1) == 0, "a register that counts again is good"


@pytest.mark.parametrize("device", ["ic1", "ic2"])
def test_a_reading_that_was_too_high_for_a_while_leaves_the_chamber_whole(device: str) -> None:
    plant, spots, at_ns = in_beam()
    plant.inject(Fault(f"{device}.counts", FaultKind.OFFSET, 23_804.0, at_ns, at_ns + 140 * MS))
    go(plant, at_ns + 139 * MS)
    assert plant.status.state == FrontEndState.ABORTED
    go(plant, at_ns + 142 * MS)
    assert plant.rule_rows[plant.rule_ids.index(f"chamber-electronics-{device}")]["latched"] == 1
    go(plant, at_ns + 3 * S)
    assert plant.reset_fast(2**60 - 1) == 0, "it counts again"
    go(plant, plant._now_ns + MS)
    start(plant, spots, level=1e7, token=78)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, 1e7, token=78)


def test_a_register_that_stands_still_after_it_has_fallen_stays_bad() -> None:
    plant, _, at_ns = in_beam()
    plant.inject(Fault("ic1.counts", FaultKind.DEAD, 0.0, at_ns))
    go(plant, at_ns + 3 * S)
    assert np.isnan(plant.signals[g.IC1_OK])
    assert plant.reset_fast(2**60 - 1) != 0
    plant.clear_faults()
    go(plant, at_ns + 4 * S)
    assert plant.reset_fast(2**60 - 1) == 0


def test_nothing_is_sent_each_millisecond_for_a_signal_that_nobody_looks_at_and_that_is_no_number() -> None:
    plant, _, at_ns = in_beam()
    low, high = np.full(len(g.IMAGE), -np.inf), np.full(len(g.IMAGE), np.inf)
    plant.inject(Fault("ic1.counts", FaultKind.NAN, at_ns=at_ns))
    go(plant, at_ns + 20 * MS)
    plant.watch_image(low, high)
    assert "IMAGE" not in {event.kind for event in go(plant, at_ns + 40 * MS)}
    high[g.IMAGE.index(g.IC1_OK)] = 1.0
    plant.watch_image(low, high)
    assert "IMAGE" in {event.kind for event in go(plant, at_ns + 42 * MS)}


def test_leakage_without_beam_does_not_add_up() -> None:
    plant = new_plant()
    start(plant, grid(half_mm=12.0), level=1e7)
    run_until(plant, "BEAM_ON")
    plant.pause()
    go(plant, plant._now_ns + S)
    before = plant.status
    go(plant, plant._now_ns + 60 * S)
    after = plant.status
    assert abs(after.ic1_ions - before.ic1_ions) < 500
    assert abs(after.ic2_ions - before.ic2_ions) < 500


def test_leakage_that_is_no_number_for_a_moment_leaves_the_chamber_whole() -> None:
    plant = new_plant()
    go(plant, 10 * MS)
    plant.inject(Fault("ic1.leakage", FaultKind.NAN, 0.0, plant._now_ns, plant._now_ns + 3 * MS))
    go(plant, plant._now_ns + 50 * MS)
    spots = grid(half_mm=6.0)
    start(plant, spots, level=1e7)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, 1e7)
