"""The second evaluator: made from the configuration, written apart, and never of another opinion than the first."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.command import Status
from facility.config import list_facilities, load_facility
from facility.signals import IMAGE, SIGNALS
from facility.states import Action
from interlocks import agreement, evaluator, generate, latch, process_image, scanner, second
from interlocks.evaluator import NS_PER_MS
from interlocks.model import Rule
from interlocks.own_inputs import AGREE_INPUT, OWN_INPUTS
from interlocks.process_image import INVALID, N_IMAGE, PLACE
from interlocks.rules import RuleSet, load_rules
from interlocks.scanner import Scanner
from interlocks.second import SecondEvaluator, complement_of, source_of
from tests.interlocks.support import MS, OWN, Safety, body, one_rule, rule_set, several

ALL = [
    load_rules(load_facility(name), room, species)
    for name in list_facilities()
    for species in load_facility(name).species
    for room in list(load_facility(name).rooms)[:1]
]


class Both:
    """Both evaluators over the same codes."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.first, self.second = Scanner(rules.scanned), SecondEvaluator(rules)

    def take(self, codes: list[int], t_ns: int) -> None:
        self.first.take(process_image.decode(np.array(codes, dtype=np.int32)), t_ns)
        self.second.take([~code for code in codes], t_ns)

    def judge(self, own: list[int], fresh: bool, now_ns: int, permitted: bool = True) -> None:
        self.first.judge(own, fresh, now_ns, permitted)
        found = self.first.decisions()
        self.second.judge(own, fresh, now_ns, [good for good, _, _ in found], permitted)
        assert list(self.second.decisions()) == found

    def good(self, place: int, code: int) -> bool:
        """Both verdicts on the first rule with one code changed; ConfigError of the test if they differ."""
        codes = [0] * N_IMAGE
        codes[place] = code
        self.take(codes, 0)
        self.judge(OWN, True, 0)
        return self.first.decisions()[0][0]


def test_the_source_is_plain_python_that_says_what_it_was_made_from() -> None:
    rules = rule_set()
    source = source_of(rules)
    assert source == source_of(rule_set())
    assert rules.hash in source.split('"""')[1]
    assert source_of(ALL[0]) != source
    tree = ast.parse(source)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
    assert max(len(line) for line in source.splitlines()) <= 200


@pytest.mark.parametrize("module", [second, generate, agreement])
def test_it_is_made_without_the_first_evaluator(module: ModuleType) -> None:
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    used = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not used & {"interlocks.evaluator", "interlocks.scanner", "interlocks.latch", "interlocks.process_image"}
    assert "interlocks" not in used


@pytest.mark.parametrize("rules", ALL, ids=lambda rules: f"{rules.facility}")
def test_both_agree_at_just_inside_and_just_outside_every_limit(rules: RuleSet) -> None:
    tried = 0
    for rule in rules.scanned:
        if rule.kind != "limit" or rule.inputs[0] not in PLACE:
            continue
        place = PLACE[rule.inputs[0]]
        both = Both(replace(rules, rules=(rule,)))
        step = SIGNALS[IMAGE[place]].resolution
        for limit, inwards in ((rule.low, 1), (rule.high, -1)):
            if limit is None:
                continue
            at = round(limit / step)
            found = [both.good(place, at + k * inwards) for k in range(-3, 4)]
            assert found[:3] == [False] * 3, rule.id
            assert found[-2:] == [True] * 2, rule.id
            tried += 1
    assert tried >= 25


@given(st.floats(0.2, 2.0), st.integers(-2, 2))
@settings(max_examples=60)
def test_both_agree_wherever_a_limit_lies(limit: float, offset: int) -> None:
    both = Both(one_rule(body(inputs=["ic1.hv_rel"], low=None, high=limit, tier="P")))
    assert both.good(PLACE["ic1.hv_rel"], math.floor(limit * 1e5) + offset) == (offset < 1) or limit * 1e5 % 1 > 0.99


