"""A cycle of the ring as the plant runs it: phases, stored ions, ions that arrive, each millisecond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facility import signals as g
from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.errors import InternalError
from facility.pv_catalogue import SPOT_COLUMNS
from facility.states import RingPhase
from ioc_sim.plant import Plant

FloatArray = npt.NDArray[np.float64]
SCHEMA = "ionctl.cycle/1"
MS_NS = 1_000_000
_FIRST_MS, _LONGEST_MS = 2, 120_000
_SPOTS = 200
_BEAM_S, _STEP_MM = 2.0, 2.0


@dataclass(frozen=True, eq=False)
class CycleStudy:
    """One cycle, from injection to standby or the next injection; arrays are (n,), one entry a millisecond.

    Attributes:
        energies_mev_u: of the flat top, in their order; one where the facility has one a cycle.
        time_s: from injection on.
        phase: of `RingPhase`.
        stored_ions: by the current transformer.
        arriving: ions a second at the isocentre, by truth.
        rigidity_tm: by the plant's field programme.
        f_rev_hz: by the plant's radio-frequency programme; 0 while the cavity is off.
    """

    facility: str
    species: str
    energies_mev_u: tuple[float, ...]
    level: float
    time_s: FloatArray
    phase: npt.NDArray[np.int64]
    stored_ions: FloatArray
    arriving: FloatArray
    rigidity_tm: FloatArray
    f_rev_hz: FloatArray

    @property
    def captured_ions(self) -> float:
        """What capture has left for the ramp."""
        return float(self.stored_ions[self.phase == RingPhase.RAMP][0])

    def durations_s(self) -> dict[str, float]:
        """Seconds of each phase that was there, in order."""
        found: dict[str, int] = {}
        for phase in self.phase:
            name = RingPhase(int(phase)).name
            found[name] = found.get(name, 0) + 1
        return {name: 1e-3 * ms for name, ms in found.items()}

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        columns = {
            "time_s": self.time_s, "phase": self.phase, "stored_ions": self.stored_ions,
            "arriving_ions_per_s": self.arriving, "rigidity_tm": self.rigidity_tm, "f_rev_hz": self.f_rev_hz,
        }  # fmt: skip
        return {
            "schema": SCHEMA, "facility": self.facility, "species": self.species,
            "energy_mev_u": self.energies_mev_u[0], "energies_mev_u": list(self.energies_mev_u),
            "level_ions_per_s": self.level, "durations_s": self.durations_s(),
            "phases": {phase.name: int(phase) for phase in RingPhase},
            **{name: values.tolist() for name, values in columns.items()},
        }  # fmt: skip


def cycle_study(facility: Facility, room: str, species: str, energy_mev_u: float, seed: int) -> CycleStudy:
    """Run one cycle with a layer of one spot after the other in the middle, at a level that lasts two seconds or so.

    Where the ring takes several energies in a flat top, that many follow, 2 mm of range apart, and share the time.
    ConfigError for an energy that the facility's table does not have, UsageError for another room or species.
    """
    table = load_energy_table(facility, species)
    code = table.code_for(energy_mev_u)
    ion = facility.species_named(species)
    wanted = 0.5 * ion.fill_ions * ion.transmission / 2.0
    level = min(ion.intensity_levels_ions_per_s, key=lambda one: abs(one - wanted))
    plant = Plant(facility, room, species, seed=seed)
    plant.set_room_beam(True)
    plant.set_safety_lines(True, False, True, field=1, personnel=True)
    plant.open_field(1, 1e15, 1e9)
    plant.advance(_FIRST_MS * MS_NS)
    step = max(1, round(_STEP_MM / table.range_step_mm))
    codes = list(range(code, -1, -step))[: facility.ring.energies_per_flat_top]
    count = max(1, _SPOTS // len(codes))
    spots = np.zeros((count, len(SPOT_COLUMNS)))
    spots[:, 4], spots[:, 7] = _BEAM_S * level / count / len(codes), 1e6
    rows = _run(plant, codes, level, spots)
    phase = rows[:, 1].astype(np.int64)
    time = (rows[:, 0] - rows[0, 0]) * 1e-9
    arriving = np.diff(rows[:, 3], prepend=rows[0, 3]) / 1e-3
    energies = tuple(float(table.energy_mev_u[one]) for one in codes)
    return CycleStudy(facility.id, species, energies, level, time, phase, rows[:, 2], arriving, rows[:, 4], rows[:, 5])


def _run(plant: Plant, codes: list[int], level: float, spots: FloatArray) -> FloatArray:
    """Rows of (time ns, phase, stored ions, ions by truth, T m, Hz), from the first injection to the cycle's end."""
    rows: list[tuple[float, ...]] = []
    token = 1
    _ask(plant, token, codes, level, spots)
    armed = False
    for ms in range(_FIRST_MS + 1, _LONGEST_MS):
        while plant.t_ns < ms * MS_NS:
            plant.advance(ms * MS_NS)
        status = plant.status
        if not armed and status.permit:
            plant.arm(token, status.permit_epoch)
            armed = True
        began = bool(rows)
        if began and status.phase in (RingPhase.STANDBY, RingPhase.INJECTION) and rows[-1][1] != RingPhase.INJECTION:
            return np.array(rows)
        if began or status.phase is RingPhase.INJECTION:
            stored = float(plant.signals[g.RING_IONS])
            programme = plant.read("RING_TM"), plant.read("RING_HZ")
            if not began:  # injection began with this millisecond
                rows.append((float(plant.t_ns - MS_NS), float(status.phase), 0.0, 0.0, *programme))
            rows.append((float(plant.t_ns), float(status.phase), stored, plant.truth_total_ions, *programme))
        if any(event.kind == "LAYER_DONE" for event in plant.take_events()):
            if token == len(codes):
                plant.end_cycle()
                continue
            token += 1
            _ask(plant, token, codes, level, spots)
            armed = False
    raise InternalError("cycle.endless", f"no end of a cycle within {_LONGEST_MS} ms", plant.facility.id)


def _ask(plant: Plant, token: int, codes: list[int], level: float, spots: FloatArray) -> None:
    """Load the layer of this token, counted from 1, and ask for its energy."""
    plant.load_layer(token, codes[token - 1], level, spots)
    plant.request_cycle(token, codes[token - 1])
