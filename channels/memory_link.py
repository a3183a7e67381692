"""The carrier of safety frames in virtual time, with every fault a black channel may have.

Two ends; a frame sent at one arrives at the other `latency_ns` later, in the order of rank LINK. Nothing moves
unless somebody sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from channels.frames import FRAME_MAX, Link
from channels.wire_faults import LinkFault, WireFaults
from facility.errors import InternalError
from facility.timebase import Rank

__all__ = ["LinkEnd", "LinkFault", "MemoryLink"]

FrameHandler = Callable[[bytes], None]
_IN_FLIGHT_MAX = 1_000


class FacilityLoop(Protocol):
    """What a link needs of the event loop."""

    def now_ns(self) -> int:
        """Facility time, ns."""
        ...

    def call_at_rank(self, t_ns: int, rank: Rank, callback: Callable[..., object], *args: Any) -> object:
        """Call back at t_ns in the order of rank."""
        ...


class LinkEnd:
    """One end: send frames, and be called with those that arrive."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._peer: LinkEnd | None = None
        self._handler: FrameHandler | None = None
        self._faults = WireFaults()
        self._in_flight = 0
        self._delayed = 0
        """Of these, frames that take longer than they should."""

    def on_frame(self, handler: FrameHandler | None) -> None:
        """Call this with every frame that arrives here; None: nobody listens."""
        self._handler = handler

    def keyed_as(self, link: Link) -> None:
        """See `WireFaults.keyed_as`."""
        self._faults.keyed_as(link)

    def inject(self, fault: LinkFault, count: int = 1, *, delay_ns: int = 0, bit: int = 0) -> None:
        """Let a fault befall the next `count` frames sent from here; see `WireFaults.inject`."""
        self._link.suspect()
        self._faults.inject(fault, count, delay_ns=delay_ns, bit=bit)

    def clear(self) -> None:
        """Frames sent from here arrive as they should again."""
        self._faults.clear()

    def mend(self) -> None:
        """Nothing befalls the frames sent from here any more."""
        self._faults.clear()

    def send(self, frame: bytes) -> None:
        """Send; InternalError for more than FRAME_MAX bytes or 1,000 frames in flight."""
        if len(frame) > FRAME_MAX:
            raise InternalError(code="link.too-long", what=f"{len(frame)} bytes, at most {FRAME_MAX}")
        for extra_ns, out in self._faults.carry(frame):
            self._carry(out, extra_ns)

    def _carry(self, frame: bytes, extra_ns: int) -> None:
        if self._link.cut:
            return
        if self._in_flight >= _IN_FLIGHT_MAX:
            raise InternalError(code="link.flood", what=f"{self._in_flight} frames in flight")
        self._in_flight += 1
        loop = self._link.loop
        self._delayed += extra_ns > 0
        t_ns = loop.now_ns() + self._link.latency_ns + extra_ns
        loop.call_at_rank(t_ns, Rank.LINK, self._arrive, frame, extra_ns > 0)

    def _arrive(self, frame: bytes, delayed: bool) -> None:
        self._in_flight -= 1
        self._delayed -= delayed
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
    def sound(self) -> bool:
        """Nothing befalls the next frame, either way."""
        return not self._cut and self.a._faults.sound and self.b._faults.sound

    @property
    def late(self) -> bool:
        """A frame that takes longer than it should is on its way."""
        return bool(self.a._delayed or self.b._delayed)

    @property
    def cut(self) -> bool:
        """True: nothing arrives any more, what is in flight included."""
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self.suspect()
        self._cut = cut
