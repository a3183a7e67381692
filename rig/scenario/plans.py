"""The plan of a scenario, made for its facility or read from a file, and compiled; made once where it is the same."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from control.plan.load import load_plan
from control.plan.maker import make_even_plan, make_f_plan, make_grid_plan, make_small_plan, make_trial_plan
from control.plan.model import Plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from rig.scenario.model import PlanSource

__all__ = ["compiled", "make"]
_KEPT = 64


def make(source: PlanSource, facility: Facility, species: str, folder: Path | None = None) -> Plan:
    """The plan; PlanError if it cannot be made or read."""
    if source.file is not None:
        return load_plan(Path(source.file) if folder is None else folder / source.file)
    match source.make:
        case "small":
            return make_small_plan(facility, species)
        case "f":
            return make_f_plan(facility, species)
        case "grid":
            return make_grid_plan(facility, species, source.layers, source.spots)
        case "even":
            return make_even_plan(facility, species, math.ceil(math.sqrt(source.spots)))
        case _:
            return make_trial_plan(facility, species)


def compiled(
    source: PlanSource, facility: Facility, room: str, species: str, *, qa: bool, folder: Path | None = None
) -> MachineProgram:
    """The machine program."""
    return _compiled(source, _Named(facility), room, species, qa, folder)


class _Named:
    """A facility by its hash: the same configuration is the same key."""

    def __init__(self, facility: Facility) -> None:
        self.facility = facility

    def __hash__(self) -> int:
        return hash(self.facility.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and other.facility.hash == self.facility.hash


@functools.lru_cache(maxsize=_KEPT)
def _compiled(
    source: PlanSource, named: _Named, room: str, species: str, qa: bool, folder: Path | None
) -> MachineProgram:
    return compile_program(make(source, named.facility, species, folder), named.facility, room, qa=qa)


def stops(program: MachineProgram, layer: int, facility: Facility) -> np.ndarray:
    """For each spot of a layer whether the beam is stopped after it, bool, shape (n,)."""
    found = program.layers[layer]
    far = np.hypot(np.diff(found.x_mm), np.diff(found.y_mm)) > facility.front_end.beam_off_move_mm
    return np.append(far, True)
