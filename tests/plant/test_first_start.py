"""The first start of a flat top by truth: what an exciter's spill gives for a drive, and how the loop takes it."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.studies.live_drive import QUIET
from ioc_sim.studies.live_spill import TICK_S, beam_on, ions_of
from tests.plant.layers import MS, check_truth, go, grid, new_plant, run_until, start

LEVEL = 1e8
SPILL = {key: value for key, value in QUIET.items() if key != "extraction.loop_bandwidth_hz"}
COME_MS, WINDOW_MS = 2.0, 10.0


def rates(name: str, changes: dict[str, object], times_s: tuple[float, ...]) -> tuple[list[float], list[float], float]:
    """Rate over the level, from these times on for a while; what the edge gives for the ions left; gain of the fill."""
    facility = change_facility(load_facility(name), changes)
    model = load_spill_table(facility)
    plant, _ = beam_on(facility, "carbon", 250.0, LEVEL, first_start=True)
    begun, first_ns = plant.status.stored_ions, plant.t_ns
    found, law = [], []
    for time_s in times_s:
        ions_of(plant, time_s - 1e-9 * (plant.t_ns - first_ns))
        out = 1.0 - (1.0 - model.fill_share) * plant.status.stored_ions / begun
        found.append(float(ions_of(plant, WINDOW_MS * 1e-3).mean()) / TICK_S / LEVEL)
        law.append(model.edge_level(out))
    return found, law, float(plant._state[0].cycle_gain)


def test_the_spill_rises_with_what_has_left() -> None:
    found, law, gain = rates("wuwei", QUIET, (COME_MS * 1e-3, 0.3, 1.0, 2.0))
    assert np.array(found) / gain == pytest.approx(law, rel=0.02)
    assert law[0] == pytest.approx(0.69, abs=0.03)
    assert law[-1] > 0.9


def test_a_core_starts_at_its_level() -> None:
    found, law, gain = rates("pimms", QUIET, (COME_MS * 1e-3, 0.5))
    assert law == [1.0, 1.0]
    assert np.array(found) / gain == pytest.approx(law, rel=0.02)


def test_the_loop_takes_the_rise_away_without_an_overshoot() -> None:
    times = tuple(0.01 * place for place in range(1, 12))
    found, _, _ = rates("wuwei", SPILL, times)
    assert max(found) < 1.05
    assert found[3:] == pytest.approx(np.ones(8), abs=0.05)


def test_a_pause_does_not_bring_the_rise_back() -> None:
    plant = new_plant(facility=change_facility(load_facility("wuwei"), QUIET))
    spots = grid(half_mm=4.0, step_mm=4.0, low=2e6, high=4e6)
    start(plant, spots, 150, level=LEVEL)
    run_until(plant, "BEAM_ON")
    first = plant._state[0].sensitivity
    run_until(plant, "LAYER_DONE")
    go(plant, plant.t_ns + 5 * MS)
    left = plant._state[0].sensitivity
    assert left > first
    plant.load_layer(2, 150, LEVEL, spots.table(plant, 150))
    assert plant._state[0].sensitivity == left
    check_truth(plant, spots, LEVEL)


def test_each_fill_begins_with_its_own_rise() -> None:
    plant = new_plant(facility=change_facility(load_facility("wuwei"), QUIET))
    spots = grid(half_mm=4.0, step_mm=4.0, low=2e7, high=4e7)
    begun = []
    for token in (1, 2):
        start(plant, spots, 150, token=token, level=LEVEL)
        run_until(plant, "BEAM_ON")
        one = plant._state[0]
        begun.append(float(one.sensitivity / one.cycle_gain))
        run_until(plant, "LAYER_DONE")
        assert one.sensitivity / one.cycle_gain > begun[-1] + 0.1
        plant.end_cycle()
        go(plant, plant.t_ns + 1000 * MS)
    assert begun[0] == pytest.approx(begun[1], abs=1e-6)
