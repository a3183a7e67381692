"""Keep-alives: only a genuine, newer frame of the boot that was admitted is a sign of life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.keepalive import (
    FRAME_MAX,
    Beat,
    Fault,
    KeepAliveMaker,
    KeepAliveState,
    admit,
    check,
    expired,
)
from channels.keys import derived_private_key
from facility.errors import InternalError
from facility.timebase import NS_PER_S, ManualClock

KEY = derived_private_key(3, "control")


def maker(boot: int = 4, clock: ManualClock | None = None, source: str = "control") -> KeepAliveMaker:
    return KeepAliveMaker(source, boot, KEY, clock or ManualClock())


def fresh() -> KeepAliveState:
    return KeepAliveState("control", KEY.public_key(), max_age_ns=NS_PER_S, since_ns=0)


def test_beats_rise_and_move_the_watchdog() -> None:
    clock, state = ManualClock(), fresh()
    source = maker(clock=clock)
    for number in range(1, 4):
        clock.advance_ns(NS_PER_S // 2)
        state, outcome = check(state, source.make(), clock.now_ns())
        assert outcome == Beat(4, number, clock.now_ns())
    assert not expired(state, clock.now_ns() + NS_PER_S)
    assert expired(state, clock.now_ns() + NS_PER_S + 1)


def test_a_frame_held_up_by_somebody_keeps_nobody_alive() -> None:
    frame, state = maker().make(), fresh()
    state, _ = check(state, frame, 0)
    same, outcome = check(state, frame, 1)
    assert (same, outcome) == (state, Fault.NOT_RISING)


def test_a_late_frame_is_stale() -> None:
    assert check(fresh(), maker().make(), NS_PER_S + 1)[1] is Fault.STALE
    assert check(fresh(), maker(clock=ManualClock(NS_PER_S + 1)).make(), 0)[1] is Fault.STALE


def test_forged_and_foreign_frames_are_not_genuine() -> None:
    other = KeepAliveMaker("control", 4, derived_private_key(3, "console"), ManualClock())
    assert check(fresh(), other.make(), 0)[1] is Fault.NOT_GENUINE
    assert check(fresh(), maker(source="console").make(), 0)[1] is Fault.NOT_GENUINE
    assert check(fresh(), maker().make().replace(b'"seq":1', b'"seq":9'), 0)[1] is Fault.NOT_GENUINE


@given(st.binary(max_size=FRAME_MAX + 20))
def test_noise_is_malformed(noise: bytes) -> None:
    assert check(fresh(), noise, 0) == (fresh(), Fault.MALFORMED)


@given(st.data())
def test_no_single_bit_flip_passes(data: st.DataObject) -> None:
    frame = bytearray(maker().make())
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not isinstance(check(fresh(), bytes(frame), 0)[1], Beat)


def test_a_restarted_source_is_refused_until_it_is_admitted_and_old_boots_for_ever() -> None:
    state, _ = check(fresh(), maker(4).make(), 0)
    old = maker(4)
    held_back = [old.make() for _ in range(3)]
    restarted = maker(5)
    state, outcome = check(state, restarted.make(), 0)
    assert outcome is Fault.RESTARTED
    assert check(state, restarted.make(), 0)[1] is Fault.RESTARTED
    state = admit(state, 0)
    assert check(state, held_back[2], 0)[1] is Fault.OLDER_BOOT
    state, outcome = check(state, restarted.make(), 0)
    assert isinstance(outcome, Beat)
    assert check(state, held_back[2], 0)[1] is Fault.OLDER_BOOT


def test_a_second_source_does_not_lock_the_first_out() -> None:
    clock, state = ManualClock(), fresh()
    first, second = maker(4, clock), maker(5, clock)
    for _ in range(3):
        clock.advance_ns(NS_PER_S // 2)
        state, outcome = check(state, second.make() if state.boot == 4 else first.make(), clock.now_ns())
        state, outcome = check(state, first.make(), clock.now_ns())
        assert isinstance(outcome, Beat)
    assert not expired(state, clock.now_ns())


def test_an_old_frame_of_a_newer_boot_makes_no_candidate() -> None:
    clock, state = ManualClock(), fresh()
    held_back = maker(7, clock).make()
    clock.advance_ns(2 * NS_PER_S)
    source = maker(4, clock)
    state, _ = check(state, source.make(), clock.now_ns())
    state, outcome = check(state, held_back, clock.now_ns())
    assert outcome is Fault.STALE
    state = admit(state, clock.now_ns())
    assert isinstance(check(state, source.make(), clock.now_ns())[1], Beat)


def test_admitting_the_same_boot_does_not_open_the_door_to_replays() -> None:
    source = maker()
    first, second = source.make(), source.make()
    state, _ = check(fresh(), second, 0)
    state = admit(state, 0)
    assert check(state, first, 0)[1] is Fault.NOT_RISING
    assert isinstance(check(state, source.make(), 0)[1], Beat)


@pytest.mark.parametrize("resets", [2, 3])
def test_nor_does_admitting_it_again_before_it_has_spoken(resets: int) -> None:
    source = maker()
    first, second = source.make(), source.make()
    state, _ = check(fresh(), second, 0)
    for _ in range(resets):
        state = admit(state, 0)
    assert [check(state, frame, 0)[1] for frame in (first, second)] == [Fault.NOT_RISING] * 2
    assert isinstance(check(state, source.make(), 0)[1], Beat)


def test_the_longest_frame_fits() -> None:
    frame = maker(2**64 - 1, ManualClock(2**62), "s" * 40).make()
    assert len(frame) <= FRAME_MAX
    with pytest.raises(InternalError):
        maker(source="s" * 41)
