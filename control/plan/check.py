"""Can this facility deliver this plan in this room? All that is wrong at once, by beam, layer and spot.

Energies: the frozen table's nearest code is used when its range in water lies within `ENERGY_TOLERANCE_MM` of the
plan's; tables step by 1 mm, so this accepts every energy between their ends. The deviation is recorded per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from control.plan.check_beam import BeamCheck, Findings, Place, Problem, check_beam, species_fits
from control.plan.model import Beam, FloatArray, Layer, Plan, plan_hash
from control.plan.optics import set_points_a
from control.plan.timing import move_times_s, typical_transit_s
from facility.config import Facility
from facility.energy_table import EnergyTable, load_energy_table
from facility.errors import PlanError
from facility.intensity import LevelChoice, choose_level
from facility.physics.ranges import MAX_ENERGY_MEV_U, range_water_mm
from facility.room_constants import RoomConstants

ENERGY_TOLERANCE_MM = 0.7
EDGE_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class LayerCheck:
    """How a layer will be delivered.

    `energy_mev_u` and `range_mm` (in water) are the table's, `range_deviation_mm` is table minus plan. Arrays have
    shape (n spots x paintings,): ions per visit, set points of supply x and supply y in A. `ions_per_unit` of the
    plan's meterset, `ions_per_count` of chamber 1 and `transport_set` are those of the room by the table.
    """

    beam_index: int
    layer_index: int
    energy_code: int
    energy_mev_u: float
    range_mm: float
    range_deviation_mm: float
    ions: FloatArray
    x_set_a: FloatArray
    y_set_a: FloatArray
    level: LevelChoice
    ions_per_unit: float
    ions_per_count: float
    transport_set: int


@dataclass(frozen=True)
class _At:
    """An energy of the table in the room of the plan."""

    place: Place
    room: RoomConstants
    code: int
    species: str

    @property
    def ions_per_count(self) -> float:
        return self.room.ions_per_count(self.code, self.place.facility.chambers.ic1.count_quantum_fc)

    def ions_per_unit(self, plan: Plan) -> float:
        """Ions behind one unit of the plan's meterset (MU or NP): the MU's charge over that of an ion in chamber 1."""
        if plan.unit != "MU":
            return 1.0
        mu_fc = self.place.facility.species_named(self.species).mu_reference_fc
        return mu_fc / float(self.room.charge_per_ion_ic1_fc[self.code])

    def set_points_a(self, layer: Layer) -> tuple[FloatArray, FloatArray]:
        return set_points_a(layer.x_mm, layer.y_mm, self.room, self.code)


@dataclass(frozen=True, eq=False)
class PlanCheck:
    """A plan that can be delivered, and how. `notes` are sentences for the operator and the record."""

    plan_hash: str
    facility_id: str
    facility_hash: str
    room_id: str
    qa: bool
    beams: tuple[BeamCheck, ...]
    layers: tuple[LayerCheck, ...]
    notes: tuple[str, ...]


def check_plan(
    plan: Plan,
    facility: Facility,
    room_id: str,
    *,
    qa: bool = False,
    tables: Mapping[str, EnergyTable] | None = None,
) -> PlanCheck:
    """How `plan` will be delivered in `room_id`; PlanError names the first problem and counts the others.

    With `qa` every beam is delivered at the room's fixed angle, whatever the plan says, and a note says so. `tables`
    (by species) spares loading the facility's own. ConfigError for a room that does not exist.
    """
    check, problems = examine_plan(plan, facility, room_id, qa=qa, tables=tables)
    if check is None:
        first = problems[0]
        others = sum(problem.count for problem in problems) - 1
        more = "" if others == 0 else f" (and {others} more problem{'s' if others > 1 else ''})"
        raise PlanError(first.code, first.what + more, first.where, first.fix)
    return check


def examine_plan(
    plan: Plan,
    facility: Facility,
    room_id: str,
    *,
    qa: bool = False,
    tables: Mapping[str, EnergyTable] | None = None,
) -> tuple[PlanCheck | None, tuple[Problem, ...]]:
    """As `check_plan`, but with all problems instead of an error; the check is None when there are any."""
    place = Place(facility, room_id, facility.room_named(room_id), qa)
    known = dict(tables or {})
    findings = Findings()
    beams: list[BeamCheck] = []
    layers: list[LayerCheck] = []
    for beam_index, beam in enumerate(plan.beams):
        known_ion = species_fits(beam, facility, findings)
        beams.append(check_beam(beam, beam_index, place, findings))
        if not known_ion:
            continue
        if beam.species not in known:
            known[beam.species] = load_energy_table(facility, beam.species)
        for layer_index in range(len(beam.layers)):
            checked = _check_layer(plan, beam_index, layer_index, place, known[beam.species], findings)
            if checked is not None:
                layers.append(checked)
    _note_energies(layers, findings)
    _note_machine(plan, facility, findings)
    if findings.problems:
        return None, tuple(findings.problems)
    notes = tuple(findings.notes)
    return (
        PlanCheck(plan_hash(plan), facility.id, facility.hash, room_id, qa, tuple(beams), tuple(layers), notes),
        (),
    )


def _note_energies(layers: list[LayerCheck], findings: Findings) -> None:
    worst = max((abs(layer.range_deviation_mm) for layer in layers), default=0.0)
    if worst > 0.01:
        findings.notes.append(f"energies are those of the table; ranges differ from the plan's by up to {worst:.2f} mm")


def _note_machine(plan: Plan, facility: Facility, findings: Findings) -> None:
    """A plan is for a machine, whose spot sizes and nozzle it was made with; the name is all that it says of them."""
    others = sorted({beam.machine_name for beam in plan.beams} - {"", facility.id[:16]})
    if others:
        findings.notes.append(f"the plan names the machine {', '.join(others)}; this is {facility.id}")


# layers --------------------------------------------------------------------------------------------------------------


def _check_layer(
    plan: Plan, beam_index: int, layer_index: int, place: Place, table: EnergyTable, findings: Findings
) -> LayerCheck | None:
    beam = plan.beams[beam_index]
    layer = beam.layers[layer_index]
    if not _finite(beam, layer_index, findings):
        return None
    code, deviation = _energy_code(beam, layer_index, place.facility, table)
    if code is None:
        findings.add(
            "plan.energy",
            f"{layer.energy_mev_u:g} MeV/u is {deviation:.1f} mm of range away from the nearest energy",
            beam.where(layer_index),
            f"{place.facility.id} has {table.energy_mev_u[0]:.2f} to {table.energy_mev_u[-1]:.2f} MeV/u {beam.species}",
        )
        return None
    at = _At(place, table.room(place.room_id), code, beam.species)
    known = len(findings.problems)
    _check_field(beam, layer_index, at, findings)
    factor = at.ions_per_unit(plan)
    ions = np.asarray(layer.weight * (factor / layer.paintings), dtype=np.float64)
    level = _check_monitor(beam, layer_index, at, ions, findings)
    if len(findings.problems) > known or level is None:
        return None
    x_set, y_set = at.set_points_a(layer)
    return LayerCheck(
        beam_index=beam_index,
        layer_index=layer_index,
        energy_code=code,
        energy_mev_u=float(table.energy_mev_u[code]),
        range_mm=float(table.range_mm[code]),
        range_deviation_mm=deviation,
        ions=np.tile(ions, layer.paintings),
        x_set_a=np.tile(x_set, layer.paintings),
        y_set_a=np.tile(y_set, layer.paintings),
        level=level,
        ions_per_unit=factor,
        ions_per_count=at.ions_per_count,
        transport_set=at.room.set_number(code),
    )


def _finite(beam: Beam, layer_index: int, findings: Findings) -> bool:
    """Readers refuse such numbers already; a plan may come from elsewhere."""
    layer = beam.layers[layer_index]
    good = np.isfinite(layer.x_mm) & np.isfinite(layer.y_mm) & np.isfinite(layer.weight) & (layer.weight > 0.0)
    bad = np.flatnonzero(~good)
    if bad.size:
        where = beam.where(layer_index, int(layer.spot_index[bad[0]]))
        findings.add(
            "plan.not-finite", "position or weight is no positive number", where, "correct the spot", int(bad.size)
        )
    return bad.size == 0


def _energy_code(beam: Beam, layer_index: int, facility: Facility, table: EnergyTable) -> tuple[int | None, float]:
    """(code, table's range minus the plan's in mm); (None, distance in mm) when nothing is near enough."""
    energy = beam.layers[layer_index].energy_mev_u
    ion = facility.species_named(beam.species)
    wanted = float(range_water_mm(min(max(energy, 1.0), MAX_ENERGY_MEV_U), ion))
    code = table.nearest_range(wanted)
    deviation = float(table.range_mm[code]) - wanted
    if not np.isfinite(energy) or energy > MAX_ENERGY_MEV_U or abs(deviation) > ENERGY_TOLERANCE_MM:
        return None, abs(deviation)
    return code, deviation


def _check_field(beam: Beam, layer_index: int, at: _At, findings: Findings) -> None:
    layer, place = beam.layers[layer_index], at.place
    half_x, half_y = place.room.field_half_mm
    x_set, y_set = at.set_points_a(layer)
    scanning = place.facility.scanning
    outside = (np.abs(layer.x_mm) > half_x + EDGE_TOLERANCE_MM) | (np.abs(layer.y_mm) > half_y + EDGE_TOLERANCE_MM)
    outside |= (np.abs(x_set) > scanning.x.max_current_a) | (np.abs(y_set) > scanning.y.max_current_a)
    bad = np.flatnonzero(outside)
    if bad.size:
        spot = int(bad[0])
        findings.add(
            "plan.scan-field",
            f"the spot lies at ({layer.x_mm[spot]:.2f}, {layer.y_mm[spot]:.2f}) mm",
            beam.where(layer_index, int(layer.spot_index[spot])),
            f"room {place.room_id} scans +-{half_x:g} mm in x and +-{half_y:g} mm in y",
            int(bad.size),
        )


def _check_monitor(beam: Beam, layer_index: int, at: _At, ions: FloatArray, findings: Findings) -> LevelChoice | None:
    """The layer's intensity level; None, with a problem, for spots too small to count or to hold."""
    facility, ions_per_count = at.place.facility, at.ions_per_count
    layer = beam.layers[layer_index]
    front_end = facility.front_end
    light = np.flatnonzero(ions < front_end.min_spot_counts * ions_per_count)
    lightest = int(light[0]) if light.size else int(np.argmin(ions))
    where = beam.where(layer_index, int(layer.spot_index[lightest]))
    if light.size:
        counts = ions[lightest] / ions_per_count
        what = f"the spot has {ions[lightest]:.4g} ions, {counts:.2g} counts of the first chamber"
        need = f"{front_end.min_spot_counts} counts ({front_end.min_spot_counts * ions_per_count:.4g} ions) are needed"
        findings.add("plan.spot-too-small", what, where, need, int(light.size))
        return None
    if ions.size * layer.paintings > front_end.max_spots_per_layer:
        what = f"{ions.size} spots, painted {layer.paintings} times"
        fix = f"the front end holds {front_end.max_spots_per_layer} spots a layer"
        findings.add("plan.too-many-spots", what, beam.where(layer_index), fix)
        return None
    level = _level(layer, at, ions)
    if not level.acceptable:
        fix = f"the lowest level of {facility.id} is {level.level_ions_per_s:.3g} ions/s; make the spot heavier"
        what = f"the spot is too short to hold: {level.reasons[0] if level.reasons else 'intensity too high'}"
        findings.add("plan.spot-too-short", what, where, fix)
        return None
    return level


def _level(layer: Layer, at: _At, ions: FloatArray) -> LevelChoice:
    facility = at.place.facility
    x_set, y_set = at.set_points_a(layer)
    times, distance = move_times_s(layer.x_mm, layer.y_mm, x_set, y_set, facility)
    return choose_level(
        ions,
        at.ions_per_count,
        facility.species_named(at.species).intensity_levels_ions_per_s,
        transit_s=typical_transit_s(times, distance, facility),
        min_ticks=facility.min_spot_ticks,
        min_percent_share=facility.front_end.min_percent_share,
    )
