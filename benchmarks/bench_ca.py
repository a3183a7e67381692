"""Channel Access: monitors and puts of our server, of stock caproto and of a C soft IOC, under one client in one run.

Each server and the client are processes of their own on loopback. The servers take turns at every load, so that a slow
moment of the machine does not fall on one of them alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from typing import Any

from benchmarks.report import ROOT, save

SERVERS = {"ours": "ionctl", "stock": "caproto, stock", "c": "C soft IOC"}
SCALAR_HZ = (10, 40, 80)
WAVE_HZ = (10, 100)
LISTEN_S = 4.0
PUTS = 200
TIMEOUT_S = 60.0


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return int(udp.getsockname()[1])


class Talk:
    """A child process that is spoken to in lines."""

    def __init__(self, module: str, arguments: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def say(self, line: str) -> None:
        """Send a line."""
        if self.process.stdin is None:
            raise RuntimeError("no pipe")
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Wait for a line."""
        if self.process.stdout is None:
            raise RuntimeError("no pipe")
        while line := self.process.stdout.readline():
            if line.startswith(("READY", "{")):
                return line
        raise RuntimeError(f"{self.process.args} ended")

    def end(self) -> None:
        """Close its input and wait for its end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Pair:
    """A server and a client that sees only this server."""

    def __init__(self, kind: str) -> None:
        port, repeater = _free_port(), _free_port()
        env = os.environ | {
            "EPICS_CA_ADDR_LIST": "127.0.0.1", "EPICS_CA_AUTO_ADDR_LIST": "NO", "EPICS_CA_SERVER_PORT": str(port),
            "EPICS_CAS_SERVER_PORT": str(port), "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_REPEATER_PORT": str(repeater), "EPICS_CAS_BEACON_PORT": str(repeater),
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1", "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }  # fmt: skip
        self.server = Talk("benchmarks.ca_server", [kind, str(port)], env)
        self.server.hear()
        self.client = Talk("benchmarks.ca_client", [], env)

    def ask(self, request: str) -> dict[str, Any]:
        """What the client measured."""
        self.client.say(request)
        answer: dict[str, Any] = json.loads(self.client.hear())
        return answer

    def monitors(self, what: str, hz: int) -> dict[str, Any]:
        """Publish at this rate and listen."""
        self.server.say(f"{what} {hz}")
        try:
            return self.ask(f"listen {what} {LISTEN_S}")
        finally:
            self.server.say("quiet")

    def end(self) -> None:
        """End both."""
        self.client.end()
        self.server.end()


def main() -> int:
    """Measure, print, save."""
    kinds = [kind for kind in SERVERS if kind != "c" or importlib.util.find_spec("epicscorelibs")]
    pairs = {kind: Pair(kind) for kind in kinds}
    monitors: list[dict[str, Any]] = []
    puts: list[dict[str, Any]] = []
    try:
        for what, rates, per_burst in (("scalars", SCALAR_HZ, 100), ("wave", WAVE_HZ, 1)):
            for hz in rates:
                for kind, pair in pairs.items():
                    found = pair.monitors(what, hz)
                    load = f"100 scalars at {hz} Hz" if what == "scalars" else f"4,000 doubles at {hz} Hz"
                    monitors.append({"server": SERVERS[kind], "load": load, "asked_per_s": hz * per_burst} | found)
        for kind, pair in pairs.items():
            put, echo = pair.ask(f"put {PUTS}"), pair.ask(f"echo {PUTS}")
            puts.append({
                "server": SERVERS[kind], "put_p50_ms": put["p50_ms"], "put_p99_ms": put["p99_ms"],
                "put_to_monitor_p50_ms": echo["p50_ms"], "put_to_monitor_p99_ms": echo["p99_ms"], "lost": echo["lost"],
            })  # fmt: skip
    finally:
        for pair in pairs.values():
            pair.end()
    save("ca", {"Channel Access monitors, one pyepics client": monitors, "Channel Access puts": puts})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
