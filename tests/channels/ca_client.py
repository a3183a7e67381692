"""What the tests of Channel Access do, each in a process of its own: libca reads its settings once per process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from channels.command import Signer, Status
from channels.command_client import CommandClient
from channels.epics_bridge import EpicsProvider, configure_libca
from channels.keys import derived_private_key
from channels.protocol import Channel, LinkState, Sample, Severity
from facility.errors import ChannelError
from tests.channels.ca_server import STAMP_NS
from tests.channels.helpers import WAVE, small_ioc

NAMES = list(small_ioc("CA:").pvdb)
TIMEOUT_S = 10.0


class LoopClock:
    """Wall time of the running loop."""

    def now_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)


class Server:
    """The IOC's process."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.channels.ca_server", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        word, _, data = self.line().partition(" ")
        if word != "READY":
            raise RuntimeError(data)
        ready = json.loads(data)
        self.port, self.addresses = int(ready["port"]), list(ready["addresses"])

    def line(self) -> str:
        if self.process.stdout is None:
            raise RuntimeError("no output")
        return self.process.stdout.readline().decode().strip()

    def order(self, text: str) -> None:
        if self.process.stdin is None:
            raise RuntimeError("no input")
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """End it in order; its last line."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        last = self.line()
        self.process.wait(TIMEOUT_S)
        return last


@asynccontextmanager
async def connected(names: list[str], **more: Any) -> AsyncIterator[tuple[EpicsProvider, dict[str, Channel]]]:
    provider = EpicsProvider(LoopClock())
    try:
        yield provider, await provider.connect(names, TIMEOUT_S, **more)
    finally:
        await provider.close()


async def state_is(channel: Channel, wanted: LinkState) -> None:
    """Wait, by event, for a state."""
    reached = asyncio.Event()
    forget = channel.on_state(lambda _channel, state: reached.set() if state is wanted else None)
    if channel.state is not wanted:
        await asyncio.wait_for(reached.wait(), TIMEOUT_S)
    forget()


async def case_values(server: Server) -> None:
    """Every type there and back, with the server's facility-time stamps."""
    async with connected(NAMES) as (_, channels):
        values = {name.removeprefix("CA:"): channel.latest() for name, channel in channels.items()}
        plain = {name: sample.value for name, sample in values.items() if sample}
        wave, table = plain.pop("Wave"), plain.pop("Table")
        assert plain == {
            "Number": 1.5,
            "Count": 3,
            "Text": "hello",
            "Mode": 0,
            "Cmd": b"{}",
            "Cmd-Result": b"{}",
            "Empty": b"",
            "Fixed": 7.0,
            "Alarmed": 0.0,
            "Refusing": 0.0,
            "Echo": 0.0,
        }, plain
        assert isinstance(wave, np.ndarray)
        assert wave.dtype == np.float64
        assert not wave.flags.writeable
        assert isinstance(table, np.ndarray)
        assert table.shape == (0,), table
        for name, value in [("Mode", "HELD"), ("Mode", 1), ("Text", "h\xe9"), ("Count", -7), ("Empty", b"a\xff\x00b")]:
            channel = channels[f"CA:{name}"]
            await channel.put(value, TIMEOUT_S)
            sample = await channel.get(TIMEOUT_S)
            assert sample.value == (2 if value == "HELD" else value), sample
            assert sample.t_ns == STAMP_NS, sample
        await channels["CA:Wave"].put([1, 2, 3], TIMEOUT_S)
        back = (await channels["CA:Wave"].get(TIMEOUT_S)).value
        assert isinstance(back, np.ndarray)
        assert back.tolist() == [1.0, 2.0, 3.0]
        await channels["CA:Number"].put(4.0, TIMEOUT_S)
        assert (await channels["CA:Echo"].get(TIMEOUT_S)).value == 8.0


async def case_refusals(server: Server) -> None:
    """A refused put looks like a good one; what is known beforehand raises."""
    async with connected(NAMES) as (provider, channels):
        for name, value, kept in [("Number", 400.0, 1.5), ("Refusing", 1.0, 0.0)]:
            await channels[f"CA:{name}"].put(value, TIMEOUT_S)
            sample = await channels[f"CA:{name}"].get(TIMEOUT_S)
            assert sample.value == kept
            assert sample.severity == Severity.MAJOR
        assert provider.refused_puts == 2
        for name, value, code in [
            ("Fixed", 1.0, "channel.read-only"),
            ("Wave", [0.0] * 65, "channel.bad-value"),
            ("Mode", "BROKEN", "channel.bad-value"),
            ("Count", 1.5, "channel.bad-value"),
        ]:
            with pytest.raises(ChannelError) as caught:
                await channels[f"CA:{name}"].put(value, TIMEOUT_S)
            assert caught.value.code == code


