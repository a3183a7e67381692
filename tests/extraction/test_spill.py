"""What calibration needs: transit times, stop, restart, ripple; each against something known in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facility.config import list_facilities, load_facility
from facility.errors import ConfigError
from ioc_sim.extraction import measure
from ioc_sim.extraction.kernel import STORED
from ioc_sim.extraction.measure import operating_point, restart_rate
from ioc_sim.extraction.optics import load_optics, read_optics
from ioc_sim.extraction.points import Effort
from ioc_sim.extraction.spill import (
    Spill,
    Stops,
    interrupt,
    ripple_response,
    run_spill,
    setting_of,
    start_response,
    transit_distribution,
)
from ioc_sim.extraction.tracking import Programme
from tests.extraction.settings import setting

BEAM = "[beam]\nemittance_um = 0.5\nmomentum_spread = 1e-4\nmomentum_offset = 0.0\n"
RING = (
    'schema = "ionctl.optics/1"\nname = "ring"\nfacilities = ["there"]\n[lattice]\ntune = 1.67\n'
    "resonance_tune_times_3 = 5\nchromaticity = 0.0\nbeta_m = 10.0\nalpha = 0.0\ndispersion_m = 0.0\n[[sextupoles]]\n"
    'name = "s"\nphase_turns = 0.5\nbeta_m = 10.0\nk2l_per_m2 = 1.0\n[septum]\nside = 1\nposition_mm = 35.0\n'
    'wire_mm = 0.1\ngap_mm = 10.0\naperture_mm = 50.0\n[drive]\nkind = "betatron"\ndelta_per_turn = 1e-8\n'
) + BEAM


@pytest.fixture(scope="module")
def spill() -> Spill:
    return run_spill(setting(particles=3000, turns=30_000, drive=1.5))


def test_transit_takes_as_long_as_the_growth_along_the_arm(spill: Spill) -> None:
    """The median lies between those that began where (rho - rho0) / (rho + rho0) is 0.1 and 1e-5."""
    optics = spill.setting.optics
    resonance, distance = optics.resonance(), optics.lattice.distance
    middle, out, rho0 = resonance.arm(distance)
    septum = optics.septum.position_mm * 1e-3 / np.sqrt(optics.lattice.beta_m)
    rho = (septum - middle.real) / out.real
    w = (rho - rho0) / (rho + rho0)
    by_theory = np.log(w / np.array([0.1, 1e-5])) / resonance.growth_per_turn(distance) / spill.setting.f_rev_hz
    known = spill.transit_s[np.isfinite(spill.transit_s)]
    assert known.size > 0.95 * spill.transit_s.size
    assert by_theory[0] < np.median(known) < by_theory[1]
    time_s, density = transit_distribution(spill)
    assert np.sum(density) * (time_s[1] - time_s[0]) == pytest.approx(1.0)


def test_the_rate_adds_up_to_what_was_extracted(spill: Spill) -> None:
    time_s, rate = spill.rate(1e-4)
    inside = np.count_nonzero(spill.time_s < time_s[-1] + 5e-5)
    assert rate.sum() * 1e-4 * spill.setting.particles == pytest.approx(inside)


def test_without_a_drive_the_spill_dies_out() -> None:
    quiet = run_spill(setting(turns=20_000), Programme(drive_off=0))
    assert not np.any(quiet.time_s > 0.5 * 20_000 / quiet.setting.f_rev_hz)
    assert quiet.counts["stored"] > 0.98 * quiet.setting.particles


def test_after_a_stop_the_transit_drains_and_the_spill_begins_again() -> None:
    made = setting(particles=2500, turns=30_000, drive=1.3)
    ms = round(made.f_rev_hz * 1e-3)
    found = interrupt(made, Stops(10_000, 10, 1500, ms, ms, 2 * ms))
    late, back, steady = found.counts
    assert min(late, back, steady) > 100
    assert found.left_s[0.5] < found.left_s[0.1] < found.left_s[0.01] < 1e-3
    early, last = found.tail_rel[:4].mean(), found.tail_rel[-40:].mean()
    assert early > 0.5, "those on their way do not know of the stop"
    assert last < 0.02
    assert found.tail_s == pytest.approx(np.sum(found.tail_rel) * 1e-5, rel=0.02)
    assert 5e-5 < found.tail_s < 2e-4
    assert found.restart_rel[0] < found.restart_rel[1:].mean(), "the transit fills again"
    assert found.restart_rel[1:].mean() == pytest.approx(1.0, abs=0.4)


def test_ripple_of_the_tune_modulates_the_rate_up_to_the_transit_time() -> None:
    """A betatron core drives smoothly, so that the response stands out of little else."""
    made = replace(setting("pimms", particles=3000, turns=60_000), seed=5)
    found = ripple_response(made, [1200.0, 2400.0, 24_000.0], 3e-5, 30_000, repeats=1)
    assert np.abs(found.frequency_hz / [1200.0, 2400.0, 24_000.0] - 1.0).max() < 0.05
    assert found.modulation_rel[:2].min() > 3.0 * found.floor_rel
    assert found.modulation_rel[2] < 0.5 * found.modulation_rel[1], "ripple faster than the transit is smeared out"
    assert found.gain == pytest.approx(found.modulation_rel / 3e-5)
    # -i omega, late by more than a tenth and less than one of the median transit of 230 us
    late = np.mod(-0.5 * np.pi - found.phase_rad[0], 2.0 * np.pi) / (2.0 * np.pi * found.frequency_hz[0])
    assert 2e-5 < late < 2.3e-4


def test_a_spill_starts_after_the_drive_and_a_stronger_drive_starts_it_sooner() -> None:
    weak, strong = (
        start_response(setting(particles=1500, turns=30_000, drive=drive), 4e-4, 1000, repeats=2)
        for drive in (1.0, 3.0)
    )
    assert strong.delay_s < weak.delay_s
    assert strong.overshoot_rel > weak.overshoot_rel, "a strong drive empties the ring: its rate begins high and falls"
    assert weak.rate_rel[weak.rate_rel.size // 2 :].mean() == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"turns = 3000.*four bins of 0.0004 s after turn 2000"):
        start_response(setting(turns=3000), 4e-4, 1000)


def test_few_particles_give_no_figures() -> None:
    with pytest.raises(ConfigError, match="at least 200: more particles, more turns or a stronger drive"):
        transit_distribution(run_spill(setting(particles=300, turns=2000)))


@pytest.mark.parametrize("name", list_facilities())
def test_every_facility_has_optics_whose_drive_is_its_own(name: str) -> None:
    assert load_optics(name).drive.kind == load_facility(name).ring.extraction


def test_an_energy_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"energy = 20 MeV/u.*120 to 400 MeV/u"):
        setting_of(load_facility("wuwei"), "carbon", 20.0, 1000, 1000, 1)


def test_a_ring_without_optics_is_named() -> None:
    with pytest.raises(ConfigError, match="no optics for facility 'nowhere'"):
        load_optics("nowhere")


def test_optics_are_read_and_bad_ones_say_what_is_wrong() -> None:
    assert read_optics(RING, "ring.toml").facilities == ("there",)
    for old, new, words in (
        ("beta_m = 10.0\nalpha", "beta_m = -1.0\nalpha", r"lattice.beta_m = -1.0.*greater than 0 .ring.toml"),
        ("phase_turns = 0.5", "phase_turns = 1.7", r"sextupoles.phase_turns = 1.7.*at most lattice.tune, 1.67"),
        ("k2l_per_m2 = 1.0", "k2l_per_m2 = 0.0", r"they cancel"),
        ("ionctl.optics/1", "ionctl.optics/0", r"not a file of optics"),
        ('name = "ring"', 'name = "ring"\nnick = "r"', r"nick"),
        ("side = 1", "side =", r"not valid TOML"),
    ):
        assert old in RING
        with pytest.raises(ConfigError, match=f"(?s){words}"):
            read_optics(RING.replace(old, new), "ring.toml")


def test_a_slow_core_loses_none_of_the_ions_that_leave_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracked are a few; they are those that leave, at the same turns, when all are tracked."""
    slow, turns = replace(setting("pimms"), particles=1500), 40_000
    few = operating_point(slow, 0.005, 1, turns)
    monkeypatch.setattr(measure, "_leaving_within", lambda point, turns: point)
    every = operating_point(slow, 0.005, 1, turns)
    assert few.turn == every.turn
    assert few.beam.x.size < 0.3 * every.beam.x.size
    ends = [np.sort(beam.end_turn[beam.status != STORED]) for beam in (few.advance(turns), every.advance(turns))]
    assert ends[0].size > 10
    assert ends[0].tolist() == ends[1].tolist()


def test_a_restart_is_over_the_rate_before_it() -> None:
    edges = np.array([0.0, 300.0, 1500.0, 4000.0])
    level, error = restart_rate(setting(), 1.0, 1.0, edges, Effort(3000, 8, 4000, 1))
    assert level[0] < 0.5, "nobody is on the way"
    assert level[1:] == pytest.approx(1.0, abs=4.0 * float(error[1:].max()))
    weaker, _ = restart_rate(setting(), 1.0, 0.5, edges, Effort(3000, 8, 4000, 1))
    assert weaker[2] < 0.7 * level[2]
