"""Spot tolerance worked by hand, and the properties a level choice must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facility.config import load_facility
from facility.intensity import choose_level, spot_tolerance_ions

LEVELS = load_facility("wuwei").species["carbon"].intensity_levels_ions_per_s


def test_tolerance_by_hand() -> None:
    # level 1e7/s x 20 us = 200 ions, 2 counts of 40 ions = 80: the floor is 280 ions
    tolerance, by_percent = spot_tolerance_ions([1e3, 2.8e4, 1e5, 4e3], 1e7, 40.0, 1e5)
    assert tolerance.tolist() == [280.0, 280.0, 1000.0, 280.0]
    assert by_percent.tolist() == [False, True, True, False]


def test_tolerance_never_exceeds_five_percent_of_the_heaviest() -> None:
    tolerance, by_percent = spot_tolerance_ions([1e3, 2e3], 1e7, 40.0, 2e3)
    assert tolerance.tolist() == [100.0, 100.0]
    assert not by_percent.any()


@given(
    st.lists(st.floats(1.0, 1e8), min_size=1, max_size=50),
    st.sampled_from(LEVELS),
    st.floats(1.0, 2000.0),
)
def test_tolerance_properties(spots: list[float], level: float, ions_per_count: float) -> None:
    heaviest = max(spots)
    tolerance, by_percent = spot_tolerance_ions(spots, level, ions_per_count, heaviest)
    assert np.all(tolerance <= 0.05 * heaviest * (1 + 1e-12))
    held = np.asarray(spots)[by_percent]
    assert tolerance[by_percent] == pytest.approx(0.01 * held)
    assert np.all(tolerance >= np.minimum(0.01 * np.asarray(spots), 0.05 * heaviest) * (1 - 1e-12))


def test_even_layer_gets_the_level_of_about_four_milliseconds() -> None:
    choice = choose_level(np.full(400, 4e5), 40.0, LEVELS, transit_s=2e-4, median_dwell_s=4e-3)
    assert choice.acceptable
    assert choice.level_ions_per_s == 1e8
    assert choice.median_s == pytest.approx(4e-3)
    assert choice.percent_share == 1.0
    assert any("1.5e+08" in reason for reason in choice.reasons)


def test_no_higher_level_would_have_done() -> None:
    rng = np.random.default_rng(7)
    for scale in (5e4, 2e5, 1e6):
        spots = scale * rng.lognormal(0.0, 0.5, 300)
        choice = choose_level(spots, 40.0, LEVELS, transit_s=2e-4)
        assert choice.percent_share >= 0.95
        assert choice.lightest_s >= 300e-6
        assert choice.transit_share <= 0.5
        higher = LEVELS[choice.index + 1]
        _, held = spot_tolerance_ions(spots, higher, 40.0, float(spots.max()))
        ordered = np.sort(spots)
        median = ordered[np.searchsorted(np.cumsum(ordered), 0.5 * ordered.sum())]
        assert (
            spots[held].sum() < 0.95 * spots.sum()
            or median / higher < 2.8e-3
            or spots.min() / higher < 300e-6
            or higher * 2e-4 > 0.5 * spots.min()
        )


def test_too_light_a_spot_is_said_not_hidden() -> None:
    choice = choose_level([100.0, 1e5], 40.0, LEVELS, transit_s=1e-5)
    assert not choice.acceptable
    assert choice.index == 0
    assert any("lightest spot" in reason and "300 us" in reason for reason in choice.reasons)


def test_small_spots_get_the_best_there_is() -> None:
    choice = choose_level(np.full(50, 5e3), 40.0, LEVELS, transit_s=1e-4)
    assert choice.percent_share == 0.0  # 1 % is 50 ions, 2 counts are 80
    assert choice.acceptable
    assert choice.median_s >= 2.5e-3
    assert any("even at" in reason for reason in choice.reasons)


@given(st.lists(st.floats(400.0, 1e7), min_size=1, max_size=60), st.floats(10.0, 60.0))
def test_choice_is_consistent(spots: list[float], ions_per_count: float) -> None:
    choice = choose_level(spots, ions_per_count, LEVELS, transit_s=1.5e-4)
    assert LEVELS[choice.index] == choice.level_ions_per_s
    assert choice.lightest_s == pytest.approx(min(spots) / choice.level_ions_per_s)
    assert choice.acceptable == (
        choice.lightest_s >= 300e-6 * (1 - 1e-9) and choice.level_ions_per_s * 1.5e-4 <= 0.5 * min(spots)
    )
    assert choice == choose_level(sorted(spots), ions_per_count, LEVELS, transit_s=1.5e-4)


def test_nonsense_is_refused() -> None:
    for spots in ([], [0.0], [-1.0, 5.0], [float("nan")]):
        with pytest.raises(ValueError, match="positive number of ions"):
            choose_level(spots, 40.0, LEVELS, transit_s=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        choose_level([1e5], 0.0, LEVELS, transit_s=0.0)
