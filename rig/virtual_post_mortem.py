"""Post-mortems in virtual time: the window is a timer, running again takes no facility time.

Plant and safety controller each open a window of their own, at what each of them calls a trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from facility.events import Event, EventLog
from facility.timebase import NS_PER_S, Rank
from interlocks.controller import SafetyController
from interlocks.rules import RuleSet
from ioc_sim.plant import Plant
from rig.post_mortem import AFTER_NS, TRIPS, Freezer, PostMortem, Writers
from rig.run_dir import POST_MORTEM, SAFETY_SCANS
from rig.safety_scans import ScanFreezer, ScanRing
from rig.safety_scans_file import FACILITY_TIME, write_scans
from rig.virtual_time import VirtualLoop


class VirtualPostMortems:
    """Files of one run, kept in memory.

    Args:
        loop, plant, events: of the run; the plant gets a run log.
        make_twin, about, rules: see `rig.post_mortem.Writers`.
        controller: whose scans are kept, too.
    """

    def __init__(
        self, loop: VirtualLoop, plant: Plant, events: EventLog, make_twin: Callable[[int], Plant],
        about: Mapping[str, Any], rules: RuleSet, controller: SafetyController,
    ) -> None:  # fmt: skip
        self.files: list[PostMortem] = []
        """Of the plant."""
        self.scans: list[PostMortem] = []
        """Of the safety controller."""
        self.ring = ScanRing(controller)
        """To be told of every scan."""
        self._about = about
        self._rules = rules
        self._scan_freezer = ScanFreezer(self.ring, controller)
        self._loop = loop
        self._events = events
        self._freezer = Freezer(plant)
        self._writers = Writers(make_twin, about, rules)

    def trip(self, event: Event) -> None:
        """An event has been logged that may be a trip."""
        if self._scan_freezer.trip(event):
            self._loop.call_at_rank(event.t_ns + AFTER_NS, Rank.TELEMETRY, self._freeze_scans)
        if event.kind not in TRIPS:
            return
        before = self._freezer.due_ns
        self._freezer.trip(event)
        due_ns = self._freezer.due_ns
        if before is None and due_ns is not None:
            self._loop.call_at_rank(due_ns, Rank.TELEMETRY, self._freeze)

    def _freeze(self) -> None:
        frozen = self._freezer.cut()
        if frozen is None:
            return
        made = self._writers.write(frozen)
        self.files.append(made)
        self._events.emit("plant", POST_MORTEM, made.event, cause_seq=made.cause.seq)

    def _freeze_scans(self) -> None:
        frozen = self._scan_freezer.cut(self._loop.now_ns())
        if frozen is None:
            return
        made = write_scans(frozen, self._about, self._rules, FACILITY_TIME)
        self.scans.append(made)
        self._events.emit("safety", SAFETY_SCANS, made.event, cause_seq=made.cause.seq)

    async def settled(self) -> None:
        """Wait until the windows that are open have passed."""
        due = [due_ns for due_ns in (self._freezer.due_ns, self._scan_freezer.due_ns) if due_ns is not None]
        if due:
            await asyncio.sleep(max(0, max(due) - self._loop.now_ns() + 1) / NS_PER_S)
