"""What a device is set to within one spot, so that its reading, or the spot's dose, is a chosen share of a limit."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from facility.config import load_facility
from facility.errors import InternalError
from interlocks.model import Rule
from interlocks.rules import load_rules
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearDose, NearSpot, load_trials
from rig.trials.near_dose import SpotSeen, faults_of_dose
from rig.trials.near_spot import AFTER_NS, BEFORE_NS, GOES_ON_NS, TICK_NS, faults_at, goes_on, within_spots
from rig.trials.truth import Ticks

RULES = load_rules(load_facility("wuwei"), "1", "carbon")
TRIALS = load_trials(RULES)
AT_NS = 10_004_321


@pytest.mark.parametrize("share", [0.98, -1.02])
def test_a_reading_is_set_to_the_share_of_its_limit(share: float) -> None:
    """The supply's set point is 40 A, 2 mm an ampere; the probe reads in T m, against a readback with an offset."""
    looked: list[int] = []

    async def look(faults: tuple[Fault, ...], at_ns: int, signal: str) -> float:
        looked.append(at_ns)
        readback = next((fault.value for fault in faults if fault.device == "scan_x.readback"), 40.0)
        if signal == "scan_x.err_mm":
            return (readback - 40.0) * 2.0 + 0.25
        return (faults[0].value * 1e3 - readback) * 2.0

    rule, near = RULES.rule("scan-field-x"), TRIALS["scan-field-x"].near_spot
    assert near is not None
    probe, readback = asyncio.run(faults_at(rule, near, 1.0, share, AT_NS, look))
    assert {(one.kind, one.at_ns, one.until_ns) for one in (probe, readback)} == {
        (FaultKind.SET, AT_NS, AT_NS + 300_000)
    }
    assert set(looked) == {AT_NS + 300_000}
    assert (readback.device, readback.value) == ("scan_x.readback", pytest.approx(39.875))
    assert (probe.value * 1e3 - readback.value) * 2.0 == pytest.approx(share)
    with pytest.raises(InternalError, match=r"does not follow strip\.x"):
        asyncio.run(faults_at(rule, NearSpot(point="strip.x"), 1.0, share, AT_NS, _still))


async def _still(_faults: tuple[Fault, ...], _at_ns: int, _signal: str) -> float:
    return 0.3


def test_the_dose_of_a_spot_is_read_as_the_share_of_its_limit() -> None:
    async def watch(faults: tuple[Fault, ...], _at_ns: int, _rule: Rule) -> SpotSeen:
        return SpotSeen(0.0, 403_000.0 + 61.8 * sum(fault.value for fault in faults), 400_000.0)

    rule = RULES.rule("spot-overdose-ic2")
    (fault,) = asyncio.run(faults_of_dose(rule, NearDose(point="ic2.counts"), 0.98, AT_NS, watch))
    limit = 1.12 * 400_000.0 + 25_000.0
    assert (fault.device, fault.kind, fault.at_ns) == ("ic2.counts", FaultKind.OFFSET, AT_NS)
    assert 403_000.0 + 61.8 * fault.value == pytest.approx(0.98 * limit, abs=31.0)

    async def deaf(_faults: tuple[Fault, ...], _at_ns: int, _rule: Rule) -> SpotSeen:
        return SpotSeen(0.0, 403_000.0, 400_000.0)

    with pytest.raises(InternalError, match="does not follow"):
        asyncio.run(faults_of_dose(rule, NearDose(point="ic2.counts"), 0.98, AT_NS, deaf))


def test_a_chamber_that_steers_ends_the_spot_for_its_counts() -> None:
    """Short of the target nothing comes of a few counts; beyond it a count is 107 ions, and 9,000 are on their way."""

    async def watch(faults: tuple[Fault, ...], _at_ns: int, _rule: Rule) -> SpotSeen:
        soon = 250_000.0 + 107.0 * sum(fault.value for fault in faults)
        return SpotSeen(soon, soon + 9_000.0 if soon > 400_000.0 else 401_000.0, 400_000.0)

    rule = RULES.rule("spot-overdose-ic1")
    (fault,) = asyncio.run(faults_of_dose(rule, NearDose(point="ic1.counts", steers=True), 1.02, AT_NS, watch))
    assert 259_000.0 + 107.0 * fault.value == pytest.approx(1.02 * (1.10 * 400_000.0 + 20_000.0), abs=54.0)


def test_instants_lie_well_within_a_spot_and_beam_that_goes_on() -> None:
    spots = np.repeat(np.arange(12), 300)  # 3 ms each
    t_ns = np.arange(spots.size, dtype=np.int64) * TICK_NS
    t_ns[spots >= 6] += 50_000_000  # the beam was off
    seen = Ticks(t_ns, np.zeros_like(t_ns), np.zeros_like(t_ns), spots.astype(np.int64))
    assert set(spots[within_spots(seen)]) == set(range(12))
    kept = within_spots(seen) & goes_on(seen)
    assert kept.any()
    for i in np.flatnonzero(kept):
        assert spots[i - BEFORE_NS // TICK_NS] == spots[i] == spots[i + AFTER_NS // TICK_NS - 1]
        assert t_ns[i + GOES_ON_NS // TICK_NS - 1] - t_ns[i] == GOES_ON_NS - TICK_NS
    assert set(spots[kept]) == {0, 1, 6, 7}
