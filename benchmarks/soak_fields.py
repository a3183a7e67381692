"""Fields without a fault in virtual time: no interlock may trip, whatever a machine within its limits does.

Each case draws, from its number alone: a field (small, of the lightest spots there may be, or one of 60 mm, one in
twenty), a spill (as the file has it, or the worst permitted: more noise, down to a duty factor of 0.7 at 10 kHz, the
limit that the windows of the rules have to survive), and gains of both chambers within +-0.5 %, so that they differ by
up to 1 %. All rules are in force, with the figures of the packaged files.

And all trials of the interlocks, with other instants each time: one case is one seed.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from control.plan.maker import make_plan, make_small_plan
from control.plan.model import Plan
from control.plan.program import compile_program
from facility.config import Facility, change_facility, load_facility
from interlocks.snapshot import Mode
from rig.deliver_virtual import deliver_in
from rig.trials.bench import make_bench
from rig.trials.result import TrialResult
from rig.trials.stages import choose, run_trials
from rig.virtual_world import World, WorldOptions

NAME, SPECIES = "wuwei", "carbon"
LOWEST_DUTY = 0.7
GAIN_SPREAD = 0.005
FULL_EVERY = 20


@functools.cache
def _worst_noise() -> float:
    """The noise that takes the duty factor down to the lowest one permitted, lines and all."""
    low, high = 0.0, 0.8
    spill = load_facility(NAME).extraction
    for _ in range(40):
        middle = 0.5 * (low + high)
        duty = spill.model_copy(update={"duty_noise_rms": middle}).expected_duty_factor()
        low, high = (middle, high) if duty > LOWEST_DUTY else (low, middle)
    return low


@functools.cache
def _plan(kind: str) -> Plan:
    facility = load_facility(NAME)
    if kind == "full":
        return make_plan("sphere", 60.0, 150.0, 2.0, SPECIES, facility)
    small = make_small_plan(facility, SPECIES)
    return _lightest(small, facility) if kind == "light" else small


def _lightest(plan: Plan, facility: Facility) -> Plan:
    """The plan with the weights of each layer brought down until its lightest spot is the lightest there may be."""
    (beam,) = plan.beams
    front_end = facility.front_end
    lowest = min(facility.species_named(SPECIES).intensity_levels_ions_per_s)
    layers = []
    for layer in beam.layers:
        count = facility.ions_per_count(SPECIES, layer.energy_mev_u)
        floor = 1.1 * max(front_end.min_spot_counts * count, front_end.min_spot_ticks * 1e-5 * lowest)
        weight = np.rint(layer.weight * floor / layer.weight.min())
        weight.setflags(write=False)
        layers.append(dataclasses.replace(layer, weight=weight))
    meterset = float(sum(layer.weight.sum() * layer.paintings for layer in layers))
    light = dataclasses.replace(beam, layers=tuple(layers), meterset=meterset)
    return dataclasses.replace(plan, beams=(light,))


def field(number: int) -> tuple[str, dict[str, float]]:
    """One field: it must be delivered whole, without any rule of any tier latched or present with an action."""
    random = np.random.default_rng([1203, number])
    kind = "full" if number % FULL_EVERY == FULL_EVERY - 1 else ("small", "light")[number % 2]
    ripple = "worst" if number // 2 % 2 else "nominal"
    gains = 1.0 + random.uniform(-GAIN_SPREAD, GAIN_SPREAD, 2)
    changes = {"chambers.ic1.gain_true": float(gains[0]), "chambers.ic2.gain_true": float(gains[1])}
    if ripple == "worst":
        spill, worst = load_facility(NAME).extraction, _worst_noise()
        converter = spill.duty_noise_rms**2 - spill.exciter_noise_rms**2  # what is left for it at most
        changes |= {"extraction.duty_noise_rms": worst,
                    "extraction.exciter_noise_rms": math.sqrt(worst**2 - converter)}  # fmt: skip
    facility = change_facility(load_facility(NAME), changes)
    program = compile_program(_plan(kind), facility, next(iter(facility.rooms)), qa=True)
    options = WorldOptions(mode=Mode.QA, load_program=lambda *_: program)
    world = World(facility, program.room_id, SPECIES, number + 1, options)
    _, summary = deliver_in(world, program)
    trips = [str(event.data["words"]) for event in world.events.events if event.kind == "interlock.trip"]
    about = f"{kind}, {ripple} ripple, gains {gains[0]:.4f} and {gains[1]:.4f}"
    if trips or summary.status != "completed":
        return f"{about}: {summary.status} {summary.reason}; {'; '.join(trips)}", {}
    return "", {"gain difference, %": 100.0 * abs(float(gains[0] - gains[1]))}


def trials(number: int) -> tuple[str, dict[str, float]]:
    """All trials of the interlocks with one seed, with one more device failed in each that has beam."""
    found: list[TrialResult] = []
    bench = make_bench(load_facility(NAME), seed=number + 1)
    run_trials(bench, choose(bench, near=True), found.append)
    failed = [f"{result.name}: {'; '.join(result.failures)}" for result in found if not result.passed]
    whole = [r for r in found if not r.variant and r.reacted_us is not None and r.bound_us > 0.0]
    used = max(((r.reacted_us or 0.0) / r.bound_us for r in whole), default=0.0)
    return "; ".join(failed), {"share of a bound that was used, %": 100.0 * used}
