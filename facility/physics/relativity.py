"""Kinematics of an ion in the ring. Energies are kinetic, in MeV per nucleon (T = A x energy).

Every function takes a scalar or an array and returns float64 of the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from facility.constants import ATOMIC_MASS_MEV, SPEED_OF_LIGHT_M_S

FloatArray = npt.NDArray[np.float64]
ArrayLike = npt.ArrayLike


class IonLike(Protocol):
    """What the physics needs to know of a species; the configuration's `Species` fits."""

    @property
    def mass_number(self) -> int: ...
    @property
    def charge(self) -> int: ...
    @property
    def mass_u(self) -> float: ...


@dataclass(frozen=True)
class Ion:
    """A bare ion: mass number, charge in e, mass in u without electrons."""

    mass_number: int
    charge: int
    mass_u: float


CARBON = Ion(mass_number=12, charge=6, mass_u=11.996_709_6)
"""12 u less six electrons, plus their binding energy (1.03 keV, NIST)."""
PROTON = Ion(mass_number=1, charge=1, mass_u=1.007_276_466_621)
"""CODATA 2018."""


def rest_energy_mev(species: IonLike) -> float:
    """Rest energy of the whole ion, MeV."""
    return species.mass_u * ATOMIC_MASS_MEV


def gamma(energy_mev_u: ArrayLike, species: IonLike) -> FloatArray:
    """Lorentz factor, 1 + T / Mc^2."""
    energy = np.asarray(energy_mev_u, dtype=np.float64)
    return np.asarray(1.0 + energy * (species.mass_number / rest_energy_mev(species)), dtype=np.float64)


def beta(energy_mev_u: ArrayLike, species: IonLike) -> FloatArray:
    """Velocity over the speed of light."""
    g = gamma(energy_mev_u, species)
    return np.asarray(np.sqrt((g - 1.0) * (g + 1.0)) / g, dtype=np.float64)


def momentum_mev_c(energy_mev_u: ArrayLike, species: IonLike) -> FloatArray:
    """Momentum of the whole ion, MeV/c."""
    kinetic = np.asarray(energy_mev_u, dtype=np.float64) * species.mass_number
    return np.asarray(np.sqrt(kinetic * (kinetic + 2.0 * rest_energy_mev(species))), dtype=np.float64)


def rigidity_tm(energy_mev_u: ArrayLike, species: IonLike) -> FloatArray:
    """Magnetic rigidity p/q in tesla metres."""
    return np.asarray(
        momentum_mev_c(energy_mev_u, species) * 1e6 / (SPEED_OF_LIGHT_M_S * species.charge),
        dtype=np.float64,
    )


def energy_for_rigidity_mev_u(rigidity: ArrayLike, species: IonLike) -> FloatArray:
    """Inverse of `rigidity_tm`, MeV per nucleon."""
    momentum = np.asarray(rigidity, dtype=np.float64) * (SPEED_OF_LIGHT_M_S * species.charge * 1e-6)
    rest = rest_energy_mev(species)
    kinetic = momentum**2 / (np.sqrt(momentum**2 + rest**2) + rest)
    return np.asarray(kinetic / species.mass_number, dtype=np.float64)


def revolution_frequency_hz(energy_mev_u: ArrayLike, species: IonLike, circumference_m: float) -> FloatArray:
    """Turns per second in a ring of this circumference."""
    return np.asarray(beta(energy_mev_u, species) * (SPEED_OF_LIGHT_M_S / circumference_m), dtype=np.float64)
