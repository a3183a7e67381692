"""Process under test: a small IOC; prints READY {json}, ends on the end of its input."""

from __future__ import annotations

import asyncio
import json
import sys

from channels.caproto_server import serve
from channels.publish import publish
from facility.timebase import ManualClock
from tests.channels.helpers import WAVE, small_ioc


async def main() -> None:
    loop = asyncio.get_running_loop()
    clock = ManualClock(5_000_000_123)
    ioc = small_ioc("CA:")
    ioc.now_ns = clock.now_ns
    async with serve(ioc.pvdb, clock=clock, port=int(sys.argv[1])) as server:
        print("READY " + json.dumps({"addresses": server.addresses}), flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            _, count = line.split()
            for index in range(int(count)):
                clock.advance_ns(1000)
                publish(ioc.wave, WAVE + index, clock.now_ns())
                await asyncio.sleep(0)
            print("DONE", flush=True)


asyncio.run(main())
