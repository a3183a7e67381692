"""Telemetry: what arrives at a broker, what happens without one, and that it cannot carry commands."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from control import telemetry
from control.telemetry import MqttTelemetry, NullTelemetry

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto not installed")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def broker(folder: Path, port: int) -> AsyncIterator[None]:
    """A broker on loopback; ended by its own process handle."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    process = await asyncio.create_subprocess_exec(
        str(MOSQUITTO), "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        await listening(port)
        yield
    finally:
        process.terminate()
        await process.communicate()


async def listening(port: int) -> None:
    async with asyncio.timeout(10.0):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return


async def receive(client: aiomqtt.Client, count: int) -> list[tuple[str, dict[str, Any]]]:
    got: list[tuple[str, dict[str, Any]]] = []
    async with asyncio.timeout(10.0):
        async for message in client.messages:
            got.append((str(message.topic), json.loads(bytes(message.payload))))  # type: ignore[arg-type]
            if len(got) == count:
                break
    return got


@needs_broker
async def test_messages_arrive_in_order_and_the_last_will_follows(tmp_path: Path) -> None:
    port = free_port()
    async with broker(tmp_path, port), aiomqtt.Client("127.0.0.1", port) as listener:
        await listener.subscribe("ionctl/wuwei/#")
        async with MqttTelemetry("127.0.0.1", port, "wuwei") as sender:
            for i in range(5):
                sender.publish("layer", {"index": i, "t_ns": i})
            sender.publish("state", {"to": "COMPLETED"})
            got = await receive(listener, 6)
        assert [topic for topic, _ in got] == ["ionctl/wuwei/layer"] * 5 + ["ionctl/wuwei/state"]
        assert [data.get("index") for _, data in got[:5]] == [0, 1, 2, 3, 4]
        assert all(data["schema"] == "ionctl.telemetry/1" for _, data in got)
        assert sender.counters.sent == 6
        assert sender.counters.dropped == 0


@needs_broker
async def test_it_comes_back_after_the_broker_was_away(tmp_path: Path) -> None:
    port = free_port()
    async with MqttTelemetry("127.0.0.1", port, "wuwei") as sender:
        sender.publish("summary", {"session": "S-1"})
        async with broker(tmp_path, port), aiomqtt.Client("127.0.0.1", port) as listener:
            await listener.subscribe("ionctl/#")
            ((topic, data),) = await receive(listener, 1)
    assert (topic, data["session"]) == ("ionctl/wuwei/summary", "S-1")


async def test_without_a_broker_the_oldest_is_dropped_and_nobody_waits() -> None:
    async with MqttTelemetry("127.0.0.1", free_port(), "wuwei", queue_max=10) as sender:
        for i in range(25):
            sender.publish("layer", {"index": i})
        assert sender.counters.dropped == 15
        assert [json.loads(payload)["index"] for _, payload, _ in sender._queue] == list(range(15, 25))


async def test_a_topic_that_is_not_telemetry_is_dropped() -> None:
    async with MqttTelemetry("127.0.0.1", free_port(), "wuwei") as sender:
        sender.publish("command", {"verb": "start"})
        sender.publish("permit", {"value": True})
        assert sender.counters.dropped == 2
        assert not sender._queue
    NullTelemetry().publish("state", {})


def test_telemetry_cannot_receive() -> None:
    assert "subscribe(" not in inspect.getsource(telemetry)
    assert [name for name in vars(telemetry.Telemetry) if not name.startswith("_")] == ["publish"]
