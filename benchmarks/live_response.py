"""The live plant against tracking: ripple of tune and drive, restarts and first starts, where nothing was calibrated.

``python -m benchmarks.live_response`` rewrites three tables of docs/physics/slow-extraction.md. What tracking says of
ripple is taken from the tables that `benchmarks.spill_calibration` has written there; restarts and first starts are
tracked (some minutes; ``... live`` takes restarts of the page, to its two places; ``... ripple`` leaves both out,
``... starts`` is the first starts alone).
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.report import write_part
from benchmarks.spill_calibration import FEW, deviation, without_transit
from facility.config import Facility, load_facility
from ioc_sim.extraction.first_start import expected, first_start
from ioc_sim.extraction.kobayashi import FloatArray
from ioc_sim.extraction.measure import RESTART, restart_rate, transit_guess
from ioc_sim.extraction.optics import load_optics
from ioc_sim.extraction.points import Effort
from ioc_sim.extraction.rate_model import RateModel
from ioc_sim.extraction.spill import setting_of
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.studies.live_drive import drive_response, first_start_at, restart_at, tune_response
from ioc_sim.studies.live_spill import TICK_S

PAGE = Path(__file__).resolve().parent.parent / "docs" / "physics" / "slow-extraction.md"
RINGS = {
    "wuwei": (("wuwei, 330, 0.35", 330.0, 0.35), ("wuwei, 250, 0.1", 250.0, 0.1)),
    "lanzhou": (("wuwei, 330, 0.35", 330.0, 0.35),),
    "himm-mee": (("wuwei, 200, 0.7", 200.0, 0.7),),
    "pimms": (("pimms, 250, 0.001", 250.0, 0.001),),
}
"""Rings, and tracked points: the three rings of one type are one for tracking."""
RESTARTS = ((1.0, 1.0), (0.35, 0.35), (1.0, 0.7), (0.7, 0.5), (1.0, 0.35), (0.35, 0.7))
RESTART_RING, RESTART_MEV_U = "wuwei", 330.0
RESTART_EFFORT = {1.0: Effort(3000, 120, 4000, 1), 0.7: Effort(6000, 60, 8000, 1), 0.35: Effort(6000, 60, 16_000, 1)}
PAUSE_S, WINDOWS_US = 1.2e-3, (150.0, 650.0, 1650.0)
"""A pause, and the parts of a start: from the first transit on half a millisecond, and a whole one behind it."""

STARTS = (
    ("wuwei", 330.0, 1.0, Effort(2500, 120, 32_000, 1)),
    ("wuwei", 200.0, 0.7, Effort(2500, 80, 65_000, 1)),
    ("wuwei", 250.0, 0.35, Effort(2500, 40, 260_000, 1)),
    ("wuwei", 250.0, 0.1, Effort(2500, 16, 1_600_000, 1)),
    ("pimms", 200.0, 0.7, Effort(4000, 16, 11_000, 1)),
    ("pimms", 320.0, 0.25, Effort(4000, 16, 32_000, 1)),
    ("pimms", 250.0, 0.02, Effort(4000, 16, 400_000, 1)),
)
"""First starts; what they show of the level is the first, second and third eighth over the second half."""
START_SHOWN = 3


def tracked_lines(text: str, point: str) -> list[tuple[str, float, float, float]]:
    """What the tables of the page say that tracking has found: ripple of what, Hz, modulation, one sigma."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 7 and cells[0].startswith(point + ", "):
            gain, _, error = cells[2].partition(" ± ")
            found.append((cells[0].rpartition(", ")[2], float(cells[1]), float(gain), float(error)))
    return found


def ripple_rows(text: str) -> list[str]:
    """Markdown."""
    rows = [
        "| ring, MeV/u, drive; ripple of | Hz | tracking | live plant, by truth | deviation |",
        "|---|---|---|---|---|",
    ]
    for ring, points in RINGS.items():
        facility = load_facility(ring)
        model = load_spill_table(facility)
        for point, energy, drive in points:
            for what, hz, gain, error in tracked_lines(text, point):
                live = _live(facility, energy, drive, what, hz)
                over = max(gain, FEW * _whole(facility, model, energy, drive, what, hz))
                rows.append(f"| {ring}, {energy:g}, {drive:g}, {what} | {hz:.0f} | {gain:.3g} ± {error:.2g} | "
                            f"{live:.3g} | {deviation(over + live - gain, over, error)} |")  # fmt: skip
    return rows


def _live(facility: Facility, energy: float, drive: float, what: str, hz: float) -> float:
    if what == "drive":
        return abs(drive_response(facility, "carbon", energy, drive, hz))
    return tune_response(facility, "carbon", energy, drive, hz)


