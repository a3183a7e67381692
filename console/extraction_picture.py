"""Pictures of slow extraction: phase space with the triangle, the spill, transit times, stop, restart, ripple."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facility.errors import ConfigError
from ioc_sim.extraction.kernel import EXTRACTED, STORED
from ioc_sim.extraction.separatrix import Comparison, arm, boundary, towards_septum
from ioc_sim.extraction.study import RATE_BIN_S, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from facility.config.models import Facility
    from ioc_sim.extraction.optics import Optics
    from ioc_sim.studies.live_spill import LivePair

_DATA, _SECOND, _THEORY, _GREY = "#1f6fb4", "#d97706", "#b3261e", "#6b7280"
_POINTS = 4000
_RAYS = 180


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise ConfigError("plot.matplotlib", "pictures need matplotlib, which is not installed", "",
                          "pip install 'ionctl[plot]'") from problem  # fmt: skip
    return Figure(figsize=(width, height), layout="constrained")


def draw_spill(found: Study, live: LivePair, facility: Facility, path: Path) -> None:
    """Nine panels as PNG, SVG or PDF by the suffix; ConfigError without matplotlib."""
    figure = _figure(13.0, 11.2)
    setting = found.spill.setting
    axes = figure.subplots(3, 3)
    size = f"{setting.particles:,} particles, {setting.turns:,} turns at {setting.f_rev_hz * 1e-6:.2f} MHz"
    figure.suptitle(f"{setting.optics.name} ({facility.id}): {size}", x=0.01, ha="left", fontweight="bold")
    _phase_space(axes[0, 0], found)
    _spill(axes[0, 1], found)
    _transit(axes[0, 2], found)
    _stop(axes[1, 0], found, facility)
    _restart(axes[1, 1], found)
    _ripple(axes[1, 2], found)
    _live_rate(axes[2, 0], live)
    _waterbed(axes[2, 1], live)
    _spectrum(axes[2, 2], found, live)
    _style(axes.ravel())
    figure.savefig(path, dpi=110)


def _live_rate(axes: Axes, live: LivePair) -> None:
    """Rate by truth over its level, 100 us bins of a tenth of a second."""
    for one, name, colour in ((live.no_loop, "no loop", _SECOND), (live.loop, "loop", _DATA)):
        bins = one.ions[:10_000].reshape(-1, 10).sum(axis=1) * 1e4 / one.level_ions_per_s
        label = f"{name}: duty factor {one.duty_factor:.2f}"
        axes.plot(0.1 * np.arange(bins.size), bins, lw=0.6, color=colour, label=label)
    axes.set_ylim(0.0, 3.5)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("rate / level")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("the plant's spill, by truth", loc="left", fontsize=9)


def _waterbed(axes: Axes, live: LivePair) -> None:
    """Noise with the loop over noise without: less below its bandwidth, more beyond it."""
    bed = live.waterbed
    hz, ratio = bed.peak
    axes.semilogx(bed.hz, bed.ratio, lw=1.2, color=_DATA)
    axes.axhline(1.0, lw=0.8, color=_GREY, ls="--")
    axes.set_ylim(0.0, None)
    axes.set_xlabel("frequency, Hz")
    axes.set_ylabel("noise, loop / no loop")
    axes.set_title(f"waterbed: {ratio:.2f} at {hz:.0f} Hz", loc="left", fontsize=9)


def _spectrum(axes: Axes, found: Study, live: LivePair) -> None:
    """Amplitudes of the plant's rate, and of the tracked one, whose particles are few."""
    for one, name, colour in ((live.no_loop, "plant, no loop", _SECOND), (live.loop, "plant, loop", _DATA)):
        hz, amplitude = one.spectrum()
        axes.loglog(hz[2:], amplitude[2:], lw=0.7, color=colour, label=name)
    time_s = found.spill.time_s[found.spill.time_s > 0.2 * found.spill.time_s.max()]
    hz = np.arange(2, 201) / (time_s.max() - time_s.min())
    tracked = 2.0 * np.abs(np.exp(-2j * np.pi * np.outer(hz, time_s)).mean(axis=1))
    axes.loglog(hz, tracked, lw=0.7, color=_GREY, label=f"tracked, no ripple ({time_s.size:,} ions)")
    axes.set_xlim(20.0, 20_000.0)
    axes.set_xlabel("frequency, Hz")
    axes.set_ylabel("amplitude / mean rate")
    axes.legend(frameon=False, fontsize=8)


def draw_separatrix(optics: Optics, found: Comparison, path: Path) -> None:
    """Stable region and arm, tracked, over the triangle of theory; on the right the spiral step."""
    figure = _figure(11.0, 5.2)
    plane, step = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    root = _root_mm(optics)
    angles = 2.0 * np.pi * (np.arange(_RAYS) + 0.5) / _RAYS
    edge = boundary(optics, angles) * np.exp(1j * angles) * root
    plane.plot(edge.real, edge.imag, ".", ms=3, color=_DATA, label="edge of the stable region, tracked")
    out = arm(optics).ravel() * root
    plane.plot(out.real, out.imag, ".", ms=2, color=_SECOND, label="arm to the septum, every third turn, tracked")
    _triangle(plane, optics, found.distance)
    corners = found.corners * root
    plane.plot(corners.real, corners.imag, "x", color="#1b1b1b", label="unstable fixed points, tracked")
    _plane(plane, optics)
    plane.set_title(f"dQ = {found.distance:g}: area {found.area / np.pi * 1e6:.2f}π mm mrad, theory "
                    f"{found.area_theory / np.pi * 1e6:.2f}π", loc="left", fontsize=9)  # fmt: skip
    order = np.argsort(found.start_mm)
    step.plot(found.start_mm[order], found.step_mm[order], ".-", color=_DATA, label="tracked")
    step.plot(found.start_mm[order], found.step_theory_mm[order], "--", color=_THEORY, label="Kobayashi")
    step.set_xlabel("x before the septum, mm")
    step.set_ylabel("step in three turns, mm")
    step.legend(frameon=False, fontsize=8)
    _style((plane, step))
    figure.savefig(path, dpi=110)


