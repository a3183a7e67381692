"""The plant's process: the machine in step with the wall clock, its soft IOCs, and the rack's end of the safety link.

Two threads: `Rack` advances the plant and exchanges safety frames, the main thread's loop serves Channel Access.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from channels.caproto_server import serve
from channels.datagram import DatagramEnd
from facility.errors import ChannelError, IonctlError
from facility.events import EventLog
from facility.ids import run_id
from facility.timebase import NS_PER_MS
from interlocks.link import RackEnd, RackLines
from interlocks.model import MODE_CODES, MODES
from interlocks.process_image import image_of
from interlocks.rules import load_rules
from ioc_sim.faults import GATING, fault_from_line
from ioc_sim.iocs.plant_iocs import HEARTBEAT_NS, PlantIocs
from ioc_sim.plant import Plant, PlantEvent
from ioc_sim.register_file import MappedStore
from ioc_sim.register_store import MemoryStore
from rig.clocks import NominalClock, command_age_ns
from rig.external.side import ExternalSide
from rig.facility_time import NOMINAL
from rig.keys import read_ring
from rig.link_gauge import LinkGauge
from rig.nonce_file import nonces_in
from rig.paced_post_mortem import PacedPostMortems
from rig.paced_rules import WALL_WATCHDOG_MS, paced_rules
from rig.pacing import Pacer
from rig.post_mortem import TRIPS, PostMortem, about_run
from rig.processes.common import Launch, run_process, say_ready, stop_signal, until_one_ends
from rig.register_sync import RegisterSync, RegisterSyncThread
from rig.run_dir import POST_MORTEM
from rig.safety_side import carry_out, first_fault, link_name, tell_trip
from rig.settling import settle, tidy
from rig.shared_plant import SharedPlant
from rig.truth_file import TruthNow, TruthTrace, write_spots
from rig.wall_clock import boot_identity, monotonic_ns

_log = structlog.get_logger(__name__)

LATE_SHOWN_NS = 100 * NS_PER_MS
"""A late slice is shown this long (wall time), so that a rule with a debounce sees it."""
REGISTER_FILE = "dose.register"
"""The dose register, in the run directory: it survives the process and `down`."""
COMMANDED = ("RING", "FE", "RS", "ROOM")
"""Groups that take commands."""
PUBLISH_S = 0.1
TRUTH_S = 0.25
WARM_UP_S = 1.0
"""Pacing is watched this long before the process says that it is ready."""
TRACE_RECORDS = 1 << 21
"""20 s of ticks with beam."""
BEAM_OFF_S = 0.1
_FRAME_EVERY = 2
"""Slices for each frame to the safety controller."""


def first_epoch(boot: int) -> int:
    """Where the permit's epochs of this start of the plant begin (`boot`: ns since 1970): whole in a float64, and above
    those of any start at least a second earlier, whose permits were fewer than a million a second."""
    return boot // 1_000_000_000 << 20


class Rack(threading.Thread):
    """Advances the plant and holds its end of the safety link."""

    def __init__(
        self, plant: SharedPlant, link: DatagramEnd, end: RackEnd, clock: NominalClock, pacer: Pacer, trace: TruthTrace,
        on_events: Callable[[list[PlantEvent]], None], on_permit_lost: Callable[[PlantEvent], None],
    ) -> None:  # fmt: skip
        super().__init__(name="rack", daemon=True)
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.pacer = pacer
        self.gauge = LinkGauge()
        self.external: ExternalSide | None = None
        """Devices in the loop; set before the thread starts, where there are any."""
        self._plant = plant
        self._link = link
        self._end = end
        self._clock = clock
        self._trace = trace
        self._on_events = on_events
        self._on_permit_lost = on_permit_lost
        self._lines: RackLines | None = None
        self._late_until_ns = 0
        self._slice = 0

    def run(self) -> None:
        """Until `stopping` is set, or something fails: the beam goes with this thread, since time stands still."""
        try:
            self.pacer.start(monotonic_ns(), self._plant.t_ns)
            while not self.stopping.wait(self.pacer.wait_ns(monotonic_ns()) * 1e-9):
                self._one_slice()
        except BaseException as failure:
            self.failure = failure
            raise

    def _one_slice(self) -> None:
        plant, wall_ns = self._plant, monotonic_ns()
        self._take_permit()  # before the beam may go on: a thread that has slept must not live on an old permit
        self._show_lateness(wall_ns)
        slipped_ns = self.pacer.slip_ns
        target_ns = self.pacer.target_ns(wall_ns)
        if self.external is not None:
            self.external.before(target_ns, wall_ns, round((self.pacer.slip_ns - slipped_ns) * self.pacer.speed))
        while plant.advance(target_ns) < target_ns:
            pass
        if self.external is not None:
            self.external.after()
        events = plant.take_events()
        self._slice += 1
        if self._slice % _FRAME_EVERY == 0:
            self._send_image()
        self._trace.stamp(self.truth_now())
        if events:
            self._on_events(events)

    def _show_lateness(self, wall_ns: int) -> None:
        late_ms = self.pacer.late_ms(wall_ns)
        if late_ms > 0.0:
            self._plant.set_late_ms(late_ms)
            self._late_until_ns = wall_ns + LATE_SHOWN_NS
        elif self._late_until_ns and wall_ns > self._late_until_ns:
            self._plant.set_late_ms(0.0)
            self._late_until_ns = 0

    def _send_image(self) -> None:
        with self._plant.lock:
            slip_ns = round(self.pacer.slip_ns * self.pacer.speed)
            image, fault = image_of(self._plant.signals), first_fault(self._plant, slip_ns)
        self._link.send(self._end.send(image, fault, self._clock.now_ns()))

    def _take_permit(self) -> None:
        for frame in self._link.take():  # each in its turn: what one says is not undone unseen by the next
            if self._end.receive(frame, self._clock.now_ns()):
                self.gauge.heard(monotonic_ns())
            self._obey()
        self._obey()

    def _obey(self) -> None:
        carry_out(self._end, self._plant)
        trips, lines = self._end.trips, self._end.lines(self._clock.now_ns())
        tell_trip(self._end, trips)
        before, self._lines = self._lines, lines
        if lines != before:
            self._plant.set_safety_lines(*lines)
            if before is not None and before.permit and not lines.permit and self._end.lost_by_trip:
                said: dict[str, int | float | str] = {"hold": int(lines.hold), "link_ok": int(lines.link_ok)}
                self._on_permit_lost(PlantEvent(self._plant.t_ns, "PERMIT_LOST", said))

    def link_values(self) -> tuple[float, ...]:
        """LINK_STATUS of this end, without seq."""
        reading = self.gauge.reading(monotonic_ns())
        return reading.values(WALL_WATCHDOG_MS, self._end.bad_frames, self._end.trips)

    def truth_now(self) -> TruthNow:
        """Where the truth stands."""
        plant = self._plant
        with plant.lock:
            return TruthNow(plant.t_ns, plant.truth_count, plant.truth_total_ions, monotonic_ns())


class PlantProcess:
    """Everything around one plant."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        facility, speed = launch.facility, launch.speed
        rules = load_rules(facility, launch.room, launch.species)
        self.register = MappedStore(launch.folder / REGISTER_FILE)
        self.plant = SharedPlant(
            facility, launch.room, launch.species, seed=launch.seed, rules=rules.fast(),
            allow_faults=launch.options.allow_faults, register_store=self.register,
            first_epoch=first_epoch(boot_identity()),
        )  # fmt: skip
        self.plant.dose.lease_s *= max(speed, 1.0)  # the disk keeps wall time
        self.register_sync = RegisterSyncThread(RegisterSync(self.plant, self.register))
        self.plant.advance(NS_PER_MS)  # compiles, or loads what was compiled before
        trace = TruthTrace(launch.folder, TRACE_RECORDS)
        self.plant.write_trace_to(trace.ring)
        self.plant.set_room_beam(True)
        self.plant.set_door(False, False)  # people are in the room until it has been searched
        self.plant.turn_key(MODE_CODES[launch.options.key])
        self.clock = NominalClock(monotonic_ns(), speed)
        self.events = EventLog(run_id(launch.seed, facility.hash), self, self._sink(launch.folder))
        self.iocs = PlantIocs(
            self.plant, facility.pv_prefix, self, read_ring(launch.folder, "plant"),
            heartbeat_ns=round(HEARTBEAT_NS * speed), nonce_floor=boot_identity(),
            nonces={group: nonces_in(launch.folder, f"plant.{group}") for group in COMMANDED},
            command_clock=self.clock, max_age_ns=command_age_ns(speed),
        )  # fmt: skip
        self.link = DatagramEnd(port=launch.options.link_port)
        end = RackEnd(link_name(facility, rules), boot_identity(), paced_rules(rules, speed).link, self.clock.now_ns())
        self._loop = asyncio.get_running_loop()
        self.rack = Rack(
            self.plant, self.link, end, self.clock, Pacer(speed), trace, self._from_rack, self._permit_lost
        )
        if facility.fitted:
            self.rack.external = ExternalSide(facility, self.plant, speed)
        self.post_mortems = PacedPostMortems(
            self.plant, launch.folder,
            lambda records: Plant(facility, launch.room, launch.species, seed=launch.seed, rules=rules.fast(),
                                  allow_faults=True, trace_records=records,
                                  register_store=MemoryStore(durable=True)),
            about_run(facility, launch.room, launch.species, launch.seed, None), rules, self._post_mortem_made,
        )  # fmt: skip
        self._written_ions = -1.0

    def now_ns(self) -> int:
        """Facility time: the plant's own."""
        return self.plant.t_ns

    @staticmethod
    def _sink(folder: Path):  # type: ignore[no-untyped-def]
        return (folder / "plant.events.jsonl").open("wb", buffering=0)

    def _from_rack(self, events: list[PlantEvent]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._on_events, events)

    def _on_events(self, events: list[PlantEvent]) -> None:
        for event in events:
            if event.kind not in ("IMAGE", "STATE"):
                self._log(event)
        with self.plant.lock:
            self.iocs.on_events(events)

    def _permit_lost(self, event: PlantEvent) -> None:
        """On the rack's thread: the safety controller has taken the permit, or its link has fallen silent."""
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._log, event)

    def _log(self, event: PlantEvent) -> None:
        """Into the event log, with the time that the safety controller goes by; a trip is frozen."""
        kind = event.kind.lower().replace("_", "-")
        nominal_ns = event.t_ns + self.clock.now_ns() - self.plant.t_ns
        logged = self.events.emit("plant", kind, {**event.data, NOMINAL: nominal_ns}, t_ns=event.t_ns)
        if kind in TRIPS:
            self.post_mortems.trip(logged)

    def _post_mortem_made(self, made: PostMortem) -> None:
        """On a thread of its own: a file has been written."""
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._log_post_mortem, made)

    def _log_post_mortem(self, made: PostMortem) -> None:
        self.events.emit("plant", POST_MORTEM, made.event, cause_seq=made.cause.seq)

    async def publish_for_ever(self) -> None:
        """Offer new values to the PVs, and write the truth down, until cancelled."""
        pacer = self.rack.pacer
        slices = 0
        while True:
            await asyncio.sleep(PUBLISH_S)
            self._check_threads()
            self.iocs.set_pacing(pacer.late_slices, pacer.worst_late_ns * 1e-6, pacer.slip_ns * 1e-6, pacer.speed)
            self.iocs.set_lateness(pacer.late_ticks, pacer.histogram)
            self._show_external()
            self.iocs.set_link(self.rack.link_values())
            with self.plant.lock:
                self.iocs.update(self.plant.t_ns)
            slices += 1
            if slices % round(TRUTH_S / PUBLISH_S) == 0:
                self.write_truth()
                tidy(idle=not self.plant.output_lines()[0])

    def _check_threads(self) -> None:
        """ChannelError if a thread has failed without which there is no beam: it ends the process, beam off."""
        for name, failure in (("rack", self.rack.failure), ("register", self.register_sync.failure)):
            if failure is not None:
                raise ChannelError(f"plant.{name}", f"the {name}'s thread has failed: {failure!r}", "plant")

    def _show_external(self) -> None:
        """Devices in the loop as the rack sees them; one that is lost or comes back is logged."""
        side = self.rack.external
        if side is None:
            return
        changed = list(side.changes())
        for state in changed:
            ok = state.good and state.in_time
            why = "" if ok else "late" if state.good else "not connected, in alarm or no number"
            self.events.emit("plant", "external", {"device": state.device, "ok": int(ok), "why": why,
                                                   "age_ms": min(state.age_ms, 1e9)})  # fmt: skip
        self.iocs.set_external(self.plant.external_states(), now=bool(changed))

    def write_truth(self) -> None:
        """Write the truth per spot where there is more of it."""
        with self.plant.lock:
            now = self.rack.truth_now()
            if now.total_ions == self._written_ions:
                return
            spots = {token: rows.copy() for token, rows in self.plant.truth_spots().items()}
        self._written_ions = now.total_ions
        write_spots(self.launch.folder, spots, now)

    def hear_peer(self) -> None:
        """Read `host:port` of the safety controller's end from stdin, in a thread of its own; where faults are allowed,
        then one line for each (`ioc_sim.faults.fault_from_line`). Whoever started this process holds the other end."""

        def read() -> None:
            line = sys.stdin.readline().strip()
            if line:
                host, _, port = line.rpartition(":")
                self.link.connect(host, int(port))
            if self.launch.options.allow_faults:
                for order in sys.stdin:
                    self._break(order)

        threading.Thread(target=read, name="peer", daemon=True).start()

    def _break(self, order: str) -> None:
        """A device fails from now on; a line that says something else is logged, and nothing fails."""
        try:
            fault = fault_from_line(order, self.plant.t_ns)
            if fault.device == GATING:
                self.plant.set_gating(fault.value == 1.0)
            else:
                self.plant.inject(fault)
        except IonctlError as problem:
            _log.warning("not a fault", order=order.strip()[:200], problem=str(problem))

    async def check_pacing(self) -> None:
        """Watch the pace for a moment; refuse a speed whose jitter comes near the watchdog."""
        await asyncio.sleep(WARM_UP_S)
        worst_ms = self.rack.pacer.worst_late_ns * 1e-6
        if worst_ms > 0.5 * WALL_WATCHDOG_MS:
            raise ChannelError(
                "pacing.jitter", f"slices come up to {worst_ms:.0f} ms late at speed {self.launch.speed:g}", "plant",
                "take a lower speed, or let this machine do less",
            )  # fmt: skip

    async def beam_off(self) -> None:
        """Both lines off, which is ABORT, and time for the beam to go; the link lives and is not called dead."""
        self.plant.set_safety_lines(False, False, True)
        self.plant.disarm()
        await asyncio.sleep(BEAM_OFF_S)


