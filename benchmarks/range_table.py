"""Ranges in water by this project's own code, beside ICRU 90 where the reference tables are at hand.

Run with ``python -m benchmarks.range_table``; it rewrites the table of docs/reference/ranges.md.  Nothing is fitted to
the reference: the models are in ``facility/physics``.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks import reference_files
from facility.physics import CARBON, PROTON, range_water_mm, stopping_power_mev_cm2_g

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "ranges.md"
TABLES = ROOT.parent / "shared" / "data" / "tables"
CARBON_MEV_U = (100, 120, 150, 200, 250, 290, 330, 350, 380, 400, 430)
PROTON_MEV = (70, 100, 150, 180, 200, 220, 250)
MARK = "<!-- table made by benchmarks/range_table.py -->"


def rows() -> list[str]:
    """Lines of both tables, Markdown."""
    lines: list[str] = []
    for head, ion, energies, digits in (
        ("carbon, MeV/u", CARBON, CARBON_MEV_U, 1),
        ("protons, MeV", PROTON, PROTON_MEV, 2),
    ):
        lines += ["", f"| {head} | range, mm | stopping power, MeV cm2/g |", "|---|---|---|"]
        lines.extend(
            f"| {e} | {float(range_water_mm(e, ion)):.2f} | {float(stopping_power_mev_cm2_g(e, ion)):.{digits}f} |"
            for e in energies
        )
    return lines[1:]


def deviations() -> dict[str, float] | None:
    """Largest deviation of the range from ICRU 90 (I = 78 eV), per cent; None without the reference tables."""
    if not TABLES.is_dir():
        return None
    reference_files.require()
    found = {}
    for name, ion, file, column, low, high in (
        ("carbon 150 to 430 MeV/u", CARBON, "range_c12_water.csv", "R_CSDA_ICRU90_I78_g_cm2", 150, 430),
        ("protons 70 to 250 MeV", PROTON, "range_p_water.csv", "R_CSDA_ICRU90_I78", 70, 250),
    ):
        with (TABLES / file).open() as handle:
            table = [row for row in csv.DictReader(handle) if low <= float(next(iter(row.values()))) <= high]
        energy = np.array([float(next(iter(row.values()))) for row in table])
        reference = np.array([float(row[column]) for row in table]) * 10.0
        found[name] = float(np.max(np.abs(range_water_mm(energy, ion) / reference - 1.0)) * 100.0)
    return found


def main() -> None:
    """Print the tables and write them into the page."""
    table = "\n".join(rows())
    print(table)
    for name, value in (deviations() or {}).items():
        print(f"{name}: at most {value:.3f} % from ICRU 90")
    head = PAGE.read_text().split(MARK)[0]
    PAGE.write_text(f"{head}{MARK}\n\n{table}\n")


if __name__ == "__main__":
    main()
