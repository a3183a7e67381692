"""What every trial of a run has in common: the facility, its rules, how they are tried, the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from control.plan.maker import make_trial_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from interlocks.model import Rule
from interlocks.rules import RuleSet, load_rules
from interlocks.snapshot import Mode
from rig.trials.causes import Trial, TrialState, load_trials
from rig.trials.truth import peak_mgy_per_ion
from rig.virtual_world import World, WorldOptions

TRACE_RECORDS = 1 << 19
"""5.2 s of ticks with beam: the longest trial waits 2 s for a console that is silent."""


@dataclass(frozen=True)
class Bench:
    """One facility, set up for trials."""

    facility: Facility
    room: str
    species: str
    seed: int
    rules: RuleSet
    trials: Mapping[str, Trial]
    program: MachineProgram
    peak_mgy_per_ion: float
    """Of the first layer, in which trials happen. Made here once: every trial is judged in a copy of the process."""

    def world(self, *, exchange_always: bool = False) -> World:
        """A facility that has just been switched on."""
        options = WorldOptions(
            mode=Mode.QA,
            allow_faults=True,
            exchange_always=exchange_always,
            load_program=lambda *_: self.program,
            trace_records=TRACE_RECORDS,
        )
        return World(self.facility, self.room, self.species, self.seed, options, self.rules)

    def draw(self, *what: str) -> np.random.Generator:
        """Random numbers of one trial: a function of the seed and its name, not of what ran before."""
        name = "/".join(what).encode()
        return np.random.default_rng([self.seed, *name])

    def stop_spots(self) -> np.ndarray:
        """For each spot of the first layer whether the beam is stopped after it, bool, shape (n,)."""
        layer = self.program.layers[0]
        far = np.hypot(np.diff(layer.x_mm), np.diff(layer.y_mm)) > self.facility.beam_off_move_mm
        return np.append(far, True)

    def of(self, state: TrialState) -> list[tuple[Rule, Trial]]:
        """Rules that apply in a state, in the order of the file."""
        pairs = ((self.rules.rule(rule_id), trial) for rule_id, trial in self.trials.items())
        return [(rule, trial) for rule, trial in pairs if state in trial.applies_in]


def make_bench(
    facility: Facility,
    room: str | None = None,
    species: str | None = None,
    seed: int = 1,
    config_dir: Path | None = None,
) -> Bench:
    """Set a facility up; its first room and species unless others are named."""
    room = room or next(iter(facility.rooms))
    species = species or next(iter(facility.species))
    rules = load_rules(facility, room, species, config_dir)
    program = compile_program(make_trial_plan(facility, species), facility, room, qa=True)
    per_ion = peak_mgy_per_ion(facility, room, species, program.layers[0].energy_mev_u)
    return Bench(facility, room, species, seed, rules, load_trials(rules, config_dir), program, per_ion)
