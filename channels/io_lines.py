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

A card says more than once between two reads where its clock runs ahead of ours, or ours was late. On each line 0 is the
safe side, so a line is 1 only if all that was said since the last read says so: a trip that was there and is gone has
been there. Something unsound is all lines off. Both drivers take at most `SAID_MAX` at once; a card that says so much
is not one that speaks every 2 ms, what more of it waits is old, and all its lines are off.
"""

from __future__ import annotations

import contextlib
import functools
import operator
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
_SILENT_NS = 1_000_000_000
_DATAGRAM_MAX = 4096
SAID_MAX = 64
"""Bytes or datagrams taken in one call: 0.13 s of what a card should say, longer than any watchdog."""
Now = Callable[[], int]
"""Wall time that never goes back, ns."""


class LinesRead(NamedTuple):
    """What a card has said since it was read last."""

    bits: int
    """Lines that were 1 in all of it."""
    t_ns: int
    """When it was received, wall time."""


class _Heard(NamedTuple):
    """The last datagram in order."""

    seq: int
    bits: int
    t_ns: int


class LineDriver(Protocol):
    """One card. Neither method waits."""

    def write(self, bits: int) -> None:
        """Say how the lines of the rack stand; called every 2 ms. What cannot be sent is lost: the card notices."""
        ...

    def read(self) -> LinesRead | None:
        """What the card has said since the last call, the last reading again if nothing; None before the first."""
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


def merge_lines(said: list[int], now_ns: int, last: LinesRead | None) -> LinesRead | None:
    """One reading of all that was said since ``last``: see the module."""
    if not said:
        return last
    return LinesRead(functools.reduce(operator.and_, said), now_ns)


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
        self._heard: _Heard | None = None
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
        """See LineDriver. A card that begins anew may begin at any number once it has been silent for a second.

        A datagram that is repeated or comes late is no news and renews nothing; but if it shows a line off that was on
        in a later one, that line was off and nobody knew: all lines are off.
        """
        now_ns, said = self._now(), []
        for _ in range(SAID_MAX):
            try:
                datagram = self._socket.recv(_DATAGRAM_MAX)
            except OSError:  # nothing more, or the peer's port is closed
                break
            bits = self._judge(datagram, now_ns)
            if bits is not None:
                said.append(bits)
        else:
            said.append(0)
        self._last = merge_lines(said, now_ns, self._last)
        return self._last

    def _judge(self, datagram: bytes, now_ns: int) -> int | None:
        """Lines that a datagram shows; None if it shows nothing new."""
        found = unpack_frame(datagram)
        if found is None:
            self.bad_frames += 1
            return 0
        bits, seq = found
        heard = self._heard
        if heard is None or now_ns - heard.t_ns > _SILENT_NS or 0 < (seq - heard.seq) % (1 << 16) < _SEQ_HALF:
            self._heard = _Heard(seq, bits, now_ns)
            return bits
        self.bad_frames += 1
        return 0 if heard.bits & ~bits else None

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
        """See LineDriver."""
        try:
            data = os.read(self._in, SAID_MAX)
        except OSError:  # nothing new
            data = b""
        found = [unpack_byte(byte) for byte in data]
        self.bad_bytes += found.count(None)
        said = [bits or 0 for bits in found] + [0] * (len(data) == SAID_MAX)
        self._last = merge_lines(said, self._now(), self._last)
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
