"""The picture of a post-mortem: what the beam did, what the rule saw, what the devices did, and when."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from console import safety_plot
from facility.errors import ConfigError
from rig.post_mortem_story import times_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from interlocks.model import Rule
    from rig.post_mortem_file import Recording
    from rig.post_mortem_value import Compared

_TRUTH, _IC1, _IC2, _BAD = "#1b1b1b", "#1f6fb4", "#d97706", "#b3261e"
_MARKS = (("t_cause", "cause", "#6b7280"), ("t_condition", "condition", "#7c3aed"), ("t_decision", "decision", _BAD),
          ("t_off", "beam off", "#15803d"))  # fmt: skip
_NAMES = {label.split()[0] for _, label, _ in _MARKS}
_LINES = (("permit", "permit"), ("hold", "hold"), ("demand", "demand"), ("rfko_on", "RF-KO on"),
          ("quad_open", "quadrupole open"), ("chopper_open", "chopper open"), ("dump", "dump"),
          ("gate.open", "gate open"))  # fmt: skip
_MEAN_TICKS = 10
_LEAST_BEFORE_MS, _LEAST_AFTER_MS = 1.0, 0.6
_MOST_MS = 120.0
_RATE = 1e8
_ENGINEERING = 1e4
"""Larger values are shown with k, M, G."""


def draw(found: Recording, path: Path, rule: Rule | None, scans: Recording | None = None, ahead_ns: int = 0) -> None:
    """Write the picture as PNG, SVG or PDF by the suffix; ConfigError without matplotlib.

    `rule` is the one that tripped, None where nobody knows; `scans` are the safety controller's, where they were kept,
    whose time is `ahead_ns` ahead.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise ConfigError("plot.matplotlib", "pictures need matplotlib, which is not installed", "",
                          "pip install 'ionctl[plot]'") from problem  # fmt: skip
    heights = (1.0, 1.5, 1.3, 1.2, 1.7, *(() if scans is None else (1.8, 1.0)))
    figure = Figure(figsize=(10.5, 1.65 * sum(heights)), layout="constrained")
    whole, rate, rule_axes, error, lines, *of_safety = figure.subplots(len(heights), 1, height_ratios=heights)
    marks = times_of(found.about)
    zero_ns = int(marks["t_decision"] or 0)
    t_ms = (found.column("t_ns") - zero_ns) * 1e-6
    span = _span(marks, zero_ns)
    _rates(whole, found, t_ms)
    whole.axvspan(*span, color="#e5e7eb", zorder=0)
    whole.set_xlim(t_ms[0], t_ms[-1])
    whole.set_title(_title(found.about, rule), loc="left", fontsize=11, fontweight="bold")
    inside = (t_ms >= span[0] - 1.0) & (t_ms <= span[1] + 1.0)
    _rates(rate, found, t_ms, inside)
    _rule(rule_axes, rule, _compared(rule, found, scans, ahead_ns), t_ms, inside)
    _errors(error, found, t_ms, inside)
    _switches(lines, found, t_ms, inside)
    if scans is not None:
        safety_plot.switches(of_safety[0], scans, found.column("t_ns")[inside] + ahead_ns, t_ms[inside])
        safety_plot.ages(of_safety[1], scans, found.column("t_ns") + ahead_ns, t_ms)
        of_safety[1].axvspan(*span, color="#e5e7eb", zorder=0)
        _legend(of_safety[1], times=False)
    for axes in (rate, rule_axes, error, lines, *of_safety[:1]):
        axes.set_xlim(*span)
        _mark(axes, marks, zero_ns)
    for axes, times in ((rate, True), (rule_axes, False), (error, False)):
        _legend(axes, times=times)
    (of_safety or [lines])[-1].set_xlabel(f"ms after the decision at {zero_ns * 1e-9:.6f} s of facility time")
    _style((whole, rate, rule_axes, error, lines, *of_safety))
    figure.savefig(path, dpi=130)


def _span(marks: Mapping[str, int | None], zero_ns: int) -> tuple[float, float]:
    """What the lower panels show, ms after the decision: from the cause to beam off, with room on both sides."""
    known = [(t - zero_ns) * 1e-6 for t in marks.values() if t is not None]
    first, last = max(min(known), -_MOST_MS), min(max(known), 50.0)
    room = 0.15 * (last - first)
    return first - max(room, _LEAST_BEFORE_MS), last + max(room, _LEAST_AFTER_MS)


def _title(about: Mapping[str, Any], rule: Rule | None) -> str:
    name = about["event"]["kind"] if rule is None else f"{rule.title} ({rule.id}, tier {rule.tier}, {rule.action})"
    same = "" if about["identical"] else "\nNOT the same as what happened: " + ", ".join(about["differences"])
    return f"{about['facility']}, room {about['room']}, {about['species']}: {name}{same}"


def _mean(values: np.ndarray, ticks: int = _MEAN_TICKS) -> np.ndarray:
    kernel = np.full(ticks, 1.0 / ticks)
    return np.convolve(values, kernel)[: len(values)]


