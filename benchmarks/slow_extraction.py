"""Tracking of slow extraction against theory, what it says of the spill, and the pictures of docs/physics.

``python -m benchmarks.slow_extraction`` rewrites tables and pictures of docs/physics/slow-extraction.md (five
minutes); ``... kobayashi``, ``... spill``, ``... start``, ``... filled``, ``... pictures`` only that part.  With
xtrack at hand ``... xtrack`` prints how far both trackers are apart and how fast each is.  Nothing is fitted here.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_part
from console.extraction_picture import draw_separatrix, draw_spill
from facility.config import load_facility
from ioc_sim.extraction.first_start import first_start
from ioc_sim.extraction.optics import Optics, load_optics
from ioc_sim.extraction.points import Effort
from ioc_sim.extraction.separatrix import bare, compare
from ioc_sim.extraction.spill import (
    Setting,
    default_stops,
    interrupt,
    run_spill,
    setting_of,
    start_response,
    with_drive,
)
from ioc_sim.extraction.study import study
from ioc_sim.extraction.tracking import Particles, Programme, Tracker
from ioc_sim.studies.live_spill import live_pair

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "physics" / "slow-extraction.md"
IMAGES = ROOT / "docs" / "images"
DISTANCES = {"wuwei": (0.0005, 0.001, 0.0015, 0.00200333, 0.0025), "pimms": (0.0005, 0.001, 0.0015, 0.002, -0.001)}
RUNS = (("wuwei", 120.0, 1.0), ("wuwei", 250.0, 0.7), ("wuwei", 250.0, 1.0), ("wuwei", 250.0, 1.5),
        ("wuwei", 400.0, 1.0), ("pimms", 250.0, 1.0))  # fmt: skip
PARTICLES, TURNS, SEED = 5000, 60_000, 1
START_DRIVES, START_SEEDS = (0.6, 1.0), 16
FILLED_DRIVES, FILLED_SHARES, FILLED = (1.0,), (0.002, 0.02, 0.1, 0.25), Effort(2500, 32, 32_000, 1)
XTRACK_PARTICLES, XTRACK_TURNS = 2000, 2000


def kobayashi_rows() -> list[str]:
    """Tracking against theory by tune distance, Markdown."""
    lines = ["| ring | dQ | area, π mm mrad | theory | deviation | fixed points | step, mm | theory | deviation |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for facility, distances in DISTANCES.items():
        for distance in distances:
            found = compare(load_optics(facility).with_distance(distance))
            area, theory = (value / np.pi * 1e6 for value in (found.area, found.area_theory))
            step = (f"{found.step_mm.mean():.2f} | {found.step_theory_mm.mean():.2f} | {found.step_error:.1%}"
                    if found.step_mm.size else "- | - | -")  # fmt: skip
            lines.append(f"| {facility} | {distance:.4g} | {area:.2f} | {theory:.2f} | {found.area_error:+.1%} | "
                         f"{found.corner_error:.1%} | {step} |")  # fmt: skip
    return lines


def made(facility: str, energy: float, drive: float, particles: int = PARTICLES) -> Setting:
    """Carbon in the ring of this facility."""
    return with_drive(setting_of(load_facility(facility), "carbon", energy, particles, TURNS, SEED), drive)


def spill_rows() -> list[str]:
    """Transit, stop and restart by energy and drive, Markdown."""
    lines = ["| ring, MeV/u, drive | extracted | efficiency | transit 5, 50, 95 %, µs | tail, µs | "
             "left 50, 10, 1 %, µs | half rate after restart, µs |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for facility, energy, drive in RUNS:
        setting = made(facility, energy, drive)
        spill, pause = run_spill(setting), interrupt(setting, default_stops(setting), restart_bin_s=5e-5)
        transit = np.nanquantile(spill.transit_s, (0.05, 0.5, 0.95)) * 1e6
        lines.append(
            f"| {facility}, {energy:g}, {drive:g} | {spill.counts['extracted'] / PARTICLES:.0%} | "
            f"{spill.efficiency():.3f} | {', '.join(f'{t:.0f}' for t in transit)} | {pause.tail_s * 1e6:.0f} | "
            f"{', '.join(f'{t * 1e6:.0f}' for t in pause.left_s.values())} | {pause.delay_s * 1e6:.0f} |"
        )
    return lines


def start_rows() -> list[str]:
    """First start by drive, the mean of many seeds, Markdown."""
    lines = ["| ring, drive | largest rate over the mean of the second half, less 1 | half of that mean after, ms |",
             "|---|---|---|"]  # fmt: skip
    for drive in START_DRIVES:
        found = start_response(made("wuwei", 250.0, drive, 3000), 1e-3, 3000, START_SEEDS)
        lines.append(f"| wuwei, {drive:g} | {found.overshoot_rel:+.2f} ± {found.overshoot_error:.2f} | "
                     f"{found.delay_s * 1e3:.1f} |")  # fmt: skip
    return lines


def filled_rows() -> list[str]:
    """First start of a ring whose edge has been filled, by what that has cost, Markdown."""
    lines = [
        "| ring, drive | of the ions out before | full drive for, ms | "
        "level in the first, second, third eighth over the second half |",
        "|---|---|---|---|",
    ]
    for drive in FILLED_DRIVES:
        setting = setting_of(load_facility("wuwei"), "carbon", 250.0, FILLED.particles, 1, 1)
        for share in FILLED_SHARES:
            found = first_start(setting, drive, share, replace(FILLED, turns=round(FILLED.turns / drive)))
            level = ", ".join(
                f"{a:.2f} ± {b:.2f}" for a, b in zip(found.level_rel[:3], found.level_error[:3], strict=True)
            )
            fill_ms = found.fill_turns / setting.f_rev_hz * 1e3
            lines.append(f"| wuwei, {drive:g} | {share:.1%} | {fill_ms:.1f} | {level} |")
    return lines


def pictures() -> None:
    """Draw the four pictures of the page."""
    for facility in ("wuwei", "pimms"):
        machine = load_facility(facility)
        live = live_pair(machine, "carbon", 250.0)
        draw_spill(study(made(facility, 250.0, 1.0)), live, machine, IMAGES / f"spill-{facility}.png")
    for facility, distance in (("wuwei", None), ("pimms", 0.001)):
        optics: Optics = load_optics(facility)
        if distance is not None:
            optics = optics.with_distance(distance)
        draw_separatrix(optics, compare(optics), IMAGES / f"separatrix-{facility}.png")


def against_xtrack(particles: int = XTRACK_PARTICLES, turns: int = XTRACK_TURNS) -> dict[str, Any]:
    """The same particles through wuwei's two sectors and sextupole by both trackers, drive off.

    Largest differences in sqrt(m) of those that stay, how many stay, nanoseconds per particle and turn. The kernels
    of both are compiled before the clock runs; xtrack is allowed to compile its own, for its ready-made ones come in
    another package that is not needed else.
    """
    import xobjects as xo
    import xtrack as xt

    xo.settings.allow_kernel_compilation = True

    optics = bare(load_optics("wuwei"))
    optics = optics.model_copy(update={"drive": load_optics("pimms").drive})  # a core that is off: no exciter element
    (sextupole,), lattice = optics.sextupoles, optics.lattice
    rng = np.random.default_rng(SEED)
    z = (rng.normal(size=particles) + 1j * rng.normal(size=particles)) * 1.2e-3

    def sector(advance: float) -> Any:
        return xt.LineSegmentMap(length=1.0, qx=advance, qy=0.3, betx=lattice.beta_m, bety=lattice.beta_m,
                                 longitudinal_mode="frozen")  # fmt: skip

    def theirs(number: int) -> tuple[Any, float]:
        root = np.sqrt(lattice.beta_m)
        beam = xt.Particles(p0c=1e9, x=z.real * root, px=z.imag / root)
        start = time.perf_counter()
        line.track(beam, num_turns=number)
        return beam, time.perf_counter() - start

    def ours(number: int) -> tuple[Particles, float]:
        beam = Particles(z.real.copy(), z.imag.copy(), np.zeros(particles))
        tracker = Tracker(optics, beam, Programme(drive_off=0), SEED)
        start = time.perf_counter()
        return tracker.advance(number), time.perf_counter() - start

    line = xt.Line(elements=[sector(sextupole.phase_turns), xt.Multipole(knl=[0.0, 0.0, sextupole.k2l_per_m2]),
                             sector(lattice.tune - sextupole.phase_turns)])  # fmt: skip
    line.particle_ref = xt.Particles(p0c=1e9)
    line.build_tracker()
    theirs(1), ours(1)
    (left, their_s), (right, our_s) = theirs(turns), ours(turns)
    order = np.argsort(left.particle_id)
    root = np.sqrt(lattice.beta_m)
    x, p, state = left.x[order] / root, left.px[order] * root, left.state[order]
    both = (state > 0) & (np.abs(right.x) < 0.05)
    per = 1e9 / particles / turns
    return {
        "xtrack": xt.__version__,
        "stay": int(np.count_nonzero(both)),
        "x_sqrt_m": float(np.abs(right.x - x)[both].max()),
        "p_sqrt_m": float(np.abs(right.p - p)[both].max()),
        "ours_ns": our_s * per,
        "xtrack_ns": their_s * per,
    }


def main() -> None:
    """All parts, or those named."""
    wanted = sys.argv[1:] or ["kobayashi", "spill", "start", "filled", "pictures"]
    if "kobayashi" in wanted:
        write_part(PAGE, "slow_extraction", "kobayashi", kobayashi_rows())
    if "spill" in wanted:
        write_part(PAGE, "slow_extraction", "spill", spill_rows())
    if "start" in wanted:
        write_part(PAGE, "slow_extraction", "start", start_rows())
    if "filled" in wanted:
        write_part(PAGE, "slow_extraction", "filled", filled_rows())
    if "pictures" in wanted:
        pictures()
    if "xtrack" in wanted:
        print(against_xtrack())


if __name__ == "__main__":
    main()
