"""Stopping power of matter for carbon ions and protons: Bethe theory, nothing fitted to range data.

    S = K z^2 (Z/A) / beta^2 [ ln(2 m c^2 beta^2 gamma^2 / I) - beta^2 - C/Z - delta/2 + z L1 + L2 ]

- I = 78 eV for liquid water (ICRU Report 90, 2016), 85.7 eV dry air, 82 eV nitrogen (ICRU 90, ICRU 37).
- C/Z: Barkas and Berger shell correction (NASA SP-3013, 1964, in the form of Leo, Techniques for Nuclear
  and Particle Physics Experiments, 1994, eq. 2.32), element by element with electron weights.
- delta: Sternheimer, Berger and Seltzer 1984; zero for water below beta gamma = 1.74 (690 MeV/u), and
  gases stay below their threshold too, so it vanishes over the whole therapy range.
- L1: Barkas correction, Lindhard's free-electron form 3 pi alpha I / (2 m c^2 beta^3) x
  ln(2 m c^2 beta^2 / I) (J. Lindhard, Nucl. Instrum. Methods 132 (1976) 1), electron weights as above.
- L2: Lindhard and Sorensen 1996 (contains Bloch and Mott), see `lindhard_sorensen`.
- Below about 10 MeV/u the ion carries electrons: effective charge z (1 - exp(-125 beta z^(-2/3)))
  (W. H. Barkas, Nuclear Research Emulsions, 1963).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facility.constants import BETHE_K_MEV_CM2_MOL, ELECTRON_MASS_MEV, FINE_STRUCTURE
from facility.physics.lindhard_sorensen import correction
from facility.physics.relativity import ArrayLike, FloatArray, IonLike, beta, gamma

MIN_ENERGY_MEV_U = 1.0
"""Lowest energy the formula is used at."""


@dataclass(frozen=True)
class Material:
    """A stopping material.

    Attributes:
        z_over_a: electrons per gram in mol/g.
        mean_excitation_ev: I value of the material.
        shells: (share of the electrons, Z, I in eV) of each element, for the shell correction.
    """

    name: str
    z_over_a: float
    mean_excitation_ev: float
    shells: tuple[tuple[float, int, float], ...]


WATER = Material("water", 10.0 / 18.0153, 78.0, ((0.2, 1, 19.2), (0.8, 8, 95.0)))
AIR = Material("air", 0.49919, 85.7, ((0.76, 7, 82.0), (0.23, 8, 95.0), (0.01, 18, 188.0)))
NITROGEN = Material("N2", 0.49976, 82.0, ((1.0, 7, 82.0),))


def _shell(material: Material, eta2: FloatArray) -> FloatArray:
    total = np.zeros_like(eta2)
    inverse = 1.0 / eta2
    for share, z, i_ev in material.shells:
        a = (0.422377 + (0.0304043 - 0.00038106 * inverse) * inverse) * inverse
        b = (3.850190 + (-0.1667989 + 0.00157955 * inverse) * inverse) * inverse
        total += share / z * (a * 1e-6 * i_ev**2 + b * 1e-9 * i_ev**3)
    return total


def stopping_power_mev_cm2_g(energy_mev_u: ArrayLike, species: IonLike, material: Material = WATER) -> FloatArray:
    """Electronic mass stopping power of one ion, MeV cm2/g, same shape as the energy.

    Used from `MIN_ENERGY_MEV_U` up; lower energies get the value at that energy.
    """
    energy = np.maximum(np.asarray(energy_mev_u, dtype=np.float64), MIN_ENERGY_MEV_U)
    b = beta(energy, species)
    g = gamma(energy, species)
    b2 = b * b
    z = species.charge * (1.0 - np.exp(-125.0 * b * species.charge ** (-2.0 / 3.0)))
    i_mev = material.mean_excitation_ev * 1e-6
    two_mc2 = 2.0 * ELECTRON_MASS_MEV
    # the shell formula holds from beta gamma = 0.13 (8 MeV/u); below, its last value is kept
    shell = _shell(material, np.maximum(b2 * g * g, 0.13**2))
    barkas = (
        1.5
        * np.pi
        * FINE_STRUCTURE
        * i_mev
        / (ELECTRON_MASS_MEV * b2 * b)
        * np.maximum(np.log(two_mc2 * b2 / i_mev), 0.0)
    )
    relativistic = correction(species.charge, b)
    number = np.log(two_mc2 * b2 * g * g / i_mev) - b2 - shell + z * barkas + relativistic
    return np.asarray(BETHE_K_MEV_CM2_MOL * z * z * material.z_over_a / b2 * number, dtype=np.float64)
