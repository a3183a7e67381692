"""Control's server and IOC: commands over PVs in memory, what it publishes, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from channels.command import CommandResult, Signer, Status
from channels.command_client import CommandClient
from channels.command_server import CommandVerifier
from channels.keys import KeyRing, derived_private_key
from channels.memory import MemoryProvider
from channels.protocol import Channel
from control.ioc import ControlIoc
from control.layer_machine import State
from control.server import PERMISSIONS, ControlServer, fitting
from facility.errors import CommandRefused, PlanError
from facility.pv_catalogue import PROGRESS, entries
from rig.virtual_time import VirtualLoop, run_virtual
from tests.control.fakes import PREFIX, Bench, FakeProgram, bench, program

CONTROL_PVS = [entry.name for entry in entries("control")]


@dataclass
class Console:
    """A client of control's PVs."""

    bench: Bench
    channels: dict[str, Channel]
    clients: dict[str, CommandClient]
    updates: dict[str, list[tuple[float, object]]]

    async def call(self, verb: str, issuer: str = "operator", **args: object) -> CommandResult:
        return await self.clients[issuer].call(verb, args, 5.0)

    def value(self, name: str) -> object:
        sample = self.channels[name].latest()
        return None if sample is None else sample.value

    async def until_state(self, state: State, timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while self.value("TCS:State-Sts") != state.index:
                changed = asyncio.Event()
                forget = self.channels["TCS:State-Sts"].subscribe(
                    lambda _c, s, changed=changed: changed.set() if s.value == state.index else None  # type: ignore[misc]
                )
                await changed.wait()
                forget()


def load_program(plan: str, room: str, qa: bool) -> FakeProgram:
    if plan != "good.dcm":
        raise PlanError("plan.bad", "spot of no weight", "beam 0, layer 2, spot 5", "export it again")
    return program(layers=2)


def run(test: Callable[[Console], Awaitable[None]]) -> None:
    loop = VirtualLoop(limit_ns=3_600_000_000_000)

    async def main() -> None:
        made = await bench(loop)
        ring = KeyRing()
        signers = {}
        for issuer, role in (("operator", "operator"), ("control", "control")):
            key = derived_private_key(1, issuer)
            ring.add(issuer, key.public_key(), (role,))
            signers[issuer] = Signer(issuer, role, key)
        ioc = ControlIoc(PREFIX, loop)
        provider = MemoryProvider(ioc.pvdb, loop)
        async with made.sequencer:
            server = ControlServer(made.sequencer, ioc, CommandVerifier(ring, PERMISSIONS, loop), load_program)
            ioc.connect_commands(server.on_command)
            async with server:
                found = await provider.connect([f"{PREFIX}:{name}" for name in CONTROL_PVS], 5.0)
                channels = {name: found[f"{PREFIX}:{name}"] for name in CONTROL_PVS}
                pair = channels["TCS:Cmd"], channels["TCS:Cmd-Result"]
                clients = {issuer: CommandClient(*pair, signer, loop) for issuer, signer in signers.items()}
                updates: dict[str, list[tuple[float, object]]] = {name: [] for name in CONTROL_PVS}
                for name, channel in channels.items():
                    channel.subscribe(lambda _c, s, name=name: updates[name].append((loop.time(), s.value)))  # type: ignore[misc]
                await test(Console(made, channels, clients, updates))
        await provider.close()

    run_virtual(main(), loop)


def test_the_ioc_has_the_pvs_of_the_catalogue() -> None:
    ioc = ControlIoc(PREFIX, VirtualLoop())
    assert set(ioc.pvdb) == {f"{PREFIX}:{name}" for name in CONTROL_PVS}


def test_a_session_by_commands() -> None:
    async def test(console: Console) -> None:
        result = await console.call("load", plan="good.dcm", room="H", qa=True)
        assert result.status is Status.DONE
        assert result.data["layers"] == 2
        assert result.data["spots"] == 40
        await console.until_state(State.LOADED)
        assert console.value("TCS:Session-RB") == result.data["session"]
        await console.call("prepare")
        await console.until_state(State.READY)
        assert (await console.call("start")).status is Status.DONE
        await console.until_state(State.COMPLETED)
        await asyncio.sleep(1.0)
        summary = json.loads(console.value("TCS:Summary-RB"))  # type: ignore[arg-type]
        assert (summary["status"], summary["spots_done"], len(summary["layers"])) == ("completed", 40, 2)
        assert summary["operator"] == "operator"
        progress = dict(zip(PROGRESS, console.value("TCS:Progress-RB"), strict=True))  # type: ignore[call-overload]
        assert progress["spots_done"] == progress["spots"] == 40
        assert progress["layer"] == progress["layers"] == 2
        assert progress["state"] == State.COMPLETED.index
        await console.call("close")
        await console.until_state(State.STANDBY)
        assert console.value("TCS:Session-RB") == ""

    run(test)


def test_start_is_for_the_session_that_was_confirmed_and_no_other() -> None:
    """Another console has closed it and prepared its own."""

    async def test(console: Console) -> None:
        confirmed = (await console.call("load", plan="good.dcm", room="H", qa=True)).data["session"]
        await console.call("close")
        other = (await console.call("load", plan="good.dcm", room="H", qa=True)).data["session"]
        await console.call("prepare")
        await console.until_state(State.READY)
        result = await console.call("start", session=confirmed)
        assert (result.status, result.code) == (Status.REFUSED, "control.other-session")
        assert console.bench.sequencer.state is State.READY
        assert (await console.call("start", session=other)).status is Status.DONE

    run(test)


def test_progress_comes_at_most_ten_times_a_second_but_for_changes_of_state() -> None:
    async def test(console: Console) -> None:
        await console.call("load", plan="good.dcm", room="H", qa=True)
        await console.call("prepare")
        await console.until_state(State.READY)
        begin = console.bench.loop.time()
        await console.call("start")
        await console.until_state(State.COMPLETED)
        span_s = console.bench.loop.time() - begin
        states = len([t for t, _ in console.updates["TCS:State-Sts"] if t >= begin])
        progress = [value for t, value in console.updates["TCS:Progress-RB"] if t >= begin]
        assert len(progress) <= 10 * span_s + states + 1
        assert all(not np.array_equal(a, b) for a, b in pairwise(progress))
        beats = [value for _, value in console.updates["TCS:Heartbeat-RB"]]
        assert beats == sorted(set(beats))  # type: ignore[type-var]
        assert len(beats) > span_s

    run(test)


@pytest.mark.parametrize(
    ("verb", "args", "status", "code"),
    [
        ("start", {}, Status.REFUSED, "control.state"),
        ("resume", {}, Status.REFUSED, "control.state"),
        ("pause", {"why": "tea"}, Status.REFUSED, "control.arguments"),
        ("load", {"plan": 3}, Status.REFUSED, "control.arguments"),
        ("load", {"plan": "bad.dcm", "room": "H", "qa": False}, Status.FAILED, "plan.bad"),
        ("reset", {}, Status.REFUSED, "command.unknown-verb"),
    ],
)
def test_what_is_refused_is_said(verb: str, args: dict[str, object], status: Status, code: str) -> None:
    async def test(console: Console) -> None:
        result = await console.call(verb, **args)
        assert (result.status, result.code) == (status, code)
        assert result.words
        if code == "plan.bad":
            assert "beam 0, layer 2, spot 5" in result.words
            with pytest.raises(CommandRefused, match="spot of no weight"):
                result.require_done()

    run(test)


def test_control_cannot_command_itself() -> None:
    async def test(console: Console) -> None:
        result = await console.call("start", issuer="control")
        assert (result.status, result.code) == (Status.REFUSED, "command.not-allowed")

    run(test)


def test_a_command_that_arrives_twice_acts_once() -> None:
    async def test(console: Console) -> None:
        cmd = console.channels["TCS:Cmd"]
        signer = Signer("operator", "operator", derived_private_key(1, "operator"))
        command = signer.command("load", {"plan": "good.dcm", "room": "H", "qa": True}, console.bench.loop)
        frame = signer.sign(command)
        for _ in range(3):
            await cmd.put(frame, 1.0)
            await asyncio.sleep(0.1)
        opened = [event for event in console.bench.events.events if event.kind == "session.opened"]
        assert len(opened) == 1
        results = [CommandResult.decode(value) for _, value in console.updates["TCS:Cmd-Result"] if value]  # type: ignore[arg-type]
        assert [r.status for r in results if r.id == command.id and r.status.final] == [Status.DONE] * 3

    run(test)


def test_an_interruption_is_told_in_words() -> None:
    async def test(console: Console) -> None:
        await console.call("load", plan="good.dcm", room="H", qa=True)
        await console.call("prepare")
        await console.until_state(State.READY)
        await console.call("start")
        await console.until_state(State.IRRADIATING)
        await console.call("pause")
        await console.until_state(State.INTERRUPTED)
        await asyncio.sleep(0.2)
        assert console.value("TCS:Message-RB") == b"paused by the operator"
        await console.call("resume")
        await console.until_state(State.COMPLETED)

    run(test)


def test_words_are_cut_at_a_character() -> None:
    assert fitting("ok", 10) == b"ok"
    assert fitting("", 10) == b" "
    cut = fitting("Grüße " * 40, 50)
    assert len(cut) <= 50
    assert cut.decode().endswith("…")


def test_going_on_under_other_limits_is_the_physicists_alone() -> None:
    for verb in ("recover", "load"):
        assert PERMISSIONS[f"{verb}_new_limits"] == {"physicist"}
        assert PERMISSIONS[verb] == {"operator", "physicist"}
