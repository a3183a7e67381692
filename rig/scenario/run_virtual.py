"""Run scenarios in virtual time, each in a facility of its own; on several cores where that is wanted."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path

from facility.errors import IonctlError
from facility.states import Action
from interlocks.explain import bound
from rig.scenario.deeds import Deeds
from rig.scenario.judge import Seen, Wanted, beam_off, failures, final_dose, surplus_bound
from rig.scenario.loader import Loaded
from rig.scenario.model import Scenario, Target
from rig.scenario.result import ScenarioResult, no_result
from rig.scenario.stage import PLAN, Stage
from rig.scenario.timed import Clock, timed
from rig.scenario.trace import trace_of
from rig.scenario.virtual_hands import VirtualHands
from rig.trials.truth import BEFORE_NS, ticks
from rig.truth_check import judge_truth, overdosed
from rig.virtual_world import World, WorldParts
from rig.wall_clock import monotonic_s

MS_NS = 1_000_000
POLL_S = 0.001
SETTLE_S = 0.006
"""After the decision: every beam-off device but the ring dump is done, the slowest tail is gone."""
LATEST_S = 3.0
"""How much later than promised something is still waited for, so that it is reported as late and not as missing."""


class VirtualRun:
    """One scenario in one world."""

    def __init__(self, scenario: Scenario, stage: Stage, world: World) -> None:
        self._scenario = scenario
        self._stage = stage
        self._world = world
        self._wanted = Wanted.of(scenario, stage.rules, stage.facility)
        self._off_ions: float | None = None
        self._at_ns = 0
        if scenario.begin == "started":
            self._at_ns = stage.timeline().instant_ns(scenario.at, f"scenario {scenario.id}")
        self.seen = Seen(0)

    async def run(self, parts: WorldParts) -> None:
        """To the end of its steps."""
        world, stage, seen = self._world, self._stage, self.seen
        hands = VirtualHands(world, parts)
        deeds = Deeds(
            self._scenario, parts.operator, parts.room, hands, PLAN, stage.room, stage.program.plan_hash,
            on_beam=self._may_come_back,
        )  # fmt: skip
        seen.answers, seen.failures = deeds.answers, deeds.failures
        await deeds.go(self._scenario.begin)
        await asyncio.sleep(max(0, self._at_ns - world.loop.now_ns()) / 1e9)
        for act in self._scenario.before:
            await deeds.do(act)
        seen.cause_ns = world.loop.now_ns()
        for act in self._scenario.acts:
            await deeds.do(act)
        await self._settle(parts)
        self._note(parts)
        for act in self._scenario.then:
            await deeds.do(act)
        resets = [answer.who for answer in deeds.answers if (answer.deed, answer.answer) == ("reset", "done")]
        seen.reset_by = resets[-1] if resets else ""
        seen.trips = tuple(
            str(e.data["id"]) for e in world.events.events if e.kind == "interlock.trip" and e.t_ns >= seen.cause_ns
        )
        seen.end = parts.control.sequencer.state.name
        spots = world.plant.truth_spots()
        seen.dose = judge_truth(stage.program.layers, spots)
        seen.overdosed = overdosed(stage.program.layers, spots)

    async def _settle(self, parts: WorldParts) -> None:
        """Until the rule has acted and control is where it should be, or far too late."""
        wanted = self._wanted
        loop = self._world.loop
        bound_us = wanted.bound_us or 0.0
        if wanted.rule is not None and wanted.bound_us is None:
            bound_us = bound(wanted.rule, self._stage.rules, self._stage.facility).total_us
        limit_ns = loop.now_ns() + round(bound_us * 1e3 + LATEST_S * 1e9)
        while loop.now_ns() < limit_ns and not self._settled(parts):  # noqa: ASYNC110 - virtual time: nobody wakes
            await asyncio.sleep(POLL_S)
        if wanted.rule is not None or wanted.state is not None:
            await asyncio.sleep(SETTLE_S)

    def _settled(self, parts: WorldParts) -> bool:
        wanted = self._wanted
        if wanted.state is not None and parts.control.sequencer.state.name != wanted.state:
            return False
        if wanted.rule is None:
            return True
        shown = self._present() if not wanted.rule.latches else set(self._latched())
        expect = wanted.scenario.expect
        if expect.any_order:
            return bool({expect.first, *expect.also} & shown) and set(expect.besides) <= shown
        return {expect.first, *expect.besides} <= shown

    def _latched(self) -> tuple[str, ...]:
        latched = self._world.rules_that_are("latched")
        return tuple(rule.id for rule in self._stage.rules.rules if rule.id in latched)

    def _first_of_rack(self) -> str:
        """What the rack latched by its own lines, which the safety controller does not call a trip."""
        plant = self._world.plant
        rows = zip(plant.rule_rows, plant.rule_ids, strict=True)
        return min(((int(row["t_decision_ns"]), name) for row, name in rows if row["latched"]), default=(0, ""))[1]

    def _present(self) -> set[str]:
        return self._world.rules_that_are("present")

    def _note(self, parts: WorldParts) -> None:
        """What stands there once it has settled."""
        seen, world = self.seen, self._world
        seen.first = world.controller.snapshot().first_fault or self._first_of_rack()
        seen.latched, seen.present = self._latched(), frozenset(self._present())
        trips = [event for event in world.events.events if event.kind == "interlock.trip"]
        trip = next((event for event in trips if event.data["id"] == seen.first), None)
        if trip is not None:
            seen.words, seen.decision_ns = str(trip.data["words"]), int(trip.data["t_ns"])
        seen.state = parts.control.sequencer.state.name
        seen.until_ns = world.loop.now_ns()
        seen.ticks = ticks(world.plant, seen.cause_ns - BEFORE_NS)
        rule = self._wanted.rule
        if rule is not None and rule.strength >= Action.PAUSE:
            self._off_ions = world.plant.truth_total_ions

    def _may_come_back(self) -> None:
        """Somebody lets the beam: what came before was nobody's."""
        if self._off_ions is not None:
            self.seen.ions_while_off += self._world.plant.truth_total_ions - self._off_ions
            self._off_ions = None