async def main(launch: Launch) -> None:
    """Run the plant until SIGTERM."""
    process = PlantProcess(launch)
    settle(tidied=True)
    process.rack.start()
    process.register_sync.start()
    process.post_mortems.start()
    try:
        await process.check_pacing()
        async with stop_signal() as stop, serve(process.iocs.pvdb, clock=process) as server:
            process.hear_peer()
            say_ready(
                launch, ca_port=server.port, link_port=process.link.address[1], epoch_ns=process.clock.epoch_ns,
            )  # fmt: skip
            publishing = asyncio.create_task(process.publish_for_ever(), name="publish")
            await until_one_ends(stop, server, publishing)
            await process.beam_off()
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing
            server.check()
    finally:
        process.rack.stopping.set()
        process.rack.join(5.0)
        process.register_sync.stopping.set()
        process.register_sync.join(5.0)
        process.register.close()
        if process.rack.external is not None:
            process.rack.external.close()
        process.post_mortems.stop()
        await asyncio.sleep(0)  # what it said at last is logged
        pacer = process.rack.pacer
        _log.info("pacing", slices=pacer.slices, late=pacer.late_slices, worst_late_ms=pacer.worst_late_ns * 1e-6,
                  slip_ms=pacer.slip_ns * 1e-6, late_ticks=pacer.late_ticks, histogram=pacer.histogram)  # fmt: skip
        process.write_truth()
        process.link.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beyond the common ones."""
    parser.add_argument("--link-port", type=int, default=0)
    parser.add_argument("--allow-faults", action="store_true")
    parser.add_argument("--key", choices=list(MODE_CODES), default=MODES[0], help="where the mode key switch stands")


if __name__ == "__main__":
    sys.exit(run_process("plant", add_arguments, main, first=True))
