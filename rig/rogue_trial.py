"""A facility among clients that mean no good: rogue writes while beam is on, subscribers that have stopped reading.

At last the link is cut, with all that still going on: the beam must be off within its bound, and no spot may have had
more than it should.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from control.plan.load import load_plan
from control.plan.program import compile_program
from facility.config import Facility
from facility.errors import ChannelError
from rig.home import Home
from rig.keys import KeyStore
from rig.link_trial_ca import PLAN, Deed, RealTrial, RealVerdict, Victim, run_real_trial
from rig.run_dir import RunFile
from rig.truth_check import FloatArray, PlannedLayer, overdosed, spot_truth
from rig.truth_file import read_now, read_spots

MOST_MM = 1.0
"""A spot lies within 0.3 mm of its place (p99); the hard limit of the position rules is 2 mm."""
_START_S = 60.0
_END_S = 20.0
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RogueTrial:
    """Who is there."""

    seed: int = 1
    seconds: float = 4.0
    """From the first beam to the cut, wall time, if beam is on for so long."""
    pause_s: float = 0.001
    """Between two deeds of a rogue."""
    rogues: tuple[bool, ...] = (False, True)
    """One rogue each; True: it has all keys and signs commands in every role, beside everything else."""
    deaf: int = 1
    """Times that the stopped subscriber has subscribed to everything."""
    speed: float = 2.0


@dataclass
class RogueVerdict:
    """What truth says, and what was done."""

    link: RealVerdict
    overdosed: list[str]
    """Spots that had more than their tolerance allows, in words."""
    misplaced: list[str]
    """Spots that were given elsewhere, in words."""
    unplanned_ions: float
    sent: dict[str, int] = field(default_factory=dict)
    subscriptions: int = 0

    @property
    def problem(self) -> str:
        """Empty if all is well."""
        if self.overdosed:
            return f"{len(self.overdosed)} spots above tolerance: {self.overdosed[0]}"
        if self.misplaced:
            return f"{len(self.misplaced)} spots beside their place: {self.misplaced[0]}"
        if self.unplanned_ions:
            return f"{self.unplanned_ions:.0f} ions that nobody planned"
        if not self.sent.get("writes"):
            return "the rogue has written nothing"
        if self.link.ions_after_bound:
            return self.link.problem
        return ""


def run_rogue_trial(facility: Facility, home: Home, trial: RogueTrial) -> RogueVerdict:
    """Start a facility and its crowd, deliver, cut, judge."""
    sent: dict[str, int] = {}
    subscriptions: list[int] = []

    @contextlib.contextmanager
    def crowd(run: RunFile, where: Home) -> Iterator[Callable[[], None]]:
        with contextlib.ExitStack() as stack:
            if trial.deaf:
                subscriptions.append(stack.enter_context(deaf(facility, run, trial)))
            rogues = [stack.enter_context(rogue(facility, run, where, trial, signed, sent)) for signed in trial.rogues]
            yield lambda: let_loose(rogues)

    cut = RealTrial(
        Deed.CUT, Victim.PERMITS, after_s=trial.seconds, lasts_s=0.3, watched_s=1.0, speed=trial.speed, seed=trial.seed,
        beam_needed=False,  # a rogue may have ended the delivery: signed, or by what it has staged at the front end
    )  # fmt: skip
    link = run_real_trial(facility, home, cut, crowd)
    doses = _doses(facility, home, next(iter(facility.rooms)))
    return RogueVerdict(link, *doses, sent, sum(subscriptions))


def _doses(facility: Facility, home: Home, room: str) -> tuple[list[str], list[str], float]:
    """Spots with too much by truth, spots beside their place, and ions of layers that the plan does not have."""
    folder = home.run_dir(facility.id)
    now, truth = read_spots(folder)
    if now.total_ions != read_now(folder).total_ions:
        raise ChannelError("truth.behind", "the truth per spot was not written to the end", str(folder))
    layers = compile_program(load_plan(home.plans / PLAN), facility, room).layers
    planned = {layer.token for layer in layers}
    unplanned = float(sum(rows[:, 0].sum() for token, rows in truth.items() if token not in planned))
    return overdosed(layers, truth), misplaced(layers, truth), unplanned


def misplaced(layers: Sequence[PlannedLayer], truth: Mapping[int, FloatArray], most_mm: float = MOST_MM) -> list[str]:
    """Spots that had half of their ions or more, and had them beside their place, in words."""
    found = []
    for layer in layers:
        spots = spot_truth(layer, truth.get(layer.token))
        beside = (spots.ions >= 0.5 * layer.target_ions) & ~(spots.position_error_mm <= most_mm)
        found += [f"token {layer.token} spot {k}: {spots.position_error_mm[k]:.2f} mm" for k in np.flatnonzero(beside)]
    return found


def _arguments(facility: Facility, run: RunFile) -> list[str]:
    return [sys.executable, "-m", "rig.rogue", "--servers", " ".join(run.ca_addresses), "--prefix", facility.pv_prefix,
            "--facility", facility.id]  # fmt: skip


def _start(arguments: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A crowd's process, and the number it says when it is ready."""
    child = subprocess.Popen(
        arguments,
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # priorities count within a session
    )
    if child.stdout is None:
        raise ChannelError("rogue.pipe", "no pipe", "rig.rogue")
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        line = child.stdout.readline() if selector.select(_START_S) else ""
    word, _, number = line.partition(" ")
    if word != "READY":
        child.kill()
        child.communicate()
        raise ChannelError("rogue.start", f"said {line!r} instead of READY", "rig.rogue")
    return child, int(number)


def let_loose(rogues: list[subprocess.Popen[str]]) -> None:
    for child in rogues:
        if child.stdin is not None:
            child.stdin.write("go\n")
            child.stdin.flush()


@contextlib.contextmanager
def deaf(facility: Facility, run: RunFile, trial: RogueTrial) -> Iterator[int]:
    """A subscriber to everything that has stopped reading."""
    child, count = _start([*_arguments(facility, run), "--listen", "--times", str(trial.deaf)])
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield count
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def rogue(
    facility: Facility, run: RunFile, home: Home, trial: RogueTrial, signed: bool, sent: dict[str, int]
) -> Iterator[subprocess.Popen[str]]:
    """A rogue that waits to be let loose, and is at work until the block is left."""
    child, _ = _start(
        [*_arguments(facility, run), "--seed", str(trial.seed + 1000 * signed), "--pause-s", str(trial.pause_s),
         "--speed", str(run.speed), "--epoch-ns", str(run.processes["plant"]["epoch_ns"]),
         *(["--keys", str(KeyStore(home).home.keys), "--plan", str(home.plans / PLAN)] if signed else [])]
    )  # fmt: skip
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            out, _ = child.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
        lines = [line for line in out.splitlines() if line.startswith("{")]
        for kind, count in (json.loads(lines[-1]) if lines else {}).items():
            sent[kind] = sent.get(kind, 0) + int(count)
