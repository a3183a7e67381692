"""What the safety controller shows of itself: data, defaults, the order of latches."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from facility.states import Action
from interlocks.snapshot import Mode, RuleView, SafetyEvent, SafetySnapshot
from tests.interlocks.support import body, one_rule

RULE = one_rule(body()).rules[0]


def view(rule_id: str, since_ns: int, *, latched: bool = True, bypassed: bool = False) -> RuleView:
    return RuleView(RULE.model_copy(update={"id": rule_id}), latched=latched, since_ns=since_ns, bypassed=bypassed)


def snapshot(*views: RuleView, first: str = "") -> SafetySnapshot:
    return SafetySnapshot(0, False, False, False, Action.NONE, first, Mode.CLINICAL, True, views)


def test_a_rule_of_which_nothing_is_known_shows_nothing() -> None:
    it = RuleView(RULE)
    assert (it.present, it.latched, it.bypassed, it.since_ns, it.bypass_until_ns) == (False, False, False, 0, 0)
    assert (it.bypass_reason, it.bypass_by) == ("", "")
    assert all(math.isnan(x) for x in (it.value, it.limit, it.trip_value, it.trip_limit))


def test_what_was_shown_never_changes() -> None:
    whole = SafetySnapshot(0, False, False, False, Action.NONE, "", Mode.CLINICAL, True, ())
    for thing, name in ((RuleView(RULE), "present"), (whole, "permit"), (SafetyEvent(0, "mode"), "kind")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, True)


@pytest.mark.parametrize(("value", "shown"), [(2.5, 2.5), (math.nan, None), (math.inf, None), (-math.inf, None)])
def test_data_carry_value_and_limit_of_the_trip_where_they_are_numbers(value: float, shown: float | None) -> None:
    it = RuleView(RULE, present=True, value=7.0, limit=8.0, trip_value=value, trip_limit=value, since_ns=3)
    assert it.to_data() == {
        "id": "some-rule", "tier": "H", "action": "ABORT", "present": True, "value": shown, "limit": shown,
        "unit": "1", "t_ns": 3,
    }  # fmt: skip


def test_words_are_those_of_the_trip() -> None:
    it = RuleView(RULE, value=7.0, limit=8.0, trip_value=2.0, trip_limit=1.1, since_ns=2_000_000_000)
    assert it.words() == "Some rule: 2, limit 1.1"


def test_latches_are_in_order_of_time_but_the_first_fault_first() -> None:
    shown = snapshot(view("a", 30), view("b", 10), view("c", 20), view("d", 5, latched=False), first="c")
    assert [it.rule.id for it in shown.latched] == ["c", "b", "a"]
    middle = snapshot(view("a", 30), view("b", 40), view("c", 20), first="b")
    assert [it.rule.id for it in middle.latched] == ["b", "c", "a"]
    assert [it.rule.id for it in snapshot(view("a", 30), view("b", 10)).latched] == ["b", "a"]


def test_bypassed_rules_are_those_that_are_bypassed() -> None:
    shown = snapshot(view("a", 0), view("b", 0, bypassed=True))
    assert [it.rule.id for it in shown.bypassed] == ["b"]


def test_a_snapshot_without_a_field_says_so() -> None:
    shown = snapshot()
    assert (shown.key_agrees, shown.session, shown.holds, shown.pauses) == (True, "", {}, 0)
    assert (shown.begun, shown.unresolved) == (False, False)


def test_what_was_shown_cannot_be_changed() -> None:
    for thing in (view("a", 0), snapshot(), SafetyEvent(0, "mode")):
        with pytest.raises(AttributeError):
            thing.t_ns = 1  # type: ignore[union-attr]
    assert SafetyEvent(0, "mode").data == {}
