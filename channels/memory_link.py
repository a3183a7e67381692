"""The carrier of safety frames in virtual time, with every fault a black channel may have.

Two ends; a frame sent at one arrives at the other `latency_ns` later, in the order of rank LINK. Nothing moves
unless somebody sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from channels.frames import FRAME_MAX, Link, encode, fields, link_identity
from facility.errors import InternalError
from facility.timebase import Rank

FrameHandler = Callable[[bytes], None]
_IN_FLIGHT_MAX = 1_000
_KEPT_MAX = 16


class LinkFault(Enum):
    """What happens to frames."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    """Arrives twice, the second time 1 us later."""
    REORDER = "reorder"
    """Arrives after the frame that is sent next."""
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
    OLDER_BOOT = "older-boot"
    """Replaced by one of the boot before; needs the link's key, see `LinkEnd.keyed_as`."""
    REPLAY = "replay"
    """Replaced by the oldest frame that is remembered, up to 16 frames old."""


class FacilityLoop(Protocol):
    """What a link needs of the event loop."""

    def now_ns(self) -> int:
        """Facility time, ns."""
        ...

    def call_at_rank(self, t_ns: int, rank: Rank, callback: Callable[..., object], *args: Any) -> object:
        """Call back at t_ns in the order of rank."""
        ...


@dataclass
class _Pending:
    fault: LinkFault
    count: int
    delay_ns: int
    bit: int


class LinkEnd:
    """One end: send frames, and be called with those that arrive."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._peer: LinkEnd | None = None
        self._handler: FrameHandler | None = None
        self._faults: deque[_Pending] = deque()
        self._sent: deque[bytes] = deque(maxlen=_KEPT_MAX)
        self._held: bytes | None = None
        self._key_of: Link | None = None
        self._in_flight = 0

    def on_frame(self, handler: FrameHandler | None) -> None:
        """Call this with every frame that arrives here; None: nobody listens."""
        self._handler = handler

    def keyed_as(self, link: Link) -> None:
        """Facts of the frames sent from here, for faults that forge with the right key."""
        self._key_of = link

    def inject(self, fault: LinkFault, count: int = 1, *, delay_ns: int = 0, bit: int = 0) -> None:
        """Let a fault befall the next `count` frames sent from here; faults follow each other in order.

        `delay_ns` is for DELAY, ns; `bit` is the number of the bit that CORRUPT flips.
        """
        self._faults.append(_Pending(fault, count, delay_ns, bit))
        self._link.suspect()

    def send(self, frame: bytes) -> None:
        """Send; InternalError for more than FRAME_MAX bytes or 1,000 frames in flight."""
        if len(frame) > FRAME_MAX:
            raise InternalError(code="link.too-long", what=f"{len(frame)} bytes, at most {FRAME_MAX}")
        held, self._held = self._held, None
        fault = self._next_fault()
        if fault is None:
            self._carry(frame)
        else:
            self._carry_badly(frame, fault)
        if held is not None:
            self._carry(held, extra_ns=1)
        self._sent.append(frame)

    def _next_fault(self) -> _Pending | None:
        if not self._faults:
            return None
        fault = self._faults[0]
        fault.count -= 1
        if fault.count <= 0:
            self._faults.popleft()
        return fault

    def _carry_badly(self, frame: bytes, pending: _Pending) -> None:
        match pending.fault:
            case LinkFault.DROP:
                pass
            case LinkFault.DUPLICATE:
                self._carry(frame)
                self._carry(frame, extra_ns=1_000)
            case LinkFault.REORDER:
                self._held = frame
            case LinkFault.DELAY:
                self._carry(frame, extra_ns=pending.delay_ns)
            case LinkFault.CORRUPT:
                self._carry(_flipped(frame, pending.bit))
            case LinkFault.INSERT:
                self._carry(frame)
                self._carry(_forged(frame, source=link_identity("elsewhere", "stranger")), extra_ns=1)
            case LinkFault.MASQUERADE:
                self._carry(_forged(frame))
            case LinkFault.MISADDRESS:
                self._carry(_forged(frame, destination=link_identity("elsewhere", "stranger")))
            case LinkFault.OLDER_BOOT:
                self._carry(self._of_older_boot(frame))
            case LinkFault.REPLAY:
                self._carry(self._sent[0] if self._sent else frame)

    def _of_older_boot(self, frame: bytes) -> bytes:
        if self._key_of is None:
            raise InternalError(code="link.no-key", what="an older boot cannot be forged", fix="call keyed_as first")
        found = fields(frame)
        payload = frame[-8 - found.length : -8]
        return encode(self._key_of, found.kind, found.boot - 1, found.seq, found.echo, found.t_ns, payload)

    def _carry(self, frame: bytes, extra_ns: int = 0) -> None:
        if self._link.cut:
            return
        if self._in_flight >= _IN_FLIGHT_MAX:
            raise InternalError(code="link.flood", what=f"{self._in_flight} frames in flight")
        self._in_flight += 1
        loop = self._link.loop
        loop.call_at_rank(loop.now_ns() + self._link.latency_ns + extra_ns, Rank.LINK, self._arrive, frame)

    def _arrive(self, frame: bytes) -> None:
        self._in_flight -= 1
        handler = self._peer._handler if self._peer is not None else None
        if handler is not None and not self._link.cut:
            handler(frame)


class MemoryLink:
    """Both ends of a link.

    Args:
        loop: the facility's loop.
        latency_ns: of every frame, ns.
    """

    def __init__(self, loop: FacilityLoop, latency_ns: int = 100_000) -> None:
        self.loop = loop
        self.latency_ns = latency_ns
        self._cut = False
        self.suspect: Callable[[], None] = lambda: None
        """Called before something befalls the link, for owners who do not send all the while."""
        self.a = LinkEnd(self)
        self.b = LinkEnd(self)
        self.a._peer, self.b._peer = self.b, self.a

    @property
    def cut(self) -> bool:
        """True: nothing arrives any more, what is in flight included."""
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._cut = cut
        self.suspect()


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
    payload = frame[-8 - found.length : -8]
    return encode(stranger, found.kind, found.boot, found.seq, found.echo, found.t_ns, payload)
