"""Pictures of dose in water: ranges and Bragg curves with a reference beside, slices of a field, its depth curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from console.extraction_picture import _figure, _style
from facility.physics.relativity import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dose.curves import Curve
    from rig.dose_desk import Doses

_OURS, _REFERENCE, _SECOND, _GREY = "#1f6fb4", "#b3261e", "#d97706", "#6b7280"


def draw_ranges(energy: FloatArray, ranges: FloatArray, reference: tuple[FloatArray, FloatArray], title: str,
                path: Path) -> None:  # fmt: skip
    """Range over energy, and how far the reference is from it; ConfigError without matplotlib."""
    figure = _figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    left.plot(energy, ranges, color=_OURS, lw=1.4, label="ours")
    left.set_xlabel("MeV/u")
    left.set_ylabel("CSDA range in water, mm")
    at, theirs = reference
    left.plot(at, theirs, "o", ms=4, color=_REFERENCE, label="ICRU 90, I = 78 eV")
    inside = (at >= energy[0]) & (at <= energy[-1])
    ours = np.interp(at[inside], energy, ranges)
    right.plot(at[inside], 100.0 * (ours / theirs[inside] - 1.0), "o-", color=_OURS)
    right.axhline(0.0, color=_GREY, lw=0.8)
    right.set_ylabel("ours over ICRU 90, less 1, %")
    right.set_xlabel("MeV/u")
    left.legend(frameon=False, fontsize=8)
    _style((left, right))
    figure.savefig(path, dpi=110)


def draw_bragg(curve: Curve, before_mm: float, reference: tuple[FloatArray, FloatArray, str] | None, title: str,
               path: Path) -> None:  # fmt: skip
    """The curve with its parts, and its peak and tail on a logarithmic scale; ConfigError without matplotlib."""
    figure = _figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    depth = curve.depth_mm - before_mm
    shown = (depth >= 0.0) & (depth <= curve.range_mm + 80.0)
    for axes in (left, right):
        axes.plot(depth[shown], curve.total[shown], color=_OURS, lw=1.5, label="all")
        axes.plot(depth[shown], curve.primary[shown], color=_OURS, lw=0.9, ls="--", label="primaries")
        axes.plot(depth[shown], (curve.heavy + curve.local)[shown], color=_SECOND, lw=0.9, label="Z > 2 and recoils")
        axes.plot(depth[shown], curve.light[shown], color=_GREY, lw=0.9, label="hydrogen, helium")
        if reference is not None:
            axes.plot(reference[0], reference[1], color=_REFERENCE, lw=1.0, ls=":", label=reference[2])
        axes.set_xlabel("depth in water, mm")
    left.set_ylabel("MeV cm²/g per ion")
    right.set_yscale("log")
    right.set_ylim(1e-3 * float(curve.total.max()), 2.0 * float(curve.total.max()))
    left.legend(frameon=False, fontsize=8)
    _style((left, right))
    figure.savefig(path, dpi=110)


def draw_doses(found: Doses, path: Path) -> None:
    """Slice through the axis, depth curve, and gamma of a session; ConfigError without matplotlib."""
    figure = _figure(13.0 if found.delivered is not None else 9.5, 4.6)
    panels = figure.subplots(1, 3 if found.delivered is not None else 2)
    what = "prescribed and delivered by truth" if found.delivered is not None else "planned"
    title = f"{found.source} ({found.facility}, beam {found.beam}): dose in water, {what}"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    j, i = found.axis
    top = float(found.planned.max())
    shown = found.planned if found.delivered is None else found.delivered
    _slice(figure, panels[0], found, shown[:, j, :], "Gy", "inferno", top)
    panels[1].plot(found.grid.depth_mm, found.planned[:, j, i], color=_OURS, lw=1.4, label="planned")
    if found.delivered is not None and found.index is not None and found.criteria is not None:
        panels[1].plot(
            found.grid.depth_mm, found.delivered[:, j, i], color=_REFERENCE, lw=1.0, ls="--", label="by truth"
        )
        _slice(figure, panels[2], found, found.index.values[:, j, :], "gamma", "viridis", 1.0)
        rule = f"{found.criteria.dose_pct:g} %, {found.criteria.distance_mm:g} mm"
        panels[2].set_title(f"{rule}: {found.index.pass_pct:.2f} % pass", loc="left", fontsize=9)
    panels[1].set_xlabel("depth in water, mm")
    panels[1].set_ylabel("Gy on the axis")
    panels[1].set_ylim(bottom=0.0)
    panels[1].legend(frameon=False, fontsize=8)
    _style(panels[1:2])
    figure.savefig(path, dpi=110)


def _slice(figure: Any, axes: Axes, found: Doses, values: FloatArray, words: str, colours: str, top: float) -> None:
    grid, half = found.grid, 0.5 * found.step_mm
    extent = (grid.depth_mm[0] - half, grid.depth_mm[-1] + half, grid.x_mm[0] - half, grid.x_mm[-1] + half)
    picture = axes.imshow(values.T, origin="lower", extent=extent, aspect="auto", cmap=colours, vmin=0.0, vmax=top)
    figure.colorbar(picture, ax=axes, label=words)
    axes.set_xlabel("depth in water, mm")
    axes.set_ylabel("x, mm")
