"""Run scenarios on real processes that talk Channel Access on loopback, each with a facility and a home of its own.

A moment is met as exactly as a console can see it. Beam, ions and dose are judged by the truth that the plant's process
writes into a mapped file; trips are read from the safety controller's event log.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import math
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from control.plan.dicom_writer import write_dicom_plan
from facility.errors import ChannelError, CommandRefused, IonctlError
from facility.timebase import NS_PER_MS, NS_PER_S
from rig.deliver_ca import truth_at
from rig.external.soft_devices import LOADED, LOST, SoftIoc, processes_of
from rig.external.waiting import LOOK_S, Waiting
from rig.home import Home
from rig.link_relay import LinkRelay
from rig.link_trial_ca import BEAM_WAIT_S, SETTLE_S, SLICE_NS, stoppable, until_ions
from rig.operator_client import OperatorClient
from rig.paced_rules import paced_rules
from rig.remote import operator_at
from rig.remote_room import make_ready, room_at
from rig.run_dir import RunFile
from rig.scenario.ca_hands import CaHands
from rig.scenario.deeds import NAMED_S, STOPPED, Deeds
from rig.scenario.judge import Seen, Wanted, beam_off, failures, final_dose, surplus_bound
from rig.scenario.loader import Loaded
from rig.scenario.model import Scenario, Target
from rig.scenario.plans import make
from rig.scenario.result import ScenarioResult, no_result
from rig.scenario.run_virtual import facts
from rig.scenario.stage import Stage
from rig.scenario.timed import Clock, timed
from rig.scenario.trace import trace_of
from rig.supervisor import RunOptions, Supervisor
from rig.trials.truth import Ticks
from rig.trip_history import read_events
from rig.truth_check import judge_truth, overdosed
from rig.truth_file import read_last_ticks, read_now
from rig.wall_clock import monotonic_ns, monotonic_s

SPEED = 1.0
MORE_US = 4 * SLICE_NS / 1e3
"""Added to each bound: frame, scan, frame and slice of processes that are paced by the wall clock."""
LATEST_S = 10.0
AFTER_S = 0.3
POLL_S = 0.005
ATTEMPTS = 3
WELL_S = 60.0
LOOKED_BACK = 1 << 20
"""10 s of ticks with beam."""
SAFETY_LOG = "safety.events.jsonl"
BEFORE_NS = 5 * NS_PER_MS
RunOne = Callable[[Loaded, bool, Target], ScenarioResult]


def run_many(
    loaded: Sequence[Loaded], jobs: int = 1, *, trace: bool = False, target: Target = Target.CA,
    run: RunOne | None = None, clock: Clock = monotonic_s,
) -> Iterator[ScenarioResult]:  # fmt: skip
    """One after the other: their timing is what they try. Each in a process of its own, since libca reads its addresses
    once; a copy of one that has imported everything and done nothing, which saves seconds each time. `jobs` is of no
    account here; `run` is what carries one out, `run_one` where it is not given."""
    one_by_one, copies = run or run_one, multiprocessing.get_context("forkserver")
    copies.set_forkserver_preload(["__main__", __name__, one_by_one.__module__])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=copies, max_tasks_per_child=1) as pool:
        for one in loaded:
            why_not = one.scenario.why_not(target)
            if why_not:
                yield no_result(one.scenario, target.value, one.source, "skipped", why_not, **facts(one))
            else:
                for _ in range(ATTEMPTS):
                    result = pool.submit(timed, clock, one_by_one, one, trace, target).result()
                    if result.t_cause_ns is not None:
                        break  # otherwise the machine was too busy to come so far: not a verdict on the scenario
                yield result


def run_one(loaded: Loaded, trace: bool = False, target: Target = Target.CA) -> ScenarioResult:
    """Run one scenario; what could not be carried out has failed."""
    try:
        stage = Stage.of(loaded.scenario, loaded.folder, loaded.config_dir)
        with tempfile.TemporaryDirectory(prefix="ionctl-scenario-") as root:
            return CaRun(loaded, stage, Home(Path(root)), target).run(trace=trace)
    except (IonctlError, TimeoutError) as problem:
        return not_carried_out(loaded, target, problem)


def not_carried_out(loaded: Loaded, target: Target, problem: Exception) -> ScenarioResult:
    """The result of what came to no verdict."""
    words = f"it could not be carried out: {str(problem) or type(problem).__name__}"
    return no_result(loaded.scenario, target.value, loaded.source, "failed", words, **facts(loaded))


class CaRun:
    """One scenario on three processes, with soft IOCs as devices where some are given."""

    def __init__(
        self, loaded: Loaded, stage: Stage, home: Home, target: Target, devices: Mapping[str, SoftIoc] | None = None
    ) -> None:
        self._devices = devices or {}
        self._waiting: Waiting | None = None
        self._judged = 0
        self._at_first: float = math.inf
        """Trips until somebody goes on: those that the scenario expects are its own."""
        self._load: set[str] = set()
        """Rules that this machine's load has tripped where that is not let pass."""
        self._loaded = loaded
        self._scenario: Scenario = loaded.scenario
        self._stage = stage
        self._home = home
        self._target = target
        rules = paced_rules(stage.rules, SPEED)
        wanted = Wanted.of(loaded.scenario, rules, stage.facility)
        more = None if wanted.bound_us is None else wanted.bound_us + MORE_US
        self._wanted = replace(wanted, bound_us=more)
        self._log_from = 0
        self._off_ions: float | None = None
        self.seen = Seen(0)

    def run(self, *, trace: bool) -> ScenarioResult:
        """Up, through the scenario, down."""
        stage, scenario = self._stage, self._scenario
        plan = self._home.plans / "scenario.dcm"
        write_dicom_plan(make(scenario.plan, stage.facility, stage.species, self._loaded.folder), plan)
        relay = LinkRelay()
        supervisor = Supervisor(self._home, stage.facility.id, relay)
        options = RunOptions(
            stage.room, stage.species, stage.seed, SPEED, allow_faults=True, mode=stage.mode.value
        )  # fmt: skip
        try:
            run = supervisor.up(stage.facility, options)
            hands = CaHands(
                stage.facility, self._home, run, supervisor, relay, scenario, stage.gating, devices=self._devices
            )  # fmt: skip
            with stoppable(supervisor, run), hands:
                asyncio.run(self._act(run, supervisor.folder, hands, plan))
        finally:
            with contextlib.suppress(ChannelError):
                supervisor.down()
            relay.close()
        return self._result(trace=trace)

    async def _act(self, run: RunFile, folder: Path, hands: CaHands, plan: Path) -> None:
        stage, seen = self._stage, self.seen
        async with (
            operator_at(stage.facility, self._home, run) as operator,
            room_at(stage.facility, self._home, run) as room,
            self._told_from_load(run, folder),
        ):
            hands.operator = operator
            await asyncio.sleep(SETTLE_S)
            await operator.require_devices(stage.facility)
            await make_ready(stage.facility, self._home, run, operator)
            deeds = Deeds(
                self._scenario, operator, room, hands, str(plan), stage.room, stage.program.plan_hash,
                was_load=self._was_load,
                patient=bool(stage.facility.external),
                on_beam=lambda: self._may_come_back(folder),
            )  # fmt: skip
            seen.answers, seen.failures = deeds.answers, deeds.failures
            await self._to_the_moment(operator, folder, deeds)
            for act in self._scenario.before:
                await deeds.do(act)
            self._log_from = len(read_events(folder / SAFETY_LOG))
            seen.cause_ns = read_now(folder).t_ns
            for act in self._scenario.acts:
                await deeds.do(act)
            await self._settle(operator, folder)
            await asyncio.to_thread(self._note, operator, folder)  # the console's signs of life go on
            self._judge_trips(folder)
            self._at_first = self._judged
            for act in self._scenario.then:
                await deeds.do(act)
            resets = [answer.who for answer in deeds.answers if (answer.deed, answer.answer) == ("reset", "done")]
            seen.reset_by = resets[-1] if resets else ""
            seen.end = operator.state.name
            seen.trips = self._trips(folder)
            if self._wanted.end == "COMPLETED" or self._scenario.expect.overdosed is not None:
                await self._weigh(folder)

    @contextlib.asynccontextmanager
    async def _told_from_load(self, run: RunFile, folder: Path) -> AsyncIterator[None]:
        """With hardware in the loop each trip that may be this machine's load is held against how long everybody has
        waited for a processor right before it; one that they have not waited for counts like any other."""
        self._waiting = Waiting(lambda: processes_of(run, self._devices), monotonic_ns)
        watching = [asyncio.create_task(self._waiting.watch()), asyncio.create_task(self._judge_load(folder))]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _judge_load(self, folder: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self.seen.cause_ns:
                self._judge_trips(folder)

    def _judge_trips(self, folder: Path) -> None:
        """With hardware in the loop load is no verdict; without, it is none once: the scenario is tried again."""
        trips, expect, seen = self._trips(folder), self._scenario.expect, self.seen
        for number, rule in enumerate(trips[self._judged :], start=self._judged):
            own = rule in {expect.first, *expect.also, *expect.besides, *expect.trips}
            if rule not in LOADED or (own and number < self._at_first):
                continue
            busy = self._waiting is not None and self._waiting.busy()
            if not self._stage.facility.external:
                self._load |= {rule} if busy else set()
            elif busy:
                seen.busy |= {rule}
            else:
                seen.failures.append(f"{rule} tripped, and this machine was not busy")
        self._judged = len(trips)

    def _was_load(self, rule: str) -> bool:
        if not self._stage.facility.external or self._waiting is None:
            return False
        return rule in LOADED | LOST and self._waiting.busy()

    async def _until_moment(self, operator: OperatorClient, folder: Path) -> None:
        at = self._scenario.at
        if self._scenario.begin != "started":
            return
        if at.state is not None:
            await operator.until(lambda: operator.state.name == at.state, 60.0, str(at.state))
        elif at.beam_ms is not None:
            await self._until_beam(operator, folder)
            await asyncio.sleep(at.beam_ms * 1e-3 / SPEED)
            if self._scenario.expect.beam_needed:
                await self._until_beam(operator, folder)
        await asyncio.sleep(max(0.0, at.after_ms) * 1e-3 / SPEED)

    async def _to_the_moment(self, operator: OperatorClient, folder: Path, deeds: Deeds) -> None:
        """As far as the first act needs it. What this machine's load trips on the way is let go of there: a facility
        brought up anew takes a minute."""
        begin: Callable[[], Awaitable[None]] = functools.partial(deeds.go, self._scenario.begin)
        for left in reversed(range(ATTEMPTS)):
            try:
                await begin()
                return await self._until_moment(operator, folder)
            except (ChannelError, CommandRefused):
                waiting, tripped = self._waiting, operator.first_fault in LOADED
                if not left or waiting is None or not (tripped and waiting.busy()):
                    raise
                begin = functools.partial(deeds.begin_again, WELL_S)
        return None

    async def _until_beam(self, operator: OperatorClient, folder: Path) -> None:
        """ChannelError where none comes: at once where something has taken it away."""
        beam = asyncio.create_task(until_ions(folder))
        stopped = asyncio.create_task(operator.until(lambda: operator.state in STOPPED, 2 * BEAM_WAIT_S, "a stop"))
        try:
            await asyncio.wait({beam, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if beam.done() and beam.exception() is None:
                return
            with contextlib.suppress(ChannelError):  # its name comes a little later than control's state
                await operator.until(lambda: bool(operator.first_fault), NAMED_S, "name of the rule")
            what = f"no beam: control is {operator.state.name}, tripped: {operator.first_fault or 'nothing'}"
            raise ChannelError("scenario.no-beam", what, self._scenario.id)
        finally:
            for task in (beam, stopped):
                task.cancel()
            await asyncio.gather(beam, stopped, return_exceptions=True)

    async def _settle(self, operator: OperatorClient, folder: Path) -> None:
        wanted = self._wanted
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (wanted.bound_us or 0.0) * 1e-6 / SPEED + LATEST_S
        while loop.time() < end_s and not self._settled(operator, folder):  # noqa: ASYNC110 - files wake nobody
            await asyncio.sleep(POLL_S)
        if wanted.rule is not None or wanted.state is not None:
            await asyncio.sleep(AFTER_S)

    def _settled(self, operator: OperatorClient, folder: Path) -> bool:
        wanted = self._wanted
        if wanted.state is not None and operator.state.name != wanted.state:
            return False
        return wanted.rule is None or not wanted.rule.latches or bool(self._trips(folder))

    def _events(self, folder: Path) -> list[dict[str, Any]]:
        return read_events(folder / SAFETY_LOG)[self._log_from :]

    def _trips(self, folder: Path) -> tuple[str, ...]:
        return tuple(str(e["data"]["id"]) for e in self._events(folder) if e["kind"] == "interlock.trip")

    def _note(self, operator: OperatorClient, folder: Path) -> None:
        seen = self.seen
        events = self._events(folder)
        trips = [e for e in events if e["kind"] == "interlock.trip"]
        firsts = [str(e["data"]["id"]) for e in events if e["kind"] == "first-fault"]
        seen.first = firsts[-1] if firsts else (str(trips[0]["data"]["id"]) if trips else "")
        seen.latched = tuple(dict.fromkeys(str(e["data"]["id"]) for e in trips))
        rule = self._wanted.rule
        if rule is not None and not rule.latches and operator.state.name == self._wanted.state:
            seen.present = frozenset({rule.id})  # nothing but its effect is to be seen from here
        seen.words = next((str(e["data"]["words"]) for e in trips if e["data"]["id"] == seen.first), "")
        seen.state = operator.state.name
        found = read_last_ticks(folder, LOOKED_BACK)
        found = found[found["t_ns"] > seen.cause_ns - BEFORE_NS]
        fields: list[Any] = [found[name].astype(np.int64) for name in ("t_ns", "ions", "flags", "spot")]
        seen.ticks = Ticks(*fields)
        now = read_now(folder)
        seen.until_ns = now.t_ns
        if self._wanted.state in ("INTERRUPTED", "TERMINATED"):
            self._off_ions = now.total_ions

    def _may_come_back(self, folder: Path) -> None:
        if self._off_ions is not None:
            self.seen.ions_while_off += read_now(folder).total_ions - self._off_ions
            self._off_ions = None

    async def _weigh(self, folder: Path) -> None:
        """The dose of each spot, once the plant has written all of it down."""
        spots = await truth_at(folder, read_now(folder).t_ns - round(0.1 * NS_PER_S))
        if spots is None:
            self.seen.failures.append("the plant has not written down the truth of each spot")
        else:
            layers = self._stage.program.layers
            self.seen.dose = judge_truth(layers, spots)
            self.seen.overdosed = overdosed(layers, spots)

    def _result(self, *, trace: bool) -> ScenarioResult:
        scenario, seen, stage = self._scenario, self.seen, self._stage
        off_ns, ions = beam_off(seen)
        ions_bound = surplus_bound(self._wanted, stage.level(scenario.at.layer), stage.facility)
        found = tuple(failures(self._wanted, seen, off_ns, ions, ions_bound))
        if found and self._load:
            raise ChannelError("scenario.busy", f"{', '.join(sorted(self._load))} tripped while this machine kept "
                               f"everybody waiting for a processor: {'; '.join(found)}", scenario.id)  # fmt: skip
        return ScenarioResult(
            scenario.id, scenario.title, self._target.value, scenario.rules, recovery=scenario.recovery,
            source=self._loaded.source, seed=scenario.seed, facility=stage.facility.id,
            verdict="failed" if found else "passed", failures=found, t_cause_ns=seen.cause_ns, t_off_ns=off_ns,
            bound_us=self._wanted.bound_us, surplus_ions=ions, surplus_bound_ions=ions_bound, first=seen.first,
            latched=seen.latched, words=seen.words, state=seen.state, end=seen.end, reset_by=seen.reset_by,
            answers=tuple((a.who, a.deed, a.answer) for a in seen.answers), final=final_dose(seen.dose),
            trace=trace_of(seen, off_ns, None, self._wanted.rule) if trace else None,
            **facts(self._loaded, stage),  # type: ignore[arg-type]
        )  # fmt: skip
