"""Transport, room, scanning magnets, range shifter, gate, and the plant as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from channels.protocol import Severity
from channels.pv_groups import declared
from facility import signals as g
from facility.config import Facility
from facility.events import canonical_json
from facility.pv_catalogue import LATENESS_STATUS
from facility.states import SearchStage
from facility.timebase import NS_PER_S, Clock
from ioc_sim.breathing import Breathing
from ioc_sim.iocs.command_desk import CommandDesk, put_command
from ioc_sim.iocs.outlet import LEAST_NS, SLOW_NS, Outlet, OutletGroup, Packed
from ioc_sim.iocs.view import INVALID, MAJOR, OK, View
from ioc_sim.plant_types import ExternalState

NOISE_SIGMAS = 10.0
"""Deadband of a noisy readback in sigma of its noise: two samples differ by more less than once in 1e11."""
HEARTBEAT_MAX = 2**31


class LineGroup(OutletGroup):
    """Beam transport: table, room and stopper."""

    token = declared("HEBT:Token-RB")
    set_number = declared("HEBT:Set-RB")
    room = declared("HEBT:Room-RB")
    stopper = declared("HEBT:Stopper-Sts")

    def __init__(self, prefix: str, clock: Clock, facility: Facility) -> None:
        super().__init__(prefix, clock)
        self._rooms = tuple(facility.rooms)
        self._token, self._set, self._room, self._stopper = (
            Outlet(channel) for channel in (self.token, self.set_number, self.room, self.stopper)
        )

    def show(self, view: View) -> None:
        """Publish what has changed."""
        t_ns, event = view.t_ns, view.event
        token, severity = view.whole(g.HEBT_TOKEN)
        self._token.offer(token, t_ns, severity=severity, now=event)
        taken, severity = view.whole(g.HEBT_SET)
        self._set.offer(taken, t_ns, severity=severity, now=event)
        index, severity = view.whole(g.ROOM_TOKEN)
        room = self._rooms[index] if 0 <= index < len(self._rooms) else ""
        self._room.offer(room, t_ns, severity=severity, now=event)
        self._stopper.offer(int(view.on(g.STOPPER_IN)), t_ns, severity=OK, now=event)


class RoomGroup(OutletGroup):
    """Door, search and emergency stop of the treatment room; commands of whoever stands at its panels."""

    door = declared("ROOM:Door-Sts")
    estop = declared("ROOM:EStop-Sts")
    search = declared("ROOM:Search-Sts")
    personnel = declared("ROOM:Personnel-Sts")
    source = declared("ROOM:Source-Sts")
    command = declared("ROOM:Cmd", put_command)
    result = declared("ROOM:Cmd-Result")

    def __init__(self, prefix: str, clock: Clock, desk: CommandDesk) -> None:
        super().__init__(prefix, clock)
        self.desk = desk
        self._door, self._estop, self._search, self._personnel, self._source = (
            Outlet(channel) for channel in (self.door, self.estop, self.search, self.personnel, self.source)
        )

    def show(self, view: View) -> None:
        """Publish what has changed."""
        t_ns, event = view.t_ns, view.event
        closed, severity = _both(view, g.DOOR_A, g.DOOR_B, OK)
        self._door.offer(int(closed), t_ns, severity=severity, now=event)
        good, severity = _both(view, g.ESTOP_A, g.ESTOP_B, MAJOR)
        self._estop.offer(int(good), t_ns, severity=severity, now=event)
        done, severity = _both(view, g.SEARCH_A, g.SEARCH_B, OK)
        stage, _ = view.whole(g.SEARCH_STAGE)
        if not done and stage == SearchStage.DONE:
            stage = SearchStage.NOT_DONE
        self._search.offer(stage, t_ns, severity=severity, now=event)
        self._personnel.offer(int(view.on(g.PERSONNEL)), t_ns, severity=OK, now=event)
        self._source.offer(int(view.on(g.SOURCE_INHIBITED)), t_ns, severity=OK, now=event)


def _both(view: View, a: int, b: int, off: Severity) -> tuple[bool, Severity]:
    """Two contacts as one: on only if both are; MAJOR if they contradict each other, else `off` when both are off."""
    on_a, on_b = view.on(a), view.on(b)
    if on_a != on_b:
        return False, MAJOR
    return on_a, OK if on_a else off


class ScanGroup(OutletGroup):
    """One scanning supply: base of both."""

    def bind(self, index: int, letter: str, facility: Facility) -> None:
        """Make the outlets; `index` of the supply in the rack, `letter` of its PVs."""
        axis = facility.scanning.x if index == 0 else facility.scanning.y
        noise_tm = axis.probe_noise_a_rms * axis.tesla_metre_per_a
        self._index = index
        prefix = f"SCAN:{letter}"
        self._set = Outlet(self.channel(f"{prefix}:Current-SP"), least_ns=SLOW_NS, deadband=1e-3)
        self._current = Outlet(
            self.channel(f"{prefix}:Current-RB"), least_ns=SLOW_NS, deadband=NOISE_SIGMAS * axis.readback_noise_a_rms
        )
        self._field = Outlet(self.channel(f"{prefix}:Field-RB"), least_ns=2 * SLOW_NS, deadband=NOISE_SIGMAS * noise_tm)
        self._power = Outlet(self.channel(f"{prefix}:Power-Sts"))

    def show(self, view: View) -> None:
        """Publish what has changed."""
        t_ns, k = view.t_ns, self._index
        fault = not view.on(g.SCAN_OK)
        self._power.offer(int(fault), t_ns, severity=MAJOR if fault else OK, now=view.event)
        if view.slow:
            self._set.offer(view.read("SET_A", k), t_ns)
            self._current.offer(view.read("READ_A", k), t_ns)
            self._field.offer(view.read("PROBE_TM", k), t_ns)


class ScanXGroup(ScanGroup):
    """Supply X: the magnet upstream."""

    set_point = declared("SCAN:X:Current-SP")
    current = declared("SCAN:X:Current-RB")
    field = declared("SCAN:X:Field-RB")
    power = declared("SCAN:X:Power-Sts")


class ScanYGroup(ScanGroup):
    """Supply Y: the magnet downstream."""

    set_point = declared("SCAN:Y:Current-SP")
    current = declared("SCAN:Y:Current-RB")
    field = declared("SCAN:Y:Field-RB")
    power = declared("SCAN:Y:Power-Sts")


class RangeShifterGroup(OutletGroup):
    """Range shifters in the beam; command insert."""

    code = declared("RS:Code-RB")
    moving = declared("RS:Moving-Sts")
    command = declared("RS:Cmd", put_command)
    result = declared("RS:Cmd-Result")

    def __init__(self, prefix: str, clock: Clock, desk: CommandDesk, asked: Callable[[], int]) -> None:
        super().__init__(prefix, clock)
        self.desk = desk
        self._asked = asked
        self._code = Outlet(self.code)
        self._moving = Outlet(self.moving)

    def show(self, view: View) -> None:
        """Publish what has changed; the drive moves until the switches show what was commanded."""
        code, severity = view.whole(g.RANGE_SHIFTER)
        moving = view.signals[g.RANGE_SHIFTER] != self._asked()
        self._code.offer(code, view.t_ns, severity=severity, now=view.event)
        self._moving.offer(int(moving), view.t_ns, severity=OK, now=view.event)


class GateGroup(OutletGroup):
    """Motion gate and breathing surrogate."""

    amplitude = declared("GATE:Amplitude-RB")
    state = declared("GATE:Open-Sts")

    def __init__(self, prefix: str, clock: Clock, breathing: Breathing | None) -> None:
        super().__init__(prefix, clock)
        self._breathing = breathing
        self._amplitude = Outlet(self.amplitude, least_ns=2 * LEAST_NS, deadband=0.1)
        self._state = Outlet(self.state)

    def show(self, view: View) -> None:
        """Publish what has changed; without gating the surrogate is not recorded."""
        self._state.offer(int(view.on(g.GATE_OPEN)), view.t_ns, severity=OK, now=view.event)
        if self._breathing is not None:
            self._amplitude.offer(self._breathing.amplitude_mm(view.t_ns), view.t_ns)
        elif not self._amplitude.writes:
            self._amplitude.offer(0.0, view.t_ns, severity=INVALID)


class PlantGroup(OutletGroup):
    """Time, heartbeat and pacing: the only PVs that move while the plant rests."""

    time = declared("PLANT:Time-RB")
    heartbeat = declared("PLANT:Heartbeat-RB")
    pacing = declared("PLANT:Pacing-RB")
    lateness = declared("PLANT:Lateness-RB")
    external = declared("PLANT:External-RB")
    link = declared("PLANT:Link-RB")

    def __init__(self, prefix: str, clock: Clock, heartbeat_ns: int) -> None:
        super().__init__(prefix, clock)
        self._heartbeat_ns = heartbeat_ns
        self._time = Outlet(self.time, least_ns=0)
        self._heartbeat = Outlet(self.heartbeat, least_ns=0)
        self._pacing = Packed(self.pacing, least_ns=NS_PER_S)
        self._pace: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        self._link = Packed(self.link, least_ns=LEAST_NS)
        self._linked: tuple[float, ...] = ()
        self._lateness = Packed(self.lateness, least_ns=NS_PER_S)
        self._late: tuple[float, ...] = (0.0,) * (len(LATENESS_STATUS) - 1)
        self._external = Outlet(self.external, least_ns=NS_PER_S)
        self._devices = b"[]"
        self._devices_now = False

    def set_pacing(self, late_slices: int, worst_late_ms: float, slip_ms: float, speed: float) -> None:
        """What the pacing of the plant says; shown with the next update, at most once a second."""
        self._pace = (float(late_slices), worst_late_ms, slip_ms, speed)

    def set_lateness(self, late_ticks: float, slices: Sequence[int]) -> None:
        """What PLANT:Lateness-RB says: slices by how late they were; shown with the next update."""
        self._late = (late_ticks, *(float(count) for count in slices))

    def set_external(self, states: Sequence[ExternalState], now: bool) -> None:
        """What PLANT:External-RB says; shown with the next update, `now` even if it was shown a moment ago."""
        self._devices = canonical_json([
            {"device": state.device, "ok": state.good and state.in_time, "good": state.good, "in_time": state.in_time,
             "age_ms": round(min(state.age_ms, 1e9), 1), "value": state.value}
            for state in states
        ])  # fmt: skip
        self._devices_now = self._devices_now or now

    def set_link(self, values: tuple[float, ...]) -> None:
        """What PLANT:Link-RB says without its seq; shown with the next update."""
        self._linked = values

    def show(self, view: View) -> None:
        """Publish what is due.  The heartbeat counts facility time: it stands still when the plant does."""
        t_ns = view.t_ns
        self._heartbeat.offer(t_ns // self._heartbeat_ns % HEARTBEAT_MAX, t_ns, severity=OK)
        self._time.offer(t_ns / NS_PER_S, t_ns, key=view.slot(1))
        self._pacing.offer(self._pace, t_ns, key=self._pace, severity=OK)
        self._lateness.offer(self._late, t_ns, key=self._late, severity=OK)
        self._external.offer(self._devices, t_ns, severity=OK, now=self._devices_now)
        self._devices_now = False
        if self._linked:
            self._link.offer(self._linked, t_ns, key=self._linked, severity=OK)
