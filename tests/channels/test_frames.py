"""Safety frames: every single fault of a black channel is noticed, by its own reason."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.crc import crc32c, require_compiled_crc
from channels.datagram import DatagramEnd
from channels.frames import (
    FRAME_MAX,
    OVERHEAD,
    PAYLOAD_MAX,
    Accepted,
    Kind,
    Link,
    Reason,
    ReceiveState,
    Rejected,
    SendState,
    deadline_ns,
    encode,
    expired,
    fields,
    link_identity,
    link_ok,
    listening,
    make_link,
    receive,
    resync,
    send,
    trip_cause,
    watch,
)
from facility.errors import ConfigError, InternalError

MS = 1_000_000
LINK = make_link("wuwei", "plant", "safety", watchdog_ns=20 * MS, max_age_ns=10 * MS)
payloads = st.binary(max_size=PAYLOAD_MAX)


def frames(count: int, link: Link = LINK, boot: int = 5, t_ns: int = 0) -> list[bytes]:
    state, made = SendState(link, boot), []
    for number in range(count):
        state, frame = send(state, Kind.PROCESS_IMAGE, bytes([number]), number, t_ns)
        made.append(frame)
    return made


def feed(state: ReceiveState, *given_frames: bytes, now_ns: int = 0) -> tuple[ReceiveState, list[object]]:
    outcomes: list[object] = []
    for frame in given_frames:
        state, outcome = receive(state, frame, now_ns)
        outcomes.append(outcome.reason if isinstance(outcome, Rejected) else outcome.payload)
    return state, outcomes


def test_crc32c_has_its_published_check_value_and_continues() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    for cut in range(10):
        assert crc32c(b"123456789"[cut:], crc32c(b"123456789"[:cut])) == 0xE3069283


def _crc32c_by_bits(message: bytes) -> int:
    register = 0xFFFFFFFF
    for octet in message:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@given(st.binary(max_size=512))
def test_crc32c_agrees_with_the_definition(message: bytes) -> None:
    assert crc32c(message) == _crc32c_by_bits(message)


@given(payload=payloads, seq=st.integers(1, 2**32 - 1), boot=st.integers(0, 2**64 - 1), t_ns=st.integers(0, 2**62))
def test_what_is_sent_arrives(payload: bytes, seq: int, boot: int, t_ns: int) -> None:
    state, frame = send(SendState(LINK, boot, seq - 1), Kind.PERMIT, payload, 3, t_ns)
    assert state.seq == seq
    received, outcome = receive(listening(LINK, t_ns), frame, t_ns)
    assert outcome == Accepted(Kind.PERMIT, payload, seq, 3, t_ns)
    assert (received.boot, received.seq, received.echo) == (boot, seq, 3)
    assert link_ok(received, t_ns)


@given(payload=payloads, data=st.data())
def test_any_single_bit_flip_is_rejected(payload: bytes, data: st.DataObject) -> None:
    _, frame = send(SendState(LINK, 5), Kind.PROCESS_IMAGE, payload, 0, 0)
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    _, outcome = receive(listening(LINK, 0), bytes(damaged), 0)
    assert isinstance(outcome, Rejected)


def test_every_bit_of_one_frame_flipped_is_rejected() -> None:
    frame = frames(1)[0]
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        _, outcome = receive(listening(LINK, 0), bytes(damaged), 0)
        assert isinstance(outcome, Rejected), bit


@given(payload=payloads, data=st.data())
def test_any_truncation_or_extension_is_rejected(payload: bytes, data: st.DataObject) -> None:
    _, frame = send(SendState(LINK, 5), Kind.PROCESS_IMAGE, payload, 0, 0)
    cut = data.draw(st.integers(0, len(frame) - 1))
    more = data.draw(st.binary(min_size=1, max_size=64))
    for damaged in (frame[:cut], frame + more, more + frame):
        _, outcome = receive(listening(LINK, 0), damaged, 0)
        assert isinstance(outcome, Rejected)


@given(st.binary(max_size=FRAME_MAX + 40))
def test_noise_is_rejected(noise: bytes) -> None:
    _, outcome = receive(listening(LINK, 0), noise, 0)
    assert isinstance(outcome, Rejected)


def test_a_burst_that_fools_the_first_crc_is_found_by_the_second() -> None:
    frame = frames(1)[0]
    body = frame[:-8]
    damaged = body[:-1] + bytes([body[-1] ^ 0x55])
    forged = damaged + struct.pack(">I", zlib.crc32(damaged)) + frame[-4:]
    assert feed(listening(LINK, 0), forged)[1] == [Reason.MASQUERADE]


def test_repetition_wrong_order_and_loss() -> None:
    a, b, c, d, e = frames(5)
    state, outcomes = feed(listening(LINK, 0), a, b, b, a)
    assert outcomes == [b"\0", b"\1", Reason.REPETITION, Reason.WRONG_ORDER]
    assert state.first_bad is Reason.REPETITION
    assert link_ok(state, 0)  # flagged, not tripped
    state, outcomes = feed(state, d, e, c)
    assert outcomes == [Reason.LOSS, b"\4", Reason.WRONG_ORDER]


def test_the_sequence_goes_on_past_its_end() -> None:
    state, sender, outcomes = listening(LINK, 0), SendState(LINK, 5, 2**32 - 3), []
    for _ in range(5):
        sender, frame = send(sender, Kind.ALIVE, b"", 0, 0)
        state, outcome = receive(state, frame, 0)
        outcomes.append(type(outcome))
    assert outcomes == [Accepted] * 5
    assert state.seq == 2


def test_a_late_frame_and_one_from_the_future_are_rejected_and_the_sequence_goes_on() -> None:
    a, b, c = frames(3)
    state, _ = feed(listening(LINK, 0), a)
    state, outcome = receive(state, b, 11 * MS + 1)
    assert outcome == Rejected(Reason.DELAY)
    state, outcome = receive(state, c, 10 * MS)
    assert isinstance(outcome, Accepted)
    _, early = receive(listening(LINK, 0), frames(1, t_ns=5 * MS)[0], 0)
    assert early == Rejected(Reason.DELAY)


def test_strangers_are_told_apart() -> None:
    elsewhere = make_link("lanzhou", "plant", "safety", watchdog_ns=1, max_age_ns=1)
    backwards = make_link("wuwei", "safety", "plant", watchdog_ns=1, max_age_ns=1)
    other_source = LINK._replace(source=link_identity("wuwei", "console"))
    keyless = LINK._replace(key=0)
    outcomes = [
        feed(listening(LINK, 0), frames(1, link)[0])[1][0] for link in (elsewhere, backwards, other_source, keyless)
    ]
    assert outcomes == [Reason.MISADDRESSED, Reason.MISADDRESSED, Reason.INSERTION, Reason.MASQUERADE]


def test_a_kind_that_does_not_belong_here_is_an_insertion() -> None:
    only_alive = LINK._replace(kinds=frozenset({Kind.ALIVE}))
    assert feed(listening(only_alive, 0), frames(1)[0])[1] == [Reason.INSERTION]
    assert feed(listening(LINK, 0), encode(LINK, 99, 5, 1, 0, 0, b""))[1] == [Reason.INSERTION]


def test_an_echo_of_what_was_never_sent_is_a_masquerade() -> None:
    frame = encode(LINK, Kind.ALIVE, 5, 1, 8, 0, b"")
    _, outcome = receive(listening(LINK, 0), frame, 0, sent_seq=7)
    assert outcome == Rejected(Reason.MASQUERADE)
    _, outcome = receive(listening(LINK, 0), frame, 0, sent_seq=8)
    assert isinstance(outcome, Accepted)


def test_an_older_boot_is_refused_for_ever_and_a_newer_one_until_a_reset() -> None:
    state, _ = feed(listening(LINK, 0), *frames(3, boot=5))
    state, outcomes = feed(state, frames(1, boot=4)[0])
    assert outcomes == [Reason.OLDER_BOOT]
    assert not state.tripped
    state, outcomes = feed(state, *frames(2, boot=6))
    assert outcomes == [Reason.RESTARTED, Reason.RESTARTED]
    assert state.tripped
    assert not link_ok(state, 0)
    state = resync(state, 0)
    assert not link_ok(state, 0)  # known again only from its next good frame
    state, outcomes = feed(state, frames(4, boot=5)[3], frames(3, boot=6)[2])
    assert outcomes == [Reason.OLDER_BOOT, b"\2"]
    assert link_ok(state, 0)


def test_after_a_reset_old_frames_of_the_same_boot_stay_refused() -> None:
    made = frames(6)
    state, _ = feed(listening(LINK, 0), *made[:3])
    state = resync(watch(state, 21 * MS), 21 * MS)
    state, outcomes = feed(state, made[1], made[2], made[5], now_ns=0)
    assert outcomes == [Reason.WRONG_ORDER, Reason.REPETITION, b"\5"]


def test_too_many_bad_frames_within_the_watchdog_trip_good_ones_between_or_not() -> None:
    made = frames(9)
    state, _ = feed(listening(LINK, 0), made[0], b"", made[1], b"")
    assert not state.tripped
    assert link_ok(state, 0)
    state, outcomes = feed(state, made[2], b"", made[3])
    assert outcomes == [b"\2", Reason.CORRUPTION, b"\3"]  # readable again, but the trip is latched
    assert state.bad_total == 3
    assert state.tripped
    assert not link_ok(state, 0)


def test_bad_frames_further_apart_than_the_watchdog_do_not_add_up() -> None:
    state, sender = listening(LINK, 0), SendState(LINK, 5)
    for number in range(60):
        now_ns = number * MS
        sender, frame = send(sender, Kind.ALIVE, b"", number, now_ns)
        state, _ = feed(state, frame, *([b""] if number % 11 == 0 else []), now_ns=now_ns)
        assert link_ok(state, now_ns)
    assert state.bad_total == 6
    assert len(state.bad_ns) == 3


def test_a_good_frame_after_the_watchdog_does_not_hide_that_it_had_expired() -> None:
    state, sender = listening(LINK, 0), SendState(LINK, 5)
    for now_ns in (0, 21 * MS):
        sender, frame = send(sender, Kind.ALIVE, b"", sender.seq + 1, now_ns)
        state, outcome = receive(state, frame, now_ns)
        assert isinstance(outcome, Accepted)
    assert state.tripped
    assert not link_ok(state, 21 * MS)


def test_the_watchdog_bites_without_frames_and_without_an_echo() -> None:
    state = listening(LINK, 0)
    assert not link_ok(state, 0)
    state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, 1, 0, 0, b""))
    assert link_ok(state, 20 * MS)
    assert deadline_ns(state) == 20 * MS + 1
    assert not expired(state, 20 * MS)
    assert expired(state, 20 * MS + 1)
    now = 0
    for seq in range(2, 24):  # frames come, but the peer hears nothing new from here
        now = (seq - 1) * MS
        state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, seq, 0, now, b""), now_ns=now)
    assert state.good_ns == now
    assert expired(state, now)
    tripped = watch(state, now)
    assert tripped.tripped
    assert watch(tripped, now) is tripped


@pytest.mark.parametrize("first_ms", [0, 1, 15, 19, 20, 21, 39])
def test_a_peer_has_a_whole_watchdog_for_its_first_echo(first_ms: int) -> None:
    """It cannot echo what it has not heard yet, however long this end has listened and whatever it has said."""
    state = listening(LINK, 0)
    if expired(state, first_ms * MS):
        state = resync(watch(state, 21 * MS), 21 * MS)
    now = max(first_ms, 21 * (first_ms > 20)) * MS
    state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, 1, 0, now, b""), now_ns=now)
    for seq in range(2, 22):
        at = now + (seq - 1) * MS
        state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, seq, 0, at, b""), now_ns=at)
        assert link_ok(state, at)
    late = now + 21 * MS
    state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, 22, 0, late, b""), now_ns=late)
    assert not link_ok(state, late)


def test_a_trip_says_what_tripped_it() -> None:
    good = encode(LINK, Kind.ALIVE, 5, 1, 0, 0, b"")
    heard, _ = feed(listening(LINK, 0), good)
    assert trip_cause(heard, 20 * MS + 1) == "silent"
    repeated, _ = feed(heard, good)
    assert trip_cause(repeated, 20 * MS + 1) == "silent, repetition"
    assert trip_cause(repeated, MS) == "repetition"
    deaf, _ = feed(heard, encode(LINK, Kind.ALIVE, 5, 2, 0, 19 * MS, b""), now_ns=19 * MS)
    assert trip_cause(deaf, 21 * MS) == "unheard"
    back, _ = feed(heard, encode(LINK, Kind.ALIVE, 5, 2, 1, 21 * MS, b""), now_ns=21 * MS)
    assert (back.tripped, trip_cause(back, 21 * MS)) == (True, "was silent")


def test_an_echo_that_goes_back_is_no_progress() -> None:
    state, _ = feed(listening(LINK, 0), encode(LINK, Kind.ALIVE, 5, 1, 9, 0, b""))
    now = 0
    for seq in range(2, 24):  # 8, 9, 8, 9 ...: it changes each time, and says nothing new
        now = (seq - 1) * MS
        state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, seq, 9 - seq % 2, now, b""), now_ns=now)
    assert (state.good_ns, state.echo, state.echo_ns) == (now, 9, 0)
    assert expired(state, now)


def test_an_echo_goes_on_over_the_end_of_its_numbers_and_anywhere_after_a_reset() -> None:
    state, _ = feed(listening(LINK, 0), encode(LINK, Kind.ALIVE, 5, 1, 2**32 - 1, 0, b""))
    assert state.echo == 2**32 - 1
    state, _ = feed(state, encode(LINK, Kind.ALIVE, 5, 2, 0, MS, b""), now_ns=MS)
    assert (state.echo, state.echo_ns) == (0, MS)
    state, _ = feed(resync(state, 2 * MS), encode(LINK, Kind.ALIVE, 5, 3, 2**31 + 5, 3 * MS, b""), now_ns=3 * MS)
    assert (state.echo, state.echo_ns) == (2**31 + 5, 3 * MS)


def test_a_link_is_not_opened_with_a_slow_crc(monkeypatch: pytest.MonkeyPatch) -> None:
    require_compiled_crc()
    monkeypatch.setattr("google_crc32c.implementation", "python")
    with pytest.raises(ConfigError, match="'python', not 'c'") as caught:
        DatagramEnd()
    assert caught.value.code == "crc.slow"


def test_a_payload_that_is_too_long_is_a_defect() -> None:
    with pytest.raises(InternalError):
        encode(LINK, Kind.ALIVE, 1, 1, 0, 0, bytes(PAYLOAD_MAX + 1))
    assert len(encode(LINK, Kind.ALIVE, 1, 1, 0, 0, b"")) == OVERHEAD
    assert fields(frames(1)[0]).seq == 1


@given(st.lists(st.sampled_from(["good", "drop", "repeat", "noise", "old"]), max_size=40))
def test_no_payload_is_ever_handed_out_twice_or_out_of_order(script: list[str]) -> None:
    state, sender, got = listening(LINK, 0), SendState(LINK, 5), []
    sent: list[bytes] = []
    for step in script:
        if step in ("good", "drop"):
            sender, frame = send(sender, Kind.ALIVE, struct.pack(">I", sender.seq + 1), 0, 0)
            sent.append(frame)
            offered = frame if step == "good" else None
        else:
            offered = {"repeat": sent[-1] if sent else b"", "noise": b"noise" * 20, "old": sent[0] if sent else b""}[
                step
            ]
        if offered is not None:
            state, outcome = receive(state, offered, 0)
            if isinstance(outcome, Accepted):
                got.append(struct.unpack(">I", outcome.payload)[0])
    assert got == sorted(set(got))
