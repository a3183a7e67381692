"""The front end's own hands on its dose register: what is written when a layer is loaded, and the lease.

A register that survives a loss of power grants beam by lease: so many ions beyond what is synchronised, and no more.
The kernel holds the beam (HoldReason.REGISTER) where the lease ends before a new one has been synchronised, so that a
disk that has fallen asleep costs time and never an account of dose.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from facility.errors import ConfigError
from facility.states import FrontEndState
from ioc_sim import layout as at
from ioc_sim.dose_register import commit
from ioc_sim.field_table import CLOSED, FieldCount, FieldTable
from ioc_sim.register_store import Banks, DoseRecord, LoadedLayer, MemoryStore, RegisterStore, read_records

LEASE_S = 0.25
"""Beam at the layer's intensity that a lease covers, facility time."""
TICK_S = 1e-5


class RegisterKeeper:
    """The dose register of one plant.

    Args:
        store: where it lies; None: plain memory that nobody reads but through the plant. It is then written when it is
            asked for, and not in each tick.
        parameters, state, constants, vector: records of the rack (`ioc_sim.layout`).
    """

    def __init__(
        self, store: RegisterStore | None, parameters: Any, state: Any, constants: np.ndarray, vector: np.ndarray
    ) -> None:
        self.store: RegisterStore = MemoryStore() if store is None else store
        state.register_kept = 0 if store is None else 1
        self.banks = Banks(self.store)
        self._p, self._s, self._q, self._v = parameters, state, constants, vector
        self.fields = FieldTable(self.banks.fields)
        self.found = read_records(self.store)
        """What an earlier process has left; empty if there was none.  It stays as it is until a layer is loaded."""
        if self.found:
            state.register_seq, state.last_load = self.found[0].seq, self.found[0].load
            self._take_over(self.found[0])
        self.rows = self.banks.rows(int(state.last_load))
        self.lease_s = LEASE_S
        self.plan_hash = ""
        """Of the field that is open."""

    def _take_over(self, left: DoseRecord) -> None:
        """The backup counter goes on from where an earlier process has left it; so will the field, once it is open.
        What a field has had and nobody knows is unknown from now on: NaN, at which `backup-field` trips."""
        if math.isfinite(left.backup_counts):
            self._v[at.BACKUP_COUNTS] = left.backup_counts
            self._v[at.BACKUP_FC] = (left.backup_counts + 0.5) * self._q[at.BACKUP_QUANTUM_FC]  # no rounding below
        counts = self.fields.counts
        for field, count in counts.items():
            if self.store.power_lost and field != left.field and CLOSED < count.opened < left.seq:
                counts[field] = replace(count, ions=math.nan, timer_ms=math.nan)  # its last row was not synchronised
        if left.field in counts:
            row, (ions, timer_ms) = counts[left.field], _at_most(left)
            counts[left.field] = replace(
                row, ions=float(np.maximum(row.ions, ions)), timer_ms=float(np.maximum(row.timer_ms, timer_ms))
            )
        elif left.field and not self.store.power_lost:  # else it was never synchronised, so it had no lease
            raise ConfigError("register.torn", f"the row of field {left.field} is missing", "dose register",
                              "count the field as delivered; find out what has become of the medium")  # fmt: skip

    def counted(self, field: int, preset_ions: float, expected_ms: float) -> tuple[float, float]:
        """See `FieldTable.counted`; of the open field as it stands."""
        had = self.fields.counted(field, preset_ions, expected_ms)
        is_open = int(self._s.field) == field
        return (float(self._v[at.FIELD_IONS]), float(self._v[at.FIELD_TIMER_MS])) if is_open else had

    def opens(self, field: int, preset_ions: float, expected_ms: float, had: tuple[float, float]) -> bool:
        """Another field is about to be opened: what the open one has had goes into its row, then the new one gets its
        own, both before a slot names it.  False where no row is left; the open one may be named again."""
        s, v, fields = self._s, self._v, self.fields
        if int(s.field) == field:
            return True
        for other, count in list(fields.counts.items()):
            if other == int(s.field):
                count = replace(count, ions=float(v[at.FIELD_IONS]), timer_ms=float(v[at.FIELD_TIMER_MS]))
            if count.opened != CLOSED:
                fields.write(other, replace(count, opened=CLOSED))
        return fields.write(field, FieldCount(preset_ions, expected_ms, *had, opened=int(s.register_seq)))

    @property
    def slots(self) -> np.ndarray:
        """Both slots, as the kernel takes them."""
        return self.banks.slots

    def bring_up_to_date(self, register: np.ndarray) -> None:
        """Write what is only written when it is asked for; `register` is that of the present layer."""
        if not self._s.register_kept:
            self.commit(register)

    def loaded(self, token: int, energy_code: int, level: float, table: np.ndarray, register: np.ndarray) -> None:
        """A layer has been loaded: a new load begins, with rows of its own and nothing leased."""
        s = self._s
        s.last_load += 1
        s.load_seq = s.last_load
        s.book_from = -1
        crc = zlib.crc32(np.ascontiguousarray(table, dtype="<f8").tobytes())
        layer = LoadedLayer(token, self.plan_hash, int(s.field), energy_code, level, len(table), crc, int(s.t_ns),
                            float(self._v[at.FIELD_IONS] + self._v[at.LAYER_PRESET_IONS]))  # fmt: skip
        self.banks.begin(int(s.load_seq), layer)
        self.rows = self.banks.rows(int(s.load_seq))
        self._v[at.LEASE_IONS] = self._v[at.LEASE_NEXT_IONS] = 0.0 if self.store.durable else math.inf
        self.commit(register)

    def commit(self, register: np.ndarray) -> None:
        """Write down where the delivery stands, outside of the kernel: after a command."""
        with np.errstate(over="ignore"):
            commit(self._p, self._s, self._v, register, self.slots, self.rows)

    def next_lease(self) -> tuple[int, float, float] | None:
        """Load, ions that the next lease covers, and ions at which the front end has to stop so that it holds; None
        where none is needed."""
        s, v = self._s, self._v
        state = int(s.fe_state)
        if not self.store.durable or not FrontEndState.LOADED <= state <= FrontEndState.PAUSED:
            return None
        level = max(float(s.level), float(s.rate_meas))
        base = float(v[at.EST_IONS]) if state != FrontEndState.LOADED else 0.0
        stop = base + level * self.lease_s
        return int(s.load_seq), stop + level * (2 * TICK_S + float(self._p.stop_us) * 1e-6), stop

    def records(self, register: np.ndarray) -> tuple[DoseRecord, ...]:
        """What the register says now; see `read_records`."""
        self.bring_up_to_date(register)
        return read_records(self.store)


def _at_most(left: DoseRecord) -> tuple[float, float]:
    """Ions and beam-on time, ms, that the open field can have had: with what is uncertain (after a loss of power the
    lease), but no more than completes the layer.  Control counts the same as delivered, so that what it goes on with
    still ends at the preset."""
    more = left.uncertain_ions
    if left.layer.field == left.field:
        more = min(more, max(left.layer.field_end_ions - left.field_ions, 0.0))
    return left.field_ions + more, 1e3 * (left.timer_s + more / left.layer.level_ions_per_s)
