"""The file that says how each rule is tried: complete, typed, and refused with rule and key where it is wrong."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from facility.config import list_facilities, load_facility
from facility.errors import ConfigError
from interlocks.rules import load_rules
from rig.trials.causes import TrialState, has_number, load_trials, trials_from_toml, tried_near, why_not_near

ROOT = Path(__file__).resolve().parents[2]
TEXT = resources.files("configs").joinpath("interlock_trials.toml").read_text(encoding="utf-8")


def rules(name: str = "wuwei", species: str = "carbon"):
    facility = load_facility(name)
    return load_rules(facility, next(iter(facility.rooms)), species)


@pytest.mark.parametrize("name", list_facilities())
def test_every_rule_is_tried_and_every_trial_has_a_rule(name: str) -> None:
    for species in load_facility(name).species:
        known = rules(name, species)
        trials = load_trials(known)
        assert list(trials) == [rule.id for rule in known.rules]
        assert all(trial.applies_in for trial in trials.values())


def test_any_is_all_states_in_the_order_of_a_delivery() -> None:
    assert load_trials(rules())["door"].applies_in == tuple(TrialState)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('schema = "ionctl.trials/1"', 'schema = "ionctl.trials/2"', "key schema"),
        ('rule = "door"', 'rule = "doors"', "rule doors, key rule"),
        ('rule = "door"', 'rule = "gate"', "rule gate, key rule"),
        ('point = "door.a"', 'point = "door.c"', "rule door, key faults.0.point"),
        ('point = "door.a", kind = "SET"', 'point = "door.a", kind = "OPEN"', "rule door, key faults.0.kind"),
        ('point = "door.a", kind', 'point = "door.a", colour = 1, kind', "rule door, key faults.0.colour"),
        ('also = ["scan-field-x"]', 'also = ["scan-field-z"]', "rule scan-readback-x, key also"),
        ('act = "plant-late"', "", "rule plant-late, key faults"),
        ('act = "plant-late"', 'act = "plant-early"', "rule plant-late, key act"),
        ('point = "ic1.hv", kind = "SCALE", zero', 'point = "ic9.hv", kind = "SCALE", zero', "key near.point"),
        ('near_end = { point = "ic2.gain"', 'near_end = { point = "ic9.gain"', "key near_end.point"),
        ('near_spot = { point = "strip.x" }', 'near_spot = { point = "strip.z" }', "key near_spot.point"),
        ('signal = "scan_x.err_mm"', 'signal = "scan_z.err_mm"', "key near_spot.quiet.0.signal"),
        ('near_dose = { point = "ic2.counts"', 'near_dose = { point = "ic9.counts"', "key near_dose.point"),
        ('rule = "door"\n', 'rule = "door"\nnear_dose = { point = "ic2.counts" }\n', "key near_dose"),
        ('rule = "door"\n', 'rule = "door"\nnear_spot = { point = "strip.x" }\n', "key near_spot"),
        ('rule = "door"\n', 'rule = "door"\nnear_act = true\n', "key near_act"),
        ('rule = "door"\n', 'rule = "door"\nnot_near = "a door"\n', "key not_near"),
        ('rule = "position-x"\n', 'rule = "position-x"\nnot_near = "tired"\n', "key not_near"),
        ('near_bypassed = ["chamber-drift"]', 'near_bypassed = ["position-x"]', "key near_bypassed"),
        ('rule = "door"\n', 'rule = "door"\nnear_end = { point = "ic2.gain", moves = "first" }\n', "key near_end"),
        ('[[trial]]\nrule = "door"', '[[trial]]\ncolour = 1\nrule = "door"', "rule door, key colour"),
    ],
)
def test_a_wrong_file_is_refused_with_rule_and_key(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as refused:
        trials_from_toml(TEXT.replace(old, new, 1), rules())
    assert said in str(refused.value)


def test_a_rule_without_a_trial_is_named() -> None:
    begin = TEXT.index('[[trial]]\nrule = "plant-late"')
    with pytest.raises(ConfigError, match="plant-late"):
        trials_from_toml(TEXT[:begin], rules())


def test_what_is_not_tried_near_its_limit_is_listed_with_a_reason() -> None:
    page = (ROOT / "docs/how-to/interlock-regression.md").read_text(encoding="utf-8")
    trials = load_trials(rules())
    numbers = [rule for rule in rules().rules if has_number(rule)]
    near = [rule.id for rule in numbers if tried_near(rule, trials[rule.id])]
    assert f"tries {len(near)} of the {len(numbers)} rules" in page
    table = page[page.index("| Rules | Why not") : page.index("## What a trial asks")]
    listed = {
        name: line.split("|")[2].strip()
        for line in table.splitlines()
        if line.startswith("|")
        for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
    }
    reasons = {rule.id: trials[rule.id].not_near for rule in numbers if rule.id not in near}
    assert listed == reasons
    assert {rule.id: why_not_near(rule, trials[rule.id]) for rule in numbers if rule.id not in near} == reasons


def test_why_nothing_near_is_tried_is_said_without_a_reason_in_the_file() -> None:
    trials = load_trials(rules())
    said = {rule.id: why_not_near(rule, trials[rule.id]) for rule in rules().rules}
    assert (said["position-x"], said["door"]) == ("", "its limit is no number")
    silent = trials["spot-timeout"].model_copy(update={"not_near": ""})
    assert "no reason in not_near" in why_not_near(rules().rule("spot-timeout"), silent)
    elsewhere = trials["position-x"].model_copy(update={"states": ("ring",)})
    assert "does not apply in state spot" in why_not_near(rules().rule("position-x"), elsewhere)


def test_a_cause_that_names_a_room_is_one_in_every_room() -> None:
    """Set to a room's own index it would be no cause there."""
    trials = load_trials(rules())
    for rule_id in ("room-token", "beam-route"):
        assert [fault.kind for fault in trials[rule_id].faults] == ["OFFSET"]
