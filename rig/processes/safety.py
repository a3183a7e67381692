"""The safety controller's process: one scan for each frame of the rack, and the safety IOC.

Two threads: `Scanner` blocks on the link and scans, the main thread's loop serves Channel Access.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from channels.caproto_server import serve
from channels.command import Command, CommandResult
from channels.command_server import CommandVerifier
from channels.datagram import DatagramEnd
from channels.keys import KeyRing
from facility.errors import ChannelError
from facility.events import EventLog
from facility.ids import run_id
from interlocks.controller import Console, SafetyController
from interlocks.link import PermitCommand, SafetyEnd
from interlocks.proof_file import load_proofs
from interlocks.rules import load_rules
from interlocks.snapshot import Mode
from interlocks.verbs import VERBS
from rig.clocks import NominalClock, command_age_ns
from rig.field_file import FieldFile
from rig.keys import CONTROL, OPERATOR, read_ring
from rig.link_gauge import LinkGauge
from rig.nonce_file import nonces_in
from rig.paced_rules import WALL_WATCHDOG_MS, paced_rules
from rig.paced_safety_scans import PacedScans
from rig.post_mortem import about_run
from rig.processes.common import Launch, run_process, say_ready, stop_signal, until_one_ends
from rig.run_dir import SAFETY_SCANS
from rig.safety_scans import ScanFreezer, ScanRing
from rig.safety_side import HookedSafetyIoc, link_name, tell_trip
from rig.settling import settle, tidy
from rig.wall_clock import boot_identity, monotonic_ns

if TYPE_CHECKING:
    from interlocks.snapshot import SafetyEvent
    from rig.post_mortem import PostMortem

_log = structlog.get_logger(__name__)

SCAN_WAIT_S = 0.02
"""Longest wait for a frame; then a scan without one."""
PUBLISH_S = 0.1


class LockedController(SafetyController):
    """A controller whose every entry holds a lock: the scanning thread and the server's loop share it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.lock = threading.RLock()
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def keep_alive(self, frame: bytes, now_ns: int) -> bool:
        """See SafetyController."""
        with self.lock:
            return super().keep_alive(frame, now_ns)

    def lines(self, frame: bytes, now_ns: int) -> bool:
        """See SafetyController."""
        with self.lock:
            return super().lines(frame, now_ns)

    def command(self, command: Command, now_ns: int) -> CommandResult:
        """See SafetyController."""
        with self.lock:
            return super().command(command, now_ns)


