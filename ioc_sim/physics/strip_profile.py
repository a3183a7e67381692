"""Strips of the strip chamber: the profile that a window of beam leaves on them, and centroid and width by fit.

A Gaussian beam of N ions leaves on strip k, from a to b, the charge of m_k = N [F((b - x) / s) - F((a - x) / s)] ions
(F: normal distribution), with variance g m_k + n^2: ions are counted, each frees more or less charge (g), and the
strip's electronics has a noise of n ions. What is known to be dead counts nothing. Amplitude, centre x and width s are
fitted by weighted least squares (Gauss-Newton), which is what the front end's firmware does.

The tick does not do that for each window: it draws the centroid with the standard deviation that such a fit has (the
inverse of the information in the strips, `resolution_mm`), and `live_variance` is what is left of it for a beam well on
living strips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PER_ION = 1.04
"""Variance of a strip's charge for each ion on it, in ions: counting, and the spread of what one ion frees (20 %)."""
STEPS = 12
CLOSE_MM = 1e-4
LEAST_STRIPS = 4
REACH_SIGMAS = 4.0
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Strips:
    """One plane of strips: evenly spaced around the axis.

    - `dead`: strips that are known to give nothing, (count,).
    - `noise_ions`: electronics noise of one strip in a window, as ions.
    """

    count: int
    pitch_mm: float
    dead: BoolArray
    noise_ions: float

    @staticmethod
    def of(count: int, pitch_mm: float, dead: tuple[int, ...], noise_ions: float) -> Strips:
        """From the indices of dead strips."""
        mask = np.zeros(count, dtype=np.bool_)
        mask[list(dead)] = True
        return Strips(count, pitch_mm, mask, noise_ions)

    @property
    def edges_mm(self) -> FloatArray:
        """Of all strips, (count + 1,)."""
        return np.asarray((np.arange(self.count + 1) - 0.5 * self.count) * self.pitch_mm, dtype=np.float64)

    @property
    def centres_mm(self) -> FloatArray:
        """Of all strips, (count,)."""
        return np.asarray(self.edges_mm[:-1] + 0.5 * self.pitch_mm, dtype=np.float64)


@dataclass(frozen=True)
class Fit:
    """What a profile says: centre and one sigma of the beam at the chamber, mm, and its ions."""

    centre_mm: float
    width_mm: float
    ions: float


def expected(strips: Strips, ions: float, centre_mm: float, sigma_mm: float) -> FloatArray:
    """Ions on each strip, (count,), dead ones too."""
    at = (strips.edges_mm - centre_mm) / (sigma_mm * math.sqrt(2.0))
    return np.asarray(0.5 * ions * np.diff(_erf(at)), dtype=np.float64)


def measured(
    strips: Strips, ions: float, centre_mm: float, sigma_mm: float, gains: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """A profile as it is read, in ions, (count,): counted, with the strips' own `gains`, noise, dead strips at 0."""
    mean = expected(strips, ions, centre_mm, sigma_mm)
    charge = rng.normal(mean, np.sqrt(PER_ION * mean))
    read = gains * charge + rng.normal(0.0, strips.noise_ions, strips.count)
    return np.where(strips.dead, 0.0, read)


def fit(strips: Strips, profile: FloatArray) -> Fit | None:
    """Fit amplitude, centre and width to the living strips; None where there is no beam to fit."""
    alive = ~strips.dead
    total = float(profile[alive].sum())
    if total <= 10.0 * strips.noise_ions or np.count_nonzero(profile[alive] > 3.0 * strips.noise_ions) < LEAST_STRIPS:
        return None
    peak = int(np.argmax(np.where(alive, profile, -np.inf)))
    place = strips.centres_mm
    near = alive & (np.abs(place - place[peak]) <= 6.0 * strips.pitch_mm)
    weight = np.maximum(profile[near], 0.0)
    centre = float(np.average(place[near], weights=weight))
    spread = float(np.average((place[near] - centre) ** 2, weights=weight))
    found = np.array([total, centre, math.sqrt(max(spread, strips.pitch_mm**2 / 4.0))])
    for _ in range(STEPS):
        used = alive & (np.abs(place - found[1]) <= REACH_SIGMAS * found[2] + strips.pitch_mm)
        slopes, mean = _slopes(strips, *found)
        rate = 1.0 / (PER_ION * np.maximum(mean[used], 1.0) + strips.noise_ions**2)
        left = profile[used] - mean[used]
        normal = slopes[used].T @ (slopes[used] * rate[:, None])
        try:
            step = np.linalg.solve(normal, slopes[used].T @ (rate * left))
        except np.linalg.LinAlgError:
            return None
        step[1:] = np.clip(step[1:], -strips.pitch_mm, strips.pitch_mm)
        found = found + step
        found[2] = max(found[2], 0.3 * strips.pitch_mm)
        if abs(step[1]) < CLOSE_MM and abs(step[2]) < CLOSE_MM:
            break
    return Fit(float(found[1]), float(found[2]), float(found[0]))


def _slopes(strips: Strips, ions: float, centre_mm: float, sigma_mm: float) -> tuple[FloatArray, FloatArray]:
    """Derivatives of the expected profile by ions, centre and width, (count, 3), and the profile itself."""
    at = (strips.edges_mm - centre_mm) / sigma_mm
    density = np.exp(-0.5 * at * at) / math.sqrt(2.0 * math.pi)
    mean = expected(strips, ions, centre_mm, sigma_mm)
    by_centre = -ions / sigma_mm * np.diff(density)
    by_width = -ions / sigma_mm * np.diff(density * at)
    return np.column_stack([mean / ions, by_centre, by_width]), mean


def resolution_mm(strips: Strips, ions: float, centre_mm: float, sigma_mm: float) -> tuple[float, float]:
    """Standard deviations of centre and width that a fit to the living strips has, mm; infinite where it cannot."""
    slopes, mean = _slopes(strips, ions, centre_mm, sigma_mm)
    alive = ~strips.dead
    rate = 1.0 / (PER_ION * mean[alive] + strips.noise_ions**2 + 1e-12)
    information = slopes[alive].T @ (slopes[alive] * rate[:, None])
    try:
        variance = np.diag(np.linalg.inv(information))
    except np.linalg.LinAlgError:
        return math.inf, math.inf
    return math.sqrt(max(variance[1], 0.0)), math.sqrt(max(variance[2], 0.0))


def live_variance(pitch_mm: float, sigma_mm: float, noise_ions: float) -> tuple[float, float]:
    """(A, E) of the centroid's variance A / N + E / N^2, mm^2: of counting, strips of a finite width in it, and of the
    electronics' noise, for a beam well on living strips."""
    counting = PER_ION * (sigma_mm**2 + pitch_mm**2 / 12.0)
    return counting, noise_ions**2 * 4.0 * math.sqrt(math.pi) * sigma_mm**3 / pitch_mm


def spread_by_strip(strips: Strips, sigma_mm: float, ions: float = 1e4) -> FloatArray:
    """How much wider a centroid over each strip spreads because of dead ones, (count,); at least 1, at most 10."""
    if not strips.dead.any():
        return np.ones(strips.count)
    whole = Strips(strips.count, strips.pitch_mm, np.zeros(strips.count, dtype=np.bool_), strips.noise_ions)
    found = [
        resolution_mm(strips, ions, float(x), sigma_mm)[0] / resolution_mm(whole, ions, float(x), sigma_mm)[0]
        for x in strips.centres_mm
    ]
    return np.clip(np.nan_to_num(found, nan=10.0, posinf=10.0), 1.0, 10.0)
