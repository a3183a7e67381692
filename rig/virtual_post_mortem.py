"""Post-mortems in virtual time: the window is a timer, running again takes no facility time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from facility.events import Event, EventLog
from facility.timebase import NS_PER_S, Rank
from interlocks.rules import RuleSet
from ioc_sim.plant import Plant
from rig.post_mortem import TRIPS, Freezer, PostMortem, Writers
from rig.run_dir import POST_MORTEM
from rig.virtual_time import VirtualLoop


class VirtualPostMortems:
    """Files of one run, kept in memory.

    Args:
        loop, plant, events: of the run; the plant gets a run log.
        make_twin, about, rules: see `rig.post_mortem.Writers`.
    """

    def __init__(
        self, loop: VirtualLoop, plant: Plant, events: EventLog, make_twin: Callable[[int], Plant],
        about: Mapping[str, Any], rules: RuleSet,
    ) -> None:  # fmt: skip
        self.files: list[PostMortem] = []
        self._loop = loop
        self._events = events
        self._freezer = Freezer(plant)
        self._writers = Writers(make_twin, about, rules)

    def trip(self, event: Event) -> None:
        """An event has been logged that may be a trip."""
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

    async def settled(self) -> None:
        """Wait until the window that is open has passed."""
        due_ns = self._freezer.due_ns
        if due_ns is not None:
            await asyncio.sleep(max(0, due_ns - self._loop.now_ns() + 1) / NS_PER_S)
