"""Both chambers and the backup counter: what moves them, that nothing moves two of them, and what corrects for what."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from facility import signals as g
from facility.config import Facility, change_facility, load_facility
from facility.errors import ConfigError
from ioc_sim.faults import FAULT_POINTS, Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, S, Spots, grid, new_plant, open_field, run_until, start

LEVEL, CODE, TOKEN = 2e7, 150, 77
SPOTS = grid(half_mm=4.0, step_mm=4.0, low=2e5, high=2e5)
MONITORS = ("ic1", "ic2", "backup")
TRIED = (
    *((point, kind, 0.5) for point in FAULT_POINTS for kind in (FaultKind.SCALE, FaultKind.DEAD)),
    *((f"ic{k}.leakage", FaultKind.OFFSET, 500.0) for k in (1, 2)),
)
CHANGES = {"gap_mm": 6.0, "voltage_v": 1000.0, "count_quantum_fc": 7.0, "gain_true": 1.1, "leakage_fc_per_s": 5.0,
           "noise_counts_rms": 0.1, "recombination_rel_at_1e9": 0.05}  # fmt: skip
OF_ONE = {
    "ic1": {"ic1.gain", "ic1.counts", "ic1.hv", "ic1.leakage", "ic1.ktp"},
    "ic2": {"ic2.gain", "ic2.counts", "ic2.hv", "ic2.leakage", "ic2.ktp"},
    "backup": {"backup.gain", "backup.counts"},
}


def shares(plant: Plant) -> dict[str, float]:
    """Ions by each monitor over those that came, since the layer was loaded."""
    truth = float(plant.truth_spots()[TOKEN][:, 0].sum())
    read = plant.read("IC_LAYER_IONS"), plant.read("IC_LAYER_IONS", 1), plant.backup_layer_ions()
    return {name: ions / truth for name, ions in zip(MONITORS, read, strict=True)}


def delivered(facility: Facility | None = None, *faults: Fault, spots: Spots = SPOTS, code: int = CODE) -> Plant:
    """A plant that has delivered the layer; faults stand since before its field was opened."""
    plant = new_plant(facility=facility)
    for fault in faults:
        plant.inject(fault)
    plant.advance(plant.t_ns + S)
    open_field(plant, 2, 1e15, 1e9)
    start(plant, spots, level=LEVEL, code=code, token=TOKEN)
    run_until(plant, "LAYER_DONE")
    plant.advance(plant.t_ns + 2 * MS)
    return plant


def begun() -> Plant:
    """A plant in the middle of a layer, in its 20 ms of beam."""
    plant = new_plant()
    start(plant, SPOTS, level=LEVEL, code=CODE, token=TOKEN)
    run_until(plant, "BEAM_ON")
    plant.advance(plant.t_ns + 20 * MS)
    return plant


def counted(plant: Plant) -> np.ndarray:
    """Ions by each monitor, and true ones."""
    truth = float(plant.truth_spots()[TOKEN][:, 0].sum())
    return np.array([plant.signals[g.IC1_IONS], plant.signals[g.IC2_IONS], plant.backup_layer_ions(), truth])


def gained(fault: Fault | None) -> np.ndarray:
    """The same of 30 ms more, with a fault."""
    plant = begun()
    if fault is not None:
        plant.inject(fault)
    before = counted(plant)
    plant.advance(plant.t_ns + 30 * MS)
    return counted(plant) - before


def test_nothing_that_can_fail_moves_two_monitors() -> None:
    """Every fault point of the plant, halved and dead: what two monitors shared would move both, over the true ions."""
    usual = gained(None)
    moved: dict[str, set[str]] = {name: set() for name in MONITORS}
    for point, kind, value in TRIED:
        found = gained(Fault(point, kind, value))
        if found[3] < 1e5:
            continue  # the beam is gone: there is nothing to be wrong about
        off = found[:3] / found[3] / (usual[:3] / usual[3]) - 1.0
        for name, rel in zip(MONITORS, off, strict=True):
            if not abs(rel) < 3e-3:
                moved[name].add(point)
    assert moved == OF_ONE
    assert not any(a & b for a, b in itertools.combinations(moved.values(), 2))


def test_what_the_three_are_made_of() -> None:
    """Nothing in the facility's file serves two of them; the air of the room reaches two, the third is sealed."""
    facility = load_facility("wuwei")
    for name, other in itertools.permutations(MONITORS, 2):
        changed = {
            f"chambers.{name}.{key}": value for key, value in CHANGES.items() if hasattr(part(facility, name), key)
        }
        assert part(change_facility(facility, changed), other) == part(facility, other)
    thin = delivered(change_facility(facility, {"air.pressure_kpa": 85.0}))
    usual = delivered()
    charge = [
        [plant.read("IC_FC_PER_ION", k) for k in (0, 1)] + [plant.read("BACKUP_FC_PER_ION")] for plant in (thin, usual)
    ]
    assert np.array(charge[0]) / np.array(charge[1]) == pytest.approx([85.0 / 101.325] * 2 + [1.0], rel=1e-9)


