"""Treatment control as a server: commands become requests to the sequencer, what it does becomes PVs and telemetry.

State changes are published at once, progress at most every 100 ms and only when it changed. Verbs:

==================  ======================================================
load                {plan, room, qa, plan_hash?, fraction?, continues?}: read, check and compile a plan; `plan_hash`:
                    of the approved one; `continues`: give what this session, closed as partial, has left
load_new_limits     {..., continues, reason}: as load, by a physicist alone: although the interlock rules are others
                    than the session went by whose rest it gives
prepare             {}: check the machine; READY follows when beam is permitted
start               {session?}: refused where another session than this one is open
pause               {}
resume              {session?}: as start
recover             {session, plan, room, qa, reason}: open a session of the journal again, at what it got
recover_new_limits  as recover, by a physicist alone: although the interlock rules are others than it went by. What
                    a physicist allows holds for this opening, and is on record once it is started
stop                {}: beam off for good
close               {}: let go of the session
close_partial       {session, reason, plan?}: nobody goes on with it any more; `plan`: where its file has moved
==================  ======================================================

A command is done when the layer machine has taken it; how it goes on is told by the state PV. A command that arrives
twice acts once: the verifier knows it by its id and repeats the result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import numpy as np
import structlog

from channels.command import Command, CommandResult, Status
from channels.command_server import CommandVerifier, Refusal, Repeated
from channels.protocol import Value
from control.aside import Aside, at_once
from control.layer_machine import DELIVERING, State
from control.sequencer import Sequencer
from control.session_desk import LoadProgram, SessionDesk, Verb
from control.telemetry import TOPICS, NullTelemetry, Telemetry
from facility.errors import CommandRefused, InternalError, IonctlError
from facility.events import canonical_json
from facility.pv_catalogue import BY_NAME, PROGRESS
from facility.timebase import to_next_s
from journal.store import Journal

_log = structlog.get_logger(__name__)

PUBLISH_S = 0.1
"""Shortest time between two updates of progress, event-loop s."""
HEARTBEAT_S = 0.5
PERMISSIONS: Mapping[str, frozenset[str]] = {
    verb: frozenset({"operator", "physicist"})
    for verb in ("load", "recover", "prepare", "start", "pause", "resume", "stop", "close", "close_partial")
} | {verb: frozenset({"physicist"}) for verb in ("load_new_limits", "recover_new_limits")}
"""Roles that may use each verb."""


class Publisher(Protocol):
    """`control.ioc.ControlIoc`, or a list in tests."""

    def publish(self, name: str, value: Value) -> None:
        """Publish a PV by its catalogue name."""
        ...


class ControlServer:
    """Verbs and PVs around a sequencer. Use as an async context manager, inside the sequencer's.

    Args:
        sequencer: entered already.
        publisher: where PVs go.
        verifier: judges the commands; its permissions are `PERMISSIONS`.
        load_program: reads and compiles a plan.
        telemetry: who else is told.
        publish_s: shortest time between two updates of progress, event-loop s.
        journal: to read what sessions got that are opened again; None: none can be.
        energy_table: hash of the table that energy codes come from.
        rules_hash: of the interlock rules in force, by which sessions go.
        aside: carries out what takes long, while the event loop turns.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        publisher: Publisher,
        verifier: CommandVerifier,
        load_program: LoadProgram,
        *,
        telemetry: Telemetry | None = None,
        publish_s: float = PUBLISH_S,
        journal: Journal | None = None,
        energy_table: str = "",
        rules_hash: str = "",
        aside: Aside = at_once,
    ) -> None:
        self._publish_s = publish_s
        self._sequencer = sequencer
        self._publisher = publisher
        self._verifier = verifier
        self._telemetry: Telemetry = telemetry or NullTelemetry()
        self._last_progress: list[float] = []
        self._last_state: State | None = None
        self._beat = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Verb] = {
            **SessionDesk(sequencer, load_program, journal, energy_table, rules_hash, aside).verbs,
            "prepare": self._plain(sequencer.prepare),
            "start": self._for_session(self._by(sequencer.start)),
            "pause": self._plain(sequencer.pause),
            "resume": self._for_session(self._by(sequencer.resume)),
            "stop": self._plain(sequencer.stop),
            "close": self._plain(sequencer.close),
        }

    async def __aenter__(self) -> ControlServer:
        self._sequencer.listeners.append(self._on_told)
        self._publish_progress()
        self._spawn(self._publish_regularly())
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):
            self._sequencer.listeners.remove(self._on_told)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_command(self, frame: bytes) -> None:
        """A write to TCS:Cmd; the answer goes to TCS:Cmd-Result."""
        verdict = self._verifier.verify(frame)
        if isinstance(verdict, Refusal):
            _log.warning("command refused", code=verdict.code, words=verdict.words)
            self._answer(verdict.result())
        elif isinstance(verdict, Repeated):
            self._answer(verdict.result)
        else:
            self._answer(CommandResult(verdict.command.id, Status.ACCEPTED))
            self._spawn(self._carry_out(verdict.command))

    async def _carry_out(self, command: Command) -> None:
        try:
            data = await self.execute(command.verb, command.args, command.issuer)
            result = CommandResult(command.id, Status.DONE, data=data)
        except CommandRefused as refusal:
            result = CommandResult(command.id, Status.REFUSED, refusal.code, str(refusal), refusal.to_dict())
        except IonctlError as error:
            result = CommandResult(command.id, Status.FAILED, error.code, str(error), error.to_dict())
        self._verifier.record(result)
        session = self._sequencer.session
        self._sequencer.books.command("" if session is None else session.id, command, result)
        self._answer(result)

    def _answer(self, result: CommandResult) -> None:
        try:
            frame = result.encode()
        except InternalError:  # the words are too many for the PV; the code says enough
            frame = CommandResult(result.id, result.status, result.code, result.words[:1000]).encode()
        self._publisher.publish("TCS:Cmd-Result", frame)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="control-server")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def execute(self, verb: str, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        """Carry out a command that has been verified; returns the data of its result, raises why not."""
        known = self._verbs.get(verb)
        if known is None:
            raise CommandRefused("control.verb", f"no command '{verb}'", "TCS:Cmd", f"one of {', '.join(self._verbs)}")
        return await known(args, issuer) | {"state": self._sequencer.state.name}

    # --- verbs ---------------------------------------------------------------------------------------------
    def _for_session(self, verb: Verb) -> Verb:
        """A verb that is carried out for the session that is meant and no other: what a person has confirmed may have
        been closed by another console, and its successor is READY as well."""

        async def checked(args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
            session, meant = self._sequencer.session, args.get("session", "")
            if meant and (session is None or session.id != meant):
                what = f"meant for session {meant}, {'none' if session is None else session.id} is open"
                raise CommandRefused(
                    "control.other-session", what, "TCS:Cmd", "another console has closed it: begin anew"
                )
            return await verb({name: value for name, value in args.items() if name != "session"}, issuer)

        return checked

    @staticmethod
    def _by(ask: Callable[[str], Awaitable[None]]) -> Verb:
        """A verb that goes down in the record with who has asked for it."""

        async def verb(args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
            return await ControlServer._plain(lambda: ask(issuer))(args, issuer)

        return verb

    @staticmethod
    def _plain(ask: Callable[[], Awaitable[None]]) -> Verb:
        async def verb(args: Mapping[str, Any], _issuer: str) -> dict[str, Any]:
            if args:
                raise CommandRefused("control.arguments", f"arguments {sorted(args)} are not known", "TCS:Cmd")
            await ask()
            return {}

        return verb

    # --- PVs -----------------------------------------------------------------------------------------------
    def _on_told(self, topic: str, data: Mapping[str, Any]) -> None:
        if topic == "state":
            self._publish_progress()
        elif topic == "session":
            self._publisher.publish("TCS:Session-RB", str(data["session"]))
        elif topic == "message":
            self._publisher.publish("TCS:Message-RB", fitting(str(data["text"]), BY_NAME["TCS:Message-RB"].length))
        elif topic == "summary":
            self._publish_summary(data)
        if topic in TOPICS:
            self._telemetry.publish(topic, data)

    def _publish_summary(self, data: Mapping[str, Any]) -> None:
        raw = canonical_json(data)
        room = BY_NAME["TCS:Summary-RB"].length
        if len(raw) > room:  # thousands of layers: the record has them, the PV says how many there were
            raw = canonical_json({**data, "layers": [], "layers_left_out": len(data["layers"])})
        self._publisher.publish("TCS:Summary-RB", raw)

    async def _publish_regularly(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        while True:
            if loop.time() >= next_beat:
                next_beat += HEARTBEAT_S
                self._beat = (self._beat + 1) % 2**31
                self._publisher.publish("TCS:Heartbeat-RB", self._beat)
            self._publish_progress()
            period_s = self._publish_s if self._sequencer.state in DELIVERING else HEARTBEAT_S
            await asyncio.sleep(to_next_s(loop.time(), period_s))

    def _publish_progress(self) -> None:
        state = self._sequencer.state
        if state is not self._last_state:
            self._last_state = state
            self._publisher.publish("TCS:State-Sts", state.index)
        progress = self._sequencer.progress()
        values = [float(progress[name]) for name in PROGRESS]
        if values != self._last_progress:
            self._last_progress = values
            self._publisher.publish("TCS:Progress-RB", np.array(values))


def fitting(text: str, length: int) -> bytes:
    """UTF-8 bytes of a text, cut at a character so that they fit."""
    raw = text.encode("utf-8")
    if len(raw) > length:
        raw = raw[: length - 3].decode("utf-8", errors="ignore").encode("utf-8") + "…".encode()
    return raw or b" "