def _root_mm(optics: Optics) -> float:
    return float(np.sqrt(optics.lattice.beta_m)) * 1e3


def _triangle(axes: Axes, optics: Optics, distance: float) -> None:
    """The triangle of theory and its arm to the septum, in mm."""
    root, resonance = _root_mm(optics), optics.resonance()
    corners = resonance.corners(distance)[[0, 1, 2, 0]] * root
    axes.plot(corners.real, corners.imag, color=_THEORY, lw=1.2, label=f"theory, dQ = {distance:.4g}")
    middle, out, rho0 = resonance.arm(distance, towards_septum(optics))
    line = (middle + np.array([rho0, rho0 + 2.0 * optics.septum.position_mm / root]) * out) * root
    axes.plot(line.real, line.imag, color=_THEORY, lw=1.2, ls="--")


def _plane(axes: Axes, optics: Optics) -> None:
    septum = optics.septum
    inner, outer = (septum.side * v for v in (septum.position_mm, septum.position_mm + septum.gap_mm))
    axes.axvspan(min(inner, outer), max(inner, outer), color="#e5e7eb", zorder=0)
    axes.axvline(inner, color="#1b1b1b", lw=1.0)
    reach = 1.15 * (septum.position_mm + septum.gap_mm)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xlabel("x at the septum, mm")
    axes.set_ylabel("α x + β x', mm")
    axes.legend(frameon=False, fontsize=7, loc="lower right")


def _phase_space(axes: Axes, found: Study) -> None:
    """The beam at the end of the run; those extracted as they were when they reached the septum."""
    optics, beam = found.spill.setting.optics, found.spill.beam
    root = _root_mm(optics)
    for status, colour, label in ((STORED, _DATA, "stored at the end"), (EXTRACTED, _SECOND, "extracted")):
        chosen = np.flatnonzero(beam.status == status)[:_POINTS]
        axes.plot(beam.x[chosen] * root, beam.p[chosen] * root, ".", ms=1.5, color=colour, label=label)
    extracted = beam.status == EXTRACTED
    delta = float(np.median(beam.end[2, extracted])) if extracted.any() else 0.0
    _triangle(axes, optics, optics.lattice.distance + optics.lattice.chromaticity * delta)
    _plane(axes, optics)


def _spill(axes: Axes, found: Study) -> None:
    time_s, rate = found.spill.rate(RATE_BIN_S)
    axes.step(time_s * 1e3, rate, where="mid", color=_DATA, lw=1.0)
    scale = float(rate.mean()) / float(found.start.rate_rel.mean())
    axes.plot(found.start.time_s * 1e3, found.start.rate_rel * scale, color=_SECOND, lw=1.4,
              label="mean of several starts, from the drive on")  # fmt: skip
    axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("share of the beam per second")
    axes.set_title(f"drive on from 0; {found.spill.efficiency():.1%} of those that left were extracted", loc="left",
                   fontsize=9)  # fmt: skip


def _transit(axes: Axes, found: Study) -> None:
    transit = found.spill.transit_s[np.isfinite(found.spill.transit_s)] * 1e6
    shown = float(np.quantile(transit, 0.995))
    axes.hist(transit, bins=60, range=(0.0, shown), density=True, color=_DATA, alpha=0.7)
    axes.axvline(float(np.median(transit)), color="#1b1b1b", lw=1.0, ls="--")
    axes.set_xlabel("from leaving the triangle to the septum, µs")
    axes.set_ylabel("density, 1/µs")
    axes.set_title(f"transit time: median {np.median(transit):.0f} µs", loc="left", fontsize=9)


def _stop(axes: Axes, found: Study, facility: Facility) -> None:
    pause = found.interruption
    axes.step(pause.time_s * 1e6, pause.tail_rel, where="mid", color=_DATA, lw=1.2, label="tracked, mean of many stops")
    live = sum(share * np.exp(-pause.time_s / (tau_us * 1e-6)) for share, tau_us in facility.extraction.tail)
    axes.plot(pause.time_s * 1e6, live, color=_THEORY, lw=1.2, ls="--", label="what interlocks reckon with")
    axes.set_xlim(0.0, 1e6 * min(float(pause.time_s[-1]), max(3e-4, 3.0 * pause.left_s[0.1])))
    axes.set_xlabel("after the drive has stopped, µs")
    axes.set_ylabel("rate over mean rate")
    axes.legend(frameon=False, fontsize=8)


def _restart(axes: Axes, found: Study) -> None:
    pause = found.interruption
    axes.step(pause.restart_time_s * 1e3, pause.restart_rel, where="mid", color=_DATA, lw=1.2)
    axes.axhline(1.0, color=_GREY, lw=0.8)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("after the drive is on again, ms")
    axes.set_ylabel("rate over that without a stop")


def _ripple(axes: Axes, found: Study) -> None:
    ripple = found.response
    axes.loglog(ripple.frequency_hz, ripple.modulation_rel, "o-", color=_DATA, label="modulation of the rate")
    axes.axhline(ripple.floor_rel, color=_GREY, lw=0.8, ls="--", label="what is not response")
    axes.set_xlabel("frequency of the tune ripple, Hz")
    axes.set_ylabel("modulation over mean rate")
    axes.set_title(f"tune ripple of {ripple.tune_amplitude[0]:.1g} in each line", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _style(all_axes: Any) -> None:
    for axes in all_axes:
        axes.grid(color="#eef0f3", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
