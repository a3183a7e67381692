"""Depth dose of a pencil beam in water, laterally integrated, per ion that crosses the surface.

    D(z) = N(z) (S * G)(R - z) + (F * G)(z)

N: primaries left (frozen table); S: stopping power of the residual range; F: dose of fragments and of what stays at
the reactions (frozen table); G: Gaussian in range, whose variance adds straggling, momentum spread and ripple filter.
The narrow part (primaries, fragments from lithium up, recoils) and the wide part (hydrogen and helium; for protons:
secondary protons) are kept apart, for they spread differently across.

Dose is what the depth dose is in MeV cm2/g: divide by an area, times the number of ions, is MeV/g.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dose.straggling import momentum_sigma_mm, straggling_sigma_mm
from dose.tables import load, species_name
from facility.physics.ranges import MAX_ENERGY_MEV_U, energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import ArrayLike, FloatArray, Ion, IonLike

MOMENTUM_SPREAD = 5e-4
"""One sigma of dp/p of the extracted beam; design value, synchrotron beams have 1e-4 to 1e-3."""
NARROW, WIDE = range(2)
LOWEST_MEV_U, HIGHEST_MEV_U = 10.0, 450.0
_PER_SIGMA = 10
_SIGMAS = 6


@dataclass(frozen=True, eq=False)
class Curve:
    """One depth-dose curve, at depths with an even step; arrays are read-only float64 of shape (n,).

    Attributes:
        range_mm: CSDA range.
        sigma_mm: of the ranges, one sigma.
        depth_mm: from the surface on.
        primary, heavy, light, local: MeV cm2/g.
    """

    range_mm: float
    sigma_mm: float
    depth_mm: FloatArray
    primary: FloatArray
    heavy: FloatArray
    light: FloatArray
    local: FloatArray

    @property
    def total(self) -> FloatArray:
        """All dose, MeV cm2/g."""
        return np.asarray(self.primary + self.heavy + self.light + self.local, dtype=np.float64)

    def parts(self, depth_mm: ArrayLike) -> FloatArray:
        """(2, ...): the narrow and the wide part at these depths; 0 in front of the surface and behind the curve."""
        depth = np.asarray(depth_mm, dtype=np.float64)
        rows = (self.primary + self.heavy + self.local, self.light)
        return np.stack([np.interp(depth, self.depth_mm, row, left=0.0, right=0.0) for row in rows])

    def at(self, depth_mm: ArrayLike) -> FloatArray:
        """All dose at these depths."""
        return np.asarray(self.parts(depth_mm).sum(axis=0), dtype=np.float64)


def range_sigma_mm(energy_mev_u: float, species: IonLike, ripple_sigma_mm: float = 0.0,
                   momentum_spread: float = MOMENTUM_SPREAD) -> float:  # fmt: skip
    """One sigma of the ranges in water, mm: straggling, momentum spread, ripple filter."""
    parts = (
        straggling_sigma_mm(energy_mev_u, species),
        momentum_sigma_mm(energy_mev_u, species, momentum_spread),
        ripple_sigma_mm,
    )
    return float(np.sqrt(sum(part**2 for part in parts)))


def depth_dose(energy_mev_u: float, species: IonLike, ripple_sigma_mm: float = 0.0,
               momentum_spread: float = MOMENTUM_SPREAD) -> Curve:  # fmt: skip
    """The curve of one energy at the water surface.

    Args:
        energy_mev_u: 10 to 450 MeV per nucleon.
        species: carbon or proton.
        ripple_sigma_mm: widening by the ripple filter, one sigma in depth.
        momentum_spread: one sigma of dp/p.

    Raises:
        ValueError: energy out of range, a negative width, or another ion.
        ConfigError: the frozen table is damaged.
    """
    if not LOWEST_MEV_U <= energy_mev_u <= HIGHEST_MEV_U:
        raise ValueError(f"depth dose needs {LOWEST_MEV_U:g} to {HIGHEST_MEV_U:g} MeV/u, got {energy_mev_u}")
    if not (0.0 <= ripple_sigma_mm < 50.0 and 0.0 <= momentum_spread < 0.1):
        raise ValueError(f"no ripple filter of {ripple_sigma_mm} mm or momentum spread of {momentum_spread}")
    species_name(species)
    ion = Ion(species.mass_number, species.charge, species.mass_u)
    return _curve(ion, float(energy_mev_u), float(ripple_sigma_mm), float(momentum_spread))


@lru_cache(maxsize=512)
def _curve(ion: Ion, energy: float, ripple_mm: float, spread: float) -> Curve:
    reach = float(range_water_mm(energy, ion))
    sigma = range_sigma_mm(energy, ion, ripple_mm, spread)
    at, survival, groups = load(species_name(ion)).at(reach)
    step = min(sigma / _PER_SIGMA * 2.0, 0.5)
    depth = np.arange(0.0, float(at[-1]), step)
    left = np.interp(depth, at, survival)
    primary = left * _folded_stopping(ion, reach - depth, sigma, reach)
    heavy, light, local = (_folded(depth, np.interp(depth, at, row), sigma) for row in groups)
    rows = (depth, primary, heavy, light, local)
    for row in rows:
        row.flags.writeable = False
    return Curve(reach, sigma, *rows)


def _kernel(sigma: float, step: float) -> FloatArray:
    half = int(np.ceil(_SIGMAS * sigma / step))
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) * step / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _folded_stopping(ion: Ion, residual: FloatArray, sigma: float, reach: float) -> FloatArray:
    """Stopping power in MeV cm2/g at residual ranges, folded with the Gaussian.

    That of a bin is the difference of the energy over it, so that its steep end is integrated exactly.
    """
    step = sigma / _PER_SIGMA
    top = min(reach + 2 * _SIGMAS * sigma, float(range_water_mm(MAX_ENERGY_MEV_U, ion)) - step)
    edges = np.arange(-2 * _SIGMAS * sigma, top, step)
    total = np.zeros_like(edges)
    inside = edges > 0.0
    total[inside] = ion.mass_number * energy_for_range_mev_u(edges[inside], ion)
    kernel = _kernel(sigma, step)
    half = kernel.size // 2
    stopping = np.convolve(np.diff(total) / step * 10.0, kernel, mode="valid")
    centres = 0.5 * (edges[1:] + edges[:-1])[half : edges.size - 1 - half]
    return np.asarray(np.interp(residual, centres, stopping, left=0.0), dtype=np.float64)


def _folded(depth: FloatArray, row: FloatArray, sigma: float) -> FloatArray:
    """A row folded with the Gaussian; in front of the surface it goes on as its mirror image."""
    kernel = _kernel(sigma, float(depth[1] - depth[0]))
    half = kernel.size // 2
    around = np.concatenate((2.0 * row[0] - row[half:0:-1], row, np.full(half, row[-1])))
    return np.asarray(np.convolve(around, kernel, mode="valid"), dtype=np.float64)
