"""Dose of a field on a grid: ions in, dose out; range shifter; the kernel, compiled and plain."""

from __future__ import annotations

import numpy as np
import pytest

from dose import kernel
from dose.curves import depth_dose
from dose.features import crossing, plateau_of
from dose.field import Field, FieldLayer, Grid, dose_on_grid, narrow_sigma_mm, wide_sigma_mm
from facility.constants import MEV_PER_G_TO_GY
from facility.physics import CARBON, PROTON, range_water_mm

ONE = np.array([0.0])


def pencil(energy: float, ions: float = 1e6, shifter_mm: float = 0.0, gap_mm: float = 0.0) -> FieldLayer:
    return FieldLayer(energy, 2.5, np.array([1.3]), np.array([-0.7]), np.array([ions]), 0.0, shifter_mm, gap_mm)


@pytest.mark.parametrize(("ion", "energy"), [(CARBON, 250.0), (PROTON, 120.0)])
def test_a_plane_holds_the_laterally_integrated_curve(ion: object, energy: float) -> None:
    """Dose summed over a plane, times the area of a voxel, is the curve times the ions."""
    depth = np.array([5.0, 60.0, 80.0, 100.0, 110.0])
    axis = np.arange(-90.0, 91.0, 2.0)
    dose = dose_on_grid(Field(ion, [pencil(energy)], 1.3), Grid(axis, axis, depth))  # type: ignore[arg-type]
    whole = depth_dose(energy, ion, 1.3).at(depth) * 1e6 * MEV_PER_G_TO_GY  # type: ignore[arg-type]
    np.testing.assert_allclose(dose.sum(axis=(1, 2)) * 0.04, whole, rtol=0.01)


def test_a_wide_even_field_has_fluence_times_curve() -> None:
    side = np.arange(-80.0, 81.0, 4.0)
    x, y = (a.ravel() for a in np.meshgrid(side, side))
    layer = FieldLayer(200.0, 3.0, x, y, np.full(x.size, 1e5))
    depth = np.array([10.0, 40.0, 70.0])
    dose = dose_on_grid(Field(CARBON, [layer], 1.3), Grid(np.array([0.0, 1.0]), np.array([0.0, 1.0]), depth))
    expected = 1e5 / 0.16 * MEV_PER_G_TO_GY * depth_dose(200.0, CARBON, 1.3).at(depth)
    np.testing.assert_allclose(dose[:, 0, 0], expected, rtol=0.005)


def test_a_range_shifter_takes_its_water_and_widens_the_pencil() -> None:
    axis, depth = np.arange(-40.0, 41.0, 2.0), np.arange(0.0, 160.0, 0.5)
    grid = Grid(axis, axis, depth)
    free, shifted = (
        dose_on_grid(Field(PROTON, [pencil(140.0, shifter_mm=s, gap_mm=300.0)]), grid) for s in (0.0, 30.0)
    )
    ends = [crossing(depth, dose.sum(axis=(1, 2)), 0.5 * float(dose.sum(axis=(1, 2)).max()), behind=True)
            for dose in (free, shifted)]  # fmt: skip
    assert ends[0] - ends[1] == pytest.approx(30.0, abs=0.05)
    assert shifted[0].max() < 0.6 * free[0].max()
    reach = float(range_water_mm(140.0, PROTON))
    assert ends[0] == pytest.approx(reach, abs=2.0)


def test_widths_grow_with_depth_and_the_wide_part_is_wider() -> None:
    depth = np.linspace(0.0, 120.0, 25)
    for ion, energy in ((CARBON, 250.0), (PROTON, 130.0)):
        narrow, wide = narrow_sigma_mm(pencil(energy), depth, ion), wide_sigma_mm(pencil(energy), depth, ion)
        assert np.all(np.diff(narrow) >= 0.0)
        assert (narrow[0], wide[0]) == pytest.approx((2.5, 2.5))
        assert wide[-1] > 2.0 * narrow[-1] if ion is CARBON else wide[-1] > 1.3 * narrow[-1]


def test_plain_and_compiled_kernels_agree_bit_for_bit() -> None:
    rng = np.random.default_rng(5)
    axis = np.arange(-20.0, 21.0, 2.0)
    x, y, ions = rng.uniform(-15, 15, 40), rng.uniform(-15, 15, 40), rng.uniform(1e4, 1e5, 40)
    sigma, amount = np.array([2.0, 2.5, 4.0]), np.array([1.0, 0.0, 3.0])
    plain = getattr(kernel.add_pencils, "py_func", kernel.add_pencils)
    found = []
    for run in (kernel.add_pencils, plain):
        dose = np.zeros((3, axis.size, axis.size))
        run(dose, axis, axis, x, y, ions, sigma, amount, 5.0, np.zeros(axis.size))
        found.append(dose)
    assert np.array_equal(found[0], found[1])
    assert not found[0][1].any()
    i, j = 3, 9
    square = (axis[i] - x) ** 2 + (axis[j] - y) ** 2
    near = (np.abs(axis[i] - x) <= 10.0) & (np.abs(axis[j] - y) <= 10.0)
    by_hand = float((ions * np.exp(-0.5 * square / 4.0))[near].sum() / (2.0 * np.pi * 4.0))
    assert found[0][0, j, i] == pytest.approx(by_hand, rel=1e-12)


def test_a_grid_holds_the_field() -> None:
    grid = Grid.around(Field(CARBON, [pencil(200.0)]), 2.0, margin_mm=10.0, behind_mm=30.0)
    assert grid.x_mm[0] <= -8.7
    assert grid.x_mm[-1] >= 11.3
    assert grid.depth_mm[-1] >= float(range_water_mm(200.0, CARBON)) + 30.0
    assert grid.shape == (grid.depth_mm.size, grid.y_mm.size, grid.x_mm.size)


def test_figures_of_a_plateau() -> None:
    depth = np.arange(0.0, 100.0, 0.5)
    dose = np.where(
        depth < 40.0, 0.5 + depth / 80.0, np.where(depth <= 60.0, 1.0, np.maximum(0.0, 1.0 - (depth - 60.0) / 4.0))
    )
    found = plateau_of(depth, dose, 50.0, 10.0)
    assert (found.mean, found.flatness, found.slope) == (1.0, 0.0, 0.0)
    assert found.distal_mm == pytest.approx(62.0)
    assert found.proximal_mm == pytest.approx(36.0)
