"""A checked plan as the machine takes it: per layer an energy code, an intensity level, set points and counts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from control.plan.check import LayerCheck, check_plan
from control.plan.check_beam import BeamCheck
from control.plan.model import FloatArray, IntArray, Layer, Plan, WeightUnit
from control.plan.timing import CycleClock, LayerTime, beam_off_moves_s, move_times_s
from facility.config import Facility
from facility.energy_table import EnergyTable

TOKEN_MASK = 0x7FFF_FFFF


@dataclass(frozen=True, eq=False)
class LayerProgram:
    """One energy layer for the machine; arrays are read-only, of shape (n,), in delivery order.

    `token` (31 bit, never 0, unique in the program) ties ring, transport and front end to this very layer. x and y
    are planned positions in mm at the isocentre; `x_set_a`, `y_set_a` are currents of supply x and supply y in A
    (`control.plan.optics`). `target_ions` are ions to the isocentre; paintings are unrolled, `spot_index` is each
    visit's spot index in the plan file. `range_deviation_mm`: range of the table's energy minus the plan's.
    """

    beam_index: int
    layer_index: int
    token: int
    species: str
    energy_code: int
    energy_mev_u: float
    range_mm: float
    range_deviation_mm: float
    level_index: int
    intensity_ions_per_s: float
    x_mm: FloatArray
    y_mm: FloatArray
    x_set_a: FloatArray
    y_set_a: FloatArray
    target_ions: FloatArray
    spot_index: IntArray
    paintings: int
    range_shifter_ids: tuple[str, ...]
    range_shifter_code: int
    percent_share: float
    time: LayerTime
    ions_per_unit: float
    """Ions behind one unit of the plan's meterset."""
    ions_per_count: float
    """Ions behind one count of chamber 1, by the room's energy table."""
    transport_set: int
    """Number of the transport's set points for this energy in the room, by its energy table."""
    beam_number: int
    """As the plan counts them."""
    control_point: int
    """Of the plan, with the weights."""

    @property
    def n_spots(self) -> int:
        """Spot visits in this layer."""
        return int(self.target_ions.size)

    @property
    def total_ions(self) -> float:
        """Ions of all spots."""
        return float(self.target_ions.sum())

    @property
    def expected_s(self) -> float:
        """Expected facility time: beam, moves without beam, machine cycles."""
        return self.time.total_s

    def rest(self, left: FloatArray, token: int) -> LayerProgram | None:
        """The same layer with `left` ions (n,) to give, under a token of its own; None where nothing is left.

        The expected time stays that of the whole layer.
        """
        keep = np.flatnonzero(left > 0.0)
        if keep.size == 0:
            return None
        index = self.spot_index[keep]
        index.setflags(write=False)
        return replace(
            self, token=token, x_mm=_frozen(self.x_mm[keep]), y_mm=_frozen(self.y_mm[keep]),
            x_set_a=_frozen(self.x_set_a[keep]), y_set_a=_frozen(self.y_set_a[keep]), target_ions=_frozen(left[keep]),
            spot_index=index,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MachineProgram:
    """Everything one delivery needs, and what it was compiled from. Layers are in delivery order."""

    plan_hash: str
    plan_uid: str
    plan_label: str
    patient_id: str
    facility_id: str
    facility_hash: str
    room_id: str
    qa: bool
    beams: tuple[BeamCheck, ...]
    layers: tuple[LayerProgram, ...]
    notes: tuple[str, ...]
    unit: WeightUnit
    """Of the plan's meterset."""
    fractions: int
    """Planned."""
    intent: str
    """See `Plan.intent`."""

    @property
    def n_spots(self) -> int:
        """Spot visits of all layers."""
        return sum(layer.n_spots for layer in self.layers)

    @property
    def total_ions(self) -> float:
        """Ions of all layers."""
        return math.fsum(layer.total_ions for layer in self.layers)

    @property
    def expected_s(self) -> float:
        """Expected facility time of all layers."""
        return math.fsum(layer.expected_s for layer in self.layers)

    def rest(self, left: Sequence[FloatArray], attempt: int) -> MachineProgram:
        """What is left of the program, ions (n,) by layer; `attempt` (1 or more) sets its tokens apart."""
        kept = []
        used = {layer.token for layer in self.layers}
        for layer, ions in zip(self.layers, left, strict=True):
            token = _unused_token(self.plan_hash, layer.beam_index, layer.layer_index, used, attempt << 16)
            if (rest := layer.rest(ions, token)) is not None:
                kept.append(rest)
        return replace(self, layers=tuple(kept))


def layer_token(plan_hash: str, beam_index: int, layer_index: int, attempt: int = 0) -> int:
    """31-bit token of a layer, 1 to 2^31 - 1, from plan hash and indices."""
    text = f"ionctl.token/1 {plan_hash} {beam_index} {layer_index} {attempt}"
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & TOKEN_MASK) or 1


