"""Steps of the scanning magnets' fields, and their hysteresis, by the very functions that the plant's tick calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.physics.relativity import rigidity_tm
from ioc_sim import layout as at
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.layout import PARAM_DTYPE, STATE_DTYPE
from ioc_sim.params import as_argument, pack_parameters, record
from ioc_sim.physics.scanning import TICK_S, field_a, remember, supply_step

FloatArray = npt.NDArray[np.float64]
STEPS_MM = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SCHEMA = "ionctl.scan-steps/1"
_LONGEST_S = 0.02


@dataclass(frozen=True, eq=False)
class Step:
    """One step from 0 to `distance_mm` at the isocentre, of the supply that moves this axis.

    Attributes:
        axis: `x` or `y` of the beam; `supply`: 0 upstream, 1 downstream.
        time_s, position_mm: each tick of 10 us, from the set point's change on.
        settled_s: when the position stays within the tolerance from; NaN if it never does.
        overshoot_mm: how far beyond the aim it comes.
        speed_mm_s: the fastest that it moves.
    """

    axis: str
    supply: int
    distance_mm: float
    time_s: FloatArray
    position_mm: FloatArray
    settled_s: float
    overshoot_mm: float
    speed_mm_s: float


@dataclass(frozen=True, eq=False)
class ScanStudy:
    """Steps of both axes at one energy, and what settled means."""

    facility: str
    room: str
    species: str
    energy_mev_u: float
    tolerance_mm: float
    wait_s: float
    steps: tuple[Step, ...]

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON; curves to the end of settling."""
        return {
            "schema": SCHEMA, "facility": self.facility, "room": self.room, "species": self.species,
            "energy_mev_u": self.energy_mev_u, "tolerance_mm": self.tolerance_mm, "wait_s": self.wait_s,
            "steps": [_data(step) for step in self.steps],
        }  # fmt: skip


def _data(step: Step) -> dict[str, Any]:
    shown = step.time_s <= 2.0 * (step.settled_s if np.isfinite(step.settled_s) else _LONGEST_S) + 1e-4
    return {
        "axis": step.axis, "supply": step.supply, "distance_mm": step.distance_mm,
        "settled_s": step.settled_s if np.isfinite(step.settled_s) else None, "overshoot_mm": step.overshoot_mm,
        "speed_mm_s": step.speed_mm_s, "time_s": step.time_s[shown].tolist(),
        "position_mm": step.position_mm[shown].tolist(),
    }  # fmt: skip


def scan_study(facility: Facility, room: str, species: str, energy_mev_u: float) -> ScanStudy:
    """Steps of `STEPS_MM` that the room's field and the supplies hold.

    Noise, quantisation and hysteresis are left out: they are the same for each step and hide its end. ConfigError for
    an energy that the facility's table does not have, UsageError for another room or species.
    """
    load_energy_table(facility, species).code_for(energy_mev_u)
    parameters, q = pack_parameters(facility, room, species, load_spill_table(facility), 1, 1, 1)
    p, s = as_argument(parameters, PARAM_DTYPE), as_argument(record(STATE_DTYPE), STATE_DTYPE)
    where, front = facility.room_named(room), facility.front_end
    brho = float(rigidity_tm(energy_mev_u, facility.species_named(species)))
    found = []
    for axis, (name, sad) in enumerate((("x", where.sad_x_mm), ("y", where.sad_y_mm))):
        supply = int(q[at.AXIS_SUPPLY + axis])
        per_a = float(q[at.SUPPLY_TM_PER_A + supply]) / brho
        for distance in STEPS_MM:
            current = float(np.arctan(distance / sad)) / per_a
            if distance > where.field_half_mm[axis] or current > float(q[at.SUPPLY_MAX_A + supply]):
                continue
            v = np.zeros(at.N_V)
            v[at.SET_A + supply] = current
            fields = np.zeros(round(_LONGEST_S / TICK_S) + 1)
            for tick in range(1, fields.size):
                supply_step(p[0], q, s[0], v, supply, TICK_S)
                fields[tick] = field_a(q, v, supply, v[at.CURRENT_A + supply])
            found.append(
                _step(
                    name,
                    supply,
                    distance,
                    np.asarray(sad * np.tan(per_a * fields), dtype=np.float64),
                    front.position_tolerance_mm,
                )
            )
    wait_s = front.settle_ticks * TICK_S
    return ScanStudy(facility.id, room, species, energy_mev_u, front.position_tolerance_mm, wait_s, tuple(found))


def hysteresis_loop(facility: Facility, room: str, species: str, supply: int, most_a: float) -> FloatArray:
    """Set point and what hysteresis adds to the field, both A, (n, 2): 0, `most_a`, -`most_a`, `most_a`, 1 A a step."""
    _, q = pack_parameters(facility, room, species, load_spill_table(facility), 1, 1, 1)
    v = np.zeros(at.N_V)
    turns = [np.arange(0.0, most_a), np.arange(most_a, -most_a, -1.0), np.arange(-most_a, most_a + 1.0)]
    rows = []
    for aim in np.concatenate(turns):
        v[at.SET_A + supply] = aim
        remember(q, v, supply)
        rows.append((aim, v[at.REMANENCE_A + supply]))
    return np.asarray(rows, dtype=np.float64)


def _step(axis: str, supply: int, distance: float, position: FloatArray, tolerance: float) -> Step:
    time = np.asarray(np.arange(position.size) * TICK_S, dtype=np.float64)
    outside = np.flatnonzero(np.abs(position - distance) > tolerance)
    last = int(outside[-1]) if outside.size else -1
    settled = float(time[last + 1]) if last + 1 < position.size else float("nan")
    speed = float(np.abs(np.diff(position)).max() / TICK_S)
    return Step(axis, supply, distance, time, position, settled, max(0.0, float(position.max()) - distance), speed)
