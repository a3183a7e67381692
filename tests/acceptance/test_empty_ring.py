"""Layers that need more ions than the ring holds: the next cycle goes on at the remainder, with nobody's help."""

from __future__ import annotations

import dataclasses

import pytest

from control.plan.maker import make_small_plan
from control.plan.model import Plan
from control.plan.program import compile_program
from facility.config import load_facility
from tests.acceptance.deliveries import assert_within_the_design, deliver

FILLS = 2.3
"""What the heaviest layer needs, in fills that reach the room."""


def heavier(plan: Plan, heaviest_layer: float) -> Plan:
    """The same plan with all weights scaled."""
    beam = plan.beams[0]
    factor = heaviest_layer / max(float(layer.weight.sum()) for layer in beam.layers)
    layers = tuple(dataclasses.replace(layer, weight=layer.weight * factor) for layer in beam.layers)
    return dataclasses.replace(plan, beams=(dataclasses.replace(beam, layers=layers, meterset=beam.meterset * factor),))


@pytest.mark.parametrize(
    ("name", "species"),
    [("wuwei", "carbon"), ("lanzhou", "carbon"), ("pimms", "carbon"), ("pimms", "proton"), ("himm-mee", "carbon")],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_goes_on_in_the_next_cycle_within_tolerance(name: str, species: str, seed: int) -> None:
    facility = load_facility(name)
    ion = facility.species_named(species)
    plan = heavier(make_small_plan(facility, species), FILLS * ion.fill_ions * ion.transmission)
    program = compile_program(plan, facility, next(iter(facility.rooms)), qa=True)
    delivery = deliver(program, facility, seed)
    held = [event for event in delivery.world.events.events if event.kind == "held"]
    assert sum(event.data["reason"] == "RING_EMPTY" for event in held) >= 2
    assert_within_the_design(delivery)
