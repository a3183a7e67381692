"""Calibrate the rate model of a ring with tracking: few operating points in, few numbers out.

The points are the inputs; what the numbers are then held against are other energies, drives and frequencies
(benchmarks/spill_calibration.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facility.config import Facility
from facility.physics import beta, gamma
from ioc_sim.extraction.kobayashi import FloatArray
from ioc_sim.extraction.measure import (
    BIN_TURNS,
    RipplePoint,
    StopPoint,
    ripple_amplitude,
    ripple_point,
    stop_point,
)
from ioc_sim.extraction.points import POINTS, RIPPLE_PER_TURN, Point
from ioc_sim.extraction.rate_model import POWER, RateModel, Transit, ripple_shape
from ioc_sim.extraction.spill import Setting, setting_of

MOST_STAGES = 3
"""More fit hardly better (a fourth: a tenth less of squares at the HIMM type ring) and cost time in each tick."""


@dataclass(frozen=True)
class Measured:
    """What tracking says at one point; drive 1 is that of the ring's file."""

    energy_mev_u: float
    beta_gamma: float
    drive: float
    stop: StopPoint
    ripple: RipplePoint


@dataclass(frozen=True)
class Calibration:
    """The model, and the points it was made of."""

    model: RateModel
    points: tuple[Measured, ...]


def calibrate(
    facility: Facility, config_dir: Path | None = None, points: Sequence[Point] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Calibration:  # fmt: skip
    """Track all points (minutes) and fit the model; `tell` hears of each point.

    With the species of the highest momentum: in turns one is like another, but for the size of the beam, and that goes
    with momentum.
    """
    species = max(facility.species, key=lambda name: _momentum(facility, name))
    ion = facility.species_named(species)
    low, high = ion.energy_min_mev_u, ion.energy_max_mev_u
    found = []
    for point in points or POINTS[facility.ring.extraction]:
        energy = low + point.energy_share * (high - low)
        tell(f"{facility.id}, {species} of {energy:.0f} MeV/u, drive {point.drive:g}")
        setting = setting_of(facility, species, energy, point.stop.particles, 1, 1, config_dir)
        found.append(measure(setting, energy, point))
    return Calibration(fit(facility.ring.extraction, found), tuple(found))


def _momentum(facility: Facility, species: str) -> float:
    """Largest beta gamma of a species."""
    ion = facility.species_named(species)
    return float(beta(ion.energy_max_mev_u, ion) * gamma(ion.energy_max_mev_u, ion))


def measure(setting: Setting, energy: float, point: Point, per_turn: Sequence[float] = RIPPLE_PER_TURN) -> Measured:
    """Stops and ripple at one operating point."""
    amplitude = ripple_amplitude(setting, point.drive)
    ripple = ripple_point(setting, point.drive, per_turn, amplitude, point.ripple)
    return Measured(energy, setting.beta_gamma, point.drive, stop_point(setting, point.drive, point.stop), ripple)


def fit(kind: str, points: Sequence[Measured]) -> RateModel:
    """Numbers of the model by least squares; an operating point counts as one."""
    log = np.log([point.drive for point in points])
    mean_turns = np.array([point.stop.mean_turns for point in points])
    powers = np.arange(0.0, 0.61, 0.05) if kind == "betatron" else (0.0,)
    power, mean, slope = min(((float(e), *_line(log, mean_turns / _stretch(points, e))) for e in powers),
                             key=lambda found: _misfit(found, log, mean_turns, points))  # fmt: skip
    gain, delay, lag = _ripple(kind, points, -slope, power)
    share = np.mean([point.stop.share_per_turn / point.drive ** POWER[kind] for point in points])
    model = RateModel(
        kind, share_per_turn=float(share), mean_turns=mean, mean_per_log=-slope,
        spread_turns=float(np.mean([point.stop.sd_turns for point in points] / _stretch(points, power))),
        momentum_power=power, stages=1, ripple_gain=gain, ripple_delay_turns=delay, ripple_lag_turns=lag,
        restart_rel=float(np.mean([point.stop.restart_rel for point in points])),
        rough_short=float(np.mean([point.stop.roughness[0] for point in points])),
        rough_long=float(np.mean([point.stop.roughness[1] for point in points])),
    )  # fmt: skip
    return _with_stages(model, points)


def _stretch(points: Sequence[Measured], power: float) -> FloatArray:
    return np.array([point.beta_gamma for point in points], np.float64) ** power


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Value at 0 and slope; a single point has no slope."""
    if y.size < 2:
        return float(y[0]), 0.0
    at_zero, slope = np.polynomial.polynomial.polyfit(x, y, 1)
    return float(at_zero), float(slope)


def _misfit(found: tuple[float, float, float], log: FloatArray, mean: FloatArray, points: Sequence[Measured]) -> float:
    power, at_zero, slope = found
    return float(np.sum((_stretch(points, power) * (at_zero + slope * log) - mean) ** 2))


def _with_stages(model: RateModel, points: Sequence[Measured]) -> RateModel:
    """The number of lags whose stops look most like those of tracking."""

    def misfit(stages: int) -> float:
        candidate = replace(model, stages=stages)
        return sum(_distance(candidate.transit(p.drive, p.beta_gamma), p.stop.survival) for p in points)

    return replace(model, stages=min(range(1, MOST_STAGES + 1), key=misfit))


def _distance(transit: Transit, survival: FloatArray) -> float:
    turns = BIN_TURNS * (0.5 + np.arange(survival.size, dtype=np.float64))
    return float(np.sum((transit.survival(turns) - survival) ** 2))


def _ripple(kind: str, points: Sequence[Measured], per_log: float, power: float) -> tuple[float, float, float]:
    """Gain, delay and lag (turns) at full drive: the gain by linear least squares for each delay and lag of a grid."""
    size = [point.ripple.per_turn.size for point in points]
    stretch, log = np.repeat(_stretch(points, power), size), np.repeat(np.log([point.drive for point in points]), size)
    drive = np.repeat([point.drive for point in points], size)
    per_turn = np.concatenate([point.ripple.per_turn for point in points])
    gain = np.concatenate([point.ripple.gain for point in points]) * drive
    error = np.concatenate([point.ripple.error for point in points]) * drive
    weight = 1.0 / np.where(np.isfinite(error) & (error > 0.0), error, 1.0) ** 2
    best = (np.inf, 0.0, 0.0, 0.0)
    for lag in np.arange(0.0, 301.0, 4.0):
        for delay in np.arange(0.0, 801.0, 5.0):
            late = stretch * np.maximum(0.0, delay - per_log * log)
            shape = ripple_shape(kind, per_turn, late, stretch * lag)
            factor = float(np.sum(weight * (gain * np.conj(shape)).real) / np.sum(weight * np.abs(shape) ** 2))
            misfit = float(np.sum(weight * np.abs(gain - factor * shape) ** 2))
            best = min(best, (misfit, factor, float(delay), float(lag)))
    return best[1], best[2], best[3]
