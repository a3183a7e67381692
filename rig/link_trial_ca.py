"""One attack on real processes or the datagrams between them while beam is on, judged by the plant's truth trace.

Three processes of their own, a relay between the ends of the safety link, an operator over Channel Access. After the
attack nobody resets; the wire becomes sound again or the stopped process runs on, and truth is looked at until the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from channels.wire_faults import LinkFault
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan
from facility.config import Facility
from facility.errors import ChannelError, IonctlError
from facility.timebase import NS_PER_MS
from interlocks.explain import bound
from interlocks.rules import load_rules
from rig.home import Home
from rig.link_relay import LinkRelay, Way
from rig.operator_client import OperatorClient
from rig.paced_rules import WALL_MAX_AGE_MS, paced_rules
from rig.remote import operator_at
from rig.remote_room import make_ready
from rig.run_dir import RunFile, is_alive
from rig.supervisor import RunOptions, Supervisor
from rig.truth_file import TruthNow, read_now, read_ticks
from rig.wall_clock import monotonic_ns

SLICE_NS = 6 * NS_PER_MS
"""Longest slice of the plant, wall time: the truth trace says where it is after each."""
FOR_EVER = 1_000_000
LATE_NS = round(1.5 * WALL_MAX_AGE_MS * NS_PER_MS)
BEAM_WAIT_S = 20.0
PLAN = "attacked.dcm"
"""What is delivered meanwhile, among the plans of the home."""
SETTLE_S = 2.0
"""From readiness on: processes that start make each other late."""
_POLL_S = 0.001
CONTROL_S = 5.0
"""Longest until the beam has gone after control has fallen silent, wall time: the console misses it within 2 s and says
no keep-alive any more, and the safety controller gives that 2 s; until then the front end goes on by itself."""


class NoTrialError(ChannelError):
    """The beam did not come, or the link did not keep time: nothing could be tried. Not a miss."""


class Victim(Enum):
    """What is attacked."""

    SAFETY = "safety"
    CONTROL = "control"
    PLANT = "plant"
    IMAGES = "images"
    PERMITS = "permits"


class Deed(Enum):
    """What is done to it, beside the faults of a wire."""

    KILL = "kill"
    """SIGKILL."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT later."""
    CUT = "cut"
    """No datagram passes; later they do again."""


@dataclass(frozen=True)
class RealTrial:
    """An attack, when, and at what speed."""

    deed: Deed | LinkFault
    victim: Victim
    after_s: float
    """From the first beam to the attack, wall time."""
    lasts_s: float = 0.4
    watched_s: float = 1.5
    """How long truth is looked at from the attack on, wall time."""
    speed: float = 1.0
    seed: int = 1
    beam_needed: bool = True
    """Wait for beam right before the attack; otherwise something else may have taken it already."""


@dataclass(frozen=True)
class RealVerdict:
    """What truth says; facility time in ns."""

    at_ns: int
    bound_ns: int
    last_ion_ns: int
    ions_before: int
    """In the 5 ms before the attack."""
    ions_after_bound: int
    ran_on_ms: float
    """How far truth was looked at after the bound, facility time."""
    speed: float

    @property
    def off_wall_ms(self) -> float:
        """From the attack to the last ion, ms of wall time."""
        return (self.last_ion_ns - self.at_ns) / NS_PER_MS / self.speed

    @property
    def untried(self) -> bool:
        """The layer ended in the very moment of the attack: there was no beam to be taken away, and none came after."""
        return not self.ions_before and not self.ions_after_bound

    @property
    def problem(self) -> str:
        """Why this is a miss, or no trial at all; empty if all is well."""
        if self.ions_after_bound:
            return f"{self.ions_after_bound} ions more than {self.bound_ns / NS_PER_MS:.1f} ms after the attack: {self}"
        if self.untried:
            return f"no beam before the attack: {self}"
        if self.ran_on_ms <= 0.0:
            return f"truth was not looked at beyond the bound: {self}"
        return ""


def promised_ns(facility: Facility, room: str, species: str, trial: RealTrial) -> int:
    """The bound, facility time: that of the rules that watch the link, with watchdogs in wall time."""
    if trial.victim is Victim.CONTROL:
        return round(CONTROL_S * 1e9 * trial.speed)
    rules = paced_rules(load_rules(facility, room, species), trial.speed)
    last_us = max(bound(rules.rule(one), rules, facility).actuator_us for one in ("link-safety", "link-plant"))
    watchdog_ns = round(rules.link.watchdog_ms * NS_PER_MS)
    if trial.victim is Victim.PLANT:  # its time stands still with it: one slice at most when it runs on
        watchdog_ns = 0
    turns_ns = round(4 * SLICE_NS * trial.speed)  # frame, scan, frame, slice
    return watchdog_ns + turns_ns + round(last_us * 1000.0)


Beside = Callable[[RunFile, Home], contextlib.AbstractContextManager[Callable[[], None]]]
"""What goes on beside the delivery, until everything is stopped; the callable is called with the first beam."""


