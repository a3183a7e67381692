"""One seeded crash after the other: everything dies at random instants, inside recovery too, and is gone on with."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, load_facility
from rig.crashes import Crashes

FACILITY, SPECIES = "wuwei", "carbon"
MOST_DEATHS = 4
IN_BEAM = 0.7
"""Share of deaths that come while something is being delivered; the others come at any time."""


@functools.cache
def _made() -> tuple[Facility, MachineProgram, int, int]:
    """Facility, program, and when an undisturbed delivery begins and ends, ns."""
    facility = load_facility(FACILITY)
    program = compile_program(make_small_plan(facility, SPECIES), facility, next(iter(facility.rooms)), qa=True)
    with tempfile.TemporaryDirectory() as folder:
        summary = Crashes(facility, program, Path(folder)).deliver(1, None).summary
    if summary is None or summary.t_started_ns is None:
        raise RuntimeError("the undisturbed delivery did not end")
    return facility, program, summary.t_started_ns, summary.t_ended_ns


def crash(number: int) -> str | tuple[str, dict[str, float]]:
    """One session with up to MOST_DEATHS deaths; how many there were is kept."""
    facility, program, begun, end = _made()
    rng = np.random.default_rng(number)
    with tempfile.TemporaryDirectory() as folder:
        it = Crashes(facility, program, Path(folder))
        left = it.deliver(1, int(rng.integers(begun, end)))
        deaths = 0
        while left.summary is None:
            deaths += 1
            if not left.session(facility.id):
                delivered = sum(float(ions.sum()) for ions in left.truth.values())
                return f"{delivered:.0f} ions of a session that the journal does not know" if delivered else ""
            first = begun if rng.random() < IN_BEAM else 0
            left = it.resume(left, 1 + deaths, int(rng.integers(first, end)) if deaths < MOST_DEATHS else None)
        wrong = it.objections(left) if left.summary.status == "completed" else [left.summary.reason]
    return "; ".join(wrong), {"deaths of one session": float(deaths)}
