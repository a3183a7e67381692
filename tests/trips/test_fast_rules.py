"""Every rule of tier H, alone in the rack: its cause in the device, its effect by truth.

One rule at a time, so that none can lean on another.  For each: decided, latched, beam off within what it promises
(recomputed from raw ticks), reset refused while the cause is there and accepted afterwards.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from facility.config import load_facility
from facility.pv_catalogue import SPOT_COLUMNS
from facility.signals import INDEX
from facility.states import Action, FrontEndState
from interlocks.explain import bound
from interlocks.rules import RuleSet, compile_fast, load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from rig.trials.causes import Trial, TrialState, load_trials
from tests.plant.layers import MS, Spots, go, grid, new_plant, open_field, start
from tests.trips.beam_off import TICK_NS, beam_off_ns, surplus_ions

LEVEL = 1e8
SINGLE_IONS_US = 800.0
"""A thousandth of the rate is one ion a tick here: by chance the 50 us mean stays above it for two lags more."""


LINES = ("link-safety", "safety-permit", "safety-abort")
ELSEWHERE = ("beam-off-confirmation",)
"""It needs the other rules; see test_confirmation.py."""
GATES = ("safety-hold", "gate")
SPOT_LIMIT_US = {"spot-timeout": 15_000.0}
"""Shorter than in any plan, so that the whole of it fits into a trial."""


@functools.cache
def rule_set() -> RuleSet:
    """The rules of the first room of wuwei."""
    return load_rules(load_facility("wuwei"), "1", "carbon")


@functools.cache
def trials() -> dict[str, Trial]:
    """How each rule is tried, from the file."""
    return load_trials(rule_set())


CAUSES = [rule.id for rule in rule_set().h if rule.id not in (*LINES, *GATES, *ELSEWHERE)]


def plant_with(rule_id: str) -> tuple[Plant, Spots]:
    """A rack with this one rule, irradiating."""
    rules = compile_fast((rule_set().rule(rule_id),))
    plant = new_plant(rules=rules, seed=5, trace_records=1 << 18)
    spots = (
        grid(half_mm=1.6, step_mm=3.2, low=1e6, high=1.25e6)
        if trials()[rule_id].stop_spot
        else grid(half_mm=15.0, low=4e5, high=1e6)
    )
    open_field(plant, 2, 1e15, 2e4)
    plant.request_cycle(77, 150)
    table = spots.table(plant, 150)
    table[:, SPOT_COLUMNS.index("limit_us")] = SPOT_LIMIT_US.get(rule_id, 1e6)
    plant.load_layer(77, 150, LEVEL, table)
    plant.arm(77, plant.status.permit_epoch)
    while plant.status.state != FrontEndState.IRRADIATING:
        plant.advance(plant._now_ns + MS)
    return plant, spots


def instant(rule_id: str, plant: Plant) -> int:
    """A seeded random instant with beam: anywhere within spots, on no grid.

    Rules of the magnets judge nothing while they move: their instant is behind a move.
    """
    rng = np.random.default_rng(sum(rule_id.encode()))
    early = trials()[rule_id].stop_spot
    at_ns = plant._now_ns + int(rng.integers(1 * MS, 3 * MS) if early else rng.integers(30 * MS, 60 * MS))
    if rule_set().rule(rule_id).when == "scan.due":
        go(plant, at_ns)
        for due in (1.0, 0.0):
            while plant.signals[INDEX["scan.due"]] == due:
                go(plant, plant._now_ns + TICK_NS)
        at_ns = plant._now_ns + int(rng.integers(0, 2 * MS))
    return at_ns


TAIL_NS = 20 * MS
"""After a stop: extraction tail and late charge are over."""


def trip(rule_id: str, also: tuple[Fault, ...] = ()) -> tuple[Plant, int]:
    """Inject the cause and run on; the plant and the instant of the cause."""
    plant, _ = plant_with(rule_id)
    for fault in also:
        plant.inject(fault)
    at_ns = instant(rule_id, plant)
    if TrialState.SPOT not in trials()[rule_id].applies_in:
        plant.pause()
        at_ns += TAIL_NS
    for one in trials()[rule_id].faults:
        plant.inject(one.at(at_ns, LEVEL))
    go(plant, at_ns + 400 * MS)
    return plant, at_ns


def points(rule_id: str) -> set[str]:
    """Devices that fail in the trial of a rule."""
    return {fault.point for fault in trials()[rule_id].faults}


@pytest.mark.parametrize("rule_id", CAUSES)
def test_cause_in_the_device_takes_the_beam(rule_id: str) -> None:
    rule = rule_set().rule(rule_id)
    promised = bound(rule, rule_set(), load_facility("wuwei"))
    plant, at_ns = trip(rule_id)
    row = plant.rule_rows[0]
    assert row["latched"] == 1
    condition_ns, decision_ns = int(row["t_condition_ns"]), int(row["t_decision_ns"])
    assert at_ns <= condition_ns <= decision_ns <= condition_ns + 20_000
    trial = trials()[rule_id]
    off_ns = beam_off_ns(plant, at_ns if TrialState.SPOT in trial.applies_in else decision_ns)
    assert off_ns - decision_ns <= (promised.decision_us + promised.actuator_us) * 1000
    if trial.immediate:
        assert off_ns - at_ns <= promised.total_us * 1000
        assert surplus_ions(plant, at_ns) <= 1.5 * trial.rate_factor * LEVEL * promised.total_us * 1e-6
    expected = FrontEndState.ABORTED if rule.strength == Action.ABORT else FrontEndState.PAUSED
    if "fe.freeze" not in points(rule_id):  # a frozen front end cannot even say that it was stopped
        assert plant.status.state in (expected, FrontEndState.DONE)
    assert not plant.status.permit


@pytest.mark.parametrize("rule_id", CAUSES)
def test_reset_is_refused_while_the_cause_is_there(rule_id: str) -> None:
    plant, _ = trip(rule_id)
    if plant.rule_rows[0]["present"]:
        assert plant.reset_fast(1) == 1
    plant.clear_faults()
    plant.disarm()
    go(plant, plant._now_ns + 50 * MS)
    assert plant.rule_rows[0]["latched"] == 1, "a latch never goes by itself"
    ions = plant.truth_total_ions
    assert plant.reset_fast(1) == 0
    go(plant, plant._now_ns + 2000 * MS)
    assert plant.truth_total_ions == ions, "a reset alone never starts beam"


@pytest.mark.parametrize("failed", ["quad.open", "rfko.on"])
@pytest.mark.parametrize("rule_id", ["scan-supplies", "position-x"])
def test_one_failed_actuator_is_made_up_for_by_the_other(rule_id: str, failed: str) -> None:
    promised = bound(rule_set().rule(rule_id), rule_set(), load_facility("wuwei"))
    plant, at_ns = trip(rule_id, (Fault(failed, FaultKind.SET, 1.0),))
    decision_ns = int(plant.rule_rows[0]["t_decision_ns"])
    off_ns = beam_off_ns(plant, at_ns)
    allowed_us = promised.degraded_us + SINGLE_IONS_US if failed == "quad.open" else promised.actuator_us
    assert off_ns - decision_ns <= (promised.decision_us + allowed_us) * 1000


@pytest.mark.parametrize("rule_id", LINES)
def test_lost_line_of_the_safety_link_takes_the_beam(rule_id: str) -> None:
    plant, _ = plant_with(rule_id)
    go(plant, plant._now_ns + 40 * MS)
    at_ns = plant._now_ns
    if rule_id == "link-safety":
        plant.set_safety_lines(True, False, False, personnel=True)
    else:
        plant.set_safety_lines(False, rule_id == "safety-abort", True, personnel=True)
    go(plant, at_ns + 100 * MS)
    assert beam_off_ns(plant, at_ns) - at_ns <= 30_000 + 150_000
    assert plant.status.state in (FrontEndState.PAUSED, FrontEndState.ABORTED)


@pytest.mark.parametrize("rule_id", GATES)
def test_hold_takes_the_beam_and_gives_it_back(rule_id: str) -> None:
    rule = rule_set().rule(rule_id)
    plant, spots = plant_with(rule_id)
    go(plant, plant._now_ns + 40 * MS)
    at_ns = plant._now_ns
    if rule_id == "gate":
        plant.set_gating(True)
        plant.inject(Fault("gate.open", FaultKind.SET, 0.0, at_ns=at_ns, until_ns=at_ns + 100 * MS))
    else:
        plant.set_safety_lines(True, True, True, personnel=True)
    go(plant, at_ns + 90 * MS)
    assert plant.status.state == FrontEndState.HELD
    promised_us = bound(rule, rule_set(), load_facility("wuwei")).total_us + SINGLE_IONS_US + 1000.0
    assert beam_off_ns(plant, at_ns) - at_ns <= promised_us * 1000
    plant.set_safety_lines(True, False, True, personnel=True)
    if rule_id == "gate":
        plant.set_gating(False)
    go(plant, plant._now_ns + 50 * MS)
    assert plant.status.state == FrontEndState.IRRADIATING
    assert plant.rule_rows[0]["latched"] == 0
    assert len(spots.x) > plant.status.done_spots


def test_dead_chamber_of_either_kind_is_noticed_by_the_full_set_of_rules() -> None:
    for device in ("ic1.counts", "ic2.counts"):
        plant = new_plant(rules=rule_set().fast(), seed=6, trace_records=1 << 18)
        start(plant, grid(half_mm=15.0, low=4e5, high=1e6), level=LEVEL)
        while plant.status.state != FrontEndState.IRRADIATING:
            plant.advance(plant._now_ns + MS)
        at_ns = plant._now_ns + 37 * MS
        plant.inject(replace(Fault(device, FaultKind.STUCK), at_ns=at_ns))
        go(plant, at_ns + 400 * MS)
        assert int(plant._latch[0]) != 0
        assert beam_off_ns(plant, at_ns) - at_ns < 110 * MS