@contextlib.contextmanager
def _nothing(_run: RunFile, _home: Home) -> Iterator[Callable[[], None]]:
    yield lambda: None


def run_real_trial(facility: Facility, home: Home, trial: RealTrial, beside: Beside = _nothing) -> RealVerdict:
    """Start a facility, deliver, attack, watch, stop it, judge."""
    room, species = next(iter(facility.rooms)), "carbon"
    plan = home.plans / PLAN
    write_dicom_plan(make_plan("cube", 20.0, 150.0, 4.0, species, facility, layer_spacing_mm=4.0), plan)
    relay = LinkRelay()
    supervisor = Supervisor(home, facility.id, relay)
    try:
        run = supervisor.up(facility, RunOptions(room, species, seed=trial.seed, speed=trial.speed))
        with stoppable(supervisor, run), beside(run, home) as on_beam:
            at = asyncio.run(_attacked(facility, home, run, supervisor.folder, relay, plan, trial, on_beam))
    finally:
        with contextlib.suppress(ChannelError):
            supervisor.down()
        relay.close()
    return _judge(supervisor.folder, at, promised_ns(facility, room, species, trial), trial)


@contextlib.contextmanager
def stoppable(supervisor: Supervisor, run: RunFile) -> Iterator[None]:
    """Whatever happens, no process stays stopped."""
    try:
        yield
    finally:
        for name, ready in run.processes.items():
            if is_alive(supervisor.folder, name):
                os.kill(int(ready["pid"]), signal.SIGCONT)


async def _attacked(
    facility: Facility, home: Home, run: RunFile, folder: Path, relay: LinkRelay, plan: Path, trial: RealTrial,
    on_beam: Callable[[], None],
) -> TruthNow:  # fmt: skip
    """Where truth stood when the attack had begun."""
    async with operator_at(facility, home, run) as operator:
        await asyncio.sleep(SETTLE_S)
        try:
            await make_ready(facility, home, run, operator)
            await _with_beam(operator, folder, plan, run)
            on_beam()
            await asyncio.sleep(trial.after_s)
            if trial.beam_needed:
                await until_ions(folder)
        except (IonctlError, TimeoutError) as problem:
            what = f"no beam to be taken away: {str(problem) or f'no ion came within {BEAM_WAIT_S:g} s'}"
            raise NoTrialError("trial.no-beam", what, "rig.link_trial_ca") from problem
        undo = attack(run, relay, trial)
        at = read_now(folder)
        began_ns = monotonic_ns()
        await asyncio.sleep(trial.lasts_s)
        undo()
        left_s = trial.watched_s - (monotonic_ns() - began_ns) * 1e-9
        await asyncio.sleep(max(0.0, left_s))
    return at


async def _with_beam(operator: OperatorClient, folder: Path, plan: Path, run: RunFile) -> None:
    await operator.require_link(run.speed)
    await operator.reset()
    await operator.load(str(plan), run.room, False)
    await operator.prepare()
    await operator.start()
    await until_ions(folder)


async def until_ions(folder: Path) -> None:
    """Until ions come, seen in the truth trace."""
    first = read_now(folder).total_ions
    async with asyncio.timeout(BEAM_WAIT_S):
        while read_now(folder).total_ions <= first:  # noqa: ASYNC110 - a mapped file wakes nobody
            await asyncio.sleep(_POLL_S)


def attack(run: RunFile, relay: LinkRelay, trial: RealTrial) -> Callable[[], None]:
    """Do it; returns what ends it."""
    if trial.victim in (Victim.IMAGES, Victim.PERMITS):
        way = relay.images if trial.victim is Victim.IMAGES else relay.permits
        return _attack_way(relay, way, trial)
    pid = int(run.processes[trial.victim.value]["pid"])
    if trial.deed is Deed.KILL:
        os.kill(pid, signal.SIGKILL)
        return lambda: None
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def _attack_way(relay: LinkRelay, way: Way, trial: RealTrial) -> Callable[[], None]:
    def sound() -> None:
        with relay.lock:
            way.cut = False
            way.faults.clear()

    with relay.lock:
        if isinstance(trial.deed, LinkFault):
            way.faults.inject(trial.deed, FOR_EVER, delay_ns=LATE_NS, bit=300)
        else:
            way.cut = True
    return sound


def _judge(folder: Path, at: TruthNow, bound_ns: int, trial: RealTrial) -> RealVerdict:
    ticks = read_ticks(folder)
    t_ns, ions = ticks["t_ns"], ticks["ions"].astype(np.int64)
    at_ns = at.t_ns + round(SLICE_NS * trial.speed)
    before = (t_ns > at.t_ns - 5 * NS_PER_MS) & (t_ns <= at.t_ns)
    hit = np.flatnonzero(ions > 0)
    return RealVerdict(
        at_ns,
        bound_ns,
        int(t_ns[hit[-1]]) if hit.size else 0,
        int(ions[before].sum()),
        int(ions[t_ns > at_ns + bound_ns].sum()),
        (read_now(folder).t_ns - at_ns - bound_ns) / NS_PER_MS,
        trial.speed,
    )
