"""Layers that need more ions than the ring holds: the next cycle goes on at the remainder, with nobody's help."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from control.plan.maker import make_f_plan
from control.plan.model import Plan, make_layer
from control.plan.program import compile_program
from facility.config import Facility, load_facility
from facility.energy_table import load_energy_table
from tests.acceptance.deliveries import assert_within_the_design, deliver

FILLS = 2.3
"""What the layer needs, in fills that reach the room."""
ACROSS, STEP_MM = 27, 3.0
"""Spots of a few milliseconds: the shorter a spot is, the less of its time may pass while the ring runs dry."""


def one_layer(facility: Facility, species: str, ions: float) -> Plan:
    """A square field of one energy, unequal weights, in serpentine order."""
    axis = (np.arange(ACROSS) - ACROSS // 2) * STEP_MM
    x, y = np.meshgrid(axis, axis)
    x[1::2] = x[1::2, ::-1]
    weight = np.random.default_rng(4).uniform(0.7, 1.3, x.size)
    table = load_energy_table(facility, species)
    layer = make_layer(
        "1", 1, 0, energy_mev_u=float(table.energy_mev_u[len(table) // 2]), x_mm=x.ravel(), y_mm=y.ravel(),
        weight=weight * (ions / weight.sum()),
    )  # fmt: skip
    assert layer is not None
    other = make_f_plan(facility, species)
    return dataclasses.replace(other, beams=(dataclasses.replace(other.beams[0], layers=(layer,), meterset=ions),))


@pytest.mark.parametrize(
    ("name", "species"),
    [("wuwei", "carbon"), ("lanzhou", "carbon"), ("pimms", "carbon"), ("pimms", "proton"), ("himm-mee", "carbon")],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_goes_on_in_the_next_cycle_within_tolerance(name: str, species: str, seed: int) -> None:
    facility = load_facility(name)
    ion = facility.species_named(species)
    plan = one_layer(facility, species, FILLS * ion.fill_ions * ion.transmission)
    program = compile_program(plan, facility, next(iter(facility.rooms)), qa=True)
    delivery = deliver(program, facility, seed)
    held = [event for event in delivery.world.events.events if event.kind == "held"]
    assert sum(event.data["reason"] == "RING_EMPTY" for event in held) == int(FILLS)
    assert_within_the_design(delivery)
