"""The carrier of safety frames between processes: UDP on loopback, received by a thread of its own.

The thread blocks in the kernel, so a frame is taken up at once whatever the event loop does. What nobody takes is
bounded: the oldest frames are lost, which the frames' sequence numbers show.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable

from channels.crc import require_compiled_crc
from channels.frames import FRAME_MAX
from facility.errors import ChannelError

_WAITING_MAX = 256
_WAKE_UP = b""


class DatagramEnd:
    """One end of a link.

    Args:
        host: address to bind to; stay on loopback unless the network is the link's own.
        port: 0 takes a free one; see `address`.
        on_frame: called on the receiving thread after a frame was queued, to wake whoever takes it.

    Only datagrams from the peer are taken, once `connect` has named it. Raises ChannelError 'link.bind', ConfigError
    'crc.slow' where the frames' CRC would be worked out too slowly.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, on_frame: Callable[[], None] | None = None) -> None:
        require_compiled_crc()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as problem:
            self._socket.close()
            raise ChannelError(code="link.bind", what=str(problem), where=f"{host}:{port}") from problem
        self.lost = 0
        """Frames lost here because nobody took them."""
        self.unsent = 0
        """Frames the kernel would not send, because nobody listens at the peer's port, for instance."""
        self._on_frame = on_frame
        self._waiting: deque[bytes] = deque()
        self._arrived = threading.Condition()
        self._peer: tuple[str, int] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="safety-link", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of this end."""
        host, port = self._socket.getsockname()
        return str(host), int(port)

    def connect(self, host: str, port: int) -> None:
        """Name the peer."""
        self._peer = (host, port)

    def send(self, frame: bytes) -> None:
        """Send to the peer and do not wait; a frame that cannot be sent is lost, and counted in `unsent`."""
        if self._peer is None or len(frame) > FRAME_MAX:
            self.unsent += 1
            return
        try:
            self._socket.sendto(frame, self._peer)
        except OSError:
            self.unsent += 1

    def take(self) -> list[bytes]:
        """All frames that have arrived, oldest first; does not wait."""
        with self._arrived:
            frames = list(self._waiting)
            self._waiting.clear()
        return frames

    def wait(self, timeout_s: float) -> bool:
        """Block until a frame is there, at most `timeout_s` (s); never on an event loop's thread."""
        with self._arrived:
            return self._arrived.wait_for(lambda: bool(self._waiting) or self._closing, timeout_s)

    def close(self) -> None:
        """Stop receiving and free the port."""
        if self._closing:
            return
        self._closing = True
        self._socket.sendto(_WAKE_UP, self.address)
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._closing:
            try:
                frame, sender = self._socket.recvfrom(FRAME_MAX + 1)
            except OSError:
                continue  # the peer's port was closed when we sent; not a failure of receiving
            if frame and sender == self._peer:
                self._queue(frame)
        with self._arrived:
            self._arrived.notify_all()

    def _queue(self, frame: bytes) -> None:
        with self._arrived:
            if len(self._waiting) >= _WAITING_MAX:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(frame)
            self._arrived.notify_all()
        if self._on_frame is not None:
            self._on_frame()
