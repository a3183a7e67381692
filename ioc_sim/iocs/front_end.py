"""Delivery front end: state, layer table, register, and its commands."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channels.protocol import Severity
from channels.publish import publish
from channels.pv_groups import declared
from facility.errors import CommandRefused
from facility.pv_catalogue import MAX_SPOTS_PER_LAYER, REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import FrontEndState, HoldReason
from facility.timebase import Clock
from ioc_sim.iocs.command_desk import ArgumentKind, CommandDesk, Verb, put_command
from ioc_sim.iocs.outlet import LEAST_NS, Outlet, OutletGroup, Packed
from ioc_sim.iocs.port import PlantPort
from ioc_sim.iocs.view import MAJOR, MINOR, OK, View
from ioc_sim.register_store import DoseRecord

SLOTS_PER_S = 4
"""How often the status is shown while beam is on."""
_LOAD_LAYER: Mapping[str, ArgumentKind] = {
    "token": "whole", "energy_code": "whole", "level_ions_per_s": "number", "n": "whole", "crc32": "whole",
    "range_shifter_code": "whole", "transport_set": "whole",
}  # fmt: skip
_OPEN_FIELD: Mapping[str, ArgumentKind] = {
    "field": "whole", "preset_ions": "number", "expected_ms": "number", "plan_hash": "text",
}  # fmt: skip
_READ_DOSE: Mapping[str, ArgumentKind] = {"back": "whole"}
_RESUME: Mapping[str, ArgumentKind] = {"permit_epoch": "whole"}
_ARM: Mapping[str, ArgumentKind] = {"token": "whole", **_RESUME}
_SEVERITY = {FrontEndState.PAUSED: MINOR, FrontEndState.ABORTED: MAJOR}


class FrontEndGroup(OutletGroup):
    """PVs of the front end."""

    state = declared("FE:State-Sts")
    hold = declared("FE:Hold-Sts")
    status = declared("FE:Status-RB")
    spots = declared("FE:Spots-SP")
    register = declared("FE:Register-RB")
    command = declared("FE:Cmd", put_command)
    result = declared("FE:Cmd-Result")

    def __init__(self, prefix: str, clock: Clock, desk: CommandDesk) -> None:
        super().__init__(prefix, clock)
        self.desk = desk
        self._state = Outlet(self.state)
        self._hold = Outlet(self.hold)
        self._status = Packed(self.status, least_ns=LEAST_NS)
        self._register = Outlet(self.register, least_ns=0)

    def show(self, view: View) -> None:
        """Publish what has changed."""
        s, t_ns, event = view.status, view.t_ns, view.event
        beam = s.state is FrontEndState.IRRADIATING
        # between two spots the magnets settle; that is part of irradiating, not a reason for not doing it
        hold = HoldReason.NONE if beam else s.hold_reason
        severity: Severity = _SEVERITY.get(s.state, OK)
        self._state.offer(int(s.state), t_ns, severity=severity, now=event)
        self._hold.offer(int(hold), t_ns, severity=OK, now=event)
        backup = view.backup() if s.state is FrontEndState.DONE else 0.0
        steady = (s.state, hold, s.token, s.spots, s.permit_epoch, s.first_rule)
        moving = view.slot(SLOTS_PER_S) if beam else (s.done_spots, s.demand)
        self._status.offer(
            [int(s.state), int(hold), s.token, s.spot, s.spots, s.done_spots, s.ic1_ions, s.ic2_ions, s.demand,
             s.permit, s.beam_us, s.first_rule, s.permit_epoch, backup],
            t_ns, key=(steady, moving), severity=severity, now=event,
        )  # fmt: skip

    def show_register(self, register: NDArray[np.float64], t_ns: int) -> None:
        """Publish the per-spot register."""
        flat = np.ascontiguousarray(register, dtype=np.float64).ravel()
        flat.flags.writeable = False
        publish(self.register, flat, t_ns, OK)
        self._register.writes += 1

    def staged(self) -> NDArray[np.float64]:
        """What stands in Spots-SP, flat, little-endian float64."""
        return np.ascontiguousarray(np.atleast_1d(np.asarray(self.spots.value)), dtype="<f8")


class FrontEndCommands:
    """What the front end can be told; the table of load_layer is what control staged in Spots-SP."""

    def __init__(self, plant: PlantPort) -> None:
        self._plant = plant
        self._group: FrontEndGroup | None = None
        self.loaded: tuple[int, int] = (0, -1)
        """Token and energy code of the last layer that was taken over."""

    def serve(self, group: FrontEndGroup) -> None:
        """The group whose staged table and register the commands use."""
        self._group = group

    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "open_field": Verb(self._open_field, _OPEN_FIELD),
            "load_layer": Verb(self._load_layer, _LOAD_LAYER),
            "arm": Verb(lambda args: self._plant.arm(args["token"], args["permit_epoch"]), _ARM),
            "disarm": Verb(lambda _args: self._plant.disarm(), {}),
            "pause": Verb(lambda _args: self._plant.pause(), {}),
            "resume": Verb(lambda args: self._plant.resume(args["permit_epoch"]), _RESUME),
            "read_register": Verb(self._read_register, {}),
            "read_dose": Verb(self._read_dose, _READ_DOSE),
        }  # fmt: skip

    def _open_field(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        had = self._plant.open_field(args["field"], args["preset_ions"], args["expected_ms"], args["plan_hash"])
        return {"ions": _known(had)}

    def _load_layer(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        table = checked_table(self._front_end().staged(), args["n"], args["crc32"])
        token, code = args["token"], args["energy_code"]
        self._plant.load_layer(
            token, code, args["level_ions_per_s"], table, args["range_shifter_code"], args["transport_set"]
        )
        self.loaded = (token, code)
        return {"token": token, "n": len(table)}

    def _read_register(self, _args: Mapping[str, Any]) -> Mapping[str, Any]:
        register = self._plant.register()
        self._front_end().show_register(register, self._plant.t_ns)
        return {"token": self._plant.status.token, "n": len(register)}

    def _read_dose(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The dose register: ``back`` 0 the present load, 1 the one before; ``{}`` where there is none.

        Its rows go to Register-RB; target and start are zero there, since the register does not hold them, and done is
        -1 for a spot of which nothing sure is known.
        """
        records = [record for record in self._plant.dose_records() if record.previous == (args["back"] == 1)]
        if not records or args["back"] not in (0, 1):
            return {}
        record = records[0]
        self._front_end().show_register(dose_rows(record), self._plant.t_ns)
        layer = record.layer
        return {
            "seq": record.seq, "t_ns": record.t_ns, "load": record.load, "token": layer.token, "field": layer.field,
            "plan_hash": layer.plan_hash, "energy_code": layer.energy_code, "n": layer.spots,
            "table_crc32": layer.table_crc32, "state": int(record.state), "spot": record.spot,
            "uncertain_ions": record.uncertain_ions, "counts": [_known(count) for count in record.counts],
            "backup_counts": _known(record.backup_counts), "timer_s": _known(record.timer_s), "beam_s": record.beam_s,
            "power_lost": record.power_lost,
        }  # fmt: skip

    def _front_end(self) -> FrontEndGroup:
        if self._group is None:
            raise CommandRefused("fe.starting", "the front end does not serve yet", "FE", "try again")
        return self._group


