"""Beam-off confirmation: what is not confirmed is dumped, and nothing more is injected.  Judged by raw ticks."""

from __future__ import annotations

import functools

import pytest

from facility import signals as g
from facility.config import load_facility
from facility.states import Action, FrontEndState, RingPhase
from interlocks.explain import bound, dump_us, escalated_us
from interlocks.rules import RuleSet, load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, go, grid, new_plant, start
from tests.trips.beam_off import beam_off_ns, ticks

BLOCKERS = (Fault("quad.open", FaultKind.SET, 1.0), Fault("chopper.open", FaultKind.SET, 1.0))
STUCK_OPEN = (*BLOCKERS, Fault("rfko.on", FaultKind.SET, 1.0))
FACILITIES = ("wuwei", "pimms")
CONFIRMATION = "beam-off-confirmation"


@functools.cache
def rule_set(name: str) -> RuleSet:
    facility = load_facility(name)
    return load_rules(facility, next(iter(facility.rooms)), "carbon")


def irradiating(name: str = "wuwei", level: float = 1e8, faults: tuple[Fault, ...] = ()) -> Plant:
    """A rack with all rules, 40 ms into a long layer; then devices fail."""
    plant = new_plant(name, rules=rule_set(name).fast(), seed=5, trace_records=1 << 18)
    start(plant, grid(half_mm=15.0, low=4e-3 * level, high=1e-2 * level), level=level)
    while plant.status.state != FrontEndState.IRRADIATING:
        plant.advance(plant._now_ns + MS)
    go(plant, plant._now_ns + 40 * MS)
    for fault in faults:
        plant.inject(fault)
    return plant


def latched(plant: Plant) -> set[str]:
    return {rule_id for rule_id, row in zip(plant.rule_ids, plant.rule_rows, strict=True) if row["latched"]}


def pause_by_p(plant: Plant) -> int:
    at_ns = plant._now_ns
    plant.set_safety_lines(False, True, True, personnel=True)
    return at_ns


def abort_by_device(plant: Plant) -> int:
    at_ns = plant._now_ns
    plant.inject(Fault("scan.ok", FaultKind.DEAD, at_ns=at_ns))
    return at_ns


@pytest.mark.parametrize("name", FACILITIES)
def test_an_abort_that_no_fast_device_obeys_is_ended_by_the_dump_within_its_bound(name: str) -> None:
    plant = irradiating(name, faults=STUCK_OPEN)
    at_ns = abort_by_device(plant)
    go(plant, at_ns + 50 * MS)
    off_us = (beam_off_ns(plant, at_ns) - at_ns) / 1000.0
    assert dump_us(plant.facility) * 0.3 < off_us <= escalated_us(plant.facility, Action.ABORT) + 20.0
    assert CONFIRMATION in latched(plant)
    assert plant.signals[g.ESCALATED] == plant.signals[g.SOURCE_INHIBITED] == 1.0


@pytest.mark.parametrize("level", [1e6, 1e8, 5e8])
@pytest.mark.parametrize("name", FACILITIES)
def test_a_pause_that_does_not_take_the_beam_is_seen_by_the_chambers_and_dumped(name: str, level: float) -> None:
    plant = irradiating(name, level, STUCK_OPEN)
    at_ns = pause_by_p(plant)
    go(plant, at_ns + 80 * MS)
    off_us = (beam_off_ns(plant, at_ns) - at_ns) / 1000.0
    assert off_us <= escalated_us(plant.facility, Action.PAUSE) + 20.0
    assert off_us < 50_000.0, "well before the ring is dumped because the permit stays away"
    assert CONFIRMATION in latched(plant)
    assert plant.signals[g.SOURCE_INHIBITED] == 1.0


@pytest.mark.parametrize("level", [1e6, 1e8, 5e8])
@pytest.mark.parametrize("name", FACILITIES)
@pytest.mark.parametrize("stop", [pause_by_p, abort_by_device])
def test_what_obeys_is_confirmed(name: str, level: float, stop) -> None:
    plant = irradiating(name, level)
    at_ns = stop(plant)
    go(plant, at_ns + 3000 * MS)
    assert CONFIRMATION not in latched(plant)
    assert plant.signals[g.ESCALATED] == plant.signals[g.SOURCE_INHIBITED] == 0.0
    assert ticks(plant)["ions"][ticks(plant)["t_ns"] > at_ns + 200_000].sum() < 1e-4 * level


def test_an_abort_that_was_reset_is_forgotten() -> None:
    plant = irradiating()
    plant.set_safety_lines(False, False, True, personnel=True)
    go(plant, plant._now_ns + 500 * MS)
    plant.set_safety_lines(True, False, True, personnel=True)
    go(plant, plant._now_ns + 500 * MS)
    assert plant.status.permit
    go(plant, abort_by_device(plant) + 500 * MS)
    assert latched(plant) == {"scan-supplies"}


