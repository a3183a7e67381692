"""Trials of the interlocks as the product runs them: a part of them in each test run, all of them in `make soak`."""

from __future__ import annotations

import functools
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from console.main import run
from facility.config import load_facility
from facility.errors import InternalError
from interlocks.explain import bound
from ioc_sim.faults import Fault, FaultKind
from rig.branch import branch
from rig.trials import failed_proof, near_run, truth
from rig.trials.bench import Bench, make_bench
from rig.trials.causes import TrialState, has_number
from rig.trials.report import figures, junit_xml, to_data
from rig.trials.result import TrialResult
from rig.trials.stages import VARIANTS, choose, not_tried_near, run_trials
from rig.trials.truth import Ticks, beam_off_ns, ions_at_most, peak_mgy_per_ion
from rig.trials.watch import carried
from rig.virtual_time import VirtualLoop, run_virtual

RULES = (
    "chamber-disagreement", "spot-overdose-ic2", "dose-rate-peak", "beam-without-demand-ic1", "position-x",
    "chamber-electronics-ic1", "energy-token-ring", "link-safety", "gate", "front-end-beats", "door", "gate-stale",
    "link-plant", "fast-tier-alive", "pauses-spent", "termination-unresolved",
)  # fmt: skip
"""One of each kind of rule, tier, action and cause."""


@functools.cache
def bench() -> Bench:
    return make_bench(load_facility("wuwei"), seed=1)


@functools.cache
def results() -> tuple[TrialResult, ...]:
    found: list[TrialResult] = []
    run_trials(bench(), choose(bench(), RULES, variants=()), found.append)
    return tuple(found)


def test_a_rule_of_each_kind_takes_the_beam_in_every_state_where_it_applies() -> None:
    assert not [f"{result.name}: {result.failures}" for result in results() if not result.passed]
    expected = {(rule, state.value) for rule in RULES for state in bench().trials[rule].applies_in}
    assert {(result.rule, result.state) for result in results()} == expected


def test_times_are_in_order_and_beam_was_there_to_be_taken() -> None:
    with_beam = [r for r in results() if r.state == "spot" and r.action != "INHIBIT"]
    assert len(with_beam) >= 12
    for result in with_beam:
        assert None not in (result.t_condition_ns, result.t_decision_ns, result.t_off_ns)
        assert result.t_cause_ns < result.t_condition_ns <= result.t_decision_ns
        assert 0 < result.surplus_ions <= result.surplus_bound_ions
        assert result.surplus_mgy > 0.0
    found = {figure.name: figure for figure in figures(bench(), results())}
    assert set(found) >= {"condition to decision, tier H", "surplus at the peak"}
    assert 0.0 < found["t_off - t_decision, all actuators"].worst <= found["t_off - t_decision, all actuators"].bound


@pytest.mark.parametrize(("rule", "holds"), [("beam-off-confirmation", True), ("position-x", False)])
def test_the_dump_after_failed_actuators_is_a_line_of_its_own(rule: str, holds: bool) -> None:
    some = next(r for r in results() if r.rule == "position-x" and r.state == "spot")
    slow = replace(some, rule=rule, t_off_ns=some.t_decision_ns + 2_840_000, bound_us=1e6)
    found = {figure.name: figure for figure in figures(bench(), [some, slow])}
    assert found["t_off - t_decision, all actuators"].holds is holds
    assert found["t_off - t_decision, all actuators"].trials == (1 if holds else 2)
    assert ("t_off - t_decision, ring dump after failed actuators" in found) is holds
    suite = ET.fromstring(junit_xml(bench(), [some, slow], 1.5)).find("testsuite")
    assert suite is not None
    assert suite.attrib["failures"] == ("0" if holds else "1")


def test_no_trial_computes_the_depth_dose_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    it, found = bench(), list[TrialResult]()
    monkeypatch.setattr(truth, "depth_dose", None)
    run_trials(it, choose(it, ("position-x",), (TrialState.SPOT,), variants=()), found.append)
    assert [trial.failures for trial in found] == [()]


