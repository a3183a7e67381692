"""Spot tolerance, and the choice of a layer's intensity level that makes it attainable.

A spot is held to |truth - planned| <= max(1 % of the spot, 2 counts + level x 20 us), never above 5 % of
the layer's heaviest spot. The second branch is what quantised counts and one tick of decision cannot
avoid; a good level leaves almost all dose to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facility.constants import TICK_S
from facility.physics.relativity import ArrayLike, FloatArray

PERCENT_BRANCH = 0.01
COUNTS_BRANCH = 2.0
REACTION_S = 20e-6
CEILING_OF_HEAVIEST = 0.05


def spot_tolerance_ions(
    spot_ions: ArrayLike,
    level_ions_per_s: float,
    ions_per_count: float,
    heaviest_ions: float,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Tolerance of each spot in ions, and whether its 1 % branch holds it.

    Args:
        spot_ions: planned ions, any shape.
        level_ions_per_s: intensity level of the layer.
        ions_per_count: ions behind one count of the first chamber.
        heaviest_ions: planned ions of the layer's heaviest spot.

    Returns:
        (tolerance, by_percent), both in the shape of `spot_ions`. `by_percent` is true where 1 % of the
        spot is at least 2 counts + level x 20 us.
    """
    spots = np.asarray(spot_ions, dtype=np.float64)
    percent = PERCENT_BRANCH * spots
    floor = COUNTS_BRANCH * ions_per_count + level_ions_per_s * REACTION_S
    by_percent = np.asarray(percent >= floor, dtype=np.bool_)
    tolerance = np.minimum(np.maximum(percent, floor), CEILING_OF_HEAVIEST * heaviest_ions)
    return np.asarray(tolerance, dtype=np.float64), by_percent


@dataclass(frozen=True)
class LevelChoice:
    """A level for one layer, what follows from it, and why no higher one was taken.

    Attributes:
        index: position in the facility's list of levels.
        level_ions_per_s: the level.
        acceptable: false when even the lowest level breaks a hard limit: the plan must be refused.
        lightest_s: time the lightest spot lasts.
        median_s: time the dose-median spot lasts (half of the dose lies in spots at least as heavy).
        percent_share: share of the layer's dose in spots held by the 1 % branch.
        transit_share: share of the lightest spot's ions that a move of `transit_s` brings with it.
        reasons: sentences for a person: what stopped the next higher level, and what is not met.
    """

    index: int
    level_ions_per_s: float
    acceptable: bool
    lightest_s: float
    median_s: float
    percent_share: float
    transit_share: float
    reasons: tuple[str, ...]


def _percent_share(spots: FloatArray, level: float, ions_per_count: float) -> float:
    _, by_percent = spot_tolerance_ions(spots, level, ions_per_count, float(spots.max()))
    return float(spots[by_percent].sum() / spots.sum())


def choose_level(
    spot_ions: ArrayLike,
    ions_per_count: float,
    levels: Sequence[float],
    *,
    transit_s: float,
    min_ticks: int = 30,
    max_transit_share: float = 0.5,
    min_percent_share: float = 0.95,
    median_dwell_s: float = 3e-3,
) -> LevelChoice:
    """Pick the highest level that treats a layer's spots well.

    Hard limits: the lightest spot lasts `min_ticks` ticks of 10 us, and the move to a spot brings at most
    `max_transit_share` of the lightest spot. Wishes: at least `min_percent_share` of the dose in spots
    held by the 1 % branch (or that part of what the lowest level reaches, where none reaches it), and a
    dose-median spot of about `median_dwell_s` (at least 0.7 of it). If the wishes cannot be met together
    with the hard limits, the lowest level is taken; it is `acceptable` when it keeps the hard limits.

    Args:
        spot_ions: planned ions of the layer's spots (1-d, at least one, all positive and finite).
        ions_per_count: ions behind one count of the first chamber.
        levels: rising intensity levels, ions per second.
        transit_s: typical time of the move between neighbouring spots, beam on.

    Raises:
        ValueError: no spots, or spots or levels that are not positive numbers.
    """
    spots = np.sort(np.asarray(spot_ions, dtype=np.float64).ravel())
    if spots.size == 0 or not np.all(np.isfinite(spots)) or spots[0] <= 0.0:
        raise ValueError("a layer needs at least one spot, all with a positive number of ions")
    if len(levels) == 0 or min(levels) <= 0.0 or not ions_per_count > 0.0:
        raise ValueError("levels and ions per count must be positive")
    lightest = float(spots[0])
    median = float(spots[np.searchsorted(np.cumsum(spots), 0.5 * spots.sum())])
    best_share = _percent_share(spots, float(min(levels)), ions_per_count)
    attainable = best_share >= min_percent_share
    wanted_share = min_percent_share if attainable else min_percent_share * best_share

    def hard(level: float) -> list[str]:
        found: list[str] = []
        if lightest / level < min_ticks * TICK_S * (1.0 - 1e-9):
            found.append(
                f"at {level:.3g}/s the lightest spot ({lightest:.4g} ions) lasts {lightest / level * 1e6:.0f} us,"
                f" less than {min_ticks * TICK_S * 1e6:.0f} us"
            )
        if level * transit_s > max_transit_share * lightest:
            found.append(
                f"at {level:.3g}/s a move brings {level * transit_s:.4g} ions,"
                f" more than {max_transit_share:.0%} of the lightest spot"
            )
        return found

    def wishes(level: float) -> list[str]:
        found: list[str] = []
        share = _percent_share(spots, level, ions_per_count)
        if share < wanted_share:
            found.append(f"at {level:.3g}/s only {share:.1%} of the dose is held by the 1 % branch")
        if median / level < 0.7 * median_dwell_s:
            found.append(f"at {level:.3g}/s the dose-median spot lasts {median / level * 1e3:.2f} ms")
        return found

    reasons: list[str] = []
    index = 0
    for candidate in range(len(levels) - 1, -1, -1):
        found = hard(float(levels[candidate])) + wishes(float(levels[candidate]))
        if not found:
            index = candidate
            break
        reasons = found
    level = float(levels[index])
    broken = hard(level)
    if not attainable:
        reasons = [
            *reasons,
            f"even at {min(levels):.3g}/s only {best_share:.1%} of the dose can be held by the 1 % branch",
        ]
    return LevelChoice(
        index=index,
        level_ions_per_s=level,
        acceptable=not broken,
        lightest_s=lightest / level,
        median_s=median / level,
        percent_share=_percent_share(spots, level, ions_per_count),
        transit_share=level * transit_s / lightest,
        reasons=tuple(reasons),
    )
