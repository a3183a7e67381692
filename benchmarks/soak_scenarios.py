"""The scenarios of the project in virtual time, again and again: one case runs all of them."""

from __future__ import annotations

import functools
import hashlib
import os

from rig.scenario.loader import load_all
from rig.scenario.model import Target
from rig.scenario.run_virtual import run_many

JOBS = max(1, len(os.sched_getaffinity(0)))


@functools.cache
def _first() -> dict[str, str]:
    """What each scenario gave the first time: verdict, failures and the digest of its event log."""
    return _all()


def _all() -> dict[str, str]:
    chosen = [one for one in load_all() if not one.scenario.why_not(Target.VIRTUAL)]
    found = {}
    for result in run_many(chosen, JOBS):
        told = repr((result.verdict, result.failures, result.digest, result.final))
        found[result.id] = f"{result.verdict} {hashlib.sha256(told.encode()).hexdigest()}"
    return found


def scenarios(number: int) -> str:
    """All pass, and each run is the first one, byte for byte."""
    first = _first()
    found = first if number == 0 else _all()
    failed = [name for name, said in found.items() if not said.startswith("passed")]
    if failed:
        return f"failed: {', '.join(failed)}"
    other = [name for name, said in found.items() if first[name] != said]
    return f"another run than the first: {', '.join(other)}" if other else ""
