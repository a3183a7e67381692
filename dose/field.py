"""Dose in water of a field: pencil beams on a grid.

Each spot is a pencil with a narrow and a wide Gaussian (`dose.curves`). One sigma of the narrow one adds the spot in
air at the isocentre and scattering in what the beam has passed; the wide one adds the angles of fragments:

- carbon: 60 MeV/c across per nucleon (Goldhaber's width of helium is 38, of protons 90 MeV/c), over the momentum per
  nucleon, from births that are even along the way;
- protons: secondaries with 0.5 rad that live for 0.3 of the range (struck protons of a flat spectrum).

Spots run parallel to the depth; the isocentre lies at the surface as far as spot sizes go. Water is homogeneous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dose.curves import MOMENTUM_SPREAD, depth_dose
from dose.kernel import add_pencils
from dose.straggling import scattering_sigma_mm
from facility.constants import MEV_PER_G_TO_GY
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import FloatArray, IonLike, momentum_mev_c

REACH_SIGMAS = 5.0
FRAGMENT_MEV_C = 60.0
SECONDARY_RAD = 0.5
SECONDARY_SHARE = 0.3
MM2_PER_CM2 = 100.0
_RASTER_MM = 2.0


@dataclass(frozen=True, eq=False)
class FieldLayer:
    """Spots of one energy: arrays of shape (n,).

    Attributes:
        energy_mev_u: of the ring.
        spot_sigma_mm: of the beam in air at the isocentre.
        before_mm: water equivalent of what stands in the beam and whose scattering the spot's size holds (chambers).
        shifter_mm: water equivalent of the range shifter.
        gap_mm: air between range shifter and water.
    """

    energy_mev_u: float
    spot_sigma_mm: float
    x_mm: FloatArray
    y_mm: FloatArray
    ions: FloatArray
    before_mm: float = 0.0
    shifter_mm: float = 0.0
    gap_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Field:
    """All layers of one species from one side."""

    species: IonLike
    layers: Sequence[FieldLayer]
    ripple_sigma_mm: float = 0.0
    momentum_spread: float = MOMENTUM_SPREAD


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in mm: across at the isocentre (x, y), depth in water; each with an even step."""

    x_mm: FloatArray
    y_mm: FloatArray
    depth_mm: FloatArray

    @classmethod
    def around(cls, field: Field, step_mm: float, margin_mm: float = 12.0, behind_mm: float = 30.0) -> Grid:
        """A grid that holds all spots with a margin, from the surface to behind the deepest range."""
        x = np.concatenate([layer.x_mm for layer in field.layers])
        y = np.concatenate([layer.y_mm for layer in field.layers])
        deepest = max(float(range_water_mm(one.energy_mev_u, field.species)) - one.before_mm - one.shifter_mm
                      for one in field.layers)  # fmt: skip
        return cls(_axis(x, margin_mm, step_mm), _axis(y, margin_mm, step_mm),
                   np.arange(0.0, max(deepest, 0.0) + behind_mm + step_mm, step_mm))  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        """(depths, y, x)."""
        return self.depth_mm.size, self.y_mm.size, self.x_mm.size


def _axis(at: FloatArray, margin: float, step: float) -> FloatArray:
    low, high = np.floor((at.min() - margin) / step), np.ceil((at.max() + margin) / step)
    return np.arange(low, high + 1.0) * step


def narrow_sigma_mm(layer: FieldLayer, depth_mm: FloatArray, species: IonLike) -> FloatArray:
    """One sigma of a pencil of this layer at depths in water."""
    reach = float(range_water_mm(layer.energy_mev_u, species)) - layer.before_mm
    energy = float(energy_for_range_mev_u(max(reach, 0.1), species))
    scattered = scattering_sigma_mm(energy, depth_mm + layer.shifter_mm, species, layer.gap_mm, layer.shifter_mm)
    return np.asarray(np.hypot(layer.spot_sigma_mm, scattered), dtype=np.float64)


def wide_sigma_mm(layer: FieldLayer, depth_mm: FloatArray, species: IonLike) -> FloatArray:
    """One sigma of the wide part at depths in water."""
    passed = np.maximum(depth_mm, 0.0) + layer.shifter_mm
    reach = float(range_water_mm(layer.energy_mev_u, species)) - layer.before_mm
    if species.mass_number == 1:
        extra = SECONDARY_RAD * np.minimum(passed, SECONDARY_SHARE * reach) / np.sqrt(3.0)
    else:
        angle = FRAGMENT_MEV_C / (float(momentum_mev_c(layer.energy_mev_u, species)) / species.mass_number)
        born = np.maximum(np.minimum(passed, reach), 1e-6)
        extra = angle * np.sqrt((passed**3 - (passed - born) ** 3) / (3.0 * born))
    return np.asarray(np.hypot(narrow_sigma_mm(layer, depth_mm, species), extra), dtype=np.float64)


def dose_on_grid(field: Field, grid: Grid) -> FloatArray:
    """Absorbed dose in Gy, (depths, ny, nx).

    Raises:
        ValueError: an energy or species without depth-dose curves.
    """
    dose = np.zeros(grid.shape)
    row = np.zeros(grid.x_mm.size)
    for layer in field.layers:
        curve = depth_dose(layer.energy_mev_u, field.species, field.ripple_sigma_mm, field.momentum_spread)
        parts = curve.parts(grid.depth_mm + (layer.before_mm + layer.shifter_mm)) * (MM2_PER_CM2 * MEV_PER_G_TO_GY)
        parts[:, grid.depth_mm < 0.0] = 0.0
        x, y, ions = (np.ascontiguousarray(a, dtype=np.float64) for a in (layer.x_mm, layer.y_mm, layer.ions))
        sigma = narrow_sigma_mm(layer, grid.depth_mm, field.species)
        add_pencils(dose, grid.x_mm, grid.y_mm, x, y, ions, sigma, parts[0], REACH_SIGMAS, row)
        _add_wide(dose, grid, (x, y, ions), wide_sigma_mm(layer, grid.depth_mm, field.species), parts[1])
    return dose


def _add_wide(
    dose: FloatArray,
    grid: Grid,
    spots: tuple[FloatArray, FloatArray, FloatArray],
    sigma: FloatArray,
    amount: FloatArray,
) -> None:
    """Add the wide part: spots gathered on a raster of 2 mm, then one product of matrices at each depth."""
    x, y, ions = spots
    raster_x, raster_y = _axis(x, _RASTER_MM, _RASTER_MM), _axis(y, _RASTER_MM, _RASTER_MM)
    gathered = np.zeros((raster_y.size, raster_x.size))
    at_x, at_y = (x - raster_x[0]) / _RASTER_MM, (y - raster_y[0]) / _RASTER_MM
    i, j = np.floor(at_x).astype(np.int64), np.floor(at_y).astype(np.int64)
    u, v = at_x - i, at_y - j
    for dj, wy in ((0, 1.0 - v), (1, v)):
        for di, wx in ((0, 1.0 - u), (1, u)):
            np.add.at(gathered, (j + dj, i + di), ions * wx * wy)
    for k in np.flatnonzero(amount > 0.0):
        along_x = _gauss(grid.x_mm, raster_x, float(sigma[k]))
        along_y = _gauss(grid.y_mm, raster_y, float(sigma[k]))
        dose[k] += amount[k] * (along_y @ gathered @ along_x.T)


def _gauss(at: FloatArray, centres: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(
        np.exp(-0.5 * ((at[:, None] - centres[None, :]) / sigma) ** 2) / (np.sqrt(2.0 * np.pi) * sigma),
        dtype=np.float64,
    )
