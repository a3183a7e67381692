"""Fragments of a beam in water: deterministic transport, straight ahead, in cells of residual range.

A nuclide that has the residual range r has r - h after a step h, whatever its energy: on a grid of residual ranges
with the step of the depth, slowing down is a shift by one cell, without error. In each step a share reacts, its
products are put into the cells of their own range, and what the energy falls by from cell to cell is dose. All
beam energies go through together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dose.nuclear import (
    C12,
    FRAGMENTS,
    GOLDHABER_MEV_C,
    LOCAL_MEV,
    PARTICIPANTS,
    YIELDS,
    Nuclide,
    P,
    per_cm,
)
from facility.constants import ATOMIC_MASS_MEV
from facility.physics.ranges import MAX_ENERGY_MEV_U, energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import FloatArray

HEAVY, LIGHT, LOCAL = range(3)
"""Groups of dose: fragments from lithium up, hydrogen and helium, what stays where the reaction was."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum())[:, None]


@dataclass(frozen=True)
class _Cells:
    """Residual ranges of a nuclide: cell k reaches from k h to (k + 1) h."""

    nuclide: Nuclide
    energy: FloatArray
    """MeV/u in the middle of each cell."""
    drop: FloatArray
    """MeV lost on the way from the middle of a cell to that of the one below; the last stops."""
    share: FloatArray
    """Of the nuclei in a cell that react within a step."""


def _cells(nuclide: Nuclide, step_mm: float) -> _Cells:
    count = int(float(range_water_mm(MAX_ENERGY_MEV_U, nuclide.ion)) / step_mm)
    energy = energy_for_range_mev_u((np.arange(count) + 0.5) * step_mm, nuclide.ion)
    total = nuclide.ion.mass_number * energy
    drop = np.diff(total, prepend=0.0)
    return _Cells(nuclide, energy, drop, 1.0 - np.exp(-0.1 * step_mm * per_cm(nuclide, energy)))


def _spread(parent: Nuclide, child: Nuclide, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energies (MeV/u) of a fragment along the beam, (nodes, n), and their weights, for parents of these energies."""
    a, f = parent.ion.mass_number, child.ion.mass_number
    width = GOLDHABER_MEV_C * np.sqrt(f * (a - f) / max(a - 1, 1)) / f
    m = ATOMIC_MASS_MEV
    g = 1.0 + energy / m
    momentum = _NODES[:, None] * width
    along = g * momentum + np.sqrt(g * g - 1.0) * np.sqrt(m * m + momentum**2)
    return np.sqrt(along**2 + m * m) - m, _WEIGHTS


def _put(cells: _Cells, energy: FloatArray, weight: FloatArray, step_mm: float) -> FloatArray:
    """(cells, n): each column the sum over its energies (m, n) of weights, shared by two neighbouring cells.

    Weights are of shape (m, 1) or (m, n).
    """
    inside = np.clip(energy, 1.0, MAX_ENERGY_MEV_U * 0.999)
    at = range_water_mm(inside, cells.nuclide.ion) / step_mm - 0.5
    low = np.clip(np.floor(at).astype(np.int64), 0, cells.energy.size - 2)
    part = np.clip(at - low, 0.0, 1.0)
    out = np.zeros((cells.energy.size, energy.shape[1]))
    column = np.broadcast_to(np.arange(energy.shape[1]), energy.shape)
    # below the middle of the first cell energy is kept, not number: nothing flies on from there
    w = weight * np.where(at < 0.0, energy / cells.energy[0], 1.0)
    np.add.at(out, (low, column), w * (1.0 - part))
    np.add.at(out, (low + 1, column), w * part)
    return out


def _struck(energy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energies of struck protons and their number, (m, n): even from zero to the energy of the parent.

    One that takes the share s leaves at cos^2 = s (two nucleons of one mass), and reaches cos as deep as it flies. It
    stands for more protons of the range that it has in depth, so that energy is kept.
    """
    share = ((np.arange(40) + 0.5) / 40)[:, None]
    reach = range_water_mm(share * energy, P.ion) * np.sqrt(share)
    there = energy_for_range_mev_u(np.maximum(reach, 1e-4), P.ion)
    return there, share * energy / there / share.size


def _products(parent: Nuclide, energy: FloatArray, cells: dict[str, _Cells], step_mm: float) -> dict[str, FloatArray]:
    """Cells of all products of one reaction of a parent of each of these energies."""
    out = {}
    for name, number in YIELDS[parent.name].items():
        child = cells[name]
        out[name] = number * _put(child, *_spread(parent, child.nuclide, energy), step_mm)
    struck = PARTICIPANTS[parent.name] * _put(cells["p"], *_struck(energy), step_mm)
    out["p"] = out["p"] + struck if "p" in out else struck
    return out


def fragments(
    primary: Nuclide, energies_mev_u: FloatArray, step_mm: float, behind_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Dose of everything but the primaries, and surviving primaries.

    Returns:
        (energies, groups, depths) MeV cm2/g per primary, in the middle of each step, to `behind_mm` beyond the range;
        (energies, depths + 1) share of the primaries left at the beginning of each step.
    """
    reach = range_water_mm(energies_mev_u, primary.ion)
    steps = int(np.ceil((float(reach.max()) + behind_mm) / step_mm))
    cells = {one.name: _cells(one, step_mm) for one in FRAGMENTS}
    names = [one.name for one in FRAGMENTS if one.name in YIELDS[primary.name] or one.name == "p" or primary is C12]
    inner = {name: _products(cells[name].nuclide, cells[name].energy, cells, step_mm) for name in names}
    state = {name: np.zeros((cells[name].energy.size, energies_mev_u.size)) for name in names}
    dose = np.zeros((energies_mev_u.size, 3, steps))
    left = np.ones((energies_mev_u.size, steps + 1))
    local = LOCAL_MEV["p" if primary is P else "ion"]
    for k in range(steps):
        residual = np.maximum(reach - (k + 0.5) * step_mm, 0.01)
        energy = energy_for_range_mev_u(residual, primary.ion)
        inside = np.clip((reach - k * step_mm) / step_mm, 0.0, 1.0)
        reacting = left[:, k] * (1.0 - np.exp(-0.1 * step_mm * inside * per_cm(primary, energy)))
        left[:, k + 1] = left[:, k] - reacting
        dose[:, LOCAL, k] += reacting * local
        born = {name: value * reacting for name, value in _products(primary, energy, cells, step_mm).items()}
        for name in names:  # heavy to light: products of fragments are born within the same step
            here = cells[name]
            lost = state[name] * here.share[:, None]
            if lost.any():
                state[name] -= lost
                dose[:, LOCAL, k] += LOCAL_MEV["p" if name in ("p", "d", "t") else "ion"] * lost.sum(axis=0)
                for child, matrix in inner[name].items():
                    born[child] = born.get(child, 0.0) + matrix @ lost
            group = HEAVY if here.nuclide.ion.charge > 2 else LIGHT
            dose[:, group, k] += here.drop @ state[name]
            state[name][:-1] = state[name][1:]
            state[name][-1] = 0.0
        for name, value in born.items():
            group = HEAVY if cells[name].nuclide.ion.charge > 2 else LIGHT
            dose[:, group, k] += 0.5 * (cells[name].drop @ value)
            state[name] += value
    return dose / (0.1 * step_mm), left