class Scanner(threading.Thread):
    """Scans the rack's image, frame by frame, and answers each."""

    def __init__(
        self, controller: LockedController, link: DatagramEnd, end: SafetyEnd, clock: NominalClock, ring: ScanRing,
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(name="scanner", daemon=True)
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.scans = 0
        self.gauge = LinkGauge()
        self._controller = controller
        self._link = link
        self._end = end
        self._clock = clock
        self._ring = ring
        self._changed = changed
        self.permit = False
        """As the rack was told last."""
        self.worst_gap_ns = 0
        """Longest time between two scans, nominal."""
        self._last_ns = 0

    def run(self) -> None:
        """Until `stopping` is set; a failure ends the frames, which ends the permit at the rack."""
        try:
            while not self.stopping.is_set():
                self._link.wait(SCAN_WAIT_S)
                self._scan()
            self._link.send(self._end.send(PermitCommand(False, False, 0, 0), self._clock.now_ns()))
        except BaseException as failure:
            self.failure = failure
            raise

    def link_values(self) -> tuple[float, ...]:
        """LINK_STATUS of this end, without seq."""
        reading = self.gauge.reading(monotonic_ns())
        return reading.values(WALL_WATCHDOG_MS, self._end.bad_frames, self._end.trips)

    def _scan(self) -> None:
        """Judge each image that waits, in order: a cause that only one of them shows is a cause, and what came last, a
        bad frame perhaps, is what is answered."""
        command: PermitCommand | None = None
        for frame in self._link.take():
            command = None
            if self._end.receive(frame, self._clock.now_ns()):
                self.gauge.heard(monotonic_ns())
                command = self._judge()
        command = command or self._judge()
        self._link.send(self._end.send(command, self._clock.now_ns()))
        if command.permit != self.permit:
            self.permit = command.permit
            self._changed()

    def _judge(self) -> PermitCommand:
        end = self._end
        now_ns = self._clock.now_ns()
        if self._last_ns:
            self.worst_gap_ns = max(self.worst_gap_ns, now_ns - self._last_ns)
        self._last_ns = now_ns
        trips, ok = end.trips, end.link_ok(now_ns)
        tell_trip(end, trips)
        with self._controller.lock:
            command = self._controller.scan(
                end.image, end.image_t_ns, now_ns, ok, end.fault, end.complement, end.peer_boot
            )
            self._ring.note(now_ns, end.image_t_ns, command)
        self.scans += 1
        return command


class SafetyProcess:
    """Everything around one safety controller."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        facility, options = launch.facility, launch.options
        self.clock = NominalClock(options.epoch_ns, launch.speed)
        common = load_rules(facility, launch.room, launch.species)
        rules = paced_rules(common, launch.speed)
        ring = read_ring(launch.folder, "safety")
        self.controller = LockedController(
            rules, Mode(options.mode), self._source(ring, OPERATOR.name), self.clock.now_ns(), FieldFile(launch.folder),
            control=self._source(ring, CONTROL.name), proofs=load_proofs(facility, rules.link.watchdog_ms),
        )  # fmt: skip
        verifier = CommandVerifier(
            ring, VERBS, self.clock, nonce_floor=boot_identity(), nonces=nonces_in(launch.folder, "safety"),
            max_age_ns=command_age_ns(launch.speed),
        )  # fmt: skip
        self.ring = ScanRing(self.controller)
        self.freezer = ScanFreezer(self.ring, self.controller)
        about = about_run(facility, launch.room, launch.species, launch.seed, Mode(options.mode))
        self.scans = PacedScans(launch.folder, about, rules, self._scans_written)
        self.ioc = HookedSafetyIoc(
            facility.pv_prefix, self.controller, verifier, self.clock, self._touched, heard=self._heard
        )
        self.link = DatagramEnd(port=options.link_port)
        host, _, port = options.plant_link.rpartition(":")
        self.link.connect(host, int(port))
        end = SafetyEnd(link_name(facility, common), boot_identity(), rules.link, self.clock.now_ns())
        self._loop = asyncio.get_running_loop()
        self.scanner = Scanner(self.controller, self.link, end, self.clock, self.ring, self._permit_changed)
        sink = (launch.folder / "safety.events.jsonl").open("wb", buffering=0)
        self.events = EventLog(run_id(launch.seed, facility.hash), self.clock, sink)
        self._soon = asyncio.Event()

    def _source(self, ring: KeyRing, name: str) -> Console:
        """Who must show signs of life."""
        known = ring.find(name)
        if known is None:
            raise ChannelError("safety.no-key", f"the key ring has no {name}", str(self.launch.folder))
        return Console(name, known.key)

    def _touched(self) -> None:
        self._soon.set()

    def _heard(self) -> None:
        with self.controller.lock:
            self.ring.heard()

    def _permit_changed(self) -> None:
        """On the scanning thread: what took the permit is shown at once."""
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._soon.set)

    async def publish_for_ever(self) -> None:
        """Show the controller's state until cancelled; at once when somebody has commanded it."""
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_S):
                    await self._soon.wait()
            if self.scanner.failure is not None:
                raise ChannelError(
                    "safety.scanner", f"the scanning thread has failed: {self.scanner.failure}", "safety"
                )
            with self.controller.lock:
                events = self.controller.take_events()
                self.ioc.refresh()
            self.ioc.show_link(self.scanner.link_values())
            for event in events:
                self._log(event)
            with self.controller.lock:
                frozen = self.freezer.cuts(self.clock.now_ns())
            for one in frozen:
                self.scans.write(one)
            tidy(idle=not self.scanner.permit)

    def end_scans(self) -> None:
        """Write what is open; after the last scan."""
        for one in self.freezer.cuts():
            self.scans.write(one)
        self.scans.stop()

    def _scans_written(self, made: PostMortem) -> None:
        """On a thread of its own: a file has been written."""
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._log_scans, made)

    def _log_scans(self, made: PostMortem) -> None:
        self.events.emit("safety", SAFETY_SCANS, made.event, cause_seq=made.cause.seq)

    def _log(self, event: SafetyEvent) -> None:
        self.freezer.trip(self.events.emit("safety", event.kind, event.data, t_ns=event.t_ns))
        _log.info(
            event.kind, t_s=event.t_ns * 1e-9, **{k: v for k, v in event.data.items() if k not in ("t_ns", "words")}
        )


async def main(launch: Launch) -> None:
    """Run the safety controller until SIGTERM."""
    process = SafetyProcess(launch)
    settle(tidied=True)
    process.scanner.start()
    process.scans.start()
    try:
        async with stop_signal() as stop, serve(process.ioc.pvdb, clock=process.clock) as server:
            say_ready(launch, ca_port=server.port, link_port=process.link.address[1])
            publishing = asyncio.create_task(process.publish_for_ever(), name="publish")
            await until_one_ends(stop, server, publishing)
            process.scanner.stopping.set()  # the permit goes first, then whoever shows it
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing
            server.check()
    finally:
        process.scanner.stopping.set()
        process.scanner.join(5.0)
        process.end_scans()
        await asyncio.sleep(0)  # what it said at last is logged
        worst_ms = process.scanner.worst_gap_ns * 1e-6 / launch.speed
        _log.info("scanning", scans=process.scanner.scans, worst_gap_ms=worst_ms)
        process.link.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beyond the common ones."""
    parser.add_argument("--plant-link", required=True, help="host:port of the rack's end")
    parser.add_argument("--link-port", type=int, default=0)
    parser.add_argument("--epoch-ns", type=int, required=True)
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.CLINICAL.value)


if __name__ == "__main__":
    sys.exit(run_process("safety", add_arguments, main, first=True))