def part(facility: Facility, name: str) -> Any:
    return getattr(facility.chambers, name)


@pytest.mark.parametrize("air", [{"air.pressure_kpa": 84.5, "air.temperature_c": 26.0}, {"air.temperature_c": 8.0}])
def test_dose_is_right_in_any_weather(air: dict[str, float]) -> None:
    """The air frees 18 % less charge, or 4 % more: the correction in use takes it out of all that is said and done."""
    facility = change_facility(load_facility("wuwei"), air)
    plant = delivered(facility)
    assert abs(facility.air.density_rel() - 1.0) > 0.04
    assert shares(plant) == pytest.approx({"ic1": 1.0, "ic2": 1.0, "backup": 1.002}, abs=2e-3)
    assert float(plant.truth_spots()[TOKEN][:, 0].sum()) == pytest.approx(SPOTS.ions.sum(), rel=2e-3)
    assert plant.signals[g.IC1_KTP] == pytest.approx(1.0, abs=2e-3)


def test_a_correction_is_taken_when_a_field_is_opened_and_stays() -> None:
    """Gas that is warmer than the room's before a field costs nothing; within a field it shows in what is watched."""
    warm = Fault("ic1.ktp", FaultKind.SCALE, 1.02)
    before = delivered(None, warm)
    assert shares(before)["ic1"] == pytest.approx(1.0, abs=2e-3)
    assert before.signals[g.IC1_KTP] == pytest.approx(1.0, abs=2e-3)
    within = begun()
    within.inject(warm)
    run_until(within, "LAYER_DONE")
    within.advance(within.t_ns + S)
    assert within.signals[g.IC1_KTP] == pytest.approx(1.02, abs=2e-3)
    assert 0.98 < shares(within)["ic1"] < 0.997  # the gas takes 100 ms to warm, the rest of the layer 70


def test_calibration_by_energy() -> None:
    """A chamber that gives 1 % more at 400 MeV/u than it was calibrated with says so many more ions there, and there
    alone; the table holds what was measured."""
    usual = load_facility("wuwei")
    wrong = change_facility(usual, {"chambers.ic2.response_true": ((120.0, 0.998), (300.0, 1.001), (400.0, 1.013))})
    for code, off in ((239, 0.01), (60, 0.0)):
        good, bad = (shares(delivered(facility, code=code)) for facility in (usual, wrong))
        assert bad["ic2"] / good["ic2"] - 1.0 == pytest.approx(off, abs=1e-3)
        assert bad["ic1"] / good["ic1"] == pytest.approx(1.0, abs=1e-3)
    other = change_facility(usual, {"chambers.ic2.calibration": ((120.0, 0.998), (400.0, 1.013))})
    with pytest.raises(ConfigError, match="other figures than the facility file holds"):
        Plant(other, "1", "carbon", seed=1)
    with pytest.raises(ConfigError, match=r"chambers\.backup\.calibration"):
        change_facility(usual, {"chambers.backup.calibration": ((400.0, 1.0), (120.0, 1.0))})


def loss_of(level: float, code: int = CODE, voltage: float = 1.0) -> float:
    """Share of its charge that chamber 2 loses by recombination at a level, and at a share of its voltage."""
    spots = grid(half_mm=4.0, step_mm=4.0, low=2e6, high=2e6)
    said = []
    for rel in (0.0, 0.05):
        plant = new_plant(
            facility=change_facility(load_facility("wuwei"), {"chambers.ic2.recombination_rel_at_1e9": rel})
        )
        plant.inject(Fault("ic2.hv", FaultKind.SCALE, voltage))
        start(plant, spots, level=level, code=code, token=TOKEN)
        run_until(plant, "LAYER_DONE")
        plant.advance(plant.t_ns + 2 * MS)
        said.append(shares(plant)["ic2"])
    return 1.0 - said[1] / said[0]


def test_recombination_goes_with_dose_rate_and_voltage() -> None:
    """Linear in the rate, with the square of the voltage, and less where the spot is wider."""
    usual = loss_of(1e8)
    room = new_plant().table.room("1")
    charge, sigma = room.charge_per_ion_ic2_fc, room.spot_sigma_mm
    by_hand = 0.05 * 0.1 * charge[CODE] / 0.25 * (1.7 / sigma[CODE]) ** 2
    assert usual == pytest.approx(by_hand, rel=0.3)  # ripple of the spill makes more of it
    assert loss_of(2e8) / usual == pytest.approx(2.0, rel=0.1)
    assert loss_of(1e8, voltage=0.5) / usual == pytest.approx(4.0, rel=0.1)
    expected = charge[20] / charge[CODE] * (sigma[CODE] / sigma[20]) ** 2
    assert loss_of(1e8, code=20) / usual == pytest.approx(expected, rel=0.1)
