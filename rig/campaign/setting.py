"""What all runs of a campaign have in common, as plain data that travels to workers; and the bench it makes."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from control.plan.load import load_plan
from control.plan.maker import make_grid_plan
from control.plan.program import compile_program
from facility.config.loader import load_facility
from facility.errors import UsageError
from rig.campaign.draw import Choice
from rig.campaign.mishaps import touched, usable
from rig.scenario.faults import CATALOGUE
from rig.trials.bench import Bench, make_bench

BLOCK = 100
"""Runs that share a trunk: the seeds from a multiple of it to the next."""
LAYERS, SPOTS = 3, 60


@dataclass(frozen=True)
class Setting:
    """A campaign but for its seeds."""

    facility: str = "wuwei"
    config_dir: str | None = None
    plan: str | None = None
    """A plan file; None for a grid of LAYERS x SPOTS."""
    faults: tuple[str, ...] = ()
    """Beginnings of names of causes that may be drawn; empty: all."""


@functools.lru_cache(maxsize=4)
def bench_of(setting: Setting) -> Bench:
    """Facility, rules, causes and program."""
    config_dir = None if setting.config_dir is None else Path(setting.config_dir)
    facility = load_facility(setting.facility, config_dir)
    bench = make_bench(facility, config_dir=config_dir)
    if setting.plan is None:
        plan = make_grid_plan(facility, bench.species, LAYERS, SPOTS)
    else:
        plan = load_plan(Path(setting.plan))
    return dataclasses.replace(bench, program=compile_program(plan, facility, bench.room, qa=True))


def choice_of(setting: Setting) -> Choice:
    """What may be drawn; UsageError for a beginning of no name."""
    bench = bench_of(setting)
    everything = usable(bench)
    for wanted in setting.faults:
        if not any(name.startswith(wanted) for names in everything.values() for name in names):
            raise UsageError("campaign.faults", f"nothing that may go wrong begins with {wanted!r}", "--faults",
                             f"give the beginning of a name: {'/..., '.join(everything)}/...")  # fmt: skip
    beginnings = setting.faults or ("",)
    pool = {kind: tuple(name for name in names if name.startswith(beginnings)) for kind, names in everything.items()}
    return Choice(pool, functools.partial(touched, bench), _value)


def _value(what: str, random: np.random.Generator) -> float | None:
    kind, name = what.split("/", 1)
    return CATALOGUE[name].draw(random) if kind == "fault" and CATALOGUE[name].takes_value else None


def blocks(first_seed: int, runs: int) -> list[tuple[int, ...]]:
    """The seeds of a campaign, in blocks that share a trunk."""
    found: dict[int, list[int]] = {}
    for seed in range(first_seed, first_seed + runs):
        found.setdefault(seed // BLOCK, []).append(seed)
    return [tuple(seeds) for seeds in found.values()]
