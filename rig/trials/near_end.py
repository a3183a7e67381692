"""Limits that a layer comes near to at its end only: how a device is set so that it ends at a chosen share of one.

What such a rule compares grows through the layer. A look at a copy of the delivery in which nothing fails says how, and
from this follows what the device is set to. Preset registers and clocks act back on nothing, gains on no beam as long
as no rule trips: what was seen in the copy comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from facility.errors import InternalError
from facility.signals import INDEX
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearEnd

NearFaults = Callable[[float, int], tuple[Fault, ...]]
"""What has to fail from an instant (ns) on, by the share of the limit that is to be come to."""


@dataclass(frozen=True, eq=False)
class Growth:
    """Signals of a layer without a fault, a millisecond apart."""

    t_ns: Any
    """int64 (n,)."""
    signals: Any
    """float64 (n, N_SIGNALS)."""

    def pair(self, rule: Rule, at_ns: int) -> tuple[float, float]:
        """What the rule compares, as it stood at an instant."""
        row = self.signals[max(0, int(np.searchsorted(self.t_ns, at_ns, side="right")) - 1)]
        return float(row[INDEX[rule.inputs[0]]]), float(row[INDEX[rule.inputs[-1]]])

    def increments(self, rule: Rule, at_ns: int) -> tuple[float, float]:
        """What the rule compares over its window, all of it after an instant, where the first is greatest."""
        first, last = (self.signals[:, INDEX[name]] for name in (rule.inputs[0], rule.inputs[-1]))
        begin = np.searchsorted(self.t_ns, self.t_ns - round(rule.window_us * 1000.0), side="right") - 1
        whole = np.flatnonzero((begin >= 0) & (self.t_ns[begin.clip(0)] >= at_ns))
        if not whole.size:
            raise InternalError("trials.near", f"the layer ends within {rule.window_us:g} us", "rig.trials.near_end")
        best = whole[int(np.argmax(first[whole] - first[begin[whole]]))]
        return float(first[best] - first[begin[best]]), float(last[best] - last[begin[best]])

    def end(self, rule: Rule) -> tuple[float, float]:
        """What the rule compares, where the first of the two is greatest."""
        first = self.signals[:, INDEX[rule.inputs[0]]]
        return self.pair(rule, int(self.t_ns[int(np.argmax(first))]))


def at_the_end(rule: Rule, near: NearEnd, growth: Growth, share: float, at_ns: int) -> tuple[Fault, ...]:
    """What has to fail from `at_ns` on, so that the layer ends at `share` of the limit."""
    if rule.window_us:
        (a0, b0), (a1, b1) = (0.0, 0.0), growth.increments(rule, at_ns)
    else:
        (a0, b0), (a1, b1) = growth.pair(rule, at_ns), growth.end(rule)
    relative, high = rule.relative or 0.0, rule.high or 0.0
    if not a1 > a0:
        raise InternalError("trials.near", f"{rule.inputs[0]} does not grow: {a0:g}, {a1:g}", "rig.trials.near_end")
    match near.moves:
        case "limit":  # of which the second value is a register
            kind, value = FaultKind.SET, (a1 / share - high) / relative
        case "first":
            kind, value = FaultKind.SCALE, (share * (relative * b1 + high) - a0) / (a1 - a0)
        case _:  # the second, below the first
            kind, value = FaultKind.SCALE, (a1 - share * (relative * a1 + high) - b0) / (b1 - b0)
    return (Fault(near.point, kind, value, at_ns=at_ns), *(fault.at(at_ns) for fault in near.besides))
