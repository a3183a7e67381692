"""Signed signs of life: what safety depends on is never a bare PV that anybody, or nobody, may hold up.

A frame is canonical JSON {source, boot, seq, t_ns, sig} of at most 256 bytes, and `bits` beside them where the source
vouches for lines: the sign of life carries them, so that they die with it. It is text because CHAR waveforms lose
trailing zero bytes on their way.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from channels import keys
from facility.errors import InternalError
from facility.events import canonical_json
from facility.timebase import Clock

FRAME_MAX = 256
_SOURCE_MAX = 40
_FIELDS = {"source": str, "boot": int, "seq": int, "t_ns": int, "sig": str}
_WITH_BITS = {**_FIELDS, "bits": int}


class KeepAliveMaker:
    """Makes the frames of one source; `boot` is its boot identity, higher with every start (below 2^64)."""

    def __init__(self, source: str, boot: int, key: Ed25519PrivateKey, clock: Clock) -> None:
        if len(source.encode()) > _SOURCE_MAX:
            raise InternalError(code="keepalive.source", what=f"{source!r} is longer than {_SOURCE_MAX} bytes")
        self._source = source
        self._boot = boot
        self._key = key
        self._clock = clock
        self._seq = 0

    def make(self, bits: int | None = None) -> bytes:
        """The next frame; `bits` are lines that the source vouches for, bit mask, None if it has none."""
        self._seq += 1
        body = {"source": self._source, "boot": self._boot, "seq": self._seq, "t_ns": self._clock.now_ns()}
        if bits is not None:
            body["bits"] = bits
        frame = canonical_json({**body, "sig": keys.sign(self._key, canonical_json(body))})
        if len(frame) > FRAME_MAX:
            raise InternalError(code="keepalive.too-long", what=f"{len(frame)} bytes, at most {FRAME_MAX}")
        return frame


class Beat(NamedTuple):
    """A sign of life."""

    boot: int
    seq: int
    t_ns: int
    bits: int = 0
    """Lines that the source vouches for, bit mask."""


class Fault(Enum):
    """Why a frame is no sign of life."""

    MALFORMED = "malformed"
    NOT_GENUINE = "not-genuine"
    OLDER_BOOT = "older-boot"
    RESTARTED = "restarted"
    NOT_RISING = "not-rising"
    STALE = "stale"


class KeepAliveState(NamedTuple):
    """What the listener knows. A restarted source is refused until `admit`, behind which a person must stand."""

    source: str
    key: Ed25519PublicKey
    max_age_ns: int
    """Oldest a frame may be, and longest time without one, ns."""
    since_ns: int
    """When the last beat came; at first, when listening began."""
    boot: int | None = None
    seq: int = 0
    newest_boot: int = 0
    candidate: int = 0
    """Newest boot that has spoken without being admitted; it takes nothing from the one that is listened to."""
    lines: bool = False
    """Frames of this source carry lines; those of another do not, and neither is taken for the other."""


Outcome: TypeAlias = Beat | Fault


def check(state: KeepAliveState, frame: bytes, now_ns: int) -> tuple[KeepAliveState, Outcome]:
    """Judge a frame that arrived at `now_ns`; only a Beat moves the watchdog."""
    beat = _genuine(state, frame)
    if isinstance(beat, Fault):
        return state, beat
    if beat.boot < state.newest_boot:
        return state, Fault.OLDER_BOOT
    if beat.boot == state.newest_boot and beat.seq <= state.seq:
        return state, Fault.NOT_RISING
    if abs(now_ns - beat.t_ns) > state.max_age_ns:
        return state, Fault.STALE
    if state.boot is not None and beat.boot > state.boot:
        return state._replace(candidate=max(state.candidate, beat.boot)), Fault.RESTARTED
    return state._replace(since_ns=now_ns, boot=beat.boot, newest_boot=beat.boot, seq=beat.seq), beat


def expired(state: KeepAliveState, now_ns: int) -> bool:
    """Nothing was heard for too long."""
    return now_ns - state.since_ns > state.max_age_ns


def admit(state: KeepAliveState, now_ns: int) -> KeepAliveState:
    """Take the newest boot as the source from now on; frames of older ones stay refused."""
    newest = max(state.newest_boot, state.candidate)
    seq = state.seq if state.newest_boot == newest else 0
    return state._replace(boot=None, seq=seq, since_ns=now_ns, newest_boot=newest, candidate=0)


def _genuine(state: KeepAliveState, frame: bytes) -> Outcome:
    fields = _WITH_BITS if state.lines else _FIELDS
    try:
        data = json.loads(frame.decode("utf-8")) if len(frame) <= FRAME_MAX else None
    except (ValueError, RecursionError):
        return Fault.MALFORMED
    if not isinstance(data, dict) or {name: type(value) for name, value in data.items()} != fields:
        return Fault.MALFORMED
    signature = data.pop("sig")
    if data["source"] != state.source or not keys.verify(state.key, signature, canonical_json(data)):
        return Fault.NOT_GENUINE
    return Beat(data["boot"], data["seq"], data["t_ns"], data.get("bits", 0))
