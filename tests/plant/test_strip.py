"""The strip chamber: centroid and width by fit, dead strips, and the tick's centroid as such a fit has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.errors import ConfigError
from ioc_sim import layout as at
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import F_COLUMNS, N_FAULT_POINTS
from ioc_sim.layout import PARAM_DTYPE, STATE_DTYPE
from ioc_sim.params import as_argument, pack_parameters, record
from ioc_sim.physics.chambers import spot_constants, strip_window
from ioc_sim.physics.strip_profile import (
    Strips,
    expected,
    fit,
    live_variance,
    measured,
    resolution_mm,
    spread_by_strip,
)

WUWEI = load_facility("wuwei")
PITCH = WUWEI.strip.pitch_mm
EVEN = np.ones(128)


def found(strips: Strips, ions: float, sigma: float, centre: float, count: int = 250) -> np.ndarray:
    """Errors of centre and width of so many fits, (count, 2)."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(count):
        at_mm = centre + rng.uniform(-0.5, 0.5) * PITCH
        one = fit(strips, measured(strips, ions, at_mm, sigma, EVEN, rng))
        if one is not None:
            rows.append((one.centre_mm - at_mm, one.width_mm - sigma))
    assert len(rows) > 0.95 * count
    return np.array(rows)


@pytest.mark.parametrize("dead", [(), (64,), (64, 66)])
@pytest.mark.parametrize(("ions", "sigma"), [(1e3, 1.7), (1e4, 2.3), (1e5, 3.4)])
def test_a_fit_has_no_bias_and_the_spread_that_is_said(dead: tuple[int, ...], ions: float, sigma: float) -> None:
    strips = Strips.of(128, PITCH, dead, 0.8)
    errors = found(strips, ions, sigma, strips.centres_mm[64])
    said = resolution_mm(strips, ions, strips.centres_mm[64], sigma)
    for column in (0, 1):
        assert abs(errors[:, column].mean()) < 4.0 * said[column] / math.sqrt(len(errors))
        assert errors[:, column].std() == pytest.approx(said[column], rel=0.2)
    counting, electronics = live_variance(PITCH, sigma, 0.8)
    live = math.sqrt(counting / ions + electronics / ions**2) * spread_by_strip(strips, sigma)[64]
    assert live == pytest.approx(said[0], rel=0.1)


def test_a_dead_strip_that_nobody_knows_of_moves_the_centre_one_that_is_known_does_not() -> None:
    whole, known = (Strips.of(128, PITCH, dead, 0.8) for dead in ((), (65,)))
    profile = expected(known, 1e5, 0.0, 2.3) * ~known.dead
    wrong, right = fit(whole, profile), fit(known, profile)
    assert right is not None
    assert wrong is not None
    assert abs(right.centre_mm) < 1e-3
    assert right.width_mm == pytest.approx(2.3, abs=1e-3)
    assert abs(wrong.centre_mm) > 0.2


def test_nothing_is_fitted_where_there_is_no_beam() -> None:
    strips = Strips.of(128, PITCH, (), 0.8)
    rng = np.random.default_rng(1)
    assert fit(strips, rng.normal(0.0, 0.8, 128)) is None
    assert fit(strips, np.zeros(128)) is None
    assert fit(strips, expected(strips, 1e4, 400.0, 2.0)) is None


def windows(dead: tuple[int, ...], ions: float, sigma: float, centre_mm: float) -> np.ndarray:
    """Centroids at the chamber of 4000 windows of the tick, (4000, 2), less the true ones."""
    facility = change_facility(WUWEI, {"strip.dead_x": dead, "strip.noise_mm": 0.0})
    parameters, q = pack_parameters(facility, "1", "carbon", load_spill_table(facility), 5, 1, 1)
    p, s = as_argument(parameters, PARAM_DTYPE)[0], as_argument(record(STATE_DTYPE), STATE_DTYPE)
    v = np.zeros(at.N_V)
    v[at.IC_FC_PER_ION : at.IC_FC_PER_ION + 2] = 0.25
    spot_constants(p, q, v, sigma)
    faults = np.zeros((N_FAULT_POINTS, F_COLUMNS))
    rows = []
    for k in range(4000):
        s[0]["tick"], s[0]["strip_n"], s[0]["strip_clean"] = k, ions, 1
        s[0]["strip_x"] = s[0]["strip_y"] = ions * centre_mm / q[at.STRIP_RATIO]
        s[0]["strip_ticks"] = p["strip_window_ticks"]
        assert strip_window(p, q, s[0], v, faults) == 1
        rows.append(v[at.STRIP_MM : at.STRIP_MM + 2] * q[at.STRIP_RATIO : at.STRIP_RATIO + 2])
    true = centre_mm / q[at.STRIP_RATIO] * q[at.STRIP_RATIO : at.STRIP_RATIO + 2]
    return np.array(rows) - true


