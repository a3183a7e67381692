"""Depth dose of a pencil beam in water, laterally integrated, per ion that crosses the surface.

First order, meant for making and judging plans of this simulated facility, not for patients:

- Primaries: stopping power of the residual range, folded with a Gaussian in range. Its variance adds range
  straggling, 0.012 R^0.935 cm / sqrt(A) (T. Bortfeld, Med. Phys. 24 (1997) 2024, proton law; mass scaling
  of D. Schardt et al., Rev. Mod. Phys. 82 (2010) 383), the ring's momentum spread and the ripple filter.
- Protons lose 1.2 % of their fluence per cm, 60 % of the lost energy stays where it was lost (Bortfeld 1997).
- Carbon is attenuated with 25.5 cm (about 30 % lost at the peak for 200 MeV/u, 70 % for 400 MeV/u, as
  measured by E. Haettner et al., Radiat. Prot. Dosim. 122 (2006) 485). The lost ions go on as two groups of
  fragments with the velocity of their parent: heavy ones (boron, beryllium: range about 1.3 times the
  parent's) and light ones (helium, hydrogen: three times). Their charge-squared yields are design values
  that put the dose behind the peak at 10 to 20 % of the peak for mid ranges, as published curves have it.

Dose is what the depth dose is in MeV cm2/g: divide by an area, times the number of ions, is MeV/g.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from facility.physics.ranges import MAX_ENERGY_MEV_U, energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import ArrayLike, FloatArray, Ion, IonLike, gamma

MOMENTUM_SPREAD = 5e-4
"""One sigma of dp/p of the extracted beam; design value, synchrotron beams have 1e-4 to 1e-3."""
CARBON_ATTENUATION_MM = 255.0
PROTON_LOSS_PER_MM = 0.0012
PROTON_LOCAL_SHARE = 0.6


@dataclass(frozen=True)
class FragmentGroup:
    """Fragments of one lost carbon ion: sum of Z^2, range over the parent's, attenuation length."""

    z_squared: float
    range_ratio: float
    attenuation_mm: float


FRAGMENTS = (
    FragmentGroup(z_squared=12.0, range_ratio=1.3, attenuation_mm=300.0),
    FragmentGroup(z_squared=6.5, range_ratio=3.0, attenuation_mm=450.0),
)


def range_sigma_mm(energy_mev_u: float, species: IonLike, ripple_sigma_mm: float = 0.0) -> float:
    """One sigma of the distribution of ranges in water, mm: straggling, momentum spread, ripple filter."""
    reach = float(range_water_mm(energy_mev_u, species))
    straggling = 10.0 * 0.012 * (reach / 10.0) ** 0.935 / float(np.sqrt(species.mass_number))
    g = float(gamma(energy_mev_u, species))
    from_momentum = 1.77 * (g + 1.0) / g * MOMENTUM_SPREAD * reach
    return float(np.sqrt(straggling**2 + from_momentum**2 + ripple_sigma_mm**2))


@lru_cache(maxsize=2048)
def _smoothed(ion: Ion, energy_mev_u: float, sigma: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(residual range mm, stopping MeV cm2/g, residual energy MeV), the last two folded with the Gaussian.

    The stopping power of a bin is the difference of the residual energy over it, so that its steep end is
    integrated exactly and no energy is lost.
    """
    reach = float(range_water_mm(energy_mev_u, ion))
    step = sigma / 10.0
    half = 60  # 6 sigma
    top = min(reach + 12.0 * sigma, float(range_water_mm(MAX_ENERGY_MEV_U, ion)) - step)
    edges = np.arange(-12.0 * sigma, top, step)
    total = np.zeros_like(edges)
    inside = edges > 0.0
    total[inside] = ion.mass_number * energy_for_range_mev_u(edges[inside], ion)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / 10.0) ** 2)
    kernel /= kernel.sum()
    stopping = np.convolve(np.diff(total) / step * 10.0, kernel, mode="valid")  # MeV/mm -> MeV/cm at 1 g/cm3
    centres = 0.5 * (edges[1:] + edges[:-1])[half:-half]
    energy = np.convolve(0.5 * (total[1:] + total[:-1]), kernel, mode="valid")
    for array in (centres, stopping, energy):
        array.flags.writeable = False
    return centres, stopping, energy


def _fragments(depth: FloatArray, reach: float, centres: FloatArray, stopping: FloatArray) -> FloatArray:
    """Dose of the fragments of carbon at these depths (1-d), MeV cm2/g per primary."""
    births = 160
    edges = np.linspace(0.0, reach, births + 1)
    mid = 0.5 * (edges[1:] + edges[:-1])
    born = np.exp(-edges[:-1] / CARBON_ATTENUATION_MM) - np.exp(-edges[1:] / CARBON_ATTENUATION_MM)
    step = edges[1] - edges[0]
    flown = depth[:, None] - mid[None, :]
    passed = np.clip(flown / step + 0.5, 0.0, 1.0)  # share of the birth bin upstream of this depth
    flown = np.maximum(flown, 0.0)
    dose = np.zeros_like(depth)
    for group in FRAGMENTS:
        remaining = (reach - mid)[None, :] - flown / group.range_ratio  # in carbon range at equal velocity
        rate = np.interp(remaining, centres, stopping, left=0.0)
        alive = np.exp(-flown / group.attenuation_mm)
        dose += (group.z_squared / 36.0) * np.sum(born[None, :] * passed * alive * rate, axis=1)
    return dose


def depth_dose_mev_cm2_g(
    energy_mev_u: float, depth_mm: ArrayLike, species: IonLike, ripple_sigma_mm: float = 0.0
) -> FloatArray:
    """Laterally integrated dose per ion over depth in water, MeV cm2/g, same shape as `depth_mm`.

    Args:
        energy_mev_u: energy at the water surface, MeV per nucleon, at most 450.
        depth_mm: depths in water of 1 g/cm3, mm; negative depths (upstream of the surface) give 0.
        species: carbon or proton.
        ripple_sigma_mm: widening by the ripple filter, one sigma in depth.

    Raises:
        ValueError: the energy is out of range or the species is neither proton nor carbon.
    """
    if not 10.0 <= energy_mev_u <= 450.0:
        raise ValueError(f"depth dose needs 10 to 450 MeV/u, got {energy_mev_u}")
    if (species.mass_number, species.charge) not in ((1, 1), (12, 6)):
        raise ValueError("depth dose is made for protons and carbon ions")
    depth = np.asarray(depth_mm, dtype=np.float64)
    flat = depth.ravel()
    reach = float(range_water_mm(energy_mev_u, species))
    sigma = range_sigma_mm(energy_mev_u, species, ripple_sigma_mm)
    ion = Ion(species.mass_number, species.charge, species.mass_u)
    centres, stopping, energy = _smoothed(ion, float(energy_mev_u), sigma)
    residual = reach - flat
    primary = np.interp(residual, centres, stopping, left=0.0)
    if ion.mass_number == 1:
        scale = 1.0 / (1.0 + PROTON_LOSS_PER_MM * reach)
        fluence = scale * (1.0 + PROTON_LOSS_PER_MM * np.maximum(residual, 0.0))
        lost = PROTON_LOSS_PER_MM * 10.0 * scale * np.interp(residual, centres, energy, left=0.0)
        dose = fluence * primary + PROTON_LOCAL_SHARE * lost
    else:
        dose = np.exp(-flat / CARBON_ATTENUATION_MM) * primary + _fragments(flat, reach, centres, stopping)
    return np.asarray(np.where(flat < 0.0, 0.0, dose).reshape(depth.shape), dtype=np.float64)
