"""Threads that come late: what waited for them is taken in order, and nothing that one message says goes unseen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from facility.config import load_facility
from facility.states import FrontEndState
from interlocks import process_image
from interlocks.link import PermitCommand, RackEnd, SafetyEnd
from interlocks.process_image import NO_FAULT
from interlocks.rules import load_rules
from ioc_sim.plant import Plant
from rig.processes.plant import Rack
from rig.processes.safety import Scanner
from rig.safety_scans import ScanRing
from tests.interlocks.support import Safety
from tests.plant.layers import MS, go, grid, run_until

BEAM = PermitCommand(True, False, 0, 0, personnel=True, field=1)
PAUSE = PermitCommand(False, True, 0, 0, personnel=True, field=1, drops=1)
ABORT = PAUSE._replace(hold=False)
AGAIN = BEAM._replace(drops=1)


class Box:
    """A link whose frames wait until they are taken."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.sent: list[bytes] = []

    def take(self) -> Iterator[bytes]:
        while self.frames:
            yield self.frames.pop(0)

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)


class SlowRack:
    """A plant process's rack, in steps of 1 ms."""

    def __init__(self) -> None:
        facility = load_facility("wuwei")
        rules = load_rules(facility, "1", "carbon")
        self.plant: Any = Plant(facility, "1", "carbon", seed=3, allow_faults=True, rules=rules.fast())
        self.plant.lock = threading.RLock()
        self.plant.set_room_beam(True)
        self.t_ns = 0
        self.box = Box()
        self.end = RackEnd("key", 1, rules.link, 0)
        self.safety = SafetyEnd("key", 1, rules.link, 0)
        self.lost: list[Any] = []
        self.rack = Rack(self.plant, self.box, self.end, self, None, None, lambda _: None, self.lost.append)  # type: ignore[arg-type]

    def now_ns(self) -> int:
        return self.t_ns

    def run(self, *commands: PermitCommand, count: int = 1) -> None:
        """Milliseconds with these commands each, taken at once."""
        for _ in range(count):
            self.t_ns += MS
            image = process_image.image_of(self.plant.signals)
            self.safety.receive(self.end.send(image, NO_FAULT, self.t_ns), self.t_ns)
            self.box.frames += [self.safety.send(command, self.t_ns) for command in commands]
            self.rack._take_permit()
            go(self.plant, self.t_ns)

    def irradiate(self) -> None:
        self.run(BEAM._replace(permit=False))
        self.run(BEAM, count=10)
        self.plant.open_field(1, 1e15, 1e9)
        self.run(BEAM, count=2000)
        self.plant.reset_fast(-1)
        self.plant.request_cycle(77, 150)
        self.plant.load_layer(77, 150, 1e7, grid(half_mm=20.0).table(self.plant, 150))
        self.run(BEAM)
        self.plant.arm(77, self.plant.status.permit_epoch)
        for _ in range(3000):
            self.run(BEAM)
            if self.plant.status.state is FrontEndState.IRRADIATING:
                return
        raise AssertionError(self.plant.status)


@pytest.mark.parametrize(("said", "state"), [(PAUSE, FrontEndState.PAUSED), (ABORT, FrontEndState.ABORTED)])
def test_a_trip_and_the_permit_after_it_in_one_batch_are_a_trip(said: PermitCommand, state: FrontEndState) -> None:
    it = SlowRack()
    it.irradiate()
    epoch = it.plant.status.permit_epoch
    it.run(said, AGAIN, AGAIN)
    it.run(AGAIN, count=5)
    before = it.plant.truth_total_ions
    it.run(AGAIN, count=20)
    assert it.plant.status.state is state
    assert it.plant.status.permit_epoch == epoch + 2
    assert it.plant.status.permit
    assert it.plant.truth_total_ions == before, "a permit that has come again is no resume"
    assert len(it.lost) == 1


def test_a_permit_that_goes_and_comes_within_a_tick_pauses_as_it_was_told_to() -> None:
    it = SlowRack()
    it.irradiate()
    it.plant.set_safety_lines(False, True, True, personnel=True, field=1)
    it.plant.set_safety_lines(True, False, True, personnel=True, field=1)
    run_until(it.plant, "PAUSED", slice_ns=MS)
    assert it.plant.status.state is FrontEndState.PAUSED


class SlowScanner:
    """A safety process's scanning thread, its permit given, and the rack's end that sends it images."""

    def __init__(self) -> None:
        self.safety = it = Safety()
        it.release()
        it.controller.lock = threading.RLock()  # type: ignore[attr-defined]
        self.rack = RackEnd("key", 1, it.rules.link, it.t_ns)
        self.end = SafetyEnd("key", 1, it.rules.link, it.t_ns)
        self.box = Box()
        self.scanner = Scanner(
            it.controller, self.box, self.end, it, ScanRing(it.controller), lambda: None,  # type: ignore[arg-type]
        )  # fmt: skip
        for _ in range(5):
            self.image(True)
        it.run(1)
        if not it.out.permit:
            it.resolve()
            it.say("reset", "physicist")
        for _ in range(5):
            self.image(True)
        assert self.told().permit

    def image(self, scan: bool, **changes: float) -> None:
        self.safety.set(**changes)
        self.safety.advance()
        image = process_image.image_of(self.safety.signals)
        self.box.frames.append(self.rack.send(image, NO_FAULT, self.safety.t_ns))
        if scan:
            self.scanner._scan()
            self.rack.receive(self.box.sent[-1], self.safety.t_ns)

    def told(self) -> PermitCommand:
        """What the last frame says, whether or not the rack believes it yet."""
        assert self.rack._command is not None
        return self.rack._command


def test_a_cause_that_only_an_image_in_between_shows_is_a_trip() -> None:
    it = SlowScanner()
    scans, sent = it.scanner.scans, len(it.box.sent)
    for opened in (1.0, 0.0, 1.0):
        it.image(False, ups__ok=opened)
    it.image(True)
    assert (it.scanner.scans - scans, len(it.box.sent) - sent) == (4, 1)
    assert it.scanner._ring.count == it.scanner.scans
    assert it.safety.latched() == ["ups"]
    assert not it.told().permit
    it.scanner._scan()  # no image has come: the watchdog is looked at all the same
    assert it.scanner.scans - scans == 5


def test_bad_frames_behind_a_good_one_are_answered_and_not_the_good_one() -> None:
    """Three of them trip the link."""
    it = SlowScanner()
    it.image(False)
    it.box.frames += [b"noise"] * 3
    it.image(False)
    it.box.frames.pop()
    scans = it.scanner.scans
    it.scanner._scan()
    assert it.scanner.scans - scans == 2
    assert it.rack.receive(it.box.sent[-1], it.safety.t_ns)
    assert it.told()[:2] == (False, False)
    assert it.safety.latched() == ["link-plant"]
