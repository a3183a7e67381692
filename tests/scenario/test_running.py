"""Scenarios in virtual time: a verdict that can fail, and the same one each time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rig.scenario.judge import Wanted, beam_off, failures, surplus_bound
from rig.scenario.loader import load_all
from rig.scenario.model import Act, Expect, Moment, Scenario
from rig.scenario.run_virtual import VirtualRun, run_one, run_scenario
from rig.scenario.stage import Stage

WHY = {"ca": "made for a test", "hil": "made for a test"}


def scenario(**changes: object) -> Scenario:
    facts: dict[str, object] = {
        "id": "chamber-2-dead", "title": "Chamber 2 dies", "rules": ("chamber-disagreement",),
        "at": Moment(layer=0, spot=40, fraction=0.5), "acts": (Act(fault="ic2.gain/dead"),),
        "then": (Act(do="recover"),), "not_on": WHY,
        "expect": Expect(first="chamber-disagreement", also=("chamber-drift",)),
    }  # fmt: skip
    return Scenario(**(facts | changes))  # type: ignore[arg-type]


def test_a_chamber_that_dies_is_seen_accounted_for_and_the_field_completed_at_the_exact_remainder() -> None:
    found = run_scenario(scenario())
    assert found.failures == ()
    assert (found.verdict, found.state, found.end, found.reset_by) == ("passed", "TERMINATED", "COMPLETED", "physicist")
    assert found.off_us is not None
    assert found.bound_us is not None
    assert 0.0 < found.off_us < found.bound_us
    assert ("operator", "reset", "safety.role") in found.answers
    assert found.final is not None
    assert (found.final.beyond, found.final.unplanned_ions) == (0, 0.0)
    assert found == run_scenario(scenario())


@pytest.fixture(scope="module")
def ran() -> tuple[Stage, VirtualRun]:
    """The scenario above, run once and judged in many ways."""
    stage = Stage.of(scenario())
    world = stage.world()
    run = VirtualRun(scenario(), stage, world)
    world.run(run.run)
    return stage, run


@pytest.mark.parametrize(
    ("expect", "failure"),
    [
        (Expect(first="chamber-drift", also=("chamber-disagreement",)), "tripped first, expected chamber-drift"),
        (Expect(first=""), "chamber-disagreement tripped, and nothing should"),
        (Expect(first="chamber-disagreement", off_within_ms=0.5), "beam off"),
        (Expect(first="chamber-disagreement", surplus_within_ions=1000.0), "ions after the cause, at most 1000"),
        (Expect(first="chamber-disagreement", state="HELD"), "control is TERMINATED, expected HELD"),
        (Expect(first="chamber-disagreement", latched=False), "chamber-disagreement is latched"),
        (Expect(first="chamber-disagreement", reset="operator"), "expected that of the operator"),
        (Expect(first="chamber-disagreement", end="INTERRUPTED"), "it ends COMPLETED, expected INTERRUPTED"),
        (Expect(first="chamber-disagreement", worst_pct=0.001), "worst spot"),
    ],
)  # fmt: skip
def test_what_is_not_as_expected_fails(ran: tuple[Stage, VirtualRun], expect: Expect, failure: str) -> None:
    stage, run = ran
    wanted = Wanted.of(scenario(expect=expect), stage.rules, stage.facility)
    off_ns, ions = beam_off(run.seen)
    said = list(failures(wanted, run.seen, off_ns, ions, surplus_bound(wanted, stage.level(0), stage.facility)))
    assert any(failure in words for words in said), said


def test_what_a_busy_machine_trips_is_no_verdict_on_hardware(ran: tuple[Stage, VirtualRun]) -> None:
    stage, run = ran
    wanted = Wanted.of(
        scenario(expect=Expect(first="chamber-disagreement", state="INTERRUPTED")), stage.rules, stage.facility
    )
    seen = replace(run.seen, latched=("chamber-disagreement", "link-plant"))
    off_ns, ions = beam_off(seen)
    said = list(failures(wanted, seen, off_ns, ions, math.inf))
    assert said == ["other rules latched: link-plant", "control is TERMINATED, expected INTERRUPTED"]
    assert list(failures(wanted, replace(seen, busy=frozenset({"link-plant"})), off_ns, ions, math.inf)) == []


def test_a_moment_that_never_comes_fails_with_its_key() -> None:
    found = run_scenario(scenario(at=Moment(layer=0, spot=4000)))
    assert found.verdict == "failed"
    assert "key at.spot" in found.failures[0]


def test_a_skip_has_its_reason() -> None:
    found = run_scenario(scenario(targets=("ca",), not_on={"virtual": "it needs a process", "hil": "x"}))
    assert (found.verdict, found.reason) == ("skipped", "it needs a process")


def test_the_smoke_scenarios_of_the_project() -> None:
    chosen = [one for one in load_all() if one.scenario.tier == "smoke"]
    assert chosen
    for one in chosen:
        assert run_one(one).failures == (), one.scenario.id


def test_a_moment_lies_where_the_spot_has_got_that_share_of_its_ions() -> None:
    stage = Stage.of(scenario())
    ticks = stage.timeline().trace
    target = stage.program.layers[0].target_ions[12]
    for fraction in (0.25, 0.5, 0.75):
        t_ns = stage.timeline().instant_ns(Moment(layer=0, spot=12, fraction=fraction))
        first = ticks[(ticks["spot"] == 12) & (ticks["token"] == stage.program.layers[0].token)]["t_ns"][0]
        got = ticks["ions"][(ticks["t_ns"] > first) & (ticks["t_ns"] <= t_ns)].sum()
        assert abs(got - fraction * target) < 0.02 * target
