"""Telemetry by MQTT: tells whoever wants to know; never carries a permit or a command.

The protocol has one verb, publish, and no way back: the client subscribes to nothing. Publishing never waits and never
fails: what a slow or absent broker cannot take is dropped, oldest first, and counted.

Topics: `ionctl/<facility>/state`, `/layer`, `/interlock`, `/message`, `/summary`; JSON objects with `schema`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiomqtt
import structlog

from channels.background import Background
from facility.events import canonical_json

_log = structlog.get_logger(__name__)

TELEMETRY_SCHEMA = "ionctl.telemetry/1"
TOPICS = frozenset({"state", "layer", "interlock", "message", "summary"})
_RETAINED = frozenset({"state", "summary"})
_QUEUE_MAX = 1_000
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0)
_OFFLINE = {"schema": TELEMETRY_SCHEMA, "to": "OFFLINE"}


class Telemetry(Protocol):
    """Publish-only."""

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Tell; returns at once, whatever becomes of it. Topics that are not in `TOPICS` are dropped and counted."""
        ...


class NullTelemetry:
    """No broker is configured."""

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Nothing."""


@dataclass
class TelemetryCounters:
    """What became of messages."""

    sent: int = 0
    dropped: int = 0
    connections: int = 0
    failures: int = 0


class MqttTelemetry:
    """Publishes to an MQTT broker from a bounded queue. Use as an async context manager, in real time only.

    Args:
        host, port: the broker.
        facility: middle part of the topics.
        queue_max: messages kept while the broker is away or slow; beyond that the oldest is dropped.
    """

    def __init__(self, host: str, port: int, facility: str, *, queue_max: int = _QUEUE_MAX) -> None:
        self.counters = TelemetryCounters()
        self._host = host
        self._port = port
        self._facility = facility
        self._queue: deque[tuple[str, bytes, bool]] = deque()
        self._queue_max = queue_max
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._task = Background("telemetry")

    async def __aenter__(self) -> MqttTelemetry:
        self._task.start(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give what is queued a moment to leave, then stop."""
        if self._queue and self.counters.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._emptied.wait()
        await self._task.stop()

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """See `Telemetry`."""
        if topic not in TOPICS:
            self.counters.dropped += 1
            return
        payload = canonical_json({"schema": TELEMETRY_SCHEMA, **data})
        if len(self._queue) >= self._queue_max:
            self._queue.popleft()
            self.counters.dropped += 1
        self._queue.append((self._topic(topic), payload, topic in _RETAINED))
        self._emptied.clear()
        self._filled.set()

    def _topic(self, topic: str) -> str:
        return f"ionctl/{self._facility}/{topic}"

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._client() as client:
                    self.counters.connections += 1
                    failures = 0
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError) as problem:
                self.counters.failures += 1
                _log.info("telemetry has no broker", broker=f"{self._host}:{self._port}", why=str(problem))
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1

    def _client(self) -> aiomqtt.Client:
        will = aiomqtt.Will(self._topic("state"), canonical_json(_OFFLINE), qos=1, retain=True)
        return aiomqtt.Client(
            self._host, self._port, will=will, keepalive=5, timeout=5.0, max_queued_outgoing_messages=self._queue_max
        )

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Send until the connection is lost; raises MqttError then, also when there is nothing to send."""
        work = {asyncio.create_task(self._send_all(client)), asyncio.create_task(self._until_lost(client))}
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    @staticmethod
    async def _until_lost(client: aiomqtt.Client) -> None:
        """Nothing is subscribed to, so nothing arrives here but the end of the connection, as MqttError."""
        async for message in client.messages:
            _log.warning("message without a subscription", topic=str(message.topic))

    async def _send_all(self, client: aiomqtt.Client) -> None:
        """Send until the broker is lost. A message leaves the queue only when the broker has it."""
        while True:
            while self._queue:
                message = self._queue[0]
                topic, payload, retain = message
                await client.publish(topic, payload, qos=1, retain=retain)
                self.counters.sent += 1
                if self._queue and self._queue[0] is message:
                    self._queue.popleft()
            self._emptied.set()
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._filled.wait()
