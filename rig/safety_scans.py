"""The last scans of the safety controller, and what a trip keeps of them.

What only the safety controller knows (signs of life of console and control, its link, mode, field, its lines and
latches, what each of its rules compared with what) is in no signal of the plant.  A `ScanRing` writes it down at each
scan, in memory that was taken once; a trip freezes a window of it.  The controller knows nothing of it: it is observed.
What it goes by changes at its scans and nowhere else, so that a scan stands for every 10 us until the next one; but for
ages, which grow in between, and end with each sign of life: these are written down by themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facility.events import Event
from facility.timebase import NS_PER_MS
from interlocks.controller import SafetyController
from interlocks.link import PermitCommand
from interlocks.own_inputs import CONSOLE_INPUT, CONTROL_INPUT
from rig.post_mortem import AFTER_NS, BEFORE_NS, MAX_FILES

SCANS = 4096
"""Kept scans, 8 MB: two seconds and more of a scan each ms at least a quarter as fast as the clock."""
TRIP = "interlock.trip"
"""Kind of the safety controller's event that opens a window."""
SIGNS = 256
"""Kept signs of life of each source: two a second are usual."""
BAD, PRESENT, LATCHED = 1, 2, 4
"""Bits of a rule's state: its comparison is bad, it is present, it is latched."""
OUTPUTS = (
    *PermitCommand._fields, "released", "action", "link_ok", "same_image", "evaluators_good", "evaluators_latched",
    "fast_latched", "fast_present",
)  # fmt: skip
"""Whole numbers of a scan: what the rack was told, and what the controller had decided."""


@dataclass(frozen=True)
class Scans:
    """Scans in order, copies."""

    t_ns: np.ndarray
    """int64 (n,): when, by the controller's clock."""
    image_t_ns: np.ndarray
    """int64 (n,): when the image was taken that was judged."""
    inputs: np.ndarray
    """float64 (n, inputs): image, then the controller's own, in the order of `evaluator.INPUT_PLACE`."""
    outputs: np.ndarray
    """int64 (n, OUTPUTS)."""
    values: np.ndarray
    """float64 (n, rules, 2): what each rule of tiers P and T compared, and its limit."""
    states: np.ndarray
    """uint8 (n, rules): BAD, PRESENT, LATCHED."""
    signs: Mapping[str, list[int]]
    """By the input that is the age of them: when there were signs of life (ns), the last before the window first."""


class ScanRing:
    """The last scans of one controller.

    Args:
        controller: whose.
        scans: how many are kept.
    """

    def __init__(self, controller: SafetyController, scans: int = SCANS) -> None:
        self._controller = controller
        self._watched = controller._scanner._watched
        self.rule_ids = tuple(watched.rule.id for watched in self._watched)
        rules, inputs = len(self._watched), len(controller._scanner._inputs)
        self._size = scans
        self._times = np.zeros((scans, 2), np.int64)
        self._inputs = np.zeros((scans, inputs))
        self._outputs = np.zeros((scans, len(OUTPUTS)), np.int64)
        self._values = np.empty((scans, rules, 2))  # rows that were never written are never read
        self._values[-1] = np.nan  # but this one, before the first scan
        self._states = np.zeros((scans, rules), np.uint8)
        self._known: list[Any] = [None] * rules
        """The latch of each rule as it is written in the last row."""
        self.count = 0
        """Scans that have been noted."""
        self._signs = {name: deque[int](maxlen=SIGNS) for name in (CONSOLE_INPUT, CONTROL_INPUT)}

    def note(self, now_ns: int, image_t_ns: int, command: PermitCommand) -> None:
        """The controller has scanned; hold its lock, where it has one."""
        it, row = self._controller, self.count % self._size
        before = row - 1  # the last row of all, where this is the first
        self._times[row] = now_ns, image_t_ns
        self._inputs[row] = it._scanner._inputs
        agreement, fast = it._pair.agreement, it._fast
        self._outputs[row] = (
            *command, it._permit.released, it._permit.state.action, it._link_ok, it._pair.same_image, agreement.good,
            agreement.latched, fast.latched_mask, fast.present_mask,
        )  # fmt: skip
        values, states = self._values[row], self._states[row]
        values[:] = self._values[before]
        states[:] = self._states[before]
        for k, watched in enumerate(self._watched):
            state = watched.state
            if state is not self._known[k]:
                self._known[k] = state
                values[k] = state.value, state.limit
                states[k] = BAD * (state.bad_since_ns is not None) + PRESENT * state.present + LATCHED * state.latched
        self.count += 1

    def heard(self) -> None:
        """Somebody has written to the controller: if that was a sign of life, note it."""
        console, control = self._controller._console, self._controller._lines._state
        if console.alive:
            _note(self._signs[CONSOLE_INPUT], console._state.since_ns)
        if control is not None and control.heard:
            _note(self._signs[CONTROL_INPUT], control.watch.since_ns)

    def between(self, from_ns: int, to_ns: int) -> Scans:
        """Scans up to `to_ns`, from the last one at `from_ns` or earlier on, or from the first that there is."""
        places = np.arange(max(0, self.count - self._size), self.count) % self._size
        t_ns = self._times[places, 0]
        first = max(0, int(np.searchsorted(t_ns, from_ns, side="right")) - 1)
        kept = places[first : int(np.searchsorted(t_ns, to_ns, side="right"))]
        return Scans(self._times[kept, 0], self._times[kept, 1], self._inputs[kept], self._outputs[kept],
                     self._values[kept], self._states[kept],
                     {name: _within(list(signs), from_ns, to_ns) for name, signs in self._signs.items()})  # fmt: skip


