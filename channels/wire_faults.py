"""What a black channel may do to frames: every carrier in this repository takes its faults from here.

Pure of time and sockets: `WireFaults.carry(frame)` says which frames come out for one that goes in, and how much later
than they should.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from channels.frames import Kind, Link, encode, fields, link_identity, make_link
from facility.errors import InternalError

_KEPT_MAX = 16
_ELSEWHERE = "elsewhere"


class LinkFault(Enum):
    """What happens to frames."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    """Arrives twice, the second time 1 us later."""
    REORDER = "reorder"
    """Arrives after the frame that is sent next; `count` counts such pairs."""
    DELAY = "delay"
    """Arrives `delay_ns` later than it should."""
    CORRUPT = "corrupt"
    """One bit flipped."""
    INSERT = "insert"
    """Followed by a frame from a source that does not belong here."""
    MASQUERADE = "masquerade"
    """Replaced by one with the right names, made without the link's key."""
    MISADDRESS = "misaddress"
    """Replaced by one for another destination."""
    FOREIGN = "foreign"
    """Replaced by a frame of another facility, which is sound there."""
    OLDER_BOOT = "older-boot"
    """Replaced by one of the boot before; needs the link's key, see `WireFaults.keyed_as`."""
    REPLAY = "replay"
    """Replaced by the oldest frame that is remembered, up to 16 frames old."""


@dataclass
class _Pending:
    fault: LinkFault
    count: int
    delay_ns: int
    bit: int


class WireFaults:
    """Faults of one direction of a wire, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()
        self._sent: deque[bytes] = deque(maxlen=_KEPT_MAX)
        self._held: bytes | None = None
        self._key_of: Link | None = None

    def keyed_as(self, link: Link) -> None:
        """Facts of the frames sent here, for faults that forge with the right key."""
        self._key_of = link

    def inject(self, fault: LinkFault, count: int = 1, *, delay_ns: int = 0, bit: int = 0) -> None:
        """Let a fault befall the next `count` frames; faults follow each other in order.

        `delay_ns` is for DELAY, ns; `bit` is the number of the bit that CORRUPT flips.
        """
        self._pending.append(_Pending(fault, count, delay_ns, bit))

    def clear(self) -> None:
        """The wire is sound again."""
        self._pending.clear()

    @property
    def sound(self) -> bool:
        """Nothing befalls the next frame."""
        return not self._pending and self._held is None

    def carry(self, frame: bytes) -> list[tuple[int, bytes]]:
        """What comes out for a frame that goes in: (ns later than it should, frame)."""
        held, self._held = self._held, None
        if held is not None:
            out = [(0, frame), (1, held)]
        else:
            pending = self._next()
            out = [(0, frame)] if pending is None else self._badly(frame, pending)
        self._sent.append(frame)
        return out

    def _next(self) -> _Pending | None:
        if not self._pending:
            return None
        pending = self._pending[0]
        pending.count -= 1
        if pending.count <= 0:
            self._pending.popleft()
        return pending

    def _badly(self, frame: bytes, pending: _Pending) -> list[tuple[int, bytes]]:
        match pending.fault:
            case LinkFault.DROP:
                return []
            case LinkFault.DUPLICATE:
                return [(0, frame), (1_000, frame)]
            case LinkFault.REORDER:
                self._held = frame
                return []
            case LinkFault.DELAY:
                return [(pending.delay_ns, frame)]
            case LinkFault.CORRUPT:
                return [(0, _flipped(frame, pending.bit))]
            case LinkFault.INSERT:
                return [(0, frame), (1, _forged(frame, source=link_identity(_ELSEWHERE, "stranger")))]
            case LinkFault.MASQUERADE:
                return [(0, _forged(frame))]
            case LinkFault.MISADDRESS:
                return [(0, _forged(frame, destination=link_identity(_ELSEWHERE, "stranger")))]
            case LinkFault.FOREIGN:
                return [(0, _foreign(frame))]
            case LinkFault.OLDER_BOOT:
                return [(0, self._of_older_boot(frame))]
            case LinkFault.REPLAY:
                return [(0, self._sent[0] if self._sent else frame)]

    def _of_older_boot(self, frame: bytes) -> bytes:
        if self._key_of is None:
            raise InternalError(code="link.no-key", what="an older boot cannot be forged", fix="call keyed_as first")
        found = fields(frame)
        return encode(
            self._key_of, found.kind, found.boot - 1, found.seq, found.echo, found.t_ns, _payload(frame, found.length)
        )


def _payload(frame: bytes, length: int) -> bytes:
    return frame[-8 - length : -8]


def _flipped(frame: bytes, bit: int) -> bytes:
    octets = bytearray(frame)
    octets[(bit // 8) % len(octets)] ^= 1 << (bit % 8)
    return bytes(octets)


def _forged(frame: bytes, source: int | None = None, destination: int | None = None) -> bytes:
    """The same content by somebody who does not know the key."""
    found = fields(frame)
    stranger = Link(
        source=found.source if source is None else source,
        destination=found.destination if destination is None else destination,
        key=0,
        watchdog_ns=0,
        max_age_ns=0,
    )
    return _again(stranger, frame)


def _foreign(frame: bytes) -> bytes:
    """The same content as another facility's end of the same name would send it."""
    ends = ("rack", "safety") if fields(frame).kind == Kind.PROCESS_IMAGE else ("safety", "rack")
    return _again(make_link(_ELSEWHERE, *ends, watchdog_ns=0, max_age_ns=0), frame)


def _again(link: Link, frame: bytes) -> bytes:
    found = fields(frame)
    return encode(link, found.kind, found.boot, found.seq, found.echo, found.t_ns, _payload(frame, found.length))
