"""The core of the plant: its records, its time, its events, and commands that wait for their tick."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility import signals as g
from facility.breathing import load_trace
from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.errors import InternalError
from facility.jit import COMPILED
from facility.pv_catalogue import REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import HoldReason, RingPhase, SearchStage
from ioc_sim import commands, front_end, rack
from ioc_sim import layout as at
from ioc_sim.dose_register import commit
from ioc_sim.external import initial_external
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import F_COLUMNS, N_FAULT_POINTS
from ioc_sim.layout import (
    EV_ABORTED,
    EV_BEAM_ON,
    EV_HELD,
    EV_IMAGE,
    EV_LAYER_DONE,
    EV_PAUSED,
    EV_PHASE,
    EV_ROOM,
    EV_SPILL_END,
    EV_STATE,
    EV_TRIP,
    PARAM_DTYPE,
    STATE_DTYPE,
    T_COLUMNS,
    TRUTH_DTYPE,
)
from ioc_sim.params import as_argument, energy_columns, pack_parameters, record
from ioc_sim.plant_types import FastRules, PlantEvent
from ioc_sim.register_keeper import RegisterKeeper
from ioc_sim.register_store import RegisterStore
from ioc_sim.rerun import RunLog
from ioc_sim.signals_tick import publish_latch

TRACE_RECORDS = 131_072
"""Length of the truth ring: 1.31 s of ticks with beam."""
_STATUS_FIELDS = [
    "t_ns", "phase", "ring_token", "ring_code", "cycle", "stored", "phase_end_ns", "fe_state", "hold_reason",
    "fe_token", "spot", "n_spots", "done_spots", "demand", "permit_line", "layer_beam_ticks", "level", "rate_meas",
    "spill_cmd", "rfko_on", "quad_open", "chopper_open", "stopper_in", "permit_epoch",
]  # fmt: skip
_EVENT_KINDS = (
    (EV_PHASE, "PHASE"), (EV_BEAM_ON, "BEAM_ON"), (EV_HELD, "HELD"), (EV_PAUSED, "PAUSED"), (EV_TRIP, "TRIP"),
    (EV_LAYER_DONE, "LAYER_DONE"), (EV_ABORTED, "ABORTED"), (EV_SPILL_END, "SPILL_END"), (EV_IMAGE, "IMAGE"),
    (EV_STATE, "STATE"), (EV_ROOM, "ROOM"),
)  # fmt: skip


def check_ring(ring: np.ndarray) -> None:
    """The kernel finds a place in the truth ring with a mask: InternalError unless its length is a power of two."""
    if len(ring) == 0 or len(ring) & (len(ring) - 1):
        raise InternalError("plant.trace", f"{len(ring)} records", "truth ring", "give a power of two")


def _ceiling(t_ns: int, step_ns: int) -> int:
    """The first multiple of ``step_ns`` at or after ``t_ns``."""
    return -(-t_ns // step_ns) * step_ns


class PlantCore:
    """The records of a plant and the time that runs over them.

    Args:
        facility: the machine.
        room_id: room that gets the beam.
        species: what is accelerated.
        seed: run seed; same seed, same commands at the same times: the same run, bit for bit.
        rules: compiled fast rules, or None for none (tests of physics only).
        allow_faults: whether ``inject`` is allowed at all.
        trace_records: length of the truth ring in ticks, a power of two.
        register_store: where the dose register lies; None: memory that dies with the plant, written when asked.
        first_epoch: where the epochs of the permit begin; above all of an earlier plant that somebody may remember.
    """

    def __init__(
        self,
        facility: Facility,
        room_id: str,
        species: str,
        *,
        seed: int,
        rules: FastRules | None = None,
        allow_faults: bool = False,
        trace_records: int = TRACE_RECORDS,
        register_store: RegisterStore | None = None,
        first_epoch: int = 0,
    ) -> None:
        self.facility = facility
        self.room_id = room_id
        self.species = species
        self.allow_faults = allow_faults
        self.table = load_energy_table(facility, species)
        spill = load_spill_table(facility)
        self._etab = energy_columns(facility, room_id, species, self.table, spill)
        breathing = load_trace(facility.gate.trace)
        self._trace_mm = np.ascontiguousarray(breathing.amplitude_mm, dtype=np.float64)
        self._parameters, self._q = pack_parameters(facility, room_id, species, spill, seed, len(self._trace_mm),
                                            round(breathing.step_s * 1e9))  # fmt: skip
        self._state = record(STATE_DTYPE)
        self._plain = self._state.view(np.ndarray).view(STATE_DTYPE)
        self._status_part = self._plain[_STATUS_FIELDS]
        self._t_ns, self._events_bits = self._plain["t_ns"], self._plain["events"]
        self._kernel_p = as_argument(self._parameters, PARAM_DTYPE)
        self._kernel_s = as_argument(self._state, STATE_DTYPE)
        self._v = np.zeros(at.N_V)
        self._faults = np.zeros((N_FAULT_POINTS, F_COLUMNS))
        self.signals = np.zeros(g.N_SIGNALS)
        self._spots = np.zeros((1, len(SPOT_COLUMNS)))
        self._register = np.zeros((1, len(REGISTER_COLUMNS)))
        self._truth = np.zeros((1, T_COLUMNS))
        self.trace = np.zeros(trace_records, TRUTH_DTYPE)
        check_ring(self.trace)
        self.rule_rows = rules.rows if rules is not None else np.zeros(0, rack.RULE_DTYPE)
        self.rule_ids: tuple[str, ...] = tuple(rules.ids) if rules is not None else ()
        self._bypassable = rules.bypassable if rules is not None else 0
        self._bypass_mask = 0
        self._field_told = 0
        self._compiled = self.rule_rows["action"].copy(), self.rule_rows["latching"].copy()
        self._hist_index = np.asarray(rules.hist_index if rules is not None else [], dtype=np.int64)
        self._hist, self._hist_state = rack.new_history(len(self._hist_index))
        self._screen, self._parts = rack.new_screen(self.rule_rows)
        self._seen = rack.new_seen(g.N_SIGNALS)
        self._latch = rack.new_latch()
        self._image_index = np.array(g.IMAGE, dtype=np.int64)
        self._image_scale = np.array([1.0 / g.SIGNALS[i].resolution for i in g.IMAGE])
        self._image_low = np.full(len(g.IMAGE), -math.inf)
        self._image_high = np.full(len(g.IMAGE), math.inf)
        self._now_ns = 0
        self._pending: list[tuple[int, Any, tuple[Any, ...]]] = []
        self._events: list[PlantEvent] = []
        self.log: RunLog | None = None
        """Where a post-mortem looks back; whoever wants one gives it before time runs."""
        self.truth_by_token: dict[int, np.ndarray] = {}
        commands.initial_state(self._state[0], self._v)
        self._state[0].permit_epoch = first_epoch
        self.dose = RegisterKeeper(register_store, self._parameters[0], self._state[0], self._q, self._v)
        initial_external(self._q, self._v)
        self._bind()
        self._compile()

    # --- time ------------------------------------------------------------------------------------------------
    @property
    def t_ns(self) -> int:
        """End of the last tick that was run; never later than the last ``advance`` target."""
        return int(self._t_ns[0])

    def advance(self, until_ns: int) -> int:
        """Run to the last tick that ends at or before ``until_ns``; stop after a tick with events.

        Returns the time reached: the end of the tick with the events, or ``until_ns``.
        """
        if until_ns < self._now_ns:
            raise InternalError("plant.time", f"asked to go back from {self._now_ns} to {until_ns} ns", "Plant.advance")
        if self.log is not None and self._now_ns >= self.log.due_ns:
            self.log.take(self)
        while True:
            target = self._run_to_due(until_ns)
            applied = not self._events_bits[0] and self._apply_due(target)
            if self._events_bits[0]:  # of the last tick, or of a command that has just been applied
                self._collect()
                self._now_ns = max(self._now_ns, self.t_ns)
                return self._now_ns
            if target == until_ns and not applied:
                self._now_ns = until_ns
                return until_ns

    def _run_to_due(self, until_ns: int) -> int:
        """Run to ``until_ns``, or to the first tick that begins at or after what is pending; returns to which of them.

        Where no beam is possible it is the first coarse step; which of the two it is, the kernel says, for it may be
        otherwise than at the last step. What was due when an event stopped the plant is due now.
        """
        if not self._pending:
            self._step(until_ns)
            return until_ns
        due_ns = self._pending[0][0]
        target = min(until_ns, max(self.t_ns, _ceiling(due_ns, rack.TICK_NS)))
        self._step(target)
        if self.t_ns < target and not self._plain["fine"][0] and not self._events_bits[0]:
            target = min(until_ns, _ceiling(due_ns, rack.MS_NS))
            self._step(target)
        return target

    def _apply_due(self, at_ns: int) -> bool:
        """Apply commands stamped at or before the tick boundary that has been reached; True if there were any."""
        applied = False
        while self._pending and self._pending[0][0] <= self.t_ns <= at_ns:
            _, function, arguments = self._pending.pop(0)
            self._note(at_ns, function, *arguments)
            function(*arguments)
            applied = True
        return applied

    def _step(self, until_ns: int) -> None:
        if COMPILED:
            rack.run(*self._arguments, until_ns)
            return
        with np.errstate(over="ignore", invalid="ignore"):  # what is compiled wraps around and warns of nothing
            rack.run(*self._arguments, until_ns)

    def _compile(self) -> None:
        """Compile everything that this plant will ever call, on copies: nothing may compile once time runs."""
        self._step(0)
        p, s, v = self._parameters[0], self._state.copy().view(np.recarray)[0], self._v.copy()
        with np.errstate(over="ignore"):
            front_end.arm(p, self._q, s, v, self._spots, 0)
            front_end.disarm(s, v, self._register.copy())
            commit(p, s, v, self._register, self.dose.slots.copy(), self.dose.rows[:1].copy())
        rack.reset(self.rule_rows.copy(), rack.new_latch(), 0)
        publish_latch(self.signals.copy(), self._latch)

    def _bind(self) -> None:
        """The kernel's arguments; made anew when a layer brings new tables."""
        self._arguments = (
            self._kernel_p, self._q, self._kernel_s, self._v, self._faults, self.signals, self._spots,
            self._register,
            self.dose.slots, self.dose.rows, self._truth, self.trace, self._etab, self.rule_rows, self._hist,
            self._hist_state, self._hist_index, self._screen, self._parts, self._seen, self._latch, self._trace_mm,
            self._image_index,
            self._image_scale, self._image_low, self._image_high,
        )  # fmt: skip

    def _read(self, name: str) -> int:
        """A whole number of the state; a record's attribute would cost ten times as much."""
        return int(self._plain[name][0])

    def _collect(self) -> None:
        bits, t_ns = int(self._events_bits[0]), self.t_ns
        self._events_bits[0] = 0
        for bit, kind in _EVENT_KINDS:
            if bits & bit:
                self._events.append(PlantEvent(t_ns, kind, self._event_data(kind)))

    def _event_data(self, kind: str) -> dict[str, int | float | str]:
        if kind == "PHASE":
            return {"phase": RingPhase(self._read("phase")).name, "cycle": self._read("cycle"),
                    "token": self._read("ring_token"), "ions": round(float(self._plain["stored"][0]))}  # fmt: skip
        if kind == "TRIP":
            first = int(self._latch[rack.FIRST])
            name = self.rule_ids[first] if 0 <= first < len(self.rule_ids) else ""
            return {"latched": int(self._latch[rack.LATCHED]), "first": name}
        if kind == "ROOM":
            closed = self._read("door_a") and self._read("door_b")
            sound = self._read("estop_a") and self._read("estop_b")
            stage = min(abs(self._read("search_a")), abs(self._read("search_b")))
            return {"search": SearchStage(stage).name, "door": "CLOSED" if closed else "OPEN",
                    "estop": "OK" if sound else "PRESSED", "key": self._read("key")}  # fmt: skip
        data: dict[str, int | float | str] = {"token": self._read("fe_token"), "spot": self._read("spot")}
        if kind in ("HELD", "PAUSED", "ABORTED"):
            data["reason"] = HoldReason(self._read("hold_reason")).name
        return data

    def take_events(self) -> list[PlantEvent]:
        """Events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _later(self, function: Any, *arguments: Any) -> None:
        """Apply at the first tick that begins at or after now."""
        self._pending.append((self._now_ns, function, arguments))

    def _note(self, run_to_ns: int, function: Any, *arguments: Any) -> None:
        """Something is about to be done to the state from outside of the kernel."""
        if self.log is not None:
            self.log.note(run_to_ns, function, arguments)

    def _keep_truth(self) -> None:
        token = int(self._state[0].fe_token)
        if token == 0:
            return
        before = self.truth_by_token.get(token)
        if before is not None and before.shape == self._truth.shape:
            merged = before.copy()
            merged[:, :3] += self._truth[:, :3]
            merged[:, 3] = np.where(before[:, 3] > 0, before[:, 3], self._truth[:, 3])
            merged[:, 4] = np.maximum(before[:, 4], self._truth[:, 4])
            self.truth_by_token[token] = merged
        else:
            self.truth_by_token[token] = self._truth.copy()
