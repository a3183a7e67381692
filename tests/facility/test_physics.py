"""Beam physics against published tables that nobody on this project made, and against itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dose.reference import ICRU_ROWS
from facility.config import load_facility
from facility.physics import (
    CARBON,
    PROTON,
    Ion,
    beta,
    charge_per_ion_fc,
    deflection_mm,
    drift_time_us,
    energy_for_range_mev_u,
    energy_for_rigidity_mev_u,
    field_integral_tm,
    gamma,
    momentum_mev_c,
    range_water_mm,
    revolution_frequency_hz,
    rigidity_tm,
    spot_sigma_mm,
    stopping_power_mev_cm2_g,
)
from facility.physics.lindhard_sorensen import correction

TABLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "tables"
WUWEI = load_facility("wuwei")


def oracle(name: str) -> list[dict[str, str]]:
    path = TABLES / name
    if not path.is_file():
        pytest.skip(f"reference table {name} is not on this machine")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_carbon_range_and_stopping_power_are_icru_90() -> None:
    rows = [row for row in oracle("range_c12_water.csv") if 150.0 <= float(row["T_MeV_per_u"]) <= 430.0]
    assert len(rows) >= 10
    energy = np.array([float(row["T_MeV_per_u"]) for row in rows])
    ranges = np.array([float(row["R_CSDA_ICRU90_I78_g_cm2"]) for row in rows])
    stopping = np.array([float(row["S_ICRU90_MeV_cm2_g"]) for row in rows])
    assert np.max(np.abs(range_water_mm(energy, CARBON) / 10.0 / ranges - 1.0)) < 0.003
    assert np.max(np.abs(stopping_power_mev_cm2_g(energy, CARBON) / stopping - 1.0)) < 0.005


def test_proton_range_is_icru_90() -> None:
    rows = oracle("range_p_water.csv")
    energy = np.array([float(row["T_MeV"]) for row in rows])
    ranges = np.array([float(row["R_CSDA_ICRU90_I78"]) for row in rows])
    assert np.max(np.abs(range_water_mm(energy, PROTON) / 10.0 / ranges - 1.0)) < 0.003


def test_ranges_printed_in_icru_90_without_the_table() -> None:
    """Three rows of ICRU Report 90 (I = 78 eV), so that the claim is tested on every machine."""
    for species, ion in (("carbon", CARBON), ("proton", PROTON)):
        energy, wanted = np.array(ICRU_ROWS[species]).T
        assert range_water_mm(energy, ion) == pytest.approx(wanted, rel=3e-3)


def test_rigidity_and_revolution_frequency_of_known_rings() -> None:
    energies = [88.8, 120.0, 200.0, 290.0, 400.0, 430.0]
    assert rigidity_tm(energies, CARBON) == pytest.approx([2.777, 3.254, 4.285, 5.271, 6.346, 6.624], abs=6e-4)
    assert float(rigidity_tm(250.0, PROTON)) == pytest.approx(2.432, abs=2e-3)
    assert float(revolution_frequency_hz(400.0, CARBON, 56.2)) == pytest.approx(3.81e6, rel=2e-3)
    assert float(revolution_frequency_hz(400.0, CARBON, 77.648)) == pytest.approx(2.76e6, rel=2e-3)
    assert float(revolution_frequency_hz(7.0, CARBON, 56.2)) == pytest.approx(0.65e6, rel=5e-3)
    assert beta([120.0, 400.0, 430.0], CARBON) == pytest.approx([0.464, 0.715, 0.729], abs=1e-3)


@given(st.floats(1.0, 450.0), st.sampled_from([CARBON, PROTON]))
def test_kinematics_agree_with_each_other(energy: float, ion: Ion) -> None:
    g, b = float(gamma(energy, ion)), float(beta(energy, ion))
    assert g == pytest.approx(1.0 / np.sqrt(1.0 - b * b), rel=1e-9)
    assert float(momentum_mev_c(energy, ion)) == pytest.approx(ion.mass_u * 931.49410242 * g * b, rel=1e-9)
    assert float(energy_for_rigidity_mev_u(rigidity_tm(energy, ion), ion)) == pytest.approx(energy, rel=1e-12)


@given(st.floats(0.02, 330.0), st.sampled_from([CARBON, PROTON]))
def test_range_and_its_inverse(range_mm: float, ion: Ion) -> None:
    energy = energy_for_range_mev_u(range_mm, ion)
    assert float(range_water_mm(energy, ion)) == pytest.approx(range_mm, rel=1e-9)


@given(st.floats(2.0, 440.0), st.sampled_from([CARBON, PROTON]))
def test_range_rises_at_the_rate_of_the_stopping_power(energy: float, ion: Ion) -> None:
    h = energy * 1e-3
    low, high = range_water_mm([energy - h, energy + h], ion) / 10.0
    slope = (high - low) / (2 * h * ion.mass_number)
    assert slope == pytest.approx(1.0 / float(stopping_power_mev_cm2_g(energy, ion)), rel=1e-3)


def test_range_refuses_what_it_cannot_answer() -> None:
    for bad in (0.0, -1.0, float("nan"), 501.0):
        with pytest.raises(ValueError, match="energy must lie"):
            range_water_mm(bad, CARBON)
    for bad in (0.0, float("nan"), 1e4):
        with pytest.raises(ValueError, match="range must lie"):
            energy_for_range_mev_u(bad, CARBON)


def test_shapes_are_kept() -> None:
    grid = np.full((3, 2), 200.0)
    for function in (rigidity_tm, beta, range_water_mm, stopping_power_mev_cm2_g):
        assert function(grid, CARBON).shape == (3, 2)
        assert function(200.0, CARBON).shape == ()


def test_lindhard_sorensen_goes_over_into_bloch_and_mott() -> None:
    """Slow: Bloch's correction (ICRU 49 eq. 2.6). Fast, small charge: pi z alpha beta / 2, the leading Mott term."""
    y2 = (6 / 137.036 / 0.06) ** 2
    # Bloch exactly: psi(1) - Re psi(1 + i y), as a sum
    j = np.arange(1, 200_000, dtype=np.float64)
    bloch = -y2 * float(np.sum(1.0 / (j * (j * j + y2))))
    assert float(correction(6, 0.06)) == pytest.approx(bloch, abs=0.012)
    difference = float(correction(6, 0.7)) - (-((6 / 137.036 / 0.7) ** 2) * 1.202)
    assert difference == pytest.approx(np.pi * 6 / 137.036 / 2 * 0.7, rel=0.1)


