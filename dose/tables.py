"""The frozen tables of nuclear reactions in water: surviving primaries and dose of fragments, by energy and depth.

One CSV per species beside this module, made by `python -m dose.tables` (some minutes) with `dose.transport`, and by
nothing else: no row is fitted to a measured or published curve. The header names schema, species, mean excitation
energy, step of the transport, and two hashes: of the rows, and of the numbers that they were computed from. A table
that was edited, or that no longer belongs to the code, is refused.

Depths up to the range are stored as shares of it, those behind it in mm: so a curve of any energy lies between those of
its neighbours.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dose import nuclear
from dose.transport import fragments
from facility.errors import ConfigError
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import CARBON, PROTON, FloatArray, IonLike
from facility.physics.stopping import WATER

SCHEMA = "ionctl.depth-dose/1"
FOLDER = Path(__file__).resolve().parent
SHARES = np.concatenate((np.linspace(0.0, 0.9, 46), np.linspace(0.91, 1.0, 10)))
BEHIND_MM = np.concatenate((np.arange(1.0, 10.0), np.arange(10.0, 60.0, 5.0), np.arange(60.0, 301.0, 20.0)))
COLUMNS = ("energy_mev_u", "range_share", "behind_mm", "survival", "heavy", "light", "local")


@dataclass(frozen=True)
class Made:
    """How a table is made: primary, ranges of its energies (mm), step of the transport (mm)."""

    nuclide: nuclear.Nuclide
    ranges_mm: tuple[float, ...]
    step_mm: float


MADE = {
    "carbon": Made(nuclear.C12, (1.5, 5.0, 10.0, 16.0, *(float(r) for r in range(24, 320, 14)), 335.0), 1.0),
    "proton": Made(nuclear.P, (1.5, 5.0, 10.0, 16.0, *(float(r) for r in range(26, 400, 20)), 410.0), 1.0),
}


@dataclass(frozen=True, eq=False)
class NuclearTable:
    """Rows by energy: arrays are (energies,), and (energies, points) for the points of `SHARES`, then `BEHIND_MM`.

    Attributes:
        range_mm: CSDA range of each energy.
        survival: primaries left at that depth, per primary.
        groups: (3, energies, points) dose of heavy fragments, light ones, and what stays at the reaction; MeV cm2/g.
        hash: SHA-256 of the rows.
    """

    species: str
    range_mm: FloatArray
    survival: FloatArray
    groups: FloatArray
    hash: str

    def at(self, range_mm: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(depths mm, survival, groups (3, depths)) of a beam with this range, between its neighbours."""
        depth = np.concatenate((SHARES * range_mm, range_mm + BEHIND_MM))
        k = int(np.clip(np.searchsorted(self.range_mm, range_mm) - 1, 0, self.range_mm.size - 2))
        part = (range_mm - self.range_mm[k]) / (self.range_mm[k + 1] - self.range_mm[k])
        part = float(np.clip(part, 0.0, 1.0))
        mixed = (1.0 - part) * self.groups[:, k] + part * self.groups[:, k + 1]
        return depth, (1.0 - part) * self.survival[k] + part * self.survival[k + 1], mixed


def species_name(species: IonLike) -> str:
    """`carbon` or `proton`; ValueError for another ion."""
    for name, ion in (("carbon", CARBON), ("proton", PROTON)):
        if (species.mass_number, species.charge) == (ion.mass_number, ion.charge):
            return name
    raise ValueError("depth dose is made for protons and carbon ions")


