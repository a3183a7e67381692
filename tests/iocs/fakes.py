"""A plant of plain numbers, and somebody who may command it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from channels.command import Command, CommandResult, Signer
from channels.keys import KeyRing, derived_private_key
from channels.publish import native_value
from facility import signals as g
from facility.config import Facility, load_facility
from facility.energy_table import EnergyTable, load_energy_table
from facility.errors import CommandRefused
from facility.pv_catalogue import REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import FrontEndState, HoldReason, RingPhase
from facility.timebase import NS_PER_MS, ManualClock
from ioc_sim.iocs.plant_iocs import PlantIocs

PREFIX = "WW"


@cache
def wuwei() -> tuple[Facility, EnergyTable]:
    facility = load_facility("wuwei", env={})
    return facility, load_energy_table(facility, "carbon")


@dataclass(frozen=True)
class FakeStatus:
    phase: RingPhase = RingPhase.STANDBY
    ring_token: int = 0
    energy_code: int = -1
    cycle: int = 0
    stored_ions: float = 0.0
    flat_top_ms: float = 0.0
    state: FrontEndState = FrontEndState.IDLE
    hold_reason: HoldReason = HoldReason.NONE
    token: int = 0
    spot: int = -1
    spots: int = 0
    done_spots: int = 0
    ic1_ions: float = 0.0
    ic2_ions: float = 0.0
    demand: bool = False
    permit: bool = True
    permit_epoch: int = 1
    beam_us: float = 0.0
    level: float = 0.0
    rate: float = 0.0
    first_rule: int = -1


@dataclass(frozen=True)
class FakeEvent:
    t_ns: int
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


class FakePlant:
    """Says what it is told to say; writes down what it is told to do."""

    def __init__(self) -> None:
        self.facility, self.table = wuwei()
        self.clock = ManualClock()
        self.signals = np.zeros(g.N_SIGNALS)
        for signal in (g.IC1_OK, g.IC2_OK, g.STRIP_OK, g.SCAN_OK, g.IC1_HV_REL, g.IC2_HV_REL, g.DOOR_A, g.DOOR_B,
                       g.EXTERNAL_OK, g.ESTOP_A, g.ESTOP_B, g.GATE_OPEN, g.STOPPER_IN, g.RING_BRHO_REL):  # fmt: skip
            self.signals[signal] = 1.0
        self.signals[g.ROOM_TOKEN] = -1.0
        self.status = FakeStatus()
        self.raw: dict[tuple[str, int], float] = {}
        self.rows = np.zeros((0, len(REGISTER_COLUMNS)))
        self.done: list[tuple[Any, ...]] = []
        self.table_loaded = np.zeros(0)
        self.refuse: CommandRefused | None = None

    @property
    def t_ns(self) -> int:
        return self.clock.now_ns()

    def set(self, **values: Any) -> None:
        self.status = replace(self.status, **values)

    def read(self, name: str, index: int = 0) -> float:
        return self.raw.get((name, index), 0.0)

    @property
    def range_shifter_asked(self) -> int:
        return int(self.raw.get(("range_shifter_asked", 0), 0.0))

    def backup_layer_ions(self) -> float:
        return 2e6

    def register(self) -> np.ndarray:
        return self.rows.copy()

    def _do(self, *what: Any) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.done.append(what)

    def request_cycle(self, token: int, energy_code: int, transport_set: int) -> None:
        self._do("request_cycle", token, energy_code, transport_set)

    def end_cycle(self) -> None:
        self._do("end_cycle")

    def dose_records(self) -> tuple[Any, ...]:
        return ()

    def open_field(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str = "") -> None:
        self._do("open_field", field, preset_ions, expected_ms, plan_hash)

    def load_layer(
        self, token: int, energy_code: int, level_ions_per_s: float, spots: np.ndarray, range_shifter_code: int,
        transport_set: int,
    ) -> None:  # fmt: skip
        self._do("load_layer", token, energy_code, level_ions_per_s, len(spots), range_shifter_code, transport_set)
        self.table_loaded = spots
        self.set(token=token, spots=len(spots), state=FrontEndState.LOADED, level=level_ions_per_s)

    def arm(self, token: int, permit_epoch: int) -> None:
        self._do("arm", token, permit_epoch)

    def disarm(self) -> None:
        self._do("disarm")

    def pause(self) -> None:
        self._do("pause")

    def resume(self, permit_epoch: int) -> None:
        self._do("resume", permit_epoch)

    def press_search(self, button: str) -> None:
        self._do("press_search", button)

    def set_door(self, a_closed: bool, b_closed: bool) -> None:
        self._do("set_door", a_closed, b_closed)

    def press_estop(self) -> None:
        self._do("press_estop")

    def release_estop(self) -> None:
        self._do("release_estop")

    def turn_key(self, position: int) -> None:
        self._do("turn_key", position)

    def insert_range_shifters(self, code: int) -> None:
        self._do("insert", code)


class Bench:
    """A fake plant, its IOCs, and signers."""

    def __init__(self, plant: FakePlant | None = None, **options: Any) -> None:
        self.plant = plant or FakePlant()
        ring = KeyRing()
        self.signers: dict[str, Signer] = {}
        for issuer, role in (("tcs", "control"), ("ann", "operator")):
            key = derived_private_key(1, issuer)
            ring.add(issuer, key.public_key(), [role])
            self.signers[issuer] = Signer(issuer, role, key)
        self.clock = self.plant.clock
        self.iocs = PlantIocs(self.plant, PREFIX, self.clock, ring, **options)

    def pv(self, name: str) -> Any:
        return self.iocs.pvdb[f"{PREFIX}:{name}"]

    def value(self, name: str) -> Any:
        return native_value(self.pv(name))

    def severity(self, name: str) -> int:
        return int(self.pv(name).alarm.severity)

    def run(self, ms: int) -> int:
        """Let time pass with an update each 10 ms; number of PV writes."""
        before = self.iocs.writes
        for _ in range(ms // 10):
            self.clock.advance_ns(10 * NS_PER_MS)
            self.iocs.update(self.plant.t_ns)
        return self.iocs.writes - before

    def event(self, *kinds: str) -> int:
        """Something happens now; number of PV writes."""
        before = self.iocs.writes
        self.iocs.on_events([FakeEvent(self.plant.t_ns, kind) for kind in kinds])
        return self.iocs.writes - before

    def frame(self, verb: str, args: Mapping[str, Any] | None = None, issuer: str = "tcs") -> bytes:
        signer = self.signers[issuer]
        return signer.sign(signer.command(verb, args or {}, self.clock))

    async def put(self, name: str, value: Any) -> None:
        """A client's put, as a server hands it on."""
        data = np.frombuffer(value, dtype=np.uint8) if isinstance(value, bytes) else value
        await self.pv(name).auth_write("host", "user", data, self.pv(name).data_type, None)

    async def command(
        self, group: str, verb: str, args: Mapping[str, Any] | None = None, issuer: str = "tcs"
    ) -> CommandResult:
        await self.put(f"{group}:Cmd", self.frame(verb, args, issuer))
        return self.result(group)

    def result(self, group: str) -> CommandResult:
        return CommandResult.decode(self.value(f"{group}:Cmd-Result"))


def spot_table(n: int = 3) -> np.ndarray:
    table = np.zeros((n, len(SPOT_COLUMNS)))
    table[:, SPOT_COLUMNS.index("target_ions")] = 1e5 + np.arange(n)
    table[:, SPOT_COLUMNS.index("limit_us")] = 1e4
    table[:, 0] = np.linspace(-10.0, 10.0, n)
    return table


def load_args(table: np.ndarray, token: int = 7, code: int = 100) -> dict[str, Any]:
    crc = zlib.crc32(table.astype("<f8").tobytes())
    return {"token": token, "energy_code": code, "level_ions_per_s": 1e8, "n": len(table), "crc32": crc,
            "range_shifter_code": 0, "transport_set": set_number(code)}  # fmt: skip


def set_number(code: int) -> int:
    """Of the fake plant's room."""
    return wuwei()[1].room("1").set_number(code)


def resigned(command: Command, **changes: Any) -> dict[str, Any]:
    """A command as a dict with changes, for forging."""
    data: dict[str, Any] = json.loads(command.signed_part())
    return data | changes