def test_charge_per_ion_is_as_published() -> None:
    carbon = WUWEI.species["carbon"]
    for chamber in (WUWEI.chambers.ic1, WUWEI.chambers.ic2):
        charge = charge_per_ion_fc([120.0, 200.0, 400.0], carbon, chamber)
        assert charge == pytest.approx([0.53, 0.37, 0.25], rel=0.08)
    ic1 = charge_per_ion_fc(200.0, carbon, WUWEI.chambers.ic1)
    ic2 = charge_per_ion_fc(200.0, carbon, WUWEI.chambers.ic2)
    assert float(ic1) != pytest.approx(float(ic2), rel=0.02)


def test_drift_times() -> None:
    chamber = WUWEI.chambers.ic1
    assert drift_time_us(chamber, 400.0) == pytest.approx(370.0, rel=0.02)
    assert drift_time_us(chamber, 1500.0) == pytest.approx(100.0, rel=0.02)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive voltage"):
            drift_time_us(chamber, bad)


def test_spot_size_follows_the_table() -> None:
    carbon = WUWEI.species["carbon"]
    assert spot_sigma_mm([100.0, 120.0, 250.0, 400.0, 430.0], carbon) == pytest.approx([3.4, 3.4, 2.3, 1.7, 1.7])


@given(st.floats(-100.0, 100.0), st.floats(1.0, 7.0), st.floats(5000.0, 9000.0))
def test_deflection_and_its_inverse(x: float, rigidity: float, sad: float) -> None:
    assert float(deflection_mm(field_integral_tm(x, rigidity, sad), rigidity, sad)) == pytest.approx(x, abs=1e-9)


def test_published_field_integral() -> None:
    """0.098 T m for 100 mm over 6.5 m at 400 MeV/u."""
    assert float(field_integral_tm(100.0, rigidity_tm(400.0, CARBON), 6500.0)) == pytest.approx(0.098, abs=5e-4)