def inputs_hash(species: str) -> str:
    """SHA-256 over the numbers that the rows depend on: yields, constants, cross sections, ranges at some energies."""
    made, all_of_them = MADE[species], (nuclear.C12, *nuclear.FRAGMENTS)
    energies = np.array([20.0, 100.0, 250.0, 400.0])
    data = {
        "yields": nuclear.YIELDS, "participants": nuclear.PARTICIPANTS, "local": nuclear.LOCAL_MEV,
        "goldhaber": nuclear.GOLDHABER_MEV_C, "step": made.step_mm, "ranges": made.ranges_mm,
        "points": [SHARES.tolist(), BEHIND_MM.tolist()],
        "per_cm": {n.name: [f"{x:.6g}" for x in nuclear.per_cm(n, energies)] for n in all_of_them},
        "ranges_mm": {n.name: [f"{float(x):.6g}" for x in range_water_mm(energies, n.ion)]
                      for n in all_of_them},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def compute(species: str, ranges_mm: tuple[float, ...] | None = None, step_mm: float | None = None) -> list[str]:
    """Rows of a table, CSV without header."""
    made = MADE[species]
    reach = np.array(ranges_mm or made.ranges_mm)
    step = step_mm or made.step_mm
    energies = energy_for_range_mev_u(reach, made.nuclide.ion)
    dose, left = fragments(made.nuclide, energies, step, float(BEHIND_MM[-1]) + 2.0 * step)
    rows = []
    for k, energy in enumerate(energies):
        depth = np.concatenate((SHARES * reach[k], reach[k] + BEHIND_MM))
        survival = np.interp(depth, np.arange(left.shape[1]) * step, left[k])
        middle = (np.arange(dose.shape[2]) + 0.5) * step
        groups = [np.interp(depth, np.concatenate(([0.0], middle)), np.concatenate(([0.0], line))) for line in dose[k]]
        groups[2] = np.interp(depth, middle, dose[k, 2])  # what stays where the reaction was has no build-up
        share = [*(f"{s:.4g}" for s in SHARES), *("" for _ in BEHIND_MM)]
        behind = [*("" for _ in SHARES), *(f"{b:g}" for b in BEHIND_MM)]
        for i in range(depth.size):
            values = ",".join(f"{v[i]:.5g}" for v in (survival, *groups))
            rows.append(f"{energy:.4f},{share[i]},{behind[i]},{values}")
    return rows


def _path(species: str) -> Path:
    return FOLDER / f"{species}.csv"


def write(species: str) -> Path:
    """Compute a table and write it beside this module."""
    rows = compute(species)
    body = "\n".join([",".join(COLUMNS), *rows]) + "\n"
    head = {
        "schema": SCHEMA, "species": species, "mean_excitation_ev": f"{WATER.mean_excitation_ev:g}",
        "step_mm": f"{MADE[species].step_mm:g}", "inputs_sha256": inputs_hash(species),
        "rows_sha256": hashlib.sha256(body.encode()).hexdigest(),
    }  # fmt: skip
    path = _path(species)
    path.write_text("".join(f"# {key}: {value}\n" for key, value in head.items()) + body, encoding="utf-8")
    return path


@lru_cache(maxsize=4)
def load(species: str) -> NuclearTable:
    """The table of a species; ConfigError for one that is missing, edited or of other code."""
    path = _path(species)
    fix = f"python -m dose.tables {species}"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("dose.table-missing", str(error), str(path), fix) from error
    lines = text.splitlines(keepends=True)
    head = dict(line[2:].strip().split(": ", 1) for line in lines if line.startswith("# "))
    body = "".join(line for line in lines if not line.startswith("# "))
    wanted = {"schema": SCHEMA, "inputs_sha256": inputs_hash(species),
              "rows_sha256": hashlib.sha256(body.encode()).hexdigest()}  # fmt: skip
    for key, value in wanted.items():
        if head.get(key) != value:
            raise ConfigError("dose.table", f"{key} is {head.get(key)}, not {value}", str(path), fix)
    values = np.genfromtxt(body.splitlines()[1:], delimiter=",", usecols=(0, 3, 4, 5, 6))
    points = SHARES.size + BEHIND_MM.size
    cube = values.reshape(-1, points, 5)
    ion = MADE[species].nuclide.ion
    groups = np.moveaxis(cube[:, :, 2:], 2, 0)
    return NuclearTable(species, range_water_mm(cube[:, 0, 0], ion), cube[:, :, 1], groups, wanted["rows_sha256"])


def main() -> None:
    """Make the tables named, or all."""
    for species in sys.argv[1:] or list(MADE):
        print(write(species))  # noqa: T201 - a tool


if __name__ == "__main__":
    main()
