"""One real kill -9 after the other over Channel Access: of control, safety, plant, console, or all of them at once."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import numpy as np

from facility.config import load_facility
from rig.home import Home
from rig.kills import Death, KilledFacility
from rig.virtual_deaths import Victim

IN_BEAM = 0.7
"""Share of kills that come at a random share of what is still to be given; the others come at any time."""
AGAIN = 0.35
"""How likely the next console is killed, too."""
MOST_DEATHS = 4
SEED = 1
TRIES = 5
LONGEST_S = 7.0
"""About what a console needs for the small plan, wall time."""


@functools.cache
def _site() -> KilledFacility:
    """Up until something of it is killed; down at the end of the process."""
    home = tempfile.TemporaryDirectory(prefix="ionctl-kills-")
    atexit.register(home.cleanup)
    site = KilledFacility(load_facility("wuwei"), Home(Path(home.name)), SEED)
    atexit.register(site.close)
    return site


def deaths(number: int, attempt: int = 0) -> list[Death]:
    """Those of this case; drawn anew where a console had ended before the first of them came."""
    rng = np.random.default_rng([20_000 + number, attempt])
    found: list[Death] = []
    while not found or (len(found) < MOST_DEATHS and rng.random() < AGAIN):
        victim = list(Victim)[int(rng.integers(len(Victim)))]
        if rng.random() < IN_BEAM:
            found.append(Death(victim, float(rng.uniform(0.0, 0.98)), float(rng.uniform(0.0, 0.03))))
        else:
            found.append(Death(victim, None, float(rng.uniform(0.5, LONGEST_S))))
    return found


def kill(number: int) -> tuple[str, dict[str, float]]:
    """One session with a kill, or several."""
    for attempt in range(TRIES):
        planned = deaths(number, attempt)
        verdict = _site().run(planned)
        if verdict.kills or verdict.problem:
            break
    figures = {"kills of one session": float(len(verdict.kills)), "resumes of one session": float(verdict.resumes)}
    problem = verdict.problem or ("" if verdict.kills else "nobody was killed")
    return (f"{planned}: {verdict}" if problem else ""), figures
