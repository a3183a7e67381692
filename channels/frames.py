"""Black-channel frames: the carrier may lose, repeat, reorder, delay, corrupt or forge, and each is noticed.

Layout, big-endian:

======  =====  =======================================================================
offset  bytes  field
======  =====  =======================================================================
0       2      magic "IL"
2       1      version, 1
3       1      kind of payload, see Kind
4       4      source identity (`link_identity`: facility and name hashed)
8       4      destination identity
12      8      boot identity of the source, rising with every start
20      4      sequence number, rising by one, modulo 2^32
24      4      echo: the last sequence number accepted from the peer, 0 before the first
28      8      facility time when sent, ns
36      2      length of the payload, at most 512
38      n      payload
38 + n  4      CRC-32 (IEEE 802.3, 0x04C11DB7) of all before it
42 + n  4      CRC-32C (Castagnoli, 0x1EDC6F41) of the same, started from the link's key
======  =====  =======================================================================

What the CRCs find, the residual error and what each field is for: docs/reference/link.md.

Meaning of a bad frame: its payload is never used. One or two are flagged (`first_bad`, `bad_ns`) and the link stays
usable. `bad_limit` of them within `watchdog_ns`, good ones between them or not, a restarted peer, or `watchdog_ns`
without a good frame or without progress of the echo trips it: `link_ok` is False, latched, until `resync` - which a
person's reset must lie behind, since a restarted peer must never close a permit again. A good frame that comes after
the watchdog has expired does not hide that it had: `receive` looks at the watchdog first.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from enum import Enum, IntEnum
from typing import NamedTuple, TypeAlias

from channels.crc import crc32c
from facility.errors import InternalError

PAYLOAD_MAX = 512
_MAGIC = b"IL"
_VERSION = 1
_HEADER = struct.Struct(">2sBBIIQIIQH")
_CRCS = struct.Struct(">II")
OVERHEAD = _HEADER.size + _CRCS.size
FRAME_MAX = OVERHEAD + PAYLOAD_MAX
_SEQ_MASK = 0xFFFFFFFF
_SEQ_HALF = 0x80000000


class Kind(IntEnum):
    """What the payload is."""

    PROCESS_IMAGE = 1
    PERMIT = 2
    ALIVE = 3


class Reason(Enum):
    """Why a frame was rejected; the threats of IEC 61784-3, and what only a boot identity shows."""

    CORRUPTION = "corruption"
    MASQUERADE = "masquerade"
    """Well formed, but made without the link's key, or it echoes what was never sent."""
    MISADDRESSED = "misaddressed"
    INSERTION = "insertion"
    """From a source, or of a kind, that does not belong on this link."""
    OLDER_BOOT = "older-boot"
    RESTARTED = "restarted"
    REPETITION = "repetition"
    WRONG_ORDER = "wrong-order"
    LOSS = "loss"
    DELAY = "delay"


class Link(NamedTuple):
    """One direction's fixed facts, as the receiver or the sender of its frames knows them."""

    source: int
    destination: int
    key: int
    """32 bits known to both ends only; see `link_key`."""
    watchdog_ns: int
    """Longest time without a good frame, and without the echo advancing."""
    max_age_ns: int
    """Oldest a frame may be when it arrives."""
    max_ahead_ns: int = 1_000_000
    """How far the sender's clock may be ahead."""
    bad_limit: int = 3
    """Bad frames within `watchdog_ns` that trip the link."""
    kinds: frozenset[int] = frozenset(Kind)


class SendState(NamedTuple):
    """The sender's end of a link."""

    link: Link
    boot: int
    seq: int = 0
    """Sequence number of the last frame sent; 0 before the first."""


class ReceiveState(NamedTuple):
    """The receiver's end of a link."""

    link: Link
    good_ns: int
    """When the last good frame came; at first, when listening began."""
    echo_ns: int
    """When the echo last advanced; at first, when listening began; then, when the first good frame came."""
    boot: int | None = None
    """Boot identity of the peer that is listened to; None until its first good frame."""
    boot_floor: int = -1
    """Highest boot identity ever seen on this link; older ones stay refused, after `resync` too."""
    seq: int = 0
    echo: int = 0
    """The newest that the peer has echoed; one further back is no progress."""
    bad_ns: tuple[int, ...] = ()
    """When the last bad frames came, at most `bad_limit` of them, oldest first."""
    bad_total: int = 0
    first_bad: Reason | None = None
    """Reason of the first bad frame since the last `resync`."""
    tripped: bool = False


class Accepted(NamedTuple):
    """A good frame."""

    kind: int
    payload: bytes
    seq: int
    echo: int
    t_ns: int


class Rejected(NamedTuple):
    """A bad frame; its payload is not handed out."""

    reason: Reason


