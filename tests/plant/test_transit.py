"""The live spill's transit is the calibrated one: what comes after a stop by truth, and what the front end expects."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import Facility, change_facility, load_facility
from facility.physics import beta, gamma
from ioc_sim.dose_estimate import ions_to_come
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.layout import T_IONS
from ioc_sim.plant import Plant
from tests.plant.layers import MS, Spots, go, new_plant, run_until, start

LEVEL = 5e8
QUIET = {
    "extraction.exciter_noise_rms": 0.0,
    "extraction.converter_noise": 0.0,
    "extraction.supply_ripple": [],
    "extraction.start_overshoot_rel": 0.0,
}
ONE_SPOT = Spots(np.zeros(1), np.zeros(1), np.full(1, 1e8))


def smooth(name: str = "wuwei", **changes: object) -> Facility:
    """A facility whose spill has no structure of its own."""
    return change_facility(load_facility(name), QUIET | changes)


def stopped(facility: Facility, code: int) -> tuple[Plant, float, np.ndarray]:
    """A plant whose beam has been taken away in the middle of a long spot: what the front end expected to come, ions;
    ions by tick from then on."""
    plant = new_plant(facility=facility)
    start(plant, ONE_SPOT, code=code, level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 50 * MS)
    expected = ions_to_come(plant._parameters[0], plant._q, plant._state[0], plant._v)
    plant.disarm()
    seen = plant.truth_count
    go(plant, plant.t_ns + 10 * MS)
    return plant, expected, plant.trace["ions"][seen : plant.truth_count].astype(np.float64)


@pytest.mark.parametrize("code", [0, 150, 239])
def test_after_a_stop_as_many_ions_come_as_tracking_says(code: int) -> None:
    facility = smooth(**{"beam_off.chopper.present": False})
    plant, expected, late = stopped(facility, code)
    model, ion = load_spill_table(facility), facility.species_named("carbon")
    energy, f_rev = float(plant.table.energy_mev_u[code]), float(plant.table.f_rev_hz[code])
    share = LEVEL / ion.transmission / ion.fill_ions / f_rev
    momentum = float(beta(energy, ion) * gamma(energy, ion))
    transit = model.transit(model.drive_for(share), momentum)
    came_s = late.sum() / LEVEL
    assert came_s == pytest.approx(transit.mean_turns / f_rev, rel=0.10), "the fill varies by 5 %"
    left = 1.0 - np.cumsum(late) / late.sum()
    tenth_s = 1e-5 * (1 + np.searchsorted(-left, -0.1))
    assert tenth_s == pytest.approx(transit.left_turns(0.1) / f_rev, rel=0.15)
    dead = int(transit.dead_turns / f_rev * 1e5)
    assert late[: dead - 1].mean() == pytest.approx(LEVEL * 1e-5, rel=0.05), "those on their way do not know of it"
    assert expected == pytest.approx(late.sum(), rel=0.05)


@pytest.mark.parametrize(("name", "code"), [("wuwei", 150), ("pimms", 100)])
def test_the_front_end_knows_what_a_chopper_lets_pass(name: str, code: int) -> None:
    _, expected, late = stopped(smooth(name), code)
    assert late[20:].sum() == 0.0, "the chopper has closed"
    assert expected == pytest.approx(late.sum(), rel=0.08)


def test_a_spill_that_triples_on_its_way_to_a_stop_is_seen_in_time() -> None:
    """What has left the triangle comes, and three times as much of it: 0.5 % too much with the smoothed rate of a third
    of a millisecond."""
    plant = new_plant(facility=smooth())
    target = 6e5
    start(plant, Spots(np.zeros(1), np.zeros(1), np.full(1, target)), level=3e8)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 8 * MS // 5)
    plant.inject(Fault("spill.rate", FaultKind.SCALE, 3.0))
    run_until(plant, "LAYER_DONE")
    assert plant.truth_spots()[77][0, T_IONS] == pytest.approx(target, rel=0.0025)
