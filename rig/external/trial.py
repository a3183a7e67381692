"""Devices that nobody here wrote, in the loop, failing one way after the other in the middle of a field.

    python -m rig.external.trial --home FOLDER --per-side 15

Starts a C soft IOC (`rig.external.soft_ioc`) as scanning supply x and one as high-voltage supply of chamber 1, and a
facility that gives them these devices; delivers a field, does everything to either device that it can, and after each
time resets and resumes as a person would.  What counts is truth: no ion later than the bound after the device failed,
every spot within its tolerance in the end.  Prints its verdict as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from control.layer_machine import State
from control.plan.dicom_writer import write_dicom_plan
from control.plan.load import load_plan
from control.plan.maker import make_even_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from facility.errors import ChannelError, CommandRefused, IonctlError
from facility.timebase import NS_PER_MS
from interlocks.explain import bound
from interlocks.rules import load_rules
from rig.deliver_ca import truth_at
from rig.external.soft_devices import DEEDS, LOADED, LOST, Deed, SoftIoc, processes_of, soft_iocs, trial_facility
from rig.external.waiting import Waiting
from rig.home import Home
from rig.operator_client import ENDED, OperatorClient
from rig.paced_rules import paced_rules
from rig.priority import hurry
from rig.remote import operator_at
from rig.remote_room import make_ready
from rig.run_dir import RunFile
from rig.supervisor import RunOptions, Supervisor
from rig.truth_check import judge_truth
from rig.truth_file import read_last_ticks, read_now
from rig.wall_clock import monotonic_ns

SLICE_NS = 6 * NS_PER_MS
"""Longest slice of the plant: the truth trace says where it is after each."""
LAST_TICKS = 200_000
"""2 s with beam: the whole ring would keep the console from its keep-alives."""
BEAM_WAIT_S = 30.0
OFF_WAIT_S = 10.0
QUIET_S = 0.4
"""Truth is looked at so long after the beam should be off."""
WELL_S = 30.0
FIELD_S = 600.0
TRIES = 20
NAMED_S = 2.0
STOPPED = frozenset({State.INTERRUPTED, State.TERMINATED})
_POLL_S = 0.002
_RETRY_S = 0.3


@dataclass
class Outcome:
    """What one deed came to."""

    deed: str
    rule: str = ""
    off_ms: float = 0.0
    """From the deed, give or take a slice, to the last ion."""
    bound_ms: float = 0.0
    problem: str = ""


@dataclass
class Verdict:
    """What a trial came to."""

    problem: str = ""
    doing: str = ""
    """The last thing that was begun."""
    spots: int = 0
    spots_within: int = 0
    status: str = ""
    wall_s: float = 0.0
    nuisances: list[str] = field(default_factory=list)
    """Rules that took the beam although nothing was done to a device: this machine was busy with other things."""
    unexplained: list[str] = field(default_factory=list)
    """Those for which nobody had waited for a processor, and other rules than a busy machine trips."""
    outcomes: list[Outcome] = field(default_factory=list)
    pacing: dict[str, Any] = field(default_factory=dict)


def run_trial(home: Home, per_side: int, seed: int, mode: str, deeds: tuple[Deed, ...] = DEEDS) -> Verdict:
    """Start everything, deliver a field of `per_side` squared spots with all deeds in turn, stop, judge."""
    began_ns = monotonic_ns()
    with soft_iocs() as iocs:
        facility = trial_facility(iocs, mode)
        room, species = next(iter(facility.rooms)), "carbon"
        plan = home.plans / "even.dcm"
        write_dicom_plan(make_even_plan(facility, species, per_side), plan)
        program = compile_program(load_plan(plan), facility, room)
        supervisor = Supervisor(home, facility.id)
        verdict = Verdict(spots=program.n_spots)
        try:
            run = supervisor.up(facility, RunOptions(room, species, seed=seed))
            field_ = _Field(facility, home, run, supervisor.folder, program, iocs, seed, verdict)
            asyncio.run(field_.deliver(plan, deeds))
        except Exception as problem:  # noqa: BLE001 - whatever it was, it is the verdict, with all that was seen before
            where = f"after {len(verdict.outcomes)} of {len(deeds)} deeds: {verdict.doing or 'bringing it up'}"
            verdict.problem = f"{type(problem).__name__}: {problem} ({where})"
        finally:
            with contextlib.suppress(ChannelError):
                supervisor.down()
    verdict.wall_s = (monotonic_ns() - began_ns) * 1e-9
    return verdict


class _Field:
    """One field at a facility that is up."""

    def __init__(
        self, facility: Facility, home: Home, run: RunFile, folder: Path, program: MachineProgram,
        iocs: dict[str, SoftIoc], seed: int, verdict: Verdict,
    ) -> None:  # fmt: skip
        self._facility = facility
        self._home = home
        self._run = run
        self._folder = folder
        self._program = program
        self._iocs = iocs
        self._verdict = verdict
        self._waiting = Waiting(lambda: processes_of(run, iocs), monotonic_ns)
        self._rng = np.random.default_rng(seed)
        self._rules = paced_rules(load_rules(facility, program.room_id, "carbon"), 1.0)

    async def deliver(self, plan: Path, deeds: tuple[Deed, ...]) -> None:
        """Deliver with the deeds in turn, spread over the field; it goes into the verdict as it comes."""
        verdict = self._verdict
        async with operator_at(self._facility, self._home, self._run) as operator:
            watching = asyncio.create_task(self._waiting.watch())
            try:
                ended_ns = await self._delivered(operator, plan, deeds)
            finally:
                watching.cancel()
            verdict.pacing = await operator.pace()
        verdict.doing = "judging"
        await self._judge(verdict, ended_ns)

    async def _delivered(self, operator: OperatorClient, plan: Path, deeds: tuple[Deed, ...]) -> int:
        """Until the session has ended; when that was, ns."""
        verdict = self._verdict
        verdict.doing = "making ready"
        await operator.require_link(1.0)
        await operator.require_devices(self._facility)
        await self._made_ready(operator)
        session = await operator.load(str(plan), self._program.room_id, False, self._program.plan_hash)
        await operator.prepare()
        await operator.start()
        spots_each = self._program.n_spots / (len(deeds) + 1)
        for number, deed in enumerate(deeds, start=1):
            verdict.doing = deed.name
            await self._until_spot(operator, round(number * spots_each * float(self._rng.uniform(0.85, 1.0))))
            verdict.outcomes.append(await self._tried(operator, deed))
        verdict.doing = "delivering the rest"
        await self._until_spot(operator, self._program.n_spots)
        summary = await operator.ended(session, FIELD_S)
        verdict.status = str(summary["status"])
        return int(summary["t_ended_ns"])

    async def _made_ready(self, operator: OperatorClient) -> None:
        """Room searched, devices proven, nothing latched; again where this machine's load has tripped something."""
        for left in reversed(range(TRIES)):
            try:
                await make_ready(self._facility, self._home, self._run, operator)
                await operator.reset()
                return
            except CommandRefused:
                rule, busy = operator.first_fault, self._waiting.busy()
                if not left or not busy or rule not in LOADED:
                    raise
                self._load_only(rule, busy)
                await asyncio.sleep(_RETRY_S)
                await operator.reset()

    async def _until_spot(self, operator: OperatorClient, spot: int) -> None:
        """Until so many spots are done; what this machine's load has tripped meanwhile is let go of."""
        while True:
            await operator.until(
                lambda: operator.progress().spots_done >= spot or operator.state in ENDED, FIELD_S, f"spot {spot}"
            )
            if operator.state not in STOPPED:
                return
            with contextlib.suppress(ChannelError):  # the name comes a little later than control's state
                await operator.until(
                    lambda: bool(operator.first_fault) or operator.state not in STOPPED, NAMED_S, "name of the rule"
                )
            if operator.state not in STOPPED:
                continue  # what was seen was old: the field has been gone on with
            self._load_only(operator.first_fault, self._waiting.busy())
            await self._go_on(operator)

    def _load_only(self, rule: str, busy: bool) -> None:
        """A rule took the beam though no device was made to fail: this machine's load, or a problem of the device."""
        self._verdict.nuisances.append(rule)
        if rule not in LOADED | LOST or not busy:
            self._verdict.unexplained.append(f"{rule or 'nothing that has a name'} while: {self._verdict.doing}")

    async def _tried(self, operator: OperatorClient, deed: Deed) -> Outcome:
        """The deed, again where this machine's load took the beam first."""
        for _ in range(TRIES):
            if operator.state is State.COMPLETED:
                return Outcome(deed.name, problem="the field was over before it could be done")
            outcome = await self._one(operator, deed)
            if outcome is not None:
                return outcome
        return Outcome(deed.name, problem="something else took the beam each time")

    async def _one(self, operator: OperatorClient, deed: Deed) -> Outcome | None:
        """The deed once; None if something else took the beam before it."""
        outcome = Outcome(deed.name)
        ioc = self._iocs[deed.device]
        await self._until_spot(operator, 0)
        if not await self._until_ions(operator):
            return None
        deed.do(ioc)
        at_ns = read_now(self._folder).t_ns + SLICE_NS
        await operator.until(lambda: bool(operator.first_fault), OFF_WAIT_S, f"trip after: {deed.name}")
        outcome.rule, busy = operator.first_fault, self._waiting.busy()
        bounds = [bound(self._rules.rule(one), self._rules, self._facility).total_us for one in deed.rules]
        bound_ns = round(max(bounds) * 1e3)
        outcome.bound_ms = bound_ns / NS_PER_MS
        await self._until_time(at_ns + bound_ns + round(QUIET_S * 1e9))
        self._off(outcome, at_ns, bound_ns)
        deed.undo(ioc)
        await self._go_on(operator)
        if outcome.rule in LOADED and not outcome.problem:
            self._load_only(outcome.rule, busy)
            return None
        if outcome.rule not in deed.rules:
            outcome.problem = f"{outcome.rule} took the beam, not one of {sorted(deed.rules)}; {outcome.problem}"
        return outcome

    def _off(self, outcome: Outcome, at_ns: int, bound_ns: int) -> None:
        ticks = read_last_ticks(self._folder, LAST_TICKS)
        hit = ticks["t_ns"][ticks["ions"] > 0]
        outcome.off_ms = (int(hit[-1]) - at_ns) / NS_PER_MS if hit.size else 0.0
        late = int(ticks["ions"][ticks["t_ns"] > at_ns + bound_ns].sum())
        if late:
            outcome.problem = f"{late} ions more than {outcome.bound_ms:.1f} ms after it"

    async def _go_on(self, operator: OperatorClient) -> None:
        """What a person does: wait until the device is well, reset, account for a termination, resume or start."""
        last: IonctlError | None = None
        for _ in range(TRIES):
            if operator.state is State.COMPLETED:
                return
            try:
                await operator.require_devices(self._facility)
                await make_ready(self._facility, self._home, self._run, operator)
                await operator.reset()
                if operator.state is State.INTERRUPTED:
                    await operator.ask("TCS", "resume")
                else:
                    await self._start_anew(operator)
                if await self._beam_or_trip(operator):
                    return
            except (CommandRefused, ChannelError, TimeoutError) as problem:
                last = problem if isinstance(problem, IonctlError) else None
                if isinstance(problem, CommandRefused):  # by the count of interruptions, perhaps, which is let go of so
                    await self._account_for(operator)
                await asyncio.sleep(_RETRY_S)
        raise last or ChannelError("trial.no-beam", "the field does not go on", self._facility.id)

    async def _account_for(self, operator: OperatorClient) -> None:
        """As the physicist; nothing is to be accounted for where somebody has, or nothing has ended."""
        with contextlib.suppress(CommandRefused):
            await operator.resolve("tried with hardware in the loop", resume=True)

    async def _start_anew(self, operator: OperatorClient) -> None:
        """From a termination, or from where an attempt to go on has stopped."""
        if operator.state is State.TERMINATED:
            await self._account_for(operator)
            await operator.reset()
        if operator.state in (State.TERMINATED, State.LOADED, State.PREPARED):
            await operator.ask("TCS", "prepare")
            await operator.until(
                lambda: operator.state is State.READY or bool(operator.first_fault), BEAM_WAIT_S, "READY or a trip"
            )
        if operator.state is State.READY:
            await operator.start()

    async def _beam_or_trip(self, operator: OperatorClient) -> bool:
        """Wait for ions; False if an interlock comes first, and after BEAM_WAIT_S."""
        first = read_now(self._folder).total_ions
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAM_WAIT_S):
                while not operator.first_fault:
                    if read_now(self._folder).total_ions > first or operator.state is State.COMPLETED:
                        return True
                    await asyncio.sleep(_POLL_S)
        return False

    async def _until_ions(self, operator: OperatorClient) -> bool:
        """Wait for ions; False if something takes the beam first, or has stopped the field."""
        first = read_now(self._folder).total_ions
        async with asyncio.timeout(BEAM_WAIT_S):
            while not operator.first_fault and operator.state not in STOPPED:
                if read_now(self._folder).total_ions > first:
                    return True
                await asyncio.sleep(_POLL_S)
        return False

    async def _until_time(self, t_ns: int) -> None:
        async with asyncio.timeout(OFF_WAIT_S):
            while read_now(self._folder).t_ns < t_ns:  # noqa: ASYNC110 - as above
                await asyncio.sleep(_POLL_S)

    async def _judge(self, verdict: Verdict, ended_ns: int) -> None:
        truth = await truth_at(self._folder, ended_ns)
        if truth is None:
            verdict.problem = "no truth"
            return
        report = judge_truth(self._program.layers, truth)
        verdict.spots_within = report.spots_within
        problems = [f"{one.deed}: {one.problem}" for one in verdict.outcomes if one.problem]
        problems += [f"it was not this machine's load: {words}" for words in verdict.unexplained]
        if verdict.status != "completed":
            problems.append(f"the field is {verdict.status}")
        if not report.within_tolerance or report.unplanned_ions:
            problems.append(f"{report.spots_within} of {report.spots} spots within tolerance, worst "
                            f"{report.worst_spot_error_pct:.2f} %, {report.unplanned_ions:g} ions nowhere")  # fmt: skip
        verdict.problem = "; ".join(problems)


def main(arguments: list[str]) -> int:
    """One trial; exit code 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="rig.external.trial")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--per-side", type=int, default=15, help="spots on either side of the grid")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=["per_spot", "table"], default="per_spot")
    parser.add_argument("--deeds", default="", help="only those whose name holds one of these, separated by commas")
    options = parser.parse_args(arguments)
    hurry()  # its keep-alives stand for a person who is there
    parts = options.deeds.split(",")
    deeds = tuple(deed for deed in DEEDS if any(part in deed.name for part in parts))
    verdict = run_trial(Home(options.home), options.per_side, options.seed, options.mode, deeds)
    os.write(1, (json.dumps(asdict(verdict)) + "\n").encode())
    return 1 if verdict.problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
