"""Values of fast rules as they are now, where the process image carries what they judge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from interlocks.evaluator import Judgement
from interlocks.live_values import LiveValues, is_live
from interlocks.model import IMAGE_NAMES
from interlocks.snapshot import RuleView
from tests.interlocks.support import Safety, body, one_rule, rule_set


def test_a_fast_rule_over_the_image_shows_its_value_at_any_time() -> None:
    it = Safety()
    assert math.isnan(it.view("ring-rigidity").value)  # nothing has been seen
    it.run(2, ring__brho_rel=1.0002)
    view = it.view("ring-rigidity")
    assert (view.value, view.present, math.isnan(view.trip_value)) == (pytest.approx(1.0002), False, True)
    assert view.limit == rule_set().rule("ring-rigidity").high
    assert it.view("ring-rigidity") is view
    it.run(1)
    assert it.view("ring-rigidity") is view
    it.run(1, ring__brho_rel=0.9)
    assert (it.view("ring-rigidity").value, it.view("ring-rigidity").limit) == (0.9, rule_set().rule(view.rule.id).low)
    place = [rule.id for rule in it.rules.h].index("ring-rigidity")
    it.run(1, h__present=float(1 << place), ring__brho_rel=0.9)
    assert (it.view("ring-rigidity").present, it.view("ring-rigidity").value) == (True, 0.9)
    it.run(1, ring__brho_rel=math.nan)
    assert math.isnan(it.view("ring-rigidity").value)
    assert it.view("ring-rigidity") is it.view("ring-rigidity")


def test_the_value_now_is_not_that_of_the_trip() -> None:
    it = Safety()
    it.run(2)
    place = [rule.id for rule in it.rules.h].index("gate")
    it.fault = it.fault._replace(rule=place, value=0.0, limit=1.0, t_ns=7)
    it.run(1, h__latched=float(1 << place), gate__open=1.0)
    view = it.view("gate")
    assert (view.value, view.trip_value, view.trip_limit, view.since_ns) == (1.0, 0.0, 1.0, 7)
    place = [rule.id for rule in it.rules.rules].index("gate")
    assert it.controller.snapshot().rules[place] is view
    assert it.controller.snapshot(live=False).rules[place].value == 0.0


def test_a_rule_that_needs_each_tick_or_a_history_is_told_at_its_trip_alone() -> None:
    live = {rule.id for rule in rule_set().h if is_live(rule)}
    assert {"ring-rigidity", "gate", "chamber-drift", "layer-overdose-ic2"} <= live
    assert not live & {"position-x", "dose-rate-high", "chamber-disagreement", "front-end-beats", "spot-overdose-ic1"}
    assert all(is_live(rule) for rule in (*rule_set().p, *rule_set().t))
    pair = {
        "inputs": ["ic1.layer_ions", "ic2.layer_ions"],
        "kind": "mismatch",
        "unit": "ions",
        "low": None,
        "high": 1e5,
    }
    assert set(pair["inputs"]) <= IMAGE_NAMES
    assert is_live(one_rule(body(**pair)).rules[0])
    assert not is_live(one_rule(body(**pair, window_us=100.0)).rules[0])
    it = Safety()
    it.run(2)
    assert math.isnan(it.view("position-x").value)


def test_a_view_is_the_very_same_until_value_limit_or_state_are_others() -> None:
    rule = one_rule(body()).rules[0]
    found = [Judgement(True, 1.0, 1.1)]
    live = LiveValues([rule], lambda _: found[0])
    base = RuleView(rule)
    for value, limit in ((1.0, 1.1), (2.0, 1.1), (0.5, 1.1), (0.5, 1.2), (0.5, 0.3), (math.nan, 0.3),
                         (math.nan, math.nan), (1.0, math.nan), (1.0, 1.1)):  # fmt: skip
        found[0] = Judgement(True, value, limit)
        shown = live.of(base)
        assert repr((shown.value, shown.limit)) == repr((value, limit))
        assert live.of(base) is shown
    assert live.of(replace(base, present=True)).present
