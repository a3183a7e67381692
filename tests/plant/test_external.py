"""A supply behind somebody else's IOC, in the rack: gated spots, stale and wrong readings, lines of an I/O card."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from facility.config import Facility, change_facility, load_facility
from facility.states import FrontEndState
from interlocks.rules import load_rules
from ioc_sim.layout import FLAG_DEMAND
from ioc_sim.plant import Plant
from tests.plant.layers import MS, S, Spots, check_truth, new_plant, start

AGE_MS = 20.0
READ_NS = 6 * MS
LEVEL = 1e6
DEVICE = {"prefix": "PS1:", "address": "127.0.0.1:5072", "readback": "Current-RB", "setpoint": "Current-SP",
          "unit": "A", "mode": "per_spot", "max_age_ms": AGE_MS, "settle_ms": 100.0}  # fmt: skip


def external(**sections: object) -> Facility:
    return change_facility(load_facility("wuwei"), sections)


@dataclass
class Supply:
    """Follows its set point one slice after it was told, reads every 6 ms, unless it is told otherwise."""

    name: str = "scan_x"
    silent: bool = False
    bias: float = 0.0
    good: bool = True
    deaf: bool = False
    set_a: float = math.nan
    asked_a: float = math.nan
    next_ns: int = 0

    def slice(self, plant: Plant, wanted_a: float) -> None:
        if not self.deaf and not self.silent:
            self.set_a, self.asked_a = self.asked_a, wanted_a
        if self.silent or plant._now_ns < self.next_ns:
            return
        self.next_ns = plant._now_ns + READ_NS
        flows = 0.0 if math.isnan(self.set_a) else self.set_a
        plant.external_reading(self.name, flows + self.bias, plant._now_ns, self.good, self.set_a)


def run(plant: Plant, supply: Supply, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """In slices of 2 ms, until something is so."""
    end = plant._now_ns + round(seconds * S)
    while not until():
        if plant._now_ns >= end:
            raise AssertionError(f"not within {seconds} s: {plant.status}")
        supply.slice(plant, plant.external_wanted().setpoints[0])
        target = plant._now_ns + 2 * MS
        while plant.advance(target) < target:
            pass


def layer(n: int = 4) -> Spots:
    return Spots(np.arange(n) * 3.0 - 4.0, np.full(n, 2.0), np.full(n, 1.5e5))


def ready(facility: Facility, supply: Supply) -> tuple[Plant, Spots]:
    rules = load_rules(facility, "1", "carbon").fast()
    plant, spots = new_plant(facility=facility, rules=rules), layer()
    run(plant, supply, lambda: plant._now_ns > 2 * S)
    start(plant, spots, level=LEVEL)
    return plant, spots


def state(plant: Plant) -> FrontEndState:
    return plant.status.state


def first(plant: Plant) -> str:
    found = plant.status.first_rule
    return "" if found < 0 else plant.rule_ids[found]


def test_spots_are_gated_and_within_tolerance_by_truth() -> None:
    supply = Supply()
    plant, spots = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: state(plant) is FrontEndState.DONE)
    check_truth(plant, spots, LEVEL)
    truth = plant.truth_spots()[77]
    np.testing.assert_allclose(truth[:, 1] / truth[:, 0], spots.x, atol=0.6)
    ticks = plant.trace[: plant.truth_count]
    demand = (ticks["flags"] >> FLAG_DEMAND) & 1
    for spot in range(1, 4):
        mine = np.flatnonzero(ticks["spot"] == spot)
        waited = np.flatnonzero(demand[mine] == 1)[0]
        assert waited * 10_000 >= READ_NS, "beam before two readings of the new set point"


@pytest.mark.parametrize(
    ("fail", "rule", "bound_ms"),
    [
        (lambda supply: setattr(supply, "silent", True), "external-device", AGE_MS + 1.0),
        (lambda supply: setattr(supply, "good", False), "external-device", 6.0 + 1.0),
        (lambda supply: setattr(supply, "bias", math.nan), "external-device", 6.0 + 1.0),
        (lambda supply: setattr(supply, "bias", 15.0), "scan-readback-x", 6.0),
    ],
    ids=["silent", "in alarm", "no number", "wrong"],
)
def test_a_device_that_fails_takes_the_beam_in_time(fail: Callable[[Supply], None], rule: str, bound_ms: float) -> None:
    supply = Supply()
    plant, _ = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: plant.status.spot == 1 and plant.status.demand)
    run(plant, supply, lambda: plant.status.beam_us > 180_000.0)
    last_ns = plant._now_ns
    fail(supply)
    run(plant, supply, lambda: not plant.status.permit, seconds=1.0)
    assert first(plant) == rule
    run(plant, supply, lambda: plant._now_ns > last_ns + 200 * MS)
    ticks = plant.trace[: plant.truth_count]
    off_ns = ticks["t_ns"][ticks["ions"] > 0][-1]
    assert off_ns - last_ns <= (bound_ms + 2.0) * MS + 1 * MS  # a slice, and what the devices take


def test_no_beam_without_an_acknowledged_set_point() -> None:
    supply = Supply()
    plant, _ = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: plant.status.spot == 1 and plant.status.demand)
    supply.deaf = True
    run(plant, supply, lambda: plant.status.spot == 2)
    at = plant.truth_total_ions
    run(plant, supply, lambda: plant._now_ns > 0, seconds=0.1)
    with pytest.raises(AssertionError, match="not within"):
        run(plant, supply, lambda: plant.status.demand, seconds=0.3)
    tail = 2e-3 * LEVEL
    assert plant.truth_total_ions - at < tail
    supply.deaf = False
    run(plant, supply, lambda: plant.status.demand, seconds=0.5)


def test_readings_grow_old_while_facility_time_stands_still() -> None:
    plant, _ = ready(external(external={"scan_x": DEVICE}), Supply())
    assert all(one.good and one.in_time for one in plant.external_states())
    plant.external_slip(round(AGE_MS * MS))
    plant.advance(plant._now_ns + MS)
    assert not plant.external_states()[0].in_time


def test_a_reading_from_the_future_does_not_stay_young() -> None:
    plant, _ = ready(external(external={"scan_x": DEVICE}), Supply())
    plant.external_reading("scan_x", 0.0, plant._now_ns + S, True, 0.0)
    plant.advance(plant._now_ns + MS)
    assert not plant.external_states()[0].in_time


def test_a_lost_connection_needs_no_age() -> None:
    supply = Supply()
    plant, _ = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: plant.status.demand)
    plant.external_lost("scan_x")
    supply.silent = True
    run(plant, supply, lambda: plant._now_ns > 0, seconds=0.1)
    supply_ns = plant._now_ns
    run(plant, supply, lambda: not plant.status.permit, seconds=0.01)
    assert plant._now_ns - supply_ns <= 4 * MS


BATCHES = {
    "no number": [(math.nan, False, 0), (0.0, True, 0)],
    "in alarm": [(0.0, False, 0), (0.0, True, 0)],
    "two good ones after it": [(0.0, False, 0), (0.0, True, 0), (0.0, True, 0)],
    "a good one soon after it": [(0.0, False, 0), (0.0, True, 10_000)],
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_good_reading_does_not_hide_the_bad_one_before_it(batch: list[tuple[float, bool, int]]) -> None:
    supply = Supply()
    plant, _ = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: plant.status.spot == 1 and plant.status.demand)
    run(plant, supply, lambda: plant.status.beam_us > 180_000.0)
    begun_ns = plant._now_ns
    for value, good, after_ns in batch:
        while plant.advance(begun_ns + after_ns) < begun_ns + after_ns:
            pass
        plant.external_reading("scan_x", supply.set_a + value, begun_ns, good, supply.set_a)
    run(plant, supply, lambda: plant._now_ns >= begun_ns + 4 * MS)
    assert first(plant) == "external-device"
    assert not plant.status.permit
    run(plant, supply, lambda: plant.external_states()[0].good, seconds=0.01)


def test_a_connection_that_is_back_at_once_has_been_lost() -> None:
    supply = Supply()
    plant, _ = ready(external(external={"scan_x": DEVICE}), supply)
    run(plant, supply, lambda: bool(plant.status.demand))
    plant.external_lost("scan_x")
    plant.external_reading("scan_x", supply.set_a, plant._now_ns, True, supply.set_a)
    run(plant, supply, lambda: not plant.status.permit, seconds=0.004)
    assert first(plant) == "external-device"


def test_a_slow_device_is_read_and_not_a_number_when_it_is_old() -> None:
    device = {"prefix": "VA:", "address": "127.0.0.1:5073", "readback": "Pressure", "unit": "mbar", "mode": "none",
              "max_age_ms": 500.0}  # fmt: skip
    plant = new_plant(facility=external(external={"vacuum_ring_mbar": device}))
    from facility.signals import VACUUM_RING

    plant.external_reading("vacuum_ring_mbar", 3e-8, plant._now_ns, True, math.nan)
    plant.advance(plant._now_ns + 10 * MS)
    assert plant.signals[VACUUM_RING] == 3e-8
    plant.advance(plant._now_ns + 600 * MS)
    assert math.isnan(plant.signals[VACUUM_RING])


def test_the_chamber_has_the_voltage_that_its_supply_reads() -> None:
    device = {**DEVICE, "prefix": "HV1:", "unit": "V", "mode": "constant", "setpoint": "Voltage-SP"}
    plant = new_plant(facility=external(external={"ic1_hv": device}))
    from facility.signals import IC1_HV_REL

    plant.external_reading("ic1_hv", 1350.0, plant._now_ns, True, 1500.0)
    plant.advance(plant._now_ns + 10 * MS)
    assert plant.signals[IC1_HV_REL] == pytest.approx(0.9)
    assert plant.external_wanted().setpoints[2] == 1500.0


def test_the_gate_line_of_a_card_gates_and_closes_when_it_is_silent() -> None:
    lines = {"driver": "udp", "listen": "127.0.0.1:0", "peer": "127.0.0.1:1", "inputs": ["gate", "trip"],
             "max_age_ms": 20.0}  # fmt: skip
    plant = new_plant(facility=external(lines=lines))

    def gate_after(value: float, ms: int) -> float:
        from facility.signals import GATE_OPEN

        plant.external_reading("lines", value, plant._now_ns, True, math.nan)
        plant.advance(plant._now_ns + ms * MS)
        return float(plant.signals[GATE_OPEN])

    assert [gate_after(1.0, 5), gate_after(0.0, 5), gate_after(1.0, 5), gate_after(1.0, 40)] == [1.0, 0.0, 1.0, 0.0]
