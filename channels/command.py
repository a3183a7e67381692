"""Signed commands and their results, as they travel in the PVs `Cmd` and `Cmd-Result`.

A command is canonical JSON (`facility.events.canonical_json`) with exactly the keys id, issuer, role, t_ns, nonce,
verb, args, sig; sig is the base64 Ed25519 signature of the same object without sig. A result has id, status, code,
words, data. A put that returns says nothing: only a result with the command's id does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from channels import keys
from facility.errors import CommandRefused, InternalError
from facility.events import canonical_json
from facility.ids import derived_hex
from facility.timebase import Clock

COMMAND_MAX = 4096
"""Longest command, bytes."""
RESULT_MAX = 4096
"""Longest result, bytes."""
_NUMBER_MAX = 2**63 - 1
_TYPES: Mapping[str, type] = {
    "id": str,
    "issuer": str,
    "role": str,
    "t_ns": int,
    "nonce": int,
    "verb": str,
    "args": dict,
    "sig": str,
}


class Status(StrEnum):
    """How far a command has come."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Nothing more will follow."""
        return self is not Status.ACCEPTED


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody wants done."""

    id: str
    issuer: str
    role: str
    t_ns: int
    """Facility time at which it was issued, ns."""
    nonce: int
    """Rises with every command of an issuer."""
    verb: str
    args: Mapping[str, Any]

    def signed_part(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self._as_dict())

    def encode(self, signature: str) -> bytes:
        """The bytes that are sent; InternalError 'command.too-long' above COMMAND_MAX."""
        frame = canonical_json({**self._as_dict(), "sig": signature})
        if len(frame) > COMMAND_MAX:
            raise InternalError(code="command.too-long", what=f"{len(frame)} bytes", where=self.verb)
        return frame

    def _as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "issuer": self.issuer,
            "role": self.role,
            "t_ns": self.t_ns,
            "nonce": self.nonce,
            "verb": self.verb,
            "args": dict(self.args),
        }


def decode_command(frame: bytes) -> tuple[Command, str]:
    """Command and signature; ValueError says in words what is wrong. The signature is not checked here."""
    data = _strict_object(frame, COMMAND_MAX)
    if set(data) != set(_TYPES):
        missing, surplus = sorted(set(_TYPES) - set(data)), sorted(set(data) - set(_TYPES))
        raise ValueError(f"keys missing {missing}, unknown {surplus}")
    for name, kind in _TYPES.items():
        if type(data[name]) is not kind:
            raise ValueError(f"{name} must be {kind.__name__}")
    if not 0 <= data["nonce"] <= _NUMBER_MAX or not 0 <= data["t_ns"] <= _NUMBER_MAX:
        raise ValueError("nonce and t_ns must be 0 to 2^63 - 1")
    if not data["id"]:
        raise ValueError("id is empty")
    signature = data.pop("sig")
    return Command(**data), signature


def _strict_object(frame: bytes, limit: int) -> dict[str, Any]:
    """A JSON object; ValueError for NaN, infinity, a key given twice, anything longer than `limit` bytes."""
    if len(frame) > limit:
        raise ValueError(f"{len(frame)} bytes, at most {limit}")
    try:
        data = _DECODER.decode(frame.rstrip(b"\0").decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    return data


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is given twice")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_constant)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What became of a command."""

    id: str
    """The command's id."""
    status: Status
    code: str = ""
    """Dotted, for programs; of a refusal or failure."""
    words: str = ""
    """For people."""
    data: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Canonical JSON; InternalError 'result.too-long' above RESULT_MAX bytes."""
        frame = canonical_json(
            {
                "id": self.id,
                "status": self.status.value,
                "code": self.code,
                "words": self.words,
                "data": dict(self.data),
            }
        )
        if len(frame) > RESULT_MAX:
            raise InternalError(code="result.too-long", what=f"{len(frame)} bytes, at most {RESULT_MAX}")
        return frame

    @classmethod
    def decode(cls, frame: bytes) -> CommandResult:
        """The result behind `encode`; ValueError for anything else."""
        data = _strict_object(frame, RESULT_MAX)
        try:
            result = cls(data["id"], Status(data["status"]), data["code"], data["words"], data["data"])
        except KeyError as missing:
            raise ValueError(f"{missing} is missing") from None
        if not isinstance(result.id, str) or not isinstance(result.data, dict):
            raise ValueError("id must be str, data an object")
        return result

    def require_done(self) -> CommandResult:
        """Itself if done or accepted; otherwise raises CommandRefused with the server's code and words."""
        if self.status in (Status.REFUSED, Status.FAILED):
            raise CommandRefused(code=self.code, what=self.words or self.status.value, where=f"command {self.id}")
        return self


class Signer:
    """Signs the commands of one issuer in one role.

    Args:
        issuer: who; role: as what.
        key: private key.
        next_nonce: gives a number higher than all before, across restarts too: a stored counter, or the wall
            clock where the rig says so. None counts from 1, for an issuer that lives as long as its servers.
    """

    def __init__(
        self, issuer: str, role: str, key: Ed25519PrivateKey, next_nonce: Callable[[], int] | None = None
    ) -> None:
        self.issuer = issuer
        self.role = role
        self._key = key
        self._next_nonce = next_nonce or self._count
        self._last_nonce = 0

    def command(self, verb: str, args: Mapping[str, Any], clock: Clock) -> Command:
        """A new command, with an id that follows from issuer and nonce."""
        nonce = self._next_nonce()
        command_id = f"C-{derived_hex(nonce, f'command:{self.issuer}:{self.role}', 0)}"
        return Command(command_id, self.issuer, self.role, clock.now_ns(), nonce, verb, args)

    def sign(self, command: Command) -> bytes:
        """The command as it is sent."""
        return command.encode(keys.sign(self._key, command.signed_part()))

    def _count(self) -> int:
        self._last_nonce += 1
        return self._last_nonce
