"""Scenario files: every mistake is refused with file, scenario, key, and what would be right."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from facility.config import load_facility
from facility.errors import ConfigError, InternalError, UsageError
from ioc_sim.faults import FAULT_POINTS
from rig.external.soft_devices import DEED_OF
from rig.scenario.ca_hands import CaHands
from rig.scenario.faults import CATALOGUE, MODES, Family, fault_type, plant_faults
from rig.scenario.loader import load_all, scenarios_from_toml
from rig.scenario.model import Act, Target
from rig.scenario.plans import make

GOOD = """
schema = "ionctl.scenarios/1"

[defaults]
not_on = { ca = "too fast for a console", hil = "no device" }

[[scenario]]
id = "chamber-2-dead"
title = "Chamber 2 dies"
rules = ["chamber-disagreement"]
at = { layer = 0, spot = 12, fraction = 0.5 }
acts = [{ fault = "ic2.gain/dead" }]
then = [{ do = "recover" }]
expect = { first = "chamber-disagreement", also = ["chamber-drift"] }
"""


def test_a_good_file_is_read() -> None:
    (found,) = scenarios_from_toml(GOOD)
    assert (found.id, found.at.spot, found.acts[0].fault) == ("chamber-2-dead", 12, "ic2.gain/dead")
    assert found.why_not(Target.CA) == "too fast for a console"
    assert found.why_not(Target.VIRTUAL) == ""


@pytest.mark.parametrize(
    ("old", "new", "key", "fix"),
    [
        ('"ionctl.scenarios/1"', '"ionctl.scenarios/9"', "key schema", "must be 'ionctl.scenarios/1'"),
        ("spot = 12", "sport = 12", "key at.sport", "did you mean 'spot'"),
        ("fraction = 0.5", "fraction = 1.5", "key at.fraction", "less than or equal to 1"),
        ("fraction = 0.5", "fraction = nan", "key at.fraction", "finite number"),
        ('fault = "ic2.gain/dead"', 'fault = "ic2.gain/ded"', "key acts.0.fault", "did you mean 'ic2.gain/dead'"),
        (
            'fault = "ic2.gain/dead"',
            'fault = "ic2.gain/dead", do = "pause"',
            "key acts.0",
            "exactly one of fault and do",
        ),
        ('fault = "ic2.gain/dead"', 'fault = "ic2.gain/dead", value = 2.0', "key acts.0.value", "take the key out"),
        ('do = "recover"', 'do = "await"', "key then.0.state", "INTERRUPTED"),
        ('rules = ["chamber-disagreement"]', 'rules = ["chamber-disagreements"]', "key rules", "chamber-disagreement"),
        ('rules = ["chamber-disagreement"]', "rules = []", "key rules", "say what it shows"),
        ('ca = "too fast for a console", ', "", "key targets", "with its reason"),
        ("layer = 0, spot = 12", 'phase = "RAMP", spot = 12', "key at", "give one of spot, phase"),
        ('title = "Chamber 2 dies"', 'title = "x"\nfacility = "wuwai"', "key facility", "wuwei"),
        ('title = "Chamber 2 dies"', 'title = "x"\nplan = { make = "f", file = "f.dcm" }', "key plan", "exactly one"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, key: str, fix: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        scenarios_from_toml(GOOD.replace(old, new), "mine.toml")
    said = str(refused.value)
    assert "mine.toml" in said
    assert key in said
    assert fix in said


def test_two_of_one_id_are_refused() -> None:
    again = GOOD + GOOD[GOOD.index("[[scenario]]") :]
    with pytest.raises(ConfigError, match="two scenarios of one id"):
        scenarios_from_toml(again)


def test_an_unknown_id_is_refused_with_what_was_meant() -> None:
    with pytest.raises(UsageError, match="ionctl scenario list"):
        load_all(["no-such-scenario"])


def test_every_device_can_fail_in_every_way_and_the_other_families_are_there() -> None:
    for point in set(FAULT_POINTS) - {"fe.freeze", "h.freeze"}:
        for way in MODES:
            (fault,) = plant_faults(CATALOGUE[f"{point}/{way}"], None, 5)
            assert (fault.device, fault.at_ns) == (point, 5)
            fault.index()  # the plant takes it
    assert {entry.family for entry in CATALOGUE.values()} == set(Family)
    for entry in CATALOGUE.values():
        assert set(entry.targets) == set(Target) or entry.why_not, entry.name
    with pytest.raises(UsageError, match="did you mean 'machine/no-beam'"):
        fault_type("machine/nobeam")


def test_what_can_be_done_to_a_soft_ioc_is_in_the_catalogue() -> None:
    names = {name.removeprefix("external/") for name, entry in CATALOGUE.items() if entry.family is Family.EXTERNAL}
    assert names == set(DEED_OF)
    assert all(CATALOGUE[f"external/{name}"].targets == (Target.HIL,) for name in names)


def test_scenarios_with_hardware_run_over_at_least_200_spots() -> None:
    found = [one.scenario for one in load_all(()) if "hil" in one.scenario.targets]
    assert {scenario.id for scenario in found} >= {"hil-supply-fails-in-turn", "hil-chamber-voltage-fails-in-turn"}
    facility = load_facility("wuwei")
    for scenario in found:
        plan = make(scenario.plan, facility, "carbon")
        assert sum(beam.n_spots for beam in plan.beams) >= 200, scenario.id


def test_a_device_fails_and_is_mended_out_of_the_loop() -> None:
    done: list[tuple[str, bool]] = []

    async def work() -> None:
        nothing: Any = None
        main = threading.get_ident()
        ioc: Any = SimpleNamespace(put=lambda pv, value: done.append((f"{pv} {value}", threading.get_ident() == main)))
        run: Any = SimpleNamespace(speed=1.0)
        scenario: Any = SimpleNamespace(id="here")
        hands = CaHands(nothing, nothing, run, nothing, nothing, scenario, devices={"ic1_hv": ioc})
        await hands.begin(Act(fault="external/ic1_hv/wrong"))
        await hands.mend()
        await hands.mend()
        with pytest.raises(InternalError, match="scan_x is no soft IOC of this run"):
            await hands.begin(Act(fault="external/scan_x/killed"))

    asyncio.run(work())
    assert done == [("Bias-SP -225", False), ("Bias-SP 0", False)]
