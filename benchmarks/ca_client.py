"""The one pyepics client that meets all servers of the comparison: ``python -m benchmarks.ca_client``.

Reads one request per line from stdin and answers with one JSON line: ``listen WHAT SECONDS``,
``put N``, ``echo N``.
The server is where EPICS_CA_ADDR_LIST says. Latency is the monotonic clock here less the one the server published.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import epics
import numpy as np

from benchmarks.ca_server import N_SCALARS

SETTLE_S = 1.0
GAP_S = 0.01
TIMEOUT_S = 5.0


class Listener:
    """Takes every update of some PVs and notes how old it was."""

    def __init__(self, names: list[str]) -> None:
        self.ages: list[float] = []
        self.on = False
        self.pvs = [epics.PV(name, auto_monitor=True, callback=self._take) for name in names]
        for pv in self.pvs:
            if not pv.wait_for_connection(TIMEOUT_S):
                raise RuntimeError(f"{pv.pvname} did not connect")

    def _take(self, value: Any = None, **_more: Any) -> None:
        if self.on:
            self.ages.append(time.monotonic() - float(value if np.isscalar(value) else value[0]))

    def listen(self, seconds: float) -> dict[str, float]:
        """Updates per second and their latency."""
        time.sleep(SETTLE_S)
        self.ages.clear()
        self.on = True
        begin = time.monotonic()
        time.sleep(seconds)
        self.on = False
        took = time.monotonic() - begin
        return {"updates_per_s": len(self.ages) / took} | latency(self.ages)


def latency(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile in ms."""
    if not seconds:
        return {"p50_ms": float("nan"), "p99_ms": float("nan")}
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def puts(count: int) -> dict[str, float]:
    """Time of a put that waits for the server."""
    pv = epics.PV("B:CMD", auto_monitor=False)
    pv.wait_for_connection(TIMEOUT_S)
    times = []
    for i in range(count):
        begin = time.perf_counter()
        pv.put(float(i), wait=True, timeout=TIMEOUT_S)
        times.append(time.perf_counter() - begin)
        time.sleep(GAP_S)
    return latency(times)


def echoes(count: int) -> dict[str, float]:
    """Time from a put to the monitor update that it causes."""
    seen = threading.Event()
    wanted = [0.0]

    def take(value: float = 0.0, **_more: Any) -> None:
        if value == wanted[0]:
            seen.set()

    echo = epics.PV("B:ECHO", auto_monitor=True, callback=take)
    command = epics.PV("B:CMD", auto_monitor=False)
    for pv in (echo, command):
        pv.wait_for_connection(TIMEOUT_S)
    times, lost = [], 0
    for i in range(count):
        wanted[0] = 1e6 + i
        seen.clear()
        begin = time.perf_counter()
        command.put(wanted[0], wait=False)
        if seen.wait(TIMEOUT_S):
            times.append(time.perf_counter() - begin)
        else:
            lost += 1
        time.sleep(GAP_S)
    return latency(times) | {"lost": lost}


def main() -> None:
    """Answer requests until stdin ends."""
    listeners: dict[str, Listener] = {}
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "listen":
            names = ["B:WAVE"] if words[0] == "wave" else [f"B:S{i}" for i in range(N_SCALARS)]
            if words[0] not in listeners:
                listeners[words[0]] = Listener(names)
            answer = listeners[words[0]].listen(float(words[1]))
        else:
            answer = {"put": puts, "echo": echoes}[verb](int(words[0]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
