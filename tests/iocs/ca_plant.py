"""Process under test: the plant's IOCs around a fake plant; prints READY {json}, obeys lines of JSON on its input.

A line may hold: signals {index: value}, raw {name: [supply 0, supply 1]}, status {field: value}, advance_ms, events.
Each is answered DONE {what the plant was told to do}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np

from channels.caproto_server import serve
from facility.pv_catalogue import REGISTER_COLUMNS
from facility.states import FrontEndState, RingPhase
from facility.timebase import NS_PER_MS
from tests.iocs.fakes import Bench

START_NS = 5_000_000_123


def obey(bench: Bench, order: dict[str, Any]) -> None:
    plant = bench.plant
    for index, value in order.get("signals", {}).items():
        plant.signals[int(index)] = value
    for name, pair in order.get("raw", {}).items():
        for k, value in enumerate(pair):
            plant.raw[name, k] = value
    status = order.get("status", {})
    if "state" in status:
        status["state"] = FrontEndState[status["state"]]
    if "phase" in status:
        status["phase"] = RingPhase[status["phase"]]
    plant.set(**status)
    if "advance_ms" in order:
        bench.clock.advance_ns(order["advance_ms"] * NS_PER_MS)
        bench.iocs.update(plant.t_ns)
    bench.event(*order.get("events", []))


async def main() -> None:
    loop = asyncio.get_running_loop()
    bench = Bench()
    bench.plant.rows = np.arange(2.0 * len(REGISTER_COLUMNS)).reshape(2, -1)
    bench.clock.set_ns(START_NS)
    bench.iocs.refresh()
    async with serve(bench.iocs.pvdb, clock=bench.clock) as server:
        print("READY " + json.dumps({"addresses": server.addresses}), flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            obey(bench, json.loads(line))
            print("DONE " + json.dumps(bench.plant.done), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
