"""Attacks on the safety link for the long counts: in virtual time, on real processes, and how late frames come."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import ROOT
from channels.wire_faults import LinkFault
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan, make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, load_facility
from facility.errors import ChannelError, IonctlError
from rig.home import Home
from rig.link_trial import Attack, LinkTrial, Way, run_trial
from rig.link_trial_ca import Deed, NoTrialError, RealTrial, Victim, run_real_trial
from rig.operator_client import OperatorClient
from rig.paced_rules import WALL_WATCHDOG_MS
from rig.remote import operator_at
from rig.remote_room import make_ready
from rig.supervisor import RunOptions, Supervisor

MS = 1_000_000
CASE_TIMEOUT_S = 240.0
LATENESS_S = 600.0
TRIES = 5
NO_TRIAL = "no trial"
VIRTUAL = [(fault, way) for way in Way for fault in LinkFault] + [(attack, Way.IMAGES) for attack in Attack] * 3
"""Cuts, kills, stops and restarts three times as often as each fault of a wire."""
REAL: list[tuple[Deed | LinkFault, Victim]] = [
    (Deed.KILL, Victim.SAFETY),
    (Deed.STOP, Victim.SAFETY),
    (Deed.CUT, Victim.IMAGES),
    (Deed.CUT, Victim.PERMITS),
    (LinkFault.DELAY, Victim.IMAGES),
    (LinkFault.DELAY, Victim.PERMITS),
    (Deed.STOP, Victim.PLANT),
    (Deed.STOP, Victim.CONTROL),
    (Deed.KILL, Victim.CONTROL),
    (LinkFault.CORRUPT, Victim.IMAGES),
    (LinkFault.REORDER, Victim.PERMITS),
    (LinkFault.DUPLICATE, Victim.PERMITS),
    (LinkFault.INSERT, Victim.IMAGES),
    (LinkFault.FOREIGN, Victim.PERMITS),
    (LinkFault.REPLAY, Victim.PERMITS),
]
Result = tuple[str, dict[str, float]]
"""What went wrong, nothing if all was well; and figures of which the worst are kept."""


@functools.cache
def _site() -> tuple[Facility, MachineProgram]:
    facility = load_facility("wuwei")
    return facility, compile_program(make_small_plan(facility, "carbon"), facility, "1", qa=True)


def virtual_attack(number: int) -> Result:
    """One attack in virtual time at a random moment of the beam."""
    rng = np.random.default_rng(number)
    attack, way = VIRTUAL[number % len(VIRTUAL)]
    facility, program = _site()
    after_ns, lasts_ns = int(rng.integers(1, 25 * MS)), int(rng.integers(15, 250)) * MS
    trial = LinkTrial(attack, way, after_ns, lasts_ns=lasts_ns, seed=number + 1)
    verdict = run_trial(facility, program, trial)
    figures = {"beam_off_ms": verdict.off_ms, "bound_ms": verdict.bound_ns / MS}
    return (f"{trial}: {verdict}" if verdict.missed else ""), figures


def real_attack(number: int) -> Result:
    """One attack on real processes; tried again where no beam came, which is a matter of the machine, not a miss."""
    untried = 0.0
    while True:
        problem, figures = _in_a_process(number)
        if not problem.startswith(NO_TRIAL) or untried >= TRIES:
            return problem, figures | {"tries without beam": untried}
        untried += 1.0


def _in_a_process(number: int) -> Result:
    """libca reads its addresses once per process."""
    command = [sys.executable, "-m", "benchmarks.soak_link", str(number)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {CASE_TIMEOUT_S:.0f} s", {}
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}", {}
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if said["problem"].startswith(NO_TRIAL):
        return said["problem"], {}
    deed = f"{said['victim']} {said['deed']}"
    return said["problem"], {
        f"{deed}: beam_off_wall_ms": said["off_wall_ms"],
        f"{deed}: bound_wall_ms": said["bound_ms"],
    }


def _one_real_attack(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(10_000 + number)
    deed, victim = REAL[number % len(REAL)]
    slow = victim is Victim.CONTROL
    trial = RealTrial(
        deed, victim, after_s=float(rng.uniform(0.0, 0.6)), lasts_s=8.0 if slow else float(rng.uniform(0.15, 0.8)),
        watched_s=9.0 if slow else 2.0, speed=float(rng.choice([1.0, 2.0, 4.0])), seed=number + 1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ionctl-soak-") as home:
        try:
            verdict = run_real_trial(load_facility("wuwei"), Home(Path(home)), trial)
        except NoTrialError as problem:
            return {"problem": f"{NO_TRIAL}: {problem}", "deed": deed.value, "victim": victim.value}
    problem = f"{NO_TRIAL}: {verdict.problem}" if verdict.untried else verdict.problem
    return {
        "problem": problem, "deed": deed.value, "victim": victim.value, "off_wall_ms": verdict.off_wall_ms,
        "bound_ms": verdict.bound_ns / MS / trial.speed, **asdict(verdict),
    }  # fmt: skip


def lateness(number: int) -> Result:
    """Ten minutes of deliveries one after the other: gaps between good frames at both ends, beside the watchdog."""
    command = [sys.executable, "-m", "benchmarks.soak_link", "lateness"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * LATENESS_S + 300.0, check=False
    )
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}", {}
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    measured = {"rack: p999_ms", "safety: p999_ms"} <= set(figures)
    return ("" if measured else f"one end has measured nothing: {figures}"), figures


def _measure_lateness(seconds: float) -> dict[str, float]:
    facility = load_facility("wuwei")
    with tempfile.TemporaryDirectory(prefix="ionctl-soak-") as folder:
        home = Home(Path(folder))
        plan = home.plans / "plan.dcm"
        write_dicom_plan(make_plan("cube", 20.0, 150.0, 4.0, "carbon", facility, layer_spacing_mm=4.0), plan)
        supervisor = Supervisor(home, facility.id)
        run = supervisor.up(facility, RunOptions("1", "carbon", speed=1.0))
        try:
            return asyncio.run(_deliver_for(seconds, facility, home, run, plan))
        finally:
            supervisor.down()


async def _deliver_for(seconds: float, facility: Facility, home: Home, run: Any, plan: Path) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + seconds
    completed = interrupted = 0
    async with operator_at(facility, home, run) as operator:
        await make_ready(facility, home, run, operator)
        while loop.time() < ends_s:
            try:
                completed += await _one_delivery(operator, plan, run.room)
                continue
            except (IonctlError, TimeoutError):
                interrupted += 1
            if operator.lost:
                break
            await _let_go(operator)
        gauges = await operator.link_readings()
    figures = {f"{end}: {name}": value for end, found in gauges.items() for name, value in asdict(found).items()}
    return figures | {
        "watchdog_ms": WALL_WATCHDOG_MS,
        "deliveries completed": completed,
        "deliveries interrupted": interrupted,
    }


async def _one_delivery(operator: OperatorClient, plan: Path, room: str) -> int:
    """1 if it was completed."""
    await operator.reset()
    session = await operator.load(str(plan), room, False)
    await operator.prepare()
    await operator.start()
    ended = await operator.ended(session, 120.0)
    if ended["status"] != "completed":
        raise ChannelError("lateness.interrupted", str(ended["status"]), session)
    await operator.ask("TCS", "close")
    return 1


async def _let_go(operator: OperatorClient) -> None:
    """After a trip: end the session, account for it, and wait a little."""
    for verb in ("stop", "close"):
        with contextlib.suppress(IonctlError):
            await operator.ask("TCS", verb)
    with contextlib.suppress(IonctlError):
        await operator.resolve("the link tripped while its lateness was measured")
    await asyncio.sleep(1.0)


def main() -> int:
    """`python -m benchmarks.soak_link NUMBER | lateness`: one case, its result as the last line."""
    what = sys.argv[1]
    result = (
        _measure_lateness(float(sys.argv[2]) if len(sys.argv) > 2 else LATENESS_S)
        if what == "lateness"
        else _one_real_attack(int(what))
    )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    code = main()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(5.0)
    raise SystemExit(code)
