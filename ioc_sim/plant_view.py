"""What there is to see of a plant: its image, its state, its registers; and its truth, for tests and reports."""

from __future__ import annotations

import math

import numpy as np

from facility.pv_catalogue import REGISTER_COLUMNS
from facility.states import FrontEndState, HoldReason, RingPhase
from ioc_sim import commands, rack
from ioc_sim import layout as at
from ioc_sim.layout import E_QB_FC
from ioc_sim.plant_core import PlantCore
from ioc_sim.plant_types import PlantStatus
from ioc_sim.register_store import DoseRecord

_IC1, _IC2, _DONE = (REGISTER_COLUMNS.index(name) for name in ("ic1_ions", "ic2_ions", "done"))


class PlantView(PlantCore):
    """Nothing here changes what the machine does."""

    def image(self) -> np.ndarray:
        """Signals of the process image, float64 (len(IMAGE),), as they stand."""
        return self.signals[self._image_index]

    def watch_image(self, low: np.ndarray, high: np.ndarray) -> None:
        """Raise an IMAGE event at the next 1 ms boundary at which an image value, in units of its resolution, is
        outside ``low .. high``; both float64 (len(IMAGE),)."""
        self._note(self._now_ns, self.watch_image, low, high)
        self._image_low[:] = low
        self._image_high[:] = high
        self._plain["watch"][0] = 1

    @property
    def status(self) -> PlantStatus:
        """State of ring, front end and beam-off devices."""
        (
            t_ns, phase, ring_token, ring_code, cycle, stored, phase_end_ns, state, hold_reason, token, spot, spots,
            done_spots, demand, permit, beam_ticks, level, rate, spill_cmd, rfko_on, quad_open, chopper_open,
            stopper_in, permit_epoch,
        ) = self._status_part[0].item()  # fmt: skip
        return PlantStatus(
            t_ns=t_ns, phase=RingPhase(phase), ring_token=ring_token, energy_code=ring_code, cycle=cycle,
            stored_ions=stored,
            flat_top_ms=max(0, phase_end_ns - t_ns) * 1e-6 if phase == RingPhase.FLAT_TOP else 0.0,
            state=FrontEndState(state), hold_reason=HoldReason(hold_reason), token=token,
            spot=spot, spots=spots, done_spots=done_spots,
            ic1_ions=float(self._v[at.IC_LAYER_IONS]), ic2_ions=float(self._v[at.IC_LAYER_IONS + 1]),
            demand=demand == 1, permit=permit == 1, permit_epoch=permit_epoch, beam_us=beam_ticks * 10.0,
            level=level, rate=rate, first_rule=int(self._latch[rack.FIRST]),
            spill_cmd=spill_cmd == 1, rfko_on=rfko_on == 1, quad_block=quad_open < 0.5,
            chopper_block=chopper_open < 0.5, stopper_in=stopper_in == 1,
        )  # fmt: skip

    @property
    def beam_on_s(self) -> float:
        """Time with beam demanded since the start of the run, s."""
        return float(self._plain["beam_on_ticks"][0]) * 1e-5

    def read(self, name: str, index: int = 0) -> float:
        """A raw quantity of the hardware by its name in ``ioc_sim.layout``, e.g. ``read("READ_A", 1)``."""
        return float(self._v[getattr(at, name) + index])

    @property
    def range_shifter_asked(self) -> int:
        """Range shifters that the drive was told to bring in, bit mask; where they are is in the signals."""
        return self._read("range_shifter")

    @property
    def ions_per_count(self) -> float:
        """Ions behind a count of chamber 1 at the loaded energy."""
        return float(self._v[at.IC_IONS_PER_COUNT]) if int(self._state[0].fe_code) >= 0 else math.nan

    def backup_layer_ions(self) -> float:
        """Ions by the backup counter since the layer was loaded; NaN where nothing is loaded.

        The counter counts all the while, the kernel adds up for it each millisecond: what has come since is in.
        """
        s, v = self._state[0], self._v
        if int(s.fe_code) < 0:
            return math.nan
        quantum = self._q[at.BACKUP_QUANTUM_FC]
        fresh = (float(s.truth_total) - v[at.IONS_SEEN]) * v[at.BACKUP_FC_SEEN]
        counts = v[at.BACKUP_COUNTS] - v[at.BACKUP_LAYER_COUNTS] + math.floor(fresh / quantum)
        return float(counts * quantum / self._etab[int(s.fe_code), E_QB_FC])

    def register(self) -> np.ndarray:
        """Per-spot register of the loaded layer, float64 (n, len(REGISTER_COLUMNS)), a copy.

        The row of a spot that is under way, held or paused says what it has got so far.
        """
        register = self._register.copy()
        s = self._state[0]
        if commands.is_active(s) and int(s.spot) >= 0 and not register[int(s.spot), _DONE]:
            for k, column in enumerate((_IC1, _IC2)):
                register[int(s.spot), column] += self._v[at.EST_IONS + k] - self._v[at.SPOT_CUM0 + k]
        return register

    def dose_records(self) -> tuple[DoseRecord, ...]:
        """What the dose register says of the present load and of the one before, those of an earlier process too."""
        return self.dose.records(self._register)

    def touch_register(self) -> None:
        """Have the whole dose register written at its next synchronisation; see `RegisterStore.touch`."""
        self.dose.store.touch()

    @property
    def beats_alive(self) -> bool:
        """Both heartbeats rose in the last millisecond; when this changes, an IMAGE event is raised."""
        return bool(self._plain["beats_alive"][0])

    def truth_spots(self) -> dict[int, np.ndarray]:
        """True ions by layer token, float64 (n, 5): ions, sum of x, sum of y (ion mm), first and last time (ns)."""
        kept = dict(self.truth_by_token)
        self._keep_truth()
        result, self.truth_by_token = self.truth_by_token, kept
        return result

    @property
    def truth_count(self) -> int:
        """Ticks written to the truth ring since the start; the ring holds the last ``len(trace)`` of them."""
        return self._read("trace_count")

    @property
    def truth_total_ions(self) -> float:
        """All ions that crossed the isocentre plane since the start."""
        return float(self._plain["truth_total"][0])
