"""Published curves to hold ours against, where their files are at hand: matRad's carbon data, ICRU 90 ranges, TRiP98.

Some of matRad's carbon curves and some rows of ICRU 90 come with the product, for pictures.
Nothing of the product depends on these files, and nothing in it is fitted to them.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facility.errors import ConfigError
from facility.physics.relativity import FloatArray

MATRAD_FILE = "carbon_Generic.mat"
OWN_CURVES = Path(__file__).resolve().parent / "matrad_carbon.csv"
"""Every second curve of matRad's file, with its licence (BSD, 3 clauses) and the SHA-256 of source and rows."""
RANGE_FILES = {
    "carbon": ("range_c12_water.csv", "R_CSDA_ICRU90_I78_g_cm2"),
    "proton": ("range_p_water.csv", "R_CSDA_ICRU90_I78"),
}

ICRU_ROWS = {
    "carbon": ((150.0, 53.067), (290.0, 163.13), (430.0, 309.17)),
    "proton": ((100.0, 77.622), (200.0, 260.97)),
}
"""Some rows of ICRU Report 90 (2016), I = 78 eV: MeV/u, CSDA range in mm of water; for where no table is at hand."""


@dataclass(frozen=True, eq=False)
class ReferenceCurve:
    """A depth-dose curve of matRad's carbon data: MeV cm2/g over mm, and one sigma across added in water (mm; nan where
    only the dose is at hand)."""

    energy_mev_u: float
    depth_mm: FloatArray
    dose: FloatArray
    sigma_mm: FloatArray

    def at(self, depth_mm: FloatArray) -> FloatArray:
        """Between its points: monotone cubic, as its few points ask for; 0 behind the last."""
        from scipy.interpolate import PchipInterpolator

        found = PchipInterpolator(self.depth_mm, self.dose, extrapolate=False)(depth_mm)
        return np.asarray(np.nan_to_num(found, nan=0.0), dtype=np.float64)


def matrad_curves(folder: Path) -> list[ReferenceCurve]:
    """All curves of the file, by rising energy; ConfigError without file or reader."""
    try:
        from scipy.io import loadmat
    except ImportError as problem:
        raise ConfigError("reference.scipy", "matRad's file needs scipy to be read", str(folder),
                          "pip install scipy") from problem  # fmt: skip
    path = folder / MATRAD_FILE
    try:
        machine: Any = loadmat(path, squeeze_me=True, struct_as_record=False)["machine"]
    except (OSError, ValueError, KeyError) as problem:
        raise ConfigError("reference.missing", f"no reference: {problem}", str(path)) from problem
    rows = [
        ReferenceCurve(float(one.energy), *(np.asarray(a, dtype=np.float64) for a in (one.depths, one.Z, one.sigma)))
        for one in machine.data
    ]
    return sorted(rows, key=lambda one: one.energy_mev_u)


def own_curves() -> list[ReferenceCurve]:
    """The curves that come with the product, by rising energy; ConfigError if the file is not the one that was made."""
    lines = OWN_CURVES.read_text(encoding="utf-8").splitlines(keepends=True)
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    head = dict(line[2:].rstrip().split(": ", 1) for line in lines[:count] if ": " in line)
    if head.get("rows_sha256") != hashlib.sha256("".join(lines[count:]).encode()).hexdigest():
        raise ConfigError("reference.edited", "the rows do not match the file's own hash", str(OWN_CURVES),
                          "the file as it was installed")  # fmt: skip
    rows = np.loadtxt(lines[count + 1 :], delimiter=",")
    parts = np.split(rows, np.flatnonzero(np.diff(rows[:, 0])) + 1)
    return [ReferenceCurve(float(p[0, 0]), p[:, 1], p[:, 2], np.full(len(p), np.nan)) for p in parts]


def icru_ranges(folder: Path | None, species: str) -> tuple[FloatArray, FloatArray]:
    """Energies (MeV/u) and CSDA ranges (mm) of ICRU 90, I = 78 eV: `ICRU_ROWS`, or with a folder its whole table.

    ConfigError without the file.
    """
    if folder is None:
        energies, ranges = np.array(ICRU_ROWS[species]).T
        return energies, ranges
    name, column = RANGE_FILES[species]
    try:
        with (folder / name).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        energy = np.array([float(next(iter(row.values()))) for row in rows])
        return energy, 10.0 * np.array([float(row[column]) for row in rows])
    except (OSError, KeyError, ValueError, StopIteration) as problem:
        raise ConfigError("reference.missing", f"no reference: {problem}", str(folder / name)) from problem


def trip98_depth_curve(path: Path) -> tuple[FloatArray, FloatArray]:
    """Depth (mm, as written) and dose (Gy) of the first curve of a TRiP98 `.gd` file; ConfigError if there is none."""
    try:
        words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as problem:
        raise ConfigError("reference.missing", f"no reference: {problem}", str(path)) from problem
    rows: list[tuple[float, float]] = []
    for parts in words:
        try:
            point = float(parts[0]), float(parts[1])
        except (IndexError, ValueError):
            continue
        if rows and point[0] < rows[-1][0]:
            break
        rows.append(point)
    if not rows:
        raise ConfigError("reference.empty", "no curve in the file", str(path))
    found = np.array(rows)
    return found[:, 0], found[:, 1]
