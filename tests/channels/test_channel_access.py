"""Channel Access over real loopback sockets: server, client and test are three processes."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from caproto.asyncio.utils import _DatagramProtocol
from caproto.server import pvproperty

from channels.caproto_server import _Context, _limit_backlog, _LosesOldest, serve
from facility.errors import ChannelError
from facility.timebase import ManualClock
from rig.processes.common import until_one_ends
from tests.channels.helpers import small_ioc

pytestmark = pytest.mark.ca


@pytest.mark.parametrize("case", ["values", "refusals", "commands", "monitors", "death", "hang", "nobody", "order"])
def test_channel_access(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.channels.ca_client", case],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1:] == ["PASSED"], done.stdout + done.stderr
    assert "caRepeater" not in done.stderr


async def test_two_servers_never_share_a_port_and_a_taken_one_is_refused() -> None:
    async with (
        serve(small_ioc("A:").pvdb, clock=ManualClock()) as one,
        serve(small_ioc("B:").pvdb, clock=ManualClock()) as other,
    ):
        assert one.port != other.port
        assert one.addresses == [f"127.0.0.1:{one.port}"]
        with pytest.raises(ChannelError) as caught:
            async with serve(small_ioc("C:").pvdb, clock=ManualClock(), port=one.port):
                raise RuntimeError("served on a port that is taken")
        assert caught.value.code == "server.port"
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.close()
        await writer.wait_closed()
    async with serve(small_ioc("A:").pvdb, clock=ManualClock(), port=one.port) as again:
        assert again.port == one.port


async def test_a_process_whose_server_has_ended_does_not_look_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = asyncio.Event()

    async def fail(_context: _Context) -> None:
        await broken.wait()
        raise ValueError("a defect")

    monkeypatch.setattr(_Context, "subscription_queue_loop", fail)
    before = asyncio.all_tasks()
    async with serve(small_ioc("A:").pvdb, clock=ManualClock()) as server:
        work = asyncio.create_task(asyncio.Event().wait())
        waiting = asyncio.create_task(until_one_ends(asyncio.Event(), server, work))
        await asyncio.sleep(0)
        server.check()
        assert not waiting.done()
        broken.set()
        await asyncio.wait_for(waiting, 5.0)
        with pytest.raises(ChannelError, match="has ended: ValueError: a defect") as caught:
            server.check()
        assert caught.value.code == "server.ended"
        assert not work.done()
    left = asyncio.all_tasks() - before  # caproto leaves its other loops behind; the process ends with them
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_searches_are_answered_after_an_error_of_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_DatagramProtocol] = []

    class Noted(_DatagramProtocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            super().connection_made(transport)

    asked = asyncio.Event()
    create = _Context._create_broadcaster_transport

    async def noticed(context: _Context, interface: str) -> None:
        await create(context, interface)
        asked.set()

    monkeypatch.setattr("channels.caproto_server._DatagramProtocol", Noted)
    monkeypatch.setattr(_Context, "_create_broadcaster_transport", noticed)
    loop = asyncio.get_running_loop()
    async with serve(ioc := small_ioc("A:").pvdb, clock=ManualClock()) as server:
        name = next(iter(ioc)).encode().ljust(32, b"\0")
        search = struct.pack("!HHHHII", 0, 0, 0, 13, 0, 0) + struct.pack("!HHHHII", 6, len(name), 5, 13, 7, 7) + name
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", server.port))
            for number in range(3):
                asked.clear()
                made[0].error_received(OSError("unreachable"))
                await asyncio.wait_for(asked.wait(), 5.0)
                gc.collect()
                await loop.sock_sendall(client, search)
                answer = await asyncio.wait_for(loop.sock_recv(client, 1000), 5.0)
                assert answer, f"after {number + 1} errors"
        assert len(made) == 1, "a second transport closes the socket of the first one some time"


async def test_a_client_that_does_not_read_loses_the_oldest_and_holds_nobody_up() -> None:
    queue = _LosesOldest(3)
    for number in range(10):
        await asyncio.wait_for(queue.put(number), 1.0)
    assert [queue.get_nowait() for _ in range(3)] == [7, 8, 9]
    assert queue.lost == 7


def test_large_waveforms_keep_few_old_updates_and_small_ones_many() -> None:
    ioc = small_ioc()
    table = pvproperty(value=[0.0], dtype=float, max_length=20_000, name="Big", max_subscription_backlog=1000)
    big = table.pvspec.create(ioc)
    _limit_backlog(big)
    _limit_backlog(ioc.number)
    assert (big.max_subscription_backlog, ioc.number.max_subscription_backlog) == (10, 1000)
