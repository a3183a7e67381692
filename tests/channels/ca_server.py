"""Process under test: the small IOC by Channel Access, with a command server behind `Cmd`.

Prints READY {json}. Each line of its input is an order: `burst N` publishes N waveforms, then DONE is printed. Ends
with the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from channels.caproto_server import serve
from channels.command import CommandResult, Status
from channels.command_server import CommandVerifier, Repeated, Verified
from channels.keys import KeyRing, derived_private_key
from channels.publish import publish
from facility.timebase import ManualClock
from tests.channels.helpers import WAVE, SmallIoc, small_ioc

STAMP_NS = 5_000_000_123


def obey_commands(ioc: SmallIoc, clock: ManualClock) -> None:
    """'start' is done at once; everything else is refused, which only the result PV tells."""
    ring = KeyRing()
    ring.add("console", derived_private_key(1, "console").public_key(), ["operator"])
    verifier = CommandVerifier(ring, {"start": ["operator"]}, clock)

    async def put(_instance: Any, value: Any) -> Any:
        verdict = verifier.verify(bytes(value))
        if isinstance(verdict, Verified):
            result = CommandResult(verdict.command.id, Status.DONE, data=dict(verdict.command.args))
            verifier.record(result)
        else:
            result = verdict.result if isinstance(verdict, Repeated) else verdict.result()
        publish(ioc.result, result.encode(), clock.now_ns())
        return value

    ioc.cmd.putter = put


async def main() -> None:
    clock = ManualClock(STAMP_NS)
    ioc = small_ioc("CA:")
    ioc.now_ns = clock.now_ns
    obey_commands(ioc, clock)
    loop = asyncio.get_running_loop()
    async with serve(ioc.pvdb, clock=clock, port=int(sys.argv[1])) as server:
        print("READY " + json.dumps({"port": server.port, "addresses": server.addresses}), flush=True)
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            for index in range(int(line.split()[1])):
                clock.advance_ns(1000)
                publish(ioc.wave, WAVE + index, clock.now_ns())
                await asyncio.sleep(0)
            print("DONE", flush=True)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    print(f"LEFT {sorted(str(task.get_coro()) for task in left)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
