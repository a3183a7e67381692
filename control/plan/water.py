"""Spot weights by the dose engine: the frozen depth-dose tables, scattering, and the wide part of fragments.

The optimiser knows one curve and one width per layer. What it leaves out (width that grows with depth, fragments that
fly aside) is put into what it aims at: its dose is held against the engine's, the wish of each voxel is raised or
lowered by what is missing, and it begins anew, so many times.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from control.plan.model import FloatArray
from control.plan.optimise import DoseProblem, Limits, optimise
from dose.field import Field, FieldLayer, Grid, dose_on_grid
from facility.config import Facility
from facility.physics.transport import spot_sigma_mm

ROUNDS = 3
LARGEST_STEP = 1.25
"""A wish is changed by no more than this in one round."""


def weights_in_water(
    problem: DoseProblem, energies: FloatArray, grid_mm: FloatArray, depth_mm: FloatArray, facility: Facility,
    species: str, limits: Limits,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Weights in ions, (layers, n, n), and the engine's dose of them in Gy, (depths, n, n).

    Args:
        problem: one curve, and the width in air, for each layer.
        limits: which spots are given up.
    """
    ion, ripple = facility.species_named(species), facility.ripple_filter.sigma_mm
    before = facility.water_equivalent_upstream_mm()
    aim = problem.mean_gy
    wish = np.full(problem.target.shape, aim)
    sigma = np.asarray(spot_sigma_mm(energies, ion), dtype=np.float64)
    grid = Grid(grid_mm, grid_mm, depth_mm)
    x, y = np.meshgrid(grid_mm, grid_mm)
    for step in range(ROUNDS + 1):
        weights = optimise(dataclasses.replace(problem, dose_gy=wish), limits)
        layers = [
            FieldLayer(float(e), float(s), x[w > 0.0], y[w > 0.0], w[w > 0.0], before)
            for e, s, w in zip(energies, sigma, weights, strict=True)
            if w.any()
        ]
        dose = dose_on_grid(Field(ion, layers, ripple), grid)
        if step < ROUNDS:
            short = np.divide(aim, dose, out=np.ones_like(dose), where=problem.target & (dose > 0.0))
            wish = wish * np.clip(short, 1.0 / LARGEST_STEP, LARGEST_STEP)
    scale = aim / float(dose[problem.target].mean())
    return weights * scale, dose * scale