def run_one(loaded: Loaded, *, trace: bool = False) -> ScenarioResult:
    """Run one scenario; skipped with its reason where it is not for virtual time."""
    scenario = loaded.scenario
    why_not = scenario.why_not(Target.VIRTUAL)
    if why_not:
        return no_result(scenario, "virtual", loaded.source, "skipped", why_not, **facts(loaded))
    try:
        stage = Stage.of(scenario, loaded.folder, loaded.config_dir)
        if stage.facility.fitted:
            why_not = f"{stage.facility.id} gives {', '.join(stage.facility.fitted)} to hardware: give --target hil"
            return no_result(scenario, "virtual", loaded.source, "skipped", why_not, **facts(loaded, stage))
        world = stage.world(post_mortem=trace)
        run = VirtualRun(scenario, stage, world)
        world.run(run.run)
    except (IonctlError, TimeoutError) as problem:
        words = f"it could not be carried out: {problem}"
        return no_result(scenario, "virtual", loaded.source, "failed", words, **facts(loaded))
    return _result(loaded, stage, world, run, trace=trace)


def run_scenario(scenario: Scenario, folder: Path | None = None, *, trace: bool = False) -> ScenarioResult:
    """Run one that was made in memory."""
    return run_one(Loaded(scenario, "", folder), trace=trace)


def facts(loaded: Loaded, stage: Stage | None = None) -> dict[str, object]:
    """Rules and hashes for a result."""
    stage = stage or Stage.of(loaded.scenario, loaded.folder, loaded.config_dir)
    scenario = loaded.scenario
    hazards = {rule_id: stage.rules.rule(rule_id).hazard for rule_id in scenario.rules}
    if scenario.hazard:
        hazards[""] = scenario.hazard
    tiers = sorted({stage.rules.rule(rule_id).tier for rule_id in scenario.rules})
    return {
        "hazards": hazards, "tiers": tuple(tiers), "facility_hash": stage.facility.hash,
        "rules_hash": stage.rules.hash, "plan_hash": stage.program.plan_hash,
    }  # fmt: skip


def _result(loaded: Loaded, stage: Stage, world: World, run: VirtualRun, *, trace: bool) -> ScenarioResult:
    scenario, seen = loaded.scenario, run.seen
    wanted = Wanted.of(scenario, stage.rules, stage.facility)
    off_ns, ions = beam_off(seen)
    ions_bound = surplus_bound(wanted, stage.level(scenario.at.layer), stage.facility)
    found = tuple(failures(wanted, seen, off_ns, ions, ions_bound))
    made = world.post_mortems
    return ScenarioResult(
        id=scenario.id,
        title=scenario.title,
        target=Target.VIRTUAL.value,
        rules=scenario.rules,
        recovery=scenario.recovery,
        source=loaded.source,
        seed=scenario.seed,
        facility=stage.facility.id,
        verdict="failed" if found else "passed",
        failures=found,
        t_cause_ns=seen.cause_ns,
        t_decision_ns=seen.decision_ns,
        t_off_ns=off_ns,
        bound_us=wanted.bound_us,
        surplus_ions=ions,
        surplus_bound_ions=ions_bound,
        first=seen.first,
        latched=seen.latched,
        words=seen.words,
        state=seen.state,
        end=seen.end,
        reset_by=seen.reset_by,
        answers=tuple((a.who, a.deed, a.answer) for a in seen.answers),
        final=final_dose(seen.dose),
        digest=hashlib.sha256(world.events.to_bytes()).hexdigest(),
        trace=None if not trace else trace_of(seen, off_ns, made[0].data if made else None, wanted.rule),
        **facts(loaded, stage),  # type: ignore[arg-type]
    )


def run_many(
    loaded: Sequence[Loaded], jobs: int = 1, *, trace: bool = False, clock: Clock = monotonic_s
) -> Iterator[ScenarioResult]:
    """Run all, in their order whatever finishes first. What has been compiled is shared with the workers."""
    one_timed = functools.partial(timed, clock, run_one, trace=trace)
    if jobs <= 1 or len(loaded) <= 1:
        yield from map(one_timed, loaded)
        return
    Stage.of(loaded[0].scenario, loaded[0].folder, loaded[0].config_dir).world()
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=fork) as pool:
        yield from pool.map(one_timed, loaded)
