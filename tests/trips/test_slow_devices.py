"""Slow devices: each fails in the device, and its rule of tier P sees it in time; without a fault none is near a limit.

The rules look at process images of a plant, a millisecond apart, as the safety controller does.
"""

from __future__ import annotations

import functools
import math
import re

import numpy as np
import pytest

from facility import signals as g
from facility.config import load_facility
from facility.states import FrontEndState
from interlocks import evaluator, process_image
from interlocks.explain import bound
from interlocks.rules import RuleSet, load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.physics.utilities import DEVICES, N_ANALOGUE
from ioc_sim.plant import Plant
from tests.plant.layers import MS, go, grid, new_plant, start

FAULTS: dict[str, Fault] = {
    "ring-frequency": Fault("rf.frequency_rel", FaultKind.SCALE, 1.0005),
    "hebt-dipole": Fault("hebt.dipole_rel", FaultKind.SCALE, 0.99),
    "hebt-quadrupole": Fault("hebt.quad_rel", FaultKind.DEAD),
    "septum-voltage": Fault("septum.hv_rel", FaultKind.DEAD),
    "bump-current": Fault("bump.current_rel", FaultKind.SCALE, 1.1),
    "range-shifter-switches": Fault("rs.code_b", FaultKind.OFFSET, 1.0),
    "ripple-filter": Fault("ripple.code", FaultKind.SET, 2.0),
    "beam-route": Fault("hebt.route_b", FaultKind.SET, 2.0),
    "timing-late": Fault("timing.late_us", FaultKind.OFFSET, 50.0),
    "timing-token": Fault("timing.token", FaultKind.OFFSET, 1.0),
    "gas-density-ic1": Fault("ic1.ktp", FaultKind.SCALE, 1.03),
    "gas-density-ic2": Fault("ic2.ktp", FaultKind.SCALE, 0.97),
    "gas-flow": Fault("gas.flow_rel", FaultKind.DEAD),
    "loss-hebt": Fault("loss.hebt_usv_h", FaultKind.SCALE, 1000.0),
    "stray-room": Fault("stray.room_usv_h", FaultKind.SCALE, 100.0),
    "area-radiation": Fault("area.dose_usv_h", FaultKind.OFFSET, 10.0),
    "gate-source": Fault("gate.source_ok", FaultKind.DEAD),
    "gate-drift": Fault("gate.drift_mm", FaultKind.OFFSET, -2.0),
    "patient-position": Fault("patient.shift_mm", FaultKind.OFFSET, 1.6),
    "patient-position-gross": Fault("patient.shift_mm", FaultKind.OFFSET, -5.0),
    "patient-rotation": Fault("patient.rotation_deg", FaultKind.OFFSET, 3.0),
    "collision": Fault("guard.a_clear", FaultKind.SET, 0.0),
    "snout-motion": Fault("snout.speed_mm_s", FaultKind.OFFSET, 5.0),
    "ups": Fault("ups.ok", FaultKind.DEAD),
    "intercom": Fault("intercom.ok", FaultKind.NAN),
    "cooling-flow": Fault("cooling.flow_rel", FaultKind.DEAD),
    "cooling-temperature": Fault("cooling.temperature_c", FaultKind.OFFSET, 40.0),
    "vacuum-ring": Fault("vacuum.ring_mbar", FaultKind.SET, 1e-6),
    "vacuum-hebt": Fault("vacuum.hebt_mbar", FaultKind.SET, 1e-4),
}
NOMINAL = {g.SIGNALS[device.signal].name: device.nominal for device in DEVICES}
SLOW = set(NOMINAL)


@functools.cache
def rule_set() -> RuleSet:
    """The rules of the first room of wuwei."""
    return load_rules(load_facility("wuwei"), "1", "carbon")


def irradiating(seed: int = 5) -> Plant:
    """A plant with a long layer under way."""
    plant = new_plant(seed=seed)
    start(plant, grid(half_mm=15.0, low=4e5, high=1e6), level=1e7)
    while plant.status.state != FrontEndState.IRRADIATING:
        plant.advance(plant._now_ns + MS)
    return plant


