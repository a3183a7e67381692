"""Figures of a depth-dose curve: peak, entrance, widths, tail; and of a spread-out peak: flatness, edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facility.physics.relativity import FloatArray


@dataclass(frozen=True)
class Peak:
    """One Bragg curve; depths and lengths in mm, doses in the curve's unit.

    Attributes:
        depth_mm: of the highest dose.
        height, entrance: dose there and at the surface.
        distal_mm: depths behind the peak with 80, 50 and 20 % of the height.
        width_mm: of the peak at half height; NaN where the curve never falls that low in front of it.
        tail: dose 20 mm behind the peak.
    """

    depth_mm: float
    height: float
    entrance: float
    distal_mm: tuple[float, float, float]
    width_mm: float
    tail: float

    @property
    def ratio(self) -> float:
        """Peak over entrance."""
        return self.height / self.entrance

    @property
    def falloff_mm(self) -> float:
        """Between 80 and 20 % behind the peak."""
        return self.distal_mm[2] - self.distal_mm[0]


def peak_of(depth_mm: FloatArray, dose: FloatArray) -> Peak:
    """Figures of a curve given at rising depths; the peak by a parabola through its three highest neighbours."""
    k = int(np.argmax(dose))
    at, height = float(depth_mm[k]), float(dose[k])
    if 0 < k < dose.size - 1:
        a, b, c = np.polyfit(depth_mm[k - 1 : k + 2] - at, dose[k - 1 : k + 2], 2)
        if a < 0.0:
            at, height = at - b / (2.0 * a), float(c - b * b / (4.0 * a))
    distal = tuple(crossing(depth_mm, dose, share * height, behind=True) for share in (0.8, 0.5, 0.2))
    width = distal[1] - crossing(depth_mm, dose, 0.5 * height, behind=False)
    tail = float(np.interp(at + 20.0, depth_mm, dose))
    return Peak(at, height, float(dose[0]), (distal[0], distal[1], distal[2]), width, tail)


def crossing(depth_mm: FloatArray, dose: FloatArray, level: float, *, behind: bool) -> float:
    """Depth where the dose passes a level for the last time behind, or the last time in front of, its highest point."""
    k = int(np.argmax(dose))
    above = np.flatnonzero(dose >= level)
    if behind:
        last = int(above[-1])
        if last + 1 >= dose.size:
            return float("nan")
        return float(np.interp(-level, -dose[last : last + 2], depth_mm[last : last + 2]))
    below = np.flatnonzero(dose[: k + 1] < level)
    if not below.size:
        return float("nan")
    first = int(below[-1])
    return float(np.interp(level, dose[first : first + 2], depth_mm[first : first + 2]))


@dataclass(frozen=True)
class Plateau:
    """A spread-out peak along its axis, over the central 80 % of the target.

    Attributes:
        mean: mean dose there.
        flatness: (highest - lowest) / (highest + lowest).
        slope: last over first tenth of that part, less 1.
        distal_mm: where the dose falls through half of the mean behind the target.
        distal_95_mm: where it first falls through 95 % of the mean behind the target's middle.
        proximal_mm: where it last rises through 95 % of the mean in front of the target's middle.
    """

    mean: float
    flatness: float
    slope: float
    distal_mm: float
    distal_95_mm: float
    proximal_mm: float


def plateau_of(depth_mm: FloatArray, dose: FloatArray, centre_mm: float, half_mm: float) -> Plateau:
    """Figures of a spread-out peak of this centre and half width."""
    inside = np.abs(depth_mm - centre_mm) <= 0.8 * half_mm + 1e-9
    part = dose[inside]
    mean = float(part.mean())
    tenth = max(1, part.size // 10)
    slope = float(part[-tenth:].mean() / part[:tenth].mean() - 1.0)
    back = depth_mm >= centre_mm
    distal = crossing(depth_mm[back], np.minimum(dose[back], mean), 0.5 * mean, behind=True)
    distal_95 = float("nan")
    if (fallen := np.flatnonzero(dose[back] < 0.95 * mean)).size and fallen[0] > 0:
        k = int(fallen[0])
        distal_95 = float(np.interp(-0.95 * mean, -dose[back][k - 1 : k + 1], depth_mm[back][k - 1 : k + 1]))
    front = depth_mm <= centre_mm
    low = np.flatnonzero(dose[front] < 0.95 * mean)
    proximal = float("nan")
    if low.size and low[-1] + 1 < np.count_nonzero(front):
        k = int(low[-1])
        proximal = float(np.interp(0.95 * mean, dose[front][k : k + 2], depth_mm[front][k : k + 2]))
    flatness = float((part.max() - part.min()) / (part.max() + part.min()))
    return Plateau(mean, flatness, slope, distal, distal_95, proximal)
