"""A first start: the full drive fills the edge of the beam, a pause, then the drive of the spill.

An exciter's ions have to diffuse from the core of the beam to the triangle's side. What leaves it over what is stored
and over the square of the amplitude depends on nothing but how much has left: 1 - exp(-out / c), at every drive and
energy. At a drive k that takes 1 / k^2 times as many turns, so that it is no matter of milliseconds. Behind the full
drive the layer at the side holds one over k too many ions for a while; that is the response to a step of the
amplitude, which is calibrated with ripple (`rate_model`).

A core's ions come by their density in momentum, which follows from the beam and has no number of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facility.errors import ConfigError
from ioc_sim.extraction.core_transit import AMPLITUDE, place_of, stack_step
from ioc_sim.extraction.kernel import STORED
from ioc_sim.extraction.kobayashi import FloatArray
from ioc_sim.extraction.measure import (
    FIRST_SEED,
    PAUSE,
    RESTART,
    STEP_TURNS,
    filled,
    rate_over_stored,
    transit_guess,
)
from ioc_sim.extraction.optics import KnockOut, Optics
from ioc_sim.extraction.points import Effort
from ioc_sim.extraction.rate_model import POWER, RateModel
from ioc_sim.extraction.spill import Setting, with_drive
from ioc_sim.extraction.tracking import Programme, Tracker, gaussian_beam

START_BINS = 8
EDGE_SHARES = np.geomspace(0.01, 1.0, 2001)
"""Where the fit looks."""
LAYER_PARTS = 4000
"""Lags of which the relaxation of a half-order is the mean, and places of a bin at which it is looked at."""
BIN_PARTS = 16
LEAST_ERROR_REL = 0.02
"""No bin is taken as better known than that."""


@dataclass(frozen=True)
class FirstStart:
    """Rate over the ions stored, per turn, in equal bins from the moment when the first ions of this drive may arrive.

    Attributes:
        turns: middle of the bins.
        share_per_turn, error: rate over the ions stored; one sigma by the scatter of the seeds.
        out: share of all ions that have left in the middle of each bin, those that filled the edge among them.
        fill_turns: for how long the full drive had filled the edge.
        begun_out: share of all ions that was gone when the drive began, on wires and behind the septum.
    """

    turns: FloatArray
    share_per_turn: FloatArray
    error: FloatArray
    out: FloatArray
    fill_turns: float
    begun_out: float

    @property
    def level_rel(self) -> FloatArray:
        """Over the mean of the second half."""
        return np.asarray(self.share_per_turn / self._late, np.float64)

    @property
    def level_error(self) -> FloatArray:
        """One sigma of `level_rel` by the scatter of its own bin."""
        return np.asarray(self.error / self._late, np.float64)

    @property
    def _late(self) -> float:
        return float(self.share_per_turn[self.turns.size // 2 :].mean())


def first_start(setting: Setting, drive: float, share: float, effort: Effort) -> FirstStart:
    """First start at `drive`: the full drive has filled the edge until this share of the ions was out, then a pause.

    The filling takes the mean time of all seeds. One that ended when its own ions are out would end in a burst of the
    exciter more often than not, with more ions at the side than there are at other times.
    """
    one = replace(setting, particles=effort.particles)
    seeds = range(FIRST_SEED, FIRST_SEED + effort.seeds)
    fill_turns = round(float(np.mean([filled(one, share, seed, STEP_TURNS // 4).turn for seed in seeds])))
    reference, rows, begun = transit_guess(one), [], []
    edges = np.asarray(RESTART[0] * reference + np.arange(START_BINS + 1) * effort.turns // START_BINS, np.float64)
    for seed in seeds:
        beam = gaussian_beam(one.optics, one.particles, one.beta_gamma, seed)
        filling = Tracker(one.optics, beam, Programme(), seed)
        filling.advance(fill_turns)
        pause = filling.branch(Programme(drive_off=fill_turns))
        begun.append(1.0 - pause.advance(PAUSE * reference).count(STORED) / effort.particles)
        spill = pause.branch(Programme(), with_drive(one, drive).optics)
        rate, stored = rate_over_stored(spill, edges)
        rows.append((rate, 1.0 - stored / effort.particles))
    each, out = (np.array(part) for part in zip(*rows, strict=True))
    if np.count_nonzero(each) == 0:
        raise ConfigError("tracking.few", "no ions after the start", "", "more particles or a stronger drive")
    error = each.std(axis=0, ddof=1) / np.sqrt(effort.seeds) if effort.seeds > 1 else np.full(START_BINS, np.nan)
    middle = np.asarray(0.5 * (edges[1:] + edges[:-1]) - edges[0], np.float64)
    return FirstStart(
        middle, each.mean(axis=0), error, out.mean(axis=0), float(fill_turns), float(np.mean(begun))
    )  # fmt: skip


def layer_left(turns: FloatArray, edge_turns: float) -> FloatArray:
    """What the layer at the triangle's side has still to go after a step of an exciter's amplitude, over the step."""
    rates = np.tan(0.5 * math.pi * (np.arange(LAYER_PARTS) + 0.5) / LAYER_PARTS) ** 2 / edge_turns
    return np.array([float(np.mean(np.exp(-rates * turn))) for turn in np.asarray(turns, np.float64).tolist()])


def step_level(start: FirstStart, drive: float, edge_turns: float) -> FloatArray:
    """Rate by bin behind a step of the amplitude from 1 to `drive`, over that of a layer that has followed."""
    half = 0.5 * float(start.turns[1] - start.turns[0])
    parts = (np.arange(BIN_PARTS) + 0.5) / BIN_PARTS * 2.0 - 1.0
    left = [layer_left(middle + half * parts, edge_turns).mean() for middle in start.turns]
    return np.asarray(1.0 + (1.0 / drive - 1.0) * np.array(left), np.float64)


def fit_edge(starts: Sequence[tuple[float, FirstStart]], edge_turns: float) -> float:
    """Share of the ions in which an exciter's edge fills, by drive and start; each start has a level of its own, for
    that goes with the size of the beam."""

    def misfit(edge_share: float) -> float:
        total = 0.0
        for shape, start, weight in prepared:
            model = shape * (1.0 - np.exp(-start.out / edge_share))
            level = np.sum(weight * model * start.share_per_turn) / np.sum(weight * model**2)
            total += float(np.sum(weight * (start.share_per_turn - level * model) ** 2))
        return total

    prepared = []
    for drive, start in starts:
        known = np.where(np.isfinite(start.error), start.error, 0.0)
        weight = 1.0 / np.hypot(known, LEAST_ERROR_REL * start.share_per_turn.mean()) ** 2
        prepared.append((step_level(start, drive, edge_turns), start, weight))
    return float(min(EDGE_SHARES.tolist(), key=misfit))


def stack_share(optics: Optics, beta_gamma: float, out: float) -> float:
    """Share of the stored ions that a core at full drive takes in a turn, once this share of the beam has left: by the
    beam's density in momentum and amplitude alone."""
    if isinstance(optics.drive, KnockOut):
        raise ConfigError("tracking.stack", "an exciter", "drive.kind", "betatron: only a core goes through a stack")
    step = stack_step(optics) / math.sqrt(beta_gamma)
    away = step * AMPLITUDE - place_of(1.0 - out, step)
    density = float(np.mean(np.exp(-0.5 * away**2))) / math.sqrt(2.0 * math.pi)
    return density / (1.0 - out) * abs(optics.drive.delta_per_turn) / optics.beam.momentum_spread


def expected(model: RateModel, optics: Optics, beta_gamma: float, start: FirstStart, drive: float) -> FloatArray:
    """What the model says of `start.share_per_turn`, but for an exciter's own constant: rate over the ions stored."""
    if model.kind == "rfko":
        filling = np.array([model.edge_level(float(out)) for out in start.out])
        followed = step_level(start, drive, model.drive_edge_turns)
        return np.asarray(filling * followed * drive ** POWER["rfko"], np.float64)
    return np.array([stack_share(optics, beta_gamma, float(out)) * drive for out in start.out])
