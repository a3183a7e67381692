"""A man in the middle of the safety link between real processes: UDP on loopback, with every fault a wire may have.

The rack is told that the safety controller is at `for_rack`, the safety controller that the rack is at `for_safety`;
what comes in at one goes out at the other. For tests and soaks; nothing that runs a facility needs it.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading

from channels.frames import FRAME_MAX
from channels.wire_faults import WireFaults
from rig.settling import settle
from rig.wall_clock import monotonic_ns

Address = tuple[str, int]
_IN_FLIGHT_MAX = 10_000
"""Frames that are held for later; the oldest of more are lost."""
_LONGEST_WAIT_S = 1.0


class Way:
    """One direction: its faults, and whether it is cut. Every member is used under the relay's lock."""

    def __init__(self) -> None:
        self.faults = WireFaults()
        self.cut = False
        self.passed = 0
        """Frames that came in."""


class LinkRelay:
    """Relays until `close`. Hold `lock` to change a `Way`."""

    def __init__(self) -> None:
        settle()  # a collection of everything that was imported would stop the relay for longer than the watchdog
        self.lock = threading.Lock()
        self.images = Way()
        """From the rack to the safety controller."""
        self.permits = Way()
        """From the safety controller to the rack."""
        self._rack_side, self._safety_side = _socket(), _socket()
        self._rack: Address | None = None
        self._safety: Address | None = None
        self._later: list[tuple[int, int, socket.socket, bytes]] = []
        self._count = itertools.count()
        self._closing = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="link-relay", daemon=True)
        self._thread.start()

    @property
    def for_rack(self) -> Address:
        """Where the rack must think that the safety controller is."""
        return _address(self._rack_side)

    @property
    def for_safety(self) -> Address:
        """Where the safety controller must think that the rack is."""
        return _address(self._safety_side)

    def rack_at(self, host: str, port: int) -> None:
        """Where the rack is."""
        self._rack = (host, port)

    def safety_at(self, host: str, port: int) -> None:
        """Where the safety controller is."""
        self._safety = (host, port)

    def close(self) -> None:
        """Relay no more, and free the ports."""
        if self._closing:
            return
        self._closing = True
        self._wake_out.send(b"x")
        self._thread.join()
        for one in (self._rack_side, self._safety_side, self._wake_in, self._wake_out):
            one.close()

    # --- on the thread -------------------------------------------------------------------------------------
    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._rack_side, selectors.EVENT_READ, self.images)
            selector.register(self._safety_side, selectors.EVENT_READ, self.permits)
            selector.register(self._wake_in, selectors.EVENT_READ, None)
            while not self._closing:
                for key, _ in selector.select(self._wait_s()):
                    if key.data is not None:
                        self._take(key.data)
                self._send_due()

    def _wait_s(self) -> float:
        if not self._later:
            return _LONGEST_WAIT_S
        return min(_LONGEST_WAIT_S, max(0.0, (self._later[0][0] - monotonic_ns()) * 1e-9))

    def _take(self, way: Way) -> None:
        """All that waits at one side."""
        images = way is self.images
        source, out = (self._rack_side, self._safety_side) if images else (self._safety_side, self._rack_side)
        expected = self._rack if images else self._safety
        while True:
            try:
                frame, sender = source.recvfrom(FRAME_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # the peer's port was closed when we sent
            if sender != expected:
                continue
            with self.lock:
                way.passed += 1
                carried = [] if way.cut else way.faults.carry(frame)
            now_ns = monotonic_ns()
            for extra_ns, one in carried:
                heapq.heappush(self._later, (now_ns + extra_ns, next(self._count), out, one))
            del self._later[_IN_FLIGHT_MAX:]

    def _send_due(self) -> None:
        while self._later and self._later[0][0] <= monotonic_ns():
            _, _, out, frame = heapq.heappop(self._later)
            images = out is self._safety_side
            way, to = (self.images, self._safety) if images else (self.permits, self._rack)
            if to is None or way.cut:
                continue
            try:
                out.sendto(frame, to)
            except OSError:
                continue  # nobody listens there any more


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def _address(one: socket.socket) -> Address:
    host, port = one.getsockname()
    return str(host), int(port)
