"""Plans that nobody on this project made, delivered in every room: complete, within the design's tolerances."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.plan.check import examine_plan
from control.plan.load import load_plan
from facility.config import list_facilities, load_facility
from facility.errors import PlanError
from tests.acceptance.deliveries import assert_within_the_design, deliver_file

PIMMS = {
    "DCPT_plan01_sobp_1Gy_Eclipse.dcm": ("1", 3468),
    "DCPT_plan02_mono160_Eclipse.dcm": ("2", 323),
    "DCPT_plan04_ramp_middle_RayStation.dcm": ("3", 15416),
    "DCPT_plan05_sobp3d_RayStation.dcm": ("2", 5929),
    "tst003001.rst": ("3", 5491),
}
"""What the facility for protons delivers in QA mode: a room for each, spots as ../shared/data/README.md counts them."""
NO_PLANS = {".exec", ".gd"}


@pytest.mark.parametrize("name", PIMMS)
def test_complete_and_within_tolerance_by_truth(shared_data: Path, name: str) -> None:
    room, spots = PIMMS[name]
    delivery = deliver_file(shared_data / "plans" / name, load_facility("pimms"), room, qa=True)
    assert_within_the_design(delivery)
    assert delivery.judged.spots == spots


def test_no_other_plan_of_the_folder_can_be_delivered_anywhere(shared_data: Path) -> None:
    """The list above is complete: whatever is not on it is refused by every room of every facility."""
    for path in sorted((shared_data / "plans").iterdir()):
        if path.suffix in NO_PLANS or path.name in PIMMS:
            continue
        try:
            plan = load_plan(path)
        except PlanError:
            continue
        for name in list_facilities():
            facility = load_facility(name)
            for room in facility.rooms:
                check, problems = examine_plan(plan, facility, room, qa=True)
                assert check is None, f"{path.name} can be delivered at {name}, room {room}"
                assert problems
