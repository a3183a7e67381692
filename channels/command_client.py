"""The issuer's side of commands: send, and believe only a result that carries the command's id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from channels.command import Command, CommandResult, Signer, Status
from channels.protocol import Channel, Sample
from facility.errors import ChannelError
from facility.timebase import Clock

_ATTEMPTS = 3


class CommandClient:
    """Sends commands of one issuer to one server.

    Args:
        cmd_channel: the server's `Cmd` PV.
        result_channel: its `Cmd-Result` PV, monitored.
        signer: of the issuer; clock: facility time.
    """

    def __init__(self, cmd_channel: Channel, result_channel: Channel, signer: Signer, clock: Clock) -> None:
        self._cmd = cmd_channel
        self._result = result_channel
        self._signer = signer
        self._clock = clock

    async def call(
        self, verb: str, args: Mapping[str, Any], timeout_s: float, *, until: Status = Status.DONE
    ) -> CommandResult:
        """Issue a command and wait for its end; with `until=Status.ACCEPTED`, for the server's acceptance.

        A result can be missed (only the newest stands in the PV), so the same signed command is sent again, up to
        three times in `timeout_s`; the server answers a repeat with the result it has and does nothing twice.

        Raises ChannelError 'command.no-answer' after `timeout_s`: whether the command was carried out is not known.
        """
        command = self._signer.command(verb, args, self._clock)
        frame = self._signer.sign(command)
        answer: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()

        def look(_channel: Channel, sample: Sample) -> None:
            result = _result_for(command, sample)
            if result is not None and not answer.done() and (result.status.final or until is Status.ACCEPTED):
                answer.set_result(result)

        forget = self._result.subscribe(look)
        try:
            for _ in range(_ATTEMPTS):
                if await self._attempt(frame, answer, timeout_s / _ATTEMPTS):
                    return answer.result()
        finally:
            forget()
        raise ChannelError(
            code="command.no-answer",
            what=f"no result of {verb} ({command.id}) within {timeout_s:g} s",
            where=self._result.name,
            fix="look at the server's state before trying again",
        )

    async def _attempt(self, frame: bytes, answer: asyncio.Future[CommandResult], wait_s: float) -> bool:
        """Put once and wait for the answer; a put that fails on the way may have arrived all the same."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        put = loop.create_task(self._put(frame, wait_s))
        try:
            either: set[asyncio.Future[Any]] = {answer, put}
            await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if put.done():
                put.result()
                await asyncio.wait({answer}, timeout=max(end_s - loop.time(), 0.0))
        finally:
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)
        return answer.done()

    async def _put(self, frame: bytes, wait_s: float) -> None:
        try:
            await self._cmd.put(frame, wait_s)
        except ChannelError as problem:
            if problem.code not in ("channel.timeout", "channel.disconnected"):
                raise


def _result_for(command: Command, sample: Sample) -> CommandResult | None:
    if not isinstance(sample.value, bytes) or command.id.encode() not in sample.value:
        return None  # mostly the answer to the command before, which still stands in the PV
    try:
        result = CommandResult.decode(sample.value)
    except ValueError:
        return None
    return result if result.id == command.id else None
