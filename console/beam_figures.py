"""Figures of `ionctl machine range` and `bragg`, as data, as tables and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from console.tables import print_table
from dose.curves import Curve, depth_dose, range_sigma_mm
from dose.features import Peak, peak_of
from dose.reference import ReferenceCurve, icru_ranges, matrad_curves, own_curves
from dose.straggling import scattering_sigma_mm
from facility.config import Facility
from facility.energy_table import load_energy_table
from facility.errors import ConfigError, UsageError
from facility.physics.ranges import range_water_mm
from facility.physics.relativity import FloatArray
from facility.physics.stopping import WATER, stopping_power_mev_cm2_g

RANGE_SCHEMA, BRAGG_SCHEMA = "ionctl.range/1", "ionctl.bragg/1"
_LINES = 15
_NEAR_MEV_U = 3.0
"""A reference curve of an energy that is farther away is not drawn."""
Published = tuple[float, FloatArray, FloatArray, Peak]
"""Of a published curve: energy, depths, dose, and what its peak is like."""


@dataclass(frozen=True, eq=False)
class RangeFigures:
    """By energy of the facility's table: arrays of shape (n,)."""

    facility: str
    species: str
    energy_mev_u: FloatArray
    range_mm: FloatArray
    stopping: FloatArray
    sigma_mm: FloatArray
    scattered_mm: FloatArray
    reference: tuple[FloatArray, FloatArray]

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        columns = {
            "energy_mev_u": self.energy_mev_u, "range_mm": self.range_mm, "stopping_power_mev_cm2_g": self.stopping,
            "range_sigma_mm": self.sigma_mm, "scattered_at_range_mm": self.scattered_mm,
        }  # fmt: skip
        reference = {"energy_mev_u": self.reference[0].tolist(), "range_mm": self.reference[1].tolist(),
                     "source": "ICRU 90, I = 78 eV"}  # fmt: skip
        return {
            "schema": RANGE_SCHEMA, "facility": self.facility, "species": self.species,
            "mean_excitation_ev": WATER.mean_excitation_ev, **{key: v.tolist() for key, v in columns.items()},
            "reference": reference,
        }  # fmt: skip

    def draw(self, path: Path) -> None:
        """The picture."""
        from console.dose_picture import draw_ranges

        title = f"{self.species} in water (I = {WATER.mean_excitation_ev:g} eV), energies of {self.facility}"
        draw_ranges(self.energy_mev_u, self.range_mm, self.reference, title, path)


def range_figures(facility: Facility, species: str, reference: Path | None) -> RangeFigures:
    """Ranges of the energies of a species; UsageError for a species that the facility has not."""
    ion = facility.species_named(species)
    energies = load_energy_table(facility, species).energy_mev_u
    ranges = range_water_mm(energies, ion)
    ripple = facility.ripple_filter.sigma_mm
    return RangeFigures(
        facility.id, species, energies, ranges, stopping_power_mev_cm2_g(energies, ion),
        np.array([range_sigma_mm(float(e), ion, ripple) for e in energies]),
        np.array([float(scattering_sigma_mm(float(e), float(r), ion)) for e, r in zip(energies, ranges, strict=True)]),
        icru_ranges(reference, _kind(facility, species)),
    )  # fmt: skip


def _kind(facility: Facility, species: str) -> str:
    return "proton" if facility.species_named(species).mass_number == 1 else "carbon"


