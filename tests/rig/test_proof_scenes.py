"""Scenes of link, bypass and delivery hold; production code drives them."""

from __future__ import annotations

import pytest

from facility.config import load_facility
from interlocks.rules import load_rules
from rig.proof.bypass_scene import BypassScene
from rig.proof.delivery_scene import DeliveryScene
from rig.proof.explore import Found, explore


def broken(found: Found) -> list[str]:
    return [verdict.name for verdict in found.verdicts if not verdict.holds]


def test_bypasses_end() -> None:
    facility = load_facility("wuwei")
    found = explore(BypassScene(load_rules(facility, next(iter(facility.rooms)), "carbon")))
    assert broken(found) == []
    assert found.states > 10


@pytest.fixture(scope="module")
def delivery() -> Found:
    return explore(DeliveryScene())


def test_no_way_back_to_beam_without_a_person(delivery: Found) -> None:
    assert broken(delivery) == []
    assert delivery.states > 10_000


@pytest.mark.parametrize("name", ["a field is completed", "beam after a PAUSE"])
def test_what_is_proven_is_about_something_that_happens(name: str, delivery: Found) -> None:
    assert next(verdict for verdict in delivery.verdicts if verdict.name == name).run
