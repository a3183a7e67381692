"""One delivery without a fault, the trunk, and the runs that leave it: each goes its own way, from right before its
first cause to its end, and is judged there."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from control.layer_machine import State
from facility.errors import InternalError
from facility.timebase import NS_PER_MS, NS_PER_S
from rig.branch import Emit, branch, unmoved
from rig.campaign.draw import Drawn, Instants
from rig.campaign.evidence import Evidence
from rig.campaign.invariants import failures, surplus, tolerances
from rig.campaign.mishaps import Mishaps
from rig.campaign.operator import Attendance
from rig.campaign.outcome import Outcome
from rig.campaign.ticks import TickRecord
from rig.control_stack import RULE_NAME_S
from rig.scenario.timeline import Timeline
from rig.trials.bench import Bench
from rig.virtual_world import World, WorldParts

LIMIT_S = 900.0
"""Facility time that a run may take; a field of a minute with a dozen trips takes less."""
SETTLE_S = 0.3
"""After the end: what was asked for has been answered, tails have gone, records are written."""
NAMELESS_S = RULE_NAME_S - SETTLE_S + 0.1
"""So much more where there is no record yet: control waits for the name of what took the beam, and nothing may have
one."""
START_AFTER_NS = 20 * NS_PER_MS
"""READY lasts so long before START."""
MANY_TICKS = 200_000
"""Ticks are copied out of the ring when there are so many new ones; it holds more than twice as many."""


class Course:
    """The trunk of some runs, in one world.

    Args:
        bench: facility, rules, how they are tried, and the program.
        world: just switched on.
    """

    def __init__(self, bench: Bench, world: World) -> None:
        self.bench = bench
        self.world = world
        self.ticks = TickRecord(world.plant, bench.program.layers)
        self.tolerances = tolerances(bench)
        self.session = ""
        self._mishaps: Mishaps | None = None
        self.start_ns = 0

    async def to_ready(self, parts: WorldParts) -> None:
        """As far as every run goes."""
        operator, program = parts.operator, self.bench.program
        await operator.reset()
        self.session = await operator.load("plan", program.room_id, program.qa, program.plan_hash)
        await operator.prepare()
        parts.control.sequencer.listeners.append(self._told)
        await self.world.loop.quiet()
        self.start_ns = self.world.loop.now_ns() + START_AFTER_NS

    async def instants(self, parts: WorldParts) -> Instants:
        """What the delivery does when nothing goes wrong, found out on a copy."""
        found: list[Instants] = []

        async def scout(send: Emit) -> None:
            begin_ns, seen = self.world.loop.now_ns(), len(self.world.events.events)
            await self._reach(self.start_ns)
            await parts.operator.start()
            await parts.operator.ended(self.session, LIMIT_S)
            if parts.control.sequencer.state is not State.COMPLETED:
                raise InternalError("campaign.trunk", "the field without a fault did not complete", __name__)
            send(self._instants(begin_ns, seen))

        await branch(scout, found.append)
        return found[0]

    def _instants(self, begin_ns: int, seen: int) -> Instants:
        tokens = (layer.token for layer in self.bench.program.layers)
        events = list(self.world.events.events)[seen:]
        timeline = Timeline.of(tokens, self.start_ns, self.ticks.records(), events)
        return Instants.of(timeline, begin_ns, self.world.loop.now_ns())

    async def runs(self, parts: WorldParts, drawn: Iterable[Drawn], digest: bool, emit: Emit) -> None:
        """Go along the trunk; each run leaves it where it begins."""
        with unmoved():
            started = False
            for one in sorted(drawn, key=lambda run: (run.fork_ns, run.seed)):
                if not started and one.fork_ns > self.start_ns:
                    await self._start(parts)
                    started = True
                await self._reach(one.fork_ns)

                async def work(send: Emit, one: Drawn = one) -> None:
                    send(await self.run(parts, one, digest))

                await branch(work, emit, functools.partial(broken, one))

    async def straight(self, parts: WorldParts, one: Drawn, digest: bool) -> Outcome:
        """The same run without leaving: nothing is copied."""
        if one.fork_ns > self.start_ns:
            await self._start(parts)
        await self._reach(one.fork_ns)
        return await self.run(parts, one, digest)

    async def _start(self, parts: WorldParts) -> None:
        await self._reach(self.start_ns)
        await parts.operator.start()

    async def _reach(self, t_ns: int) -> None:
        await asyncio.sleep(max(0, t_ns - self.world.loop.now_ns()) / NS_PER_S)
        await self.world.loop.quiet()
        self.ticks.sums()

    def _told(self, topic: str, data: Mapping[str, Any]) -> None:
        if topic == "state" and data["from"] != data["to"]:
            self.ticks.keep(at_least=MANY_TICKS)
            if self._mishaps is not None:
                self._mishaps.entered(data["to"])

    async def run(self, parts: WorldParts, one: Drawn, digest: bool) -> Outcome:
        """From here to the end, and the judgement."""
        world, sequencer = self.world, parts.control.sequencer
        before, seen, first = _tasks(), len(world.events.events), self.ticks.count
        self._mishaps = mishaps = Mishaps(self.bench, world, parts, one.causes)
        mishaps.begin()
        attendance = Attendance(parts.operator, parts.room, mishaps, one.manner, self.session)
        broken = ""
        try:
            async with asyncio.timeout(LIMIT_S):
                await attendance.to_the_end()
                mishaps.close()
                await mishaps.settled()
                await asyncio.sleep(SETTLE_S)
                if sequencer.last_summary is None:
                    await asyncio.sleep(NAMELESS_S)
        except TimeoutError:
            broken = f"still {sequencer.state.name} after {LIMIT_S:g} s"
        evidence = Evidence(
            self.bench, world, parts, self.ticks.since(first - 1), self.ticks.sums(), self.tolerances, mishaps,
            attendance, seen, sorted((_tasks() - before).elements()), broken,
        )  # fmt: skip
        return self._outcome(one, evidence, digest)

    def _outcome(self, one: Drawn, evidence: Evidence, digest: bool) -> Outcome:
        world, mishaps, attendance = self.world, evidence.mishaps, evidence.attendance
        ions, pct = surplus(evidence)
        hashed = sha256(world.events.to_bytes() + self.ticks.records().tobytes()).hexdigest() if digest else ""
        return Outcome(
            seed=one.seed,
            end=evidence.state.name,
            causes=tuple(cause.words() for cause in one.causes),
            happened=tuple(h.cause.what for h in mishaps.happened if h.begun_ns is not None and not h.problem),
            failures=tuple(failures(evidence)),
            rules=evidence.tripped,
            cells=tuple(sorted(evidence.cells)),
            plant_events=tuple(sorted({e.kind for e in evidence.events if e.source == "plant"})),
            resumes=attendance.went_on,
            resets=attendance.resets,
            surplus_ions=ions,
            surplus_pct=pct,
            facility_s=world.loop.now_ns() / NS_PER_S,
            digest=hashed,
            notes=(*attendance.notes, *(f"{what}: {code}" for what, code in mishaps.refused)),
        )


def broken(one: Drawn, problem: BaseException) -> Outcome:
    """A run that ended by itself: a defect, whatever went wrong in it."""
    words = f"broken: {type(problem).__name__}: {problem}"
    return Outcome(seed=one.seed, end="broken", causes=tuple(cause.words() for cause in one.causes), failures=(words,))


def _tasks() -> Counter[str]:
    """Whoever runs in this loop, by the name of what they run."""
    running = (task for task in asyncio.all_tasks() if not task.done())
    return Counter(getattr(task.get_coro(), "__qualname__", "task") for task in running)
