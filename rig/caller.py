"""Commands as calls: what a server did not do is raised here as the error that it was there."""

from __future__ import annotations

from collections.abc import Mapping

from channels.command import CommandResult, Status
from channels.command_client import CommandClient
from rig.children import error_from_dict


class Caller:
    """Sends one issuer's commands to one server; what was not done is raised as the error it was there."""

    def __init__(self, client: CommandClient) -> None:
        self._client = client

    async def call(self, verb: str, args: Mapping[str, object], timeout_s: float) -> CommandResult:
        """Send and wait for the end; the server's error, or ChannelError without an answer."""
        result = await self._client.call(verb, args, timeout_s)
        if result.status in (Status.REFUSED, Status.FAILED) and "exit_code" in result.data:
            raise error_from_dict(dict(result.data))
        return result.require_done()
