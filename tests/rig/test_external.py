"""Hardware in the loop around the rack: bounds, hazard, targets, pace."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_even_plan, make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, change_facility, load_facility
from facility.errors import PlanError, UsageError
from interlocks.explain import bound, matrix
from interlocks.rules import load_rules
from rig.deliver import DeliveryRequest, deliver_plan
from rig.external.hazard import require_hazard_bounds
from rig.home import Home
from rig.pacing import LATENESS_MS, NS_PER_MS, Pacer
from rig.supervisor import RunOptions, Supervisor

WUWEI = load_facility("wuwei")
SUPPLY = {"prefix": "PS1:", "address": "127.0.0.1:5072", "readback": "Current-RB", "setpoint": "Current-SP",
          "unit": "A", "mode": "per_spot", "max_age_ms": 40.0}  # fmt: skip


def gated(**changes: object) -> Facility:
    return change_facility(WUWEI, {"external": {"scan_x": {**SUPPLY, **changes}}})


def even(facility: Facility) -> MachineProgram:
    return compile_program(make_even_plan(facility, "carbon", 3), facility, "1")


def test_rules_that_read_the_device_are_bounded_by_two_ages_and_marked() -> None:
    rules = load_rules(WUWEI, "1", "carbon")
    facility = gated()
    slow = {row.rule: row.bound_us for row in matrix(rules, facility) if not row.fast}
    assert set(slow) == {"scan-readback-x", "scan-field-x", "scan-settling", "external-device"}
    for name, bound_us in slow.items():
        assert bound_us == pytest.approx(bound(rules.rule(name), rules, WUWEI).total_us + 80_000.0)
    assert all(row.fast for row in matrix(rules, WUWEI))


def test_spots_last_five_ages_at_least() -> None:
    program = even(gated())
    layer = program.layers[0]
    assert float(layer.target_ions.min()) / layer.intensity_ions_per_s >= 0.2
    with pytest.raises(PlanError, match="too short"):
        compile_program(make_small_plan(WUWEI, "carbon"), gated(), "1", qa=True)


def test_a_delivery_whose_hazard_bound_would_break_is_refused() -> None:
    program = even(gated())
    require_hazard_bounds(program, gated())
    require_hazard_bounds(program, WUWEI)
    with pytest.raises(PlanError) as caught:
        require_hazard_bounds(program, gated(hazard_share=0.3))
    words = str(caught.value)
    assert caught.value.code == "external.hazard"
    assert all(part in words for part in ("scan-readback-x", "80.", "lightest spot", "at most 30%", "layer 0"))


def test_each_facility_has_its_target(tmp_path: Path) -> None:
    plan = tmp_path / "even.dcm"
    write_dicom_plan(make_even_plan(gated(), "carbon", 3), plan)

    def refused(facility: Facility, target: str, speed: float | None = None) -> str:
        request = DeliveryRequest(plan, facility, "1", Home(tmp_path / "home"), speed=speed)
        with pytest.raises(UsageError) as caught:
            deliver_plan(request, target)
        return str(caught.value)

    assert "gives scan_x to hardware" in refused(gated(), "virtual")
    assert "--target hil" in refused(gated(), "ca")
    assert "gives no device to an external IOC" in refused(WUWEI, "hil")
    assert "hardware knows one speed" in refused(gated(), "hil", 2.0)
    with pytest.raises(UsageError, match="one speed"):
        Supervisor(Home(tmp_path / "home"), "wuwei").up(gated(), RunOptions("1", "carbon", speed=2.0))


def test_the_pace_has_a_histogram() -> None:
    pacer = Pacer(2.0)
    pacer.start(0, 0)
    wall = 0
    for late_ms in (0.0, 0.5, 1.5, 3.0, 30.0, 700.0):
        wall += pacer.wait_ns(wall) + round(late_ms * NS_PER_MS)
        pacer.target_ns(wall)
    assert sum(pacer.histogram) == pacer.slices == 6
    expected = [0] * (len(LATENESS_MS) + 1)
    for place in (0, 0, 1, 2, 5, 9):
        expected[place] += 1
    assert pacer.histogram == expected
    assert pacer.late_ticks == pytest.approx(730.0 * 2.0 * 100.0)
    assert not math.isnan(pacer.late_ticks)
