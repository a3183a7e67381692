"""The man in the middle: datagrams pass in order both ways, and faults befall them as they befall those in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from channels.datagram import DatagramEnd
from channels.frames import Accepted, Kind, Reason, SendState, listening, make_link, receive, send
from channels.wire_faults import LinkFault
from rig.link_relay import LinkRelay

MS = 1_000_000
FACTS = make_link("wuwei", "rack", "safety", watchdog_ns=20 * MS, max_age_ns=3 * MS, bad_limit=100)


class Wire:
    def __init__(self) -> None:
        self.relay, self.rack, self.safety = LinkRelay(), DatagramEnd(), DatagramEnd()
        self.relay.rack_at(*self.rack.address)
        self.relay.safety_at(*self.safety.address)
        self.rack.connect(*self.relay.for_rack)
        self.safety.connect(*self.relay.for_safety)

    def close(self) -> None:
        for one in (self.relay, self.rack, self.safety):
            one.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def taken(end: DatagramEnd, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        assert end.wait(5.0), got
        got += end.take()
    return got


def test_datagrams_pass_both_ways_and_a_cut_is_a_cut(wire: Wire) -> None:
    wire.rack.send(b"image")
    assert taken(wire.safety, 1) == [b"image"]
    wire.safety.send(b"permit")
    assert taken(wire.rack, 1) == [b"permit"]
    with wire.relay.lock:
        wire.relay.images.cut = True
    wire.rack.send(b"lost")
    wire.safety.send(b"other way")
    assert taken(wire.rack, 1) == [b"other way"]
    with wire.relay.lock:
        wire.relay.images.cut = False
    wire.rack.send(b"again")
    assert taken(wire.safety, 1) == [b"again"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (LinkFault.DUPLICATE, [0, 1, Reason.REPETITION, 2]),
        (LinkFault.REORDER, [0, Reason.LOSS, Reason.WRONG_ORDER]),
        (LinkFault.CORRUPT, [0, Reason.CORRUPTION, Reason.LOSS]),
        (LinkFault.INSERT, [0, 1, Reason.INSERTION, 2]),
        (LinkFault.MASQUERADE, [0, Reason.MASQUERADE, Reason.LOSS]),
        (LinkFault.FOREIGN, [0, Reason.MISADDRESSED, Reason.LOSS]),
        (LinkFault.OLDER_BOOT, [0, Reason.OLDER_BOOT, Reason.LOSS]),
        (LinkFault.REPLAY, [0, Reason.REPETITION, Reason.LOSS]),
    ],
)
def test_each_fault_is_noticed_by_its_reason(wire: Wire, fault: LinkFault, expected: list[object]) -> None:
    sender, state, outcomes = SendState(FACTS, boot=9), listening(FACTS, 0), []
    with wire.relay.lock:
        wire.relay.images.faults.keyed_as(FACTS)
    for number in range(3):
        if number == 1:
            with wire.relay.lock:
                wire.relay.images.faults.inject(fault)
        sender, frame = send(sender, Kind.PROCESS_IMAGE, bytes([number]), 0, 0)
        wire.rack.send(frame)
        if number == 0:
            first = taken(wire.safety, 1)
    for frame in first + taken(wire.safety, len(expected) - 1):
        state, outcome = receive(state, frame, 0)
        outcomes.append(outcome.payload[0] if isinstance(outcome, Accepted) else outcome.reason)
    assert outcomes == expected


def test_a_delayed_datagram_is_overtaken(wire: Wire) -> None:
    with wire.relay.lock:
        wire.relay.permits.faults.inject(LinkFault.DELAY, delay_ns=30 * MS)
    wire.safety.send(b"late")
    wire.safety.send(b"in time")
    assert taken(wire.rack, 2) == [b"in time", b"late"]
