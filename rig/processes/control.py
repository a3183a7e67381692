"""Treatment control's process: Channel Access client of plant and safety controller, server of the operator's PVs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from channels.caproto_server import serve
from channels.command import Signer
from channels.epics_bridge import EpicsProvider, configure_libca
from channels.keepalive import KeepAliveMaker
from channels.protocol import Channel, Sample
from control.ioc import ControlIoc
from control.machine_link import LinkLimits
from control.sample_log import SampleLog
from control.spot_log import write_spot_log
from control.telemetry import MqttTelemetry, Telemetry
from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.errors import JournalError
from facility.events import EventLog
from facility.ids import IdSource, run_id
from facility.timebase import Clock, seconds_to_ns
from interlocks.rules import load_rules
from journal.store import Journal, open_journal
from journal.writer import NoJournal, NullWriter, ThreadedWriter, Writer
from rig.aside import ThreadAside
from rig.broker import broker_address
from rig.clocks import NominalClock, SlippingClock, command_age_ns
from rig.control_stack import CommandGate, ControlParts, ControlStack, control_stack, file_loader, stop_delivery
from rig.deliver import EVENTS_FILE, RECORD_FILE, SAMPLES_FILE, SPOTS_FILE
from rig.keys import CONTROL, read_private, read_ring
from rig.logs import bind
from rig.nonce_file import nonces_in
from rig.processes.common import Launch, run_process, say_ready, stop_signal, until_one_ends
from rig.record_desk import keep_record
from rig.wall_clock import RisingNonces, boot_identity, iso_now, monotonic_s, unix_s

_log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
"""Silence of a server after which its link is lost, wall time; longer at speeds below one."""
CONNECT_S = 20.0


class Files:
    """Writes logs, events and treatment record of a session when its record is closed."""

    def __init__(self, sessions: Path, events: EventLog, facility: Facility, journal: Journal | None) -> None:
        self._sessions = sessions
        self._events = events
        self._facility = facility
        self._journal = journal
        self._records: set[asyncio.Task[None]] = set()
        self.samples = SampleLog()
        self._first: dict[str, int] = {}
        self.stack: ControlStack | None = None

    def told(self, topic: str, data: Mapping[str, Any]) -> None:
        """A listener of the sequencer."""
        if topic == "session":
            session = str(data["session"])
            bind(session=session or None)
            if session:
                self._first.setdefault(session, max(0, self._events.next_seq - 1))
        elif topic == "layer":
            bind(layer=data.get("layer"))
        elif topic == "summary":
            self._write(str(data["session"]))
        elif topic == "closed":
            self._spawn_record(str(data["session"]))
        if topic in ("state", "interlock", "message"):
            _log.info(topic, data={key: value for key, value in data.items() if key != "session"})

    def _write(self, session: str) -> None:
        sequencer = None if self.stack is None else self.stack.sequencer
        if sequencer is None or sequencer.session is None or sequencer.session.id != session:
            return
        folder = self._sessions / session
        folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(event.line() for event in self._events.since(self._first.get(session, 0)))
        (folder / EVENTS_FILE).write_bytes(lines)
        config = self._facility.canonical_json()
        write_spot_log(sequencer.session, folder / SPOTS_FILE, config)
        (folder / SAMPLES_FILE).write_bytes(self.samples.to_bytes(sequencer.session, config))
        self._spawn_record(session)

    def _spawn_record(self, session: str) -> None:
        task = asyncio.create_task(self._record(session), name="record")
        self._records.add(task)
        task.add_done_callback(self._records.discard)

    async def _record(self, session: str) -> None:
        """Beside the event loop, from what is on the journal's disk."""
        if self._journal is None or self.stack is None:
            return
        with contextlib.suppress(JournalError):  # it says so itself
            await self.stack.sequencer.books.durable()
        path = self._sessions / session / RECORD_FILE
        await asyncio.to_thread(keep_record, self._journal, session, self._facility, path)

    async def settled(self) -> None:
        """All records that were begun are written."""
        await asyncio.gather(*self._records, return_exceptions=True)


@contextlib.asynccontextmanager
async def telemetry_of(launch: Launch) -> AsyncIterator[Telemetry | None]:
    """MQTT where a broker is given."""
    broker: str = launch.options.mqtt
    if not broker:
        yield None
        return
    host, port = broker_address(broker)
    async with MqttTelemetry(host, port, launch.facility.id) as telemetry:
        yield telemetry


