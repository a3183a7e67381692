"""Beam at the isocentre: spot size, and deflection by a scanning dipole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from facility.physics.relativity import ArrayLike, FloatArray


class HasSpotSigma(Protocol):
    """A species with its table of spot sizes."""

    @property
    def spot_sigma(self) -> Sequence[tuple[float, float]]: ...


def spot_sigma_mm(energy_mev_u: ArrayLike, species: HasSpotSigma) -> FloatArray:
    """One sigma of the spot at the isocentre in air, mm; linear between the species' table rows.

    Same shape as the energy; constant beyond the ends of the table.
    """
    table = np.asarray(species.spot_sigma, dtype=np.float64)
    energy = np.asarray(energy_mev_u, dtype=np.float64)
    return np.asarray(np.interp(energy, table[:, 0], table[:, 1]), dtype=np.float64)


def deflection_mm(field_integral_tm: ArrayLike, rigidity: ArrayLike, source_axis_mm: float) -> FloatArray:
    """Displacement at the isocentre plane by a thin dipole: distance x (integral of B dl) / (B rho), mm.

    First order in the angle; at 100 mm over 6.5 m the tangent differs by 0.008 mm.
    """
    integral = np.asarray(field_integral_tm, dtype=np.float64)
    return np.asarray(source_axis_mm * integral / np.asarray(rigidity, dtype=np.float64), dtype=np.float64)


def field_integral_tm(displacement_mm: ArrayLike, rigidity: ArrayLike, source_axis_mm: float) -> FloatArray:
    """Field integral for a displacement at the isocentre plane, T m; inverse of `deflection_mm`."""
    displacement = np.asarray(displacement_mm, dtype=np.float64)
    return np.asarray(displacement * np.asarray(rigidity, dtype=np.float64) / source_axis_mm, dtype=np.float64)
