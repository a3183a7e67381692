"""From the bytes somebody put into a `Cmd` PV to the result in `Cmd-Result`.

The desk of a group verifies signature, role and nonce, checks the arguments, has the plant do it and says what became
of it. A repeat of a command gets the same answer and nothing is done twice. Whatever a stranger sends, the answer is a
refusal in words and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from caproto import SkipWrite

from channels.command import Command, CommandResult, Status
from channels.command_server import CommandVerifier, Refusal, Repeated
from channels.keys import KeyRing
from channels.publish import publish
from facility.errors import CommandRefused, InternalError, IonctlError
from facility.timebase import Clock

ROLES = ("control",)
"""Who may command the plant: treatment control alone; people command control."""
WORDS_MAX = 500
TEXT_MAX = 128
ArgumentKind = Literal["whole", "number", "text"]
Handler = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Does it; returns what belongs into the result, raises CommandRefused."""


@dataclass(frozen=True)
class Verb:
    """One thing a group can be told to do."""

    do: Handler
    arguments: Mapping[str, ArgumentKind]
    """All of them are needed, others are refused; "whole" is an int, "number" a finite float, "text" at most
    TEXT_MAX characters."""


class CommandDesk:
    """Commands of one group.

    Args:
        verbs: what it can do.
        ring: who may sign, in which roles.
        clock: facility time.
        nonces: last nonce by issuer; a mapping that is stored keeps replays out across restarts.
        max_age_ns, nonce_floor: see `CommandVerifier`.
        roles: who may use the verbs.
        command_clock: the clock that issuers sign with, where that is another one.
    """

    def __init__(
        self,
        verbs: Mapping[str, Verb],
        ring: KeyRing,
        clock: Clock,
        *,
        nonces: MutableMapping[str, int] | None = None,
        max_age_ns: int | None = None,
        nonce_floor: int = -1,
        roles: Collection[str] = ROLES,
        command_clock: Clock | None = None,
    ) -> None:
        self._verbs = dict(verbs)
        permissions = dict.fromkeys(self._verbs, roles)
        self._verifier = CommandVerifier(
            ring, permissions, command_clock or clock, nonces=nonces, max_age_ns=max_age_ns, nonce_floor=nonce_floor
        )
        self._clock = clock
        self._replies: list[Any] = []

    def reply_on(self, channel: Any) -> None:
        """The group's `Cmd-Result` channel."""
        self._replies.append(channel)

    def receive(self, frame: bytes) -> CommandResult:
        """Deal with what came and publish the result."""
        result = self.handle(frame)
        octets = np.frombuffer(_encoded(result), dtype=np.uint8)
        for channel in self._replies:
            publish(channel, octets, self._clock.now_ns())
        return result

    def handle(self, frame: bytes) -> CommandResult:
        """Verify, check, do; the result."""
        verdict = self._verifier.verify(frame)
        if isinstance(verdict, Refusal):
            return verdict.result()
        if isinstance(verdict, Repeated):
            return verdict.result
        result = self._carry_out(verdict.command)
        self._verifier.record(result)
        return result

    def _carry_out(self, command: Command) -> CommandResult:
        verb = self._verbs[command.verb]
        try:
            data = verb.do(checked(command.args, verb.arguments, command.verb))
        except CommandRefused as refusal:
            return CommandResult(command.id, Status.REFUSED, refusal.code, str(refusal)[:WORDS_MAX])
        except IonctlError as problem:
            return CommandResult(command.id, Status.FAILED, problem.code, str(problem)[:WORDS_MAX])
        return CommandResult(command.id, Status.DONE, data=dict(data or {}))


def checked(args: Mapping[str, Any], wanted: Mapping[str, ArgumentKind], verb: str) -> dict[str, Any]:
    """The arguments, numbers as float; CommandRefused 'command.args' naming the first that is not as it should be."""
    needs = f"{verb} takes {', '.join(wanted) or 'no arguments'}"
    for name in args:
        if name not in wanted:
            raise CommandRefused("command.args", f"unknown argument {name[:40]!r}", verb, needs)
    found: dict[str, Any] = {}
    for name, kind in wanted.items():
        if name not in args:
            raise CommandRefused("command.args", f"argument {name} is missing", verb, needs)
        found[name] = _READERS[kind](args[name], name, verb)
    return found


def _whole(value: Any, name: str, verb: str) -> int:
    if type(value) is not int or abs(value) > 2**53:
        raise CommandRefused("command.args", f"{name} is {_shown(value)}", verb, "give a whole number")
    return value


def _number(value: Any, name: str, verb: str) -> float:
    if type(value) not in (int, float) or abs(value) > 1e300 or not math.isfinite(value):
        raise CommandRefused("command.args", f"{name} is {_shown(value)}", verb, "give a number")
    return float(value)


def _text(value: Any, name: str, verb: str) -> str:
    if type(value) is not str or len(value) > TEXT_MAX:
        raise CommandRefused("command.args", f"{name} is {_shown(value)}", verb, f"give at most {TEXT_MAX} characters")
    return value


_READERS: Mapping[ArgumentKind, Callable[[Any, str, str], Any]] = {"whole": _whole, "number": _number, "text": _text}


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:40]}"


def _encoded(result: CommandResult) -> bytes:
    try:
        return result.encode()
    except InternalError:
        return CommandResult("", result.status, result.code, "the result is too long to be shown").encode()


async def put_command(group: Any, _channel: Any, value: Any) -> Any:
    """Putter of a `Cmd` PV: the command is consumed, the PV stays empty, the answer comes in `Cmd-Result`."""
    group.desk.receive(value.encode("latin-1") if isinstance(value, str) else bytes(value))
    raise SkipWrite
