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


def test_no_way_back_to_beam_without_a_person() -> None:
    found = explore(DeliveryScene())
    assert broken(found) == []
    assert found.states > 1000


@pytest.mark.parametrize("name", ["a field is completed", "beam after a PAUSE"])
def test_what_is_proven_is_about_something_that_happens(name: str) -> None:
    found = explore(DeliveryScene(), name)
    assert found.verdicts[0].run
