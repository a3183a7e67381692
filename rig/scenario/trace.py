"""What a report draws of a scenario: the beam by truth, the lines, the rule against its limits, the spot's dose.

Times are microseconds of facility time after the cause. Everything is thinned out to what a picture can show.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.constants import TICK_NS
from interlocks.model import Rule
from ioc_sim.layout import FLAG_DEMAND, FLAG_PERMIT
from rig.post_mortem_file import Recording, recording_of
from rig.post_mortem_value import compared
from rig.scenario.judge import Seen

POINTS = 500
MEAN_TICKS = 5
ROOM_US = 1000.0
"""Shown before the cause and after beam off, at least."""
ROOM_SHARE = 0.3
MOST_US = 400_000.0
TICK_S = 1e-5
FloatArray = npt.NDArray[np.float64]


def trace_of(seen: Seen, off_ns: int | None, post_mortem: bytes | None, rule: Rule | None) -> dict[str, Any]:
    """Panels, each a list of curves (name, x in us, y); and the times that are marked."""
    last_ns = max(seen.cause_ns, off_ns or 0, seen.decision_ns or 0)
    room_us = max(ROOM_US, ROOM_SHARE * (last_ns - seen.cause_ns) / 1e3)
    until_us = min((last_ns - seen.cause_ns) / 1e3 + room_us, MOST_US)
    from_us = -min(room_us, 2000.0)
    panels = []
    if seen.ticks is not None and seen.ticks.t_ns.size:
        panels += _beam(seen, from_us, until_us)
    if post_mortem is not None:
        found = recording_of(post_mortem)
        panels += [p for p in (_rule(found, rule, seen.cause_ns, from_us, until_us),
                               _spot(found, seen.cause_ns, from_us, until_us)) if p is not None]  # fmt: skip
    marks = {"cause": 0.0}
    if seen.decision_ns is not None:
        marks["condition"] = (seen.decision_ns - seen.cause_ns) / 1e3
    if off_ns is not None:
        marks["beam off"] = (off_ns - seen.cause_ns) / 1e3
    return {"from_us": from_us, "until_us": until_us, "marks": marks, "panels": panels}


def _panel(title: str, unit: str, *curves: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "unit": unit, "curves": [curve for curve in curves if curve["x"]]}


def _beam(seen: Seen, from_us: float, until_us: float) -> list[dict[str, Any]]:
    ticks = seen.ticks
    if ticks is None:
        return []
    grid = (ticks.t_ns - ticks.t_ns[0]) // TICK_NS
    dense = np.zeros(int(grid[-1]) + 1)
    dense[grid] = ticks.ions
    rate = np.convolve(dense, np.full(MEAN_TICKS, 1.0 / MEAN_TICKS))[: len(dense)] / TICK_S
    t_us = (ticks.t_ns[0] + np.arange(len(dense)) * TICK_NS - seen.cause_ns) / 1e3
    own_us = (ticks.t_ns - seen.cause_ns) / 1e3
    lines = [
        _curve(name, own_us, ((ticks.flags >> bit) & 1).astype(np.float64), from_us, until_us)
        for name, bit in (("permit", FLAG_PERMIT), ("demand", FLAG_DEMAND))
    ]
    beam = _panel("Beam by truth, mean over 50 us", "ions/s", _curve("truth", t_us, rate, from_us, until_us))
    return [beam, _panel("Lines at the beam-off devices", "", *lines)]


def _rule(found: Recording, rule: Rule | None, cause_ns: int, from_us: float, until_us: float) -> dict[str, Any] | None:
    shown = None if rule is None else compared(rule, found)
    if rule is None or shown is None:
        return None
    t_us = (found.column("t_ns") - cause_ns) / 1e3
    named = ((shown.what, shown.value), ("limit", shown.low), ("limit", shown.high))
    curves = [_curve(name, t_us, values, from_us, until_us) for name, values in named if values is not None]
    return _panel(f"{rule.title} ({rule.id})", "" if rule.unit in ("1", "bool") else rule.unit, *curves)


def _spot(found: Recording, cause_ns: int, from_us: float, until_us: float) -> dict[str, Any]:
    t_us = (found.column("t_ns") - cause_ns) / 1e3
    names = (("fe.spot_ic1_ions", "chamber 1"), ("fe.spot_ic2_ions", "chamber 2"), ("fe.spot_target_ions", "planned"))
    return _panel("Dose of the spot", "ions",
                  *(_curve(label, t_us, found.column(name), from_us, until_us) for name, label in names))  # fmt: skip


def _curve(name: str, x: FloatArray, y: FloatArray, from_us: float, until_us: float) -> dict[str, Any]:
    """Thinned out: of each stretch its least and its greatest value, so that no peak is lost."""
    inside = (x >= from_us) & (x <= until_us)
    x, y = x[inside], y[inside]
    if len(x) > POINTS:
        size = math.ceil(len(x) / (POINTS // 2))
        kept: set[int] = {0, len(x) - 1}
        for begin in range(0, len(x), size):
            part = np.nan_to_num(y[begin : begin + size])
            kept |= {begin + int(part.argmin()), begin + int(part.argmax())}
        places = sorted(kept)
        x, y = x[places], y[places]
    return {"name": name, "x": [round(float(v), 2) for v in x], "y": [_number(v) for v in y]}


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
