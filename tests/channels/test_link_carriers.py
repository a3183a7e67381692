"""Carriers of safety frames: in memory with faults, and UDP on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from channels.datagram import DatagramEnd
from channels.frames import FRAME_MAX, Accepted, Kind, Reason, SendState, listening, make_link, receive, send
from channels.memory_link import LinkFault, MemoryLink
from facility.errors import ChannelError, InternalError
from rig.virtual_time import VirtualLoop, run_virtual

MS = 1_000_000
FACTS = make_link("wuwei", "plant", "safety", watchdog_ns=20 * MS, max_age_ns=3 * MS, bad_limit=100)


def deliver(count: int, prepare: Callable[[MemoryLink], None]) -> list[object]:
    """Send `count` frames, one a ms, over a link with faults: what the receiver makes of what arrives."""
    outcomes: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise TypeError(loop)
        link = MemoryLink(loop, latency_ns=100_000)
        link.a.keyed_as(FACTS)
        state = listening(FACTS, 0)

        def arrived(frame: bytes) -> None:
            nonlocal state
            state, outcome = receive(state, frame, loop.now_ns())
            outcomes.append(outcome.payload[0] if isinstance(outcome, Accepted) else outcome.reason)

        link.b.on_frame(arrived)
        sender = SendState(FACTS, boot=9)
        for number in range(count):
            if number == 1:
                prepare(link)
            sender, frame = send(sender, Kind.PROCESS_IMAGE, bytes([number]), 0, loop.now_ns())
            link.a.send(frame)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)

    run_virtual(main(), VirtualLoop())
    return outcomes


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (LinkFault.DROP, [0, Reason.LOSS, 3]),
        (LinkFault.DUPLICATE, [0, 1, Reason.REPETITION, 2, 3]),
        (LinkFault.REORDER, [0, Reason.LOSS, Reason.WRONG_ORDER, 3]),
        (LinkFault.CORRUPT, [0, Reason.CORRUPTION, Reason.LOSS, 3]),
        (LinkFault.INSERT, [0, 1, Reason.INSERTION, 2, 3]),
        (LinkFault.MASQUERADE, [0, Reason.MASQUERADE, Reason.LOSS, 3]),
        (LinkFault.FOREIGN, [0, Reason.MISADDRESSED, Reason.LOSS, 3]),
        (LinkFault.MISADDRESS, [0, Reason.MISADDRESSED, Reason.LOSS, 3]),
        (LinkFault.OLDER_BOOT, [0, Reason.OLDER_BOOT, Reason.LOSS, 3]),
        (LinkFault.REPLAY, [0, Reason.REPETITION, Reason.LOSS, 3]),
    ],
)
def test_each_fault_is_noticed_by_its_reason(fault: LinkFault, expected: list[object]) -> None:
    assert deliver(4, lambda link: link.a.inject(fault)) == expected


def test_a_delayed_frame_is_overtaken_and_a_delayed_link_is_late() -> None:
    late_one = deliver(4, lambda link: link.a.inject(LinkFault.DELAY, delay_ns=5 * MS))
    assert late_one == [0, Reason.LOSS, 3, Reason.WRONG_ORDER]
    all_late = deliver(4, lambda link: link.a.inject(LinkFault.DELAY, 3, delay_ns=5 * MS))
    assert all_late == [0, Reason.DELAY, Reason.DELAY, Reason.DELAY]


def test_without_faults_everything_arrives_and_nothing_on_a_cut_link() -> None:
    assert deliver(5, lambda _link: None) == [0, 1, 2, 3, 4]
    assert deliver(5, lambda link: setattr(link, "cut", True)) == [0]


def test_faults_follow_each_other() -> None:
    def prepare(link: MemoryLink) -> None:
        link.a.inject(LinkFault.DROP, 2)
        link.a.inject(LinkFault.DUPLICATE)

    assert deliver(5, prepare) == [0, Reason.LOSS, Reason.REPETITION, 4]


def test_a_flood_and_a_frame_that_is_too_long_are_defects() -> None:
    link = MemoryLink(VirtualLoop())
    with pytest.raises(InternalError, match="at most"):
        link.a.send(bytes(FRAME_MAX + 1))
    for _ in range(1000):
        link.a.send(b"x")
    with pytest.raises(InternalError, match="in flight"):
        link.a.send(b"x")
    link.b.inject(LinkFault.OLDER_BOOT)
    with pytest.raises(InternalError, match="cannot be forged"):
        link.b.send(b"x" * 60)


def test_datagrams_pass_between_two_ends_and_a_stranger_is_ignored() -> None:
    arrived = threading.Event()
    one, other, stranger = DatagramEnd(), DatagramEnd(on_frame=arrived.set), DatagramEnd()
    try:
        one.connect(*other.address)
        other.connect(*one.address)
        stranger.connect(*other.address)
        stranger.send(b"intruder")
        one.send(b"first")
        one.send(b"second")
        got: list[bytes] = []
        while len(got) < 2:
            assert other.wait(5.0)
            got += other.take()
        assert got == [b"first", b"second"]
        assert arrived.is_set()
        assert other.take() == []
    finally:
        for end in (one, other, stranger):
            end.close()
    one.close()


def test_frames_nobody_takes_are_bounded_and_the_oldest_are_lost() -> None:
    counted = threading.Semaphore(0)
    one, other = DatagramEnd(), DatagramEnd(on_frame=counted.release)
    try:
        one.connect(*other.address)
        other.connect(*one.address)
        for number in range(300):
            one.send(number.to_bytes(2, "big"))
            assert counted.acquire(timeout=5.0)
        frames = other.take()
        assert len(frames) == 256
        assert other.lost == 44
        assert frames[-1] == (299).to_bytes(2, "big")
    finally:
        one.close()
        other.close()


def test_sending_to_nobody_is_counted_not_raised() -> None:
    end = DatagramEnd()
    try:
        end.send(b"no peer yet")
        assert end.unsent == 1
        assert not end.wait(0.001)
        with pytest.raises(ChannelError) as caught:
            DatagramEnd(port=end.address[1])
        assert caught.value.code == "link.bind"
    finally:
        end.close()
