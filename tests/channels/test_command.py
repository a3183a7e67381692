"""Signed commands: forged, replayed, garbled and forbidden ones do nothing; repeats do nothing twice."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import keys
from channels.command import COMMAND_MAX, Command, CommandResult, Signer, Status, decode_command
from channels.command_client import CommandClient
from channels.command_server import CommandVerifier, Refusal, Repeated, Verified
from channels.keys import KeyRing, derived_private_key, random_private_key
from channels.memory import MemoryProvider
from channels.publish import publish
from facility.errors import ChannelError, CommandRefused, ConfigError, InternalError
from facility.events import canonical_json
from facility.timebase import NS_PER_S, ManualClock
from rig.virtual_time import VirtualLoop
from tests.channels.helpers import MS, SmallIoc, in_memory

SEED = 7
PERMISSIONS = {"start": {"operator"}, "reset": {"safety-officer"}, "pause": {"operator", "safety-officer"}}


def ring() -> KeyRing:
    made = KeyRing()
    made.add("console", derived_private_key(SEED, "console").public_key(), ["operator", "safety-officer"])
    made.add("control", derived_private_key(SEED, "control").public_key(), ["operator"])
    return made


def signer(issuer: str = "console", role: str = "operator", key_of: str | None = None) -> Signer:
    return Signer(issuer, role, derived_private_key(SEED, key_of or issuer))


def verifier(clock: ManualClock | None = None, **more: Any) -> CommandVerifier:
    return CommandVerifier(ring(), PERMISSIONS, clock or ManualClock(), **more)


def frame_of(who: Signer, verb: str = "start", args: dict[str, Any] | None = None, t_ns: int = 0) -> bytes:
    return who.sign(who.command(verb, args or {"plan": "P-1", "speed": 1.5}, ManualClock(t_ns)))


def refused(server: CommandVerifier, frame: bytes) -> str:
    verdict = server.verify(frame)
    if not isinstance(verdict, Refusal):
        raise TypeError(verdict)
    assert verdict.words
    assert verdict.result().status is Status.REFUSED
    return verdict.code


def altered(frame: bytes, **changes: Any) -> bytes:
    return canonical_json({**json.loads(frame), **changes})


def test_a_genuine_command_is_verified_as_it_was_meant() -> None:
    verdict = verifier().verify(frame_of(signer()))
    if not isinstance(verdict, Verified):
        raise TypeError(verdict)
    command = verdict.command
    assert (command.issuer, command.role, command.verb, command.nonce) == ("console", "operator", "start", 1)
    assert command.args == {"plan": "P-1", "speed": 1.5}
    assert command.id.startswith("C-")


@pytest.mark.parametrize(
    "change",
    [
        {"verb": "pause"},
        {"args": {"plan": "P-2", "speed": 1.5}},
        {"role": "safety-officer"},
        {"issuer": "control"},
        {"issuer": "nobody"},
        {"nonce": 2},
        {"t_ns": 1},
        {"id": "C-000000000000"},
        {"sig": base64.b64encode(bytes(64)).decode()},
        {"sig": "not base64"},
        {"sig": ""},
    ],
)
def test_a_command_changed_on_its_way_is_not_genuine(change: dict[str, Any]) -> None:
    assert refused(verifier(), altered(frame_of(signer()), **change)) == "command.not-genuine"


def test_a_command_signed_by_somebody_else_is_not_genuine() -> None:
    assert refused(verifier(), frame_of(signer("console", key_of="control"))) == "command.not-genuine"


@given(data=st.data())
def test_no_single_changed_byte_gets_through(data: st.DataObject) -> None:
    frame = bytearray(frame_of(signer()))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    verdict = verifier().verify(bytes(frame))
    assert isinstance(verdict, Refusal)


@given(st.binary(max_size=600))
def test_noise_is_refused_in_words(noise: bytes) -> None:
    assert refused(verifier(), noise) == "command.malformed"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"[" * 2000,
        b'{"args":' + b"[" * 900 + b"]" * 900 + b"}",
        b" " * (COMMAND_MAX + 1),
        b'{"id":"a","id":"b"}',
        altered(frame_of(signer()), surplus=1),
        altered(frame_of(signer()), nonce=1.0),
        altered(frame_of(signer()), nonce=True),
        altered(frame_of(signer()), nonce=-1),
        altered(frame_of(signer()), t_ns=2**63),
        altered(frame_of(signer()), args=[]),
        altered(frame_of(signer()), id=""),
        frame_of(signer()).replace(b"1.5", b"NaN"),
        frame_of(signer()).replace(b"1.5", b"1e999"),
        frame_of(signer()).replace(b"P-1", b"\\ud800"),
    ],
)
def test_what_has_not_the_shape_of_a_command_is_malformed(frame: bytes) -> None:
    assert refused(verifier(), frame) == "command.malformed"


def test_roles_decide_who_may_do_what() -> None:
    server = verifier()
    assert refused(server, frame_of(signer("control"), "reset")) == "command.not-allowed"
    assert refused(server, frame_of(signer("control", "safety-officer"), "reset")) == "command.not-your-role"
    assert refused(server, frame_of(signer("console"), "launch")) == "command.unknown-verb"
    assert isinstance(server.verify(frame_of(signer("console", "safety-officer"), "reset")), Verified)


def test_a_repeat_gets_the_recorded_result_and_nothing_is_done_twice() -> None:
    server = verifier()
    frame = frame_of(signer())
    verdict = server.verify(frame)
    if not isinstance(verdict, Verified):
        raise TypeError(verdict)
    assert server.verify(frame) == Repeated(CommandResult(verdict.command.id, Status.ACCEPTED))
    done = CommandResult(verdict.command.id, Status.DONE, data={"session": "S-1"})
    server.record(done)
    assert server.verify(frame) == Repeated(done)
    with pytest.raises(InternalError):
        server.record(CommandResult("C-unheard-of", Status.DONE))


def test_an_old_command_is_refused_by_its_nonce_across_a_restart_too() -> None:
    stored: dict[str, int] = {}
    who = signer()
    first, second = frame_of(who), frame_of(who, "pause")
    server = verifier(nonces=stored)
    assert isinstance(server.verify(second), Verified)
    assert refused(server, first) == "command.replayed"
    restarted = verifier(nonces=stored)
    assert refused(restarted, second) == "command.replayed"
    assert refused(restarted, first) == "command.replayed"
    assert isinstance(restarted.verify(frame_of(who)), Verified)
    assert stored == {"console": 3}


def test_what_was_signed_before_a_server_lived_is_refused_without_a_store() -> None:
    numbers = iter([41, 42, 43])
    who = Signer("console", "operator", derived_private_key(SEED, "console"), lambda: next(numbers))
    frames = [frame_of(who) for _ in range(3)]
    assert isinstance(verifier().verify(frames[1]), Verified)
    restarted = verifier(nonce_floor=42)
    assert [refused(restarted, frame) for frame in frames[:2]] == ["command.replayed"] * 2
    assert isinstance(restarted.verify(frames[2]), Verified)


def test_memory_is_bounded_and_what_fell_out_is_refused_not_repeated() -> None:
    server, who = verifier(remembered=3), signer()
    frames = [frame_of(who) for _ in range(5)]
    for frame in frames:
        assert isinstance(server.verify(frame), Verified)
    assert [refused(server, frame) for frame in frames[:2]] == ["command.replayed"] * 2
    assert all(isinstance(server.verify(frame), Repeated) for frame in frames[2:])


def test_an_id_cannot_be_used_for_another_command() -> None:
    server, key = verifier(), derived_private_key(SEED, "console")
    for nonce, expected in ((1, Verified), (2, Refusal)):
        command = Command("C-same", "console", "operator", 0, nonce, "start", {})
        assert isinstance(server.verify(command.encode(keys.sign(key, command.signed_part()))), expected)


@pytest.mark.parametrize(("age_s", "accepted"), [(0, True), (5, True), (6, False), (-5, True), (-6, False)])
def test_a_command_that_is_too_old_or_ahead_is_stale(age_s: int, accepted: bool) -> None:
    clock = ManualClock(100 * NS_PER_S)
    server = verifier(clock, max_age_ns=5 * NS_PER_S)
    verdict = server.verify(frame_of(signer(), t_ns=(100 - age_s) * NS_PER_S))
    assert isinstance(verdict, Verified) is accepted
    if isinstance(verdict, Refusal):
        assert verdict.code == "command.stale"


def test_commands_and_results_that_are_too_long_are_defects_of_their_maker() -> None:
    with pytest.raises(InternalError):
        frame_of(signer(), args={"text": "x" * COMMAND_MAX})
    with pytest.raises(InternalError):
        CommandResult("C-1", Status.DONE, words="x" * 5000).encode()


def test_results_survive_their_journey_and_refusals_can_be_raised() -> None:
    result = CommandResult("C-1", Status.REFUSED, "layer.busy", "a layer is running", {"layer": 3})
    assert CommandResult.decode(result.encode()) == result
    with pytest.raises(CommandRefused) as caught:
        result.require_done()
    assert caught.value.code == "layer.busy"
    assert CommandResult("C-1", Status.DONE).require_done().status.final
    for broken in (b"{}", b"[]", b'{"id":1,"status":"done","code":"","words":"","data":{}}', b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - any wording will do
            CommandResult.decode(broken)


def test_keys_are_derived_by_seed_and_name_or_drawn_and_survive_as_text() -> None:
    def raw(key: Any) -> str:
        return keys.private_key_text(key)

    assert raw(derived_private_key(1, "a")) == raw(derived_private_key(1, "a"))
    assert len({raw(derived_private_key(seed, name)) for seed in (1, 2) for name in "ab"}) == 4
    drawn = random_private_key(lambda count: bytes(range(count)))
    assert raw(keys.private_key_from_text(raw(drawn))) == raw(drawn)
    again = KeyRing.from_dict(json.loads(json.dumps(ring().to_dict())))
    assert again.to_dict() == ring().to_dict()
    assert "console" in again
    with pytest.raises(ConfigError):
        random_private_key(lambda _count: b"short")
    with pytest.raises(ConfigError):
        keys.private_key_from_text("AAAA")
    with pytest.raises(ConfigError):
        KeyRing.from_dict({"x": {"key": "AAAA", "roles": []}})
    with pytest.raises(ConfigError):
        KeyRing.from_dict({"x": {"key": "AAAA", "roles": "operator"}})


def test_decoding_ignores_padding_zeros_of_a_char_waveform() -> None:
    command, _ = decode_command(frame_of(signer()) + b"\0\0")
    assert command.verb == "start"


class Server:
    """Answers commands on the small IOC: 'start' takes 5 ms, 'pause' is refused by the server itself."""

    def __init__(self, ioc: SmallIoc, loop: VirtualLoop) -> None:
        self.ioc, self.loop = ioc, loop
        self.verifier = verifier()
        self.started = 0
        ioc.cmd.putter = self.put

    async def put(self, instance: Any, value: Any) -> Any:
        verdict = self.verifier.verify(bytes(value))
        if isinstance(verdict, Verified):
            self.begin(verdict.command)
        else:
            self.tell(verdict.result if isinstance(verdict, Repeated) else verdict.result())
        return value

    def begin(self, command: Command) -> None:
        if command.verb == "pause":
            self.end(CommandResult(command.id, Status.REFUSED, "layer.idle", "nothing to pause"))
            return
        self.started += 1
        self.tell(CommandResult(command.id, Status.ACCEPTED))
        self.loop.call_later(0.005, self.end, CommandResult(command.id, Status.DONE, data={"n": self.started}))

    def end(self, result: CommandResult) -> None:
        self.verifier.record(result)
        self.tell(result)

    def tell(self, result: CommandResult) -> None:
        publish(self.ioc.result, result.encode(), self.loop.now_ns())


async def client_of(provider: MemoryProvider, loop: VirtualLoop, who: Signer | None = None) -> CommandClient:
    channels = await provider.connect(["T:Cmd", "T:Cmd-Result"], 1.0, monitor=["T:Cmd-Result"])
    return CommandClient(channels["T:Cmd"], channels["T:Cmd-Result"], who or signer(), loop)


def test_a_call_ends_with_the_result_that_carries_its_id() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        server, client = Server(ioc, loop), await client_of(provider, loop)
        start = loop.now_ns()
        result = await client.call("start", {}, 1.0)
        assert (result.status, result.data) == (Status.DONE, {"n": 1})
        assert loop.now_ns() - start == MS // 2 + 5 * MS + 2 * MS
        result = await client.call("start", {}, 1.0, until=Status.ACCEPTED)
        assert result.status is Status.ACCEPTED
        assert server.started == 2
        await asyncio.sleep(0.1)

    in_memory(body)


def test_a_refusal_is_known_by_the_result_only() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        Server(ioc, loop)
        client = await client_of(provider, loop)
        result = await client.call("pause", {}, 1.0)
        assert (result.status, result.code) == (Status.REFUSED, "layer.idle")
        control = await client_of(provider, loop, signer("control"))
        result = await control.call("reset", {}, 1.0)
        assert (result.status, result.code) == (Status.REFUSED, "command.not-allowed")
        assert provider.refused_puts == 0

    in_memory(body)


def test_a_lost_result_is_asked_for_again_and_the_command_runs_once() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        server, client = Server(ioc, loop), await client_of(provider, loop)
        provider.lose_updates("T:Cmd-Result", 2)
        result = await client.call("start", {}, 3.0)
        assert (result.status, result.data) == (Status.DONE, {"n": 1})
        assert server.started == 1
        assert 1.0 < loop.time() < 1.1

    in_memory(body)


def test_a_server_that_takes_the_put_and_says_nothing_is_no_success() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        client = await client_of(provider, loop)
        with pytest.raises(ChannelError) as caught:
            await client.call("start", {}, 3.0)
        assert caught.value.code == "command.no-answer"
        assert len(ioc.seen) == 3
        assert len(set(ioc.seen)) == 1

    in_memory(body)


def test_a_cut_link_is_no_answer_and_a_read_only_command_pv_is_an_error() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        client = await client_of(provider, loop)
        provider.set_link_down(True)
        with pytest.raises(ChannelError) as caught:
            await client.call("start", {}, 0.3)
        assert caught.value.code == "command.no-answer"
        provider.set_link_down(False)
        channels = await provider.connect(["T:Fixed", "T:Cmd-Result"], 1.0)
        wrong = CommandClient(channels["T:Fixed"], channels["T:Cmd-Result"], signer(), loop)
        with pytest.raises(ChannelError) as caught:
            await wrong.call("start", {}, 0.3)
        assert caught.value.code == "channel.bad-value"

    in_memory(body)