def test_a_failed_device_is_found_by_its_proof_test_and_a_good_one_fails_the_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[TrialResult] = []
    run_trials(bench(), choose(bench(), ("proof-tests",), variants=()), found.append)
    monkeypatch.setattr(failed_proof, "FAILED", Fault("ic2.injector", FaultKind.SCALE, 1.0))
    run_trials(bench(), choose(bench(), ("proof-tests",), variants=()), found.append)
    failed, good = found
    assert failed.passed, failed.failures
    assert good.failures == ("the proof test of a failed device did not fail: ''",)


def dull_bench(dulled: Callable[[str], bool]) -> Bench:
    """The same facility with limits far out of reach in those rules of its file that have numbers for limits."""
    good = bench()
    rules = tuple(
        rule.model_copy(update={"low": -1e15, "high": 1e15}) if dulled(rule.id) and has_number(rule) else rule
        for rule in good.rules.rules
    )
    return Bench(**{**vars(good), "rules": type(good.rules)(**{**_fields(good.rules), "rules": rules})})


def test_a_rule_that_does_not_act_fails_its_trial() -> None:
    blind = dull_bench(lambda rule_id: rule_id == "position-x")
    found: list[TrialResult] = []
    run_trials(blind, choose(blind, ("position-x",), variants=()), found.append)
    (result,) = found
    assert not result.passed
    assert "the condition never held" in result.failures
    assert "not latched" in result.failures


def test_beam_that_nobody_takes_behind_a_dead_chamber_fails_the_trial() -> None:
    """The rule is blind with its chamber, and nobody else sees what the chamber does not: it is looked at for so long
    as whoever has to notice may take, and not only as long as the rule itself."""
    blind = dull_bench(lambda rule_id: rule_id not in ("dose-rate-high", "proof-tests"))
    dead = next(variant for variant in VARIANTS if variant.name == "chamber 1 dead")
    choice = choose(blind, ("dose-rate-high",), (TrialState.SPOT,), variants=(dead,))
    found: list[TrialResult] = []
    run_trials(blind, choice, found.append)
    (result,) = (trial for trial in found if trial.variant)
    assert result.t_decision_ns is None
    assert "beam was still on when the truth was looked at last" in result.failures


def _fields(rules: object) -> dict[str, object]:
    return {name: getattr(rules, name) for name in rules.__dataclass_fields__}  # type: ignore[attr-defined]


def test_one_beam_off_device_that_fails_is_made_up_for_within_300_us() -> None:
    found: list[TrialResult] = []
    run_trials(bench(), choose(bench(), ("position-x",), (TrialState.SPOT,)), found.append)
    assert not [f"{result.name}: {result.failures}" for result in found if not result.passed]
    acted = {result.variant: result.acted_us for result in found}
    for variant in ("quadrupole stuck", "chopper stuck"):
        assert 0.0 < (acted[variant] or 0.0) <= 300.0
    assert 0.0 < (acted[""] or 0.0) <= 180.0


def test_just_below_a_limit_nothing_trips_and_just_above_it_the_rule_does() -> None:
    found: list[TrialResult] = []
    one, two, at_the_end, of_a_window = "chamber-voltage-ic1", "area-radiation", "layer-timer", "chamber-disagreement"
    in_a_spot = ("spot-overdose-ic1", "spot-overdose-ic2", "position-x", "dose-rate-peak")
    no_device = ("operator-heartbeat", "control-heartbeat", "plant-late")
    rules = (one, two, at_the_end, of_a_window, *in_a_spot, *no_device)
    run_trials(bench(), choose(bench(), rules, (TrialState.SPOT,), variants=(), near=True), found.append)
    near = [result for result in found if "limit" in result.variant]
    assert len(near) == (2 + 4 + 2) + (2 + 2 + 2 + 4 + 2) + 3 * 2
    assert not [f"{result.name}: {result.failures}" for result in found if not result.passed]
    above = [result for result in near if result.near_share == 1.02]
    assert len(above) == len(near) // 2
    assert {result.tripped for result in near if result not in above} == {False}
    for result in above:
        assert (result.t_decision_ns or 0) >= result.t_cause_ns, result.name
        if result.rule == of_a_window and result.acted_us is None:
            continue  # its window has ended in a move, with no beam to take away
        assert result.rule in no_device or 0.0 < (result.acted_us or 0.0) <= 180.0, result.name
    said = {case.attrib["name"]: case.findtext("system-out") or "" for case in cases_of(junit_xml(bench(), near, 1.0))}
    assert "no trip, looked at until +" in said["position-x in spot, 0.98 of the low limit"]
    assert "decision +0.0" in said["position-x in spot, 1.02 of the low limit"]


