"""Make QA plans: a sphere or a cube in water with one absorbed dose, and an F for telling left from right.

Layers come from the facility's frozen energy table, weights from `control.plan.optimise`. Numbers are such that a
DICOM file holds them exactly: positions and weights in 32 bits, whole ions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from control.plan.model import Beam, FloatArray, Layer, Plan, beam_meterset, make_layer, plan_hash, require_layers
from control.plan.optimise import DoseProblem, Limits, lateral_shares
from control.plan.target import Target, target_of
from control.plan.uids import derived_uid
from control.plan.water import weights_in_water
from dose.curves import Curve, depth_dose
from dose.features import peak_of
from facility.config import Facility
from facility.constants import TICK_S
from facility.energy_table import EnergyTable, load_energy_table
from facility.errors import PlanError
from facility.physics.transport import spot_sigma_mm

DEPTH_STEP_MM = 1.0
ITERATIONS = 200
#: Spots lighter than this share of their layer's mean are given up: they would slow the whole layer down.
LIGHTEST_SHARE = 0.05
FLOOR_MARGIN = 1.5
#: A plan whose dose varies more than this (one sigma, over the inner 80 % of the target) is not handed out.
WORST_SIGMA = 0.05
MONITOR_COUNTS = 4e5
F_STROKES = ((-20.0, 30.0, -20.0, -30.0), (-15.0, 30.0, 15.0, 30.0), (-15.0, 5.0, 5.0, 5.0))


TRIAL_GROUPS_MM = (-43.0, 10.0)
"""Where groups of spots begin; the gaps between them are crossed without beam."""
TRIAL_GROUP = 12
TRIAL_LONG_ROWS = 24


def make_plan(
    shape: str,
    size_mm: float,
    depth_mm: float,
    dose_gy: float,
    species: str,
    facility: Facility,
    *,
    lateral_spacing_mm: float = 2.2,
    layer_spacing_mm: float = 2.0,
    gantry_angle_deg: float | None = None,
    patient_id: str = "QA",
) -> Plan:
    """A one-beam plan in particles that gives a target in water one absorbed dose (RBE never enters).

    Args:
        shape: `sphere` or `cube`.
        size_mm: diameter or edge.
        depth_mm: depth of the target's centre below the water surface.
        dose_gy: absorbed dose in water, mean over the target.
        lateral_spacing_mm: distance between spots; 0.5 to 10.
        layer_spacing_mm: distance between layers in depth, rounded to whole steps of the energy table.
        gantry_angle_deg: default is that of the facility's first room.

    Raises:
        PlanError: the target does not fit the energies or the scan field, or its dose would not be flat.
        UsageError: a number makes no sense, or the facility has no such species.
    """
    target = target_of(shape, size_mm, depth_mm, dose_gy, lateral_spacing_mm, layer_spacing_mm)
    table = load_energy_table(facility, species)
    margin = _margin_mm(target, table, facility, species, lateral_spacing_mm)
    wide = dataclasses.replace(target, half_mm=target.half_mm + margin)
    _require_field(wide, facility)
    codes = _layer_codes(wide, table, facility, species, layer_spacing_mm)
    grid = _grid(wide.half_mm, lateral_spacing_mm)
    problem = _problem(target, wide, codes, table, facility, species, grid, dose_gy)
    energies = table.energy_mev_u[codes]
    floor = FLOOR_MARGIN * _lightest_ions(facility, species, energies)
    limits = Limits(floor, LIGHTEST_SHARE, ITERATIONS)
    weights, dose = weights_in_water(problem, energies, grid, _depths_mm(target), facility, species, limits)
    _require_uniform(problem, dose, target, grid)
    layers = [
        _grid_layer(k, float(table.energy_mev_u[code]), grid, weights[k], facility, species)
        for k, code in enumerate(codes)
    ]
    label = f"{shape} {size_mm:g}"
    return _finished(label, layers, species, facility, gantry_angle_deg, patient_id, dose_gy)


def make_small_plan(facility: Facility, species: str) -> Plan:
    """A plan for quick checks: a cube of 10 mm in the middle of the facility's depths, 0.5 Gy, spots 3 mm apart."""
    table = load_energy_table(facility, species)
    depth = round(float(table.range_mm[len(table) // 2]))
    return make_plan(
        "cube", 10.0, depth, 0.5, species, facility, lateral_spacing_mm=3.0, layer_spacing_mm=4.0, patient_id="QA-SMALL"
    )


def make_even_plan(facility: Facility, species: str, per_side: int, spacing_mm: float = 4.0) -> Plan:
    """One layer in the middle of the facility's depths: a square grid of equal spots, a tenth heavier than the lightest
    that can be held there."""
    table = load_energy_table(facility, species)
    energy = float(table.energy_mev_u[len(table) // 2])
    ions = 1.1 * float(_lightest_ions(facility, species, np.array([energy]))[0])
    grid = np.asarray((np.arange(per_side) - 0.5 * (per_side - 1)) * spacing_mm, dtype=np.float64)
    layer = _grid_layer(0, energy, grid, np.full((per_side, per_side), ions), facility, species)
    return _finished("even grid", [layer], species, facility, None, "QA-EVEN", None)


def make_monitor_plan(facility: Facility, species: str) -> Plan:
    """A plan for the daily check of the monitors: 5 x 5 equal spots at the highest, a middle and the lowest energy.

    Each layer has so many counts of the first chamber that their grain is far below a tenth of a percent.
    """
    table = load_energy_table(facility, species)
    grid = np.asarray((np.arange(5) - 2.0) * 6.0, dtype=np.float64)
    layers = []
    for index, code in enumerate((len(table) - 1, len(table) // 2, 0)):
        energy = float(table.energy_mev_u[code])
        ions = MONITOR_COUNTS * facility.ions_per_count(species, energy) / grid.size**2
        layers.append(_grid_layer(index, energy, grid, np.full((5, 5), ions), facility, species))
    return _finished("monitors", layers, species, facility, None, "QA-MONITORS", None)


def make_f_plan(facility: Facility, species: str, *, gantry_angle_deg: float | None = None) -> Plan:
    """A letter F, 40 x 60 mm with its stem at negative x and its long arm at positive y, in two energies.

    The second layer is the stem alone, and spots grow heavier along the way: no mirror, swap or turn gives it back.
    """
    table = load_energy_table(facility, species)
    middle = len(table) // 2
    base = 4e-3 * _middle_level(facility, species)
    layers = []
    for index, (code, strokes) in enumerate(((middle, F_STROKES), (middle - 20, F_STROKES[:1]))):
        x, y = _along(strokes, 2.5)
        weight = _storable(base * (1.0 + np.arange(x.size) / x.size))
        layers.append(
            make_layer("1", 1, index, energy_mev_u=float(table.energy_mev_u[code]), x_mm=x, y_mm=y, weight=weight)
        )
    return _finished("F", layers, species, facility, gantry_angle_deg, "QA-F", None)


def make_trial_plan(facility: Facility, species: str) -> Plan:
    """A plan for trials of the interlocks: groups of close spots, wide gaps without beam between them, two energies.

    The first layer lasts about a second at a level near the upper end of those that treat, the second a tenth of that;
    where it follows in the same flat top, three seconds: who is silent must be missed before the field is over.
    """
    table = load_energy_table(facility, species)
    middle = len(table) // 2
    levels = facility.species_named(species).intensity_levels_ions_per_s
    heavy = 4.5e-3 * float(levels[len(levels) * 3 // 4])
    layers = []
    last_rows = 1 if facility.ring.energies_per_flat_top == 1 else TRIAL_LONG_ROWS
    for index, (code, rows) in enumerate(((middle, 8), (middle - 8, last_rows))):
        across = np.concatenate([start + 3.0 * np.arange(TRIAL_GROUP) for start in TRIAL_GROUPS_MM])
        x = np.concatenate([across[:: 1 if row % 2 == 0 else -1] for row in range(rows)])
        y = np.repeat(3.0 * (np.arange(rows) - rows // 2), across.size)
        share = (np.arange(x.size) % 7).astype(np.float64) / 6.0
        weight = _storable(heavy * (0.8 + 0.4 * share))
        layers.append(
            make_layer("1", 1, index, energy_mev_u=float(table.energy_mev_u[code]), x_mm=x, y_mm=y, weight=weight)
        )
    return _finished("TRIAL", layers, species, facility, None, "QA-TRIAL", None)


def make_grid_plan(facility: Facility, species: str, n_layers: int, n_spots: int) -> Plan:
    """A plan for campaigns: so many layers of so many spots, 3 mm apart in square rows, one energy each, high to low.

    Weights vary by half along a layer, so that a spot that is delivered twice or left out shows.
    """
    table = load_energy_table(facility, species)
    first, step = len(table) // 2, max(1, round(2.0 / table.range_step_mm))
    levels = facility.species_named(species).intensity_levels_ions_per_s
    heavy = 4.5e-3 * float(levels[len(levels) * 3 // 4])
    side = int(np.ceil(np.sqrt(n_spots)))
    rows, columns = np.divmod(np.arange(n_spots), side)
    columns = np.where(rows % 2 == 0, columns, side - 1 - columns)
    x, y = 3.0 * (columns - (side - 1) / 2.0), 3.0 * (rows - (side - 1) / 2.0)
    share = (np.arange(n_spots) % 7).astype(np.float64) / 6.0
    weight = _storable(heavy * (0.8 + 0.4 * share))
    layers = [
        make_layer(
            "1", 1, index, energy_mev_u=float(table.energy_mev_u[first - index * step]), x_mm=x, y_mm=y, weight=weight
        )
        for index in range(n_layers)
    ]
    return _finished("GRID", layers, species, facility, None, f"QA-GRID-{n_layers}-{n_spots}", None)


# geometry ------------------------------------------------------------------------------------------------------------


def _margin_mm(target: Target, table: EnergyTable, facility: Facility, species: str, spacing_mm: float) -> float:
    """How far outside the target spots may lie: one sigma of the spot, half a spacing at least.

    With half a sigma the weights overshoot along the edge to hold the dose there, and dose inside varies by 5 %.
    """
    code = table.nearest_range(target.depth_mm + facility.water_equivalent_upstream_mm())
    sigma_mm = float(spot_sigma_mm(table.energy_mev_u[code], facility.species_named(species)))
    return max(0.5 * spacing_mm, sigma_mm)


def _require_field(wide: Target, facility: Facility) -> None:
    reach = min(min(room.field_half_mm) for room in facility.rooms.values())
    if wide.half_mm > reach:
        what = f"with its margin the target is {2.0 * wide.half_mm:.1f} mm wide and does not fit the scan field"
        raise PlanError("plan.scan-field", what, "plan make", f"rooms of {facility.id} scan +-{reach:g} mm")


def _grid(half_mm: float, spacing_mm: float) -> FloatArray:
    count = int(half_mm / spacing_mm + 1e-9)
    return np.arange(-count, count + 1, dtype=np.float64) * spacing_mm


def _layer_codes(
    target: Target, table: EnergyTable, facility: Facility, species: str, layer_spacing_mm: float
) -> list[int]:
    """Energy codes whose Bragg peaks lie in the target, from the distal edge on, high to low."""
    before = facility.water_equivalent_upstream_mm()
    distal, proximal = target.depth_mm + target.half_mm, target.depth_mm - target.half_mm
    offset = _peak_offset_mm(table, facility, species, table.nearest_range(distal + before))
    deepest, shallowest = distal + before + offset, proximal + before + offset
    half_step = 0.5 * table.range_step_mm
    low, high = float(table.range_mm[0]), float(table.range_mm[-1])
    if deepest > high + half_step or shallowest < low - half_step:
        raise PlanError(
            "plan.depth",
            f"a target from {proximal:g} to {distal:g} mm needs ranges of {shallowest:.1f} to {deepest:.1f} mm",
            "plan make",
            f"{species} at {facility.id} has {low:.1f} to {high:.1f} mm",
        )
    step = max(1, round(layer_spacing_mm / table.range_step_mm))
    last = table.nearest_range(shallowest)
    return list(range(table.nearest_range(deepest), last - 1, -step))


def _peak_offset_mm(table: EnergyTable, facility: Facility, species: str, code: int) -> float:
    """How much shallower than its range the Bragg peak of this energy is, mm of water."""
    curve = _curve(float(table.energy_mev_u[code]), facility, species)
    return float(table.range_mm[code]) - peak_of(curve.depth_mm, curve.total).depth_mm


def _curve(energy_mev_u: float, facility: Facility, species: str) -> Curve:
    """Depth dose of a pencil behind the facility's ripple filter; PlanError where there is none."""
    try:
        return depth_dose(energy_mev_u, facility.species_named(species), facility.ripple_filter.sigma_mm)
    except ValueError as error:
        raise PlanError("plan.no-dose-model", str(error), f"{species}, {energy_mev_u:g} MeV/u") from error


def _problem(
    target: Target,
    wide: Target,
    codes: list[int],
    table: EnergyTable,
    facility: Facility,
    species: str,
    grid: FloatArray,
    dose_gy: float,
) -> DoseProblem:
    before = facility.water_equivalent_upstream_mm()
    depth = _depths_mm(target)
    energies = table.energy_mev_u[codes]
    curves = np.array([_curve(float(energy), facility, species).at(depth + before) for energy in energies])
    sigma = np.asarray(spot_sigma_mm(energies, facility.species_named(species)), dtype=np.float64)
    peaks = table.range_mm[codes] - before - _peak_offset_mm(table, facility, species, codes[0])
    slices = np.clip(peaks, wide.depth_mm - wide.half_mm, wide.depth_mm + wide.half_mm)
    return DoseProblem(
        depth_dose=curves,
        across=lateral_shares(grid, sigma),
        spots=wide.covers(grid, wide.half_width_mm(slices)),
        target=target.covers(grid, target.half_width_mm(depth)),
        dose_gy=dose_gy,
    )


def _depths_mm(target: Target) -> FloatArray:
    """Depths of the target's voxels."""
    steps = round(2.0 * target.half_mm / DEPTH_STEP_MM)
    return np.linspace(target.depth_mm - target.half_mm, target.depth_mm + target.half_mm, steps + 1)


def _require_uniform(problem: DoseProblem, found: FloatArray, target: Target, grid: FloatArray) -> None:
    core = dataclasses.replace(target, half_mm=0.8 * target.half_mm)
    dose = found[core.covers(grid, core.half_width_mm(_depths_mm(target)))]
    sigma = float(dose.std()) / problem.mean_gy
    if sigma > WORST_SIGMA or abs(float(dose.mean()) / problem.mean_gy - 1.0) > WORST_SIGMA:
        raise PlanError(
            "plan.make",
            f"{problem.mean_gy:g} Gy cannot be made even: it varies by {sigma:.0%} over the target, since spots that "
            "the monitors can resolve are too heavy for it",
            "plan make",
            "give more dose or wider spacings",
        )


# weights and layers --------------------------------------------------------------------------------------------------


def _lightest_ions(facility: Facility, species: str, energies: FloatArray) -> FloatArray:
    """Fewest ions per spot that the monitor counts and the lowest level holds, by energy."""
    front_end = facility.front_end
    by_count = [front_end.min_spot_counts * facility.ions_per_count(species, float(energy)) for energy in energies]
    lowest = min(facility.species_named(species).intensity_levels_ions_per_s)
    return np.asarray(np.maximum(by_count, facility.min_spot_ticks * TICK_S * lowest), dtype=np.float64)


def _middle_level(facility: Facility, species: str) -> float:
    levels = facility.species_named(species).intensity_levels_ions_per_s
    return float(levels[len(levels) // 2])


def _storable(ions: FloatArray) -> FloatArray:
    """Whole ions that 32 bits hold."""
    return np.rint(ions).astype(np.float32).astype(np.float64)


def _grid_layer(
    index: int, energy: float, grid: FloatArray, weights: FloatArray, facility: Facility, species: str
) -> Layer | None:
    """The grid's spots with weight, row by row in y, x there and back."""
    xs: list[FloatArray] = []
    ys: list[FloatArray] = []
    ws: list[FloatArray] = []
    for turn, row in enumerate(np.flatnonzero(weights.any(axis=1))):
        columns = np.flatnonzero(weights[row])[:: 1 if turn % 2 == 0 else -1]
        xs.append(grid[columns])
        ys.append(np.full(columns.size, grid[row]))
        ws.append(weights[row][columns])
    if not xs:
        return None
    fwhm = float(np.float32(2.3548 * float(spot_sigma_mm(energy, facility.species_named(species)))))
    return make_layer(
        "1",
        1,
        index,
        energy_mev_u=energy,
        x_mm=np.concatenate(xs).astype(np.float32),
        y_mm=np.concatenate(ys).astype(np.float32),
        weight=_storable(np.concatenate(ws)),
        fwhm_mm=(fwhm, fwhm),
        tune_id="1",
    )


def _along(strokes: tuple[tuple[float, float, float, float], ...], step_mm: float) -> tuple[FloatArray, FloatArray]:
    """Points along strokes (x0, y0, x1, y1), both ends included."""
    xs, ys = [], []
    for x0, y0, x1, y1 in strokes:
        count = round(float(np.hypot(x1 - x0, y1 - y0)) / step_mm) + 1
        xs.append(np.linspace(x0, x1, count))
        ys.append(np.linspace(y0, y1, count))
    return np.concatenate(xs), np.concatenate(ys)


def _finished(
    label: str,
    layers: list[Layer | None],
    species: str,
    facility: Facility,
    gantry_angle_deg: float | None,
    patient_id: str,
    dose_gy: float | None,
) -> Plan:
    ion = facility.species_named(species)
    kept = require_layers("1", 1, layers)
    angle = next(iter(facility.rooms.values())).beam_angle_deg[0] if gantry_angle_deg is None else gantry_angle_deg
    beam = Beam(
        number=1,
        name="1",
        species=species,
        mass_number=ion.mass_number,
        charge_state=ion.charge,
        gantry_angle_deg=angle % 360.0,
        support_angle_deg=0.0,
        range_shifters=(),
        meterset=beam_meterset(kept),
        meterset_unit="NP",
        layers=kept,
        isocentre_mm=(0.0, 0.0, 0.0),
        machine_name=facility.id[:16],
    )
    plan = Plan(label, patient_id, "", "maker", "NP", (beam,), prescribed_dose_gy=dose_gy, intent="MACHINE_QA")
    return dataclasses.replace(plan, plan_uid=derived_uid("plan", plan_hash(plan)))