def _note(signs: deque[int], t_ns: int) -> None:
    if not signs or signs[-1] != t_ns:
        signs.append(t_ns)


def _within(signs: list[int], from_ns: int, to_ns: int) -> list[int]:
    """Those up to `to_ns`, from the last one at `from_ns` or before on."""
    return signs[max(0, bisect_right(signs, from_ns) - 1) : bisect_right(signs, to_ns)]


@dataclass(frozen=True)
class FrozenScans:
    """A window of scans and the trips in it, still to be written."""

    number: int
    events: tuple[Event, ...]
    from_ns: int
    to_ns: int
    scans: Scans
    facts: Mapping[str, Any]


class ScanFreezer:
    """Opens a window at a trip and copies the scans in it when it has passed.

    Args:
        ring: of the controller that trips.
        controller: what its file says of bypasses and first fault.
    """

    def __init__(self, ring: ScanRing, controller: SafetyController) -> None:
        self._ring = ring
        self._controller = controller
        self._events: list[Event] = []
        self._number = 0

    def trip(self, event: Event) -> bool:
        """An event has been logged; True if it is a trip that opens a window."""
        if event.kind != TRIP:
            return False
        self._events.append(event)
        return len(self._events) == 1

    @property
    def due_ns(self) -> int | None:
        """When the window has passed, by the controller's clock; None if none is open."""
        return self._events[0].t_ns + AFTER_NS if self._events else None

    def cut(self, now_ns: int | None = None) -> FrozenScans | None:
        """The window, closed, if it has passed by `now_ns`, or, without, whatever there is of it.

        None if none is open, or MAX_FILES have been made.  Hold the controller's lock.
        """
        if now_ns is not None and (self.due_ns is None or now_ns < self.due_ns):
            return None
        due_ns = self.due_ns or 0
        events = tuple(event for event in self._events if event.t_ns <= due_ns)
        self._events = [event for event in self._events if event.t_ns > due_ns]  # a window of their own
        if not events or self._number >= MAX_FILES:
            return None
        self._number += 1
        first_ns = events[0].t_ns
        facts = {"first_fault": self._controller.first_fault, "period_ns": self._period_ns}
        window = first_ns - BEFORE_NS, first_ns + AFTER_NS
        return FrozenScans(self._number, events, *window, self._ring.between(*window), facts)

    def cuts(self, now_ns: int | None = None) -> list[FrozenScans]:
        """All windows that have passed, see `cut`."""
        found: list[FrozenScans] = []
        while (frozen := self.cut(now_ns)) is not None:
            found.append(frozen)
        return found

    @property
    def _period_ns(self) -> int:
        return round(self._controller.rules.link.scan_ms * NS_PER_MS)
