"""Permit, trip and gate lines of a digital I/O card: an interface of their own, apart from Channel Access.

A card has three lines each way, 1 is good on all of them, so that a broken wire is a trip:

======  ===========================================  ==================================================
line    in: what the card tells the rack             out: what the rack tells the card
======  ===========================================  ==================================================
permit  the other system permits beam                the permit line of the rack stands
trip    nothing outside has tripped                  no fast interlock stronger than HOLD is in force
gate    the motion gate is open                      the front end asks for beam
======  ===========================================  ==================================================

Two drivers carry them: `UdpLines` to a box on the network, `FdLines` to a file (a device, a serial line, a pipe).
Whoever fits another card writes a third with the same two methods. What is said has to be said again and again: both
ends judge its age.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from facility.errors import ChannelError

PERMIT, TRIP, GATE = 1, 2, 4
LINE_BITS: dict[str, int] = {"permit": PERMIT, "trip": TRIP, "gate": GATE}
MAGIC = b"IOL1"
_HEAD = struct.Struct(">4sHBB")
_CRC = struct.Struct(">I")
FRAME_BYTES = _HEAD.size + _CRC.size
_SEQ_HALF = 1 << 15
_READ_MAX = 4096
Now = Callable[[], int]
"""Wall time that never goes back, ns."""


class LinesRead(NamedTuple):
    """What a card has said last."""

    bits: int
    t_ns: int
    """When it was received, wall time."""


class LineDriver(Protocol):
    """One card. Neither method waits."""

    def write(self, bits: int) -> None:
        """Say how the lines of the rack stand; called every 2 ms. What cannot be sent is lost: the card notices."""
        ...

    def read(self) -> LinesRead | None:
        """What the card has said last; None before it has said anything."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def pack_frame(bits: int, seq: int) -> bytes:
    """A datagram: magic, sequence number, lines, their complement, CRC-32 over these; 12 bytes, big-endian."""
    head = _HEAD.pack(MAGIC, seq & 0xFFFF, bits & 0xFF, ~bits & 0xFF)
    return head + _CRC.pack(zlib.crc32(head))


def unpack_frame(frame: bytes) -> tuple[int, int] | None:
    """(lines, sequence number), or None for anything that is not exactly one sound datagram."""
    if len(frame) != FRAME_BYTES:
        return None
    magic, seq, bits, inverse = _HEAD.unpack(frame[: _HEAD.size])
    if (
        magic != MAGIC
        or bits ^ inverse != 0xFF
        or _CRC.unpack(frame[_HEAD.size :])[0] != zlib.crc32(frame[: _HEAD.size])
    ):
        return None
    return bits, seq


def pack_byte(bits: int) -> bytes:
    """Lines in the low half of a byte, their complement in the high half."""
    low = bits & 0x0F
    return bytes([low | (~low & 0x0F) << 4])


def unpack_byte(byte: int) -> int | None:
    """Lines of a byte; None if its halves contradict each other."""
    low = byte & 0x0F
    return low if byte >> 4 == ~low & 0x0F else None


class UdpLines:
    """Lines over UDP, a datagram each way every 2 ms.

    Args:
        listen: host and port to bind to; port 0 takes a free one, see `address`.
        peer: host and port of the card; datagrams of others are not taken.
        now: wall clock.

    Raises ChannelError 'lines.bind'.
    """

    def __init__(self, listen: tuple[str, int], peer: tuple[str, int], now: Now) -> None:
        self._now = now
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(listen)
            self._socket.connect(peer)
        except OSError as problem:
            self._socket.close()
            raise ChannelError("lines.bind", str(problem), f"{listen[0]}:{listen[1]}") from problem
        self._socket.setblocking(False)
        self._seq = 0
        self._heard: int | None = None
        self._last: LinesRead | None = None
        self.bad_frames = 0
        """Datagrams that were unsound, repeated or out of order."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of this end."""
        host, port = self._socket.getsockname()
        return str(host), int(port)

    def write(self, bits: int) -> None:
        """See LineDriver."""
        self._seq = self._seq + 1 & 0xFFFF
        with contextlib.suppress(OSError):  # nobody listens there yet
            self._socket.send(pack_frame(bits, self._seq))

    def read(self) -> LinesRead | None:
        """See LineDriver. A card that begins anew may begin at any number once it has been silent for a second."""
        while True:
            try:
                found = unpack_frame(self._socket.recv(_READ_MAX))
            except OSError:  # nothing more, or the peer's port is closed
                return self._last
            now_ns = self._now()
            if found is None or not self._in_order(found[1], now_ns):
                self.bad_frames += 1
                continue
            self._heard = found[1]
            self._last = LinesRead(found[0], now_ns)

    def _in_order(self, seq: int, now_ns: int) -> bool:
        if self._heard is None or self._last is None or now_ns - self._last.t_ns > 1_000_000_000:
            return True
        return 0 < (seq - self._heard) % (1 << 16) < _SEQ_HALF

    def close(self) -> None:
        """See LineDriver."""
        self._socket.close()


class FdLines:
    """Lines over file descriptors, a byte each way every 2 ms (`pack_byte`).

    Args:
        input_path, output_path: files to read from and to write to; they may be the same. Opened without waiting.
        now: wall clock.

    Raises ChannelError 'lines.open'.
    """

    def __init__(self, input_path: str, output_path: str, now: Now) -> None:
        self._now = now
        self._last: LinesRead | None = None
        self.bad_bytes = 0
        """Bytes whose halves contradicted each other."""
        self._in = _open(input_path)
        try:
            self._out = _open(output_path)
        except ChannelError:
            os.close(self._in)
            raise

    def write(self, bits: int) -> None:
        """See LineDriver."""
        with contextlib.suppress(OSError):  # it takes nothing now
            os.write(self._out, pack_byte(bits))

    def read(self) -> LinesRead | None:
        """See LineDriver. Of several bytes the last counts, and all must be sound."""
        try:
            data = os.read(self._in, _READ_MAX)
        except OSError:  # nothing new
            data = b""
        for byte in data:
            bits = unpack_byte(byte)
            if bits is None:
                self.bad_bytes += 1
            self._last = LinesRead(bits or 0, self._now())
        return self._last

    def close(self) -> None:
        """See LineDriver."""
        os.close(self._in)
        os.close(self._out)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as problem:
        raise ChannelError("lines.open", str(problem), path, "give a device, a serial line or a pipe") from problem
