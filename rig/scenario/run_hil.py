"""Run scenarios with hardware in the loop: the processes of `rig.scenario.run_ca`, with devices that others serve.

A facility file that gives devices to external IOCs is taken as it is; they have to be up. Any other one is given two C
soft IOCs for the time of the scenario, one as scanning supply x, one as high voltage of chamber 1, and only these can
be made to fail.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from facility.config import Facility
from facility.errors import IonctlError
from interlocks.rules import load_rules
from rig.external.soft_devices import SoftIoc, soft_iocs, with_devices
from rig.home import Home
from rig.scenario import run_ca
from rig.scenario.loader import Loaded
from rig.scenario.model import Scenario, Target
from rig.scenario.plans import compiled
from rig.scenario.result import ScenarioResult
from rig.scenario.stage import Stage
from rig.scenario.timed import Clock
from rig.wall_clock import monotonic_s

MODE = "per_spot"


def run_many(
    loaded: Sequence[Loaded], jobs: int = 1, *, trace: bool = False, clock: Clock = monotonic_s
) -> Iterator[ScenarioResult]:
    """One after the other: a field with hardware takes its minutes. `jobs` is of no account here."""
    return run_ca.run_many(loaded, jobs, trace=trace, target=Target.HIL, run=run_one, clock=clock)


def run_one(loaded: Loaded, trace: bool = False, target: Target = Target.HIL) -> ScenarioResult:
    """Run one scenario; what could not be carried out has failed."""
    try:
        with contextlib.ExitStack() as stack:
            stage, iocs = Stage.of(loaded.scenario, loaded.folder, loaded.config_dir), dict[str, SoftIoc]()
            if not stage.facility.external:
                iocs = stack.enter_context(soft_iocs())
                stage = _moved(stage, with_devices(stage.facility, iocs, MODE), loaded)
            root = stack.enter_context(tempfile.TemporaryDirectory(prefix="ionctl-scenario-"))
            return run_ca.CaRun(loaded, stage, Home(Path(root)), target, iocs).run(trace=trace)
    except (IonctlError, TimeoutError) as problem:
        return run_ca.not_carried_out(loaded, target, problem)


def _moved(stage: Stage, facility: Facility, loaded: Loaded) -> Stage:
    """The same stage at another facility."""
    scenario: Scenario = loaded.scenario
    rules = load_rules(facility, stage.room, stage.species, loaded.config_dir)
    program = compiled(
        scenario.plan, facility, stage.room, stage.species, qa=scenario.mode != "clinical", folder=loaded.folder
    )
    return replace(stage, facility=facility, rules=rules, program=program)
