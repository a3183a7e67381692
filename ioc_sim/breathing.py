"""The recorded breathing trace as pure functions of facility time: amplitude, gate window, edges.

The rack plays the same trace inside its kernel, sample by sample; the arithmetic here is the kernel's, to the last
bit, so that the gate PVs, scenarios ("trip while the gate is closed") and tests can ask about any moment, past or to
come, without running the plant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from facility.breathing import BreathingTrace, load_trace
from facility.config import Facility
from facility.errors import ConfigError


@dataclass(frozen=True)
class GateEdge:
    """A moment at which the gate changes."""

    t_ns: int
    """First ns of the new state."""
    is_open: bool
    """The new state."""


class Breathing:
    """A trace that repeats, and the window in which beam is allowed.

    Args:
        trace: evenly sampled; linear in between, the last sample runs into the first.
        low_mm, high_mm: the window, both ends included.
    """

    def __init__(self, trace: BreathingTrace, low_mm: float, high_mm: float) -> None:
        if not (math.isfinite(low_mm) and math.isfinite(high_mm) and low_mm < high_mm):
            raise ConfigError("gate.window", f"window {low_mm!r} to {high_mm!r} mm", "gate", "low below high, finite")
        self._samples: list[float] = trace.amplitude_mm.tolist()
        self._step_ns = round(trace.step_s * 1e9)
        if self._step_ns < 1:
            raise ConfigError("breathing.times", f"samples {trace.step_s!r} s apart", "gate.trace", "1 ns or more")
        self.low_mm = low_mm
        self.high_mm = high_mm
        self.period_ns = self._step_ns * len(self._samples)
        """Time after which the trace repeats, ns."""
        self._edges = self._find_edges()
        self._edge_ns: NDArray[np.int64] = np.array([edge.t_ns for edge in self._edges], dtype=np.int64)

    @staticmethod
    def of(facility: Facility) -> Breathing:
        """The trace and window that a facility names.  ConfigError if the trace cannot be read."""
        gate = facility.gate
        return Breathing(load_trace(gate.trace), gate.window_low_mm, gate.window_high_mm)

    def amplitude_mm(self, t_ns: int) -> float:
        """Surrogate at a facility time, mm."""
        place = (t_ns % self.period_ns) / self._step_ns
        i = math.floor(place)
        here = self._samples[i]
        return here + (self._samples[(i + 1) % len(self._samples)] - here) * (place - i)

    def gate_open(self, t_ns: int) -> bool:
        """Whether the surrogate is inside the window at a facility time."""
        return self.low_mm <= self.amplitude_mm(t_ns) <= self.high_mm

    @property
    def edges(self) -> tuple[GateEdge, ...]:
        """All changes within one period, in order, times from 0 to below `period_ns`."""
        return self._edges

    def next_edge(self, t_ns: int) -> GateEdge | None:
        """The first change after a facility time; None if the gate never changes."""
        if not self._edges:
            return None
        periods, phase = divmod(t_ns, self.period_ns)
        k = int(np.searchsorted(self._edge_ns, phase, side="right"))
        if k == len(self._edges):
            periods, k = periods + 1, 0
        edge = self._edges[k]
        return GateEdge(periods * self.period_ns + edge.t_ns, edge.is_open)

    def _find_edges(self) -> tuple[GateEdge, ...]:
        """Sample the state between all places where a limit is met, then bisect each change to its ns."""
        places = [0]
        for i, here in enumerate(self._samples):
            there = self._samples[(i + 1) % len(self._samples)]
            places.extend(
                round((i + (limit - here) / (there - here)) * self._step_ns)
                for limit in (self.low_mm, self.high_mm)
                if (here - limit) * (there - limit) <= 0.0 and here != there
            )
            places.append((i + 1) * self._step_ns)
        marks = sorted(set(places))
        probes = [(a + b) // 2 for a, b in pairwise(marks)]
        found = [self._bisect(a, b) for a, b in pairwise(probes) if self._differ(a, b)]
        last, first = probes[-1], probes[0] + self.period_ns
        if self._differ(last, first):
            edge = self._bisect(last, first)
            found.append(GateEdge(edge.t_ns % self.period_ns, edge.is_open))
        return tuple(sorted(found, key=lambda edge: edge.t_ns))

    def _differ(self, a_ns: int, b_ns: int) -> bool:
        return self.gate_open(a_ns) != self.gate_open(b_ns)

    def _bisect(self, before_ns: int, after_ns: int) -> GateEdge:
        new = self.gate_open(after_ns)
        while after_ns - before_ns > 1:
            middle = (before_ns + after_ns) // 2
            if self.gate_open(middle) == new:
                after_ns = middle
            else:
                before_ns = middle
        return GateEdge(after_ns, new)
