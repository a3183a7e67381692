"""Words, bounds and the cause-and-effect matrix."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from facility.config import change_facility, load_facility
from facility.states import Action
from interlocks import explain
from interlocks.model import Rule
from interlocks.own_inputs import OWN
from interlocks.rules import RuleSet
from interlocks.snapshot import RuleView
from tests.interlocks.support import body, one_rule, rule_set, wuwei

RULES = rule_set()


@pytest.mark.parametrize(
    ("rule_id", "words"),
    [
        ("chamber-disagreement", "ic1.ions and ic2.ions differ by at most 5 % plus 40000 ions over 100 ms"),
        ("chamber-drift", "ic1.layer_ions and ic2.layer_ions differ by at most 2 % plus 50000 ions"),
        ("spot-timeout", "fe.spot_beam_us is at most fe.spot_limit_us"),
        ("spot-overdose-ic1", "fe.spot_ic1_ions is at most 1.1 times fe.spot_target_ions plus 20000 ions"),
        ("dose-rate-high", "ic1.nominal_us gains at most 20000 us in 10 ms"),
        ("position-x", "strip.err_x_mm is between -2 and 2 mm, while strip.valid is set"),
        ("door", "door.a_closed is 1 and door.b_closed is 1"),
        ("safety-abort", "p.permit is 1 or p.hold is 1"),
        ("energy-token-ring", "fe.token equals ring.token, while fe.demand is set"),
        ("front-end-alive", "fe.heartbeat has shown life within 20 ms"),
        ("gate-stale", "gate.age_ms is at most 100 ms"),
    ],
)
def test_conditions_in_words(rule_id: str, words: str) -> None:
    assert explain.condition(RULES.rule(rule_id)) == words


def test_the_other_kinds_in_words() -> None:
    stale = one_rule(body(kind="stale", inputs=["h.heartbeat"], unit="count", low=None, high=None, window_us=500.0))
    assert explain.condition(stale.rules[0]) == "h.heartbeat has changed within 0.5 ms"
    assert explain.condition(one_rule(body(high=None)).rules[0]) == "ring.brho_rel is at least 0.9"


def test_what_must_happen_before_a_reset() -> None:
    door = RULES.rule("door")
    assert explain.before_reset(door, True).startswith("the cause must go first (door.a_closed is 1")
    remedy = "close the door and search the room: ionctl room search"
    assert explain.before_reset(door, False) == f"a physicist resets it; beam needs a separate start; {remedy}"
    assert "an operator or a physicist" in explain.before_reset(RULES.rule("gate-stale"), False)
    assert explain.before_reset(RULES.rule("gate"), True).startswith("nothing")


def test_why() -> None:
    view = RuleView(RULES.rule("position-x"), trip_value=2.5, trip_limit=2.0, since_ns=1_500_000_000)
    assert view.words() == "Beam position, x: 2.5 mm, limit 2 mm"
    assert "not known" in RuleView(RULES.rule("door")).words()


def test_what_the_safety_controller_knows_by_itself_is_told_in_words() -> None:
    for rule in RULES.rules:
        for name in set(rule.inputs) & set(OWN):
            told = (explain.condition(rule), explain.why(rule, 0.0, 1.0), explain.before_reset(rule, True))
            assert not [words for words in told if name in words], rule.id
            assert explain.and_remedy(rule), rule.id
    spent = RULES.rule("holds-spent")
    wrong = "a HOLD is present that has gone on by itself as often as it may in this field"
    assert explain.why(spent, 0.0, 1.0) == f"Held too often: {wrong}"
    assert explain.condition(spent) == f"no{wrong.removeprefix('a')}"
    console = RULES.rule("operator-heartbeat")
    assert explain.condition(console) == "silence of the operator's console is at most 2000 ms"
    assert explain.why(console, 2500.0, 2000.0) == "Operator's console silent: 2500 ms, limit 2000 ms"
    assert explain.why(console, math.inf, 2000.0).endswith("no sign of life of an operator's console")
    upside_down = spent.model_copy(update={"equals": 0.0})
    assert explain.condition(upside_down).endswith("in this field is 0")
    with_own = RULES.rule("procedure-checks")
    assert with_own.remedy
    assert explain.and_remedy(with_own) == f"; {with_own.remedy}"
    assert explain.and_remedy(RULES.rule("session-authority")).count("; ") == 2


def test_what_a_rule_looks_at() -> None:
    names = dict(explain.looks_at(RULES.rule("field-number")))
    assert list(names) == ["fe.field", "field.number", "fe.active"]
    assert names["field.number"] == OWN["field.number"].what
    assert names["fe.active"].startswith("a layer is armed")


@pytest.mark.parametrize("action", ["INHIBIT", "HOLD", "PAUSE", "ABORT"])
def test_every_action_has_a_consequence(action: str) -> None:
    rule = RULES.rule("door").model_copy(update={"action": action})
    assert explain.consequence(rule)


def test_bounds_are_computed() -> None:
    facility = wuwei()
    position = explain.bound(RULES.rule("position-x"), RULES, facility)
    assert position == pytest.approx((700.0, 20.0, 150.0, 170.0))
    assert position.total_us == 870.0
    assert position.actuator_us <= 180.0
    door = explain.bound(RULES.rule("door"), RULES, facility)
    assert door.decision_us == 4020.0
    assert explain.bound(RULES.rule("front-end-alive"), RULES, facility).observation_us == 20_000.0
    assert explain.bound(RULES.rule("gate-stale"), RULES, facility).observation_us == 100_000.0
    assert explain.bound(RULES.rule("operator-heartbeat"), RULES, facility).observation_us == 2_000_000.0


def test_the_tail_is_where_a_thousandth_is_left() -> None:
    facility = wuwei()
    t_us = explain.tail_us(facility)
    left = sum(share * math.exp(-t_us / tau) for share, tau in facility.extraction.tail)
    assert left == pytest.approx(0.001)


def test_hold_does_not_use_the_quadrupole() -> None:
    assert explain.actuator_us(wuwei(), Action.HOLD)[0] == 170.0
    facility = change_facility(wuwei(), {"beam_off.chopper.present": False})  # the extraction alone
    fastest, second = explain.actuator_us(facility, Action.HOLD)
    assert fastest == pytest.approx(5.0 + explain.tail_us(facility) + 50.0)
    assert second == math.inf
    pimms = load_facility("pimms")
    assert explain.actuator_us(pimms, Action.HOLD)[0] == 250.0
    assert explain.actuator_us(pimms, Action.ABORT) == (170.0, 250.0)


def test_matrix_has_a_row_for_each_rule() -> None:
    rows = list(explain.matrix(RULES, wuwei()))
    assert [row.rule for row in rows] == [rule.id for rule in RULES.rules]
    by_id = {row.rule: row for row in rows}
    door, gate, drift = by_id["door"], by_id["gate"], by_id["chamber-drift"]
    assert (door.spill_off, door.fast_quad, door.dump, door.latches) == (True, True, True, True)
    assert (gate.spill_off, gate.fast_quad, gate.dump, gate.latches) == (True, False, False, False)
    assert (drift.fast_quad, drift.dump) == (True, False)
    assert all(row.bound_us <= row.degraded_us for row in rows)


@pytest.mark.parametrize("rule", RULES.rules, ids=lambda rule: rule.id)
def test_every_rule_can_be_explained(rule: Rule) -> None:
    assert "None" not in explain.condition(rule)
    assert explain.before_reset(rule, True)


def test_the_reference_has_every_rule_with_the_bound_that_is_computed() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "interlocks.md").read_text(encoding="utf-8")
    for row in explain.matrix(RULES, wuwei()):
        line = next(line for line in text.splitlines() if line.startswith(f"| `{row.rule}` |"))
        assert f"| {row.cause} |" in line
        assert f"| {row.bound_us / 1000.0:.2f} |" in line


CANONICAL = range(1, 41)


def test_every_canonical_interlock_has_a_rule_and_the_reference_says_which() -> None:
    rules_of = {n: [rule for rule in RULES.rules if n in explain.canonical(rule)] for n in CANONICAL}
    assert not [n for n, rules in rules_of.items() if not rules]
    assert not {n for rule in RULES.rules for n in explain.canonical(rule)} - set(CANONICAL)
    text = (Path(__file__).parents[2] / "docs" / "reference" / "interlocks.md").read_text(encoding="utf-8")
    table = text.split("## The forty canonical interlocks")[1].split("\n## ")[0]
    rows = {int(line.split("|")[1]): line for line in table.splitlines() if line[:3].strip("| ").isdigit()}
    assert set(rows) == set(CANONICAL)
    for n, rules in rules_of.items():
        named = rows[n].split("|")[3]
        assert named.strip() == ", ".join(f"`{rule.id}` ({rule.tier})" for rule in rules), f"no. {n}"


def test_what_is_not_confirmed_is_bounded_by_the_dump() -> None:
    facility = wuwei()
    rule = RULES.rule("beam-off-confirmation")
    assert explain.by_dump(rule)
    assert not explain.by_dump(RULES.rule("door"))
    promised = explain.bound(rule, RULES, facility)
    assert promised.actuator_us == promised.degraded_us == explain.dump_us(facility) == 3050.0
    assert explain.escalated_us(facility, Action.ABORT) == 3050.0
    assert explain.escalated_us(facility, Action.PAUSE) == facility.confirm_after_us() + 10_010.0 + 3050.0
    assert facility.confirm_after_us() == 5.0 + explain.tail_us(facility) + 640.0
    pimms = load_facility("pimms")
    assert pimms.confirm_after_us() == 840.0


def test_bounds_count_a_limit_that_is_a_time_only_where_it_is_watched() -> None:
    facility, console = wuwei(), RULES.rule("operator-heartbeat")
    own = console.input_delay_us + console.window_us + console.debounce_us
    unlimited = console.model_copy(update={"high": None})
    assert explain.bound(unlimited, RULES, facility).observation_us == own
    second = console.model_copy(update={"inputs": ("ring.ions", "console.age_ms")})
    assert explain.bound(second, RULES, facility).observation_us == own


def test_bounds_of_the_safety_controller_count_two_scans_and_the_link_both_ways() -> None:
    link = RULES.link.model_copy(update={"period_ms": 1.5, "latency_ms": 0.25, "scan_ms": 2.5})
    rules = RuleSet(RULES.facility, RULES.rules, link)
    assert explain.bound(RULES.rule("door"), rules, wuwei()).decision_us == 7020.0
    assert explain.bound(RULES.rule("position-x"), rules, wuwei()).decision_us == 20.0


def test_only_the_first_input_makes_the_dump_the_last_resort() -> None:
    rule = RULES.rule("door")
    assert not explain.by_dump(rule.model_copy(update={"inputs": ("door.a_closed", "off.confirmed")}))
    assert explain.by_dump(rule.model_copy(update={"inputs": ("off.confirmed", "door.a_closed")}))


def test_times_and_shares_in_words_have_their_fractions() -> None:
    pair: dict[str, object] = {"inputs": ["ic1.hv_rel", "ic2.hv_rel"], "kind": "mismatch", "low": None, "high": 0.5}
    plain = one_rule(body(**pair)).rules[0]
    assert explain.condition(plain) == "ic1.hv_rel and ic2.hv_rel differ by at most 0.5"
    over = plain.model_copy(update={"window_us": 1500.0, "relative": 0.025})
    assert explain.condition(over) == "ic1.hv_rel and ic2.hv_rel differ by at most 2.5 % plus 0.5 over 1.5 ms"
    assert explain.condition(plain.model_copy(update={"window_us": 0.5})).endswith("over 0.0005 ms")
    excess = plain.model_copy(update={"kind": "excess", "relative": 0.9})
    assert explain.condition(excess) == "ic1.hv_rel is at most 0.9 times ic2.hv_rel plus 0.5"
    window = plain.model_copy(update={"kind": "window", "window_us": 2500.0})
    assert explain.condition(window) == "ic1.hv_rel gains at most 0.5 in 2.5 ms"


def test_a_rule_that_does_not_latch_says_what_to_do_about_it() -> None:
    gate = RULES.rule("gate").model_copy(update={"remedy": None})
    plain = "nothing: it does not latch, and goes with its cause"
    assert explain.before_reset(gate, True) == plain
    assert explain.before_reset(gate.model_copy(update={"remedy": "wait"}), True) == f"{plain}; wait"


def test_a_row_of_the_matrix_is_what_the_bound_and_the_rule_say() -> None:
    facility = wuwei()
    for rule, row in zip(RULES.rules, explain.matrix(RULES, facility), strict=True):
        promised = explain.bound(rule, RULES, facility)
        assert row.bound_us == promised.observation_us + promised.decision_us + promised.actuator_us
        assert row.degraded_us == promised.observation_us + promised.decision_us + promised.degraded_us
        assert (row.title, row.hazard, row.tier, row.action) == (rule.title, rule.hazard, rule.tier, rule.action)
        assert (row.latches, row.reset, row.bypass, row.citation) == (
            rule.latches, rule.reset, rule.bypass, rule.citation)  # fmt: skip
        assert (row.spill_off, row.fast_quad, row.dump) == tuple(
            rule.action in actions for actions in (("HOLD", "PAUSE", "ABORT"), ("PAUSE", "ABORT"), ("ABORT",))
        )
        assert (row.chain, row.stopper) == (rule.chain, rule.chain == "personnel")


@pytest.mark.parametrize(("changes", "read"), [({"when": "gate.open"}, ("lines",)), ({}, ())])
def test_a_rule_reads_a_device_by_its_condition_too(changes: dict[str, str], read: tuple[str, ...]) -> None:
    fitted = SimpleNamespace(fitted=("ic1_hv", "lines"))
    rule = one_rule(body(**changes)).rules[0]
    assert explain.external_inputs(rule, fitted) == read  # type: ignore[arg-type]
    assert explain.is_fast(rule, fitted) is (not read)  # type: ignore[arg-type]