Outcome: TypeAlias = Accepted | Rejected


class Fields(NamedTuple):
    """The fields of a frame, unchecked."""

    magic: bytes
    version: int
    kind: int
    source: int
    destination: int
    boot: int
    seq: int
    echo: int
    t_ns: int
    length: int


def link_identity(facility: str, name: str) -> int:
    """32-bit identity of an end: SHA-256 of the facility's configuration hash (or name) and the end's name."""
    return int.from_bytes(hashlib.sha256(f"{facility}\n{name}".encode()).digest()[:4], "big")


def link_key(facility: str, source: str, destination: str) -> int:
    """32-bit key of a direction; never on the wire, so frames of strangers do not pass."""
    return int.from_bytes(hashlib.sha256(f"{facility}\n{source}>{destination}\nkey".encode()).digest()[:4], "big")


def make_link(
    facility: str,
    source: str,
    destination: str,
    *,
    watchdog_ns: int,
    max_age_ns: int,
    bad_limit: int = 3,
    kinds: frozenset[int] = frozenset(Kind),
) -> Link:
    """The facts of one direction from names; both ends must give the same."""
    return Link(
        source=link_identity(facility, source),
        destination=link_identity(facility, destination),
        key=link_key(facility, source, destination),
        watchdog_ns=watchdog_ns,
        max_age_ns=max_age_ns,
        bad_limit=bad_limit,
        kinds=kinds,
    )


def encode(link: Link, kind: int, boot: int, seq: int, echo: int, t_ns: int, payload: bytes) -> bytes:
    """A frame; InternalError 'frame.too-long' above PAYLOAD_MAX bytes."""
    if len(payload) > PAYLOAD_MAX:
        raise InternalError(code="frame.too-long", what=f"{len(payload)} bytes, at most {PAYLOAD_MAX}")
    body = (
        _HEADER.pack(_MAGIC, _VERSION, kind, link.source, link.destination, boot, seq, echo, t_ns, len(payload))
        + payload
    )
    return body + _CRCS.pack(zlib.crc32(body), crc32c(body, link.key))


def fields(frame: bytes) -> Fields:
    """The header of a frame, unchecked, for tests and displays; struct.error if it is too short."""
    return Fields(*_HEADER.unpack_from(frame))


def send(state: SendState, kind: int, payload: bytes, echo: int, t_ns: int) -> tuple[SendState, bytes]:
    """The next frame of a sender; `echo` is the sequence number last accepted from the peer, `t_ns` now."""
    seq = (state.seq + 1) & _SEQ_MASK
    frame = encode(state.link, kind, state.boot, seq, echo, t_ns, payload)
    return state._replace(seq=seq), frame


def listening(link: Link, now_ns: int) -> ReceiveState:
    """A receiver that begins to listen; the watchdog runs from now."""
    return ReceiveState(link, good_ns=now_ns, echo_ns=now_ns)


def receive(
    state: ReceiveState, frame: bytes, now_ns: int, *, sent_seq: int | None = None
) -> tuple[ReceiveState, Outcome]:
    """Judge a frame that arrived at `now_ns`.

    `sent_seq` is the last sequence number this end has sent; with it an echo from the future is found out.
    """
    if state.boot is not None:
        state = watch(state, now_ns)
    checked = _intact(state.link, frame)
    if isinstance(checked, Reason):
        return _bad(state, checked, now_ns), Rejected(checked)
    reason = _stranger(state, checked, sent_seq)
    if reason is not None:
        return _refuse_stranger(state, reason, checked.boot, now_ns), Rejected(reason)
    reason = _untimely(state, checked, now_ns)
    if reason in (Reason.REPETITION, Reason.WRONG_ORDER):
        return _bad(state, reason, now_ns), Rejected(reason)
    if reason is not None:  # lost or late: the sequence goes on from here
        following = _bad(state, reason, now_ns)._replace(boot=checked.boot, boot_floor=checked.boot, seq=checked.seq)
        return following, Rejected(reason)
    payload = frame[_HEADER.size : _HEADER.size + checked.length]
    return _good(state, checked, now_ns), Accepted(checked.kind, payload, checked.seq, checked.echo, checked.t_ns)


def _intact(link: Link, frame: bytes) -> Fields | Reason:
    size = len(frame)
    if not OVERHEAD <= size <= FRAME_MAX:
        return Reason.CORRUPTION
    body = frame[: size - _CRCS.size]
    plain, keyed = _CRCS.unpack_from(frame, size - _CRCS.size)
    if zlib.crc32(body) != plain:
        return Reason.CORRUPTION
    found = Fields._make(_HEADER.unpack_from(frame))
    if found.magic != _MAGIC or found.version != _VERSION or found.length != size - OVERHEAD:
        return Reason.CORRUPTION
    if found.destination != link.destination:
        return Reason.MISADDRESSED
    if found.source != link.source:
        return Reason.INSERTION
    if crc32c(body, link.key) != keyed:
        return Reason.MASQUERADE
    return found