@pytest.mark.parametrize("high", [2000.0, 600.0000000000001, 0.30000000000000004 * 1000.0])
def test_ages_are_compared_to_the_nanosecond(high: float) -> None:
    both = Both(one_rule(body(inputs=["console.age_ms"], unit="ms", low=None, high=high, tier="P")))
    for age_ns in (0, *(math.floor(high * NS_PER_MS) + k for k in (-1, 0, 1)), INVALID):
        both.judge([1, age_ns, *OWN[2:]], True, 0)
    assert not both.first.decisions()[0][0]


@pytest.mark.parametrize(
    ("name", "unit"), [(name, unit) for name, unit in OWN_INPUTS.items() if unit != "ms" and name != AGREE_INPUT]
)
def test_both_take_what_the_controller_knows_by_itself_in_whole_units(name: str, unit: str) -> None:
    both = Both(one_rule(body(tier="P", inputs=[name], kind="digital", equals=1.0, unit=unit, low=None, high=None)))
    own = [1] * len(OWN_INPUTS)
    for value in (1, 0, 2, 1):
        own[list(OWN_INPUTS).index(name)] = value
        both.judge(own, True, 0)
        assert both.first.decisions()[0][0] is (value == 1)


def test_without_a_fresh_image_only_what_needs_none_is_judged_anew() -> None:
    own: dict[str, object] = {"inputs": ["link.plant_ok"], "kind": "digital", "equals": 1.0, "unit": "bool"}
    both = Both(several(body(id="image", tier="P", low=0.5), body(id="own", tier="P", low=None, high=None, **own)))
    place = PLACE["ring.brho_rel"]
    for code, ok, fresh, good in ((1.0, 1, True, (True, True)), (0.1, 0, False, (True, False)),
                                  (0.1, 1, False, (True, True)), (0.1, 0, True, (False, False))):  # fmt: skip
        codes = [0] * N_IMAGE
        codes[place] = round(code / process_image.STEPS[place])
        both.take(codes, 0)
        both.judge([ok, *OWN[1:]], fresh, 0)
        assert tuple(one for one, _, _ in both.first.decisions()) == good


def hv(a: int, b: int = 100_000) -> list[int]:
    """Codes of an image in which only the voltages of both chambers are something."""
    codes = [0] * N_IMAGE
    codes[PLACE["ic1.hv_rel"]], codes[PLACE["ic2.hv_rel"]] = a, b
    return codes