def dose_rows(record: DoseRecord) -> NDArray[np.float64]:
    """A record of the dose register in the columns of Register-RB, (n, len(REGISTER_COLUMNS))."""
    rows = np.zeros((record.layer.spots, len(REGISTER_COLUMNS)))
    columns = {
        "spot": np.arange(len(rows), dtype=np.float64), "ic1_ions": record.ions[:, 0], "ic2_ions": record.ions[:, 1],
        "x_mm": record.centre_mm[:, 0], "y_mm": record.centre_mm[:, 1], "beam_us": record.beam_us,
        "t_end_ns": record.t_end_ns, "done": np.where(record.unknown, -1.0, record.done),
    }  # fmt: skip
    for name, values in columns.items():
        rows[:, REGISTER_COLUMNS.index(name)] = np.nan_to_num(values)
    return rows


def _known(count: float) -> float | None:
    """None for what is no number: JSON has none."""
    return count if count == count else None


def checked_table(staged: NDArray[np.float64], n: int, crc32: int) -> NDArray[np.float64]:
    """The staged table as (n, columns); CommandRefused if it is not the one that is meant.

    Raises 'fe.size' for another number of spots, 'fe.crc' for other bytes, 'fe.value' for NaN or infinity.
    """
    columns = len(SPOT_COLUMNS)
    if not 1 <= n <= MAX_SPOTS_PER_LAYER:
        raise CommandRefused("fe.size", f"{n} spots", "load_layer", f"give 1 to {MAX_SPOTS_PER_LAYER}")
    if staged.size != n * columns:
        raise CommandRefused(
            "fe.size", f"{staged.size} numbers are staged in FE:Spots-SP, {n} spots have {n * columns}", "load_layer",
            "write the whole table, then load it",
        )  # fmt: skip
    found = zlib.crc32(staged.astype("<f8", copy=False).tobytes())
    if found != crc32:
        raise CommandRefused(
            "fe.crc", f"the table staged in FE:Spots-SP has CRC {found:#010x}, the command says {crc32:#010x}",
            "load_layer", "write the table again",
        )  # fmt: skip
    table = staged.reshape(n, columns).astype(np.float64)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = (int(k) for k in bad[0])
        raise CommandRefused(
            "fe.value", f"{table[row, column]} in {SPOT_COLUMNS[column]}", f"spot {row}", "give a number"
        )
    return table
