"""What a plant is told of a delivery: cycles, fields, layers, range shifters, leases of the dose register."""

from __future__ import annotations

import math

import numpy as np

from facility.errors import CommandRefused
from facility.pv_catalogue import MAX_SPOTS_PER_LAYER
from facility.states import FrontEndState
from ioc_sim import commands, front_end
from ioc_sim import layout as at
from ioc_sim.layout import (
    EV_STATE,
    T_COLUMNS,
)
from ioc_sim.physics import second_line
from ioc_sim.plant_core import PlantCore
from ioc_sim.register_store import is_plan_hash


class DeliveryCommands(PlantCore):
    """Commands of control.  What is wrong is refused at once; the rest acts at the next tick."""

    def request_cycle(self, token: int, energy_code: int, transport_set: int | None = None) -> None:
        """Queue the next machine cycle: begun at once if the ring stands by, else when the present layer is done.

        ``transport_set`` is the number of the transport's set points by the caller's energy table, None its own.
        """
        if not 0 <= energy_code < len(self.table):
            raise CommandRefused("ring.energy", f"no energy code {energy_code}", "request_cycle",
                                 f"codes are 0 to {len(self.table) - 1}")  # fmt: skip
        commands.check_token(token)
        asked = self._checked_set("ring.transport-set", energy_code, transport_set, "request_cycle")
        self._later(commands.queue_cycle, self._state[0], token, energy_code, asked)

    def _checked_set(self, code: str, energy_code: int, asked: int | None, verb: str) -> int:
        """The set number of the energy in this room by the plant's own table; CommandRefused where another is asked."""
        own = self.table.room(self.room_id).set_number(energy_code)
        if asked is not None and asked != own:
            raise CommandRefused(code, f"transport set {asked}{self._whose(asked)}", verb,
                                 f"energy code {energy_code} in room {self.room_id} has set {own} by version "
                                 f"{self.table.version} of the energy table")  # fmt: skip
        return own

    def _whose(self, number: int) -> str:
        for room_id, room in self.table.rooms.items():
            for code in np.flatnonzero(room.transport_set == number):
                return f" is that of energy code {code} in room {room_id}"
        return " is in no room of the energy table"

    def end_cycle(self) -> None:
        """End the flat top: what is stored is dumped."""
        self._later(commands.end_cycle, self._state[0])

    def open_field(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str = "") -> float:
        """What a field should get over all its layers, and the time with the spill commanded that it should take; gives
        what it has had so far, ions by the backup counter (NaN: nobody knows).

        The hash of its plan (64 hex digits) goes into the dose register with every layer.

        Counter and timer of the field go on from layer to layer, and from where they were when a field is opened again,
        after another one or in another process (the dose register keeps them); only a new field begins at zero.  It
        is the one that the safety controller has opened, and no other, and not while a layer is active.  A field that
        has been open may be named again, with the same presets.
        """
        commands.check_token(field, "field")
        for name, value in (("preset_ions", preset_ions), ("expected_ms", expected_ms)):
            if not (math.isfinite(value) and value > 0.0):
                raise CommandRefused("fe.field", f"{name} {value!r}", "open_field", "give a positive number")
        if plan_hash and not is_plan_hash(plan_hash):
            raise CommandRefused("fe.field", f"plan hash {plan_hash[:80]!r}", "open_field", "give 64 hex digits")
        s = self._state[0]
        if int(s.field) != field:
            self._refuse_while_active("open_field")
            self._refuse_before_armed("open_field")
            self._refuse_before_quiet("open_field")
            if field != self._field_told:
                told = f"field {self._field_told}" if self._field_told else "none"
                what = f"field {field} is not the one that the safety controller has opened, which is {told}"
                raise CommandRefused("fe.other-field", what, "open_field", "let an operator open the field first")
        had = self.dose.counted(field, preset_ions, expected_ms)
        self._later(self._open_now, field, float(preset_ions), float(expected_ms), plan_hash, had)
        return had[0]

    def _open_now(
        self, field: int, preset_ions: float, expected_ms: float, plan_hash: str, had: tuple[float, float]
    ) -> None:
        s = self._state[0]
        if commands.may_open(s, field) and self.dose.opens(field, preset_ions, expected_ms, had):
            self.dose.plan_hash = plan_hash
            second_line.open_field(s, self._v, field, preset_ions, expected_ms, had)

    def load_layer(
        self, token: int, energy_code: int, level_ions_per_s: float, spots: np.ndarray, range_shifter_code: int = 0,
        transport_set: int | None = None,
    ) -> None:  # fmt: skip
        """Load a layer table, float64 (n, len(SPOT_COLUMNS)); refused while a layer is active or if it is unsound.

        ``range_shifter_code`` is the bit mask of the plates that the layer wants, over the facility's list: no beam is
        asked for before the switches show it, and the rule ``range-shifter`` compares them with it.
        ``transport_set``: as for ``request_cycle``; set points and counts were made with the same table.
        """
        commands.check_token(token)
        table = commands.checked_table(spots, MAX_SPOTS_PER_LAYER, self._q[at.SUPPLY_MAX_A : at.SUPPLY_MAX_A + 2])
        if not 0 <= energy_code < len(self.table):
            raise CommandRefused("fe.energy", f"no energy code {energy_code}", "load_layer")
        self._checked_set("fe.transport-set", energy_code, transport_set, "load_layer")
        commands.check_level(level_ions_per_s)
        self._check_range_shifters("fe.range-shifter", range_shifter_code, "load_layer")
        self._refuse_while_active("load_layer")
        self._refuse_before_armed("load_layer")
        self._refuse_before_quiet("load_layer")
        self._later(self._load_now, token, energy_code, float(level_ions_per_s), table, range_shifter_code)

    def _load_now(self, token: int, energy_code: int, level: float, table: np.ndarray, plates: int) -> None:
        s = self._state[0]
        if commands.is_active(s):
            return
        self._keep_truth()
        self.dose.bring_up_to_date(self._register)
        self._spots = table
        self._register = commands.fresh_register(table)
        self._truth = np.zeros((len(table), T_COLUMNS))
        commands.load(s, self._q, self._v, self._etab, token, energy_code, level, len(table))
        s.rs_plan = plates
        second_line.preset(self._parameters[0], self._v, table, level)
        self.dose.loaded(token, energy_code, level, table, self._register)
        self._bind()
        s.events |= EV_STATE

    def arm(self, token: int, permit_epoch: int) -> None:
        """Arm the loaded layer; beam comes by itself when ring, permit, gate and magnets are ready.

        Refused unless the permit is the one of ``permit_epoch`` (``status``), without a break since.
        """
        s = self._state[0]
        loading = [int(arguments[0]) for _, function, arguments in self._pending if function == self._load_now]
        state = FrontEndState.LOADED if loading else FrontEndState(int(s.fe_state))
        loaded = loading[-1] if loading else int(s.fe_token)
        if state != FrontEndState.LOADED or loaded != token:
            raise CommandRefused("fe.arm", f"front end is {state.name} with token {loaded}", "arm",
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

    def _refuse_before_armed(self, verb: str) -> None:
        """An arm that was taken in this moment goes first, and what came after it would not be done."""
        if any(function == self._arm_now for _, function, _ in self._pending):
            raise CommandRefused("fe.active", "a layer is about to be ARMED", verb,
                                 "wait until it is done, or disarm it")  # fmt: skip

    def _refuse_before_quiet(self, verb: str) -> None:
        """What comes after a stop belongs to the layer that was stopped, and to its field."""
        s, quiet = self._state[0], int(self._parameters[0].quiet_ticks)
        if int(s.fe_state) == FrontEndState.ABORTED and int(s.stop_ticks) < quiet:
            raise CommandRefused("fe.tail", f"beam may still come, {int(s.stop_ticks)} ticks after the stop", verb,
                                 f"wait for {quiet} ticks of 10 us")  # fmt: skip

    def insert_range_shifters(self, code: int) -> None:
        """Move range shifters (bit mask over the facility's list); takes 500 ms.  Which ones a layer wants comes with
        its table (``load_layer``), not from here."""
        self._check_range_shifters("rs.code", code, "insert")
        self._refuse_while_active("insert")
        self._later(commands.insert, self._state[0], code)

    def _check_range_shifters(self, field: str, code: int, verb: str) -> None:
        count = len(self.facility.range_shifters)
        if not 0 <= code < 1 << count:
            raise CommandRefused(field, f"range shifter mask {code}", verb, f"the facility has {count} range shifters:"
                                 f" give 0 to {(1 << count) - 1}")  # fmt: skip

    def set_room_beam(self, on: bool) -> None:
        """Give the beam token to this plant's room and take the stopper out, or back in."""
        self._later(commands.room_beam, self._state[0], self._parameters[0], on)

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
