"""What chambers say and what is true: a gain that is wrong shows in truth, a voltage that differs does not."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from control.plan.maker import make_plan
from control.plan.model import Plan
from control.plan.program import MachineProgram, compile_program
from facility.config import change_facility, load_facility
from ioc_sim.faults import Fault, FaultKind
from tests.acceptance.deliveries import Delivery, assert_within_the_design, deliver
from tests.acceptance.truth_from_ticks import tolerance_ions
from tests.bring_up import up_ns


@functools.cache
def program() -> MachineProgram:
    """A cube of carbon whose layers are large enough for three per cent to stand out."""
    wuwei = load_facility("wuwei")
    plan = make_plan("cube", 30.0, 150.0, 1.0, "carbon", wuwei, lateral_spacing_mm=3.0, layer_spacing_mm=5.0)
    return compile_program(plan, wuwei, "1")


@functools.cache
def with_gain(chamber: str, gain: float) -> Delivery:
    return deliver(
        program(), load_facility("wuwei"), faults=(Fault(f"{chamber}.gain", FaultKind.SCALE, gain, at_ns=up_ns()),)
    )


@functools.cache
def at_voltage(volt: float | None) -> Delivery:
    changes = {} if volt is None else {"chambers.ic1.voltage_v": volt, "chambers.ic2.voltage_v": volt}
    facility = change_facility(load_facility("wuwei"), changes)
    compiled = compile_program(_plan(), facility, "1")
    return deliver(compiled, facility)


@functools.cache
def _plan() -> Plan:
    wuwei = load_facility("wuwei")
    return make_plan("cube", 20.0, 150.0, 1.0, "carbon", wuwei, lateral_spacing_mm=3.0, layer_spacing_mm=5.0)


def finished(delivery: Delivery) -> tuple[float, float]:
    """Planned and true ions of the spots of the layers that came, the last spot that beam reached left out."""
    planned = true = 0.0
    for layer in delivery.program.layers:
        ions = delivery.counter.layer(layer)[:, 0]
        reached = np.flatnonzero(ions > 0.0)
        whole = reached if reached.size == layer.n_spots else reached[:-1]
        planned += float(layer.target_ions[whole].sum())
        true += float(ions[whole].sum())
    return planned, true


@pytest.mark.parametrize("gain", [1.03, 0.97])
def test_a_wrong_gain_of_the_first_chamber_makes_truth_wrong_until_a_rule_says_so(gain: float) -> None:
    delivery = with_gain("ic1", gain)
    planned, true = finished(delivery)
    assert planned > 0.0
    assert true / planned == pytest.approx(1.0 / gain, abs=3e-3)
    summary = delivery.summary
    assert summary.status in ("interrupted", "terminated")
    assert next(one.rule for one in summary.interlocks) == "chamber-drift"
    assert "chamber-drift" in summary.reason
    assert summary.spots_done < summary.spots
    # the monitor that ends the spots is content with itself, the other one is not
    assert summary.ic2_ions / summary.ic1_ions == pytest.approx(1.0 / gain, abs=5e-3)
    whole = sum(float(delivery.counter.layer(layer)[:, 0].sum()) for layer in delivery.program.layers)
    assert whole == pytest.approx(summary.ic1_ions / gain, rel=3e-3)  # the spot that was cut is in the record


def test_a_wrong_gain_of_the_second_chamber_leaves_truth_alone_and_is_said_too() -> None:
    delivery = with_gain("ic2", 1.03)
    planned, true = finished(delivery)
    assert true / planned == pytest.approx(1.0, abs=3e-3)
    assert next(one.rule for one in delivery.summary.interlocks) == "chamber-drift"


def test_beam_is_off_and_stays_off_after_the_rule_has_spoken() -> None:
    faults = (Fault("ic1.gain", FaultKind.SCALE, 1.03, at_ns=up_ns()),)
    delivery = deliver(program(), load_facility("wuwei"), faults=faults, linger_s=5.0)
    trip_ns = next(e.t_ns for e in delivery.world.events.events if e.kind == "interlock.trip")
    assert delivery.counter.last_ion_ns < trip_ns + 5_000_000
    assert delivery.world.plant.t_ns > trip_ns + 5_000_000_000


@pytest.mark.parametrize("volt", [400.0, 1500.0])
def test_chamber_voltage_changes_nothing_that_is_delivered(volt: float) -> None:
    delivery, usual = at_voltage(volt), at_voltage(None)
    assert_within_the_design(delivery)
    for layer in delivery.program.layers:
        limit, _ = tolerance_ions(layer, delivery.world.facility)
        ions = delivery.counter.layer(layer)[:, 0]
        same = next(one for one in usual.program.layers if one.layer_index == layer.layer_index)
        assert np.all(np.abs(ions - usual.counter.layer(same)[:, 0]) <= limit)
