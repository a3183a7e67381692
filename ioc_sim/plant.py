"""The plant: the simulated machine behind one synchronous object.

``Plant`` owns the records of the rack, calls the kernel and keeps commands in order of facility time.  It knows neither
sockets nor asyncio; the soft IOCs and the safety link are built around it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility import signals as g
from facility.breathing import load_trace
from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.errors import CommandRefused, InternalError
from facility.external import SLOT
from facility.jit import COMPILED
from facility.pv_catalogue import MAX_SPOTS_PER_LAYER, REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import Action, FrontEndState, HoldReason, RingPhase, SearchStage
from ioc_sim import commands, front_end, rack
from ioc_sim import layout as at
from ioc_sim.dose_register import commit
from ioc_sim.external import initial_external, take_reading
from ioc_sim.faults import F_COLUMNS, F_KIND, N_FAULT_POINTS, Fault, fault_row
from ioc_sim.layout import (
    E_Q1_FC,
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
from ioc_sim.physics import second_line
from ioc_sim.plant_types import ExternalState, ExternalWanted, FastRules, PlantEvent, PlantStatus
from ioc_sim.register_keeper import RegisterKeeper
from ioc_sim.register_store import DoseRecord, RegisterStore, is_plan_hash
from ioc_sim.rerun import RunLog
from ioc_sim.signals_tick import publish_latch
from ioc_sim.spot_book import C_XSET

__all__ = ["TRACE_RECORDS", "FastRules", "Plant", "PlantEvent", "PlantStatus"]

TRACE_RECORDS = 131_072
"""Length of the truth ring: 1.31 s of ticks with beam."""
_STATUS_FIELDS = [
    "t_ns", "phase", "ring_token", "ring_code", "cycle", "stored", "phase_end_ns", "fe_state", "hold_reason",
    "fe_token", "spot", "n_spots", "done_spots", "demand", "permit_line", "layer_beam_ticks", "level", "rate_meas",
    "spill_cmd", "rfko_on", "quad_open", "chopper_open", "stopper_in", "permit_epoch",
]  # fmt: skip
_IC1, _IC2, _DONE = (REGISTER_COLUMNS.index(name) for name in ("ic1_ions", "ic2_ions", "done"))
_EVENT_KINDS = (
    (EV_PHASE, "PHASE"), (EV_BEAM_ON, "BEAM_ON"), (EV_HELD, "HELD"), (EV_PAUSED, "PAUSED"), (EV_TRIP, "TRIP"),
    (EV_LAYER_DONE, "LAYER_DONE"), (EV_ABORTED, "ABORTED"), (EV_SPILL_END, "SPILL_END"), (EV_IMAGE, "IMAGE"),
    (EV_STATE, "STATE"), (EV_ROOM, "ROOM"),
)  # fmt: skip


def check_ring(ring: np.ndarray) -> None:
    """The kernel finds a place in the truth ring with a mask: InternalError unless its length is a power of two."""
    if len(ring) == 0 or len(ring) & (len(ring) - 1):
        raise InternalError("plant.trace", f"{len(ring)} records", "truth ring", "give a power of two")


class Plant:
    """One ring, one beamline, one room at a time.

    Args:
        facility: the machine.
        room_id: room that gets the beam.
        species: what is accelerated.
        seed: run seed; same seed, same commands at the same times: the same run, bit for bit.
        rules: compiled fast rules, or None for none (tests of physics only).
        allow_faults: whether ``inject`` is allowed at all.
        trace_records: length of the truth ring in ticks, a power of two.
        register_store: where the dose register lies; None: memory that dies with the plant, written when asked.
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
    ) -> None:
        self.facility = facility
        self.room_id = room_id
        self.species = species
        self.allow_faults = allow_faults
        self.table = load_energy_table(facility, species)
        self._etab = energy_columns(facility, species, self.table)
        breathing = load_trace(facility.gate.trace)
        self._trace_mm = np.ascontiguousarray(breathing.amplitude_mm, dtype=np.float64)
        self._parameters, self._q = pack_parameters(facility, room_id, species, seed, len(self._trace_mm),
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
        self.dose = RegisterKeeper(register_store, self._parameters[0], self._state[0], self._v)
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
            target = until_ns
            if self._pending:
                target = min(until_ns, self._next_tick_from(self._pending[0][0]))
            self._step(target)
            applied = not self._events_bits[0] and self._apply_due(target)
            if self._events_bits[0]:  # of the last tick, or of a command that has just been applied
                self._collect()
                self._now_ns = max(self._now_ns, self.t_ns)
                return self._now_ns
            if target == until_ns and not applied:
                self._now_ns = until_ns
                return until_ns

    def _next_tick_from(self, t_ns: int) -> int:
        """Start of the first step that begins at or after ``t_ns``."""
        step = rack.TICK_NS if self._plain["fine"][0] else rack.MS_NS
        return -(-t_ns // step) * step

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

    # --- commands --------------------------------------------------------------------------------------------
    def request_cycle(self, token: int, energy_code: int) -> None:
        """Queue the next machine cycle: begun at once if the ring stands by, else when the present layer is done."""
        if not 0 <= energy_code < len(self.table):
            raise CommandRefused("ring.energy", f"no energy code {energy_code}", "request_cycle",
                                 f"codes are 0 to {len(self.table) - 1}")  # fmt: skip
        commands.check_token(token)
        self._later(commands.queue_cycle, self._state[0], token, energy_code)

    def end_cycle(self) -> None:
        """End the flat top: what is stored is dumped."""
        self._later(commands.end_cycle, self._state[0])

    def open_field(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str = "") -> None:
        """What a field should get over all its layers, and the time with the spill commanded that it should take.

        The hash of its plan (64 hex digits) goes into the dose register with every layer.

        Counter and timer of the field go on from layer to layer; only another field begins at zero: the one that the
        safety controller has opened, and no other, and not while a layer is active.  The field that is open may be
        named again, with the same presets.
        """
        commands.check_token(field, "field")
        for name, value in (("preset_ions", preset_ions), ("expected_ms", expected_ms)):
            if not (math.isfinite(value) and value > 0.0):
                raise CommandRefused("fe.field", f"{name} {value!r}", "open_field", "give a positive number")
        if plan_hash and not is_plan_hash(plan_hash):
            raise CommandRefused("fe.field", f"plan hash {plan_hash[:80]!r}", "open_field", "give 64 hex digits")
        s, v = self._state[0], self._v
        if int(s.field) != field:
            self._refuse_while_active("open_field")
            if field != self._field_told:
                told = f"field {self._field_told}" if self._field_told else "none"
                what = f"field {field} is not the one that the safety controller has opened, which is {told}"
                raise CommandRefused("fe.other-field", what, "open_field", "let an operator open the field first")
        elif (v[at.FIELD_PRESET_IONS], v[at.FIELD_EXPECTED_MS]) != (preset_ions, expected_ms):
            raise CommandRefused("fe.field", f"field {field} is open with other presets", "open_field",
                                 "what a field should get is fixed when it is opened")  # fmt: skip
        self._later(self._open_now, field, float(preset_ions), float(expected_ms), plan_hash)

    def _open_now(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str) -> None:
        s = self._state[0]
        if commands.may_open(s, field):
            self.dose.plan_hash = plan_hash
            second_line.open_field(s, self._v, field, preset_ions, expected_ms)

    def load_layer(self, token: int, energy_code: int, level_ions_per_s: float, spots: np.ndarray) -> None:
        """Load a layer table, float64 (n, len(SPOT_COLUMNS)); refused while a layer is active or if it is unsound."""
        commands.check_token(token)
        table = commands.checked_table(spots, MAX_SPOTS_PER_LAYER, self._q[at.SUPPLY_MAX_A : at.SUPPLY_MAX_A + 2])
        if not 0 <= energy_code < len(self.table):
            raise CommandRefused("fe.energy", f"no energy code {energy_code}", "load_layer")
        if not (math.isfinite(level_ions_per_s) and level_ions_per_s > 0.0):
            raise CommandRefused(
                "fe.level", f"level {level_ions_per_s!r} ions/s", "load_layer", "give a positive level"
            )
        self._refuse_while_active("load_layer")
        self._later(self._load_now, token, energy_code, float(level_ions_per_s), table)

    def _load_now(self, token: int, energy_code: int, level: float, table: np.ndarray) -> None:
        s = self._state[0]
        if commands.is_active(s):
            return
        self._keep_truth()
        self.dose.bring_up_to_date(self._register)
        self._spots = table
        self._register = commands.fresh_register(table)
        self._truth = np.zeros((len(table), T_COLUMNS))
        commands.load(s, self._q, self._v, self._etab, token, energy_code, level, len(table))
        second_line.preset(self._parameters[0], self._v, table, level)
        self.dose.loaded(token, energy_code, level, table, self._register)
        self._bind()
        s.events |= EV_STATE

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

    def arm(self, token: int, permit_epoch: int) -> None:
        """Arm the loaded layer; beam comes by itself when ring, permit, gate and magnets are ready.

        Refused unless the permit is the one of ``permit_epoch`` (``status``), without a break since.
        """
        s = self._state[0]
        state = FrontEndState(int(s.fe_state))
        pending_load = any(f == self._load_now for _, f, _ in self._pending)
        if not pending_load and (state != FrontEndState.LOADED or int(s.fe_token) != token):
            raise CommandRefused("fe.arm", f"front end is {state.name} with token {int(s.fe_token)}", "arm",
                                 f"load the layer with token {token} first")  # fmt: skip
        commands.check_permit(s, permit_epoch, "arm")
        self._later(self._arm_now, token, permit_epoch)

    def _arm_now(self, token: int, permit_epoch: int) -> None:
        s = self._state[0]
        if commands.may_arm(s, token, permit_epoch):
            front_end.arm(self._parameters[0], self._q, s, self._v, self._spots, permit_epoch)
            s.events |= EV_STATE

    def disarm(self) -> None:
        """Take the layer out of action; what was delivered stays in the register."""
        self._later(self._disarm_now)

    def _disarm_now(self) -> None:
        s = self._state[0]
        if commands.is_active(s):
            front_end.disarm(s, self._v, self._register)
            self.dose.commit(self._register)
            s.events |= EV_STATE

    def pause(self) -> None:
        """Operator pause: beam off, goes on only with ``resume``."""
        self._later(commands.pause, self._state[0])

    def resume(self, permit_epoch: int) -> None:
        """End a pause; refused if there is none, or the permit is not the one of ``permit_epoch``."""
        s = self._state[0]
        if int(s.fe_state) != FrontEndState.PAUSED:
            raise CommandRefused(
                "fe.resume", f"front end is {FrontEndState(int(s.fe_state)).name}, not PAUSED", "resume"
            )
        commands.check_permit(s, permit_epoch, "resume")
        self._later(commands.resume, s, permit_epoch)

    def _refuse_while_active(self, verb: str) -> None:
        s = self._state[0]
        if commands.is_active(s):
            raise CommandRefused("fe.active", f"a layer is {FrontEndState(int(s.fe_state)).name}", verb,
                                 "wait until it is done, or disarm it")  # fmt: skip

    def insert_range_shifters(self, code: int, plan_code: int) -> None:
        """Move range shifters (bit mask over the facility's list); takes 500 ms."""
        if not 0 <= code < 1 << len(self.facility.range_shifters) or plan_code != code:
            raise CommandRefused("rs.code", f"range shifter mask {code} for plan {plan_code}", "insert",
                                 f"the facility has {len(self.facility.range_shifters)} range shifters")  # fmt: skip
        self._refuse_while_active("insert")
        self._later(commands.insert, self._state[0], code)

    def set_room_beam(self, on: bool) -> None:
        """Give the beam token to this plant's room and take the stopper out, or back in."""
        self._later(commands.room_beam, self._state[0], self._parameters[0], on)

    # --- lines -----------------------------------------------------------------------------------------------
    def set_safety_lines(
        self, permit: bool, hold: bool, link_ok: bool, bypass_mask: int = 0, personnel: bool = True, field: int = 0
    ) -> None:
        """The lines of the safety link, the fast rules that are bypassed, the number of the field that is open at the
        safety controller (0: none); they act from the next tick."""
        self._later(self._lines_now, permit, hold, link_ok, personnel)
        if bypass_mask != self._bypass_mask:
            self._bypass_mask = bypass_mask
            self._later(self._bypass_now, bypass_mask & self._bypassable)
        if field != self._field_told:
            self._field_told = field
            self._later(self._tell_field_now, field)

    def _tell_field_now(self, field: int) -> None:
        self._state[0].field_told = field

    def _lines_now(self, permit: bool, hold: bool, link_ok: bool, personnel: bool) -> None:
        """A permit that was taken away and given again between two ticks comes back only after one without it."""
        s = self._state[0]
        early = permit and link_ok and commands.loss_unseen(s)
        commands.safety_lines(s, permit and not early, hold, link_ok, personnel)
        if early:
            self._pending.insert(0, (self.t_ns + 1, self._lines_now, (permit, hold, link_ok, personnel)))

    def _bypass_now(self, mask: int) -> None:
        commands.bypass_rules(self.rule_rows, *self._compiled, mask)
        self._let_go(0)

    def reset_fast(self, mask: int) -> int:
        """Clear fast latches in ``mask`` whose cause is gone; returns the mask of those still latched."""
        self._note(self._now_ns, self.reset_fast, mask)
        return self._let_go(mask)

    def _let_go(self, mask: int) -> int:
        left = int(rack.reset(self.rule_rows, self._latch, mask))
        s = self._state[0]
        s.action = int(self._latch[rack.IN_FORCE])
        if not left and not int(s.unconfirmed):
            s.escalated = 0
        publish_latch(self.signals, self._latch)
        return left

    def set_door(self, a_closed: bool, b_closed: bool) -> None:
        """Both door contacts."""
        self._later(commands.set_lines, self._state[0], "door", a_closed, b_closed)

    def prove(self, action: int, seq: int) -> None:
        """Carry out an action of the proof tests, a `ProofAction`; `proof.seq` becomes `seq` at its end."""
        self._later(commands.begin_proof, self._state[0], self._v, action, seq)

    def press_search(self, button: str) -> None:
        """Press a search button: 'far', at the far end of the room, or 'exit'."""
        if button not in ("far", "exit"):
            raise CommandRefused("room.button", f"no button {button!r}", "press_search", "far or exit")
        self._later(commands.press, self._state[0], button)

    def press_estop(self) -> None:
        """Press the emergency stop of the room: it stays down until somebody at the button lets it go."""
        self._later(commands.set_lines, self._state[0], "estop", False, False)

    def release_estop(self) -> None:
        """Turn the emergency stop to let it go, at the button itself."""
        self._later(commands.set_lines, self._state[0], "estop", True, True)

    def turn_key(self, position: int) -> None:
        """Turn the mode key switch: 1 clinical, 2 QA, 3 service, 0 between two positions."""
        if not 0 <= position <= 3:
            raise CommandRefused("key.position", f"position {position!r}", "turn_key", "give 0 to 3")
        self._later(commands.turn_key, self._state[0], position)

    def set_gating(self, on: bool) -> None:
        """Switch the motion gate on or off."""
        self._later(commands.gating, self._state[0], on)

    # --- devices behind an external IOC -------------------------------------------------------------------------
    def external_reading(self, device: str, value: float, t_ns: int, good: bool, acknowledged: float) -> None:
        """A reading of an external device (a name of ``facility.external.SLOTS``), in the unit of the rack.

        ``t_ns``: when it was taken; ``good``: what the device says of itself; ``acknowledged``: the set point that the
        device had acknowledged by then, NaN for none.
        """
        self._later(self._reading_now, SLOT[device], float(value), float(t_ns), good, float(acknowledged))

    def _reading_now(self, slot: int, value: float, t_ns: float, good: bool, acknowledged: float) -> None:
        take_reading(self._parameters[0], self._q, self._v, slot, (value, t_ns, good, acknowledged))

    def external_lost(self, device: str) -> None:
        """What has been read of an external device is void from now on: its connection is gone."""
        self._later(self._lost_now, SLOT[device])

    def _lost_now(self, slot: int) -> None:
        self._v[at.EXT_GOOD + slot] = 0.0

    def external_slip(self, slip_ns: int) -> None:
        """Facility time has stood still for so long while the devices' time went on: their readings are older."""
        self._later(self._slip_now, float(slip_ns))

    def _slip_now(self, slip_ns: float) -> None:
        self._v[at.EXT_T_NS : at.EXT_T_NS + at.N_EXT] -= slip_ns

    def external_wanted(self) -> ExternalWanted:
        """What the external devices should be set to."""
        v, s = self._v, self._state[0]
        volts = v[at.IC_VOLT_TEST : at.IC_VOLT_TEST + 2] * self._q[at.IC_VOLT_SET : at.IC_VOLT_SET + 2]
        setpoints = (float(v[at.SET_A]), float(v[at.SET_A + 1]), float(volts[0]), float(volts[1]))
        return ExternalWanted(int(s.fe_token), int(s.spot) if commands.is_active(s) else -1, setpoints)

    def external_states(self) -> tuple[ExternalState, ...]:
        """How each external device stands, in the order of ``Facility.fitted``."""
        t_ns = self.t_ns
        states = []
        for name in self.facility.fitted:
            slot = SLOT[name]
            age_ms = (t_ns - float(self._v[at.EXT_T_NS + slot])) * 1e-6
            said = bool(self._v[at.EXT_GOOD + slot] == 1.0)
            in_time = abs(age_ms) <= float(self._q[at.EXT_AGE_NS + slot]) * 1e-6
            states.append(ExternalState(name, said, in_time, max(0.0, age_ms), float(self._v[at.EXT_VALUE + slot])))
        return tuple(states)

    def output_lines(self) -> tuple[bool, bool, bool]:
        """Lines to an I/O card: the permit stands, no fast rule stronger than HOLD is in force, beam is asked for."""
        return (self._read("permit_line") == 1, self._read("action") < Action.PAUSE, self._read("demand") == 1)

    def layer_set_points_a(self, device: str) -> np.ndarray:
        """Set points of a scanning supply for each spot of the loaded layer, A, shape (n,)."""
        return self._spots[:, C_XSET + SLOT[device]].copy()

    def set_late_ms(self, late_ms: float) -> None:
        """How late the pacing of the plant is; written by whoever paces it."""
        self._note(self._now_ns, self.set_late_ms, late_ms)
        self._state[0].late_ms = late_ms

    # --- observation -----------------------------------------------------------------------------------------
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

    def ask_lease(self) -> tuple[int, float] | None:
        """Write the next lease into the dose register; what to `grant_lease` once the register is synchronised."""
        lease = self.dose.next_lease()
        if lease is not None:
            self._note(self._now_ns, self._write_lease, lease[1])
            self._write_lease(lease[1])
        return None if lease is None else (lease[0], lease[2])

    def grant_lease(self, load: int, ions: float) -> None:
        """The register is synchronised: this load may go on up to so many ions."""
        if self._read("load_seq") == load:
            self._note(self._now_ns, self._use_lease, ions)
            self._use_lease(ions)

    def _write_lease(self, ions: float) -> None:
        self._v[at.LEASE_NEXT_IONS] = ions
        self.dose.commit(self._register)

    def _use_lease(self, ions: float) -> None:
        self._v[at.LEASE_IONS] = ions

    @property
    def beats_alive(self) -> bool:
        """Both heartbeats rose in the last millisecond; when this changes, an IMAGE event is raised."""
        return bool(self._plain["beats_alive"][0])

    # --- truth: for tests and reports ------------------------------------------------------------------------
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

    # --- faults ----------------------------------------------------------------------------------------------
    def inject(self, fault: Fault) -> None:
        """Let a device fail; refused unless faults are allowed."""
        if not self.allow_faults:
            raise CommandRefused(
                "fault.forbidden", "faults are not allowed in this run", "inject", "use --allow-faults"
            )
        self._note(self._now_ns, self.inject, fault)
        i = fault.index()
        self._faults[i] = fault_row(fault, int(self._parameters[0].seed) & 0xFFFFFFFF)
        self._state[0].faults = np.count_nonzero(self._faults[:, F_KIND])

    def clear_faults(self) -> None:
        """Mend every device."""
        self._note(self._now_ns, self.clear_faults)
        self._faults[:] = 0.0
        self._state[0].faults = 0

    @property
    def ions_per_count(self) -> float:
        """Ions behind a count of chamber 1 at the loaded energy."""
        code = int(self._state[0].fe_code)
        quantum = float(self._q[at.IC_QUANTUM_FC])
        return quantum / float(self._etab[code, E_Q1_FC]) if code >= 0 else math.nan
