"""Makes things fail in a facility in virtual time, and mends them."""

from __future__ import annotations

from channels.command import Signer
from channels.wire_faults import LinkFault
from facility.errors import InternalError
from facility.timebase import NS_PER_MS, Rank
from ioc_sim.faults import FOREVER_NS, Fault, FaultKind
from rig.keys import CONTROL
from rig.link_trial import Attack, LinkTrial, Way, becomes_sound, befall
from rig.scenario.faults import FaultType, fault_type, plant_faults
from rig.scenario.model import Act
from rig.trials.causes import Act as Cause
from rig.trials.control_acts import ControlActs
from rig.trials.deed import RELAYS
from rig.virtual_world import World, WorldParts

_WAYS = {"to-rack": Way.PERMITS, "from-rack": Way.IMAGES}
_ATTACKS = {
    "process/safety/crash": Attack.KILL, "process/safety/hang": Attack.STOP, "process/safety/restart": Attack.RESTART,
    "link/partition": Attack.CUT,
}  # fmt: skip
_CAUSES = {
    "process/safety/memory": Cause.COPY_FLIPPED, "process/control/silent": Cause.CONTROL_SILENT,
    "process/control/memory": Cause.PLAN_ALTERED, "process/control/readback": Cause.READBACK_WRONG,
    "process/control/authority": Cause.AUTHORITY_LOST,
}  # fmt: skip
_RELAYS = {f"link/relays/{name}": RELAYS[Cause[f"RELAY_{name.upper()}"]] for name in ("pause", "abort", "hold")}


class VirtualHands:
    """See `rig.scenario.deeds.Hands`."""

    scale = 1.0

    def __init__(self, world: World, parts: WorldParts) -> None:
        self._world = world
        self._parts = parts
        self._control = ControlActs(world, parts)
        self._standing: list[FaultType] = []

    def signer_of_control(self) -> Signer | None:
        """In virtual time every key follows from the seed."""
        return self._world._signer(CONTROL.name, "operator")

    async def begin(self, act: Act) -> None:
        """Now."""
        entry = fault_type(str(act.fault))
        now_ns = self._world.loop.now_ns()
        until_ns = FOREVER_NS if act.for_ms is None else now_ns + round(act.for_ms * NS_PER_MS)
        if entry.parts:
            gate = self._gate_is_held_open(entry)
            for fault in plant_faults(entry, act.value, now_ns, FOREVER_NS if gate else until_ns):
                self._world.plant.inject(fault)
            if gate and until_ns != FOREVER_NS:
                self._world.loop.call_at_rank(until_ns, Rank.PLANT, self._mend, "gate.open")
        else:
            await self._begin(entry, act)
            if until_ns != FOREVER_NS:
                self._world.loop.call_at_rank(until_ns, Rank.PLANT, self._end, entry)
        self._standing.append(entry)

    async def mend(self) -> None:
        """In the order in which things broke."""
        for entry in self._standing:
            self._end(entry)
        self._standing.clear()

    async def _begin(self, entry: FaultType, act: Act) -> None:
        world, name = self._world, entry.name
        if name in _RELAYS:
            world.safety.stick_relays(_RELAYS[name])
        elif name in _CAUSES:
            self._control.begin(_CAUSES[name])
        elif (attack := _attack(name)) is not None:
            befall(world, attack)
        elif name == "process/plant/slow":
            world.plant.set_late_ms(entry.typical if act.value is None else act.value)
        elif name == "operator/console-silent":
            await self._parts.operator.fall_silent()
        else:
            raise InternalError("scenario.fault", f"nobody knows how to do {name}", "rig.scenario.virtual_hands")

    def _end(self, entry: FaultType) -> None:
        """Twice is as good as once."""
        world, name = self._world, entry.name
        for point, _, _ in entry.parts:
            self._mend(point)
        if name in _RELAYS:
            world.safety.stick_relays(None)
        elif name in _CAUSES:
            self._control.end(_CAUSES[name])
        elif (attack := _attack(name)) is not None:
            becomes_sound(world, attack)
            self._standing = [other for other in self._standing if other is not entry]
        elif name == "process/plant/slow":
            world.plant.set_late_ms(0.0)
        elif name == "operator/console-silent":
            self._parts.operator.speak_again()

    def _gate_is_held_open(self, entry: FaultType) -> bool:
        """A gate in use is held open by a fault of its own, to which it has to come back."""
        return any(point == "gate.open" for point, _, _ in entry.parts) and bool(self._world.plant._state[0].gating)

    def _mend(self, point: str) -> None:
        """A device as it was; a gate in use stays open."""
        gate = point == "gate.open" and bool(self._world.plant._state[0].gating)
        self._world.plant.inject(Fault(point, FaultKind.SET if gate else FaultKind.NONE, 1.0 if gate else 0.0))


def _attack(name: str) -> LinkTrial | None:
    if name in _ATTACKS:
        return LinkTrial(_ATTACKS[name], Way.IMAGES, 0)
    family, _, rest = name.partition("/")
    way, _, fault = rest.partition("/")
    if family != "link" or way not in _WAYS:
        return None
    return LinkTrial(LinkFault(fault), _WAYS[way], 0)
