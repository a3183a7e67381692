"""The IOCs around the real plant: a layer by commands, what is shown on the way, and how many updates it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from channels.keys import KeyRing, derived_private_key
from channels.protocol import Severity
from channels.publish import native_value, run_sync
from facility import signals as g
from facility.pv_catalogue import FE_STATUS, REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import FrontEndState
from facility.timebase import NS_PER_S
from ioc_sim.breathing import Breathing
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.iocs.plant_iocs import PlantIocs
from ioc_sim.iocs.port import PlantPort
from ioc_sim.plant import Plant
from tests.iocs.fakes import PREFIX, load_args, set_number
from tests.plant.layers import grid, new_plant

CODE, TOKEN = 150, 77
SLICE_NS = 100_000_000


class PlantClock:
    """Facility time is where the plant is."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def now_ns(self) -> int:
        return self._plant.t_ns


class Floor:
    """Plant and IOCs, advanced as the rig does it."""

    def __init__(self, **options: Any) -> None:
        from channels.command import CommandResult, Signer

        self.plant = new_plant()
        port: PlantPort = self.plant
        key = derived_private_key(1, "tcs")
        ring = KeyRing()
        ring.add("tcs", key.public_key(), ["control"])
        self.clock = PlantClock(self.plant)
        self.iocs = PlantIocs(port, PREFIX, self.clock, ring, **options)
        self.signer = Signer("tcs", "control", key)
        self.decode = CommandResult.decode
        self.states: list[FrontEndState] = []

    def value(self, name: str) -> Any:
        return native_value(self.iocs.pvdb[f"{PREFIX}:{name}"])

    def command(self, group: str, verb: str, **args: Any) -> Any:
        frame = self.signer.sign(self.signer.command(verb, args, self.clock))
        self.put(f"{group}:Cmd", np.frombuffer(frame, dtype=np.uint8))
        result = self.decode(self.value(f"{group}:Cmd-Result"))
        assert result.status.value == "done", result
        return result

    def put(self, name: str, value: np.ndarray) -> None:
        pv = self.iocs.pvdb[f"{PREFIX}:{name}"]
        run_sync(pv.auth_write("", "", value, pv.data_type, None))

    def run(self, seconds: float, until: FrontEndState | None = None) -> None:
        end = self.plant.t_ns + round(seconds * NS_PER_S)
        now = self.plant.t_ns
        while now < end:
            now = self.plant.advance(min(now + SLICE_NS, end))
            self.iocs.on_events(self.plant.take_events())
            self.iocs.update(now)
            state = FrontEndState(self.value("FE:State-Sts"))
            if self.states[-1:] != [state]:
                self.states.append(state)
            if state is until:
                return
        assert until is None, f"{until.name} did not come; {self.plant.status}"

    def load(self) -> np.ndarray:
        table = grid().table(self.plant, CODE)
        self.put("FE:Spots-SP", table.ravel())
        self.command("FE", "load_layer", **load_args(table, TOKEN, CODE) | {"level_ions_per_s": 1e7})
        return table


def test_a_layer_by_commands() -> None:
    floor = Floor()
    floor.command("RING", "request_cycle", token=TOKEN, energy_code=CODE, transport_set=set_number(CODE))
    table = floor.load()
    floor.command("FE", "arm", token=TOKEN, permit_epoch=floor.plant.status.permit_epoch)
    written, started = floor.iocs.writes, floor.plant.t_ns
    floor.run(60.0, until=FrontEndState.DONE)
    wanted = [FrontEndState[name] for name in ("ARMED", "IRRADIATING", "DONE")]
    assert [state for state in floor.states if state in wanted] == wanted
    status = dict(zip(FE_STATUS, floor.value("FE:Status-RB"), strict=True))
    assert (status["token"], status["done_spots"], status["spots"]) == (TOKEN, len(table), len(table))
    assert status["backup_ions"] == pytest.approx(table[:, SPOT_COLUMNS.index("target_ions")].sum(), rel=5e-3)
    register = floor.value("FE:Register-RB").reshape(-1, len(REGISTER_COLUMNS))
    assert np.array_equal(register, floor.plant.register())
    assert floor.value("DOSE:IC1:Ions-RB") == floor.plant.signals[g.IC1_IONS]
    assert floor.value("DOSE:IC1:Counts-RB") == floor.plant.read("IC_READ", 0)
    assert floor.value("RING:Energy-RB") == floor.plant.table.energy_mev_u[CODE]
    assert floor.value("RING:Rigidity-RB") == floor.plant.table.rigidity_tm[CODE]
    seconds = (floor.plant.t_ns - started) / NS_PER_S
    assert floor.iocs.writes - written <= 35.0 * seconds + 40.0, "some 5,000 in 120 s of 33 layers"
    assert floor.command("FE", "read_register").data == {"token": TOKEN, "n": len(table)}


def test_a_resting_plant_is_silent() -> None:
    floor = Floor()
    floor.run(2.0)
    before = floor.iocs.writes
    floor.run(10.0)
    assert floor.iocs.writes - before == 50, "four heartbeats and one time a second"


def test_a_fault_in_a_device_is_an_alarm() -> None:
    floor = Floor()
    floor.plant.inject(Fault("ic1.hv", FaultKind.SET, 300.0))
    floor.plant.inject(Fault("ic2.ok", FaultKind.DEAD))
    floor.run(1.0)
    severities = {name: int(floor.iocs.pvdb[f"{PREFIX}:{name}"].alarm.severity)
                  for name in ("DOSE:IC1:HV-RB", "DOSE:IC2:HV-RB", "DOSE:IC2:Electronics-Sts")}  # fmt: skip
    assert severities == {
        "DOSE:IC1:HV-RB": Severity.MAJOR,
        "DOSE:IC2:HV-RB": Severity.NO_ALARM,
        "DOSE:IC2:Electronics-Sts": Severity.MAJOR,
    }


def test_gate_and_room_and_range_shifter() -> None:
    floor = Floor(breathing=Breathing.of(new_plant().facility))
    floor.plant.set_gating(True)
    floor.run(3.0)
    breathing = Breathing.of(floor.plant.facility)
    edge = breathing.next_edge(floor.plant.t_ns)
    assert edge is not None
    floor.run((edge.t_ns - floor.plant.t_ns) / NS_PER_S + 0.2)
    assert bool(floor.value("GATE:Open-Sts")) is edge.is_open
    assert floor.value("HEBT:Room-RB") == floor.plant.room_id
    assert floor.value("HEBT:Stopper-Sts") == 0
    if floor.plant.facility.range_shifters:
        floor.command("RS", "insert", code=1)
        floor.run(0.3)
        assert (floor.value("RS:Moving-Sts"), floor.value("RS:Code-RB")) == (1, -1)
        floor.run(0.5)
        assert (floor.value("RS:Moving-Sts"), floor.value("RS:Code-RB")) == (0, 1)
