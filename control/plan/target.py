"""What a made plan aims at: a sphere or a cube in water."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from control.plan.model import FloatArray
from control.plan.optimise import BoolArray
from facility.errors import UsageError

SHAPES = ("sphere", "cube")


@dataclass(frozen=True)
class Target:
    """Half size and depth of the centre, mm."""

    shape: str
    half_mm: float
    depth_mm: float

    def half_width_mm(self, depth_mm: FloatArray) -> FloatArray:
        """Half width across at these depths (radius of a sphere's slice); negative outside."""
        off = np.abs(depth_mm - self.depth_mm)
        if self.shape == "cube":
            return np.where(off <= self.half_mm + 1e-9, self.half_mm, -1.0)
        inside = self.half_mm**2 - off**2
        return np.where(inside >= -1e-9, np.sqrt(np.maximum(inside, 0.0)), -1.0)

    def covers(self, grid_mm: FloatArray, half_width_mm: FloatArray) -> BoolArray:
        """(k, n, n): grid points within half widths of shape (k,)."""
        width = half_width_mm[:, None, None] + 1e-9
        x, y = grid_mm[None, None, :], grid_mm[None, :, None]
        if self.shape == "cube":
            return np.asarray((np.abs(x) <= width) & (np.abs(y) <= width), dtype=np.bool_)
        return np.asarray((x**2 + y**2 <= width**2) & (width > 0.0), dtype=np.bool_)


def target_of(shape: str, size: float, depth: float, dose: float, lateral: float, layer: float) -> Target:
    """The target, or UsageError for a number that makes no sense."""
    if shape not in SHAPES:
        raise UsageError("plan.shape", f"no shape {shape!r}", "plan make", f"choose {' or '.join(SHAPES)}")
    limits = {
        "size": (size, 2.0, 300.0, "mm"),
        "depth": (depth, 1.0, 400.0, "mm"),
        "dose": (dose, 1e-3, 100.0, "Gy"),
        "lateral spacing": (lateral, 0.5, 10.0, "mm"),
        "layer spacing": (layer, 0.5, 20.0, "mm"),
    }
    for name, (value, low, high, unit) in limits.items():
        if not low <= value <= high:
            raise UsageError(
                "plan.make", f"{name} of {value:g} {unit}", "plan make", f"give {low:g} to {high:g} {unit}"
            )
    return Target(shape, size / 2.0, depth)
