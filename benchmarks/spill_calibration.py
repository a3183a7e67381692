"""The calibrated rate model of the spill against tracking, where it was not calibrated.

``python -m benchmarks.spill_calibration`` rewrites the tables of docs/physics/slow-extraction.md that hold the model of
`configs/tables/*-spill.csv` against tracking at energies, drives and frequencies that are no operating points of the
calibration (half an hour; ``... wuwei`` that ring only, ``... wuwei:3`` its fourth point, ``... tables`` none, with
what was tracked last).  ``... slow`` alone is the drive of a core at work, which has tables of its own.  Nothing is
fitted here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, write_part
from facility.config import load_facility
from ioc_sim.extraction.calibration import Measured, measure, stack_of
from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray
from ioc_sim.extraction.measure import BIN_TURNS, RipplePoint, StopPoint, ripple_amplitude, ripple_points
from ioc_sim.extraction.points import Effort, Point
from ioc_sim.extraction.rate_model import POWER, RISE, RateModel
from ioc_sim.extraction.spill import setting_of
from ioc_sim.extraction.table import load_spill_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "physics" / "slow-extraction.md"
ALLOWED = 0.15
FEW = 0.2
"""Where transit leaves less than this of a modulation, what is off is taken over this much of it: the criterion for
every line, of tune and drive."""
PER_TURN = (2e-4, 4.5e-4, 9e-4, 1.8e-3)
"""None of `calibration.RIPPLE_PER_TURN`."""
HELD_OUT: dict[str, tuple[tuple[float, Point], ...]] = {
    "wuwei": (
        (400.0, Point(0.0, 1.4, Effort(20_000, 4, 10_000, 60), Effort(1500, 160, 12_000, 1))),
        (200.0, Point(0.0, 0.7, Effort(20_000, 4, 25_000, 60), Effort(1500, 100, 40_000, 1))),
        (330.0, Point(0.0, 0.35, Effort(20_000, 4, 50_000, 60), Effort(3000, 50, 60_000, 1))),
        (250.0, Point(0.0, 0.1, Effort(16_000, 3, 300_000, 160), Effort(16_000, 4, 300_000, 1))),
    ),
    "pimms": (
        (200.0, Point(0.0, 0.7, Effort(16_000, 3, 12_000, 40), Effort(6000, 16, 10_000, 1))),
        (320.0, Point(0.0, 0.25, Effort(16_000, 3, 30_000, 40), Effort(6000, 16, 30_000, 1))),
        (250.0, Point(0.0, 0.02, Effort(16_000, 3, 100_000, 60), Effort(6000, 10, 100_000, 1))),
    ),
}
SLOW = ("pimms", 250.0, Point(0.0, 0.001, Effort(100_000, 3, 800_000, 120), Effort(100_000, 20, 1_000_000, 1)))
"""Where the plant of a core works."""
ALONE, ALONE_HIGHER, ALONE_SEEDS = 2, 3.0, 10
"""Of `PER_TURN`, a line that is tracked there by itself as well: with no other beside it may be so much higher, and is
known the better, before an ion turns back."""


def deviation(model: float, tracked: float, error: float) -> str:
    """Deviation with one sigma of the tracking; in bold where more than allowed and two sigma beyond it."""
    off = model / tracked - 1.0
    sigma = error / tracked
    text = f"{off:+.0%} ± {sigma:.0%}"
    return f"**{text}**" if abs(off) > ALLOWED + 2.0 * sigma else text


def without_transit(model: RateModel, per_turn: FloatArray, drive: float | None) -> FloatArray:
    """Modulation of a ring whose ions arrive as soon as they leave; `drive`: ripple of the tune at this drive."""
    if drive is None:
        return np.full(per_turn.size, POWER[model.kind])
    return np.asarray(model.ripple_gain / drive * (2.0 * np.pi * per_turn) ** RISE[model.kind], np.float64)


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


def ripple_rows(
    name: str, ripple: RipplePoint, said: ComplexArray, model: RateModel, f_rev_hz: float, drive: float | None = None
) -> list[str]:  # fmt: skip
    """One line of the table for each frequency, Markdown; `drive`: as `without_transit`."""
    rows = []
    whole = without_transit(model, ripple.per_turn, drive)
    name = f"{name}, {'drive' if drive is None else 'dQ'}"
    for i, (gain, error) in enumerate(zip(ripple.gain, ripple.error, strict=True)):
        left = abs(gain) / whole[i]
        over = max(abs(gain), FEW * whole[i])
        off, turn = over + abs(said[i]) - abs(gain), float(np.angle(said[i] / gain))
        rows.append(
            f"| {name} | {ripple.per_turn[i] * f_rev_hz:.0f} | {abs(gain):.3g} ± {error:.2g} | {left:.2f} | "
            f"{abs(said[i]):.3g} | {deviation(off, over, error)} | {turn:+.2f} |"
        )
    return rows


STOP_HEAD = [
    "| ring, MeV/u, drive | ions to come after a stop, µs of rate | model | deviation | "
    "until a tenth of them is left, µs | model | deviation | level after a restart | model | deviation |",
    "|---|---|---|---|---|---|---|---|---|---|",
]
RIPPLE_HEAD = [
    "| ring, MeV/u, drive; ripple of | Hz | modulation per ripple | transit leaves | model | deviation | "
    "phase off, rad |",
    "|---|---|---|---|---|---|---|",
]


def tracked(facility_id: str, number: int) -> dict[str, Any]:
    """Track one point; as plain data."""
    return _plain_measured(_measure(facility_id, *HELD_OUT[facility_id][number]))


def _measure(facility_id: str, energy: float, point: Point) -> Measured:
    setting = setting_of(load_facility(facility_id), "carbon", energy, point.stop.particles, 1, 1)
    return measure(setting, energy, point, PER_TURN)


def alone_rows() -> list[str]:
    """Ripple of the tune by one line, where the plant of a core works; Markdown."""
    facility_id, energy, point = SLOW
    facility = load_facility(facility_id)
    setting, one = setting_of(facility, "carbon", energy, 1, 1, 1), slice(ALONE, ALONE + 1)
    height = ALONE_HIGHER * np.asarray(ripple_amplitude(setting, point.drive, PER_TURN))[one]
    effort = replace(point.ripple, seeds=ALONE_SEEDS)
    found, _ = ripple_points(setting, point.drive, PER_TURN[one], height, effort)
    model = load_spill_table(facility)
    said = model.ripple(found.per_turn, point.drive, setting.beta_gamma, stack_of(setting, point))
    name = f"{facility_id}, {energy:g}, {point.drive:g}, alone"
    return ripple_rows(name, found, said, model, setting.f_rev_hz, point.drive)


def _plain_measured(found: Measured) -> dict[str, Any]:
    return asdict(found) | {key: _plain(getattr(found, key)) for key in ("stop", "ripple", "drive_ripple")}


def _plain(found: StopPoint | RipplePoint) -> dict[str, Any]:
    """Arrays as lists, complex ones as their two parts."""
    parts: dict[str, Any] = {}
    for key, value in asdict(found).items():
        parts[key] = value.tolist() if isinstance(value, np.ndarray) and not np.iscomplexobj(value) else value
    if isinstance(found, RipplePoint):
        parts["gain"] = [found.gain.real.tolist(), found.gain.imag.tolist()]
    return parts


def _measured(data: dict[str, Any]) -> Measured:
    """What `tracked` has made plain."""
    stop = StopPoint(**data["stop"] | {"survival": np.array(data["stop"]["survival"])})
    ripples = [
        RipplePoint(np.array(part["per_turn"]), np.array(part["gain"][0]) + 1j * np.array(part["gain"][1]),
                    np.array(part["error"]))
        for part in (data["ripple"], data["drive_ripple"])
    ]  # fmt: skip
    return Measured(data["energy_mev_u"], data["beta_gamma"], data["drive"], stop, *ripples, tuple(data["stack"]))


def rows_of(facility_id: str, found: Measured) -> dict[str, list[str]]:
    """Both tables' rows of one point of a ring."""
    facility = load_facility(facility_id)
    model = load_spill_table(facility)
    f_rev = setting_of(facility, "carbon", found.energy_mev_u, 1, 1, 1).f_rev_hz
    name, at = f"{facility_id}, {found.energy_mev_u:g}, {found.drive:g}", (found.drive, found.beta_gamma)
    tune, driven = found.ripple, found.drive_ripple
    return {
        "stop": [stop_row(facility_id, found, model, f_rev)],
        "ripple": [
            *ripple_rows(name, tune, model.ripple(tune.per_turn, *at, found.stack), model, f_rev, found.drive),
            *ripple_rows(name, driven, model.drive_ripple(driven.per_turn, *at, found.stack), model, f_rev),
        ],
    }


