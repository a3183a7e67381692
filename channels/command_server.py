"""The server's side of commands: is it genuine, allowed, new - and if it is old, what was the answer."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TypeAlias

from channels import keys
from channels.command import COMMAND_MAX, Command, CommandResult, Status, decode_command
from channels.keys import KeyRing, Known
from facility.errors import InternalError
from facility.timebase import NS_PER_S, Clock

_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Verified:
    """A genuine, permitted, new command: carry it out, and `record` what becomes of it."""

    command: Command


@dataclass(frozen=True, slots=True)
class Repeated:
    """A command that is known already: publish its result again, do nothing."""

    result: CommandResult


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that must not be carried out; nothing of it was remembered."""

    id: str
    """Empty where the command could not be read or is not genuine."""
    code: str
    words: str

    def result(self) -> CommandResult:
        """What to publish."""
        return CommandResult(self.id, Status.REFUSED, self.code, self.words)


Verdict: TypeAlias = Verified | Repeated | Refusal


@dataclass(slots=True)
class _Remembered:
    digest: bytes
    result: CommandResult


class CommandVerifier:
    """Judges what arrives in a `Cmd` PV.

    Args:
        ring: who may sign, in which roles.
        permissions: roles that may use each verb; a verb that is not there is unknown.
        clock: facility time.
        max_age_ns: oldest a command may be when it arrives, and how far ahead its time may be, ns; None where
            issuers do not share the clock.
        nonces: last nonce by issuer. It is written before a command is handed out, so a mapping that stores what
            it is given (a file, a table) keeps replays out across restarts.
        nonce_floor: nonces up to this one are used, whoever the issuer is. A server whose issuers count in calendar
            time gives the moment of its own start: what was signed before it lived cannot be replayed to it.
        remembered: results kept for repeats; older ones are refused by their nonce.
    """

    def __init__(
        self,
        ring: KeyRing,
        permissions: Mapping[str, Collection[str]],
        clock: Clock,
        *,
        max_age_ns: int | None = None,
        nonces: MutableMapping[str, int] | None = None,
        nonce_floor: int = -1,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._ring = ring
        self._permissions = {verb: frozenset(roles) for verb, roles in permissions.items()}
        self._clock = clock
        self._max_age_ns = max_age_ns
        self._nonces: MutableMapping[str, int] = {} if nonces is None else nonces
        self._nonce_floor = nonce_floor
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._limit = remembered

    def verify(self, frame: bytes) -> Verdict:
        """Judge the bytes of a put. Never raises for what a stranger sent."""
        try:
            command, signature = decode_command(frame)
            signed = command.signed_part()
        except (ValueError, InternalError) as problem:
            return Refusal("", "command.malformed", f"not a command of at most {COMMAND_MAX} bytes: {problem}")
        known = self._ring.find(command.issuer)
        if known is None or not keys.verify(known.key, signature, signed):
            return Refusal("", "command.not-genuine", f"no valid signature of {command.issuer!r}")
        digest = hashlib.sha256(signed).digest()
        earlier = self._remembered.get(command.id)
        if earlier is not None:
            if earlier.digest == digest:
                return Repeated(earlier.result)
            return Refusal(command.id, "command.id-reused", "another command had this id")
        refusal = self._forbidden(command, known) or self._untimely(command)
        if refusal is not None:
            return refusal
        self._nonces[command.issuer] = command.nonce
        self._remember(command.id, digest)
        return Verified(command)

    def record(self, result: CommandResult) -> None:
        """Keep what became of a verified command, for repeats; InternalError if it was never handed out."""
        entry = self._remembered.get(result.id)
        if entry is None:
            raise InternalError(code="command.unknown", what=f"result for {result.id!r}", where="channels.command")
        entry.result = result

    def _forbidden(self, command: Command, known: Known) -> Refusal | None:
        allowed = self._permissions.get(command.verb)
        if allowed is None:
            verbs = ", ".join(sorted(self._permissions))
            return Refusal(command.id, "command.unknown-verb", f"no verb {command.verb!r}; there are {verbs}")
        if command.role not in known.roles:
            return Refusal(command.id, "command.not-your-role", f"{command.issuer} is not {command.role}")
        if command.role not in allowed:
            may = ", ".join(sorted(allowed))
            return Refusal(command.id, "command.not-allowed", f"{command.verb} is for {may}, not {command.role}")
        return None

    def _untimely(self, command: Command) -> Refusal | None:
        if command.nonce <= max(self._nonces.get(command.issuer, -1), self._nonce_floor):
            return Refusal(command.id, "command.replayed", f"nonce {command.nonce} was used before")
        if self._max_age_ns is None:
            return None
        age_ns = self._clock.now_ns() - command.t_ns
        if abs(age_ns) > self._max_age_ns:
            return Refusal(command.id, "command.stale", f"it is {age_ns / NS_PER_S:.1f} s old")
        return None

    def _remember(self, command_id: str, digest: bytes) -> None:
        accepted = CommandResult(command_id, Status.ACCEPTED)
        self._remembered[command_id] = _Remembered(digest, accepted)
        while len(self._remembered) > self._limit:
            self._remembered.popitem(last=False)
