"""Makes things fail in a facility of real processes: devices over the plant's own stdin, wires in a relay, processes by
signals, rogue clients as processes of their own. Nothing of it goes over Channel Access."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from channels.command import Signer
from channels.wire_faults import LinkFault
from facility.config import Facility
from facility.errors import InternalError
from ioc_sim.faults import FOREVER_NS, GATING, Fault, FaultKind, fault_line
from rig.external.soft_devices import DEED_OF, SoftIoc
from rig.home import Home
from rig.keys import CONTROL, KeyStore
from rig.link_relay import LinkRelay
from rig.link_trial_ca import Deed, RealTrial, Victim, attack
from rig.operator_client import OperatorClient
from rig.rogue_trial import RogueTrial, deaf, let_loose, rogue
from rig.run_dir import RunFile
from rig.scenario.faults import Family, FaultType, fault_type, plant_faults
from rig.scenario.model import Act, Scenario
from rig.supervisor import Supervisor
from rig.wall_clock import RisingNonces

_DEEDS = {"crash": Deed.KILL, "hang": Deed.STOP}
_WAYS = {"to-rack": Victim.PERMITS, "from-rack": Victim.IMAGES}
MS = 1e-3


@dataclass
class CaHands:
    """See `rig.scenario.deeds.Hands`. Use as a context manager around the operator."""

    facility: Facility
    home: Home
    run: RunFile
    supervisor: Supervisor
    relay: LinkRelay
    scenario: Scenario
    gating: bool = False
    _undo: dict[str, Callable[[], None]] = field(default_factory=dict)
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    operator: OperatorClient | None = None
    devices: Mapping[str, SoftIoc] = field(default_factory=dict)
    """Soft IOCs that stand for hardware, by the name of the device."""
    _repairs: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What takes its time: not in the loop, or the console falls silent."""

    @property
    def scale(self) -> float:
        """Event-loop s for a facility s."""
        return 1.0 / self.run.speed

    def __enter__(self) -> CaHands:
        """Rogue clients are started, and wait to be let loose."""
        for act in (*self.scenario.before, *self.scenario.acts, *self.scenario.then):
            if act.fault is not None and act.fault.startswith("rogue/"):
                self._waiting.append(self._rogue(act))
        if self.gating:
            self.supervisor.break_plant(fault_line(Fault("gate.open", FaultKind.SET, 1.0)))
            self.supervisor.break_plant(fault_line(Fault(GATING, FaultKind.SET, 1.0)))
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        self._stack.close()

    def _rogue(self, act: Act) -> Callable[[], None]:
        trial = RogueTrial(seed=self.scenario.seed, deaf=round(act.value or 1.0), speed=self.run.speed)
        if act.fault in ("rogue/deaf", "rogue/thousands-of-channels"):
            if act.value is None:
                trial = RogueTrial(seed=self.scenario.seed, deaf=round(fault_type(act.fault).typical))
            self._stack.enter_context(deaf(self.facility, self.run, trial))
            return lambda: None
        signed = act.fault == "rogue/signed-writes"
        child = self._stack.enter_context(rogue(self.facility, self.run, self.home, trial, signed, {}))
        return lambda: let_loose([child])

    def signer_of_control(self) -> Signer:
        """Control's key out of this home: what somebody could do who has stolen it."""
        return Signer(CONTROL.name, "operator", KeyStore(self.home).private(CONTROL.name), RisingNonces())

    async def begin(self, act: Act) -> None:
        """Now."""
        entry = fault_type(str(act.fault))
        lasts_ns = FOREVER_NS if act.for_ms is None else round(act.for_ms * 1e6)
        if entry.parts:
            held_open = self.gating and any(point == "gate.open" for point, _, _ in entry.parts)
            for fault in plant_faults(entry, act.value, 0, FOREVER_NS if held_open else lasts_ns):
                self.supervisor.break_plant(fault_line(fault))
                self._undo[fault.device] = self._mender(fault.device)
            if held_open and act.for_ms is not None:
                self._later("gate.open", act.for_ms)
            return
        if entry.family is Family.EXTERNAL:
            await self._fail_device(entry.name)
            return
        self._undo[entry.name] = await self._begin(entry)
        if act.for_ms is not None:
            self._later(entry.name, act.for_ms)

    def _later(self, name: str, for_ms: float) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._end_later(name, for_ms)))

    async def _end_later(self, name: str, for_ms: float) -> None:
        await asyncio.sleep(for_ms * MS * self.scale)
        self._undo.pop(name, lambda: None)()

    async def mend(self) -> None:
        """In the order in which things broke."""
        for undo in self._undo.values():
            undo()
        self._undo.clear()
        for repair in self._repairs.values():
            await asyncio.to_thread(repair)
        self._repairs.clear()

    async def _fail_device(self, name: str) -> None:
        _, device, _ = name.split("/")
        ioc = self.devices.get(device)
        if ioc is None:
            raise InternalError("scenario.hardware", f"{device} is no soft IOC of this run: nobody can do {name} to it",
                                self.scenario.id, "run it at a facility without external devices")  # fmt: skip
        deed = DEED_OF[name.removeprefix("external/")]
        await asyncio.to_thread(deed.do, ioc)
        self._repairs[name] = functools.partial(deed.undo, ioc)

    def _mender(self, device: str) -> Callable[[], None]:
        gate = device == "gate.open" and self.gating
        sound = Fault(device, FaultKind.SET if gate else FaultKind.NONE, 1.0 if gate else 0.0)
        return lambda: self.supervisor.break_plant(fault_line(sound))

    async def _begin(self, entry: FaultType) -> Callable[[], None]:
        family, _, rest = entry.name.partition("/")
        if entry.family is Family.ROGUE:
            self._waiting.pop(0)()
            return lambda: None
        if entry.name == "operator/console-silent" and self.operator is not None:
            await self.operator.fall_silent()
            return self.operator.speak_again
        if entry.name == "link/partition":
            ends = [attack(self.run, self.relay, RealTrial(Deed.CUT, way, 0.0)) for way in _WAYS.values()]
            return lambda: _all(ends)
        victim, _, how = rest.partition("/")
        if family == "link" and victim in _WAYS:
            return attack(self.run, self.relay, RealTrial(LinkFault(how), _WAYS[victim], 0.0))
        if family == "process" and how in _DEEDS:
            return attack(self.run, self.relay, RealTrial(_DEEDS[how], Victim(victim), 0.0))
        raise InternalError("scenario.fault", f"nobody knows how to do {entry.name}", "rig.scenario.ca_hands")


def _all(ends: list[Callable[[], None]]) -> None:
    for end in ends:
        end()
