"""Calibrate the rate model of a ring with tracking: few operating points in, few numbers out.

The points are the inputs; what the numbers are then held against are other energies, drives and frequencies
(benchmarks/spill_calibration.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facility.config import Facility
from facility.physics import beta, gamma
from ioc_sim.extraction.core_transit import place_of, stack_step, turns_per_e
from ioc_sim.extraction.first_start import FirstStart, first_start, fit_edge
from ioc_sim.extraction.kobayashi import FloatArray
from ioc_sim.extraction.measure import (
    BIN_TURNS,
    FILL_SHARE,
    SLOW_DRIVE,
    RipplePoint,
    StopPoint,
    ripple_amplitude,
    ripple_points,
    settle_moves,
    stop_point,
)
from ioc_sim.extraction.optics import KnockOut, Optics, load_optics
from ioc_sim.extraction.points import POINTS, RIPPLE_PER_TURN, START_FILL, Point
from ioc_sim.extraction.rate_model import POWER, RateModel, Transit
from ioc_sim.extraction.ripple_fit import fit_ripple
from ioc_sim.extraction.spill import Setting, setting_of

MOST_STAGES = 3
"""More fit hardly better (a fourth: a tenth less of squares at the HIMM type ring) and cost time in each tick."""


@dataclass(frozen=True)
class Measured:
    """What tracking says at one point; drive 1 is that of the ring's file; `stack`: way of a core while it was looked
    at, as `core_transit.place_of`; `start`: None where none was looked at."""

    energy_mev_u: float
    beta_gamma: float
    drive: float
    stop: StopPoint
    ripple: RipplePoint
    drive_ripple: RipplePoint
    stack: tuple[float, float]
    start: FirstStart | None = None


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
    return Calibration(fit(facility.ring.extraction, found, load_optics(facility.id, config_dir)), tuple(found))


def _momentum(facility: Facility, species: str) -> float:
    """Largest beta gamma of a species."""
    ion = facility.species_named(species)
    return float(beta(ion.energy_max_mev_u, ion) * gamma(ion.energy_max_mev_u, ion))


def measure(setting: Setting, energy: float, point: Point, per_turn: Sequence[float] = RIPPLE_PER_TURN) -> Measured:
    """Stops, and ripple of tune and drive at one operating point, and a first start."""
    amplitude = ripple_amplitude(setting, point.drive, per_turn)
    ripple, driven = ripple_points(setting, point.drive, per_turn, amplitude, point.ripple)
    stop = stop_point(setting, point.drive, point.stop)
    share = START_FILL[setting.optics.drive.kind]
    start = first_start(setting, point.drive, share, point.start) if point.start else None
    return Measured(energy, setting.beta_gamma, point.drive, stop, ripple, driven, stack_of(setting, point), start)


def stack_of(setting: Setting, point: Point) -> tuple[float, float]:
    """Way of a core while its response to ripple was looked at: from where filling and coming to rest have left it."""
    optics = setting.optics
    if isinstance(optics.drive, KnockOut):
        return 0.0, 0.0
    at_full_drive = settle_moves(point.drive) + point.drive * np.array([0.0, point.ripple.turns])
    start = place_of(1.0 - FILL_SHARE, stack_step(optics) / math.sqrt(setting.beta_gamma))
    first, last = start - at_full_drive * abs(optics.drive.delta_per_turn) / optics.beam.momentum_spread
    return float(first), float(last)


def fit(kind: str, points: Sequence[Measured], optics: Optics) -> RateModel:
    """Numbers of the model by least squares; an operating point counts as one."""
    log = np.log([point.drive for point in points])
    mean_turns = np.array([point.stop.mean_turns for point in points])
    powers = np.arange(0.0, 0.61, 0.05) if kind == "betatron" else (0.0,)
    power, mean, slope = min(((float(e), *_line(log, mean_turns / _stretch(points, e))) for e in powers),
                             key=lambda found: _misfit(found, log, mean_turns, points))  # fmt: skip
    per_log, step = (-slope, 0.0) if kind == "rfko" else (turns_per_e(optics), stack_step(optics))
    gain, delay, lag, drive_delay, drive_lag, edge = fit_ripple(kind, points, per_log, step)
    whole = [point for point in points if kind == "rfko" or point.drive >= SLOW_DRIVE]  # others have few of the ions
    share = np.mean([point.stop.share_per_turn / point.drive ** POWER[kind] for point in whole])
    model = RateModel(
        kind, share_per_turn=float(share), mean_turns=mean, mean_per_log=-slope,
        spread_turns=float(np.mean([point.stop.sd_turns for point in points] / _stretch(points, power))),
        momentum_power=power, stages=1, ripple_gain=gain, ripple_delay_turns=delay, ripple_lag_turns=lag,
        drive_delay_turns=drive_delay, drive_lag_turns=drive_lag, drive_edge_turns=edge,
        ripple_per_log=per_log, stack_step=step,
        restart_rel=_restart(points),
        rough_short=float(np.mean([point.stop.roughness[0] for point in points])),
        rough_long=float(np.mean([point.stop.roughness[1] for point in points])),
        fill_share=_fill_share(points, kind), edge_share=_edge_share(points, edge),
    )  # fmt: skip
    return _with_stages(model, points)


def _fill_share(points: Sequence[Measured], kind: str) -> float:
    """What filling has cost, wires and all."""
    begun = [point.start.begun_out for point in points if point.start]
    return float(np.mean(begun)) if begun else START_FILL[kind]


def _edge_share(points: Sequence[Measured], edge_turns: float) -> float:
    """0 where no start has been looked at."""
    starts = [(point.drive, point.start) for point in points if point.start]
    return fit_edge(starts, edge_turns) if starts else 0.0


def _restart(points: Sequence[Measured]) -> float:
    """Level after a restart, each point by how well it is known."""
    error = np.array([point.stop.restart_error for point in points])
    weight = 1.0 / error**2 if np.all(error > 0.0) else np.ones(error.size)
    return float(np.average([point.stop.restart_rel for point in points], weights=weight))


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
    """The number of lags whose stops look most like those of tracking, of those that can have the spread at all points:
    so many lags of a mean have one of mean / n^1/2 at most."""

    def misfit(stages: int) -> float:
        candidate = replace(model, stages=stages)
        return sum(_distance(candidate.transit(p.drive, p.beta_gamma), p.stop.survival) for p in points)

    least = min(model.transit(p.drive, p.beta_gamma).mean_turns / model.stretch(p.beta_gamma) for p in points)
    most = min(MOST_STAGES, max(1, int((least / model.spread_turns) ** 2)))
    return replace(model, stages=min(range(1, most + 1), key=misfit))


def _distance(transit: Transit, survival: FloatArray) -> float:
    turns = BIN_TURNS * (0.5 + np.arange(survival.size, dtype=np.float64))
    return float(np.sum((transit.survival(turns) - survival) ** 2))