def _whole(facility: Facility, model: RateModel, energy: float, drive: float, what: str, hz: float) -> float:
    per_turn = np.array([hz / setting_of(facility, "carbon", energy, 1, 1, 1).f_rev_hz])
    return float(without_transit(model, per_turn, None if what == "drive" else drive)[0])


def kept_restarts(text: str) -> dict[tuple[float, float], tuple[FloatArray, FloatArray]]:
    """What the page says that tracking has found for restarts, and its error."""
    kept = {}
    for line in text.partition("<!-- restarts")[2].partition("<!-- end")[0].splitlines()[4:]:
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 8:
            before, then = (float(part) for part in cells[0].split(","))
            parts = np.array([[float(part) for part in cells[place].split(" ± ")] for place in (2, 5)])
            kept[before, then] = parts[:, 0], parts[:, 1]
    return kept


def restart_rows(kept: dict[tuple[float, float], tuple[FloatArray, FloatArray]]) -> list[str]:
    """Rate of the first half millisecond and of the one behind it, over that before the pause; Markdown. What is not
    `kept` is tracked."""
    rows = [
        "| drive before, then | square of it | 0.15 to 0.65 ms, tracking | live | deviation | "
        "0.65 to 1.65 ms, tracking | live | deviation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    facility = load_facility(RESTART_RING)
    setting = setting_of(facility, "carbon", RESTART_MEV_U, 1, 1, 1)
    edges = np.round(np.array(WINDOWS_US) * 1e-6 * setting.f_rev_hz)
    for before, then in RESTARTS:
        known = kept.get((before, then))
        level, error = known or restart_rate(setting, before, then, edges, RESTART_EFFORT[before])
        live = _parts(restart_at(facility, "carbon", RESTART_MEV_U, before, then, PAUSE_S, WINDOWS_US[-1] * 1e-6))
        cells = [f"{a:.2f} ± {e:.2f} | {b:.2f} | {deviation(b, a, e)}"
                 for a, e, b in zip(level.tolist(), error.tolist(), live.tolist(), strict=True)]  # fmt: skip
        rows.append(f"| {before:g}, {then:g} | {(then / before) ** 2:.2f} | {' | '.join(cells)} |")
    return rows


def start_rows() -> list[str]:
    """First, second and third eighth of a first start over its second half, an exciter's over the ions stored, a core's
    over what its stack gives by theory as well; Markdown."""
    rows = [
        "| ring, MeV/u, drive | an eighth, ms | first, tracking | live | deviation | second, tracking | live | "
        "deviation | third, tracking | live | deviation |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for ring, energy, drive, effort in STARTS:
        facility = load_facility(ring)
        model, setting = load_spill_table(facility), setting_of(facility, "carbon", energy, effort.particles, 1, 1)
        start = first_start(setting, drive, model.fill_share, effort)
        whole = np.ones(start.turns.size)
        if model.kind == "betatron":
            whole = expected(model, load_optics(ring), setting.beta_gamma, start, drive)
        each, error = start.share_per_turn / whole, start.error / whole
        eighth = float(start.turns[1] - start.turns[0])
        edges = RESTART[0] * transit_guess(setting) + eighth * np.arange(start.turns.size + 1)
        live = first_start_at(facility, "carbon", energy, drive, edges / setting.f_rev_hz)
        late = slice(start.turns.size // 2, None)
        cells = [f"{a:.2f} ± {e:.2f} | {b:.2f} | {deviation(b, a, e)}"
                 for a, e, b in zip((each / each[late].mean())[:START_SHOWN].tolist(),
                                    (error / each[late].mean())[:START_SHOWN].tolist(),
                                    (live / live[late].mean())[:START_SHOWN].tolist(), strict=True)]  # fmt: skip
        rows.append(f"| {ring}, {energy:g}, {drive:g} | {eighth / setting.f_rev_hz * 1e3:.3g} | {' | '.join(cells)} |")
    return rows


def _parts(rate: FloatArray) -> FloatArray:
    """Means of the two windows."""
    places = [round(us * 1e-6 / TICK_S) for us in WINDOWS_US]
    return np.array([rate[a:b].mean() for a, b in pairwise(places)])


def main() -> None:
    """All tables, or some."""
    text, named = PAGE.read_text(encoding="utf-8"), sys.argv[1:]
    if named != ["starts"]:
        write_part(PAGE, "live_response", "live against tracking", ripple_rows(text))
    if named not in (["ripple"], ["starts"]):
        kept = kept_restarts(text) if named == ["live"] else {}
        write_part(PAGE, "live_response", "restarts", restart_rows(kept))
    if named != ["ripple"]:
        write_part(PAGE, "live_response", "first starts", start_rows())


if __name__ == "__main__":
    main()