def print_ranges(found: RangeFigures) -> None:
    """Some lines of the table, and how far the reference is."""
    every = max(1, found.energy_mev_u.size // _LINES)
    kept = range(0, found.energy_mev_u.size, every)
    rows = [
        (i, f"{found.energy_mev_u[i]:.2f}", f"{found.range_mm[i]:.2f}", f"{found.stopping[i]:.2f}",
         f"{found.sigma_mm[i]:.2f}", f"{found.scattered_mm[i]:.2f}")
        for i in kept
    ]  # fmt: skip
    heads = ("code", "MeV/u", "range mm", "MeV cm2/g", "sigma of range", "scattered mm")
    print_table(f"{found.species} of {found.facility} in water", heads, rows, right=range(6))
    at, theirs = found.reference
    inside = (at >= found.energy_mev_u[0]) & (at <= found.energy_mev_u[-1])
    if inside.any():
        off = np.interp(at[inside], found.energy_mev_u, found.range_mm) / theirs[inside] - 1.0
        print(f"from ICRU 90 (I = 78 eV) at {int(inside.sum())} energies: at most {100.0 * np.abs(off).max():.2f} %")


@dataclass(frozen=True, eq=False)
class BraggFigures:
    """One curve behind so much water, and a published one of nearly this energy."""

    facility: str
    species: str
    energy_mev_u: float
    before_mm: float
    ripple_mm: float
    curve: Curve
    peak: Peak
    reference: Published | None

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON; the curve each half millimetre."""
        depth = np.arange(0.0, self.curve.depth_mm[-1] - self.before_mm, 0.5)
        at = depth + self.before_mm
        parts = {
            name: np.interp(at, self.curve.depth_mm, row).tolist()
            for name, row in (("primary", self.curve.primary), ("heavy", self.curve.heavy),
                              ("light", self.curve.light), ("local", self.curve.local))
        }  # fmt: skip
        reference = None
        if self.reference is not None:
            energy, depths, dose, peak = self.reference
            reference = {"energy_mev_u": energy, "depth_mm": depths.tolist(), "dose_mev_cm2_g": dose.tolist(),
                         "peak": _peak_data(peak)}  # fmt: skip
        return {
            "schema": BRAGG_SCHEMA, "facility": self.facility, "species": self.species,
            "energy_mev_u": self.energy_mev_u, "before_mm": self.before_mm,
            "ripple_sigma_mm": self.ripple_mm, "range_mm": self.curve.range_mm,
            "range_sigma_mm": self.curve.sigma_mm, "peak": _peak_data(self.peak), "depth_mm": depth.tolist(),
            "dose_mev_cm2_g": parts, "reference": reference,
        }  # fmt: skip

    def draw(self, path: Path) -> None:
        """The picture."""
        from console.dose_picture import draw_bragg

        what = f"{self.species} of {self.energy_mev_u:g} MeV/u in water"
        title = f"{what} ({self.facility}, {self.before_mm:.2f} mm in front)"
        beside = None
        if self.reference is not None:
            energy, depth, dose, _ = self.reference
            beside = depth, dose, f"matRad, {energy:.2f} MeV/u"
        draw_bragg(self.curve, self.before_mm, beside, title, path)


def bragg_figures(
    facility: Facility, species: str, energy: float, ripple_mm: float | None, before_mm: float | None,
    reference: Path | None,
) -> BraggFigures:  # fmt: skip
    """The curve of one energy; UsageError for an energy that has none."""
    ion = facility.species_named(species)
    ripple = facility.ripple_filter.sigma_mm if ripple_mm is None else ripple_mm
    before = facility.water_equivalent_upstream_mm() if before_mm is None else before_mm
    try:
        curve = depth_dose(energy, ion, ripple)
    except ValueError as problem:
        raise UsageError("bragg.energy", str(problem), "--energy", "give an energy within that") from problem
    if before >= curve.range_mm:
        raise UsageError("bragg.before", f"{before:g} mm stop a beam of {curve.range_mm:.1f} mm range", "--before-mm",
                         "give less water or more energy")  # fmt: skip
    depth = np.arange(0.0, curve.range_mm - before + 60.0, 0.05)
    peak = peak_of(depth, curve.at(depth + before))
    beside = _beside(species, energy) if reference is None else _published(reference, species, energy)
    return BraggFigures(facility.id, species, energy, before, ripple, curve, peak, beside)


def _beside(species: str, energy: float) -> Published | None:
    """A curve that comes with the product, if there is one of nearly this energy and scipy to draw it with."""
    if species != "carbon" or find_spec("scipy") is None:
        return None
    nearest = min(own_curves(), key=lambda one: abs(one.energy_mev_u - energy))
    return _shown(nearest) if abs(nearest.energy_mev_u - energy) <= _NEAR_MEV_U else None


def _published(folder: Path, species: str, energy: float) -> Published:
    if species != "carbon":
        raise ConfigError("reference.species", f"no published curve of {species} among them", str(folder),
                          "leave --reference out")  # fmt: skip
    nearest = min(matrad_curves(folder), key=lambda one: abs(one.energy_mev_u - energy))
    if abs(nearest.energy_mev_u - energy) > _NEAR_MEV_U:
        raise UsageError("reference.energy", f"the nearest published curve is of {nearest.energy_mev_u:g} MeV/u",
                         "--energy", f"--energy {nearest.energy_mev_u:g}")  # fmt: skip
    return _shown(nearest)


def _shown(one: ReferenceCurve) -> Published:
    depth = np.arange(0.0, float(one.depth_mm[-1]), 0.05)
    dose = one.at(depth)
    return one.energy_mev_u, depth[::10], dose[::10], peak_of(depth, dose)


def _peak_data(peak: Peak) -> dict[str, float | None]:
    return {
        "depth_mm": peak.depth_mm, "height": peak.height, "entrance": peak.entrance, "ratio": peak.ratio,
        "distal_80_mm": peak.distal_mm[0], "distal_50_mm": peak.distal_mm[1], "distal_20_mm": peak.distal_mm[2],
        "width_mm": None if np.isnan(peak.width_mm) else peak.width_mm, "tail_20_mm_behind": peak.tail,
    }  # fmt: skip


def print_bragg(found: BraggFigures) -> None:
    """A table; the published curve beside where there is one."""
    columns = [_peak_data(found.peak)]
    heads = ["", f"{found.energy_mev_u:g} MeV/u"]
    if found.reference is not None:
        columns.append(_peak_data(found.reference[3]))
        heads.append(f"matRad, {found.reference[0]:.2f} MeV/u")
    words = {
        "depth_mm": "peak, mm", "ratio": "peak over entrance", "height": "peak, MeV cm2/g",
        "entrance": "entrance, MeV cm2/g", "distal_80_mm": "distal 80 %, mm", "distal_50_mm": "distal 50 %, mm",
        "distal_20_mm": "distal 20 %, mm", "width_mm": "width at half height, mm",
        "tail_20_mm_behind": "20 mm behind the peak, MeV cm2/g",
    }  # fmt: skip
    rows = [(title, *("-" if c[key] is None else f"{c[key]:.2f}" for c in columns)) for key, title in words.items()]
    print_table(f"{found.species} in water, {found.before_mm:g} mm in front", heads, rows, right=(1, 2))
    behind = found.curve.range_mm - found.before_mm
    print(f"range {behind:.2f} mm behind that, one sigma {found.curve.sigma_mm:.2f} mm")
