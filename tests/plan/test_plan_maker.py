"""Made plans: dose, flatness, geometry, order of spots, determinism; judged by a dose computed from every spot."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from control.plan.dicom_writer import dicom_bytes, write_dicom_plan
from control.plan.load import load_plan, read_plan
from control.plan.maker import make_f_plan, make_plan, make_small_plan
from control.plan.model import FloatArray, Plan, plan_hash
from control.plan.optics import positions_mm, set_points_a
from control.plan.program import compile_program
from dose.curves import depth_dose
from dose.features import Plateau, plateau_of
from dose.field import Grid, dose_on_grid
from facility.config import Facility, load_facility
from facility.constants import MEV_PER_G_TO_GY
from facility.energy_table import load_energy_table
from facility.errors import IonctlError, PlanError, UsageError
from rig.dose_desk import field_of_beam

HALF_MM, CENTRE_MM = 30.0, 150.0


@pytest.fixture(scope="module")
def wuwei() -> Facility:
    return load_facility("wuwei")


@pytest.fixture(scope="module")
def pimms() -> Facility:
    return load_facility("pimms")


@pytest.fixture(scope="module")
def reference(wuwei: Facility) -> Plan:
    """The reference plan of the issue."""
    return make_plan("sphere", 60.0, 150.0, 2.0, "carbon", wuwei)


def dose_of(plan: Plan, facility: Facility, across_mm: FloatArray, depth_mm: FloatArray) -> FloatArray:
    """Dose in Gy of the one beam, (depths, n, n)."""
    field = field_of_beam(plan.beams[0], facility, next(iter(facility.rooms.values())))
    return dose_on_grid(field, Grid(across_mm, across_mm, depth_mm))


def on_axis(plan: Plan, facility: Facility, half_mm: float, centre_mm: float) -> Plateau:
    """Figures of the dose on the axis over the central 80 % of the target."""
    depth = np.arange(0.0, centre_mm + half_mm + 20.0, 0.5)
    return plateau_of(depth, dose_of(plan, facility, np.array([0.0, 1.0]), depth)[:, 0, 0], centre_mm, half_mm)


def test_reference_plan_has_its_spots_and_its_dose(reference: Plan, wuwei: Facility) -> None:
    assert reference.n_spots >= 13_000
    found = on_axis(reference, wuwei, HALF_MM, CENTRE_MM)
    assert found.flatness <= 0.01
    assert found.mean == pytest.approx(2.0, rel=0.01)


def test_reference_plan_is_even_in_the_sphere_and_falls_outside(reference: Plan, wuwei: Facility) -> None:
    across, depth = np.arange(-40.0, 41.0, 4.0), np.arange(CENTRE_MM - 40.0, CENTRE_MM + 41.0, 4.0)
    dose = dose_of(reference, wuwei, across, depth)
    z, y, x = np.meshgrid(depth - CENTRE_MM, across, across, indexing="ij")
    inside = dose[x**2 + y**2 + z**2 <= 24.0**2]
    assert inside.std() / inside.mean() < 0.01
    assert np.all(np.abs(inside / 2.0 - 1.0) < 0.03)
    middle = depth.size // 2, across.size // 2
    assert np.all(dose[middle[0], middle[1], [0, -1]] < 0.04)  # fragments fly aside
    assert np.all(dose[middle[0], [0, -1], middle[1]] < 0.04)
    assert dose[-1, middle[1], middle[1]] < 0.6  # the fragment tail


@pytest.mark.parametrize(
    ("facility_name", "species", "shape", "size", "depth", "dose"),
    [
        ("wuwei", "carbon", "cube", 40.0, 100.0, 1.0),
        ("wuwei", "carbon", "sphere", 36.0, 240.0, 5.0),
        ("lanzhou", "carbon", "cube", 20.0, 60.0, 0.5),
        ("himm-mee", "carbon", "sphere", 40.0, 200.0, 2.0),
        ("pimms", "carbon", "sphere", 60.0, 150.0, 2.0),
        ("pimms", "proton", "sphere", 60.0, 150.0, 2.0),
        ("pimms", "proton", "cube", 40.0, 200.0, 1.0),
    ],
)
def test_flat_to_three_percent_and_deliverable(
    facility_name: str, species: str, shape: str, size: float, depth: float, dose: float
) -> None:
    facility = load_facility(facility_name)
    plan = make_plan(shape, size, depth, dose, species, facility)
    axis = on_axis(plan, facility, size / 2.0, depth)
    assert axis.flatness <= 0.02
    assert axis.mean == pytest.approx(dose, rel=0.015)
    program = compile_program(plan, facility, next(iter(facility.rooms)))
    held = sum(layer.total_ions * layer.percent_share for layer in program.layers) / program.total_ions
    assert held >= 0.95


def test_absolute_dose_is_fluence_times_stopping(wuwei: Facility) -> None:
    """In the middle of a wide field, dose is ions per area times the depth dose: no Gaussian needed."""
    plan = make_plan("cube", 40.0, 100.0, 1.0, "carbon", wuwei, lateral_spacing_mm=2.0)
    water = 95.0 + wuwei.water_equivalent_upstream_mm()
    total = 0.0
    for layer in plan.beams[0].layers:
        central = (np.abs(layer.x_mm) < 9.1) & (np.abs(layer.y_mm) < 9.1)
        per_cm2 = layer.weight[central].mean() / 0.04
        curve = depth_dose(layer.energy_mev_u, wuwei.species["carbon"], wuwei.ripple_filter.sigma_mm)
        total += per_cm2 * float(curve.at([water])[0]) * MEV_PER_G_TO_GY
    assert total == pytest.approx(1.0, rel=0.02)


def test_proximal_spots_are_light_where_distal_ones_pass_through(reference: Plan) -> None:
    layers = reference.beams[0].layers
    energies = [layer.energy_mev_u for layer in layers]
    assert energies == sorted(energies, reverse=True)
    middle = layers[len(layers) // 2]
    radius = np.hypot(middle.x_mm, middle.y_mm)
    assert middle.weight[radius > 27.0].mean() > 2.5 * middle.weight[radius < 10.0].mean()


def test_spots_run_there_and_back(reference: Plan) -> None:
    for layer in reference.beams[0].layers:
        assert np.all(np.diff(layer.y_mm) >= 0.0)
        if layer.n_spots > 20:
            assert np.hypot(np.diff(layer.x_mm), np.diff(layer.y_mm)).max() < 20.0
        ways = [np.sign(np.diff(layer.x_mm[layer.y_mm == y])) for y in np.unique(layer.y_mm)]
        firsts = [way[0] for way in ways if way.size]
        assert all(np.all(way == way[0]) for way in ways if way.size)
        if all(way.size for way in ways):
            assert all(a == -b for a, b in itertools.pairwise(firsts))


def test_made_plans_are_exact_in_a_file_and_always_the_same(reference: Plan, wuwei: Facility, tmp_path: Path) -> None:
    write_dicom_plan(reference, tmp_path / "a.dcm")
    again = make_plan("sphere", 60.0, 150.0, 2.0, "carbon", wuwei)
    assert (tmp_path / "a.dcm").read_bytes() == dicom_bytes(again)
    assert plan_hash(load_plan(tmp_path / "a.dcm")) == plan_hash(reference)


def test_reference_plan_passes_dciodvfy(reference: Plan, tmp_path: Path) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy not installed")
    write_dicom_plan(reference, tmp_path / "a.dcm")
    report = subprocess.run([tool, str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    assert "Error" not in report.stdout + report.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "kind"),
    [
        (("pyramid", 60.0, 150.0, 2.0), "choose sphere or cube", UsageError),
        (("sphere", -1.0, 150.0, 2.0), "size of -1 mm", UsageError),
        (("sphere", float("nan"), 150.0, 2.0), "size of nan", UsageError),
        (("sphere", 60.0, 150.0, 0.0), "dose of 0 Gy", UsageError),
        (("sphere", 60.0, 30.0, 2.0), "ranges of", PlanError),
        (("sphere", 60.0, 270.0, 2.0), "carbon at wuwei has", PlanError),
        (("sphere", 199.0, 140.0, 2.0), "scan field", PlanError),
        (("cube", 40.0, 150.0, 0.01), "give more dose", PlanError),
    ],
)
def test_what_cannot_be_made_is_refused(
    wuwei: Facility, arguments: tuple[str, float, float, float], words: str, kind: type[IonctlError]
) -> None:
    with pytest.raises(kind) as caught:
        make_plan(*arguments, "carbon", wuwei)
    assert words in str(caught.value)


def test_unknown_species(wuwei: Facility) -> None:
    with pytest.raises(UsageError, match="proton"):
        make_plan("sphere", 60.0, 150.0, 2.0, "proton", wuwei)


def test_an_energy_without_a_curve_is_refused_by_name(wuwei: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise ValueError("depth dose needs 10 to 450 MeV/u")

    monkeypatch.setattr("control.plan.maker.depth_dose", none)
    with pytest.raises(PlanError, match=r"10 to 450 MeV/u \(carbon, [\d.]+ MeV/u\)"):
        make_plan("cube", 20.0, 100.0, 1.0, "carbon", wuwei)


@pytest.mark.parametrize("name", ["wuwei", "lanzhou", "himm-mee", "pimms"])
def test_small_and_f_plans_can_be_delivered_everywhere(name: str) -> None:
    facility = load_facility(name)
    for species in facility.species:
        small = make_small_plan(facility, species)
        assert 50 <= small.n_spots <= 200
        assert small.n_layers >= 2
        for plan in (small, make_f_plan(facility, species)):
            for room_id in facility.rooms:
                compile_program(plan, facility, room_id, qa=True)


def test_the_f_has_no_symmetry(pimms: Facility) -> None:
    plan = read_plan(dicom_bytes(make_f_plan(pimms, "proton")), "f")
    layer = plan.beams[0].layers[0]
    image = {(float(x), float(y)) for x, y in zip(layer.x_mm, layer.y_mm, strict=True)}
    turned = [
        {(sx * (y if swap else x), sy * (x if swap else y)) for x, y in image}
        for sx in (1, -1)
        for sy in (1, -1)
        for swap in (False, True)
    ]
    assert sum(other == image for other in turned) == 1
    assert layer.x_mm[np.argmin(layer.y_mm)] < 0.0
    assert np.unique(layer.weight).size > layer.n_spots // 2


# optics --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wuwei", "lanzhou", "himm-mee", "pimms"])
def test_set_points_and_positions_are_inverse_in_every_room(name: str) -> None:
    facility = load_facility(name)
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-100, 100, 50), rng.uniform(-100, 100, 50)
    for species in facility.species:
        for room in load_energy_table(facility, species).rooms.values():
            currents = set_points_a(x, y, room, 77)
            back = positions_mm(*currents, room, 77)
            np.testing.assert_allclose(back, (x, y), atol=1e-9)


def test_wiring_follows_the_room(wuwei: Facility) -> None:
    right = (np.array([50.0]), np.array([0.0]))
    up = (np.array([0.0]), np.array([50.0]))
    table = load_energy_table(wuwei, "carbon")
    for room_id, room in wuwei.rooms.items():
        along_x = set_points_a(*right, table.room(room_id), 150)
        along_y = set_points_a(*up, table.room(room_id), 150)
        moves_x, moves_y = (along_x[1], along_y[0]) if room.swap_xy else (along_x[0], along_y[1])
        still_x, still_y = (along_x[0], along_y[1]) if room.swap_xy else (along_x[1], along_y[0])
        assert np.sign(moves_x[0]) == room.x_polarity
        assert np.sign(moves_y[0]) == room.y_polarity
        assert still_x[0] == still_y[0] == 0.0


def test_current_by_hand(wuwei: Facility) -> None:
    """100 mm over 7.2 m at 400 MeV/u: angle 13.888 mrad, 6.3465 T m, 1.842e-4 T m/A."""
    table = load_energy_table(wuwei, "carbon")
    x_set, y_set = set_points_a(np.array([100.0]), np.array([0.0]), table.room("1"), len(table) - 1)
    assert x_set[0] == pytest.approx(np.arctan(100.0 / 7200.0) * 6.346458 / 1.842e-4, rel=1e-6)
    assert y_set[0] == 0.0
