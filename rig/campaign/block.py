"""Runs of one trunk: all of them on copies of it, one of them straight, or one of them with fewer and fewer causes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facility.errors import InternalError
from rig.branch import Emit, Snapshot
from rig.campaign.course import Course, broken
from rig.campaign.draw import Drawn, Manner, draw
from rig.campaign.outcome import Outcome
from rig.campaign.setting import BLOCK, Setting, bench_of, choice_of
from rig.campaign.ticks import Records
from rig.virtual_world import World, WorldParts


@dataclass(frozen=True)
class Replayed:
    """One run, straight, with everything it left."""

    outcome: Outcome
    drawn: Drawn
    events: bytes
    """The event log, JSON lines."""
    ticks: Records

    def story(self) -> Iterator[str]:
        """One line an event, as a person reads it."""
        for line in self.events.splitlines():
            event = json.loads(line)
            data = ", ".join(f"{key} {value}" for key, value in event["data"].items() if not isinstance(value, dict))
            yield f"{event['t_ns'] / 1e9:13.6f} s  {event['source']:8} {event['kind']:20} {data[:200]}"

    def write(self, folder: Path) -> None:
        """The event log as JSON lines, the raw ticks in Parquet."""
        import pyarrow as pa  # a block of runs writes nothing, and each copy of it pays for what is in memory
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events.jsonl").write_bytes(self.events)
        names = self.ticks.dtype.names or ()
        table = pa.table({name: np.ascontiguousarray(self.ticks[name]) for name in names})
        pq.write_table(table, folder / "ticks.parquet")


def course_of(setting: Setting, block: int) -> Course:
    """The trunk of a block; its world's noise has a seed of its own."""
    bench = dataclasses.replace(bench_of(setting), seed=1 + block)
    return Course(bench, bench.world())


def run_block(setting: Setting, seeds: Iterable[int], *, digest: bool = False) -> list[Outcome]:
    """Runs of one block, in order of their seeds."""
    seeds, found = tuple(seeds), list[Outcome]()
    course = course_of(setting, seeds[0] // BLOCK)

    async def work(parts: WorldParts) -> None:
        drawn = await _drawn(course, parts, setting, seeds)
        await course.runs(parts, drawn, digest, found.append)

    try:
        course.world.run(work)
    except Exception as problem:  # noqa: BLE001 - the field does not complete even without a fault: no run can pass
        return [broken(Drawn(seed, (), Manner(0, False)), problem) for seed in seeds]
    return sorted(found, key=lambda outcome: outcome.seed)


def replay(setting: Setting, seed: int) -> Replayed:
    """The run of a seed without any copy: the same, bit for bit."""
    course = course_of(setting, seed // BLOCK)
    drawn: list[Drawn] = []
    outcomes: list[Outcome] = []

    async def work(parts: WorldParts) -> None:
        drawn.extend(await _drawn(course, parts, setting, (seed,)))
        outcomes.append(await course.straight(parts, drawn[0], digest=True))

    try:
        course.world.run(work)
    except Exception as problem:
        if not drawn:
            raise
        outcomes.append(broken(drawn[0], problem))
    return Replayed(outcomes[0], drawn[0], course.world.events.to_bytes(), course.ticks.records())


def shrink(setting: Setting, seed: int) -> tuple[Drawn, Outcome]:
    """The fewest causes of a failing run with which the same invariant still fails, found by leaving out one at a time.

    Every attempt starts from one snapshot of the trunk. A run that passes comes back as it is.
    """
    course = course_of(setting, seed // BLOCK)
    found: list[tuple[Drawn, Outcome]] = []

    async def work(parts: WorldParts) -> None:
        one = (await _drawn(course, parts, setting, (seed,)))[0]
        with await course.world.snapshot(course) as ready:
            found.append(_shrunk(one, functools.partial(_try, ready)))

    course.world.run(work)
    return found[0]


async def _drawn(course: Course, parts: WorldParts, setting: Setting, seeds: Iterable[int]) -> list[Drawn]:
    await course.to_ready(parts)
    instants = await course.instants(parts)
    choice = choice_of(setting)
    return [draw(seed, instants, choice) for seed in seeds]


def _try(ready: Snapshot, drawn: Drawn) -> Outcome:
    found: list[Outcome] = []
    try:
        World.restore(ready, functools.partial(_attempt, drawn), found.append)
    except InternalError as problem:
        return broken(drawn, problem)
    return found[0]


async def _attempt(drawn: Drawn, _world: World, parts: WorldParts, course: Course, emit: Emit) -> None:
    emit(await course.straight(parts, drawn, digest=False))


def _shrunk(one: Drawn, attempt: Callable[[Drawn], Outcome]) -> tuple[Drawn, Outcome]:
    outcome = attempt(one)
    failed = _invariants(outcome)
    smaller = True
    while failed and smaller:
        smaller = False
        for left_out in range(len(one.causes)):
            kept = one.causes[:left_out] + one.causes[left_out + 1 :]
            if all(cause.after for cause in kept):  # without a first cause there is no recovery
                continue
            fewer = replace(one, causes=kept)
            tried = attempt(fewer)
            if failed & _invariants(tried):
                one, outcome, smaller = fewer, tried, True
                break
    return one, outcome


def _invariants(outcome: Outcome) -> set[str]:
    return {words.split(":")[0] for words in outcome.failures}
