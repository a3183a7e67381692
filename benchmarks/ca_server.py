"""One Channel Access server of the comparison, a process of its own: ``python -m benchmarks.ca_server KIND PORT``.

KIND is ``ours`` (channels.caproto_server), ``stock`` (caproto as it comes) or ``c`` (the soft IOC of EPICS base, as the
package epicscorelibs brings it). All three serve the same PVs: ``B:S0`` to ``B:S99``, ``B:WAVE`` of 4,000 doubles,
``B:CMD`` whose new value the server copies to ``B:ECHO``. What is published is the monotonic clock at that moment.

Says READY, then reads lines from stdin: ``scalars HZ``, ``wave HZ``, ``quiet``; ends with its input.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_SCALARS = 100
N_WAVE = 4000
IDLE_S = 0.01
Publish = Callable[[int, float], Any]
"""(index of the scalar, or -1 for the waveform; value)."""


class Orders:
    """What to publish and how often, as the last line of stdin says."""

    def __init__(self) -> None:
        self.what = "quiet"
        self.period_s = 1.0
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            what, *hz = line.split()
            self.period_s = 1.0 / float(hz[0]) if hz else 1.0
            self.what = what
        self.ended.set()

    def burst(self) -> list[int]:
        """Indices to publish now."""
        return {"scalars": list(range(N_SCALARS)), "wave": [-1]}.get(self.what, [])

    def next_burst(self, due: float) -> float:
        """When the next burst is due: on the grid of the last, without catching up on what was missed."""
        now = time.monotonic()
        return now + IDLE_S if self.what == "quiet" else max(due + self.period_s, now)


def serve_caproto(kind: str, port: int) -> None:
    """Our server, or caproto's own, around one PV group."""
    import numpy as np
    from caproto.server import PVGroup, pvproperty

    fields: dict[str, Any] = {f"s{i}": pvproperty(value=0.0, name=f"S{i}", read_only=True) for i in range(N_SCALARS)}
    fields["wave"] = pvproperty(value=[0.0] * N_WAVE, max_length=N_WAVE, name="WAVE", read_only=True)
    fields["echo"] = pvproperty(value=0.0, name="ECHO", read_only=True)
    fields["cmd"] = pvproperty(value=0.0, name="CMD")
    orders = Orders()
    waves = np.zeros(N_WAVE)

    async def run() -> None:
        publish: Publish

        async def follow_orders() -> None:
            due = time.monotonic()
            while not orders.ended.is_set():
                for index in orders.burst():
                    result = publish(index, time.monotonic())
                    if result is not None:
                        await result
                due = orders.next_burst(due)
                await asyncio.sleep(max(due - time.monotonic(), 0.0))

        def value_of(index: int, value: float) -> tuple[str, Any]:
            if index >= 0:
                return f"s{index}", value
            waves[0] = value
            return "wave", waves.copy()

        if kind == "ours":
            from channels.caproto_server import serve
            from channels.publish import publish as publish_value
            from facility.timebase import ManualClock

            clock = ManualClock(1_000_000)

            async def copy_ours(group: Any, instance: Any, value: float) -> float:
                publish_value(group.echo, value, clock.now_ns())
                return value

            fields["cmd"] = fields["cmd"].putter(copy_ours)
            group: Any = type("Group", (PVGroup,), fields)(prefix="B:")

            def publish(index: int, value: float) -> None:
                name, data = value_of(index, value)
                publish_value(getattr(group, name), data, clock.now_ns())

            async with serve(group.pvdb, clock=clock, port=port):
                print("READY", flush=True)
                await follow_orders()
        else:
            from caproto.asyncio.server import Context

            async def copy_stock(group: Any, instance: Any, value: float) -> float:
                await group.echo.write(value)
                return value

            fields["cmd"] = fields["cmd"].putter(copy_stock)
            group = type("Group", (PVGroup,), fields)(prefix="B:")

            def publish(index: int, value: float) -> Any:
                name, data = value_of(index, value)
                return getattr(group, name).write(data)

            started = asyncio.Event()

            async def hook(_async_lib: Any) -> None:
                started.set()

            task = asyncio.create_task(Context(group.pvdb, ["127.0.0.1"]).run(startup_hook=hook))
            await started.wait()
            print("READY", flush=True)
            await follow_orders()
            task.cancel()

    asyncio.run(run())


def serve_c() -> None:
    """The C soft IOC, written to through the database's own interface."""
    import epicscorelibs.ioc as soft_ioc

    records = [f'record(ai, "B:S{i}") {{ field(TSE, "0") }}' for i in range(N_SCALARS)]
    records += [
        f'record(waveform, "B:WAVE") {{ field(FTVL, "DOUBLE") field(NELM, "{N_WAVE}") }}',
        'record(ao, "B:CMD") { field(FLNK, "B:ECHO") }',
        'record(calc, "B:ECHO") { field(INPA, "B:CMD") field(CALC, "A") }',
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        path.write_text("\n".join(records) + "\n", encoding="utf-8")
        soft_ioc.start_ioc(str(path))
    base: Any = soft_ioc.dbCore
    double = 10  # old DBR numbering as the database's own interface has it: DBR_DOUBLE

    def address(name: str) -> Any:
        buffer = ctypes.create_string_buffer(512)
        if base.dbNameToAddr(name.encode(), buffer) != 0:
            raise RuntimeError(f"no record {name}")
        return buffer

    scalars = [address(f"B:S{i}") for i in range(N_SCALARS)]
    wave, waves = address("B:WAVE"), (ctypes.c_double * N_WAVE)()
    orders = Orders()
    print("READY", flush=True)
    due = time.monotonic()
    while not orders.ended.is_set():
        for index in orders.burst():
            if index >= 0:
                base.dbPutField(scalars[index], double, ctypes.byref(ctypes.c_double(time.monotonic())), 1)
            else:
                waves[0] = time.monotonic()
                base.dbPutField(wave, double, ctypes.byref(waves), N_WAVE)
        due = orders.next_burst(due)
        time.sleep(max(due - time.monotonic(), 0.0))
    sys.stdout.flush()
    os._exit(0)  # the IOC's own threads do not end


if __name__ == "__main__":
    if sys.argv[1] == "c":
        serve_c()
    else:
        serve_caproto(sys.argv[1], int(sys.argv[2]))
