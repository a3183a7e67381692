"""Spread of ranges and of angles of a beam in water.

- Range straggling: Bohr's variance of the energy loss, d(sigma_E^2)/dx = K z^2 (Z/A) m c^2 gamma^2 (1 - beta^2/2),
  carried to a variance of range by Tschalaer's theory, sigma_R^2 = integral of it over dT / S^3.
- Momentum spread: dR / R per dp / p from the range table.
- Angles: scattering power of B. Gottschalk, Med. Phys. 37 (2010) 352 (differential Moliere),

      T = f (15.0 MeV / p v)^2 / X_S,   f = 0.5244 + 0.1975 lg(1 - (pv / p1v1)^2) + 0.2320 lg(pv / MeV)
                                            - 0.0098 lg(pv / MeV) lg(1 - (pv / p1v1)^2),

  with X_S = 46.88 cm for water and pv of an ion divided by its charge; the variance across at depth z is the integral
  of (z - u)^2 T(u) du.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from facility.constants import BETHE_K_MEV_CM2_MOL, ELECTRON_MASS_MEV
from facility.physics.ranges import MAX_ENERGY_MEV_U, energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import ArrayLike, FloatArray, Ion, IonLike, beta, gamma, momentum_mev_c
from facility.physics.stopping import MIN_ENERGY_MEV_U, WATER, stopping_power_mev_cm2_g

SCATTERING_LENGTH_MM = 468.8
_SCATTER_MEV = 15.0


@lru_cache(maxsize=8)
def _straggling_table(ion: Ion) -> tuple[FloatArray, FloatArray]:
    """Energies (MeV/u) and the variance of their ranges, mm2."""
    energy = np.exp(np.linspace(np.log(MIN_ENERGY_MEV_U), np.log(MAX_ENERGY_MEV_U), 2000))
    b2, g2 = beta(energy, ion) ** 2, gamma(energy, ion) ** 2
    charge = ion.charge * (1.0 - np.exp(-125.0 * np.sqrt(b2) * ion.charge ** (-2.0 / 3.0)))
    bohr = BETHE_K_MEV_CM2_MOL * charge**2 * WATER.z_over_a * ELECTRON_MASS_MEV * g2 * (1.0 - 0.5 * b2)
    slope = ion.mass_number * bohr / stopping_power_mev_cm2_g(energy, ion) ** 3  # g2/cm4 per MeV/u
    pieces = 0.5 * (slope[1:] + slope[:-1]) * np.diff(energy)
    return energy, 100.0 * np.concatenate(([0.0], np.cumsum(pieces)))


def straggling_sigma_mm(energy_mev_u: float, species: IonLike) -> float:
    """One sigma of the range of a monoenergetic beam in water, mm."""
    ion = Ion(species.mass_number, species.charge, species.mass_u)
    energy, variance = _straggling_table(ion)
    return float(np.sqrt(np.interp(energy_mev_u, energy, variance)))


def momentum_sigma_mm(energy_mev_u: float, species: IonLike, spread: float) -> float:
    """One sigma of the range by a relative momentum spread (one sigma), mm."""
    ends = np.array([0.999, 1.001]) * energy_mev_u
    reach, momentum = range_water_mm(ends, species), momentum_mev_c(ends, species)
    return float((reach[1] - reach[0]) / (momentum[1] - momentum[0]) * momentum.mean() * spread)


def scattering_power(energy_mev_u: ArrayLike, start_mev_u: float, species: IonLike) -> FloatArray:
    """rad^2 per mm of water at this energy of a beam that has entered with `start_mev_u`."""
    energy = np.asarray(energy_mev_u, dtype=np.float64)
    here = momentum_mev_c(energy, species) * beta(energy, species) / species.charge
    start = float(momentum_mev_c(start_mev_u, species) * beta(start_mev_u, species)) / species.charge
    lost = np.log10(np.maximum(1.0 - np.minimum(here / start, 1.0) ** 2, 1e-3))
    size = np.log10(here)
    factor = 0.5244 + 0.1975 * lost + 0.2320 * size - 0.0098 * size * lost
    return np.asarray(np.maximum(factor, 0.0) * (_SCATTER_MEV / here) ** 2 / SCATTERING_LENGTH_MM, dtype=np.float64)


@lru_cache(maxsize=512)
def scattering_moments(energy_mev_u: float, ion: Ion) -> tuple[FloatArray, FloatArray]:
    """(depth mm, moments (3, n)): integrals from the surface to the depth of T, T u, T u^2 du."""
    reach = float(range_water_mm(energy_mev_u, ion))
    depth = np.linspace(0.0, 0.999 * reach, 400)
    power = scattering_power(energy_for_range_mev_u(reach - depth, ion), energy_mev_u, ion)
    rows = np.stack([power, power * depth, power * depth**2])
    pieces = 0.5 * (rows[:, 1:] + rows[:, :-1]) * np.diff(depth)
    return depth, np.concatenate((np.zeros((3, 1)), np.cumsum(pieces, axis=1)), axis=1)


def scattering_sigma_mm(energy_mev_u: float, depth_mm: ArrayLike, species: IonLike, drift_mm: float = 0.0,
                        drift_from_mm: float = 0.0) -> FloatArray:  # fmt: skip
    """One sigma across in water by scattering in it, mm; constant behind the range.

    Args:
        depth_mm: depth from where the beam enters (range shifter included).
        drift_mm: air between the range shifter and what follows.
        drift_from_mm: how deep the water in front of that air is.
    """
    ion = Ion(species.mass_number, species.charge, species.mass_u)
    at, moments = scattering_moments(float(energy_mev_u), ion)
    depth = np.clip(np.asarray(depth_mm, dtype=np.float64), 0.0, at[-1])
    m0, m1, m2 = (np.interp(depth, at, row) for row in moments)
    variance = depth**2 * m0 - 2.0 * depth * m1 + m2
    if drift_mm > 0.0 and drift_from_mm > 0.0:  # what was scattered in front of the gap flies farther
        cut = np.minimum(depth, drift_from_mm)
        c0, c1 = (np.interp(cut, at, row) for row in moments[:2])
        gap = np.where(depth >= drift_from_mm, drift_mm, 0.0)
        variance = variance + gap**2 * c0 + 2.0 * gap * (depth * c0 - c1)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)
