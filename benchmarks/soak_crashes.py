"""One seeded crash after the other in virtual time: one process dies, or all do, inside recovery and commits too.

Dead is control, the safety controller, the plant, the console, or everything; at a random instant, or in one of the
journal's commits. Where one dies alone the others live on for a while, and are stopped or die as well.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, load_facility
from facility.errors import IonctlError
from rig.crashes import Crash, Crashes
from rig.virtual_deaths import Victim

FACILITY, SPECIES = "wuwei", "carbon"
MOST_DEATHS = 4
IN_BEAM = 0.7
"""Share of deaths that are drawn from when a layer has beam; the others come at any time. A layer of the small plan
has it for some 50 ms in each second."""
IN_COMMIT = 0.25
"""Share of deaths of control, or of all, that come in a commit of the journal."""
COMMITS = 5
"""About as many as a life has."""
LONGEST_S = 4.0
"""For which the others live on: all watchdogs have run out by then."""


@functools.cache
def _made() -> tuple[Facility, MachineProgram, list[tuple[int, int]], int]:
    """Facility, program, when each layer of an undisturbed delivery has beam, and when it ends, ns."""
    facility = load_facility(FACILITY)
    program = compile_program(make_small_plan(facility, SPECIES), facility, next(iter(facility.rooms)), qa=True)
    with tempfile.TemporaryDirectory() as folder:
        summary = Crashes(facility, program, Path(folder)).deliver(1, None).summary
    if summary is None or summary.t_started_ns is None:
        raise RuntimeError("the undisturbed delivery did not end")
    beam = [(layer.t_first_beam_ns or 0, layer.t_done_ns) for layer in summary.layers]
    return facility, program, beam, summary.t_ended_ns


def drawn(rng: np.random.Generator, beam: list[tuple[int, int]], end: int) -> Crash:
    """A crash while one of these layers has beam, or between the beginning of everything and the end; ns."""
    victim = list(Victim)[int(rng.integers(len(Victim)))]
    lives_on_s, orderly = float(rng.uniform(0.0, LONGEST_S)), bool(rng.random() < 0.5)
    within = beam[int(rng.integers(len(beam)))] if rng.random() < IN_BEAM else (0, end)
    at_ns = int(rng.integers(*within))
    commit, written = int(rng.integers(COMMITS)), bool(rng.random() < 0.5)
    if victim not in (Victim.CONTROL, Victim.ALL) or rng.random() >= IN_COMMIT:
        return Crash(at_ns, victim, lives_on_s=lives_on_s, orderly=orderly)
    return Crash(0, victim, commit, written, lives_on_s, orderly)


def crash(number: int) -> str | tuple[str, dict[str, float]]:
    """See `_crash`; an error of the facility's own is an objection like any other."""
    try:
        return _crash(number)
    except IonctlError as problem:
        return str(problem)


def _crash(number: int) -> str | tuple[str, dict[str, float]]:
    """One session with up to MOST_DEATHS deaths; how many there were, and of whom, is kept."""
    facility, program, beam, end = _made()
    rng = np.random.default_rng(number)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        it = Crashes(facility, program, Path(folder))
        planned = drawn(rng, beam, end)
        left = it.deliver(1, planned)
        life, met = 1, [planned] if left.crashed else []
        while not left.completed:
            if not left.session(facility.id):
                delivered = sum(float(ions.sum()) for ions in left.truth.values())
                return f"{delivered:.0f} ions of a session that the journal does not know" if delivered else ""
            if life > MOST_DEATHS:
                return f"not completed after {life} lives: {met}"
            life += 1
            planned = drawn(rng, beam[:1], end)  # the first layer that it goes on with comes when the first one did
            left = it.resume(left, life, planned if life <= MOST_DEATHS else None)
            met += [planned] if left.crashed else []
        wrong = it.objections(left)
    figures["deaths of one session"] = float(len(met))
    return (f"{'; '.join(wrong)}: {met}" if wrong else ""), figures
