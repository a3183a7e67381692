"""The calibrated rate model of the spill against tracking, where it was not calibrated.

``python -m benchmarks.spill_calibration`` rewrites the tables of docs/physics/slow-extraction.md that hold the model of
`configs/tables/*-spill.csv` against tracking at energies, drives and frequencies that are no operating points of the
calibration (some fifteen minutes; ``... wuwei`` only that ring's).  Nothing is fitted here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS, write_part
from facility.config import load_facility
from ioc_sim.extraction.calibration import Measured, measure
from ioc_sim.extraction.kobayashi import ComplexArray
from ioc_sim.extraction.measure import BIN_TURNS, RipplePoint, ripple_point
from ioc_sim.extraction.points import Effort, Point
from ioc_sim.extraction.rate_model import RateModel
from ioc_sim.extraction.spill import setting_of
from ioc_sim.extraction.table import load_spill_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "physics" / "slow-extraction.md"
ALLOWED = 0.15
PER_TURN = (2e-4, 4.5e-4, 9e-4, 1.8e-3)
"""None of `calibration.RIPPLE_PER_TURN`."""
HELD_OUT: dict[str, tuple[tuple[float, Point], ...]] = {
    "wuwei": (
        (400.0, Point(0.0, 1.4, Effort(20_000, 8, 10_000, 60), Effort(20_000, 24, 12_000, 1))),
        (200.0, Point(0.0, 0.7, Effort(20_000, 8, 25_000, 80), Effort(16_000, 20, 40_000, 1))),
        (330.0, Point(0.0, 0.35, Effort(20_000, 8, 50_000, 100), Effort(16_000, 16, 60_000, 1))),
    ),
    "pimms": (
        (200.0, Point(0.0, 0.7, Effort(16_000, 3, 12_000, 60), Effort(24_000, 6, 12_000, 1))),
        (320.0, Point(0.0, 0.25, Effort(16_000, 3, 30_000, 80), Effort(24_000, 6, 30_000, 1))),
    ),
}
DRIVE_RIPPLE = {"wuwei": 0.1, "pimms": 0.2}
"""Relative amplitude of each line of ripple of exciter or core."""


def deviation(model: float, tracked: float, error: float) -> str:
    """Deviation with one sigma of the tracking; in bold where more than allowed and two sigma beyond it."""
    off = model / tracked - 1.0
    sigma = error / tracked
    text = f"{off:+.0%} ± {sigma:.0%}"
    return f"**{text}**" if abs(off) > ALLOWED + 2.0 * sigma else text


def stop_row(name: str, found: Measured, model: RateModel, f_rev_hz: float) -> str:
    """Ions to come, time until a tenth of them is left, restart; Markdown."""
    us = 1e6 / f_rev_hz
    stop, transit = found.stop, model.transit(found.drive, found.beta_gamma)
    alive = np.cumsum(stop.survival) / np.sum(stop.survival)
    tenth = float(np.interp(0.9, alive, BIN_TURNS * np.arange(1, alive.size + 1)))
    error = tenth * stop.mean_error / stop.mean_turns
    return (
        f"| {name}, {found.energy_mev_u:g}, {found.drive:g} | "
        f"{stop.mean_turns * us:.0f} ± {stop.mean_error * us:.0f} | {transit.mean_turns * us:.0f} | "
        f"{deviation(transit.mean_turns, stop.mean_turns, stop.mean_error)} | "
        f"{tenth * us:.0f} | {transit.left_turns(0.1) * us:.0f} | {deviation(transit.left_turns(0.1), tenth, error)} | "
        f"{stop.restart_rel:.2f} ± {stop.restart_error:.2f} | {model.restart_rel:.2f} | "
        f"{deviation(model.restart_rel, stop.restart_rel, stop.restart_error)} |"
    )


def ripple_rows(name: str, what: str, ripple: RipplePoint, model: ComplexArray, f_rev_hz: float) -> list[str]:
    """One line of the table for each frequency, Markdown."""
    rows = []
    for per_turn, gain, error, said in zip(ripple.per_turn, ripple.gain, ripple.error, model, strict=True):
        turn = float(np.angle(said / gain))
        rows.append(
            f"| {name}, {what} | {per_turn * f_rev_hz:.0f} | {abs(gain):.3g} ± {error:.2g} | {abs(said):.3g} | "
            f"{deviation(abs(said), abs(gain), error)} | {turn:+.2f} |"
        )
    return rows


STOP_HEAD = [
    "| ring, MeV/u, drive | ions to come after a stop, µs of rate | model | deviation | "
    "until a tenth of them is left, µs | model | deviation | level after a restart | model | deviation |",
    "|---|---|---|---|---|---|---|---|---|---|",
]
RIPPLE_HEAD = ["| ring, MeV/u, drive; ripple of | Hz | modulation per ripple | model | deviation | phase off, rad |",
               "|---|---|---|---|---|---|"]  # fmt: skip


def rows_of(facility_id: str) -> dict[str, list[str]]:
    """Both tables' rows of one ring."""
    facility = load_facility(facility_id)
    model = load_spill_table(facility)
    rows: dict[str, list[str]] = {"stop": [], "ripple": []}
    for number, (energy, point) in enumerate(HELD_OUT[facility_id]):
        setting = setting_of(facility, "carbon", energy, point.stop.particles, 1, 1)
        found = measure(setting, energy, point, PER_TURN)
        name = f"{facility_id}, {energy:g}, {point.drive:g}"
        rows["stop"].append(stop_row(facility_id, found, model, setting.f_rev_hz))
        said = model.ripple(found.ripple.per_turn, point.drive, setting.beta_gamma)
        rows["ripple"] += ripple_rows(name, "dQ", found.ripple, said, setting.f_rev_hz)
        if number == 1:
            drive = ripple_point(setting, point.drive, PER_TURN, DRIVE_RIPPLE[facility_id], point.ripple, True)
            said = model.drive_ripple(drive.per_turn, point.drive, setting.beta_gamma)
            rows["ripple"] += ripple_rows(name, "drive", drive, said, setting.f_rev_hz)
        print("\n".join([*rows["stop"], *rows["ripple"]]), flush=True)
    return rows


def main() -> None:
    """All rings, or those named; rows of the others are those of the last run."""
    kept_in = RESULTS / "spill_calibration.json"
    kept = json.loads(kept_in.read_text(encoding="utf-8")) if kept_in.is_file() else {}
    for facility_id in sys.argv[1:] or HELD_OUT:
        kept[facility_id] = rows_of(facility_id)
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept_in.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for part, head in (("stop", STOP_HEAD), ("ripple", RIPPLE_HEAD)):
        write_part(
            PAGE,
            "spill_calibration",
            f"calibrated {part}",
            head + [r for f in HELD_OUT if f in kept for r in kept[f][part]],
        )


if __name__ == "__main__":
    main()
