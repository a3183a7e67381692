"""Pictures of the ring's cycle and of steps of the scanning supplies."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from console.extraction_picture import _figure, _style
from facility.states import RingPhase

if TYPE_CHECKING:
    from ioc_sim.studies.cycle import CycleStudy
    from ioc_sim.studies.monitors import MonitorStudy
    from ioc_sim.studies.scan import ScanStudy

_DATA, _SECOND, _THEORY, _GREY = "#1f6fb4", "#d97706", "#b3261e", "#6b7280"
_SHADES = ("#f3f4f6", "#e5e7eb")
_LEAST_NAMED = 0.018
"""Share of the picture's width from which on a phase's name fits above it."""
_ZOOM_MS = 3.0


def draw_cycle(found: CycleStudy, path: Path) -> None:
    """Rigidity, revolution frequency, stored and arriving ions over the phases; ConfigError without matplotlib."""
    figure = _figure(11.0, 7.2)
    panels = figure.subplots(4, 1, sharex=True)
    energies = found.energies_mev_u
    which = f"{energies[0]:.1f}" if len(energies) == 1 else f"{energies[0]:.1f} to {energies[-1]:.1f}"
    title = f"{found.facility}: one cycle, {found.species} of {which} MeV/u, {found.level:.1e} ions/s"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    rows = ((found.rigidity_tm, "Bρ, T m"), (found.f_rev_hz * 1e-6, "revolutions, MHz"),
            (found.stored_ions, "stored ions"), (found.arriving, "ions/s, by truth"))  # fmt: skip
    for axes, (values, words) in zip(panels, rows, strict=True):
        axes.plot(found.time_s, values, color=_DATA, lw=1.0)
        axes.set_ylabel(words)
        axes.set_ylim(bottom=0.0)
    starts = [0, *(np.flatnonzero(np.diff(found.phase)) + 1), found.phase.size]
    for index, (a, b) in enumerate(pairwise(starts)):
        left, right = float(found.time_s[a]), float(found.time_s[b - 1]) + 1e-3
        for axes in panels:
            axes.axvspan(left, right, color=_SHADES[index % 2], zorder=0)
        name = RingPhase(int(found.phase[a])).name.lower().replace("_", " ")
        if right - left >= _LEAST_NAMED * float(found.time_s[-1]):
            panels[0].text(left, 1.02, name, transform=panels[0].get_xaxis_transform(), fontsize=7, rotation=20)
    panels[-1].set_xlabel("from injection, s")
    spans = [f"{name.lower().replace('_', ' ')} {1e3 * span:,.0f}" for name, span in found.durations_s().items()]
    figure.supxlabel("ms in all: " + ", ".join(spans), fontsize=8, color=_GREY, x=0.01, ha="left")
    _style(panels)
    figure.savefig(path, dpi=110)


def draw_scan(found: ScanStudy, path: Path) -> None:
    """Steps of the x axis in time, and how long each takes on both; ConfigError without matplotlib."""
    figure = _figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    title = f"{found.facility}, room {found.room}: steps of {found.species} of {found.energy_mev_u:.1f} MeV/u"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    for step in found.steps:
        if step.axis == "x":
            left.plot(step.time_s * 1e3, step.position_mm / step.distance_mm, lw=1.1, label=f"{step.distance_mm:g} mm")
    left.set_xlim(0.0, _ZOOM_MS)
    left.set_xlabel("after the set point, ms")
    left.set_ylabel("x over the step")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    for axis, colour, style in (("x", _DATA, "o-"), ("y", _SECOND, "s--")):
        mine = [step for step in found.steps if step.axis == axis]
        distance = [step.distance_mm for step in mine]
        right.loglog(
            distance, [(step.settled_s + found.wait_s) * 1e3 for step in mine], style, color=colour, label=axis
        )
    right.set_xlabel("step, mm")
    right.set_ylabel(f"until beam may come, ms (within {found.tolerance_mm:g} mm for {found.wait_s * 1e6:g} µs)")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    _style((left, right))
    figure.savefig(path, dpi=110)


def draw_monitors(found: MonitorStudy, path: Path) -> None:
    """Charge after a burst, losses by rate, a window of the strips and what centroids spread; ConfigError without
    matplotlib."""
    figure = _figure(12.0, 7.2)
    (late, loss), (strips, spread) = figure.subplots(2, 2)
    where = f"{found.facility}, room {found.room}: {found.species} of {found.energy_mev_u:.1f} MeV/u"
    figure.suptitle(f"{where}, spot {found.sigma_mm:.2f} mm", x=0.01, ha="left", fontweight="bold")
    for volt in found.collected:
        late.plot(found.time_s * 1e6, found.collected[volt], lw=1.2, label=f"{volt:g} V")
        loss.loglog(found.rates, found.losses[volt] * 100.0, lw=1.2, label=f"{volt:g} V")
    late.set_xlabel("after the ions, µs")
    late.set_ylabel("charge that has come")
    late.set_ylim(0.4, 1.02)
    loss.set_xlabel("ions a second")
    loss.set_ylabel("charge lost, %")
    strips.bar(found.strip_mm, found.profile, width=0.9 * float(np.diff(found.strip_mm)[0]), color=_DATA, label="read")
    strips.step(found.strip_mm, found.expected, where="mid", color=_SECOND, lw=1.2, label="expected")
    strips.set_xlim(-5.0 * found.sigma_mm, 5.0 * found.sigma_mm)
    strips.set_xlabel(f"at the strips, mm ({found.profile_ions:g} ions, two strips dead)")
    strips.set_ylabel("ions")
    spread.loglog(found.ions, found.beside_dead_mm, color=_THEORY, lw=1.2, label="between two dead strips")
    spread.loglog(found.ions, found.best_mm, color=_SECOND, lw=1.2, label="information in the strips")
    spread.loglog(found.ions, found.centre_mm, "--", color=_DATA, lw=1.2, label="in the tick")
    spread.set_xlabel("ions in a window of 100 µs")
    spread.set_ylabel("sd of the centroid, mm")
    for axes, place in ((late, "lower right"), (loss, "upper left"), (strips, "upper right"), (spread, "upper right")):
        axes.legend(frameon=False, fontsize=8, loc=place)
    _style((late, loss, strips, spread))
    figure.savefig(path, dpi=110)
