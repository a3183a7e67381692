"""Run scenarios on the target that is asked for: each target is a function from scenarios to results."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence

from rig.scenario.loader import Loaded
from rig.scenario.model import Target
from rig.scenario.result import ScenarioResult
from rig.scenario.timed import Clock
from rig.wall_clock import monotonic_s

RunMany = Callable[..., Iterator[ScenarioResult]]
"""(scenarios, jobs, trace=..., clock=...) -> results in the order of the scenarios; a skipped one has its reason."""
RUNNERS: dict[Target, tuple[str, str]] = {
    Target.VIRTUAL: ("rig.scenario.run_virtual", "run_many"),
    Target.CA: ("rig.scenario.run_ca", "run_many"),
    Target.HIL: ("rig.scenario.run_hil", "run_many"),
}
"""Module and function; imported when used."""


def run_on(
    target: Target, loaded: Sequence[Loaded], jobs: int = 1, *, trace: bool = False, clock: Clock = monotonic_s
) -> Iterator[ScenarioResult]:
    """Run all of them on one target.

    Args:
        clock: s; read before and after each scenario, in the process that runs it. A function of a module.
    """
    module, name = RUNNERS[target]
    run_many: RunMany = getattr(importlib.import_module(module), name)
    return run_many(loaded, jobs, trace=trace, clock=clock)