@pytest.mark.parametrize("ions", [300.0, 1e4])
def test_the_ticks_centroid_spreads_as_the_fit_does(ions: float) -> None:
    strips = Strips.of(128, PITCH, (63, 65), 0.8)
    dead, alive = strips.centres_mm[64], strips.centres_mm[90]
    whole = resolution_mm(strips, ions, alive, 1.7)[0]
    assert windows((63, 65), ions, 1.7, alive).std(axis=0) == pytest.approx([whole, whole], rel=0.06)
    x, y = windows((63, 65), ions, 1.7, dead).std(axis=0)
    assert x == pytest.approx(resolution_mm(strips, ions, dead, 1.7)[0], rel=0.08)
    assert x > 1.15 * whole
    assert y == pytest.approx(whole, rel=0.06)


@pytest.mark.parametrize(("fc_per_ion", "ions", "valid"), [(0.25, 250.0, 1), (0.0097, 600.0, 0), (0.0097, 2000.0, 1)])
def test_a_centroid_that_noise_could_take_to_a_limit_is_not_told(fc_per_ion: float, ions: float, valid: int) -> None:
    """250 MeV protons free 0.0097 fC in chamber 2: a strip has the noise of 21 of them, and 600 spread by 0.43 mm."""
    parameters, q = pack_parameters(WUWEI, "1", "carbon", load_spill_table(WUWEI), 5, 1, 1)
    p, s = as_argument(parameters, PARAM_DTYPE)[0], as_argument(record(STATE_DTYPE), STATE_DTYPE)
    v = np.zeros(at.N_V)
    v[at.IC_FC_PER_ION : at.IC_FC_PER_ION + 2] = fc_per_ion
    spot_constants(p, q, v, 3.2)
    s[0]["strip_n"], s[0]["strip_clean"], s[0]["strip_ticks"] = ions, 1, p["strip_window_ticks"]
    assert strip_window(p, q, s[0], v, np.zeros((N_FAULT_POINTS, F_COLUMNS))) == valid, (
        "it goes on where it has too few"
    )
    assert s[0]["strip_valid"] == valid
    assert s[0]["strip_n"] == (0.0 if valid else ions)


def test_windows_are_added_up_until_they_have_ions_enough_and_not_for_ever() -> None:
    """An unclean one ends at once, one that has too few after ten, and both are not told."""
    parameters, q = pack_parameters(WUWEI, "1", "carbon", load_spill_table(WUWEI), 5, 1, 1)
    p, s = as_argument(parameters, PARAM_DTYPE)[0], as_argument(record(STATE_DTYPE), STATE_DTYPE)
    v, faults = np.zeros(at.N_V), np.zeros((N_FAULT_POINTS, F_COLUMNS))
    v[at.IC_FC_PER_ION : at.IC_FC_PER_ION + 2] = 0.25
    spot_constants(p, q, v, 2.0)

    def closed(ions: float, windows: int, clean: int) -> tuple[int, int]:
        s[0]["strip_n"], s[0]["strip_clean"] = ions, clean
        s[0]["strip_ticks"], s[0]["strip_valid"] = windows * p["strip_window_ticks"], 1
        return int(strip_window(p, q, s[0], v, faults)), int(s[0]["strip_valid"])

    assert closed(100.0, 1, 1) == (0, 1)
    assert closed(250.0, 3, 1) == (1, 1)
    assert closed(100.0, 9, 1) == (0, 1)
    assert closed(100.0, 10, 1) == (1, 0)
    assert closed(250.0, 1, 0) == (1, 0)


@pytest.mark.parametrize("dead", [(3, 3), (128,), tuple(range(80))])
def test_dead_strips_must_be_some_of_the_chamber(dead: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"strip\.dead_x .* different strips of 0 to 127, at most half"):
        change_facility(WUWEI, {"strip.dead_x": dead})
