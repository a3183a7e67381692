"""Dose in water of a plan, and of what a session delivered by truth, with the gamma index between the two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from control.plan.model import Beam, Plan
from dose.features import crossing
from dose.field import Field, FieldLayer, Grid, dose_on_grid
from dose.gamma import Criteria, GammaResult, gamma
from facility.config import Facility, Room
from facility.errors import ConfigError, PlanError, no_such
from facility.physics.relativity import FloatArray
from facility.room_constants import room_sigma_mm
from rig.home import Home
from rig.truth_log import TRUTH_LOG_FILE, TruthLog, read_truth_log

SCHEMA = "ionctl.dose/1"
MOST_VOXELS = 30_000_000


@dataclass(frozen=True, eq=False)
class Doses:
    """Dose of one beam on a grid, Gy, (depths, y, x); what was delivered and gamma for a session alone.

    `ions`: planned, and delivered by truth. `source`: the session, or the plan's label.
    """

    source: str
    facility: str
    species: str
    beam: int
    grid: Grid
    planned: FloatArray
    ions: tuple[float, float | None]
    delivered: FloatArray | None = None
    index: GammaResult | None = None
    criteria: Criteria | None = None

    @property
    def axis(self) -> tuple[int, int]:
        """Places in y and x of the line along the depth through the middle of the high dose."""
        shown = self.planned.sum(axis=0)
        share = np.where(shown >= 0.5 * shown.max(), 1.0, 0.0)
        rows, columns = np.indices(share.shape)
        return round(float((rows * share).sum() / share.sum())), round(float((columns * share).sum() / share.sum()))

    def to_data(self) -> dict[str, Any]:
        """Figures, ready for JSON."""
        j, i = self.axis
        found: dict[str, Any] = {
            "schema": SCHEMA, "source": self.source, "facility": self.facility, "species": self.species,
            "beam": self.beam, "grid": {"depths": self.grid.depth_mm.size, "y": self.grid.y_mm.size,
                                        "x": self.grid.x_mm.size, "step_mm": self.step_mm},
            "axis_mm": [float(self.grid.x_mm[i]), float(self.grid.y_mm[j])],
            "planned": _figures(self.grid.depth_mm, self.planned, (j, i), self.ions[0]),
            "delivered": None, "gamma": None,
        }  # fmt: skip
        if self.delivered is not None and self.index is not None and self.criteria is not None:
            found["delivered"] = _figures(self.grid.depth_mm, self.delivered, (j, i), self.ions[1] or 0.0)
            found["gamma"] = {
                "dose_pct": self.criteria.dose_pct, "distance_mm": self.criteria.distance_mm,
                "local": self.criteria.local, "cut_pct": self.criteria.cut_pct, "voxels": self.index.judged,
                "pass_pct": self.index.pass_pct,
                "mean": self.index.mean, "worst": self.index.worst,
            }  # fmt: skip
        return found

    @property
    def step_mm(self) -> float:
        """Of the grid, along all axes."""
        return float(self.grid.depth_mm[1] - self.grid.depth_mm[0])


def _figures(depth: FloatArray, dose: FloatArray, axis: tuple[int, int], ions: float) -> dict[str, float | None]:
    line = dose[:, axis[0], axis[1]]
    top = float(dose.max())
    edge = crossing(depth, line, 0.5 * float(line.max()), behind=True) if float(line.max()) > 0.0 else float("nan")
    high = dose[dose >= 0.5 * top] if top > 0.0 else dose
    return {
        "ions": ions, "highest_gy": top, "mean_of_upper_half_gy": float(high.mean()),
        "surface_on_axis_gy": float(line[0]), "distal_half_on_axis_mm": None if np.isnan(edge) else edge,
    }  # fmt: skip


def plan_dose(plan: Plan, facility: Facility, room: str | None, beam: int | None, step_mm: float) -> Doses:
    """Dose of one beam of a plan in particles.

    Raises:
        PlanError: the plan is in MU, has no such beam, or an energy without depth-dose curves.
        ConfigError: the grid would have too many voxels.
    """
    if plan.unit != "NP":
        raise PlanError("plan.unit", "dose is computed from particles, the plan is in MU", plan.label,
                        "deliver it, then ask for the dose of the session")  # fmt: skip
    chosen = _beam(plan, beam)
    field = field_of_beam(chosen, facility, _room(facility, room))
    grid = _grid(field, step_mm)
    ions = float(sum(layer.weight.sum() for layer in chosen.layers))
    dose = _computed(field, grid, plan.label)
    return Doses(plan.label, facility.id, chosen.species, chosen.number, grid, dose, (ions, None))


def session_dose(
    session: str, home: Home, facility: Facility, beam: int | None, step_mm: float, criteria: Criteria
) -> Doses:
    """Dose of one beam of a session: prescribed, delivered by truth, and gamma of the one against the other.

    Raises:
        ConfigError: no truth of such a session, of another facility, or too many voxels.
    """
    folder = home.sessions / session
    if Path(session).name != session or not folder.is_dir():
        raise ConfigError("dose.session", f"no session or plan {session!r}", str(home.sessions),
                          "ionctl session list, or the file of a plan")  # fmt: skip
    log = read_truth_log(folder / TRUTH_LOG_FILE)
    if log.metadata["facility"] != facility.id:
        raise ConfigError("dose.facility", f"the session is of {log.metadata['facility']}", session,
                          f"--facility {log.metadata['facility']}")  # fmt: skip
    beams = sorted({int(b) for b in log.columns["beam"]})
    chosen = beams[0] if beam is None else beam
    if chosen not in beams:
        raise no_such("dose.beam", "beam", str(chosen), [str(b) for b in beams], session)
    planned, delivered = fields_of_log(log, facility, chosen)
    grid = _grid(planned, step_mm)
    doses = _computed(planned, grid, session), _computed(delivered, grid, session)
    index = gamma(*doses, (step_mm, step_mm, step_mm), criteria)
    ions = tuple(float(sum(layer.ions.sum() for layer in field.layers)) for field in (planned, delivered))
    return Doses(session, facility.id, log.metadata["species"], chosen, grid, doses[0], (ions[0], ions[1]), doses[1],
                 index, criteria)  # fmt: skip


def field_of_beam(beam: Beam, facility: Facility, room: Room) -> Field:
    """The spots of a beam in particles, with what stands in front of the water."""
    ion = facility.species_named(beam.species)
    by_id = {shifter.id: shifter.water_equivalent_mm for shifter in facility.range_shifters}
    shifter = sum(s.wet_mm if s.wet_mm is not None else by_id.get(s.shifter_id, 0.0) for s in beam.range_shifters)
    layers = [
        FieldLayer(one.energy_mev_u, float(room_sigma_mm(one.energy_mev_u, ion, room)), one.x_mm, one.y_mm, one.weight,
                   facility.water_equivalent_upstream_mm(), float(shifter), room.air_gap_mm)
        for one in beam.layers
    ]  # fmt: skip
    return Field(ion, layers, facility.ripple_filter.sigma_mm)


def fields_of_log(log: TruthLog, facility: Facility, beam: int) -> tuple[Field, Field]:
    """What was prescribed and what was delivered by truth, of one beam."""
    ion = facility.species_named(log.metadata["species"])
    room = facility.rooms[log.metadata["room"]]
    columns = {name: values[log.columns["beam"] == beam] for name, values in log.columns.items()}
    fields = []
    for x, y, ions in (("x_mm", "y_mm", "target_ions"), ("x_true_mm", "y_true_mm", "ions")):
        layers = []
        for index in np.unique(columns["layer"]):
            mine = (columns["layer"] == index) & (columns[ions] > 0.0)
            if not mine.any():
                continue
            energy = float(columns["energy_mev_u"][mine][0])
            layers.append(
                FieldLayer(energy, float(room_sigma_mm(energy, ion, room)), columns[x][mine], columns[y][mine],
                           columns[ions][mine], facility.water_equivalent_upstream_mm(),
                           float(columns["shifter_mm"][mine][0]), room.air_gap_mm)
            )  # fmt: skip
        fields.append(Field(ion, layers, facility.ripple_filter.sigma_mm))
    return fields[0], fields[1]


def _computed(field: Field, grid: Grid, where: str) -> FloatArray:
    try:
        return dose_on_grid(field, grid)
    except ValueError as problem:
        raise PlanError("plan.no-dose-model", str(problem), where) from problem


def _grid(field: Field, step_mm: float) -> Grid:
    grid = Grid.around(field, step_mm)
    depths, rows, columns = grid.shape
    if depths * rows * columns > MOST_VOXELS:
        raise ConfigError("dose.grid", f"{depths} x {rows} x {columns} voxels are too many", f"step of {step_mm:g} mm",
                          "give a larger --step-mm")  # fmt: skip
    return grid


def _beam(plan: Plan, number: int | None) -> Beam:
    if number is None:
        return plan.beams[0]
    for beam in plan.beams:
        if beam.number == number:
            return beam
    raise no_such("dose.beam", "beam", str(number), [str(b.number) for b in plan.beams], plan.label)


def _room(facility: Facility, room: str | None) -> Room:
    if room is None:
        return next(iter(facility.rooms.values()))
    return facility.room_named(room)
