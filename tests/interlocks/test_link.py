"""Both ends of the safety link: nothing but a person's reset brings the permit back."""

from __future__ import annotations

import math

import pytest

from channels.frames import Kind, Reason, SendState, make_link, send
from interlocks import process_image
from interlocks.link import DEAD_LINES, PermitCommand, RackEnd, RackLines, SafetyEnd, pack_permit, unpack_permit
from interlocks.process_image import NO_FAULT, FastFault
from tests.interlocks.support import MS, good_signals, rule_set

SETTINGS = rule_set().link
OFF = PermitCommand(False, False, 0, 0)
BEAM = PermitCommand(True, False, 0, 0)
IMAGE = process_image.image_of(good_signals())


class Pair:
    """Rack and safety controller, a frame each way every millisecond."""

    def __init__(self, facility: str = "hash") -> None:
        self.t_ns = 0
        self.rack = RackEnd("hash", 1, SETTINGS, 0)
        self.safety = SafetyEnd(facility, 1, SETTINGS, 0)
        self.command = OFF
        self.cut = False

    def run(self, count: int = 1, command: PermitCommand | None = None) -> RackLines:
        self.command = command or self.command
        lines = DEAD_LINES
        for _ in range(count):
            self.t_ns += MS
            up = self.rack.send(IMAGE, NO_FAULT, self.t_ns)
            down = self.safety.send(self.command, self.t_ns)
            if not self.cut:
                self.safety.receive(up, self.t_ns)
                self.rack.receive(down, self.t_ns)
            self.heard = self.safety.link_ok(self.t_ns)
            lines = self.rack.lines(self.t_ns)
        return lines


def test_lines_follow_the_command_once_the_peer_was_seen_without_a_permit() -> None:
    pair = Pair()
    assert pair.run(3, BEAM) == RackLines(False, False, False)
    assert pair.run(1, OFF) == RackLines(False, False, True)
    assert pair.run(1, BEAM) == RackLines(True, False, True)
    assert not pair.run(1, BEAM).personnel  # a line that nobody speaks of is away
    assert pair.run(1, PermitCommand(True, True, 0, 0)) == RackLines(True, True, True)
    assert pair.heard
    assert pair.safety.peer_boot == 1
    assert pair.safety.image is not None
    assert (pair.safety.image == IMAGE).all()
    assert pair.safety.image_t_ns == pair.t_ns


def test_a_peer_without_a_permit_is_believed_at_once() -> None:
    rack, safety = RackEnd("hash", 1, SETTINGS, 0), SafetyEnd("hash", 1, SETTINGS, 0)
    assert rack.receive(safety.send(OFF, MS), MS) is True
    assert rack.lines(MS) == RackLines(False, False, True)
    assert rack.receive(b"noise", MS) is False


def test_a_frame_that_is_no_image_takes_the_image_away() -> None:
    pair = Pair()
    pair.run(3)
    good = pair.rack.send(IMAGE, NO_FAULT, pair.t_ns)
    assert pair.safety.receive(good, pair.t_ns) is True
    assert pair.safety.image_t_ns == pair.t_ns
    pair.t_ns += MS
    for short in (process_image.pack(IMAGE)[:-1], process_image.pack(IMAGE) + b"\0"):
        assert pair.safety.receive(pair.rack._send(Kind.PROCESS_IMAGE, short, pair.t_ns), pair.t_ns) is False
        assert pair.safety.image is None
        assert not pair.safety.link_ok(pair.t_ns)


@pytest.mark.parametrize("late_ns", [0, 1, round(SETTINGS.max_age_ms * MS), round(SETTINGS.max_age_ms * MS) + 1])
def test_a_frame_may_be_as_old_as_the_file_says(late_ns: int) -> None:
    pair = Pair()
    pair.run(20)
    up = pair.rack.send(IMAGE, NO_FAULT, pair.t_ns)
    assert pair.safety.receive(up, pair.t_ns + late_ns) is (late_ns <= SETTINGS.max_age_ms * MS)