async def case_commands(server: Server) -> None:
    """Done and refused are known from the result PV alone."""
    async with connected(["CA:Cmd", "CA:Cmd-Result"], monitor=["CA:Cmd-Result"]) as (provider, channels):
        signer = Signer("console", "operator", derived_private_key(1, "console"))
        client = CommandClient(channels["CA:Cmd"], channels["CA:Cmd-Result"], signer, LoopClock())
        done = await client.call("start", {"plan": "P-1"}, TIMEOUT_S)
        assert (done.status, done.data) == (Status.DONE, {"plan": "P-1"})
        refused = await client.call("reset", {}, TIMEOUT_S)
        assert (refused.status, refused.code) == (Status.REFUSED, "command.unknown-verb")
        assert provider.refused_puts == 0


async def case_monitors(server: Server) -> None:
    """A burst arrives in order and whole."""
    async with connected(["CA:Wave"]) as (provider, channels):
        got: list[float] = []
        last = asyncio.Event()

        def note(_channel: Channel, sample: Sample) -> None:
            if isinstance(sample.value, np.ndarray):
                got.append(float(sample.value[0]))
                if sample.value[0] == 499.0 and np.array_equal(sample.value, WAVE + 499):
                    last.set()

        channels["CA:Wave"].subscribe(note)
        server.order("burst 500")
        await asyncio.wait_for(last.wait(), TIMEOUT_S)
        assert got == [0.0, *map(float, range(500))]
        assert provider.lost_updates == 0


async def case_death(server: Server) -> None:
    """A killed server disconnects; one started again on its port is found by fresh channels."""
    async with connected(["CA:Count", "CA:Echo"], monitor=["CA:Count"]) as (_, channels):
        server.kill()
        for channel in channels.values():
            await state_is(channel, LinkState.DISCONNECTED)
        with pytest.raises(ChannelError) as caught:
            await channels["CA:Count"].put(1, TIMEOUT_S)
        assert caught.value.code == "channel.disconnected"
        assert channels["CA:Count"].latest() is not None
    again = Server(server.port)
    async with connected(["CA:Count"]) as (_, channels):
        assert channels["CA:Count"].state is LinkState.CONNECTED
    assert again.end() == "LEFT []"


async def case_hang(server: Server) -> None:
    """A stopped server is stale when the declared silence is over; Channel Access itself would take 5 s and more."""
    async with connected(["CA:Wave"], stale_after_s={"CA:Wave": 0.3}) as (_, channels):
        os.kill(server.process.pid, signal.SIGSTOP)
        await state_is(channels["CA:Wave"], LinkState.STALE)
        with pytest.raises(ChannelError) as caught:
            await channels["CA:Wave"].get(0.2)
        assert caught.value.code == "channel.timeout"
        os.kill(server.process.pid, signal.SIGCONT)
        server.order("burst 1")
        await state_is(channels["CA:Wave"], LinkState.CONNECTED)


async def case_nobody(server: Server) -> None:
    """A name that no server has is named in the error."""
    with pytest.raises(ChannelError) as caught:
        await connected(["CA:Count", "CA:Nobody"]).__aenter__()
    assert caught.value.code == "channel.connect"
    assert "CA:Nobody" in str(caught.value)
    assert "CA:Count" not in str(caught.value)
    with pytest.raises(ChannelError) as caught:
        configure_libca(["127.0.0.1:1"])
    assert caught.value.code == "channel.configured"


async def case_order(server: Server) -> None:
    """The server ends in order and leaves nothing behind."""
    async with connected(["CA:Count"]):
        last = server.end()
        assert last == "LEFT []", last


def main(case: str) -> None:
    global TIMEOUT_S
    if case == "nobody":
        TIMEOUT_S = 1.0
    server = Server()
    try:
        configure_libca(server.addresses)
        asyncio.run(globals()[f"case_{case}"](server), debug=True)
    finally:
        server.kill()
    print("PASSED")


if __name__ == "__main__":
    main(sys.argv[1])