def test_beam_that_is_off_late_fails_a_trial_near_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_run, "acts_within_us", lambda *_: 1.0)
    found: list[TrialResult] = []
    run_trials(bench(), choose(bench(), ("position-x",), (TrialState.SPOT,), variants=(), near=True), found.append)
    failed = [result for result in found if not result.passed]
    assert {result.near_share for result in failed} == {1.02}
    assert all("us after the decision, at most 1" in result.failures[0] for result in failed)


def test_what_is_not_tried_near_its_limit_is_told_with_the_reason() -> None:
    chosen = ("spot-timeout", "position-x", "door")
    spot = choose(bench(), chosen, (TrialState.SPOT,), near=True)
    told = not_tried_near(bench(), spot)
    assert sorted(told) == ["door", "spot-timeout"]
    assert set(not_tried_near(bench(), choose(bench(), chosen, (TrialState.RING,), near=True))) == set(chosen)
    assert not not_tried_near(bench(), choose(bench(), chosen, near=False))
    assert to_data(bench(), [], 1.0, told)["not_near"] == told
    (skipped,) = [case for case in cases_of(junit_xml(bench(), [], 1.0, told)) if case.find("skipped") is not None]
    assert skipped.attrib["name"] == "spot-timeout near its limit"


def test_who_falls_silent_is_missed_before_a_field_of_several_energies_a_flat_top_is_over() -> None:
    several = make_bench(load_facility("himm-mee"), seed=1)
    found: list[TrialResult] = []
    states = (TrialState.RING, TrialState.SPOT)
    run_trials(several, choose(several, ("control-heartbeat", "holds-spent"), states, variants=()), found.append)
    assert [(result.rule, result.state, result.failures) for result in found] == [
        ("control-heartbeat", "ring", ()), ("holds-spent", "ring", ()), ("holds-spent", "spot", ()),
        ("control-heartbeat", "spot", ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "resolution", "seen"),
    [(1.004, 0.01, 1.0), (1.006, 0.01, 1.01), (-1.004, 0.01, -1.0), (0.950004, 1e-5, 0.95), (math.nan, 0.01, math.nan)],
)
def test_a_condition_is_judged_on_what_the_process_image_carries(value: float, resolution: float, seen: float) -> None:
    assert carried(value, resolution) == pytest.approx(seen, rel=0.0, abs=0.0, nan_ok=True)


def test_what_does_not_fit_the_process_image_arrives_as_no_number() -> None:
    assert math.isnan(carried(3e10, 1.0))
    assert math.isnan(carried(math.inf, 1.0))


def test_a_value_less_than_half_a_step_beyond_its_limit_is_no_late_decision() -> None:
    """The noise of the camera takes the shift to 1.004 mm, one instant long: in steps of 0.01 mm that is no trip."""
    found: list[TrialResult] = []
    run_trials(bench(), choose(bench(), ("patient-position",), (TrialState.ENERGY,)), found.append)
    assert [result.failures for result in found] == [()]


def test_the_seed_moves_the_instant_and_nothing_else_does() -> None:
    first = bench().draw("door", "spot", "").integers(1 << 60)
    assert first == make_bench(load_facility("wuwei"), seed=1).draw("door", "spot", "").integers(1 << 60)
    assert first != bench().draw("door", "move", "").integers(1 << 60)


def cases_of(junit: bytes) -> list[ET.Element]:
    return list(ET.fromstring(junit).iter("testcase"))


def test_junit_says_what_failed() -> None:
    some = results()[:3]
    failed = TrialResult(**{**vars(some[0]), "failures": ("not latched",)})
    root = ET.fromstring(junit_xml(bench(), [failed, *some[1:]], 1.5, None, [0.25, 0.5, 0.75]))
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    summary = [case for case in cases if case.attrib["classname"] == "interlocks.summary"]
    assert {case.attrib["name"] for case in summary} >= {"condition to decision, tier P"}
    assert len(cases) == int(suite.attrib["tests"]) == 3 + len(summary)
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "0")
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == "not latched"
    assert [case.attrib["time"] for case in cases[:3]] == ["0.250", "0.500", "0.750"]
    assert not list(suite.iter("skipped"))