def test_a_reset_and_a_proof_are_asked_for_by_numbers_that_rise_and_no_others() -> None:
    rack = RackEnd("hash", 1, SETTINGS, 0)
    asked = [(1, 5), (1, 5), (1, 7), (1, 6), (1, 7), (2, 9), (2, 8), (2, 9)]
    resets, proofs = [], []
    for boot, seq in asked:
        command = PermitCommand(False, False, 3, seq, proof_action=1, proof_seq=seq)
        rack._note_reset(command, boot)
        rack._note_proof(command, boot)
        resets.append(rack.take_reset())
        proofs.append(rack.take_proof())
    assert resets == [0, 0, 3, 0, 3, 0, 0, 3]
    assert proofs == [None, None, (1, 7), None, (1, 7), None, None, (1, 9)]


def test_a_command_is_exactly_as_long_as_it_is() -> None:
    command = PermitCommand(True, True, 1, 2, 3, True, 4, 5)
    payload = pack_permit(command)
    assert unpack_permit(payload) == command
    assert unpack_permit(payload + b"\0") is None
    assert unpack_permit(payload[:-1]) is None


def test_nothing_is_heard_before_the_first_frame() -> None:
    rack, safety = RackEnd("hash", 1, SETTINGS, 0), SafetyEnd("hash", 1, SETTINGS, 0)
    for t_ns in range(0, 50 * MS, MS):
        assert rack.lines(t_ns) == DEAD_LINES
        assert not safety.link_ok(t_ns)
    assert (rack.trips, safety.trips) == (0, 0)
    assert rack.deadline_ns() > 40 * MS


@pytest.mark.parametrize("alone_ms", range(0, 24, 2))
def test_a_controller_that_has_waited_for_its_rack_does_not_trip_on_its_first_frames(
    alone_ms: int,
) -> None:
    pair = Pair()
    pair.cut = True
    pair.run(alone_ms, OFF)
    pair.cut = False
    pair.run(30, OFF)
    assert (pair.rack.trips, pair.safety.trips, pair.heard) == (0, 0, True)


def test_an_end_says_why_it_tripped() -> None:
    pair = Pair()
    pair.run(3, OFF)
    pair.cut = True
    pair.run(round(SETTINGS.watchdog_ms) + 1)
    assert (pair.rack.trip_cause, pair.safety.trip_cause) == ("silent", "silent")


def test_a_cut_takes_the_lines_away_within_the_watchdog_and_a_peer_that_did_not_notice_stays_without() -> None:
    pair = Pair()
    pair.run(3, OFF)
    pair.run(5, BEAM)
    pair.cut = True
    watchdog_ms = round(SETTINGS.watchdog_ms)
    assert pair.run(watchdog_ms) == RackLines(True, False, True)
    assert pair.run() == RackLines(False, False, False)
    assert not pair.heard
    assert (pair.rack.trips, pair.safety.trips) == (1, 1)
    pair.cut = False
    assert pair.run(50, BEAM) == RackLines(False, False, False)
    assert pair.heard
    assert pair.run(1, OFF) == RackLines(False, False, True)
    assert pair.run(1, BEAM) == RackLines(True, False, True)


def test_a_trip_shows_although_frames_came_again_before_anyone_looked() -> None:
    pair = Pair()
    pair.run(3, OFF)
    pair.run(5, BEAM)
    stranger = SafetyEnd("hash", 2, SETTINGS, 0)  # restarted
    pair.t_ns += MS
    assert not pair.rack.receive(stranger.send(BEAM, pair.t_ns), pair.t_ns)
    assert pair.rack.last_reason is Reason.RESTARTED
    assert pair.rack.lines(pair.t_ns) == DEAD_LINES
    pair.safety = stranger
    assert pair.run(20, BEAM) == RackLines(False, False, False)
    assert pair.run(2, OFF) == RackLines(False, False, True)


def test_a_restarted_rack_trips_the_safety_controller() -> None:
    pair = Pair()
    pair.run(5, OFF)
    pair.rack = RackEnd("hash", 2, SETTINGS, pair.t_ns)
    pair.run(1)
    assert not pair.heard
    pair.run(3)
    assert pair.heard


def test_a_clock_that_stands_still_or_runs_wrong_is_not_believed() -> None:
    """Of either end: frames whose time does not go on with the listener's are late, or from the future."""
    for speed in (0.0, 0.9, 1.1, 2.0):
        pair = Pair()
        pair.run(3, OFF)
        pair.run(3, BEAM)
        start_ns = pair.t_ns
        for _ in range(200):
            pair.t_ns += MS
            wrong_ns = start_ns + round((pair.t_ns - start_ns) * speed)
            pair.rack.receive(pair.safety.send(BEAM, wrong_ns), pair.t_ns)
            pair.safety.receive(pair.rack.send(IMAGE, NO_FAULT, pair.t_ns), wrong_ns)
            lines = pair.rack.lines(pair.t_ns)
        assert lines[:3] == (False, False, False), speed
        assert pair.rack.trips > 0


