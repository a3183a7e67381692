"""Gamma index: how far two doses are apart, in dose and distance at once.

D. A. Low, W. B. Harms, S. Mutic, J. A. Purdy, Med. Phys. 25 (1998) 656: for each point of the reference the least of
sqrt((distance / distance to agreement)^2 + (difference / allowed difference)^2) over all points of the evaluated dose,
which is interpolated linearly between its voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dose.kernel import gamma_index
from facility.physics.relativity import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Criteria:
    """What counts as 1.

    Attributes:
        dose_pct: difference in per cent of the largest dose of the reference (of the point's own where `local`).
        distance_mm: distance to agreement.
        cut_pct: voxels below this share of the largest dose are not judged.
        most: where the search ends: greater values are told as this.
        per_distance: points searched per distance to agreement; a coarse search tells too much, never too little.
    """

    dose_pct: float = 2.0
    distance_mm: float = 2.0
    local: bool = False
    cut_pct: float = 10.0
    most: float = 2.0
    per_distance: int = 20

    def __post_init__(self) -> None:
        if not (self.dose_pct > 0.0 and self.distance_mm > 0.0 and self.most > 0.0 and self.per_distance >= 1):
            raise ValueError(f"gamma needs positive criteria, got {self}")
        if not 0.0 <= self.cut_pct <= 100.0:
            raise ValueError(f"the cut is a share in per cent, got {self.cut_pct}")


@dataclass(frozen=True, eq=False)
class GammaResult:
    """`values`: gamma per voxel, NaN where not judged; how many were judged; per cent at most 1; the mean."""

    values: FloatArray
    judged: int
    pass_pct: float
    mean: float
    worst: float


def gamma(reference: FloatArray, evaluated: FloatArray, step_mm: tuple[float, float, float],
          criteria: Criteria | None = None) -> GammaResult:  # fmt: skip
    """Hold `evaluated` against `reference`, both (depths, ny, nx) in Gy on one grid with these steps.

    Raises:
        ValueError: shapes differ, a step is not positive, or the reference has no dose.
    """
    wanted = Criteria() if criteria is None else criteria
    if reference.shape != evaluated.shape or reference.ndim != 3:
        raise ValueError(f"doses of shapes {reference.shape} and {evaluated.shape} are not of one grid")
    top = float(reference.max())
    if not (top > 0.0 and np.isfinite(top)) or min(step_mm) <= 0.0:
        raise ValueError("gamma needs a reference with dose and a grid with positive steps")
    alive = np.array(reference.shape) > 1
    per_voxel = np.array([max(1, int(np.ceil(s * wanted.per_distance / wanted.distance_mm))) for s in step_mm])
    base, part, distance2 = _points(np.array(step_mm), per_voxel, wanted, alive)
    share = 0.01 * wanted.dose_pct
    allowed = share * reference if wanted.local else np.full_like(reference, share * top)
    out = np.empty_like(reference)
    mine, theirs = (np.ascontiguousarray(a, dtype=np.float64) for a in (reference, evaluated))
    gamma_index(mine, theirs, base, part, distance2, allowed, max(0.01 * wanted.cut_pct, 1e-9) * top, wanted.most, out)
    judged = out[~np.isnan(out)]
    passed = 100.0 * float(np.count_nonzero(judged <= 1.0)) / judged.size
    return GammaResult(out, int(judged.size), passed, float(judged.mean()), float(judged.max()))


def _points(
    step_mm: FloatArray, per_voxel: IntArray, criteria: Criteria, alive: BoolArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Points of the search, nearest first: whole voxels and shares of the next one, (n, 3) each; squared distances."""
    fine_mm = step_mm / per_voxel
    counts = np.where(alive, np.floor(criteria.most * criteria.distance_mm / fine_mm + 1e-9), 0).astype(np.int64)
    axes = [np.arange(-n, n + 1) for n in counts]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    squared = np.sum((points * fine_mm) ** 2, axis=1) / criteria.distance_mm**2
    kept = squared <= criteria.most**2
    order = np.argsort(squared[kept], kind="stable")
    points = points[kept][order]
    base = points // per_voxel
    part = (points - base * per_voxel) / per_voxel
    return np.ascontiguousarray(base), np.ascontiguousarray(part), np.ascontiguousarray(squared[kept][order])
