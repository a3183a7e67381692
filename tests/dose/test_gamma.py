"""Gamma index: by hand where it can be said, and an established one beside."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from dose.gamma import Criteria, gamma
from facility.physics.relativity import FloatArray

STEP = (2.0, 2.0, 2.0)


def blob() -> FloatArray:
    """A ball of dose that falls to nothing inside its grid."""
    axis = np.arange(-24.0, 25.0, 2.0)
    square = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    return np.asarray(2.0 * np.exp(-0.5 * square / 49.0), dtype=np.float64)


def test_equal_doses_have_none_and_a_flat_one_has_its_difference() -> None:
    assert gamma(blob(), blob(), STEP).worst == 0.0
    flat = np.full((5, 6, 7), 2.0)
    found = gamma(flat, 1.03 * flat, STEP, Criteria(dose_pct=2.0))
    assert found.mean == pytest.approx(1.5)
    assert found.pass_pct == 0.0
    assert gamma(flat, 1.03 * flat, STEP, Criteria(dose_pct=4.0)).pass_pct == 100.0


def test_a_steep_shift_has_its_distance() -> None:
    """A steep ramp moved by 1 mm, 2 mm allowed: half, if dose hardly counts."""
    ramp = np.broadcast_to(np.arange(0.0, 60.0, 2.0)[:, None, None] * 10.0, (30, 5, 5)).copy()
    found = gamma(ramp, ramp + 10.0, STEP, Criteria(dose_pct=0.1, distance_mm=2.0))
    inner = found.values[8:-3, 2, 2]
    np.testing.assert_allclose(inner, 0.5, atol=0.01)


def test_local_and_cut() -> None:
    low = blob()
    low[low < 0.5 * low.max()] *= 1.05
    everywhere, local = (gamma(blob(), low, STEP, Criteria(local=flag)) for flag in (False, True))
    assert everywhere.mean < local.mean
    assert gamma(blob(), low, STEP, Criteria(cut_pct=60.0)).worst < everywhere.worst + 1e-12
    assert np.isnan(everywhere.values).sum() == np.count_nonzero(blob() < 0.1 * blob().max())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="positive criteria"):
        Criteria(dose_pct=0.0)
    with pytest.raises(ValueError, match="share in per cent"):
        Criteria(cut_pct=200.0)
    with pytest.raises(ValueError, match="one grid"):
        gamma(blob(), blob()[:-1], STEP)
    with pytest.raises(ValueError, match="with dose"):
        gamma(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), STEP)


@pytest.mark.parametrize("local", [False, True])
def test_an_established_gamma_says_the_same(local: bool) -> None:
    """pymedphys searches on shells, we on a grid: both fine enough, so that sampling alone lies between."""
    if find_spec("pymedphys") is None:
        pytest.skip("pymedphys not installed")
    from pymedphys import gamma as theirs

    reference = blob()
    moved = 1.01 * (0.6 * reference + 0.4 * np.roll(reference, 1, axis=2))
    axes = tuple(np.arange(n) * 2.0 for n in reference.shape)
    wanted = theirs(axes, reference, axes, moved, 2, 2, lower_percent_dose_cutoff=50, interp_fraction=40, max_gamma=1,
                    local_gamma=local)  # fmt: skip
    ours = gamma(reference, moved, STEP, Criteria(local=local, per_distance=40, cut_pct=50.0, most=1.0))
    judged = ~np.isnan(ours.values)
    assert np.array_equal(judged, ~np.isnan(wanted))
    assert np.abs(ours.values - wanted)[judged].max() < (0.12 if local else 0.06)
    assert ours.mean == pytest.approx(float(np.nanmean(wanted)), abs=0.01)
    assert ours.mean > 0.1
