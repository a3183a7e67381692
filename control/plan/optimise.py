"""Spot weights that give a target one dose, by the multiplicative update that keeps weights positive.

Each weight is multiplied by the mean of (prescribed / present dose) over the target, weighted with the dose that the
spot gives there (maximum likelihood expectation maximisation, L. A. Shepp and Y. Vardi, IEEE Trans. Med. Imaging 1
(1982) 113), to the power of 1.7: over-relaxation halves the number of iterations, below 2 it converges. Spots lie on
one lateral grid in every layer, so dose is a product of one matrix in depth and one across. Proximal
spots come out light where deeper ones pass through them: each column across is optimised with its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control.plan.model import FloatArray
from facility.constants import MEV_PER_G_TO_GY

RELAXATION = 1.7

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DoseProblem:
    """Spots and voxels on one lateral grid of n x n points (axis order: y, x).

    `depth_dose`: (layers, depths) MeV cm2/g per ion; `across`: (layers, n, n), share of a spot at one grid position
    found per cm of another one, along one axis; `spots`: (layers, n, n), where spots may be; `target`: (depths, n, n);
    `dose_gy`: one for the whole target, or one for each voxel.
    """

    depth_dose: FloatArray
    across: FloatArray
    spots: BoolArray
    target: BoolArray
    dose_gy: float | FloatArray

    @property
    def mean_gy(self) -> float:
        """Mean dose that the target is to have."""
        return float(self.dose_gy[self.target].mean()) if isinstance(self.dose_gy, np.ndarray) else self.dose_gy

    def dose(self, weights: FloatArray) -> FloatArray:
        """Dose in Gy, (depths, n, n), of weights in ions, (layers, n, n)."""
        fluence = self.across @ weights @ self.across.transpose(0, 2, 1)
        layers, n, _ = fluence.shape
        dose = self.depth_dose.T @ fluence.reshape(layers, n * n)
        return np.asarray(dose.reshape(-1, n, n) * MEV_PER_G_TO_GY, dtype=np.float64)

    def back(self, voxels: FloatArray) -> FloatArray:
        """Adjoint of `dose`: (depths, n, n) to (layers, n, n)."""
        depths, n, _ = voxels.shape
        planes = (self.depth_dose @ voxels.reshape(depths, n * n)).reshape(-1, n, n)
        return np.asarray(self.across.transpose(0, 2, 1) @ planes @ self.across * MEV_PER_G_TO_GY, dtype=np.float64)


def lateral_shares(grid_mm: FloatArray, sigma_mm: FloatArray) -> FloatArray:
    """One-dimensional Gaussians in 1/cm between grid points, (layers, n, n), for one sigma per layer."""
    distance = grid_mm[:, None] - grid_mm[None, :]
    sigma = sigma_mm[:, None, None]
    return np.asarray(np.exp(-0.5 * (distance / sigma) ** 2) / (np.sqrt(2.0 * np.pi) * sigma) * 10.0, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Limits:
    """Which spots are given up, and how long is optimised.

    `lightest_ions`: per layer; `lightest_share`: of the layer's mean.
    """

    lightest_ions: FloatArray
    lightest_share: float
    iterations: int


def optimise(problem: DoseProblem, limits: Limits) -> FloatArray:
    """Weights in ions, (layers, n, n); zero where there is no spot.

    After half of the iterations, spots that are too light are given up; the rest is optimised on. What is still below
    `lightest_ions` at the end is given up too.
    """
    lightest_ions, lightest_share, iterations = limits.lightest_ions, limits.lightest_share, limits.iterations
    sensitivity = problem.back(problem.target.astype(np.float64))
    weights = np.where(problem.spots & (sensitivity > 0.0), 1.0, 0.0)
    level = problem.dose(weights)[problem.target].mean()
    weights *= problem.mean_gy / level if level > 0.0 else 0.0
    weights = _iterate(problem, weights, sensitivity, iterations - iterations // 2)
    weights = _drop_light(weights, lightest_ions, lightest_share)
    weights = _iterate(problem, weights, sensitivity, iterations // 2)
    weights = _drop_light(weights, lightest_ions, 0.0)
    dose = problem.dose(weights)[problem.target]
    return weights * (problem.mean_gy / dose.mean() if dose.mean() > 0.0 else 0.0)


def _iterate(problem: DoseProblem, weights: FloatArray, sensitivity: FloatArray, iterations: int) -> FloatArray:
    inverse = np.divide(1.0, sensitivity, out=np.zeros_like(sensitivity), where=sensitivity > 0.0)
    for _ in range(iterations):
        dose = problem.dose(weights)
        ratio = np.zeros_like(dose)
        np.divide(problem.dose_gy, dose, out=ratio, where=problem.target & (dose > 0.0))
        weights = weights * (problem.back(ratio) * inverse) ** RELAXATION
    return weights


def _drop_light(weights: FloatArray, lightest_ions: FloatArray, lightest_share: float) -> FloatArray:
    present = weights > 0.0
    count = np.maximum(present.sum(axis=(1, 2)), 1)
    mean = weights.sum(axis=(1, 2)) / count
    limit = np.maximum(lightest_ions, lightest_share * mean)
    return np.where(weights >= limit[:, None, None], weights, 0.0)
