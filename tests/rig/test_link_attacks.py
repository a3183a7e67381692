"""Every attack on the safety link, either way, takes the beam within the bound; nothing but a person brings it back.

Judged by raw ticks of the plant's truth, which run on after the wire has become sound again.
"""

from __future__ import annotations

import functools

import pytest

from channels.wire_faults import LinkFault
from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, load_facility
from rig.link_trial import Attack, LinkTrial, Way, run_trial
from rig.link_trial_ca import RealVerdict

MS = 1_000_000


@functools.cache
def site() -> tuple[Facility, MachineProgram]:
    facility = load_facility("wuwei")
    return facility, compile_program(make_small_plan(facility, "carbon"), facility, "1", qa=True)


CASES = [(fault, way) for way in Way for fault in LinkFault] + [(attack, Way.IMAGES) for attack in Attack]


@pytest.mark.parametrize(("attack", "way"), CASES, ids=lambda case: case.value)
def test_an_attack_takes_the_beam_within_the_bound(attack: LinkFault | Attack, way: Way) -> None:
    facility, program = site()
    after_ns = 2 * MS + 370_000 * CASES.index((attack, way))
    verdict = run_trial(facility, program, LinkTrial(attack, way, after_ns, lasts_ns=120 * MS, watched_ns=260 * MS))
    assert verdict.ions_before > 0
    assert verdict.ions_after_bound == 0, verdict
    assert verdict.off_ms < 15.0
    watched = "link-safety" if way is Way.PERMITS else "link-plant"
    assert watched in verdict.trips
    assert not verdict.permit


def test_a_single_fault_of_the_wire_takes_no_beam() -> None:
    """One frame lost, repeated or damaged is refused and passed over: availability is part of the design too."""
    facility, program = site()
    for fault in (LinkFault.DROP, LinkFault.DUPLICATE, LinkFault.CORRUPT):
        verdict = run_trial(facility, program, LinkTrial(fault, Way.IMAGES, 3 * MS, count=1, watched_ns=60 * MS))
        assert verdict.ions_after_bound > 0
        assert verdict.trips == ()
        assert verdict.permit


def test_a_verdict_on_real_processes_tells_a_miss_from_what_was_never_tried() -> None:
    def verdict(before: int, after: int, ran_on_ms: float = 1.0) -> RealVerdict:
        return RealVerdict(0, 100 * MS, 0, before, after, ran_on_ms, 1.0)

    assert not verdict(9, 0).problem
    assert verdict(9, 1).problem.startswith("1 ions more than 100.0 ms after the attack")
    assert not verdict(0, 1).untried, "ions that came too late are a miss, whatever was before"
    assert verdict(0, 0).untried
    assert verdict(0, 0).problem.startswith("no beam before the attack")
    assert verdict(9, 0, 0.0).problem.startswith("truth was not looked at")