async def follow_plant(provider: EpicsProvider, prefix: str, clock: SlippingClock) -> None:
    """Keep facility time in step with what the plant says."""
    name = f"{prefix}:PLANT:Time-RB"
    channels = await provider.connect([name], CONNECT_S)

    def heard(_channel: Channel, sample: Sample) -> None:
        if isinstance(sample.value, float):
            clock.heard(seconds_to_ns(sample.value))

    channels[name].subscribe(heard)


def journal_of(url: str, facility: str, clock: Clock) -> tuple[tuple[ThreadedWriter, Journal] | None, Writer]:
    """The journal as it is written and as it is read; one that cannot be opened lets control live, and no beam."""
    if not url:
        return None, NullWriter()
    try:
        written, read = open_journal(url, facility), open_journal(url, facility)
    except JournalError as problem:
        _log.error("no journal: no beam", problem=str(problem))
        return None, NoJournal(problem)
    writer = ThreadedWriter(written, clock, monotonic_s, iso_now)
    return (writer, read), writer


async def main(launch: Launch) -> None:
    """Run treatment control until SIGTERM."""
    options, facility, speed = launch.options, launch.facility, launch.speed
    configure_libca(options.servers.split())
    nominal = NominalClock(options.epoch_ns, speed)
    clock = SlippingClock(nominal)
    provider = EpicsProvider(clock)
    sink = (launch.folder / "control.events.jsonl").open("wb", buffering=0)
    events = EventLog(run_id(launch.seed, facility.hash), clock, sink)
    gate = CommandGate()
    ioc = ControlIoc(facility.pv_prefix, clock, gate)
    key = read_private(Path(options.key))
    signer = Signer(CONTROL.name, "control", key, RisingNonces())
    journal, writer = journal_of(options.journal, facility.id, clock)
    rules = load_rules(facility, launch.room, launch.species)
    files = Files(Path(options.sessions), events, facility, None if journal is None else journal[1])
    try:
        await follow_plant(provider, facility.pv_prefix, clock)
        async with contextlib.AsyncExitStack() as alive:
            stop = await alive.enter_async_context(stop_signal())
            telemetry = await alive.enter_async_context(telemetry_of(launch))
            parts = ControlParts(
                facility=facility,
                clock=clock,
                ids=IdSource(launch.seed ^ round(unix_s() * 1e6)),  # real runs never share the id of a session
                events=events,
                signer=signer,
                ring=read_ring(launch.folder, "control"),
                load_program=file_loader(facility),
                keep_alive=KeepAliveMaker(CONTROL.name, boot_identity(), key, nominal),
                loop_s_per_facility_s=1.0 / speed,
                link_limits=LinkLimits(connect_s=CONNECT_S, heartbeat_s=max(HEARTBEAT_S, 0.6 / speed)),
                telemetry=telemetry,
                nonce_floor=boot_identity(),
                nonces=nonces_in(launch.folder, "control"),
                signing_clock=nominal,
                journal=None if journal is None else journal[1],
                writer=writer,
                energy_table=load_energy_table(facility, launch.species).hash,
                rules_hash=rules.hash,
                aside=ThreadAside(),
                fast_rules=tuple(rule.id for rule in rules.h),
                command_age_ns=command_age_ns(speed),
                samples=files.samples,
            )
            stack = await alive.enter_async_context(control_stack(provider, ioc, gate, parts))
            files.stack = stack
            stack.sequencer.listeners.append(files.told)
            server = await alive.enter_async_context(serve(ioc.pvdb, clock=clock))
            say_ready(launch, ca_port=server.port, mqtt=options.mqtt)
            await until_one_ends(stop, server, stack.sequencer.task)
            if stack.sequencer.task.done():
                stack.sequencer.task.result()  # raises: control without its sequencer must not look alive
            await stop_delivery(stack)
            await files.settled()
            server.check()
    finally:
        await provider.close()
        if journal is not None:
            await asyncio.to_thread(journal[0].close)
            journal[1].close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beyond the common ones."""
    parser.add_argument("--servers", required=True, help="host:port of every Channel Access server, blanks between")
    parser.add_argument("--key", required=True, help="file of control's private key")
    parser.add_argument("--sessions", required=True, help="where session folders go")
    parser.add_argument("--epoch-ns", type=int, required=True)
    parser.add_argument("--mqtt", default="")
    parser.add_argument("--journal", default="", help="URL of the journal")


if __name__ == "__main__":
    sys.exit(run_process("control", add_arguments, main))
