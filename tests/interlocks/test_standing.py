"""Which rules act, which withhold the permit, which stand against a reset, one view at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from channels.command import Command
from facility.pv_catalogue import PvEntry
from interlocks import pvs, standing
from interlocks.answers import WORDS_MAX, refused
from interlocks.model import Rule
from interlocks.snapshot import RuleView
from tests.interlocks.support import body, one_rule

INHIBIT: Mapping[str, object] = {"action": "INHIBIT", "reset": "none"}
HOLD: Mapping[str, object] = {"action": "HOLD", "reset": "none"}
PAUSE: Mapping[str, object] = {"action": "PAUSE", "reset": "operator"}
ECHO: Mapping[str, object] = {"inputs": ["p.permit"], "kind": "digital", "equals": 1.0, "unit": "bool",
                              "low": None, "high": None}  # fmt: skip


def rule(**changes: object) -> Rule:
    return one_rule(body(**changes)).rules[0]


def command(role: str = "physicist") -> Command:
    return Command("C-1", "somebody", role, 0, 1, "reset", {})


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("latched", [False, True])
@pytest.mark.parametrize("bypassed", [False, True])
def test_a_rule_acts_while_present_or_latched_unless_bypassed(present: bool, latched: bool, bypassed: bool) -> None:
    view = RuleView(rule(), present, latched, bypassed=bypassed)
    assert standing.acts(view) == ((present or latched) and not bypassed)


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("latched", [False, True])
def test_the_racks_echo_of_the_permit_acts_only_if_it_latched(present: bool, latched: bool) -> None:
    assert standing.acts(RuleView(rule(**ECHO), present, latched)) == latched


def test_only_what_the_rack_says_of_the_permit_is_an_echo() -> None:
    seen_by_p = rule(inputs=["h.permit"], kind="digital", equals=1.0, unit="bool", low=None, high=None, tier="P")
    assert standing.acts(RuleView(seen_by_p, True))
    for tier in ("P", "T"):  # no file can say so, but the tier alone decides
        assert standing.acts(RuleView(rule(**ECHO).model_copy(update={"tier": tier}), True))
    second = rule().model_copy(update={"inputs": ("ring.ions", "p.permit")})
    assert standing.acts(RuleView(second, True))
    first = rule().model_copy(update={"inputs": ("p.permit", "ring.ions")})
    assert not standing.acts(RuleView(first, True))


@pytest.mark.parametrize(("keys", "withholds"), [(INHIBIT, True), (HOLD, False), (PAUSE, False), ({}, False)])
def test_only_an_inhibit_that_is_present_and_not_bypassed_withholds(
    keys: Mapping[str, object], withholds: bool
) -> None:
    it = rule(**keys)
    assert standing.inhibits(RuleView(it, True)) == withholds
    assert not standing.inhibits(RuleView(it, False))
    assert not standing.inhibits(RuleView(it, True, bypassed=True))


def test_words_name_what_withholds_and_what_to_do() -> None:
    views = [RuleView(rule(**INHIBIT, remedy="close the valve"), True), RuleView(rule(**HOLD), True)]
    assert standing.words_of_inhibits(views) == "the permit stays away: Some rule: present; close the valve"
    assert standing.words_of_inhibits([RuleView(rule(**INHIBIT), True)]) == "the permit stays away: Some rule: present"
    many = [RuleView(rule(**INHIBIT, remedy="x" * 100), True)] * 20
    assert len(standing.words_of_inhibits(many)) == WORDS_MAX == 1000


def test_an_objection_names_five_rules_at_most_and_why_each_tripped() -> None:
    latched = RuleView(rule(), True, True, trip_value=2.0, trip_limit=1.1, since_ns=1_500_000_000)
    found = standing.objection(command(), [latched])
    assert found is not None
    assert found.code == "safety.present"
    assert found.words == "Some rule: 2, limit 1.1"
    fresh = standing.objection(command(), [RuleView(rule(), True)])
    assert fresh is not None
    assert fresh.words == "Some rule: present"
    many = standing.objection(command(), [latched] * 9)
    assert many is not None
    assert many.words.count(";") == 4
    assert len(many.data["latched"]) == 9


@pytest.mark.parametrize(
    ("view", "code"),
    [
        (RuleView(rule(), True), "safety.present"),
        (RuleView(rule(), True, bypassed=True), None),
        (RuleView(rule(**HOLD), True), None),
        (RuleView(rule(**INHIBIT), True), "safety.present"),
        (RuleView(rule(**INHIBIT), True, bypassed=True), None),
        (RuleView(rule(), False, True), None),
        (RuleView(rule()), None),
    ],
)
def test_what_stands_against_a_reset(view: RuleView, code: str | None) -> None:
    found = standing.objection(command(), [view])
    assert (found.code if found else None) == code


def test_an_inhibit_stands_against_a_reset_only_if_that_could_do_nothing_else() -> None:
    inhibit, latch = RuleView(rule(**INHIBIT), True), RuleView(rule(), False, True)
    assert standing.objection(command(), [inhibit]) is not None
    assert standing.objection(command(), [inhibit, latch]) is None


@pytest.mark.parametrize(("keys", "role", "may"), [(PAUSE, "operator", True), ({}, "operator", False),
                                                   (PAUSE, "physicist", True), ({}, "physicist", True)])  # fmt: skip
def test_a_latch_wants_a_role_that_may_reset_it(keys: Mapping[str, object], role: str, may: bool) -> None:
    found = standing.objection(command(role), [RuleView(rule(**keys), False, True), RuleView(rule())])
    if may:
        assert found is None
    else:
        assert found is not None
        assert (found.code, found.words) == ("safety.role", "some-rule: a physicist must reset it")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (None, None),
        ({"some-rule": 7}, None),
        ({"some-rule": None}, None),
        ({"some-rule": 7, "gone-since": 9}, None),
        ({"some-rule": 6}, "safety.unseen"),
        ({"some-rule": 8}, "safety.unseen"),
        ({"some-rule": -1}, "safety.unseen"),
        ({"other-rule": 7}, "safety.unseen"),
        ({}, "safety.unseen"),
        ([], "safety.latched"),
        ("some-rule", "safety.latched"),
        (False, "safety.latched"),
        (0, "safety.latched"),
    ],
)
def test_a_reset_of_what_was_shown_lets_go_of_nothing_that_came_since(seen: object, code: str | None) -> None:
    asked = Command("C-1", "somebody", "physicist", 0, 1, "reset", {"latched": seen})
    view = RuleView(rule(), False, True, since_ns=7, trip_value=2.0, trip_limit=1.1)
    found = standing.objection(asked, [RuleView(rule(id="good-rule")), view])
    assert (found.code if found else None) == code
    if code == "safety.unseen":
        assert found is not None
        assert (found.words, found.data) == ("latched since: Some rule: 2, limit 1.1", {"latched": ["some-rule"]})
    if code == "safety.latched":
        assert found is not None
        assert (
            found.words == f"latched is {str(seen)[:60]!r}: give the t_ns of each rule that was shown, or leave it out"
        )


def test_what_is_no_list_of_latches_is_shown_in_sixty_characters() -> None:
    found = standing.objection(Command("C-1", "a", "physicist", 0, 1, "reset", {"latched": "x" * 61}), [])
    assert found is not None
    assert f" '{'x' * 60}': " in found.words


def test_a_latch_of_the_start_of_time_is_seen_only_where_it_was_shown() -> None:
    view = RuleView(rule(), False, True, since_ns=-1)
    asked = Command("C-1", "a", "physicist", 0, 1, "reset", {"latched": {}})
    assert standing.objection(asked, [view]) is not None


def test_what_is_present_or_needs_a_physicist_is_said_before_what_came_since() -> None:
    asked = Command("C-1", "a", "operator", 0, 1, "reset", {"latched": {}})
    for view, code in (
        (RuleView(rule(), True, True), "safety.present"),
        (RuleView(rule(), False, True), "safety.role"),
    ):
        found = standing.objection(asked, [view])
        assert found is not None
        assert found.code == code


def test_a_refusal_is_cut_to_a_thousand_characters_and_names_its_rules() -> None:
    assert refused(command(), "a.b", "x" * 2000).words == "x" * 1000
    assert refused(command(), "a.b", "x").data == {}
    assert refused(command(), "a.b", "x", [RuleView(rule())]).data == {"latched": ["some-rule"]}


@pytest.mark.parametrize(("unit", "shown"), [("bool", ""), ("1", ""), ("mm", "mm")])
def test_pvs_of_a_rule_carry_its_unit_and_six_digits(unit: str, shown: str) -> None:
    found = {entry.name: entry for entry in pvs.rule_entries(rule().model_copy(update={"unit": unit}))}
    assert len(found) == 5
    for name in ("SAFE:SOME-RULE:Value-RB", "SAFE:SOME-RULE:Limit-RB"):
        entry: PvEntry = found[name]
        assert (entry.kind, entry.unit, entry.precision) == ("float", shown, 6)
    assert found["SAFE:SOME-RULE:Present-Sts"].states == ("ABSENT", "PRESENT")


@pytest.mark.parametrize(("keys", "objects"), [(INHIBIT, False), (HOLD, False), (PAUSE, True), ({}, True)])
@pytest.mark.parametrize("present", [False, True])
def test_a_pause_or_an_abort_in_force_stands_against_proof_tests(
    keys: Mapping[str, object], objects: bool, present: bool
) -> None:
    view = RuleView(rule(**keys), present, latched=not present)
    words = standing.proofs_objection(False, False, [view])
    assert words.startswith("proof tests run when nothing has tripped: Some rule") is objects
    assert (words == "") is not objects
    assert standing.proofs_objection(False, False, [replace(view, bypassed=True)]) == ""
    assert standing.proofs_objection(False, False, [RuleView(rule(**ECHO), present=True)]) == ""
    assert standing.proofs_objection(False, True, [view]) == "a layer is active, or the ring stands on the flat top"
    assert standing.proofs_objection(True, True, [view]) == "the beam is permitted: proof tests run without a permit"
