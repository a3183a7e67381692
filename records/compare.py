"""Records of one fraction against their plan, spot by spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.plan.model import FloatArray, Layer, Plan
from control.plan.program import MachineProgram
from facility.errors import PlanError
from facility.intensity import spot_tolerance_ions
from records.reader import Record, RecordedLayer

POSITION_MM = 2.0
"""A spot further from its planned position is told: more than a chamber's noise, less than an interlock's limit."""


@dataclass(frozen=True)
class LayerLine:
    """One layer of the plan: metersets in the plan's unit."""

    beam: int
    """Number, as the plan counts them."""
    layer: int
    """0-based within the beam."""
    spots: int
    delivered: int
    """Spots of which anything is on record."""
    missing: int
    """Spots below their tolerance."""
    over: int
    """Spots above it."""
    planned: float
    given: float
    worst_spot: int
    """Index in the plan's control point."""
    worst: float
    """Given minus planned, of that spot."""
    worst_position_mm: float

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


@dataclass(frozen=True)
class Comparison:
    """What a record, or several of one fraction, come to."""

    unit: str
    lines: tuple[LayerLine, ...]
    objections: tuple[str, ...]
    """What contradicts the plan or the record itself; empty if nothing does."""
    complete: bool
    """Every spot of the plan was delivered."""

    @property
    def good(self) -> bool:
        """Nothing contradicts."""
        return not self.objections

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": "ionctl.record-check/1", "unit": self.unit, "good": self.good, "complete": self.complete,
            "objections": list(self.objections), "layers": [line.to_data() for line in self.lines],
        }  # fmt: skip


def compare(records: Sequence[Record], plan: Plan, program: MachineProgram) -> Comparison:
    """Compare. Metersets of several records add up: a treatment and its continuations.

    PlanError for records in another unit, or of another patient or plan.
    """
    for record in records:
        _require_same(record, plan, program)
    objections = [*_twice(records), *_strangers(records, plan)]
    lines = []
    tolerances = _tolerances(program)
    for number, index, layer in _layers(plan):
        point = layer.control_point if layer.control_point >= 0 else 2 * index
        found = [one for record in records for one in _recorded(record, number, point)]
        line, said = _line(number, index, layer, found, tolerances[number, index])
        lines.append(line)
        objections += said
    complete = all(line.missing == 0 for line in lines)
    if not complete and all(record.complete for record in records):
        objections.append("the record says that all was delivered, and spots are missing")
    return Comparison(plan.unit, tuple(lines), tuple(objections), complete)


def _require_same(record: Record, plan: Plan, program: MachineProgram) -> None:
    pairs = (
        ("unit", record.unit, plan.unit), ("patient", record.patient_id, plan.patient_id),
        ("plan hash", record.header.get("plan_hash", program.plan_hash), program.plan_hash),
    )  # fmt: skip
    for name, found, wanted in pairs:
        if found != wanted:
            raise PlanError("record.other", f"{name} {found or 'none'}, the plan has {wanted or 'none'}", record.name,
                            "give the plan that the record belongs to")  # fmt: skip


def _twice(records: Sequence[Record]) -> list[str]:
    names = [record.header.get("session", record.uid) for record in records]
    return [f"{record.name} is on the list twice" for k, record in enumerate(records) if names[k] in names[:k]]


def _strangers(records: Sequence[Record], plan: Plan) -> list[str]:
    """Control points that the plan does not have, and energies that are another layer's."""
    known = {(number, layer.control_point if layer.control_point >= 0 else 2 * index): layer
             for number, index, layer in _layers(plan)}  # fmt: skip
    found = []
    for record in records:
        for beam in record.beams:
            for one in beam.layers:
                layer = known.get((beam.number, one.control_point))
                where = f"{record.name}, beam {beam.number}, control point {one.control_point}"
                if layer is None:
                    found.append(f"{where}: the plan has no layer there")
                elif abs(one.energy_mev_u - layer.energy_mev_u) > 0.01 * layer.energy_mev_u:
                    found.append(f"{where}: {one.energy_mev_u:g} MeV/u, planned {layer.energy_mev_u:g}")
    return found


def _layers(plan: Plan) -> list[tuple[int, int, Layer]]:
    return [(beam.number, index, layer) for beam in plan.beams for index, layer in enumerate(beam.layers)]


def _recorded(record: Record, number: int, point: int) -> list[RecordedLayer]:
    return [one for beam in record.beams if beam.number == number for one in beam.layers if one.control_point == point]


def _tolerances(program: MachineProgram) -> dict[tuple[int, int], FloatArray]:
    """Of each spot, in the plan's unit; a spot that is painted has that of its visits together."""
    found = {}
    for layer in program.layers:
        count = layer.ions_per_count
        heaviest = float(layer.target_ions.max())
        ions, _ = spot_tolerance_ions(layer.target_ions, layer.intensity_ions_per_s, count, heaviest)
        visits = ions.reshape(layer.paintings, -1).sum(axis=0)
        found[layer.beam_number, layer.layer_index] = np.asarray(visits / layer.ions_per_unit)
    return found


def _line(
    number: int, index: int, layer: Layer, found: list[RecordedLayer], tolerance: FloatArray
) -> tuple[LayerLine, list[str]]:
    size = int(layer.spot_index.max()) + 1
    where = f"beam {number}, layer {index}"
    given, distance, said = np.zeros(size), 0.0, []
    planned_x, planned_y = np.full(size, np.nan), np.full(size, np.nan)
    planned_x[layer.spot_index], planned_y[layer.spot_index] = layer.x_mm, layer.y_mm
    for one in found:
        known = (one.spot < size) & np.isin(one.spot, layer.spot_index)
        if not known.all():
            said.append(f"{where}: spot {int(one.spot[~known][0])} is on record, the plan has none there")
        np.add.at(given, one.spot[known], one.meterset[known])
        off = np.hypot(one.x_mm[known] - planned_x[one.spot[known]], one.y_mm[known] - planned_y[one.spot[known]])
        distance = max(distance, float(off.max(initial=0.0)))
    ions = given[layer.spot_index]
    error = ions - layer.weight
    over, missing = error > tolerance, -error > tolerance
    worst = int(np.argmax(np.abs(error)))
    if over.any():
        spot = int(np.argmax(error - tolerance))
        said.append(f"{where}, spot {int(layer.spot_index[spot])}: {ions[spot]:.6g} on record, planned "
                    f"{layer.weight[spot]:.6g}")  # fmt: skip
    if distance > POSITION_MM:
        said.append(f"{where}: a spot lies {distance:.2f} mm from its place")
    line = LayerLine(
        number, index, layer.n_spots, int(np.count_nonzero(ions)), int(np.count_nonzero(missing)),
        int(np.count_nonzero(over)), float(layer.weight.sum()), float(ions.sum()), int(layer.spot_index[worst]),
        float(error[worst]), distance,
    )  # fmt: skip
    return line, said