def compile_program(
    plan: Plan,
    facility: Facility,
    room_id: str,
    *,
    qa: bool = False,
    tables: Mapping[str, EnergyTable] | None = None,
) -> MachineProgram:
    """The program for delivering `plan` in `room_id`. PlanError as `check_plan`; same inputs, same program."""
    check = check_plan(plan, facility, room_id, qa=qa, tables=tables)
    clock = CycleClock(facility)
    used: set[int] = set()
    layers: list[LayerProgram] = []
    for checked in check.layers:
        token = _unused_token(check.plan_hash, checked.beam_index, checked.layer_index, used)
        layers.append(_compile_layer(plan, checked, check.beams[checked.beam_index], token, facility, clock))
    return MachineProgram(
        plan_hash=check.plan_hash,
        plan_uid=plan.plan_uid,
        plan_label=plan.label,
        patient_id=plan.patient_id,
        facility_id=facility.id,
        facility_hash=check.facility_hash,
        room_id=room_id,
        qa=qa,
        beams=check.beams,
        layers=tuple(layers),
        notes=check.notes,
        unit=plan.unit,
        fractions=plan.fractions,
        intent=plan.intent,
    )


def _unused_token(plan_hash: str, beam_index: int, layer_index: int, used: set[int], attempt: int = 0) -> int:
    token = layer_token(plan_hash, beam_index, layer_index, attempt)
    while token in used:
        attempt += 1
        token = layer_token(plan_hash, beam_index, layer_index, attempt)
    used.add(token)
    return token


def _compile_layer(
    plan: Plan, checked: LayerCheck, beam: BeamCheck, token: int, facility: Facility, clock: CycleClock
) -> LayerProgram:
    layer: Layer = plan.beams[checked.beam_index].layers[checked.layer_index]
    species = plan.beams[checked.beam_index].species
    x_mm, y_mm = _frozen(np.tile(layer.x_mm, layer.paintings)), _frozen(np.tile(layer.y_mm, layer.paintings))
    index = np.tile(layer.spot_index, layer.paintings)
    index.setflags(write=False)
    times, distance = move_times_s(x_mm, y_mm, checked.x_set_a, checked.y_set_a, facility)
    level = checked.level.level_ions_per_s
    move_s = beam_off_moves_s(times, distance, facility)
    return LayerProgram(
        beam_index=checked.beam_index,
        layer_index=checked.layer_index,
        token=token,
        species=species,
        energy_code=checked.energy_code,
        energy_mev_u=checked.energy_mev_u,
        range_mm=checked.range_mm,
        range_deviation_mm=checked.range_deviation_mm,
        level_index=checked.level.index,
        intensity_ions_per_s=level,
        x_mm=x_mm,
        y_mm=y_mm,
        x_set_a=_frozen(checked.x_set_a),
        y_set_a=_frozen(checked.y_set_a),
        target_ions=_frozen(checked.ions),
        spot_index=index,
        paintings=layer.paintings,
        range_shifter_ids=beam.range_shifter_ids,
        range_shifter_code=beam.range_shifter_code,
        percent_share=checked.level.percent_share,
        time=clock.layer(species, checked.energy_mev_u, float(checked.ions.sum()), level, move_s),
        ions_per_unit=checked.ions_per_unit,
        ions_per_count=checked.ions_per_count,
        transport_set=checked.transport_set,
        beam_number=plan.beams[checked.beam_index].number,
        control_point=layer.control_point if layer.control_point >= 0 else 2 * checked.layer_index,
    )


def _frozen(values: FloatArray) -> FloatArray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def summary(program: MachineProgram) -> list[dict[str, float | int | str]]:
    """One row per layer for a table: energy, range, level, spots, weights in ions, expected time; JSON-ready."""
    return [
        {
            "beam": layer.beam_index,
            "layer": layer.layer_index,
            "species": layer.species,
            "energy_code": layer.energy_code,
            "energy_mev_u": layer.energy_mev_u,
            "range_mm": layer.range_mm,
            "range_deviation_mm": layer.range_deviation_mm,
            "level": layer.level_index,
            "intensity_ions_per_s": layer.intensity_ions_per_s,
            "spots": layer.n_spots,
            "ions": layer.total_ions,
            "lightest_ions": float(layer.target_ions.min()),
            "heaviest_ions": float(layer.target_ions.max()),
            "percent_share": layer.percent_share,
            "cycles": layer.time.cycles,
            "beam_s": layer.time.beam_s,
            "expected_s": layer.expected_s,
        }
        for layer in program.layers
    ]