@pytest.mark.parametrize(
    ("keys", "bad", "good"),
    [
        ({"kind": "digital", "equals": 1.0}, (100_000, 99_999), (100_000, 100_000)),
        ({"kind": "either", "equals": 1.0}, (99_999, 99_999), (99_999, 100_000)),
        ({"kind": "equal"}, (99_999, 100_000), (99_999, 99_999)),
        ({"kind": "mismatch", "high": 0.5}, (49_999, 100_000), (250_000, 200_001)),
        ({"kind": "excess", "relative": 1.5, "high": 0.25}, (175_001, 100_000), (174_999, 100_000)),
        ({"kind": "excess", "relative": 2.0, "high": 0.0}, (200_001, 100_000), (199_999, 100_000)),
    ],
)
def test_each_kind_of_two_inputs_at_its_edge(
    keys: dict[str, object], bad: tuple[int, int], good: tuple[int, int]
) -> None:
    both = Both(
        one_rule(body(**({"tier": "P", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": None} | keys)))
    )
    for codes, wanted in ((bad, False), (good, True)):
        both.take(hv(*codes), 0)
        both.judge(OWN, True, 0)
        assert both.first.decisions()[0][0] is wanted
        assert list(both.second.code["boxes"](both.second._memory)) == []  # only limits of their own are a box


def test_two_inputs_of_other_resolutions_are_compared_by_value() -> None:
    both = Both(one_rule(body(tier="P", kind="equal", inputs=["ic1.hv_rel", "ring.brho_rel"], low=None, high=None)))
    for code, other, good in ((100_000, 1_000_000, True), (100_000, 100_000, False), (99_999, 999_990, True)):
        codes = hv(code)
        codes[PLACE["ring.brho_rel"]] = other
        both.take(codes, 0)
        both.judge(OWN, True, 0)
        assert both.first.decisions()[0][0] is good


@pytest.mark.parametrize("keys", [{"kind": "digital", "equals": 1.000001, "low": None, "high": None},
                                  {"low": 1.000004, "high": None}, {"low": None, "high": 0.999996}])  # fmt: skip
def test_what_lies_between_two_codes_is_neither(keys: dict[str, object]) -> None:
    both = Both(one_rule(body(**({"tier": "P", "inputs": ["ic1.hv_rel"]} | keys))))
    for code in (99_999, 100_000, 100_001, 1_000_001):
        both.take(hv(code), 0)
        both.judge(OWN, True, 0)
    both.take(hv(100_000), 0)
    both.judge(OWN, True, 0)
    assert both.first.decisions()[0][0] is False


def test_a_debounce_and_a_silence_end_at_the_same_nanosecond_for_both() -> None:
    both = Both(one_rule(body(tier="P", inputs=["ic1.hv_rel"], debounce_us=1500.0)))
    for code, now_ns, present in ((100_000, 0, False), (0, 7, False), (0, 1_500_006, False), (0, 1_500_007, True)):
        both.take(hv(code), now_ns)
        both.judge(OWN, True, now_ns)
        assert both.first.decisions()[0][1] is present
    beats = {"kind": "beat", "inputs": ["fe.heartbeat"], "unit": "ms", "low": None, "high": 20.0}
    both = Both(one_rule(body(tier="P", **beats)))
    for now_ns, alive in ((0, True), (20_000_000, True), (20_000_001, False)):
        both.take(hv(0), now_ns)
        both.judge(OWN, True, now_ns)
        assert both.first.decisions()[0][0] is alive


KINDS: list[dict[str, Any]] = [
    {"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "relative": 0.1, "high": 0.5, "low": None},
    {"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "high": 0.2, "low": None},
    {"kind": "excess", "inputs": ["ic1.hv_rel", "ring.brho_rel"], "relative": 1.1, "high": 0.3, "low": None},
    {"kind": "equal", "inputs": ["ic1.hv_rel", "ring.brho_rel"], "low": None, "high": None},
    {"kind": "equal", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": None, "when": "fe.demand"},
    {"kind": "either", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "equals": 1.0, "low": None, "high": None},
    {"kind": "digital", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "equals": 1.0, "low": None, "high": None},
    {"kind": "digital", "inputs": ["ic1.hv_rel"], "equals": 1.000001, "low": None, "high": None},
    {"kind": "limit", "inputs": ["ic1.hv_rel"], "low": 0.5, "high": None},
    {"kind": "limit", "inputs": ["ic1.hv_rel"], "low": None, "high": 1.0, "debounce_us": 3000.0, "action": "PAUSE"},
    {"kind": "limit", "inputs": ["ic1.hv_rel"], "low": 0.5, "action": "INHIBIT", "reset": "none"},
    {"kind": "limit", "inputs": ["ic1.hv_rel"], "low": 0.5, "high": None, "standing": True},
    {"kind": "beat", "inputs": ["fe.heartbeat"], "low": None, "high": 20.0, "unit": "ms"},
]
CODES = st.sampled_from([INVALID, 0, 1, 30_000, 50_000, 99_999, 100_000, 100_001, 110_000, 150_000, 1_000_000])


@pytest.mark.parametrize("change", KINDS, ids=lambda change: f"{change['kind']}-{change.get('action', '')}")
@given(data=st.data())
@settings(max_examples=40)
def test_both_decide_the_same_whatever_comes(change: dict[str, Any], data: st.DataObject) -> None:
    rules = one_rule(body(**({"tier": "P"} | change)))
    both, codes, t_ns = Both(rules), [0] * N_IMAGE, 0
    for _ in range(data.draw(st.integers(1, 12))):
        t_ns += data.draw(st.integers(0, 9)) * MS + data.draw(st.integers(0, 1))
        for name in (*rules.rules[0].inputs, "fe.demand"):
            if name == "fe.heartbeat":
                codes[PLACE[name]] = data.draw(st.sampled_from([INVALID, 0, 1, 5, 9, 30, (1 << 20) - 3]))
            else:
                codes[PLACE[name]] = data.draw(CODES)
        fresh = data.draw(st.booleans())
        if fresh:
            both.take(codes, t_ns)
        masked = frozenset(data.draw(st.sampled_from([[], [rules.rules[0].id]])))
        both.first.bypass(masked)
        both.second.bypass(masked)
        both.judge(OWN, fresh, t_ns, data.draw(st.booleans()))
        role = data.draw(st.sampled_from(["", "operator", "physicist"]))
        if role:
            both.first.reset(role, t_ns)
            both.second.reset(role)
        assert list(both.second.decisions()) == both.first.decisions()


def test_exactly_at_a_computed_limit_the_first_decides_and_nowhere_else() -> None:
    rules = one_rule(body(**{"tier": "P"} | KINDS[2]))
    it = SecondEvaluator(rules)
    judge: Callable[..., bool | None] = it.code["JUDGES"][0]
    codes = [0] * N_IMAGE
    codes[PLACE["ring.brho_rel"]] = 1_000_000
    found = []
    for code in (139_999, 140_000, 140_001):
        codes[PLACE["ic1.hv_rel"]] = code
        found.append(judge(codes, None))
    assert found == [True, None, False]


def test_the_copy_is_the_frames_own() -> None:
    codes = np.arange(-3, N_IMAGE - 3, dtype=np.int32)
    assert [~code for code in complement_of(process_image.pack(codes), N_IMAGE)] == codes.tolist()


# --- what a fault in one of them does ---------------------------------------------------------------------------


def released() -> Safety:
    it = Safety()
    it.release()
    return it


def expect_disagreement(it: Safety, *, rules: set[str] | None = None) -> None:
    """The next scan takes the permit, for ever."""
    it.controller.take_events()
    out = it.run()
    assert (out.permit, out.hold) == (False, False)
    assert "evaluators-disagree" in it.latched()
    assert it.controller.snapshot().action is Action.ABORT
    found = [event for event in it.controller.take_events() if event.kind == "evaluators.disagree"]
    assert len(found) == 1
    if rules is not None:
        assert set(found[0].data["rules"]) == rules
    it.run(5)
    assert not it.out.permit


def change_first(it: Safety, rule_id: str, **limits: Any) -> None:
    for watched in it.controller._scanner._watched:
        if watched.rule.id == rule_id:
            watched.probe = evaluator.probe(watched.rule.model_copy(update=limits))


def test_a_wrong_limit_in_the_first() -> None:
    it = released()
    change_first(it, "chamber-voltage-ic1", high=1.2)
    assert it.run(ic1__hv_rel=1.04).permit
    it.set(ic1__hv_rel=1.06)
    expect_disagreement(it, rules={"chamber-voltage-ic1"})
    assert it.latched() == ["evaluators-disagree"]
    assert it.say("reset", "physicist").code == "safety.present"


def test_a_wrong_limit_in_the_first_wakes_a_scan_that_was_left_out() -> None:
    it = released()
    change_first(it, "chamber-voltage-ic1", high=1.2)
    it.run()
    _, high = it.controller.thresholds()
    assert high[PLACE["ic1.hv_rel"]] == 105_000 + 0.49


def test_a_wrong_unit_in_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    it = released()
    sound = process_image.decode
    monkeypatch.setattr(process_image, "decode", lambda codes: sound(codes) * 1.1)
    expect_disagreement(it)


@pytest.mark.parametrize("stuck", [True, False])
def test_a_result_of_the_first_that_is_stuck(monkeypatch: pytest.MonkeyPatch, stuck: bool) -> None:
    it = released()
    monkeypatch.setattr(evaluator, "judge", lambda *_: evaluator.Judgement(stuck, 0.0, 0.0))
    if stuck:
        assert it.run(3).permit  # nothing is wrong yet
        it.set(door__a_closed=0.0)
    expect_disagreement(it)


def test_a_latch_of_the_first_that_never_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    it = released()
    monkeypatch.setattr(scanner.latch, "step", lambda _spec, state, _event, _t_ns: (state, ()))
    it.set(door__a_closed=0.0)
    it.advance()
    out = it.scan()
    assert not out.permit


def test_a_heartbeat_that_the_first_no_longer_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    it = released()
    monkeypatch.setattr(evaluator, "beat_age_ms", lambda *_: 0.0)
    it.beats = False
    it.run(19)
    assert it.out.permit
    it.run(2)
    assert not it.out.permit
    assert "evaluators-disagree" in it.latched()


def test_a_debounce_of_the_first_that_is_too_long() -> None:
    it = released()
    for watched in it.controller._scanner._watched:
        if watched.rule.id == "plant-late":
            watched.spec = watched.acts_as = watched.spec._replace(debounce_ns=10**9)
    assert it.run(5, pacing__late_ms=510.0).permit
    expect_disagreement(it, rules={"plant-late"})


@pytest.mark.parametrize(
    ("old", "new", "signals"),
    [
        ("95000 <= c[{ic1.hv_rel}] <= 105000", "95000 <= c[{ic1.hv_rel}] <= 120000", {"ic1__hv_rel": 1.06}),
        ("95000 <= c[{ic1.hv_rel}] <= 105000", "950 <= c[{ic1.hv_rel}] <= 1050", {}),
        ("verdict = JUDGES[i](c, age)", "verdict = True", {"door__a_closed": 0.0}),
        ("verdict = JUDGES[i](c, age)", "verdict = False", {}),
        ("m.codes[:IMAGE] = codes", "m.codes[:IMAGE] = m.codes[:IMAGE] if m.seen else codes", {"door__a_closed": 0.0}),
        ("m.latched[i] = m.latched[i] or trips", "m.latched[i] = m.latched[i] and trips", {"door__a_closed": 0.0}),
        ("or not stands)", "and not stands)", {"door__a_closed": 0.0}),
    ],
)
def test_a_fault_in_the_second(old: str, new: str, signals: dict[str, float]) -> None:
    it = released()
    places = {f"{{{name}}}": str(place) for name, place in PLACE.items()}
    for key, place in places.items():
        old, new = old.replace(key, place), new.replace(key, place)
    source = source_of(it.rules)
    assert old in source
    wrong: dict[str, Any] = {}
    exec(source.replace(old, new), wrong)
    it.controller._pair.second.code.update({name: wrong[name] for name in ("JUDGES", "judge", "take")})
    it.set(**signals)
    expect_disagreement(it)


@pytest.mark.parametrize("which", ["image", "complement"])
@given(place=st.integers(0, N_IMAGE - 1), bit=st.integers(0, 31))
@settings(max_examples=25, deadline=None)
def test_a_bit_that_flips_in_either_copy(which: str, place: int, bit: int) -> None:
    it = released()
    it.advance()
    image = process_image.image_of(it.signals)
    copy = list(complement_of(process_image.pack(image), N_IMAGE))
    if which == "image":
        image[place] = np.int64(int(image[place]) ^ 1 << bit).astype(np.int32)
    else:
        copy[place] ^= 1 << bit
    out = it.controller.scan(image, it.t_ns, it.t_ns, True, it.fault, copy)
    assert not out.permit
    assert "evaluators-disagree" in it.latched()


def test_a_copy_that_is_missing_or_short_is_a_disagreement() -> None:
    for copy in (None, (), (0,) * (N_IMAGE - 1)):
        it = released()
        it.advance()
        out = it.controller.scan(process_image.image_of(it.signals), it.t_ns, it.t_ns, True, it.fault, copy)
        assert not out.permit


@pytest.mark.parametrize(
    ("action", "reset", "latches"),
    [("INHIBIT", "none", False), ("HOLD", "none", False), ("PAUSE", "operator", True), ("ABORT", "physicist", True)],
)
def test_the_second_latches_from_a_pause_on(action: str, reset: str, latches: bool) -> None:
    it = SecondEvaluator(one_rule(body(tier="P", low=0.5, action=action, reset=reset)))
    for value, first in ((1.0, True), (0.1, False)):
        codes = [0] * N_IMAGE
        codes[PLACE["ring.brho_rel"]] = round(value / process_image.STEPS[PLACE["ring.brho_rel"]])
        it.take([~code for code in codes], 0)
        it.judge(OWN, True, 0, [first])
    assert list(it.decisions()) == [(False, True, latches)]


def test_before_the_first_image_there_are_no_two_that_differ() -> None:
    it = Safety()
    it.link_ok = False
    it.run(3)
    assert not it.view("evaluators-disagree").present
    assert not [event for event in it.controller.take_events() if event.kind == "evaluators.disagree"]


@pytest.mark.parametrize(("permitted", "latched"), [((), True), ((True,), True), ((False,), False)])
def test_what_stands_is_a_trip_unless_it_is_said_that_there_is_no_permit(
    permitted: tuple[bool, ...], latched: bool
) -> None:
    it = SecondEvaluator(one_rule(body(tier="P", low=0.5, action="PAUSE", reset="operator", standing=True)))
    for value, first in ((1.0, True), (0.1, False)):
        codes = [0] * N_IMAGE
        codes[PLACE["ring.brho_rel"]] = round(value / process_image.STEPS[PLACE["ring.brho_rel"]])
        it.take([~code for code in codes], 0)
        it.judge(OWN, True, 0, [first], *permitted)
    assert list(it.decisions()) == [(False, True, latched)]


def test_a_transient_is_reset_by_a_physicist() -> None:
    it = released()
    it.advance()
    image = process_image.image_of(it.signals)
    it.controller.scan(image, it.t_ns, it.t_ns, True, it.fault, (0,) * N_IMAGE)
    it.run(3)
    assert it.view("evaluators-disagree").latched
    assert not it.view("evaluators-disagree").present
    assert it.say("reset", "operator").code == "safety.role"
    assert it.say("reset", "physicist").status is Status.DONE
    it.resolve()
    it.say("reset", "operator")
    assert it.run(3).permit
    assert not it.latched()


def test_a_latch_that_only_one_has_is_a_trip_once() -> None:
    it = released()
    memory = it.controller._pair.second._memory
    memory.latched[0] = True
    expect_disagreement(it, rules={it.rules.scanned[0].id})
    assert it.say("reset", "physicist").status is Status.DONE
    it.resolve()
    it.say("reset", "operator")
    assert it.run(3).permit


def test_without_a_rule_that_speaks_of_it_disagreement_takes_the_permit_all_the_same() -> None:
    it = agreement.Agreement(None, ["a"])
    good, bad = [(True, False, False)], [(False, True, True)]
    assert not it.compare(good, good, True, 0)
    assert it.action is Action.NONE
    it.compare(good, bad, True, 1)
    assert it.action is Action.ABORT
    it.compare(good, good, True, 2)
    assert it.action is Action.NONE


def test_own_inputs_are_those_of_the_controller() -> None:
    assert len(OWN) == len(OWN_INPUTS)
    values = dict(zip(OWN_INPUTS, evaluator.own_values([1, INVALID, *OWN[2:]]), strict=True))
    assert values["console.age_ms"] == math.inf
    assert values["control.age_ms"] == 0.0
    assert isinstance(rule_set().comparison, Rule)
    spec = latch.spec_of(rule_set().rule("evaluators-disagree"))
    assert spec == latch.LatchSpec(Action.ABORT, True, "physicist", 0)
