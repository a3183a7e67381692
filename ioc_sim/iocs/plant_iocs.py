"""All soft IOCs around one plant.

```python
iocs = PlantIocs(plant, "WW", clock, keyring)
server.serve(iocs.pvdb)                    # or a MemoryProvider over iocs.pvdb
...
plant.advance(until_ns)
iocs.on_events(plant.take_events())        # states at once
iocs.update(plant.t_ns)                    # everything else, at most each 100 ms
```

Synchronous; no tasks, no clock of its own. Commands act on the plant from within a client's put.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any

from channels.keys import KeyRing
from facility.errors import CommandRefused
from facility.states import FrontEndState
from facility.timebase import NS_PER_MS, Clock
from ioc_sim.breathing import Breathing
from ioc_sim.iocs.command_desk import ROLES, CommandDesk, Verb
from ioc_sim.iocs.dose import Chamber1Group, Chamber2Group, StripGroup
from ioc_sim.iocs.front_end import FrontEndCommands, FrontEndGroup
from ioc_sim.iocs.line import (
    GateGroup,
    LineGroup,
    PlantGroup,
    RangeShifterGroup,
    RoomGroup,
    ScanXGroup,
    ScanYGroup,
)
from ioc_sim.iocs.outlet import LEAST_NS, SLOW_NS, Outlet
from ioc_sim.iocs.port import EventPort, PlantPort
from ioc_sim.iocs.ring import RingGroup, SpillGroup
from ioc_sim.iocs.view import View
from ioc_sim.plant_types import ExternalState

HEARTBEAT_NS = 250 * NS_PER_MS
STATUS_NS = 250 * NS_PER_MS
"""How often the states of ring and front end are looked at beside events: they are dear to read."""
_SHOWN = frozenset({"PHASE", "SPILL_END", "BEAM_ON", "HELD", "PAUSED", "ABORTED", "LAYER_DONE", "STATE", "TRIP",
                    "ROOM"})  # fmt: skip
"""Kinds of events that are shown at once; the others concern the safety link."""
_PHASE = {"PHASE"}
ROOM_ROLES = ("room",)
"""Who may use the panels in the room: whoever stands there, nobody from afar."""
_BEAM_GONE = frozenset({"HELD", "PAUSED", "ABORTED", "LAYER_DONE"})
_ENDED = frozenset({"LAYER_DONE", "ABORTED"})
_STOPPED = (FrontEndState.PAUSED, FrontEndState.ABORTED)


class PlantIocs:
    """PVs of the plant.

    Args:
        plant: what is behind them.
        prefix: of the facility's PVs.
        clock: facility time; stamps results and what clients write.
        keyring: who may sign commands, in which roles.
        breathing: trace of the gate; None where gating is off: GATE:Amplitude-RB is INVALID then.
        nonces: by group (RING, FE, RS, ROOM), last nonce by issuer; stored mappings keep replays out across restarts.
        max_age_ns: oldest a command may be; None where issuers do not share the clock.
        nonce_floor: see `CommandVerifier`.
        command_clock: see `CommandDesk`.
        heartbeat_ns: period of PLANT:Heartbeat-RB in facility time; the rig stretches it with the speed.
    """

    def __init__(
        self,
        plant: PlantPort,
        prefix: str,
        clock: Clock,
        keyring: KeyRing,
        *,
        breathing: Breathing | None = None,
        nonces: Mapping[str, MutableMapping[str, int]] | None = None,
        max_age_ns: int | None = None,
        nonce_floor: int = -1,
        heartbeat_ns: int = HEARTBEAT_NS,
        command_clock: Clock | None = None,
    ) -> None:
        self._plant = plant
        facility, table = plant.facility, plant.table
        species = facility.species[table.species]
        stored = nonces or {}

        def desk(group: str, verbs: Mapping[str, Verb], roles: Collection[str] = ROLES) -> CommandDesk:
            return CommandDesk(
                verbs, keyring, clock, nonces=stored.get(group), max_age_ns=max_age_ns, nonce_floor=nonce_floor,
                command_clock=command_clock,
                roles=roles,
            )  # fmt: skip

        self._commands = FrontEndCommands(plant)
        self._ring = RingGroup(prefix, clock, table, species.fill_ions, desk("RING", _ring_verbs(plant)))
        self._spill = SpillGroup(prefix, clock, min(species.intensity_levels_ions_per_s))
        self._line = LineGroup(prefix, clock, facility)
        self._room = RoomGroup(prefix, clock, desk("ROOM", _room_verbs(plant), ROOM_ROLES))
        self._scan = (ScanXGroup(prefix, clock), ScanYGroup(prefix, clock))
        for index, letter in enumerate("XY"):
            self._scan[index].bind(index, letter, facility)
        self._chambers = (Chamber1Group(prefix, clock), Chamber2Group(prefix, clock))
        for index, chamber in enumerate((facility.chambers.ic1, facility.chambers.ic2)):
            self._chambers[index].bind(index, chamber)
        self._strip = StripGroup(prefix, clock)
        self._front_end = FrontEndGroup(prefix, clock, desk("FE", self._commands.verbs()))
        self._commands.serve(self._front_end)
        self._range_shifter = RangeShifterGroup(
            prefix, clock, desk("RS", _range_shifter_verbs(plant)), lambda: plant.range_shifter_asked
        )
        self._gate = GateGroup(prefix, clock, breathing)
        self._whole = PlantGroup(prefix, clock, heartbeat_ns)
        self._minded = (self._line, self._room, self._range_shifter, self._whole)
        """Groups with something that somebody waits for."""
        groups: tuple[Any, ...] = (
            self._ring, self._spill, self._line, self._room, *self._scan, *self._chambers, self._strip, self._front_end,
            self._range_shifter, self._gate, self._whole,
        )  # fmt: skip
        for group in (self._ring, self._front_end, self._range_shifter, self._room):
            group.desk.reply_on(group.result)
        self.pvdb: dict[str, Any] = {name: channel for group in groups for name, channel in group.pvdb.items()}
        """Channels by full name: what a server or a MemoryProvider serves."""
        self._outlets: tuple[Outlet, ...] = tuple(outlet for group in groups for outlet in group.outlets)
        self._updated_ns = self._slow_ns = self._status_ns = 0
        self._status = plant.status
        self.refresh()

    @property
    def writes(self) -> int:
        """PV updates published so far, command results not counted."""
        return sum(outlet.writes for outlet in self._outlets)

    def on_events(self, events: Sequence[EventPort]) -> None:
        """Show at once what happened; call it after each `plant.advance`, with what `plant.take_events` gave."""
        kinds = {event.kind for event in events} & _SHOWN
        if not kinds:
            return
        self._status = self._plant.status
        view = self._view(event=True, gone=bool(kinds & _BEAM_GONE), slow=False)
        if kinds == _PHASE:
            self._ring.show(view, self._fe_code(view))  # nothing has happened to the others
            return
        if kinds & _ENDED:  # before the state: whoever sees that the layer has ended finds its register
            self._front_end.show_register(self._plant.register(), view.t_ns)
        self._show_states(view)
        if "ROOM" in kinds:
            self._line.show(view)
            self._room.show(view)
        if view.exact:
            for chamber in self._chambers:
                chamber.show(view)

    def update(self, t_ns: int) -> None:
        """Show what has changed; does nothing within 100 ms of the last time."""
        if t_ns - self._updated_ns < LEAST_NS:
            return
        self._updated_ns = t_ns
        slow = t_ns - self._slow_ns >= SLOW_NS
        if slow:
            self._slow_ns = t_ns
        if slow or t_ns - self._status_ns >= STATUS_NS:
            self._status_ns = t_ns
            self._status = self._plant.status
            view = self._view(event=False, gone=False, slow=slow)
            self._show_states(view)
        else:
            view = self._view(event=False, gone=False, slow=False)
        self._show_lines(view)

    def beat(self, t_ns: int) -> None:
        """Show the sign of life and what control waits for, and no value that only a person would look at."""
        self._updated_ns = self._status_ns = t_ns
        self._status = self._plant.status
        view = self._view(event=False, gone=False, slow=False)
        self._front_end.show(view)
        for group in self._minded:
            group.show(view)

    def refresh(self) -> None:
        """Publish everything: at the start, and after the plant was set to another state."""
        for outlet in self._outlets:
            outlet.forget()
        self._updated_ns = self._slow_ns = self._status_ns = self._plant.t_ns
        self._status = self._plant.status
        view = self._view(event=True, gone=True, slow=True)
        self._show_states(view)
        self._show_lines(view)

    def set_pacing(self, late_slices: int, worst_late_ms: float, slip_ms: float, speed: float) -> None:
        """What PLANT:Pacing-RB says."""
        self._whole.set_pacing(late_slices, worst_late_ms, slip_ms, speed)

    def set_lateness(self, late_ticks: float, slices: Sequence[int]) -> None:
        """What PLANT:Lateness-RB says."""
        self._whole.set_lateness(late_ticks, slices)

    def set_external(self, states: Sequence[ExternalState], now: bool) -> None:
        """What PLANT:External-RB says."""
        self._whole.set_external(states, now)

    def set_link(self, values: tuple[float, ...]) -> None:
        """What PLANT:Link-RB says: LINK_STATUS without seq."""
        self._whole.set_link(values)

    def _show_states(self, view: View) -> None:
        """What is read from the status of ring and front end."""
        self._ring.show(view, self._fe_code(view))
        self._front_end.show(view)
        self._spill.show(view)

    def _show_lines(self, view: View) -> None:
        """What is read from signals."""
        for group in (*self._minded, *self._scan, *self._chambers, self._strip, self._gate):
            group.show(view)

    def _view(self, *, event: bool, gone: bool, slow: bool) -> View:
        plant = self._plant
        exact = gone or (event and self._status.state in _STOPPED)
        return View(
            plant.t_ns, self._status, plant.signals.tolist(), plant.read, plant.backup_layer_ions, event, exact, slow
        )

    def _fe_code(self, view: View) -> int:
        token, code = self._commands.loaded
        return code if token == view.status.token else -1


def _ring_verbs(plant: PlantPort) -> dict[str, Verb]:
    return {
        "request_cycle": Verb(
            lambda args: plant.request_cycle(args["token"], args["energy_code"], args["transport_set"]),
            {"token": "whole", "energy_code": "whole", "transport_set": "whole"},
        ),
        "end_cycle": Verb(lambda _args: plant.end_cycle(), {}),
    }


def _room_verbs(plant: PlantPort) -> dict[str, Verb]:
    def button(args: Mapping[str, Any]) -> None:
        plant.press_search("exit" if args["exit"] else "far")

    def door(args: Mapping[str, Any]) -> None:
        closed = args["closed"] != 0
        plant.set_door(closed, closed)

    def key(args: Mapping[str, Any]) -> None:
        if args["position"] not in (1, 2, 3):
            raise CommandRefused(
                "key.position", f"position {args['position']}", "turn_key", "1 clinical, 2 QA, 3 service"
            )
        if FrontEndState.ARMED <= plant.status.state <= FrontEndState.PAUSED:
            raise CommandRefused("key.active", "a layer is active", "turn_key", "the mode changes between fields")
        plant.turn_key(args["position"])

    return {
        "press_search": Verb(button, {"exit": "whole"}),
        "move_door": Verb(door, {"closed": "whole"}),
        "turn_key": Verb(key, {"position": "whole"}),
        "press_estop": Verb(lambda _args: plant.press_estop(), {}),
        "release_estop": Verb(lambda _args: plant.release_estop(), {}),
    }


def _range_shifter_verbs(plant: PlantPort) -> dict[str, Verb]:
    return {
        "insert": Verb(
            lambda args: plant.insert_range_shifters(args["code"]),
            {"code": "whole"},
        )
    }
