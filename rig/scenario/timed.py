"""How long a scenario took on the wall, by a clock that whoever starts the scenarios brings along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rig.scenario.result import ScenarioResult

Clock = Callable[[], float]
"""Some s that never go back."""


def timed(clock: Clock, run: Callable[..., ScenarioResult], *what: object, **more: object) -> ScenarioResult:
    """Run one and write its time, s, into its result."""
    begin_s = clock()
    result = run(*what, **more)
    return replace(result, wall_s=clock() - begin_s)
