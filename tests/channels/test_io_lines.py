"""Lines of an I/O card: frames, bytes, both drivers against a card made of a plain socket and plain pipes."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.io_lines import (
    GATE,
    PERMIT,
    SAID_MAX,
    TRIP,
    FdLines,
    UdpLines,
    pack_byte,
    pack_frame,
    unpack_byte,
    unpack_frame,
)
from facility.errors import ChannelError

WAIT_S = 5.0
GOOD = PERMIT | TRIP | GATE


@pytest.mark.parametrize("bits", range(8))
def test_frames_and_bytes_say_the_same_again(bits: int) -> None:
    assert unpack_frame(pack_frame(bits, 65_535 + 7)) == (bits, 6)
    assert unpack_byte(pack_byte(bits)[0]) == bits


def test_no_single_bit_can_change_unseen() -> None:
    frame = pack_frame(PERMIT | GATE, 9)
    for place in range(8 * len(frame)):
        wrong = bytearray(frame)
        wrong[place // 8] ^= 1 << place % 8
        assert unpack_frame(bytes(wrong)) is None
    assert unpack_frame(frame + b"\0") is None
    byte = pack_byte(PERMIT)[0]
    assert all(unpack_byte(byte ^ 1 << bit) is None for bit in range(8))
    assert [unpack_byte(dead) for dead in (0x00, 0xFF)] == [None, None]


class Clock:
    t_ns = 5

    def __call__(self) -> int:
        return self.t_ns


@pytest.fixture
def card() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as box:
        box.bind(("127.0.0.1", 0))
        box.settimeout(WAIT_S)
        yield box


def test_udp_carries_lines_both_ways(card: socket.socket) -> None:
    clock = Clock()
    lines = UdpLines(("127.0.0.1", 0), card.getsockname(), clock)
    assert lines.read() is None
    lines.write(PERMIT | TRIP)
    assert unpack_frame(card.recv(100)) == (PERMIT | TRIP, 1)

    def hear(*frames: bytes) -> tuple[int, int] | None:
        for frame in frames:
            card.sendto(frame, lines.address)
            assert select.select([lines._socket], [], [], WAIT_S)[0]
        return lines.read()

    assert hear(pack_frame(GATE, 7)) == (GATE, 5)
    clock.t_ns = 9
    assert hear(pack_frame(GATE, 7)) == (GATE, 5), "a repeated frame is none"
    assert hear(pack_frame(GATE | TRIP, 6)) == (GATE, 5), "nor is one that comes late"
    assert hear(pack_frame(PERMIT, 6)) == (0, 9), "but what is late and shows a line off that nobody saw takes all"
    assert lines.bad_frames == 3
    clock.t_ns = 10
    assert hear(pack_frame(PERMIT, 8)) == (PERMIT, 10)
    clock.t_ns += 2_000_000_000
    assert hear(pack_frame(TRIP, 0)) == (TRIP, clock.t_ns), "a card that was silent may begin anew"
    lines.close()


def test_a_stranger_is_not_heard(card: socket.socket) -> None:
    lines = UdpLines(("127.0.0.1", 0), card.getsockname(), Clock())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(pack_frame(7, 1), lines.address)
    card.sendto(pack_frame(0, 1), lines.address)
    assert select.select([lines._socket], [], [], WAIT_S)[0]
    assert lines.read() == (0, 5)
    lines.close()


def test_a_file_descriptor_carries_lines_both_ways(tmp_path: Path) -> None:
    there, back = tmp_path / "in", tmp_path / "out"
    os.mkfifo(there)
    os.mkfifo(back)
    lines = FdLines(str(there), str(back), Clock())
    assert lines.read() is None
    with there.open("wb", buffering=0) as say, back.open("rb", buffering=0) as hear:
        lines.write(PERMIT)
        assert unpack_byte(hear.read(1)[0]) == PERMIT
        say.write(pack_byte(PERMIT) + pack_byte(GATE))
        assert lines.read() == (0, 5), "each of the lines has been off once"
        say.write(pack_byte(GATE))
        assert lines.read() == (GATE, 5)
        say.write(b"\0")
        assert lines.read() == (0, 5), "a byte whose halves agree with nothing is all lines off"
        assert lines.bad_bytes == 1
    lines.close()


SAID = [
    ([GOOD, PERMIT | GATE, GOOD], PERMIT | GATE),
    ([GOOD, GOOD & ~PERMIT, GOOD], TRIP | GATE),
    ([GOOD, PERMIT | TRIP, GOOD], PERMIT | TRIP),
    ([None, GOOD], 0),
    ([GOOD, None], 0),
    ([GOOD, GOOD], GOOD),
    ([GOOD] * (SAID_MAX - 1), GOOD),
    ([GOOD] * SAID_MAX, 0),
]
SAID_IDS = ["a trip between", "no permit between", "gate closed between", "rubbish first", "rubbish last", "all good",
            "late", "too much"]  # fmt: skip


@pytest.mark.parametrize(("said", "bits"), SAID, ids=SAID_IDS)
def test_what_was_off_between_two_reads_is_off(
    card: socket.socket, tmp_path: Path, said: list[int | None], bits: int
) -> None:
    os.mkfifo(tmp_path / "in")
    os.mkfifo(tmp_path / "out")
    by_byte = FdLines(str(tmp_path / "in"), str(tmp_path / "out"), Clock())
    by_udp = UdpLines(("127.0.0.1", 0), card.getsockname(), Clock())
    with (tmp_path / "in").open("wb", buffering=0) as say:
        say.write(b"".join(b"\0" if one is None else pack_byte(one) for one in said))
        for seq, one in enumerate(said):
            card.sendto(b"rubbish" if one is None else pack_frame(one, seq), by_udp.address)
        for lines in (by_byte, by_udp):
            assert lines.read() == (bits, 5)
            assert lines.read() == (bits, 5), "and stays so until more is said"
        say.write(pack_byte(GOOD))
        card.sendto(pack_frame(GOOD, len(said)), by_udp.address)
        assert [by_byte.read(), by_udp.read()] == [(GOOD, 5), (GOOD, 5)]
    by_byte.close()
    by_udp.close()


def test_a_card_that_floods_holds_nobody_up_and_is_not_believed(card: socket.socket) -> None:
    class Flood(socket.socket):
        taken = 0

        def recv(self, size: int, flags: int = 0) -> bytes:
            self.taken += 1
            return pack_frame(GOOD, 1)

    lines = UdpLines(("127.0.0.1", 0), card.getsockname(), Clock())
    lines.close()
    with Flood() as flood:
        lines._socket = flood
        assert lines.read() == lines.read() == (0, 5)
        assert flood.taken == 2 * SAID_MAX


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="No such file"):
        FdLines(str(tmp_path / "nothing"), str(tmp_path / "nothing"), Clock())
    with pytest.raises(ChannelError):
        UdpLines(("203.0.113.7", 1), ("127.0.0.1", 1), Clock())
