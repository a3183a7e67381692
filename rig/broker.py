"""A mosquitto of our own on a free port of loopback, for the demo; there or not, nothing depends on it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from facility.errors import UsageError
from rig.wall_clock import monotonic_s, sleep_s

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_START_S = 5.0
_STOP_S = 5.0


def broker_address(text: str) -> tuple[str, int]:
    """Host and port of a broker; UsageError unless it is host:port."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError("mqtt.address", f"no broker '{text}'", "--mqtt or $IONCTL_MQTT", "give host:port")
    return host, int(port)


@contextlib.contextmanager
def local_broker(folder: Path) -> Iterator[str | None]:
    """`host:port` of a broker that lives as long as the block; None where mosquitto is missing or does not start."""
    program = find_mosquitto()
    if program is None:
        yield None
        return
    port = _free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n", encoding="utf-8")
    with (folder / "mosquitto.log").open("wb") as log:
        child = subprocess.Popen([program, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}" if _listens(port, child) else None
    finally:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def find_mosquitto() -> str | None:
    """The program, also where only root's path would find it."""
    return shutil.which("mosquitto") or next(
        (found for place in _PLACES if (found := shutil.which("mosquitto", path=place))), None
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _listens(port: int, child: subprocess.Popen[bytes]) -> bool:
    deadline = monotonic_s() + _START_S
    while monotonic_s() < deadline and child.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=0.2):
                return True
        except OSError:
            sleep_s(0.02)
    return False