def _rates(axes: Axes, found: Recording, t_ms: np.ndarray, inside: np.ndarray | None = None) -> None:
    """Ions a second by truth and by both chambers, means over 100 us."""
    shown = slice(None) if inside is None else inside
    step_s = np.diff(found.column("t_ns"), prepend=found.column("t_ns")[0] - 10_000) * 1e-9
    for name, label, colour in (("ic2.ions", "chamber 2", _IC2), ("ic1.ions", "chamber 1", _IC1)):
        ions = found.column(name)
        rate = _mean(np.diff(ions, prepend=ions[0]) / step_s) / _RATE
        axes.plot(t_ms[shown], rate[shown], color=colour, lw=1.0, label=label)
    truth = _mean(found.column("truth_ions") / step_s) / _RATE
    axes.plot(t_ms[shown], truth[shown], color=_TRUTH, lw=1.2, label="truth")
    axes.set_ylabel("10⁸ ions/s")


def _compared(rule: Rule | None, found: Recording, scans: Recording | None, ahead_ns: int) -> Compared | None:
    """What the rule compared, as far as anybody wrote it down."""
    from rig.post_mortem_value import compared, compared_in_scans

    if rule is None:
        return None
    seen = compared(rule, found)
    if seen is None and scans is not None:
        return compared_in_scans(rule, scans, found.column("t_ns") + ahead_ns)
    return seen


def _rule(axes: Axes, rule: Rule | None, seen: Compared | None, t_ms: np.ndarray, inside: np.ndarray) -> None:
    """What the rule compared, and its limits."""
    from matplotlib.ticker import EngFormatter

    if rule is None or seen is None:
        words = "what this rule compares is known to the safety controller alone" if rule else "no rule is named"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color="#6b7280")
        axes.set_yticks([])
        return
    axes.step(t_ms[inside], seen.value[inside], where="post", color=_IC1, lw=1.2, label=seen.what)
    limits = [limit for limit in (seen.low, seen.high) if limit is not None]
    word = "must be" if rule.kind in ("digital", "either", "equal") else "limit"
    for number, limit in enumerate(limits):
        label = "" if number else word
        axes.step(t_ms[inside], limit[inside], where="post", color=_BAD, lw=1.0, ls="--", label=label)
    if float(np.nanmax(np.abs(seen.value[inside]), initial=0.0)) >= _ENGINEERING:
        axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_ylabel("" if rule.unit in ("1", "bool") else rule.unit)


def _errors(axes: Axes, found: Recording, t_ms: np.ndarray, inside: np.ndarray) -> None:
    """Position errors as the strip chamber and the supplies see them."""
    for name, label, colour, style in (
        ("strip.err_x_mm", "strip x", _IC1, "-"), ("strip.err_y_mm", "strip y", _IC2, "-"),
        ("scan_x.err_mm", "current x", _IC1, ":"), ("scan_y.err_mm", "current y", _IC2, ":"),
    ):  # fmt: skip
        axes.step(t_ms[inside], found.column(name)[inside], where="post", color=colour, ls=style, lw=1.0, label=label)
    axes.set_ylabel("position error, mm")
    axes.set_ylim(*_near(found, inside))


def _near(found: Recording, inside: np.ndarray) -> tuple[float, float]:
    """A range that shows the strip's errors; a move's excursion of the current may leave the picture."""
    values = np.concatenate([found.column(name)[inside] for name in ("strip.err_x_mm", "strip.err_y_mm")])
    reach = max(2.5, 1.3 * float(np.nanmax(np.abs(values), initial=0.0)))
    return -reach, reach


def _switches(axes: Axes, found: Recording, t_ms: np.ndarray, inside: np.ndarray) -> None:
    """Lines and devices, one above the other."""
    for place, (name, _) in enumerate(reversed(_LINES)):
        value = found.column(name)[inside]
        axes.fill_between(t_ms[inside], place, place + 0.7 * value, step="post", color=_IC1, alpha=0.35, lw=0)
        axes.step(t_ms[inside], place + 0.7 * value, where="post", color=_IC1, lw=1.0)
    axes.set_yticks(
        [place + 0.35 for place in range(len(_LINES))], [label for _, label in reversed(_LINES)], fontsize=8
    )
    axes.set_ylim(-0.2, len(_LINES))
    axes.tick_params(axis="y", length=0)


def _mark(axes: Axes, marks: Mapping[str, int | None], zero_ns: int) -> None:
    """The four times; they are named in the legend of the first panel."""
    for name, label, colour in _MARKS:
        t_ns = marks[name]
        if t_ns is not None:
            at_ms = (t_ns - zero_ns) * 1e-6
            style = "-" if name == "t_decision" else "--"
            axes.axvline(at_ms, color=colour, lw=1.1, ls=style, label=f"{label} {at_ms:+.2f} ms")


def _legend(axes: Axes, *, times: bool) -> None:
    """Above the panel, where it covers nothing; the four times are named once only."""
    handles, labels = axes.get_legend_handles_labels()
    kept = [(h, w) for h, w in zip(handles, labels, strict=True) if times or w.split()[0] not in _NAMES]
    if kept:
        axes.legend(*zip(*kept, strict=True), loc="lower left", bbox_to_anchor=(0.0, 0.98), fontsize=8, ncols=len(kept),
                    frameon=False, columnspacing=1.2, handlelength=1.6, borderaxespad=0.1)  # fmt: skip


def _style(all_axes: tuple[Axes, ...]) -> None:
    for axes in all_axes:
        axes.grid(axis="x", color="#e5e7eb", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
