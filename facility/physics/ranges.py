"""Ranges in water (CSDA) from the stopping power, and their inverse, through one fine table.

The integral starts at 1 MeV/u (about 0.02 mm of water for carbon, 0.025 mm for a proton), with the
start value of the power law R = T / (p S), p = 1.77 (Bragg and Kleeman; W. H. Bragg, R. Kleeman,
Phil. Mag. 10 (1905) 318, exponent for water from T. Bortfeld, Med. Phys. 24 (1997) 2024).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from facility.physics.relativity import ArrayLike, FloatArray, IonLike
from facility.physics.stopping import MIN_ENERGY_MEV_U, WATER, Material, stopping_power_mev_cm2_g

MAX_ENERGY_MEV_U = 500.0
_POWER = 1.77
_POINTS = 4001


@lru_cache(maxsize=8)
def _table(mass_number: int, charge: int, mass_u: float, material: Material) -> tuple[FloatArray, FloatArray]:
    """(log energy, log range in g/cm2), equidistant in log energy; Simpson's rule on the half steps."""
    from facility.physics.relativity import Ion

    ion = Ion(mass_number, charge, mass_u)
    log_e = np.linspace(np.log(MIN_ENERGY_MEV_U), np.log(MAX_ENERGY_MEV_U), 2 * _POINTS - 1)
    energy = np.exp(log_e)
    integrand = mass_number * energy / stopping_power_mev_cm2_g(energy, ion, material)  # dR / d(log E)
    step = log_e[1] - log_e[0]
    pieces = (integrand[:-2:2] + 4.0 * integrand[1:-1:2] + integrand[2::2]) * (step / 3.0)
    start = integrand[0] / _POWER
    ranges = start + np.concatenate(([0.0], np.cumsum(pieces)))
    return log_e[::2].copy(), np.log(ranges)


def _lookup(x: ArrayLike, xs: FloatArray, ys: FloatArray) -> FloatArray:
    """Piecewise cubic (Hermite, slopes from central differences) interpolation of ys(xs)."""
    q = np.asarray(x, dtype=np.float64)
    k = np.clip(np.searchsorted(xs, q) - 1, 0, xs.size - 2)
    slopes = np.gradient(ys, xs)
    h = xs[k + 1] - xs[k]
    t = (q - xs[k]) / h
    t2, t3 = t * t, t * t * t
    return np.asarray(
        (2 * t3 - 3 * t2 + 1) * ys[k]
        + (t3 - 2 * t2 + t) * h * slopes[k]
        + (3 * t2 - 2 * t3) * ys[k + 1]
        + (t3 - t2) * h * slopes[k + 1],
        dtype=np.float64,
    )


def range_water_mm(energy_mev_u: ArrayLike, species: IonLike) -> FloatArray:
    """CSDA range in water of density 1 g/cm3, mm, same shape as the energy.

    Below 1 MeV/u the range goes with energy^1.77; above 500 MeV/u: ValueError.
    """
    energy = np.asarray(energy_mev_u, dtype=np.float64)
    if np.any(~np.isfinite(energy)) or np.any(energy <= 0.0) or np.any(energy > MAX_ENERGY_MEV_U):
        raise ValueError(f"energy must lie in (0, {MAX_ENERGY_MEV_U}] MeV/u")  # a caller's defect, not a user's
    log_e, log_r = _table(species.mass_number, species.charge, species.mass_u, WATER)
    log_q = np.log(energy)
    inside = _lookup(np.maximum(log_q, log_e[0]), log_e, log_r)
    return np.asarray(10.0 * np.exp(inside + _POWER * np.minimum(log_q - log_e[0], 0.0)), dtype=np.float64)


def energy_for_range_mev_u(range_mm: ArrayLike, species: IonLike) -> FloatArray:
    """Energy whose CSDA range in water is `range_mm`; inverse of `range_water_mm`, to 1e-9 relative."""
    r = np.asarray(range_mm, dtype=np.float64)
    log_e, log_r = _table(species.mass_number, species.charge, species.mass_u, WATER)
    top = 10.0 * float(np.exp(log_r[-1]))
    if np.any(~np.isfinite(r)) or np.any(r <= 0.0) or np.any(r > top):
        raise ValueError(f"range must lie in (0, {top:.1f}] mm")
    log_q = np.log(r / 10.0)
    guess = _lookup(np.maximum(log_q, log_r[0]), log_r, log_e) + np.minimum(log_q - log_r[0], 0.0) / _POWER
    energy = np.exp(np.minimum(guess, np.log(MAX_ENERGY_MEV_U)))
    for _ in range(2):  # Newton on the table itself, dR/dE = A / S
        slope = 10.0 * species.mass_number / stopping_power_mev_cm2_g(energy, species)
        error = np.where(energy > MIN_ENERGY_MEV_U, range_water_mm(energy, species) - r, 0.0)
        energy = np.minimum(energy - error / slope, MAX_ENERGY_MEV_U)
    return np.asarray(energy, dtype=np.float64)