def test_refused_frames_are_counted() -> None:
    pair = Pair()
    pair.run(3, OFF)
    assert pair.rack.bad_frames == 0
    pair.rack.receive(b"noise", pair.t_ns)
    assert pair.rack.bad_frames == 1


@pytest.mark.parametrize(("boot", "heard"), [(6, True), (7, True), (8, True), (5, True), (4, False), (3, False)])
def test_what_was_recorded_before_the_rack_began_is_not_believed(boot: int, heard: bool) -> None:
    """All else fits: facility, key, numbers, echoes and times."""
    pair = Pair()
    pair.rack = RackEnd("hash", 6, SETTINGS, 0)
    pair.safety = SafetyEnd("hash", boot, SETTINGS, 0)
    pair.run(3, OFF)
    assert pair.run(3, BEAM) == (RackLines(True, False, True) if heard else DEAD_LINES)
    assert (pair.rack.last_reason is Reason.OLDER_BOOT) is not heard


def test_another_facility_is_not_heard() -> None:
    pair = Pair("other")
    assert pair.run(30, OFF) == RackLines(False, False, False)
    assert not pair.heard


def test_a_reset_is_carried_out_once_and_only_when_its_number_rises() -> None:
    pair = Pair()
    pair.run(3, PermitCommand(False, False, 5, 7))  # an old number: not news
    assert pair.rack.take_reset() == 0
    pair.run(3, PermitCommand(False, False, 6, 8))
    assert pair.rack.take_reset() == 6
    pair.run(3, PermitCommand(False, False, 0, 9))  # given up before it was heard
    assert pair.rack.take_reset() == 0
    assert pair.rack.take_reset() == 0
    pair.run(3)
    assert pair.rack.take_reset() == 0


def test_a_restarted_controller_resets_nothing_by_its_number() -> None:
    pair = Pair()
    pair.run(3, PermitCommand(False, False, 0, 0))
    pair.safety = SafetyEnd("hash", 2, SETTINGS, pair.t_ns)
    pair.run(5, PermitCommand(False, False, 7, 9))
    assert pair.rack.take_reset() == 0


def test_payloads_that_are_none() -> None:
    command = PermitCommand(True, False, 3, 4)
    assert unpack_permit(pack_permit(command)) == command
    assert unpack_permit(b"") is None
    assert unpack_permit(b"\x02" + pack_permit(command)[1:]) is None
    assert unpack_permit(b"\x01\x07" + pack_permit(command)[2:]) is None


@pytest.mark.parametrize("payload", [b"", b"\x03" * 10])
def test_well_formed_frames_with_nonsense_inside_are_no_message(payload: bytes) -> None:
    pair = Pair()
    pair.run(3, OFF)
    facts = make_link("hash", "rack", "safety", watchdog_ns=10 * MS, max_age_ns=5 * MS)
    seq = pair.rack._sender.seq
    _, frame = send(SendState(facts, 1, seq), Kind.PROCESS_IMAGE, payload, pair.rack._state.seq, pair.t_ns)
    assert not pair.safety.receive(frame, pair.t_ns)
    assert pair.safety.image is None
    assert not pair.safety.link_ok(pair.t_ns)
    pair.run()
    frame = pair.safety._send(Kind.PERMIT, payload, pair.t_ns)
    assert pair.rack.lines(pair.t_ns) != DEAD_LINES
    assert not pair.rack.receive(frame, pair.t_ns)
    assert pair.rack.lines(pair.t_ns) == DEAD_LINES, "what it said before is not what it says now"


def test_after_a_frame_that_is_no_command_a_permit_is_believed_only_after_none() -> None:
    pair = Pair()
    pair.run(3, OFF)
    assert pair.run(1, BEAM).permit
    assert not pair.rack.receive(pair.safety._send(Kind.PERMIT, b"nonsense", pair.t_ns), pair.t_ns)
    assert pair.rack.bad_frames == 0
    assert pair.rack.lines(pair.t_ns) == DEAD_LINES
    assert pair.rack.lost_by_trip
    assert not pair.run(3, BEAM).permit
    pair.run(1, OFF)
    assert pair.run(1, BEAM).permit


