"""Calibration: the fit finds what made its points, tracking at a point is what it should be, the table is refused when
it is not what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from facility.config import Facility, list_facilities, load_facility
from facility.errors import ConfigError
from facility.physics import beta, gamma, revolution_frequency_hz
from facility.table_approval import SPILL, approve, next_version, read_approvals
from ioc_sim.extraction.calibration import Measured, calibrate, fit, stack_of
from ioc_sim.extraction.core_transit import (
    AMPLITUDE,
    MIDDLE,
    late_turns,
    parts_of,
    place_of,
    stack_step,
    turns_per_e,
)
from ioc_sim.extraction.first_start import FirstStart, expected
from ioc_sim.extraction.kernel import STORED
from ioc_sim.extraction.measure import BIN_TURNS, RipplePoint, StopPoint, operating_point, ripple_points, stop_point
from ioc_sim.extraction.optics import Core, load_optics
from ioc_sim.extraction.points import POINTS, RIPPLE_PER_TURN, Effort, Point
from ioc_sim.extraction.rate_model import RateModel, Transit
from ioc_sim.extraction.table import load_spill_table, parse_spill_table, read_spill_table, render_spill_table
from tests.extraction.settings import setting

RFKO = RateModel("rfko", 2e-5, 300.0, 50.0, 125.0, 0.0, 3, 2e5, 200.0, 12.0, 160.0, 110.0, 1500.0, 50.0, 0.0, 1.0, 1.0,
                 0.6, 0.1, 0.09)  # fmt: skip
PIMMS = load_optics("pimms")
CORE = RateModel("betatron", 1.5e-4, 745.0, 120.0, 577.0, 0.35, 1, 6e6, 150.0, 330.0, 150.0, 330.0, 0.0,
                 turns_per_e(PIMMS), stack_step(PIMMS), 1.0, 0.0, 0.0, 0.25, 0.0)  # fmt: skip
STACK = (0.8, -0.7)
SMALL = Effort(2000, 1, 4000, 12)


def as_measured(model: RateModel, drive: float, beta_gamma: float) -> Measured:
    """What a perfect tracking of this model would say."""
    transit = model.transit(drive, beta_gamma)
    survival = transit.survival(BIN_TURNS * (0.5 + np.arange(400)))
    share = model.share_per_turn * drive ** (2.0 if model.kind == "rfko" else 1.0)
    sd = transit.stage_turns * np.sqrt(transit.stages)
    stop = StopPoint(
        transit.mean_turns, 1.0, sd, survival, 1.0, 0.01, share, (model.rough_short, model.rough_long), 999
    )
    per_turn = np.array(RIPPLE_PER_TURN)
    tune, exciter = (answer(per_turn, drive, beta_gamma, STACK) for answer in (model.ripple, model.drive_ripple))
    ripple, driven = RipplePoint(per_turn, tune, np.full(5, 100.0)), RipplePoint(per_turn, exciter, np.full(5, 0.01))
    start = as_started(model, drive) if model.edge_share > 0.0 else None
    return Measured(200.0, beta_gamma, drive, stop, ripple, driven, STACK, start)


def as_started(model: RateModel, drive: float) -> FirstStart:
    """A first start of this model, its constant another one than that of the operating point."""
    turns, out = (np.arange(8) + 0.5) * 4000.0 / drive**2, 0.1 + 0.05 * (np.arange(8) + 0.5)
    start = FirstStart(turns, np.ones(8), np.full(8, 1e-7), out, 15_000.0, model.fill_share)
    return replace(start, share_per_turn=1.1e-5 * expected(model, PIMMS, 0.8, start, drive))


@pytest.mark.parametrize("model", [RFKO, CORE], ids=["rfko", "betatron"])
def test_the_fit_finds_the_model_that_made_its_points(model: RateModel) -> None:
    places = ((1.0, 0.9), (0.5, 0.75), (0.25, 0.6), (0.25, 0.9))
    found = fit(model.kind, [as_measured(model, drive, momentum) for drive, momentum in places], PIMMS)
    assert found.stages == model.stages
    for name in ("share_per_turn", "mean_turns", "mean_per_log", "spread_turns", "momentum_power", "ripple_gain",
                 "ripple_delay_turns", "ripple_lag_turns", "drive_delay_turns", "drive_lag_turns", "drive_edge_turns",
                 "ripple_per_log", "stack_step", "restart_rel", "rough_short", "fill_share"):  # fmt: skip
        assert getattr(found, name) == pytest.approx(getattr(model, name), rel=1e-4), name
    assert found.edge_share == pytest.approx(model.edge_share, rel=5e-3), "a step of its grid"


def test_transit_stands_for_its_dead_time_and_then_falls() -> None:
    transit = Transit(100.0, 50.0, 3)
    turns = np.linspace(0.0, 2000.0, 20_001)
    alive = transit.survival(turns)
    assert np.all(alive[turns <= 100.0] == 1.0)
    assert np.all(np.diff(alive) <= 0.0)
    assert np.sum(0.5 * (alive[1:] + alive[:-1])) * 0.1 == pytest.approx(transit.mean_turns, rel=1e-3)
    assert transit.left_turns(0.5) < transit.left_turns(0.1) < transit.left_turns(0.01)
    slow = transit.response(np.array([1e-6]))[0]
    assert np.angle(slow) == pytest.approx(-2.0 * np.pi * 1e-6 * transit.mean_turns, rel=1e-3)
    assert abs(slow) == pytest.approx(1.0, abs=1e-4)


def test_a_weaker_drive_takes_longer_and_answers_more_to_ripple() -> None:
    f = np.array([3e-4])
    assert RFKO.transit(0.1, 0.8).mean_turns == pytest.approx(300.0 + 50.0 * np.log(10.0))
    assert abs(RFKO.ripple(f, 0.1, 0.8))[0] == pytest.approx(10.0 * abs(RFKO.ripple(f, 1.0, 0.8))[0])
    assert RFKO.drive_for(2e-7) == pytest.approx(0.1)
    assert CORE.drive_for(1.5e-5) == pytest.approx(0.1)
    assert np.angle(RFKO.ripple(np.array([1e-9]), 1.0, 0.8))[0] == pytest.approx(-0.75 * np.pi, abs=1e-4)


def test_an_exciters_ripple_is_its_amplitude_at_once_and_its_square_when_the_edge_has_followed() -> None:
    model = replace(RFKO, drive_lag_turns=0.0)
    slow, middle, fast = np.abs(model.drive_ripple(np.array([1e-9, 1.0 / (2.0 * np.pi * 1500.0), 10.0]), 0.5, 0.8))
    assert slow == pytest.approx(2.0, abs=0.01)
    assert middle == pytest.approx(abs(1.0 + 1.0 / (1.0 + np.sqrt(1j))))
    assert fast == pytest.approx(1.0, abs=0.01)
    late = np.angle(RFKO.drive_ripple(np.array([1e-3]), 1.0, 0.8) / RFKO.drive_ripple(np.array([1e-3]), 0.5, 0.8))
    assert late[0] == pytest.approx(2.0 * np.pi * 1e-3 * 50.0 * math.log(2.0)), "a weaker drive takes longer"


def test_both_ripples_of_a_core_arrive_alike() -> None:
    per_turn = np.array([1e-6, 2e-4, 1e-3])
    both = CORE.ripple(per_turn, 0.3, 0.8) * 0.3 / (-CORE.ripple_gain * 2j * np.pi * per_turn)
    assert both == pytest.approx(CORE.drive_ripple(per_turn, 0.3, 0.8))
    assert np.abs(both)[0] == pytest.approx(1.0, abs=0.01)
    late, y = late_turns(150.0, CORE.ripple_per_log, 0.3, 0.8)
    mean = (late + 330.0 * y) @ parts_of(CORE.stack_step / math.sqrt(0.8))
    assert np.angle(both)[0] == pytest.approx(-2.0 * np.pi * 1e-6 * mean, rel=0.01), "mean over the amplitudes"


def test_small_amplitudes_are_slow_and_come_last() -> None:
    late, _ = late_turns(150.0, CORE.ripple_per_log, 0.001, 0.8)
    assert np.all(np.diff(late) > 0.0), "the table of amplitudes falls"
    step = CORE.stack_step / math.sqrt(0.8)
    places = [place_of(left, step) for left in (0.9, 0.5, 0.1)]
    assert places[1] == pytest.approx(step * MIDDLE, abs=0.02), "the middle of the spill"
    first, middle, last = (float(parts_of(step, (place, place)) @ AMPLITUDE) for place in places)
    assert first > middle + 0.2 > last + 0.4
    assert middle == pytest.approx(MIDDLE, abs=0.05)


def test_way_of_a_core_by_theory_is_what_tracking_leaves_in_the_ring() -> None:
    one, optics = replace(setting("pimms"), particles=3000), PIMMS
    _, last = stack_of(one, Point(0.5, 1.0, SMALL, SMALL))
    point = operating_point(one, 1.0, 1)
    left = point.advance(SMALL.turns).count(STORED) / 3000
    step = stack_step(optics) / math.sqrt(one.beta_gamma)
    assert place_of(left, step) == pytest.approx(last, abs=0.25)


def test_tracking_finds_what_theory_says_of_a_core() -> None:
    """Ripple of the tune over what the core moves it in a turn; the fit is told neither."""
    optics, model = load_optics("pimms"), load_spill_table(load_facility("pimms"))
    assert isinstance(optics.drive, Core)
    speed = abs(optics.lattice.chromaticity * optics.drive.delta_per_turn)
    assert model.ripple_gain * speed == pytest.approx(1.0, abs=0.05)


def test_a_core_stops_and_begins_again_where_it_stood() -> None:
    found = stop_point(setting("pimms"), 1.0, Effort(3000, 2, 6000, 12))
    assert 400.0 < found.mean_turns < 1200.0
    assert found.restart_rel == pytest.approx(1.0, abs=0.05), "after a pause the same ions are next"
    assert found.survival[:4].mean() == pytest.approx(1.0, abs=0.1), "ions on their way do not know of the stop"
    assert found.roughness[0] < 0.05


def test_ripple_of_a_cores_voltage_is_ripple_of_the_rate_behind_the_transit() -> None:
    """The flux follows the speed of the tune at once: slow ripple comes through whole, fast ripple is smeared."""
    _, found = ripple_points(setting("pimms"), 1.0, (2e-4, 4e-3), 1e-5, Effort(6000, 2, 10_000, 1))
    assert abs(found.gain[0]) == pytest.approx(1.0, abs=0.35)
    assert abs(found.gain[1]) < 0.3
    assert -2.0 < np.angle(found.gain[0]) < 0.0, "late"


def test_calibration_goes_through_its_points() -> None:
    told: list[str] = []
    points = (Point(0.5, 1.0, SMALL, SMALL), Point(0.5, 0.7, SMALL, SMALL))
    found = calibrate(load_facility("pimms"), None, points, told.append)
    assert len(told) == len(found.points) == 2
    assert 300.0 < found.model.mean_turns < 1500.0
    assert found.model.ripple_gain > 0.0


def test_few_ions_are_no_stop() -> None:
    with pytest.raises(ConfigError, match=r"ions after the stops.*at least 200"):
        stop_point(setting("pimms"), 1.0, Effort(1000, 1, 2000, 1))


@pytest.mark.parametrize("name", list_facilities())
def test_every_facility_has_a_table_of_its_own_optics(name: str) -> None:
    model = load_spill_table(load_facility(name))
    assert model.kind == load_facility(name).ring.extraction
    assert model.transit(1.0, 0.8).dead_turns >= 0.0


@pytest.mark.parametrize("name", list_facilities())
def test_the_tail_that_safety_reckons_with_holds_the_calibrated_one(name: str) -> None:
    """At every energy and level, from a full ring: less than a thousandth of the rate is left when the tail is over."""
    facility = load_facility(name)
    model = load_spill_table(facility)
    for ion in facility.species.values():
        for level in ion.intensity_levels_ions_per_s:
            for energy in (ion.energy_min_mev_u, ion.energy_max_mev_u):
                f_rev = float(revolution_frequency_hz(energy, ion, facility.ring.circumference_m))
                drive = model.drive_for(level / ion.transmission / ion.fill_ions / f_rev)
                transit = model.transit(drive, float(beta(energy, ion) * gamma(energy, ion)))
                over = np.array([facility.extraction.tail_us() * 1e-6 * f_rev])
                assert transit.survival(over)[0] < 1e-3


def slowest_spills(facility: Facility, model: RateModel) -> Iterator[tuple[float, float, float]]:
    """Revolutions a second, beta gamma and drive of spills that last the flat top, at the ends of all energies."""
    for ion in facility.species.values():
        for energy in (ion.energy_min_mev_u, ion.energy_max_mev_u):
            f_rev = float(revolution_frequency_hz(energy, ion, facility.ring.circumference_m))
            drive = model.drive_for(1e3 / facility.ring.phases.flat_top_max_ms / f_rev)
            yield f_rev, float(beta(energy, ion) * gamma(energy, ion)), drive


@pytest.mark.parametrize("name", list_facilities())
def test_the_lines_that_safety_reckons_with_hold_what_the_loop_leaves(name: str) -> None:
    """At every energy, from a ring that would last the whole flat top: what the loop does not know beforehand."""
    facility = load_facility(name)
    model, spill = load_spill_table(facility), facility.extraction
    for f_rev, momentum, drive in slowest_spills(facility, model):
        for hz, ripple in spill.supply_ripple:
            answer = abs(model.ripple(np.array([hz / f_rev]), drive, momentum))
            left = answer[0] * ripple * spill.tune_per_supply / spill.channelling * (1.0 - spill.feed_forward)
            assert left < dict(spill.ripple_lines)[hz]


@pytest.mark.parametrize("name", list_facilities())
def test_the_noise_that_safety_reckons_with_holds_exciter_and_converters(name: str) -> None:
    """At every energy, from a ring that would last the whole flat top."""
    facility = load_facility(name)
    model, spill = load_spill_table(facility), facility.extraction
    for f_rev, momentum, drive in slowest_spills(facility, model):
        rms = model.converter_rms(f_rev, momentum, spill.duty_noise_tau_us * 1e-6, drive)
        tune = spill.converter_noise * spill.tune_per_supply / spill.channelling
        assert 0.05 < rms * tune < 0.25
        assert math.hypot(spill.exciter_noise_rms, rms * tune) <= spill.duty_noise_rms


def test_a_table_that_is_not_what_it_says_is_refused() -> None:
    facility, optics = load_facility("wuwei"), load_optics("wuwei")
    text = render_spill_table(facility, RFKO, optics, POINTS["rfko"], 1)
    table = parse_spill_table(text, facility, optics, "t")
    assert (table.model, table.version, table.species) == (RFKO, 1, "spill")
    other = optics.model_copy(update={"septum": optics.septum.model_copy(update={"position_mm": 36.0})})
    with pytest.raises(ConfigError, match=r"other optics or operating points.*machine calibrate"):
        parse_spill_table(text, facility, other, "t")
    for old, new, words in (
        ("mean_turns,300", "mean_turns,301", "do not match the table's own hash"),
        ("facility: wuwei", "facility: pimms", r"facility = 'pimms'.*must be 'wuwei'"),
        ("version: 1", "version: 0", "version = '0'.*from 1 on"),
    ):
        assert old in text
        with pytest.raises(ConfigError, match=words):
            parse_spill_table(text.replace(old, new), facility, optics, "t")
    core = render_spill_table(facility, CORE, optics, POINTS["rfko"], 1)
    with pytest.raises(ConfigError, match=r"kind 'betatron'.*rfko extraction"):
        parse_spill_table(core, facility, optics, "t")


def test_a_calibration_is_used_once_somebody_answers_for_it(tmp_path: Path) -> None:
    """The machinery of the energy tables, with the same record."""
    facility, optics = load_facility("wuwei"), load_optics("wuwei")
    before = load_spill_table(facility, env={})
    version = next_version("wuwei", SPILL, read_approvals(tmp_path, {}))
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / "wuwei-spill.csv"
    path.write_text(render_spill_table(facility, RFKO, optics, POINTS["rfko"], version))
    table, where = read_spill_table(facility, tmp_path, {})
    assert (table.version, where) == (version, str(path))
    with pytest.raises(ConfigError, match=rf"version {version} .* is not approved.*--species spill") as caught:
        load_spill_table(facility, tmp_path, {})
    assert caught.value.code == "spill-table.unapproved"
    approve(tmp_path, table, read_approvals(tmp_path, {}), "A. Physicist", date(2026, 11, 30), "septum moved")
    assert load_spill_table(facility, tmp_path, {}) == RFKO != before
    path.write_text(render_spill_table(facility, before, optics, POINTS["rfko"], version))
    with pytest.raises(ConfigError, match=r"approved with rows .* ionctl machine calibrate --facility wuwei"):
        load_spill_table(facility, tmp_path, {})