def test_the_command_prints_a_table_writes_junit_and_knows_its_exit_code(tmp_path, capsys) -> None:
    junit = tmp_path / "junit.xml"
    one = ["interlocks", "test", "--rule", "door", "--state", "standby"]
    assert run([*one, "--junit", str(junit)]) == 0
    assert "1 trial in" in capsys.readouterr().out
    suite = ET.parse(junit).getroot()
    assert suite.attrib["failures"] == "0"
    (tried,) = [case for case in suite.iter("testcase") if case.attrib["classname"] == "interlocks.door"]
    assert 0.0 < float(tried.attrib["time"]) <= float(suite.attrib["time"])
    assert run([*one, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["failed"], data["results"][0]["rule"]) == (0, "door")
    assert run(["interlocks", "test", "--rule", "position-x", "--json"]) == 0
    found = {figure["name"]: figure for figure in json.loads(capsys.readouterr().out)["figures"]}
    failed = found["t_off - t_decision, one of quadrupole or chopper failed"]
    assert (failed["trials"], failed["bound"], failed["worst"] <= 300.0) == (2, 300.0, True)
    assert run(["interlocks", "test", "--rule", "position-x", "--state", "standby"]) == 7, "nothing was tried"
    assert "Nothing to try: position-x is tried in spot." in capsys.readouterr().out
    assert run(["interlocks", "test", "--rule", "doors"]) == 2
    assert "no rule 'doors'" in capsys.readouterr().err


# --- the parts -----------------------------------------------------------------------------------------------
def test_beam_off_is_the_last_instant_above_a_thousandth() -> None:
    t_ns = np.arange(1, 101, dtype=np.int64) * 10_000
    ions = np.where(t_ns <= 500_000, 1000, 0).astype(np.int64)
    ticks = Ticks(t_ns, ions, np.zeros(100, np.int64), np.zeros(100, np.int64))
    assert beam_off_ns(ticks, 300_000, 1_000_000, 1000.0) == 540_000  # the mean over 50 us still holds the last tick
    assert beam_off_ns(ticks, 700_000, 1_000_000, 1000.0) is None
    assert beam_off_ns(ticks, 300_000, 450_000, 1000.0) == 450_000


def test_more_ions_are_allowed_the_longer_it_takes_and_never_fewer_than_the_mean() -> None:
    facility = load_facility("wuwei")
    allowed = [ions_at_most(duration, 1e8, 1.0, facility) for duration in (50.0, 200.0, 1000.0, 100_000.0)]
    assert allowed == sorted(allowed)
    assert all(ions > 1e2 * us for ions, us in zip(allowed, (50.0, 200.0, 1000.0, 100_000.0), strict=True))


def test_peak_dose_is_of_the_order_that_the_literature_gives() -> None:
    """2e4 carbon ions of 400 MeV/u in a spot are 0.9 mGy at the entrance and 4 to 5 mGy at the peak for 2.5 mm."""
    facility = load_facility("wuwei")
    dose = 2e4 * peak_mgy_per_ion(facility, "1", "carbon", 400.0) * (1.7 / 2.5) ** 2
    assert 2.0 < dose < 6.0


def test_every_promise_counts_in_the_bound() -> None:
    rule = bench().rules.rule("door")
    (result,) = [r for r in results() if (r.rule, r.state) == ("door", "spot")]
    assert result.bound_us == pytest.approx(bound(rule, bench().rules, bench().facility).total_us)


def test_a_branch_that_fails_says_why() -> None:
    async def trunk() -> list[int]:
        found: list[int] = []

        async def good(emit) -> None:
            emit(41)
            emit(42)

        async def bad(_emit) -> None:
            raise ValueError("broken branch")

        await branch(good, found.append)
        with pytest.raises(InternalError, match="broken branch"):
            await branch(bad, found.append)
        return found

    assert run_virtual(trunk(), VirtualLoop()) == [41, 42]
