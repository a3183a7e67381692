"""Real processes, kill -9, and what an operator does afterwards, over Channel Access; many more in the long counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.soak_kills import deaths
from facility.config import load_facility
from ioc_sim.layout import TRUTH_DTYPE
from rig.dead_truth import booked, summed
from rig.home import Home
from rig.kills import Death, KilledFacility
from rig.virtual_deaths import Victim


@pytest.fixture
def site(tmp_path: Path) -> Iterator[KilledFacility]:
    found = KilledFacility(load_facility("wuwei"), Home(tmp_path / "home"), 1)
    yield found
    found.close()


@pytest.mark.ca
@pytest.mark.slow
def test_a_plant_then_a_console_are_killed_and_the_session_is_finished_to_the_spot(site: KilledFacility) -> None:
    verdict = site.run([Death(Victim.PLANT, 0.4, 0.0), Death(Victim.CONSOLE, 0.3, 0.0)])
    assert verdict.problem == ""
    assert [one.split()[0] for one in verdict.kills] == ["plant", "console"]
    assert verdict.resumes >= 2


def test_ticks_that_came_after_the_last_table_are_booked_to_the_spot_that_was_set() -> None:
    ticks = np.zeros(4, TRUTH_DTYPE)
    ticks["t_ns"] = [10, 20, 30, 40]
    ticks["token"], ticks["spot"] = 7, [0, 0, 1, 1]
    ticks["ions"], ticks["ions_previous_spot"] = [5, 6, 9, 2], [0, 0, 4, 0]
    found = booked({7: np.array([100.0])}, ticks, 10)  # the first tick is in the table
    assert found[7].tolist() == [110.0, 7.0]
    assert booked({}, ticks, -1)[7].tolist() == [15.0, 7.0]
    assert summed(found, {7: np.array([10.0])}, -1.0)[7].tolist() == [100.0, 7.0]


def test_every_victim_comes_and_some_are_killed_again() -> None:
    drawn = [deaths(number) for number in range(100)]
    assert {death.victim for one in drawn for death in one} == set(Victim)
    assert sum(len(one) > 1 for one in drawn) > 20
