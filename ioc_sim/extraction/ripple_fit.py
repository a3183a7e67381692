"""Response to ripple from what tracking says of it: least squares, each line weighed by its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

from ioc_sim.extraction.core_transit import core_answer, late_turns, parts_of
from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray
from ioc_sim.extraction.measure import RipplePoint
from ioc_sim.extraction.rate_model import drive_shape, ripple_shape

DELAYS, LAGS, EDGES = (0.0, 1200.0), (0.0, 1200.0), (0.0, 6000.0)
"""Where the fit looks, turns."""
STEPS, ROUNDS = 8, 40
"""Steps of a grid, and how often it is drawn closer around its best place, by a third each time."""
LEAST_ERROR_REL = 0.02
"""No line is taken as better known than that, for the model is none the better."""


class RippledPoint(Protocol):
    """An operating point at which tune and drive have been modulated."""

    @property
    def beta_gamma(self) -> float: ...
    @property
    def drive(self) -> float: ...
    @property
    def ripple(self) -> RipplePoint: ...
    @property
    def drive_ripple(self) -> RipplePoint: ...
    @property
    def stack(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class _Lines:
    """All lines of all points: gain times drive for the tune, gain for the drive."""

    per_turn: FloatArray
    log: FloatArray
    gain: ComplexArray
    weight: FloatArray

    @classmethod
    def of(cls, points: Sequence[RippledPoint], on_drive: bool) -> _Lines:
        per_turn, log, gain, weight = [], [], [], []
        for point in points:
            found, scale = (point.drive_ripple, 1.0) if on_drive else (point.ripple, point.drive)
            per_turn.append(found.per_turn)
            gain.append(found.gain * scale)
            known = np.where(np.isfinite(found.error), found.error, 0.0) * scale
            weight.append(1.0 / np.hypot(known, LEAST_ERROR_REL * np.abs(gain[-1])) ** 2)
            log.append(np.full(found.per_turn.size, math.log(point.drive)))
        return cls(*(np.concatenate(part) for part in (per_turn, log, gain, weight)))

    def late(self, delay: float, per_log: float) -> FloatArray:
        """Delay of each line."""
        return np.asarray(np.maximum(0.0, delay - per_log * self.log))

    def misfit(self, said: ComplexArray) -> float:
        """Weighed squares."""
        return float(np.sum(self.weight * np.abs(self.gain - said) ** 2))

    def factor(self, shape: ComplexArray) -> float:
        """What a shape has to be multiplied with."""
        return float(np.sum(self.weight * (self.gain * np.conj(shape)).real) / np.sum(self.weight * np.abs(shape) ** 2))


def fit_ripple(
    kind: str, points: Sequence[RippledPoint], per_log: float, step: float
) -> tuple[float, float, float, float, float, float]:
    """Gain, delay and lag for the tune; delay, lag and edge for the drive; `per_log`: what delays lose when the drive
    grows by e; `step`: as `core_transit.stack_step`."""
    tune, drive = (_Lines.of(points, on_drive) for on_drive in (False, True))
    if kind == "betatron":
        return _core(points, tune, drive, per_log, step)

    def shape(delay: float, lag: float) -> ComplexArray:
        return ripple_shape(tune.per_turn, tune.late(delay, per_log), lag)

    def scaled(delay: float, lag: float) -> float:
        found = shape(delay, lag)
        return tune.misfit(tune.factor(found) * found)

    def driven(delay: float, lag: float, edge: float) -> float:
        return drive.misfit(drive_shape(drive.per_turn, drive.late(delay, per_log), lag, edge))

    delay, lag = closest(scaled, DELAYS, LAGS)
    drive_delay, drive_lag, edge = closest(driven, DELAYS, LAGS, EDGES)
    return tune.factor(shape(delay, lag)), delay, lag, drive_delay, drive_lag, edge


def _core(
    points: Sequence[RippledPoint], tune: _Lines, drive: _Lines, per_log: float, step: float
) -> tuple[float, float, float, float, float, float]:
    """One delay and lag for both: ripple of a core is ripple of the tune, at the same frequencies."""
    parts = [parts_of(step / math.sqrt(point.beta_gamma), point.stack) for point in points]

    def arrives(delay: float, lag: float) -> ComplexArray:
        found = []
        for point, part in zip(points, parts, strict=True):
            late, y = late_turns(delay, per_log, point.drive, point.beta_gamma)
            found.append(core_answer(point.ripple.per_turn, late, lag * y, part))
        return np.concatenate(found)

    def shape(said: ComplexArray) -> ComplexArray:
        return np.asarray(-2j * np.pi * tune.per_turn * said)

    def misfit(delay: float, lag: float) -> float:
        said = arrives(delay, lag)
        found = shape(said)
        return tune.misfit(tune.factor(found) * found) + drive.misfit(said)

    delay, lag = closest(misfit, DELAYS, LAGS)
    return tune.factor(shape(arrives(delay, lag))), delay, lag, delay, lag, 0.0


def closest(misfit: Callable[..., float], *spans: tuple[float, float]) -> tuple[float, ...]:
    """Where the misfit is least within the spans: a grid, drawn closer around its best place again and again."""
    centre = [0.5 * (low + high) for low, high in spans]
    half = [0.5 * (high - low) for low, high in spans]
    for _ in range(ROUNDS):
        axes = [
            np.unique(np.clip(c + h * np.linspace(-1.0, 1.0, STEPS + 1), low, high))
            for c, h, (low, high) in zip(centre, half, spans, strict=True)
        ]
        centre = list(min(product(*(axis.tolist() for axis in axes)), key=lambda place: misfit(*place)))
        half = [h * 2.0 / 3.0 for h in half]
    return tuple(float(c) for c in centre)
