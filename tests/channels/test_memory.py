"""Channels in memory: delays, order, staleness, refusals, faults; and what servers publish."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from caproto import ChannelEnum

from channels.base import ChannelBase
from channels.memory import Latency, MemoryProvider
from channels.protocol import Channel, ChannelProvider, LinkState, Sample, Severity
from channels.publish import native_value, publish, run_sync, stamp_ns, stamp_with
from facility.errors import ChannelError, InternalError
from facility.timebase import ManualClock
from rig.virtual_time import VirtualLoop
from tests.channels.helpers import EXACT, MS, WAVE, SmallIoc, in_memory, small_ioc

JITTERY = Latency(put_ns=1 * MS, monitor_ns=2 * MS, jitter_ns=300_000)


def test_values_have_the_types_that_the_protocol_promises() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        checked: ChannelProvider = provider
        channels = await checked.connect(list(ioc.pvdb), 1.0)
        values = {name.removeprefix("T:"): channel.latest() for name, channel in channels.items()}
        plain = {name: sample.value for name, sample in values.items() if sample and name not in ("Wave", "Table")}
        assert plain == {
            "Number": 1.5,
            "Count": 3,
            "Text": "hello",
            "Mode": 0,
            "Cmd": b"{}",
            "Cmd-Result": b"{}",
            "Empty": b"",
            "Fixed": 7.0,
            "Alarmed": 0.0,
            "Refusing": 0.0,
            "Echo": 0.0,
        }
        assert [type(plain[name]) for name in ("Number", "Count", "Mode", "Cmd")] == [float, int, int, bytes]
        wave = channels["T:Wave"].latest()
        table = channels["T:Table"].latest()
        if wave is None or table is None or not isinstance(wave.value, np.ndarray):
            raise TypeError(wave)
        assert wave.value.dtype == np.float64
        assert not wave.value.flags.writeable
        assert wave.value.shape == (64,)
        assert isinstance(table.value, np.ndarray)
        assert table.value.shape == (0,)
        assert loop.now_ns() == 2 * MS

    in_memory(body)


def test_a_put_takes_one_ms_and_its_consequence_is_seen_two_ms_after_it_happened() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channels = await provider.connect(["T:Number", "T:Echo"], 1.0)
        seen: list[tuple[int, object]] = []
        channels["T:Echo"].subscribe(lambda _channel, sample: seen.append((loop.now_ns(), sample.value)))
        start = loop.now_ns()
        await channels["T:Number"].put(4.0, 1.0)
        assert loop.now_ns() == start + 1 * MS
        await asyncio.sleep(0.01)
        happened = start + MS // 2
        assert seen == [(start, 0.0), (happened + 2 * MS, 8.0)]
        latest = channels["T:Echo"].latest()
        assert latest is not None
        assert latest.t_ns == happened

    in_memory(body)


def test_a_get_reads_what_the_server_has_half_the_latency_later() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect(["T:Echo"], 1.0, monitor=[]))["T:Echo"]
        assert channel.latest() is None
        assert channel.state is LinkState.CONNECTED
        loop.call_later(0.0004, publish, ioc.echo, 3.0, 77)
        loop.call_later(0.0006, publish, ioc.echo, 4.0, 78)
        sample = await channel.get(1.0)
        assert (sample.value, sample.t_ns) == (3.0, 77)

    in_memory(body)


def test_updates_arrive_in_the_order_they_were_sent_whatever_the_jitter() -> None:
    def history(seed: int) -> list[tuple[int, str, object]]:
        async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> list[tuple[int, str, object]]:
            log: list[tuple[int, str, object]] = []
            channels = await provider.connect(["T:Echo", "T:Count"], 1.0)

            def note(channel: Channel, sample: Sample) -> None:
                log.append((loop.now_ns(), channel.name, sample.value))

            for channel in channels.values():
                channel.subscribe(note)
            log.clear()
            for number in range(200):
                publish(ioc.echo, float(number), loop.now_ns())
                publish(ioc.count, number, loop.now_ns())
                await asyncio.sleep(0.0001)
            await asyncio.sleep(0.01)
            return log

        return in_memory(body, JITTERY, seed)

    log = history(1)
    assert [value for _, name, value in log if name == "T:Echo"] == [float(number) for number in range(200)]
    assert [name for _, name, _ in log] == ["T:Echo", "T:Count"] * 200
    times = [time for time, _, _ in log]
    assert times == sorted(times)
    assert log == history(1)
    assert log != history(2)


@pytest.mark.parametrize(("name", "value"), [("T:Number", 400.0), ("T:Refusing", 1.0)])
def test_a_refused_put_looks_like_a_good_one_and_only_the_alarm_tells(name: str, value: float) -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect([name], 1.0))[name]
        before = channel.latest()
        await channel.put(value, 1.0)
        after = await channel.get(1.0)
        assert before is not None
        assert after.value == before.value
        assert after.severity == Severity.MAJOR
        assert provider.refused_puts == 1

    in_memory(body)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("T:Fixed", 1.0, "channel.read-only"),
        ("T:Number", "text", "channel.bad-value"),
        ("T:Wave", [0.0] * 65, "channel.bad-value"),
        ("T:Wave", [], "channel.bad-value"),
        ("T:Count", 1.5, "channel.bad-value"),
        ("T:Count", 2**40, "channel.bad-value"),
        ("T:Mode", "BROKEN", "channel.bad-value"),
        ("T:Mode", 3, "channel.bad-value"),
        ("T:Text", "x" * 40, "channel.bad-value"),
        ("T:Text", "\N{GREEK SMALL LETTER ALPHA}", "channel.bad-value"),
        ("T:Text", 3, "channel.bad-value"),
        ("T:Cmd", b"x" * 4097, "channel.bad-value"),
        ("T:Cmd", 1.0, "channel.bad-value"),
    ],
)
def test_what_cannot_be_put_says_so_before_anything_is_sent(name: str, value: Any, code: str) -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect([name], 1.0))[name]
        start = loop.now_ns()
        with pytest.raises(ChannelError) as caught:
            await channel.put(value, 1.0)
        assert caught.value.code == code
        assert caught.value.where == name
        assert loop.now_ns() == start

    in_memory(body)


def test_good_puts_of_every_type_arrive() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channels = await provider.connect(list(ioc.pvdb), 1.0)

        async def round_trip(name: str, value: Any) -> object:
            await channels[name].put(value, 1.0)
            return (await channels[name].get(1.0)).value

        assert await round_trip("T:Mode", "HELD") == 2
        assert await round_trip("T:Mode", 1) == 1
        assert ioc.mode.value == "ON"
        assert await round_trip("T:Text", "h\xe9") == "h\xe9"
        assert await round_trip("T:Count", -7) == -7
        assert await round_trip("T:Cmd", b'{"a":"\xc3\xa9"}') == b'{"a":"\xc3\xa9"}'
        assert await round_trip("T:Cmd", "text") == b"text"
        assert ioc.seen == [b'{"a":"\xc3\xa9"}', b"text"]
        wave = await round_trip("T:Wave", [1, 2, 3])
        assert isinstance(wave, np.ndarray)
        assert wave.tolist() == [1.0, 2.0, 3.0]

    in_memory(body)


def test_a_write_the_server_stamps_gets_facility_time() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect(["T:Count"], 1.0))["T:Count"]
        first = channel.latest()
        assert first is not None
        assert first.t_ns == 0
        start = loop.now_ns()
        await channel.put(5, 1.0)
        assert (await channel.get(1.0)).t_ns == start + MS // 2

    in_memory(body)


def test_silence_turns_a_channel_stale_and_an_update_brings_it_back() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect(["T:Echo"], 1.0, stale_after_s={"T:Echo": 0.5}))["T:Echo"]
        states: list[tuple[int, LinkState]] = []
        channel.on_state(lambda _channel, state: states.append((loop.now_ns() // MS, state)))
        for _ in range(4):
            await asyncio.sleep(0.4)
            publish(ioc.echo, 1.0, loop.now_ns())
        assert states == []
        await asyncio.sleep(2.0)
        publish(ioc.echo, 1.0, loop.now_ns())
        await asyncio.sleep(0.01)
        assert states == [(1604 + 500, LinkState.STALE), (3604, LinkState.CONNECTED)]

    in_memory(body)


def test_staleness_is_true_at_the_instant_not_when_a_timer_looks() -> None:
    clock = ManualClock()
    loop = VirtualLoop()
    channel = ChannelBase("X", clock, loop, stale_after_s=1.0)
    channel.accept(1.0, 0, 0, 0)
    clock.set_ns(999 * MS)
    assert channel.state is LinkState.CONNECTED
    clock.set_ns(1000 * MS)
    assert channel.state is LinkState.STALE
    channel.accept(2.0, 0, 0, 0)
    assert channel.state.value == "connected"
    loop.close()


def test_a_cut_that_is_noticed_disconnects_and_mending_it_sends_the_value_again() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect(["T:Count"], 1.0))["T:Count"]
        states: list[LinkState] = []
        channel.on_state(lambda _channel, state: states.append(state))
        provider.set_link_down(True)
        for call in (channel.get(1.0), channel.put(1, 1.0)):
            with pytest.raises(ChannelError) as caught:
                await call
            assert caught.value.code == "channel.disconnected"
        publish(ioc.count, 42, loop.now_ns())
        provider.set_link_down(False)
        assert channel.state is LinkState.DISCONNECTED
        await asyncio.sleep(0.003)
        latest = channel.latest()
        assert latest is not None
        assert latest.value == 42
        assert states == [LinkState.DISCONNECTED, LinkState.CONNECTED]

    in_memory(body)


def test_a_cut_that_is_not_noticed_is_only_silence() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channels = await provider.connect(["T:Count", "T:Echo"], 1.0, stale_after_s={"T:Count": 0.5})
        provider.set_link_down(True, noticed=False)
        with pytest.raises(ChannelError) as caught:
            await channels["T:Count"].put(1, 0.2)
        assert caught.value.code == "channel.timeout"
        await asyncio.sleep(0.5)
        assert channels["T:Count"].state is LinkState.STALE
        assert channels["T:Echo"].state is LinkState.CONNECTED
        with pytest.raises(ChannelError) as caught:
            await provider.connect(["T:Wave"], 0.5)
        assert caught.value.code == "channel.connect"

    in_memory(body)


def test_lost_and_late_updates() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        channel = (await provider.connect(["T:Count"], 1.0))["T:Count"]
        seen: list[tuple[int, object]] = []
        forget = channel.subscribe(lambda _channel, sample: seen.append((loop.now_ns() // MS, sample.value)))
        provider.lose_updates("T:Count", 2)
        for number in range(4):
            publish(ioc.count, number, loop.now_ns())
            await asyncio.sleep(0.001)
        provider.set_extra_latency_ns(10 * MS)
        publish(ioc.count, 9, loop.now_ns())
        await asyncio.sleep(0.02)
        assert seen == [(2, 3), (6, 2), (7, 3), (18, 9)]
        assert provider.lost_updates == 2
        forget()
        forget()
        publish(ioc.count, 10, loop.now_ns())
        await asyncio.sleep(0.02)
        assert len(seen) == 4

    in_memory(body)


def test_a_name_that_does_not_exist_does_not_connect() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        with pytest.raises(ChannelError, match="T:Nobody"):
            await provider.connect(["T:Count", "T:Nobody"], 0.5)
        assert loop.now_ns() == 500 * MS

    in_memory(body)


def test_a_putter_that_waits_can_be_overtaken_as_over_channel_access() -> None:
    order: list[float] = []

    async def slow(instance: Any, value: float) -> float:
        await asyncio.sleep(0.05 if value == 1.0 else 0.0)
        order.append(value)
        return value

    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        ioc.refusing.putter = slow
        channel = (await provider.connect(["T:Refusing"], 1.0))["T:Refusing"]
        await asyncio.gather(channel.put(1.0, 1.0), channel.put(2.0, 1.0))

    in_memory(body)
    assert order == [2.0, 1.0]


def test_two_clients_see_one_server() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        other = MemoryProvider(ioc.pvdb, loop, seed=1, stream=2, latency=EXACT, user="console")
        mine = (await provider.connect(["T:Count"], 1.0))["T:Count"]
        theirs = (await other.connect(["T:Count"], 1.0))["T:Count"]
        await mine.put(11, 1.0)
        await asyncio.sleep(0.01)
        await other.close()
        for channel in (mine, theirs):
            sample = channel.latest()
            assert sample is not None
            assert sample.value == 11
        assert theirs.state is LinkState.DISCONNECTED

    in_memory(body)


def test_publishing_does_what_caproto_writing_does() -> None:
    fast, slow = small_ioc(), small_ioc()
    for attribute, value in [
        ("echo", 2.5),
        ("count", 4),
        ("wave", WAVE),
        ("text", "x"),
        ("cmd", b"abc"),
        ("fixed", 1.0),
    ]:
        one, other = getattr(fast, attribute), getattr(slow, attribute)
        publish(one, value, 1_234_567_891_011)
        with stamp_with(ManualClock(1_234_567_891_011)):
            run_sync(other.write(value, verify_value=False))
        one_native, other_native = native_value(one), native_value(other)
        assert np.array_equal(one_native, other_native) if attribute == "wave" else one_native == other_native
        assert stamp_ns(one) == stamp_ns(other) == 1_234_567_891_011
        assert type(one.value) is type(other.value)


@pytest.mark.parametrize(
    ("value", "severity", "status"),
    [(0.0, 0, 0), (5.0, 1, 4), (-6.0, 1, 6), (9.0, 2, 3), (-20.0, 2, 5), (float("nan"), 3, 17)],
)
def test_publishing_raises_the_alarm_that_the_limits_give(value: float, severity: int, status: int) -> None:
    ioc = small_ioc()
    publish(ioc.alarmed, value, 0)
    assert (ioc.alarmed.alarm.severity, ioc.alarmed.alarm.status) == (severity, status)
    publish(ioc.alarmed, 0.0, 1)
    assert (ioc.alarmed.alarm.severity, ioc.alarmed.alarm.status) == (0, 0)
    publish(ioc.alarmed, 0.0, 2, severity=3)
    assert (ioc.alarmed.alarm.severity, ioc.alarmed.alarm.status) == (3, 17)


def test_one_alarm_does_not_touch_another_pv() -> None:
    async def body(provider: MemoryProvider, ioc: SmallIoc, loop: VirtualLoop) -> None:
        publish(ioc.alarmed, 20.0, 0)
        publish(ioc.count, 1, 0)
        assert ioc.alarmed.alarm.severity == 2
        assert ioc.count.alarm.severity == 0

    in_memory(body)


def test_published_arrays_are_the_servers_own_and_enums_take_index_or_name() -> None:
    ioc = small_ioc()
    mine = np.zeros(64)
    publish(ioc.wave, mine, 0)
    mine[0] = 99.0
    assert ioc.wave.value[0] == 0.0
    assert isinstance(ioc.mode, ChannelEnum)
    publish(ioc.mode, 2, 0)
    assert ioc.mode.value == "HELD"
    publish(ioc.mode, "ON", 0)
    assert native_value(ioc.mode) == 1
    with pytest.raises(IndexError):
        publish(ioc.mode, 7, 0)


def test_a_synchronous_call_that_would_wait_is_a_defect() -> None:
    with pytest.raises(InternalError, match="waited"):
        run_sync(asyncio.sleep(0))
