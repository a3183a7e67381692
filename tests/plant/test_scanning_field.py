"""Fields of the scanning magnets: behind their currents, with a memory; seen by the probe, not by the readback."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.states import RingPhase
from ioc_sim import layout as at
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.layout import PARAM_DTYPE, STATE_DTYPE
from ioc_sim.params import as_argument, pack_parameters, record
from ioc_sim.physics.scanning import TICK_S, field_a, supply_step
from ioc_sim.plant import Plant
from ioc_sim.studies.scan import hysteresis_loop
from tests.plant.layers import MS, Spots, new_plant, run_until, start

WUWEI = load_facility("wuwei")
AXIS = WUWEI.scanning.x


def test_eddy_currents_hold_the_field_back_by_their_time_constant() -> None:
    """On a ramp at the voltage limit the field is tau x slew behind; at rest it has come."""
    facility = change_facility(WUWEI, {"scanning.x.eddy_tau_us": 60.0})
    parameters, q = pack_parameters(facility, "1", "carbon", load_spill_table(facility), 1, 1, 1)
    p, s = as_argument(parameters, PARAM_DTYPE), as_argument(record(STATE_DTYPE), STATE_DTYPE)
    v = np.zeros(at.N_V)
    v[at.SET_A] = 300.0
    behind = []
    for _ in range(400):
        supply_step(p[0], q, s[0], v, 0, TICK_S)
        behind.append(float(v[at.CURRENT_A] - field_a(q, v, 0, float(v[at.CURRENT_A]))))
    assert behind[100] == pytest.approx(60e-6 * AXIS.slew_a_per_s(), rel=0.02)
    assert abs(behind[-1]) < 0.01


def test_a_field_remembers_where_its_current_came_from() -> None:
    loop = hysteresis_loop(WUWEI, "1", "carbon", 0, 200.0)
    aim, more = loop.T
    turns = np.flatnonzero(np.diff(np.sign(np.diff(aim)))) + 1
    assert np.abs(more).max() == pytest.approx(AXIS.hysteresis_a)
    for turn, sign in zip(turns, (-1.0, 1.0), strict=True):  # up to +200 A the field is low, down to -200 A high
        assert more[turn] == pytest.approx(sign * AXIS.hysteresis_a)
        past = turn + round(2.0 * AXIS.hysteresis_span_a)
        assert more[past] == pytest.approx(-sign * AXIS.hysteresis_a)
        assert more[turn + round(AXIS.hysteresis_span_a)] == pytest.approx(0.0, abs=1e-12)


def at_rest(plant: Plant) -> float:
    """Field probe less current readback of supply x, A, with the noise taken out."""
    per_a = plant.facility.scanning.x.tesla_metre_per_a
    seen = []
    for _ in range(400):
        plant.advance(plant.t_ns + MS)
        seen.append(plant.read("PROBE_TM") / per_a - plant.read("READ_A"))
    return float(np.mean(seen))


def delivered_from(x_mm: float) -> Plant:
    """A plant whose beam has come from there to the axis."""
    facility = change_facility(WUWEI, {"scanning.x.hysteresis_a": 0.3, "front_end.position_feedback_gain": 0.0})
    plant = new_plant(facility=facility)
    start(plant, Spots(np.array([x_mm, 0.0]), np.zeros(2), np.full(2, 4e5)))
    run_until(plant, "LAYER_DONE")
    return plant


def test_the_probe_sees_it_and_the_readback_does_not() -> None:
    plants = [delivered_from(x) for x in (-60.0, 60.0)]
    reads = [plant.read("READ_A") for plant in plants]
    assert reads[0] == pytest.approx(reads[1], abs=0.5)
    found = [at_rest(plant) for plant in plants]
    assert found == pytest.approx([-0.3, 0.3], abs=0.06)
    # so does the beam, by truth
    on_axis = [next(iter(plant.truth_spots().values()))[1] for plant in plants]
    x = [row[1] / row[0] for row in on_axis]
    assert x[1] - x[0] == pytest.approx(0.6 * plants[0].read("MM_PER_A"), abs=0.02)


def test_a_standardisation_cycle_takes_it_away() -> None:
    plant = delivered_from(60.0)
    assert plant.read("REMANENCE_A") == pytest.approx(0.3)
    plant.end_cycle()
    while plant.status.phase is not RingPhase.STANDBY:
        plant.advance(plant.t_ns + 10 * MS)
        plant.take_events()
    assert plant.read("REMANENCE_A") == 0.0
    assert at_rest(plant) == pytest.approx(0.0, abs=0.06)