def images(plant: Plant, count: int) -> np.ndarray:
    """Decoded process images of the next milliseconds, shape (count, N_IMAGE)."""
    found = np.empty((count, process_image.N_IMAGE))
    for row in found:
        until_ns = (plant._now_ns // MS + 1) * MS
        while plant.advance(until_ns) < until_ns:
            pass
        with np.errstate(invalid="ignore"):
            row[:] = process_image.decode(process_image.image_of(plant.signals))
    return found


@functools.cache
def fault_free() -> np.ndarray:
    """Two seconds of a layer without a fault."""
    return images(irradiating(), 2000)


def bad(rule_id: str, values: np.ndarray) -> bool:
    probe = evaluator.probe(rule_set().rule(rule_id))
    inputs = [*values.tolist(), math.nan, math.nan]
    return evaluator.applies(probe, inputs) and not evaluator.judge(probe, inputs).good


def test_every_rule_on_a_slow_device_is_tried_here() -> None:
    assert {rule.id for rule in rule_set().rules if SLOW & set(rule.inputs)} == set(FAULTS)


@pytest.mark.parametrize("rule_id", FAULTS)
def test_a_failing_device_is_seen_in_time_and_a_good_one_is_not(rule_id: str) -> None:
    assert not any(bad(rule_id, values) for values in fault_free())
    plant = irradiating()
    fault = FAULTS[rule_id]
    at_ns = plant._now_ns
    plant.inject(Fault(fault.device, fault.kind, fault.value, at_ns=at_ns))
    allowed_us = bound(rule_set().rule(rule_id), rule_set(), plant.facility).observation_us + 1000.0
    assert any(bad(rule_id, images(plant, 1)[0]) for _ in range(int(allowed_us / 1000.0)))
    plant.clear_faults()
    go(plant, plant._now_ns + 5 * int(allowed_us) * 1000)
    assert not any(bad(rule_id, values) for values in images(plant, 5)), "a mended device is good again"


@pytest.mark.parametrize("rule_id", [r for r in FAULTS if "sigma" in rule_set().rule(r).sigma])
def test_the_limits_are_as_many_sigma_away_as_the_rule_says(rule_id: str) -> None:
    """A rule whose limits are not equally far away gives both, the low one first."""
    rule = rule_set().rule(rule_id)
    claimed = [float(words) for words in re.match(r"(\d+) sigma(?:.* limit, (\d+) to)?", rule.sigma).groups() if words]  # type: ignore[union-attr]
    values = fault_free()[:, process_image.PLACE[rule.inputs[0]]]
    mean, sigma = values.mean(), values.std()
    limits = [limit for limit in (rule.low, rule.high) if limit is not None]
    for limit, share in zip(limits, claimed * 2 if len(claimed) == 1 else claimed, strict=False):
        distance = abs(limit - mean) / sigma
        assert 0.8 * share <= distance <= 1.25 * share, f"{distance:.1f} sigma to {limit:g}"


NOT_ZERO = [r for r in FAULTS if rule_set().rule(r).kind == "limit" and NOMINAL[rule_set().rule(r).inputs[0]] != 0.0]
"""Rules on quantities that are never zero in a good machine."""


def test_a_quantity_that_is_never_zero_has_a_low_limit_that_a_dead_sensor_is_below() -> None:
    assert len(NOT_ZERO) >= 15
    assert [rule_id for rule_id in NOT_ZERO if not (rule_set().rule(rule_id).low or 0.0) > 0.0] == []


@pytest.mark.parametrize(
    "rule_id", ["cooling-temperature", "vacuum-ring", "vacuum-hebt", "loss-hebt", "stray-room", "area-radiation"]
)
def test_a_dead_sensor_is_seen_as_soon_as_what_it_should_see(rule_id: str) -> None:
    rule, plant = rule_set().rule(rule_id), irradiating()
    plant.inject(Fault(rule.inputs[0], FaultKind.DEAD, at_ns=plant._now_ns))
    allowed_ms = round(bound(rule, rule_set(), plant.facility).observation_us / 1000.0) + 1
    seen = images(plant, allowed_ms + 50)
    first = next(k for k, values in enumerate(seen) if bad(rule_id, values))
    assert first < allowed_ms
    assert all(bad(rule_id, values) for values in seen[allowed_ms:]), "and for good"


def test_the_noisy_ones_come_first_and_in_the_order_of_the_signals() -> None:
    assert [device.signal for device in DEVICES] == list(range(g.FIRST_SLOW, g.LAST_SLOW + 1))
    assert all((device.noise > 0.0) == (k < N_ANALOGUE) for k, device in enumerate(DEVICES))


def test_a_stopped_pump_lets_the_pressure_rise_and_a_gauge_without_a_number_says_so() -> None:
    plant = new_plant()
    plant.inject(Fault("cooling.temperature_c", FaultKind.OFFSET, 40.0, at_ns=plant._now_ns))
    rise = images(plant, 1500)[:, process_image.PLACE["cooling.temperature_c"]]
    assert rise[10] < 27.0
    assert rise[500] == pytest.approx(25.0 + 40.0 * (1.0 - math.exp(-1.0)), abs=1.0)
    assert rise[-1] == pytest.approx(63.0, abs=1.0)
    plant.inject(Fault("cooling.temperature_c", FaultKind.NAN))
    assert math.isnan(images(plant, 1)[0, process_image.PLACE["cooling.temperature_c"]])
    plant.clear_faults()
    assert images(plant, 1)[0, process_image.PLACE["cooling.temperature_c"]] == pytest.approx(63.0, abs=1.5)
