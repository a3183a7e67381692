"""Settings that libca reads once per process."""

from __future__ import annotations

import functools
import os
import socket
import struct
import threading

from channels.libca import libca
from facility.errors import ChannelError

_configured: list[dict[str, str]] = []
_REPEATER_CONFIRM = struct.pack("!HHHHI4s", 17, 0, 0, 0, 0, socket.inet_aton("127.0.0.1"))
_DATAGRAM_MAX = 65_535


def configure_libca(
    addresses: list[str], *, connection_timeout_s: float = 5.0, repeater_port: int | None = None
) -> None:
    """Tell libca where servers are; once per process, before its first use.

    Args:
        addresses: "host:port" of every server; libca asks nobody else (EPICS_CA_AUTO_ADDR_LIST=NO).
        connection_timeout_s: silence (s) after which libca probes; a hung server is noticed 5 s later at the
            earliest, so whatever matters carries a heartbeat of its own (`stale_after_s`).
        repeater_port: port of a CA repeater that runs; None: libca is told by this process that there is
            one, or it would try to start `caRepeater` and complain. Its beacons are not missed.

    Raises ChannelError 'channel.configured' if libca already runs with other settings: it reads them once.
    """
    if not addresses:
        raise ChannelError(code="channel.no-address", what="no address of a Channel Access server")
    settings = {
        "EPICS_CA_ADDR_LIST": " ".join(addresses),
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_CONN_TMO": f"{connection_timeout_s:g}",
        "EPICS_CA_REPEATER_PORT": str(repeater_port or _stand_in_repeater()),
        "EPICS_CA_AUTO_ARRAY_BYTES": "YES",
    }
    if libca.cache_info().currsize and settings not in _configured:
        raise ChannelError(
            code="channel.configured",
            what="libca already runs with other addresses",
            fix="one set of servers per process; start another process",
        )
    os.environ.update(settings)
    _configured[:] = [settings]


@functools.cache
def _stand_in_repeater() -> int:
    """Answer registrations on a free port of loopback, for the life of the process; returns the port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    threading.Thread(target=_confirm, args=(sock,), name="ca-repeater", daemon=True).start()
    return int(sock.getsockname()[1])


def _confirm(sock: socket.socket) -> None:
    while True:
        _, client = sock.recvfrom(_DATAGRAM_MAX)
        sock.sendto(_REPEATER_CONFIRM, client)