def _stranger(state: ReceiveState, found: Fields, sent_seq: int | None) -> Reason | None:
    if found.kind not in state.link.kinds:
        return Reason.INSERTION
    if found.boot < state.boot_floor:
        return Reason.OLDER_BOOT
    if state.boot is not None and found.boot != state.boot:
        return Reason.RESTARTED
    if sent_seq is not None and _ahead(found.echo, sent_seq) > 0:
        return Reason.MASQUERADE
    return None


def _untimely(state: ReceiveState, found: Fields, now_ns: int) -> Reason | None:
    if found.boot == state.boot_floor:  # not the first frame of this peer
        step = _ahead(found.seq, state.seq)
        if step == 0:
            return Reason.REPETITION
        if step < 0:
            return Reason.WRONG_ORDER
        if step > 1 and state.boot is not None:
            return Reason.LOSS
    age_ns = now_ns - found.t_ns
    if age_ns > state.link.max_age_ns or age_ns < -state.link.max_ahead_ns:
        return Reason.DELAY
    return None


def _ahead(one: int, other: int) -> int:
    """How many numbers `one` is ahead of `other`, modulo 2^32; negative when behind."""
    return ((one - other + _SEQ_HALF) & _SEQ_MASK) - _SEQ_HALF


def _refuse_stranger(state: ReceiveState, reason: Reason, boot: int, now_ns: int) -> ReceiveState:
    refused = _bad(state, reason, now_ns)
    if reason is not Reason.RESTARTED:
        return refused
    return refused._replace(tripped=True, boot_floor=boot, seq=0)


def _bad(state: ReceiveState, reason: Reason, now_ns: int) -> ReceiveState:
    link = state.link
    times = (*state.bad_ns, now_ns)[-link.bad_limit :]
    too_many = len(times) == link.bad_limit and now_ns - times[0] <= link.watchdog_ns
    return state._replace(
        bad_ns=times,
        bad_total=state.bad_total + 1,
        first_bad=state.first_bad or reason,
        tripped=state.tripped or too_many,
    )


def _good(state: ReceiveState, found: Fields, now_ns: int) -> ReceiveState:
    # the first after listening anew: any number, and none yet, from a peer that has had no time to hear of this end
    advanced = state.boot is None or _ahead(found.echo, state.echo) > 0
    return ReceiveState(
        state.link,
        now_ns,
        now_ns if advanced else state.echo_ns,
        found.boot,
        found.boot,
        found.seq,
        found.echo if advanced else state.echo,
        state.bad_ns,
        state.bad_total,
        state.first_bad,
        state.tripped,
    )


def expired(state: ReceiveState, now_ns: int) -> bool:
    """The watchdog, both ways: no good frame for too long, or the peer hears nothing new from here."""
    limit_ns = state.link.watchdog_ns
    return now_ns - state.good_ns > limit_ns or now_ns - state.echo_ns > limit_ns


def deadline_ns(state: ReceiveState) -> int:
    """The first instant, ns, at which `expired` will hold unless a frame comes."""
    return min(state.good_ns, state.echo_ns) + state.link.watchdog_ns + 1


def watch(state: ReceiveState, now_ns: int) -> ReceiveState:
    """Trip the link if its watchdog has expired."""
    return state._replace(tripped=True) if expired(state, now_ns) and not state.tripped else state


def trip_cause(state: ReceiveState, now_ns: int) -> str:
    """What tripped a link, in words: no good frame for the watchdog ("silent"), none that echoes anything new
    ("unheard"), the first bad frame's reason, or a silence that a good frame has ended since ("was silent")."""
    limit_ns = state.link.watchdog_ns
    refused = "" if state.first_bad is None else state.first_bad.value
    if now_ns - state.good_ns > limit_ns:
        return f"silent, {refused}" if refused else "silent"
    if now_ns - state.echo_ns > limit_ns:
        return "unheard"
    return refused or "was silent"


def link_ok(state: ReceiveState, now_ns: int) -> bool:
    """The peer's data may be believed: frames came, none too long ago, and nothing tripped the link."""
    return state.boot is not None and not state.tripped and not expired(state, now_ns)


def resync(state: ReceiveState, now_ns: int) -> ReceiveState:
    """Start listening anew after a reset by a person.

    The peer is known again from its next good frame; frames of older boots, and frames of this boot that are not
    newer than the last one, stay refused.
    """
    fresh = listening(state.link, now_ns)
    return fresh._replace(boot_floor=state.boot_floor, seq=state.seq, bad_total=state.bad_total)