def main() -> None:
    """All points, or those named; the others are those of the last run."""
    kept_in = RESULTS / "spill_calibration.json"
    kept = json.loads(kept_in.read_text(encoding="utf-8")) if kept_in.is_file() else {}
    every = [f"{name}:{number}" for name, points in HELD_OUT.items() for number in range(len(points))]
    named = sys.argv[1:] or list(HELD_OUT)
    for key in every:
        if key in named or key.partition(":")[0] in named:
            kept[key] = tracked(key.partition(":")[0], int(key.partition(":")[2]))
            RESULTS.mkdir(parents=True, exist_ok=True)
            kept_in.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if named == ["slow"]:
        rows = rows_of(SLOW[0], _measure(*SLOW))
        write_parts("slow", [{"stop": rows["stop"], "ripple": rows["ripple"] + alone_rows()}])
        return
    write_parts("calibrated", [rows_of(key.partition(":")[0], _measured(kept[key])) for key in every if key in kept])


def write_parts(name: str, rows: list[dict[str, list[str]]]) -> None:
    """Tables of stops and of ripple."""
    for part, head in (("stop", STOP_HEAD), ("ripple", RIPPLE_HEAD)):
        write_part(PAGE, "spill_calibration", f"{name} {part}", head + [line for one in rows for line in one[part]])


if __name__ == "__main__":
    main()