def test_extraction_off_alone_does_not_count_for_an_abort_but_does_for_a_pause() -> None:
    plant = irradiating(faults=BLOCKERS)
    go(plant, pause_by_p(plant) + 40 * MS)
    assert CONFIRMATION not in latched(plant), "the tail has gone, the chambers confirm it"
    plant = irradiating(faults=BLOCKERS)
    at_ns = abort_by_device(plant)
    go(plant, at_ns + 40 * MS)
    row = plant.rule_rows[plant.rule_ids.index(CONFIRMATION)]
    assert CONFIRMATION in latched(plant)
    assert row["t_decision_ns"] - at_ns <= 400_000
    assert plant.signals[g.SOURCE_INHIBITED] == 1.0


def test_escalation_does_not_need_the_fast_tier_or_the_front_end() -> None:
    plant = irradiating(
        faults=(*STUCK_OPEN, Fault("h.freeze", FaultKind.SET, 1.0), Fault("fe.freeze", FaultKind.SET, 1.0))
    )
    at_ns = pause_by_p(plant)
    go(plant, at_ns + 80 * MS)
    assert (beam_off_ns(plant, at_ns) - at_ns) / 1000.0 <= escalated_us(plant.facility, Action.PAUSE) + 20.0
    assert plant.signals[g.SOURCE_INHIBITED] == 1.0


def test_source_inhibit_keeps_the_ring_empty_even_without_a_dump() -> None:
    failed = (*STUCK_OPEN, Fault("dump.cmd", FaultKind.SET, 0.0))
    plant = irradiating(level=5e8, faults=failed)
    at_ns = abort_by_device(plant)
    go(plant, at_ns + 20 * MS)
    assert plant.signals[g.DUMP_OBEYS] == 0.0
    assert plant.status.stored_ions > 0.0
    go(plant, at_ns + 30_000 * MS)
    assert plant.status.phase == RingPhase.STANDBY
    total = plant.truth_total_ions
    go(plant, at_ns + 40_000 * MS)
    assert plant.truth_total_ions == total


def test_an_inhibited_source_injects_nothing_and_a_failed_inhibit_is_seen() -> None:
    plant = new_plant(rules=rule_set("wuwei").fast())
    plant.inject(Fault("source.inhibit", FaultKind.SET, 1.0))
    go(plant, plant._now_ns + 2 * MS)
    plant.request_cycle(7, 150)
    go(plant, plant._now_ns + 5000 * MS)
    assert (plant.status.cycle, plant.status.phase) == (0, RingPhase.STANDBY)
    plant.clear_faults()
    go(plant, plant._now_ns + 10 * MS)
    assert plant.status.phase == RingPhase.INJECTION
    plant.inject(Fault("source.inhibit", FaultKind.SET, 1.0))
    go(plant, plant._now_ns + 1000 * MS)
    assert plant.status.stored_ions == 0.0
    plant = irradiating(faults=(*STUCK_OPEN, Fault("source.inhibit", FaultKind.SET, 0.0)))
    go(plant, abort_by_device(plant) + 20 * MS)
    assert (plant.signals[g.ESCALATED], plant.signals[g.SOURCE_INHIBITED]) == (1.0, 0.0)


def test_escalation_ends_with_the_reset_of_its_latch_and_no_sooner() -> None:
    plant = irradiating(faults=STUCK_OPEN)
    go(plant, abort_by_device(plant) + 200 * MS)
    plant.clear_faults()
    go(plant, plant._now_ns + 200 * MS)
    others = ((1 << len(plant.rule_ids)) - 1) & ~(1 << plant.rule_ids.index(CONFIRMATION))
    assert plant.reset_fast(others) != 0
    go(plant, plant._now_ns + 10 * MS)
    assert plant.signals[g.SOURCE_INHIBITED] == 1.0
    assert plant.reset_fast((1 << len(plant.rule_ids)) - 1) == 0
    go(plant, plant._now_ns + 10 * MS)
    assert plant.signals[g.ESCALATED] == plant.signals[g.SOURCE_INHIBITED] == 0.0


@pytest.mark.parametrize("kind", [FaultKind.NAN])
def test_a_chamber_without_a_number_confirms_nothing(kind: FaultKind) -> None:
    plant = irradiating()
    go(plant, pause_by_p(plant) + MS)
    plant.inject(Fault("ic2.counts", kind))
    go(plant, plant._now_ns + 20 * MS)
    assert CONFIRMATION in latched(plant)


def test_the_bound_of_the_rule_is_that_of_the_dump() -> None:
    facility = load_facility("wuwei")
    promised = bound(rule_set("wuwei").rule(CONFIRMATION), rule_set("wuwei"), facility)
    assert promised.actuator_us == promised.degraded_us == dump_us(facility) == 3050.0
    assert promised.total_us >= escalated_us(facility, Action.PAUSE)
