"""Dose of a carbon field on its axis from matRad's data alone: their depth doses, their widths, a plain sum over spots.

Nothing of `dose` but the readers is used. Two figures of the beam line behind their data are not told with them: the
water that it holds, and the width of ranges that it adds. `beam_line` finds both at one energy, from where their peak
lies and how steeply it falls; they are used at all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dose.curves import depth_dose
from dose.features import peak_of
from dose.field import Field
from dose.reference import ReferenceCurve, matrad_curves
from facility.constants import MEV_PER_G_TO_GY
from facility.physics import CARBON, range_water_mm
from facility.physics.relativity import FloatArray

TABLES = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "tables"
CALIBRATED_AT_MEV_U = 252.84
_FINE = np.arange(-10.0, 420.0, 0.1)


@dataclass(frozen=True)
class BeamLine:
    """Water equivalent in front of matRad's water (mm), and one sigma of the ranges that the line adds (mm)."""

    before_mm: float
    sigma_mm: float


@lru_cache(maxsize=1)
def curves() -> tuple[ReferenceCurve, ...]:
    """matRad's curves by rising energy."""
    return tuple(matrad_curves(TABLES))


def nearest(energy_mev_u: float) -> ReferenceCurve:
    """The curve whose energy is nearest."""
    return min(curves(), key=lambda one: abs(one.energy_mev_u - energy_mev_u))


@lru_cache(maxsize=1)
def beam_line() -> BeamLine:
    """Both figures, from the peak and the distal fall of one curve."""
    reference = nearest(CALIBRATED_AT_MEV_U)
    depth = np.arange(0.0, float(reference.depth_mm[-1]), 0.05)
    theirs = peak_of(depth, reference.at(depth))
    low, high = 0.1, 3.0
    for _ in range(25):
        sigma = 0.5 * (low + high)
        ours = peak_of(depth, depth_dose(reference.energy_mev_u, CARBON, sigma).at(depth))
        low, high = (sigma, high) if ours.falloff_mm < theirs.falloff_mm else (low, sigma)
    return BeamLine(ours.depth_mm - theirs.depth_mm, sigma)


def axis_dose(field: Field, depth_mm: FloatArray) -> FloatArray:
    """Dose in Gy on the axis x = y = 0 of a carbon field without range shifter."""
    line = beam_line()
    energies = np.array([one.energy_mev_u for one in curves()])
    ranges = range_water_mm(energies, CARBON)
    more = np.sqrt(max(field.ripple_sigma_mm**2 - line.sigma_mm**2, 1e-6))
    kernel = np.exp(-0.5 * (np.arange(-80, 81) * 0.1 / more) ** 2)
    kernel /= kernel.sum()
    total = np.zeros_like(depth_mm)
    for layer in field.layers:
        k = int(np.clip(np.searchsorted(energies, layer.energy_mev_u) - 1, 0, energies.size - 2))
        part = (layer.energy_mev_u - energies[k]) / (energies[k + 1] - energies[k])
        reach = float(range_water_mm(layer.energy_mev_u, CARBON))
        mixed = np.zeros_like(_FINE)
        for index, share in ((k, 1.0 - part), (k + 1, part)):
            shift = layer.before_mm - line.before_mm + float(ranges[index]) - reach
            mixed += share * curves()[index].at(np.maximum(_FINE + shift, 0.0))
        spread = np.convolve(np.pad(mixed, kernel.size // 2, mode="edge"), kernel, mode="valid")
        curve = np.interp(depth_mm, _FINE, spread)
        sigma = np.hypot(layer.spot_sigma_mm, np.interp(depth_mm, curves()[k].depth_mm, curves()[k].sigma_mm))
        square = layer.x_mm**2 + layer.y_mm**2
        across = np.exp(-0.5 * square[None, :] / sigma[:, None] ** 2) @ layer.ions / (2.0 * np.pi * sigma**2)
        total += curve * across * (100.0 * MEV_PER_G_TO_GY)
    return np.asarray(total, dtype=np.float64)
