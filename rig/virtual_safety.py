"""The safety link and the scans of the safety controller in virtual time.

A real link carries a frame each way every millisecond, and the controller scans as often. Here frames are really
encoded, carried and judged, but an exchange takes place only when it could matter: when a watched value of the process
image has crossed a threshold, when time alone changes a rule, when a person has done something. In between both ends
are told that nothing was said. `always=True` exchanges every millisecond instead; a test shows the same trips. From the
first fault of the wire on that is so anyway, since both watchdogs must run, until both ends have heard each other over
a sound wire for a while, and no frame is late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from channels.frames import ReceiveState
from channels.memory_link import MemoryLink
from facility.timebase import NS_PER_MS, Rank
from interlocks.controller import SafetyController
from interlocks.link import RackEnd, RackLines, SafetyEnd
from interlocks.process_image import image_of
from ioc_sim.plant import Plant
from rig.safety_side import carry_out, first_fault
from rig.virtual_time import VirtualLoop

if TYPE_CHECKING:
    from rig.safety_scans import ScanRing

BOOT = 1
FAR_NS = 1 << 62
NEVER_NS = -1
"""Earlier than whatever is planned: nothing is."""
RESTS = 3
"""Watchdogs of the link after a fault, until exchanges are left out again: one at each end, one after the other, has
had time to run out, and a third to be sure of it."""
_WAITING_MAX = 256
"""Frames that wait for a controller that is halted: what a socket would hold; the oldest are lost."""


class VirtualSafety:
    """Plant and safety controller, joined by a link in memory.

    Args:
        loop: the facility's loop.
        plant: the rack.
        controller: tier P.
        key: what both ends must have in common (the configuration hash).
        scanned: called after every scan.
        always: exchange every millisecond.
        ring: where the scans are noted; None: nowhere.
    """

    def __init__(
        self, loop: VirtualLoop, plant: Plant, controller: SafetyController, key: str, scanned: Callable[[], None],
        *, always: bool = False, ring: ScanRing | None = None,
    ) -> None:  # fmt: skip
        settings = controller.rules.link
        self.exchanges = 0
        """How often frames went both ways."""
        self.always = always
        self._for_good = always
        self._unsound_ns = loop.now_ns()
        self.controller = controller
        self.wire = MemoryLink(loop, round(settings.latency_ms * NS_PER_MS))
        self._loop = loop
        self._plant = plant
        self._scanned = scanned
        self._ring = ring
        self._period_ns = round(settings.period_ms * NS_PER_MS)
        self._rest_ns = RESTS * round(settings.watchdog_ms * NS_PER_MS)
        self._rack = RackEnd(key, BOOT, settings, loop.now_ns())
        self._safety = SafetyEnd(key, BOOT, settings, loop.now_ns())
        self.wire.a.on_frame(self._at_rack)
        self.wire.b.on_frame(self._at_safety)
        self.wire.suspect = self._wire_fails
        self._key = key
        self._boot = BOOT
        self._halted = False
        self._waiting: deque[bytes] = deque(maxlen=_WAITING_MAX)
        self._lines: RackLines | None = None
        self._stuck: RackLines | None = None
        self._next_ns = FAR_NS
        self._deadline_ns = 0
        """The deadline that the next exchange is planned for; 0 if it has another reason."""
        self._wanted = False
        """There is another reason beside it."""
        self._flipped = 0
        self._exchange_at(loop.now_ns())

    # --- what may befall the controller ---------------------------------------------------------------------
    def halt(self) -> None:
        """The controller's process is stopped, or dead: it neither takes frames nor scans nor sends."""
        self._wire_fails()
        self._halted = True

    def go_on(self) -> None:
        """It runs on, as if nothing had been: what has arrived meanwhile is judged in order."""
        self._halted = False
        waiting, self._waiting = list(self._waiting), deque(maxlen=_WAITING_MAX)
        now_ns, scanned = self._loop.now_ns(), False
        for frame in waiting:
            if self._safety.receive(frame, now_ns):
                self._scan(now_ns, ok=self._safety.link_ok(now_ns))
                scanned = True
        if not scanned:
            self._scan(now_ns, ok=self._safety.link_ok(now_ns))

    def abandon(self) -> None:
        """An end has died for good and both watchdogs have long run out: nothing is exchanged any more."""
        self.always, self._next_ns = True, NEVER_NS

    def restart_end(self) -> None:
        """Its end of the link is a new one, of a higher boot, with a controller that still believes in its permit."""
        self._wire_fails()
        self._boot += 1
        self._safety = SafetyEnd(self._key, self._boot, self.controller.rules.link, self._loop.now_ns())
        self._halted = False
        self._waiting.clear()

    # --- when -----------------------------------------------------------------------------------------------
    def on_image(self, t_ns: int) -> None:
        """The plant says that a watched value has crossed its threshold, at a millisecond."""
        self._wanted = True
        self._exchange_at(t_ns)

    def touched(self) -> None:
        """Somebody has done something to the controller, or time has: look when the next exchange is due."""
        if self.always:
            return
        self._plan(self._loop.now_ns())

    def _plan(self, now_ns: int) -> None:
        due_ns = self.controller.next_deadline_ns(now_ns, beats_watched=self._plant.beats_alive)
        if due_ns is not None:
            self._exchange_at(self._grid(max(now_ns, due_ns - self.wire.latency_ns)), due_ns)

    def _grid(self, t_ns: int) -> int:
        return -(-t_ns // self._period_ns) * self._period_ns

    def _exchange_at(self, t_ns: int, deadline_ns: int = 0) -> None:
        if t_ns < self._next_ns:
            self._next_ns, self._deadline_ns = t_ns, deadline_ns
            self._loop.call_at_rank(t_ns, Rank.LINK, self._exchange, t_ns)

    # --- an exchange ----------------------------------------------------------------------------------------
    def _exchange(self, planned_ns: int) -> None:
        """The rack sends its image."""
        if planned_ns != self._next_ns:
            return  # an earlier one came in between
        self._next_ns = FAR_NS
        now_ns = self._loop.now_ns()
        if not self._is_due(now_ns):
            return
        self._wanted = False
        self._forgive_silence(now_ns)
        self._watch(now_ns)
        self._rest(now_ns)
        self.exchanges += 1
        frame = self._rack.send(image_of(self._plant.signals), first_fault(self._plant), now_ns)
        self.wire.a.send(frame)
        if self.always:
            self._exchange_at(now_ns + self._period_ns)

    def _rest(self, now_ns: int) -> None:
        """Once everything has been well for a while, exchanges are left out again."""
        heard = self._rack.lines(now_ns).link_ok and self.rack_heard(now_ns)
        if self._halted or not self.wire.sound or not heard:
            self._unsound_ns = now_ns
        elif not self._for_good and now_ns - self._unsound_ns >= self._rest_ns and not self.wire.late:
            self.always = False

    def _is_due(self, now_ns: int) -> bool:
        """False if this was planned for a deadline that a sign of life has moved since: then it is planned anew."""
        if self.always or self._wanted or not self._deadline_ns:
            return True
        before_ns = self._deadline_ns - 1  # as things stood: what has run out on the way here is due
        due_ns = self.controller.next_deadline_ns(before_ns, beats_watched=self._plant.beats_alive)
        if due_ns is None or due_ns <= max(now_ns, self._deadline_ns):
            return True
        self._plan(now_ns)
        return False

    def _watch(self, now_ns: int) -> None:
        """What both ends notice by themselves, without a frame: that none comes any more."""
        if not self.always:
            return
        self._show_lines(now_ns)
        if self._halted:
            return
        if self._safety.peer_boot is not None and not self._safety.link_ok(now_ns):
            self._scan(now_ns, ok=False)

    def _wire_fails(self) -> None:
        """Something is about to befall the link: no exchange is left out from here on, beginning with this instant."""
        if self.always:
            return
        now_ns = self._loop.now_ns()
        self._forgive_silence(now_ns)
        self.always = True
        self._unsound_ns = now_ns
        self._next_ns = now_ns
        self._exchange(now_ns)
        self._exchange_at(self._grid(now_ns + 1))

    def _forgive_silence(self, now_ns: int) -> None:
        """Nothing was sent since the last exchange because there was nothing to say: neither watchdog counts it."""
        if self.always:
            return
        for end in (self._rack, self._safety):
            state: ReceiveState = end._state
            end._state = state._replace(good_ns=now_ns, echo_ns=now_ns)

    def _at_safety(self, frame: bytes) -> None:
        """The image has arrived: scan, answer, and say what the plant must watch from here on."""
        now_ns = self._loop.now_ns()
        if self._halted:
            self._waiting.append(frame)
            return
        self._safety.receive(frame, now_ns)
        self._scan(now_ns, ok=self._safety.link_ok(now_ns))
        if not self.always:
            self._plant.watch_image(*self.controller.thresholds())
            self.touched()

    def _scan(self, now_ns: int, *, ok: bool) -> None:
        end = self._safety
        complement = end.complement
        if self._flipped and complement:
            complement = (complement[0] ^ self._flipped, *complement[1:])
        command = self.controller.scan(end.image, end.image_t_ns, now_ns, ok, end.fault, complement, end.peer_boot)
        if self._ring is not None:
            self._ring.note(now_ns, end.image_t_ns, command)
        self.wire.b.send(end.send(command, now_ns))
        self._scanned()

    def _at_rack(self, frame: bytes) -> None:
        now_ns = self._loop.now_ns()
        self._rack.receive(frame, now_ns)
        carry_out(self._rack, self._plant)
        self._show_lines(now_ns)

    def flip_copy(self, bits: int) -> None:
        """A fault in the safety controller's memory: from the next scan on these bits of the first signal are wrong in
        the second evaluator's copy of the image; 0 mends it."""
        self._flipped = bits
        self._wanted = True
        self._exchange_at(self._grid(self._loop.now_ns()))

    def stick_relays(self, lines: RackLines | None) -> None:
        """The relays of the rack's lines stand like this, whatever they are told; None mends them."""
        self._stuck = lines
        self._show_lines(self._loop.now_ns())

    def rack_heard(self, now_ns: int) -> bool:
        """Whether frames of the rack arrive in order and in time, as the safety controller's end sees it."""
        return self._safety.peer_boot is not None and now_ns <= self._safety.deadline_ns()

    def _show_lines(self, now_ns: int) -> None:
        lines = self._stuck or self._rack.lines(now_ns)
        if lines != self._lines:
            self._lines = lines
            self._plant.set_safety_lines(*lines)