def test_the_first_fault_travels_with_the_image() -> None:
    pair = Pair()
    fault = FastFault(4, 1.5, 1.0, 42)
    assert pair.safety.receive(pair.rack.send(IMAGE, fault, MS), MS)
    assert pair.safety.fault == fault
    assert math.isnan(NO_FAULT.value)


def test_bypasses_travel_with_the_permit_and_end_with_the_link() -> None:
    pair = Pair()
    pair.run(3, OFF)
    masked = PermitCommand(True, False, 0, 0, 1 << 59 | 5)
    assert unpack_permit(pack_permit(masked)) == masked
    assert pair.run(2, masked) == RackLines(True, False, True, 1 << 59 | 5)
    assert pair.run(1, OFF).bypass_mask == 0
    pair.run(1, masked)
    pair.cut = True
    assert pair.run(round(SETTINGS.watchdog_ms) + 1, masked) == DEAD_LINES


PAUSE = PermitCommand(False, True, 0, 0, drops=1)
AGAIN = BEAM._replace(drops=1)


def with_beam() -> Pair:
    pair = Pair()
    pair.run(2, OFF)
    assert pair.run(3, BEAM).permit
    return pair


def test_a_permit_that_went_in_a_frame_that_was_refused_goes_all_the_same() -> None:
    pair = with_beam()
    pair.t_ns += MS
    pair.safety.send(BEAM, pair.t_ns)  # lost, so that the next one is refused
    bad = pair.rack.bad_frames
    assert pair.run(1, PAUSE).permit
    assert pair.rack.bad_frames == bad + 1
    assert pair.run(1, AGAIN) == RackLines(False, True, True)
    assert pair.run(1, AGAIN) == RackLines(True, False, True)
    assert pair.rack.trips == 0


def test_a_permit_that_went_and_came_while_the_rack_slept_goes_until_another_frame_has_come() -> None:
    pair = with_beam()
    for command in (PAUSE, AGAIN, AGAIN):
        pair.t_ns += MS
        assert pair.rack.receive(pair.safety.send(command, pair.t_ns), pair.t_ns)
    for _ in range(3):
        assert pair.rack.lines(pair.t_ns) == RackLines(False, True, True)
    assert pair.run(1, AGAIN) == RackLines(True, False, True)
    assert pair.run(5, AGAIN) == RackLines(True, False, True)


def test_a_drop_that_is_heard_of_says_what_the_frame_says() -> None:
    paused, off = RackLines(False, True, True), RackLines(False, False, True)
    for command, lines in ((PAUSE, paused), (OFF._replace(drops=1), off)):
        pair = with_beam()
        assert pair.run(1, command) == lines
        assert pair.run(1, command) == lines
        assert pair.run(1, AGAIN) == RackLines(True, False, True)


def test_drops_of_another_boot_are_no_drops_of_this_one() -> None:
    rack = RackEnd("hash", 1, SETTINGS, 0)
    seen = []
    assert (rack._dropped, rack._drop_told) == (False, False)
    for boot, drops in ((1, 5), (1, 5), (2, 0), (2, 0), (1, 9), (2, 0), (2, 2**32 - 1)):
        rack._note_drops(BEAM._replace(drops=drops), boot)
        seen.append(rack._dropped)
    assert seen == [False] * 6 + [True]
    rack._drop_told = True
    for dropped in (False, False):
        rack._note_drops(BEAM._replace(drops=2**32 - 1), 2)
        assert rack._dropped is dropped
    rack._note_drops(BEAM, 2)  # the count has gone round
    assert rack._dropped
    rack._drop_told = True
    rack._note_drops(BEAM._replace(drops=3), 2)  # one more, before the lines have told of it
    assert (rack._dropped, rack._drop_told) == (True, False)
    rack._note_drops(BEAM._replace(drops=3), 2)
    assert rack._dropped
    rack._drop_told = True
    rack._note_drops(BEAM._replace(drops=3), 2)
    assert (rack._dropped, rack._drop_told) == (False, False)


def test_drops_are_counted_round() -> None:
    for drops, travels in ((0, 0), (2**32 - 1, 2**32 - 1), (2**32, 0), (2**33 + 7, 7)):
        command = unpack_permit(pack_permit(BEAM._replace(drops=drops)))
        assert command is not None
        assert command.drops == travels
