"""Truth against plan, on numbers made by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from facility.errors import InternalError
from rig.truth_check import judge_truth, spot_truth


@dataclass(frozen=True, eq=False)
class Layer:
    token: int
    target_ions: np.ndarray
    x_mm: np.ndarray
    y_mm: np.ndarray
    ions_per_count: float = 34.5
    intensity_ions_per_s: float = 1e7


def layer(token: int, *ions: float) -> Layer:
    n = len(ions)
    return Layer(token, np.array(ions), np.arange(n, dtype=float), np.zeros(n))


def rows(of: Layer, factor: float = 1.0, dx: float = 0.0) -> np.ndarray:
    ions = of.target_ions * factor
    zeros = np.zeros_like(ions)
    return np.column_stack([ions, ions * (of.x_mm + dx), ions * of.y_mm, zeros, zeros])


def test_exact_delivery():
    one = layer(7, 1e5, 2e5)
    report = judge_truth([one], {7: rows(one)})
    assert report.within_tolerance
    assert report.total_error_pct == 0.0
    assert report.worst_spot_error_pct == 0.0
    assert report.p99_position_error_mm == pytest.approx(0.0, abs=1e-9)


def test_one_percent_of_a_heavy_spot_is_the_tolerance():
    one = layer(7, 1e6, 1e6)
    inside = judge_truth([one], {7: rows(one, 1.0099)})
    outside = judge_truth([one], {7: rows(one, 1.0101)})
    assert inside.within_tolerance
    assert inside.spots_by_percent == 2
    assert inside.dose_share_by_percent == 1.0
    assert outside.spots_within == 0
    assert outside.worst_spot_error_pct == pytest.approx(1.01)


def test_light_spots_are_held_by_counts_and_reaction_time():
    one = layer(7, 1e6, 1e4)
    found = spot_truth(one, rows(one))
    floor = 2.0 * one.ions_per_count + 1e7 * 20e-6
    assert found.by_percent.tolist() == [True, False]
    assert found.tolerance_ions[1] == pytest.approx(floor)


def test_missing_layer_counts_as_missing_dose():
    first, second = layer(7, 1e5), layer(8, 1e5)
    report = judge_truth([first, second], {7: rows(first)})
    assert report.total_error_pct == pytest.approx(-50.0)
    assert report.layers[1].worst_error_pct == pytest.approx(-100.0)
    assert not report.within_tolerance


def test_positions_are_those_of_the_ions():
    one = layer(7, 1e5, 1e5)
    report = judge_truth([one], {7: rows(one, dx=0.4)})
    assert report.p99_position_error_mm == pytest.approx(0.4)
    assert report.within_tolerance


def test_ions_of_nobody_are_reported():
    one, stray = layer(7, 1e5), layer(9, 123.0)
    assert judge_truth([one], {7: rows(one), 9: rows(stray)}).unplanned_ions == 123.0


def test_truth_of_another_shape_is_a_defect():
    with pytest.raises(InternalError, match="shape"):
        judge_truth([layer(7, 1e5)], {7: np.zeros((2, 5))})
