"""Depth-dose curves: energy, peak, straggling and scattering against known figures, and the frozen tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dose import tables
from dose.curves import Curve, depth_dose, range_sigma_mm
from dose.features import peak_of
from dose.nuclear import C12, FRAGMENTS, YIELDS, per_cm
from dose.straggling import momentum_sigma_mm, scattering_sigma_mm, straggling_sigma_mm
from facility.errors import ConfigError
from facility.physics import CARBON, PROTON, Ion, energy_for_range_mev_u, stopping_power_mev_cm2_g

DEPTH = np.arange(0.0, 420.0, 0.1)


def deposited_mev(curve: Curve) -> float:
    return float(np.trapezoid(curve.total, curve.depth_mm / 10.0))


@pytest.mark.parametrize("energy", [120.0, 200.0, 290.0, 400.0])
def test_carbon_keeps_its_energy_and_peaks_in_front_of_its_range(energy: float) -> None:
    curve = depth_dose(energy, CARBON, 1.3)
    peak = peak_of(DEPTH, curve.at(DEPTH))
    assert 0.5 < (curve.range_mm - peak.depth_mm) / curve.sigma_mm < 1.1
    assert peak.entrance == pytest.approx(float(stopping_power_mev_cm2_g(energy, CARBON)), rel=0.02)
    # the rest is neutrons, binding, and what flies farther than the table
    assert 0.80 < deposited_mev(curve) / (12.0 * energy) < 0.99


@pytest.mark.parametrize("energy", [70.0, 150.0, 220.0])
def test_protons_keep_their_energy_and_fall_at_their_range(energy: float) -> None:
    curve = depth_dose(energy, PROTON)
    peak = peak_of(DEPTH, curve.at(DEPTH))
    assert peak.distal_mm[0] == pytest.approx(curve.range_mm, abs=0.15 * curve.sigma_mm)  # Bortfeld 1997
    assert 0.92 < deposited_mev(curve) / energy < 1.0


def test_a_wider_spread_lowers_the_peak_and_keeps_the_energy() -> None:
    narrow, wide = (depth_dose(200.0, CARBON, sigma) for sigma in (0.5, 3.0))
    assert wide.total.max() < 0.7 * narrow.total.max()
    assert deposited_mev(wide) == pytest.approx(deposited_mev(narrow), rel=0.01)


def test_curves_between_energies_of_the_table_go_on_smoothly() -> None:
    """Ratio of peak to entrance over energy has no step at the rows of the table."""
    ranges = np.arange(80.0, 110.0, 2.0)
    curves = [depth_dose(float(e), CARBON, 1.3) for e in energy_for_range_mev_u(ranges, CARBON)]
    ratios = np.array([peak_of(DEPTH, curve.at(DEPTH)).ratio for curve in curves])
    assert np.abs(np.diff(ratios, 2)).max() < 0.01 * ratios.mean()


def test_straggling_and_scattering_as_published() -> None:
    """Protons of 158 mm range: 1.1 % of it (Janni 1982); 2.1 to 2.3 % of it across at its end (Gottschalk 2010)."""
    energy = float(energy_for_range_mev_u(158.0, PROTON))
    assert 0.010 < straggling_sigma_mm(energy, PROTON) / 158.0 < 0.0115
    assert 0.020 < float(scattering_sigma_mm(energy, 158.0, PROTON)) / 158.0 < 0.024
    carbon = float(energy_for_range_mev_u(158.0, CARBON))
    ratio = straggling_sigma_mm(energy, PROTON) / straggling_sigma_mm(carbon, CARBON)
    assert 3.3 < ratio < 3.9  # about the root of the masses
    assert momentum_sigma_mm(energy, PROTON, 1e-3) == pytest.approx(0.00335 * 158.0, rel=0.03)
    assert range_sigma_mm(carbon, CARBON, 3.0) > 3.0


def test_a_gap_behind_a_range_shifter_widens_by_its_angle() -> None:
    near, far = (float(scattering_sigma_mm(150.0, 29.99, PROTON, gap, 30.0)) for gap in (0.0, 600.0))
    beyond = float(scattering_sigma_mm(150.0, 30.0, PROTON, 600.0, 30.0))
    assert near == far  # still in the shifter
    from dose.straggling import scattering_moments

    at, moments = scattering_moments(150.0, PROTON)
    angle = float(np.sqrt(np.interp(30.0, at, moments[0])))
    assert beyond == pytest.approx(600.0 * angle, rel=0.05)


def test_cross_sections_as_measured() -> None:
    """Carbon on water loses charge with 25.5 cm by its calibration; protons die with some 100 cm."""
    energy = np.array([250.0])
    total = float(per_cm(C12, energy)[0])
    assert 1.0 / (total * (1.0 - YIELDS["12C"]["11C"])) == pytest.approx(25.5)
    proton = next(one for one in FRAGMENTS if one.name == "p")
    assert 80.0 < 1.0 / float(per_cm(proton, np.array([150.0]))[0]) < 110.0
    charge = {one.name: one.ion.charge for one in FRAGMENTS}
    spectators = sum(number * charge[name] for name, number in YIELDS["12C"].items())
    assert 3.5 < spectators < 6.0, "struck nucleons carry the rest"


@pytest.mark.parametrize(("species", "reach", "step"), [("proton", 146.0, 2.0), ("carbon", 80.0, 4.0)])
def test_the_frozen_table_is_what_the_code_computes(species: str, reach: float, step: float) -> None:
    """One energy anew, on a coarser grid: survival within 0.2 %, dose of each group within 5 % of its highest."""
    rows = tables.compute(species, (reach,), step)
    fresh = np.genfromtxt(rows, delimiter=",", usecols=(3, 4, 5, 6))
    kept = tables.load(species)
    k = int(np.argmin(np.abs(kept.range_mm - reach)))
    assert kept.range_mm[k] == pytest.approx(reach, abs=1e-3)
    np.testing.assert_allclose(fresh[:, 0], kept.survival[k], atol=0.002)
    inner = tables.SHARES < 0.89
    for group in range(3):
        mine, theirs = fresh[: inner.size, group + 1][inner], kept.groups[group, k][: inner.size][inner]
        np.testing.assert_allclose(mine, theirs, atol=0.05 * max(theirs.max(), 0.1))


def test_an_edited_table_and_one_of_other_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (tables.FOLDER / "proton.csv").read_text(encoding="utf-8")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="proton"):
        tables.load.__wrapped__("proton")
    lines = text.splitlines()
    lines[-1] = lines[-1][:-1] + ("1" if lines[-1][-1] != "1" else "2")
    (tmp_path / "proton.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="rows_sha256"):
        tables.load.__wrapped__("proton")
    (tmp_path / "proton.csv").write_text(text, encoding="utf-8")
    monkeypatch.setitem(tables.nuclear.LOCAL_MEV, "p", 13.0)
    with pytest.raises(ConfigError, match="inputs_sha256"):
        tables.load.__wrapped__("proton")


def test_what_has_no_curve_is_refused() -> None:
    for bad in (5.0, 460.0, float("nan")):
        with pytest.raises(ValueError, match="10 to 450"):
            depth_dose(bad, CARBON)
    with pytest.raises(ValueError, match="protons and carbon"):
        depth_dose(200.0, Ion(4, 2, 4.0015))
    with pytest.raises(ValueError, match="ripple filter"):
        depth_dose(200.0, CARBON, -1.0)
    assert depth_dose(200.0, CARBON).at([-1.0]) == [0.0]
