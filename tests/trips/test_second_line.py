"""Second-line monitors: a fault-free layer keeps far from their limits, and each sees its own cause in the device."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

from facility import signals as g
from facility.config import load_facility
from facility.states import FrontEndState
from interlocks import evaluator, process_image
from interlocks.rules import RuleSet, load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, Spots, go, grid, new_plant, start

OVER = (FrontEndState.DONE, FrontEndState.PAUSED, FrontEndState.ABORTED)
FAULTS: dict[str, Fault] = {
    "backup-counter": Fault("backup.gain", FaultKind.SCALE, 0.5),
    "layer-timer": Fault("timer.clock", FaultKind.SCALE, 50.0),
    "dose-rate-low": Fault("spill.rate", FaultKind.DEAD),
    "spot-width-x": Fault("beam.width_x", FaultKind.SCALE, 1.4),
    "spot-width-y": Fault("beam.width_y", FaultKind.SCALE, 0.65),
    "spot-width-x-gross": Fault("beam.width_x", FaultKind.SCALE, 3.0),
    "spot-width-y-gross": Fault("beam.width_y", FaultKind.SCALE, 0.1),
    "strip-sum": Fault("strip.gain", FaultKind.SCALE, 0.5),
}
SECOND_LINE = [g.SIGNALS[i].name for i in range(g.BACKUP_LAYER_IONS, g.SCAN_SETTLE_MS + 1)]


@functools.cache
def rule_set() -> RuleSet:
    """The rules of the first room of wuwei."""
    return load_rules(load_facility("wuwei"), "1", "carbon")


def judged(rule_id: str, signals: np.ndarray) -> evaluator.Judgement:
    """A rule of either tier on the whole signal vector; no windows."""
    rule = rule_set().rule(rule_id)
    values = [float(signals[g.INDEX[name]]) for name in rule.inputs]
    probe = evaluator.probe_at(rule, tuple(range(len(values))))
    return evaluator.judge(probe, values)


def begun(spots: Spots, level: float, name: str = "wuwei", species: str = "carbon", **kwargs: object) -> Plant:
    plant = new_plant(name, species=species, **kwargs)
    start(plant, spots, level=level, code=min(150, len(plant.table) - 1))
    while plant.status.state != FrontEndState.IRRADIATING:
        plant.advance(plant._now_ns + MS)
    return plant


def each_ms(plant: Plant, most: int = 100_000) -> np.ndarray:
    """Signals at each millisecond until the layer is over, shape (n, N_SIGNALS)."""
    rows = []
    while len(rows) < most and plant.status.state not in OVER:
        until_ns = (plant._now_ns // MS + 1) * MS
        while plant.advance(until_ns) < until_ns:
            pass
        rows.append(plant.signals.copy())
    return np.array(rows)


LAYERS = {
    "usual": ("wuwei", "carbon", 1e8, grid(low=4e5, high=1e6)),
    "lowest level": ("wuwei", "carbon", 1e6, grid(low=5e3, high=1e4)),
    "highest level": ("wuwei", "carbon", 5e8, grid(low=1e6, high=3e6)),
    "a stop after each spot": ("wuwei", "carbon", 1e8, grid(40.0, 10.0, 3e4, 6e4)),
    "chopper": ("pimms", "carbon", 1e8, grid(40.0, 10.0, 3e4, 6e4)),
    "protons": ("pimms", "proton", 1e10, grid(low=4e7, high=1e8)),
}


@functools.cache
def layer(case: str) -> np.ndarray:
    name, species, level, spots = LAYERS[case]
    return each_ms(begun(spots, level, name, species))


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_without_a_fault_is_far_from_every_limit(case: str) -> None:
    name, species, _, _ = LAYERS[case]
    facility = load_facility(name)
    rules = load_rules(facility, next(iter(facility.rooms)), species)
    for rule in rules.rules:
        if not set(SECOND_LINE) & set(rule.inputs):
            continue
        for row in layer(case):
            values = [float(row[g.INDEX[name]]) for name in rule.inputs]
            found = evaluator.judge(evaluator.probe_at(rule, tuple(range(len(values)))), values)
            assert found.good, f"{rule.id}: {found}"
    timer, expected = (layer(case)[:, k] for k in (g.LAYER_TIMER_MS, g.LAYER_EXPECTED_MS))
    assert (timer <= 1.02 * expected + 2.0).all()
    assert (layer(case)[:, g.SCAN_SETTLE_MS] == 0.0).all()


@pytest.mark.parametrize("case", ["usual", "highest level", "protons"])
def test_the_counters_end_within_half_a_percent_of_the_preset(case: str) -> None:
    last = layer(case)[-2]
    assert last[g.BACKUP_LAYER_IONS] == pytest.approx(last[g.LAYER_PRESET_IONS], rel=0.005)
    assert last[g.IC2_LAYER_IONS] == pytest.approx(last[g.LAYER_PRESET_IONS], rel=0.005)


@pytest.mark.parametrize("rule_id", ["backup-counter", "strip-sum", "spot-width-x", "spot-width-x-gross"])
def test_the_limit_is_as_many_sigma_away_as_the_rule_says(rule_id: str) -> None:
    rule = rule_set().rule(rule_id)
    claimed = float(re.match(r"(\d+) sigma", rule.sigma)[1])  # type: ignore[index]
    values = layer("usual")[:, g.INDEX[rule.inputs[0]]]
    distance = (rule.high - 1.0) / np.sqrt(np.mean((values - 1.0) ** 2))
    assert 0.7 * claimed <= distance <= 1.4 * claimed, f"{distance:.1f} sigma"


@functools.cache
def each_tick() -> np.ndarray:
    """Signals of the ticks of 200 ms of beam on settled spots, shape (n, N_SIGNALS)."""
    plant = begun(grid(half_mm=15.0, low=4e5, high=1e6), 1e8)
    rows = []
    for _ in range(20_000):
        until_ns = plant._now_ns + 10_000
        while plant.advance(until_ns) < until_ns:
            pass
        if plant.signals[g.SCAN_DUE] and plant.signals[g.STRIP_VALID]:
            rows.append(plant.signals.copy())
    return np.array(rows)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("name", ["position", "scan-readback", "scan-field"])
def test_fast_limits_are_as_many_sigma_away_as_the_rules_say(name: str, axis: str) -> None:
    claimed = float(re.match(r"(\d+) sigma", rule_set().rule(f"{name}-x").sigma)[1])  # type: ignore[index]
    rule = rule_set().rule(f"{name}-{axis}")
    values = each_tick()[:, g.INDEX[rule.inputs[0]]]
    assert len(values) > 10_000
    distance = (rule.high - abs(values.mean())) / values.std()
    assert 0.8 * claimed <= distance <= 1.25 * claimed, f"{distance:.1f} sigma"


@pytest.mark.parametrize("rule_id", FAULTS)
def test_each_sees_its_own_cause_within_what_it_promises(rule_id: str) -> None:
    rule = rule_set().rule(rule_id)
    plant = begun(grid(half_mm=15.0, low=4e5, high=1e6), 1e8)
    go(plant, plant._now_ns + 40 * MS)
    fault = FAULTS[rule_id]
    plant.inject(Fault(fault.device, fault.kind, fault.value, at_ns=plant._now_ns))
    good = [judged(rule_id, row).good for row in each_ms(plant, 150)]
    assert False in good
    seen_us = 1000.0 * (good.index(False) + 1) + rule.debounce_us
    assert not any(good[good.index(False) : good.index(False) + 40]), "and goes on seeing it"
    if rule_id != "layer-timer":
        assert seen_us <= rule.input_delay_us + rule.debounce_us + 1000.0


@pytest.mark.parametrize("rule_id", ["position-x", "position-y"])
@pytest.mark.parametrize("level", [1e6, 1.5e6, 2e6, 3e6, 5e6, 1e8])
def test_a_beam_beside_its_place_is_seen_in_time_at_every_level(level: float, rule_id: str) -> None:
    """Windows of strips are added up until they have 200 ions (docs/physics/monitors.md)."""
    rules = rule_set()
    plant = begun(grid(half_mm=6.0, low=2e-2 * level, high=3e-2 * level), level, rules=rules.fast())
    go(plant, plant._now_ns + 5 * MS)
    at_ns = plant._now_ns
    plant.inject(Fault(f"beam.{rule_id[-1]}", FaultKind.OFFSET, 5.0, at_ns=at_ns))
    go(plant, at_ns + 20 * MS)
    row = plant.rule_rows[plant.rule_ids.index(rule_id)]
    assert row["latched"] == 1
    assert row["t_decision_ns"] - at_ns <= 1e3 * rules.rule(rule_id).input_delay_us + 20_000


def test_a_magnet_that_does_not_settle_keeps_the_beam_waiting_and_is_named() -> None:
    plant = new_plant()
    plant.inject(Fault("scan_x.readback", FaultKind.OFFSET, 25.0))
    start(plant, grid(), level=1e8)
    waited = each_ms(plant, 2000)[:, g.SCAN_SETTLE_MS]
    assert plant.truth_total_ions == 0.0
    assert waited.max() > 100.0
    plant.clear_faults()
    assert each_ms(plant)[-1, g.SCAN_SETTLE_MS] == 0.0
    assert plant.status.state == FrontEndState.DONE


@pytest.mark.parametrize("kind", [FaultKind.NAN, FaultKind.STUCK, FaultKind.DEAD])
def test_a_backup_register_that_fails_is_seen_and_counts_again_when_mended(kind: FaultKind) -> None:
    plant = begun(grid(half_mm=15.0, low=4e5, high=1e6), 1e8)
    plant.inject(Fault("backup.counts", kind, at_ns=plant._now_ns, until_ns=plant._now_ns + 100 * MS))
    rows = each_ms(plant)
    with np.errstate(invalid="ignore"):
        assert not all(judged("backup-counter", row).good and judged("backup-layer", row).good for row in rows[:100])
    assert rows[-2, g.BACKUP_LAYER_IONS] == pytest.approx(rows[-2, g.LAYER_PRESET_IONS], rel=0.005)


@pytest.mark.parametrize("kind", [FaultKind.OFFSET, FaultKind.SCALE])
def test_a_backup_register_that_falls_counts_nothing_until_it_stands_where_it_had_been(kind: FaultKind) -> None:
    """1,000 counts back, or to half of what it was; before, layer and field would have had that much more."""
    plant = begun(grid(half_mm=15.0, low=4e5, high=1e6), 1e8)
    go(plant, plant._now_ns + 40 * MS)
    before, field, at_ns = plant.read("BACKUP_COUNTS"), plant.read("FIELD_IONS"), plant._now_ns
    value = -1e5 if kind is FaultKind.OFFSET else 0.5
    plant.inject(Fault("backup.counts", kind, value, at_ns=at_ns, until_ns=at_ns + 10 * MS))
    row = each_ms(plant, 2)[-1]
    with np.errstate(invalid="ignore"):
        found = [rule for rule in ("backup-electronics", "backup-layer", "backup-field") if not judged(rule, row).good]
    assert found == ["backup-electronics", "backup-layer", "backup-field"]
    assert plant.read("BACKUP_COUNTS") >= before
    assert plant.read("FIELD_IONS") >= field
    rows = each_ms(plant)
    assert rows[-2, g.BACKUP_OK] == 1.0
    assert rows[-2, g.BACKUP_LAYER_IONS] == pytest.approx(rows[-2, g.LAYER_PRESET_IONS], rel=0.005)


def test_a_register_that_fell_while_nothing_was_loaded_lets_no_beam() -> None:
    plant = new_plant(rules=rule_set().fast())
    plant.inject(Fault("backup.counts", FaultKind.OFFSET, -1.0))
    plant.advance(plant._now_ns + 2 * MS)
    latched = [rule for rule, row in zip(plant.rule_ids, plant.rule_rows, strict=True) if row["latched"]]
    assert latched == ["backup-electronics"]


def test_without_a_layer_a_backup_register_that_stood_too_high_is_read_anew_and_a_dead_one_is_not() -> None:
    plant = begun(grid(half_mm=6.0), 1e8)
    each_ms(plant)
    stands, at_ns = plant.read("BACKUP_COUNTS"), plant._now_ns
    plant.inject(Fault("backup.counts", FaultKind.OFFSET, 5000.0, at_ns=at_ns, until_ns=at_ns + 10 * MS))
    go(plant, at_ns + 9 * MS)
    assert plant.read("BACKUP_COUNTS") == stands + 5000.0
    go(plant, at_ns + 12 * MS)
    assert plant.signals[g.BACKUP_OK] == 1.0
    assert plant.read("BACKUP_COUNTS") == stands
    plant.inject(Fault("backup.counts", FaultKind.DEAD))
    go(plant, plant._now_ns + 20 * MS)
    assert plant.signals[g.BACKUP_OK] == 0.0


def test_the_image_carries_what_tier_p_judges() -> None:
    judged_in_p = {name for rule in rule_set().p for name in rule.inputs} & set(SECOND_LINE)
    assert len(judged_in_p) >= 8
    assert judged_in_p <= set(process_image.PLACE)


def test_a_width_that_is_no_number_shows_until_there_is_one_again() -> None:
    plant = begun(grid(half_mm=12.0, low=2e6, high=4e6), 1e8)
    now_ns = plant._now_ns
    plant.inject(Fault("beam.width_x", FaultKind.NAN, 0.0, now_ns + 10 * MS, now_ns + 30 * MS))
    go(plant, now_ns + 28 * MS)
    assert np.isnan(plant.signals[g.STRIP_WIDTH_X])
    assert not judged("spot-width-x", plant.signals).good
    go(plant, now_ns + 60 * MS)
    assert plant.signals[g.STRIP_WIDTH_X] == pytest.approx(1.0, abs=0.1)
