"""Treatment control as one thing, over whatever carries its channels: link, sequencer, server, IOC.

The same stack runs in virtual time over memory channels and in the control process over Channel Access.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from channels.command import Signer
from channels.command_client import CommandClient
from channels.command_server import CommandVerifier
from channels.keepalive import KeepAliveMaker
from channels.keys import KeyRing
from channels.protocol import Channel, ChannelProvider
from control.aside import Aside, at_once
from control.bookkeeper import Bookkeeper
from control.bypass_watch import BypassWatch
from control.ioc import ControlIoc
from control.layer_machine import DELIVERING
from control.layer_table import LayerRules
from control.machine_link import LinkLimits, MachineLink
from control.plan.load import load_plan
from control.plan.program import MachineProgram, compile_program
from control.procedure import PERIOD_S, LineSender
from control.sequencer import Sequencer
from control.server import PERMISSIONS, PUBLISH_S, ControlServer
from control.session import ProgramLike
from control.stages import SequencerLimits
from control.telemetry import Telemetry
from facility.config import Facility
from facility.errors import ChannelError, IonctlError
from facility.events import EventLog
from facility.ids import IdSource
from facility.timebase import Clock
from journal.store import Journal
from journal.writer import NullWriter, Writer
from rig.caller import Caller
from rig.external.hazard import require_hazard_bounds

if TYPE_CHECKING:
    from control.sample_log import SampleLog

RULE_NAME_S = 0.5
"""Longest wait for the name of a rule that tripped, event-loop s: processes publish ten times a second of wall time."""
STOP_S = 3.0
"""Longest until a record is written when control ends, event-loop s."""
LoadProgram = Callable[[str, str, bool], ProgramLike]


def file_loader(facility: Facility) -> LoadProgram:
    """Reads and compiles plan files for a facility."""

    def load(path: str, room: str, qa: bool) -> MachineProgram:
        program = compile_program(load_plan(Path(path)), facility, room, qa=qa)
        require_hazard_bounds(program, facility)
        return program

    return load


class CommandGate:
    """Hands the bytes of TCS:Cmd to the server, which comes to life later than the PV."""

    def __init__(self) -> None:
        self.server: ControlServer | None = None

    def __call__(self, frame: bytes) -> None:
        """Take the bytes of a put; before the server lives they are lost, and their issuer asks again."""
        if self.server is not None:
            self.server.on_command(frame)


@dataclass(frozen=True)
class ControlParts:
    """What a stack is made of. `loop_s_per_facility_s` is 1 in virtual time, 1 / speed over Channel Access."""

    facility: Facility
    clock: Clock
    ids: IdSource
    events: EventLog
    signer: Signer
    ring: KeyRing
    load_program: LoadProgram
    keep_alive: KeepAliveMaker
    """Makes the frames of tier T, with control's own key."""
    loop_s_per_facility_s: float = 1.0
    link_limits: LinkLimits = field(default_factory=LinkLimits)
    telemetry: Telemetry | None = None
    publish_s: float = PUBLISH_S
    check_s: float = SequencerLimits.check_s
    """See `SequencerLimits`."""
    lines_s: float = PERIOD_S
    """Time between two frames of control's lines, event-loop s."""
    writer: Writer = field(default_factory=NullWriter)
    """Writes the journal."""
    journal: Journal | None = None
    """The journal to read; None: no session can be opened again."""
    energy_table: str = ""
    """Hash of the energy table."""
    rules_hash: str = ""
    """Hash of the interlock rules in force."""
    nonce_floor: int = -1
    """See `CommandVerifier`."""
    nonces: MutableMapping[str, int] | None = None
    """See `CommandVerifier`."""
    signing_clock: Clock | None = None
    """What commands are signed and their age is judged by; `clock` where it is None."""
    fast_rules: tuple[str, ...] = ()
    """See `Observer`."""
    samples: SampleLog | None = None
    """Where the samples of a session go; None: nowhere."""
    aside: Aside = at_once
    """Carries out what takes long: plans that are compiled, journals that are checked."""
    command_age_ns: int | None = None
    """See `CommandVerifier.max_age_ns`."""


@dataclass(frozen=True)
class ControlStack:
    """Treatment control, running."""

    sequencer: Sequencer
    server: ControlServer
    link: MachineLink
    lines: LineSender


@contextlib.asynccontextmanager
async def control_stack(
    provider: ChannelProvider, ioc: ControlIoc, gate: CommandGate, parts: ControlParts
) -> AsyncIterator[ControlStack]:
    """Connect to plant and safety controller and serve commands until the block is left."""

    signing_clock = parts.signing_clock or parts.clock

    def make_caller(cmd: Channel, result: Channel) -> Caller:
        return Caller(CommandClient(cmd, result, parts.signer, signing_clock))

    link = await MachineLink.connect(provider, parts.facility.pv_prefix, make_caller, parts.link_limits)
    scale = parts.loop_s_per_facility_s
    limits = SequencerLimits(scale=scale, rule_name_s=RULE_NAME_S / min(scale, 1.0), check_s=parts.check_s)
    rules = LayerRules.of(parts.facility)
    verifier = CommandVerifier(
        parts.ring, PERMISSIONS, signing_clock, nonce_floor=parts.nonce_floor, nonces=parts.nonces,
        max_age_ns=parts.command_age_ns,
    )  # fmt: skip
    books = Bookkeeper(parts.writer)
    try:
        async with (
            Sequencer(
                link, parts.clock, parts.ids, parts.events, rules=rules, limits=limits,
                facility_hash=parts.facility.hash, books=books, fast_rules=parts.fast_rules,
            ) as sequencer,
            LineSender(link.write_lines, parts.keep_alive, sequencer.lines, parts.lines_s) as lines,
            ControlServer(
                sequencer, ioc, verifier, parts.load_program, telemetry=parts.telemetry, publish_s=parts.publish_s,
                journal=parts.journal, energy_table=parts.energy_table, rules_hash=parts.rules_hash,
                aside=parts.aside,
            ) as server,
        ):  # fmt: skip
            gate.server = server
            if parts.samples is not None:
                parts.samples.follow(link)
                sequencer.listeners.append(parts.samples.told)
            sequencer.on_turn = lines.look_again
            if not isinstance(parts.writer, NullWriter):
                BypassWatch(link, books, lambda: _open_session(sequencer))
            yield ControlStack(sequencer, server, link, lines)
    finally:
        gate.server = None
        link.close()


async def stop_delivery(stack: ControlStack) -> None:
    """Beam off, record written, if something is being delivered: control is told to end."""
    if stack.sequencer.state not in DELIVERING:
        return
    with contextlib.suppress(IonctlError):
        await stack.sequencer.pause()
        await stack.sequencer.recorded(STOP_S)


def _open_session(sequencer: Sequencer) -> str:
    return "" if sequencer.session is None else sequencer.session.id


def require_room(found: str, wanted: str) -> None:
    """ChannelError if a target that runs already serves another room."""
    if found != wanted:
        raise ChannelError(
            "target.room", f"the running facility serves room {found}, not {wanted}", "",
            "ionctl down, then ionctl up --room " + wanted,
        )  # fmt: skip
