"""What `ionctl machine cycle`, `scan` and `monitors` show is what the facility's file says of ring and supplies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from console.main import run
from facility.config import load_facility
from facility.energy_table import load_energy_table
from facility.errors import ConfigError
from facility.physics import rigidity_tm
from facility.states import RingPhase
from ioc_sim.studies.cycle import cycle_study
from ioc_sim.studies.monitors import monitor_study
from ioc_sim.studies.scan import STEPS_MM, scan_study

WUWEI = load_facility("wuwei")
ENERGY = float(load_energy_table(WUWEI, "carbon").energy_mev_u[90])


def test_a_cycle_has_the_phases_of_the_file_and_its_ions() -> None:
    found = cycle_study(WUWEI, "1", "carbon", ENERGY, 1)
    durations, phases = found.durations_s(), WUWEI.ring.phases
    for name, wanted_ms in (
        ("INJECTION", phases.injection_ms), ("CAPTURE", phases.capture_ms), ("STABILISE", phases.stabilise_ms),
        ("RESONANCE", phases.resonance_ms), ("DUMP", phases.dump_ms), ("RAMP_DOWN", phases.ramp_down_ms),
        ("STANDARDISE", phases.standardise_ms),
    ):  # fmt: skip
        assert durations[name] == pytest.approx(wanted_ms * 1e-3), name
    ion = WUWEI.species["carbon"]
    rise = float(rigidity_tm(ENERGY, ion)) - float(rigidity_tm(WUWEI.ring.injection_energy_mev_u, ion))
    ramp_s = rise / WUWEI.ring.bending_radius_m / phases.ramp_t_per_s
    assert durations["RAMP"] == pytest.approx(ramp_s, abs=0.0021)
    assert found.arriving.sum() * 1e-3 == pytest.approx(2.0 * found.level, rel=0.01)
    assert found.arriving[found.phase != RingPhase.FLAT_TOP].sum() < 0.001 * found.arriving.sum()
    assert found.captured_ions == pytest.approx(ion.fill_ions, rel=0.2)
    assert found.stored_ions.max() == pytest.approx(found.captured_ions / (1.0 - WUWEI.ring.capture_loss_rel))
    on_top = found.rigidity_tm[found.phase == RingPhase.FLAT_TOP]
    assert on_top == pytest.approx(float(rigidity_tm(ENERGY, ion)))
    assert np.all(np.diff(found.rigidity_tm[found.phase == RingPhase.RAMP]) > 0.0)


def test_a_cycle_steps_down_where_the_ring_takes_several_energies() -> None:
    facility = load_facility("himm-mee")
    found = cycle_study(facility, "1", "carbon", ENERGY, 1)
    ring = facility.ring
    assert len(found.energies_mev_u) == ring.energies_per_flat_top == 8
    assert np.all(np.diff(found.energies_mev_u) < 0.0)
    assert found.to_data()["energies_mev_u"] == list(found.energies_mev_u)
    starts = np.flatnonzero((found.phase[1:] == RingPhase.ENERGY_STEP) & (found.phase[:-1] == RingPhase.FLAT_TOP)) + 1
    assert starts.size == 7
    left = found.stored_ions[starts] / found.stored_ions[starts - 1]
    assert left == pytest.approx(1.0 - ring.energy_step_loss_rel, abs=2e-3)
    assert found.durations_s()["ENERGY_STEP"] == pytest.approx(7e-3 * ring.phases.energy_step_ms)
    ion = facility.species["carbon"]
    tops = [found.rigidity_tm[k - 1] for k in [*starts, int(np.flatnonzero(found.phase == RingPhase.DUMP)[0])]]
    assert tops == pytest.approx([float(rigidity_tm(energy, ion)) for energy in found.energies_mev_u])
    assert found.arriving.sum() * 1e-3 == pytest.approx(2.0 * found.level, rel=0.02)


def test_monitors_collect_all_in_time_and_lose_by_rate_and_voltage() -> None:
    found = monitor_study(WUWEI, "1", "carbon", ENERGY)
    fast, slow = found.collected[1500.0], found.collected[400.0]
    assert fast[0] == pytest.approx(1.0 - 0.5 * (1.0 - 1.0 / 9.8) ** 2, abs=0.02)  # electrons, the first of ten ticks
    assert fast[10] == slow[-1] == 1.0
    assert slow[10] == pytest.approx(1.0 - 0.5 * (1.0 - 11.0 / 36.8) ** 2, abs=0.02)
    slope = np.diff(np.log(found.losses[1500.0])) / np.diff(np.log(found.rates))
    assert slope == pytest.approx(1.0, abs=0.02)
    assert found.centre_mm == pytest.approx(found.best_mm, rel=0.05)
    assert np.all(found.beside_dead_mm > found.best_mm)


def test_a_cycle_is_a_function_of_its_seed() -> None:
    first, again, other = (cycle_study(WUWEI, "1", "carbon", ENERGY, seed).arriving for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[: other.size], other[: first.size])


def test_large_steps_take_the_time_of_the_voltage_and_small_ones_that_of_the_bandwidth() -> None:
    found = scan_study(WUWEI, "1", "carbon", ENERGY)
    assert [step.distance_mm for step in found.steps if step.axis == "x"] == list(STEPS_MM)
    axis, room = WUWEI.scanning.x, WUWEI.rooms["1"]
    per_a = axis.tesla_metre_per_a / float(rigidity_tm(ENERGY, WUWEI.species["carbon"])) * room.sad_x_mm
    by_voltage = axis.slew_a_per_s() * per_a
    for step in found.steps:
        if step.axis == "x":
            assert step.speed_mm_s <= by_voltage * 1.03  # eddy currents, to first order: faster as a ramp ends
            assert step.settled_s >= (step.distance_mm - found.tolerance_mm) / by_voltage
            assert step.overshoot_mm < found.tolerance_mm
    largest = max((step for step in found.steps if step.axis == "x"), key=lambda one: one.distance_mm)
    assert largest.settled_s == pytest.approx(largest.distance_mm / by_voltage, rel=0.05)
    settled = [step.settled_s for step in found.steps if step.axis == "x"]
    assert settled == sorted(settled)


def test_a_weaker_supply_takes_longer() -> None:
    weaker = WUWEI.scanning.x.model_copy(update={"max_voltage_v": 0.5 * WUWEI.scanning.x.max_voltage_v})
    weak = WUWEI.model_copy(update={"scanning": WUWEI.scanning.model_copy(update={"x": weaker})})
    strong, slow = (scan_study(one, "1", "carbon", ENERGY).steps for one in (WUWEI, weak))
    assert slow[6].settled_s > 1.8 * strong[6].settled_s


def test_an_energy_that_the_table_has_not_is_refused() -> None:
    for study in (lambda: scan_study(WUWEI, "1", "carbon", 60.0), lambda: cycle_study(WUWEI, "1", "carbon", 60.0, 1)):
        with pytest.raises(ConfigError, match="allowed"):
            study()


def test_commands_give_numbers_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what, key in (("cycle", "durations_s"), ("scan", "steps"), ("monitors", "charge")):
        plot = tmp_path / f"{what}.png"
        assert run(["machine", what, "--plot", str(plot), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[key]
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert run(["machine", what, "--facility", "pimms", "--species", "proton"]) == 0
        assert "proton of" in capsys.readouterr().out


def test_slower_ions_come_later_and_are_lost_more() -> None:
    found = monitor_study(WUWEI, "1", "carbon", ENERGY)
    assert found.late_s(1500.0) < found.late_s(800.0) < found.late_s(400.0)
    assert found.loss_at(1500.0, 1e9) < found.loss_at(400.0, 1e9) < found.loss_at(400.0, 5e9)
    assert found.centre_at(1e3) > found.centre_at(1e5)
