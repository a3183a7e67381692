"""Truth per spot, summed up anew from the raw ticks of the plant's trace; nothing of rig's judgement is used.

A tick's record holds the ions of its 10 us and how many of them crossed before the set point moved on. The trace is a
ring, so it is read each time the plant has been advanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from control.plan.program import LayerProgram
from facility.config import Facility
from ioc_sim.plant import Plant

IONS, SUM_X, SUM_Y = range(3)
PERCENT, COUNTS, REACTION_S, CEILING = 0.01, 2.0, 20e-6, 0.05
"""The tolerance of a spot as the design states it, not as the product computes it."""


class TickCounter:
    """Sums ions and ions x position of every spot while a plant runs. Put it on before the plant moves."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._seen = 0
        self._spot = -1
        self._token = 0
        self._advance = plant.advance
        self.sums: dict[int, np.ndarray] = {}
        self.strays = 0
        """Ions that crossed while no spot was set."""
        self.total = 0
        self.last_ion_ns = 0
        plant.advance = self._advance_and_count  # type: ignore[method-assign]

    def _advance_and_count(self, until_ns: int) -> int:
        reached_ns = self._advance(until_ns)
        count = self._plant.truth_count
        new = count - self._seen
        if new > len(self._plant.trace):
            raise AssertionError("the trace has wrapped between two looks")
        if new:
            self._book(self._plant.trace[np.arange(self._seen, count) % len(self._plant.trace)])
            self._seen = count
        return reached_ns

    def _book(self, ticks: np.ndarray) -> None:
        ions, before = ticks["ions"].astype(np.int64), ticks["ions_previous_spot"].astype(np.int64)
        spot, token = ticks["spot"].astype(np.int64), ticks["token"].astype(np.int64)
        old_spot = np.concatenate(([self._spot], spot[:-1]))
        old_token = np.concatenate(([self._token], token[:-1]))
        fresh = (old_token != token) | (old_spot < 0)  # armed since: the magnets went to `spot` without a tick
        old_spot = np.where(fresh, spot, old_spot)
        self._spot, self._token = int(spot[-1]), int(token[-1])
        self.total += int(ions.sum())
        if ions.any():
            self.last_ion_ns = int(ticks["t_ns"][np.flatnonzero(ions)[-1]])
        for one in np.unique(token):
            mine = token == one
            where = np.concatenate((old_spot[mine], spot[mine]))
            came = np.concatenate((before[mine], (ions - before)[mine]))
            x = np.tile(ticks["x_um"][mine] * 1e-3, 2)
            y = np.tile(ticks["y_um"][mine] * 1e-3, 2)
            good = (came > 0) & (where >= 0)
            self.strays += int(came[where < 0].sum())
            self._add(int(one), where[good], came[good], x[good], y[good])

    def _add(self, token: int, spot: np.ndarray, ions: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        if spot.size == 0:
            return
        held = self.sums.get(token, np.zeros((0, 3)))
        size = max(len(held), int(spot.max()) + 1)
        grown = np.zeros((size, 3))
        grown[: len(held)] = held
        for column, weight in ((IONS, ions), (SUM_X, ions * x), (SUM_Y, ions * y)):
            grown[:, column] += np.bincount(spot, weights=weight, minlength=size)
        self.sums[token] = grown

    def layer(self, layer: LayerProgram) -> np.ndarray:
        """Ions, mean x and mean y (mm) of each spot of a layer, shape (n, 3); NaN where no ion came."""
        rows = np.zeros((layer.n_spots, 3))
        found = self.sums.get(layer.token, rows[:0])
        if len(found) > len(rows):
            raise AssertionError(f"ions for spot {len(found) - 1} of {len(rows)}")
        rows[: len(found)] = found
        with np.errstate(invalid="ignore"):
            rows[:, SUM_X] /= rows[:, IONS]
            rows[:, SUM_Y] /= rows[:, IONS]
        return rows


@dataclass(frozen=True)
class Judgement:
    """What ticks say about a delivery."""

    spots: int
    missed: tuple[str, ...]
    """Spots outside tolerance, in words."""
    percent_share: float
    """Share of the prescribed ions in spots that their own 1 % holds."""
    total_error: float
    p99_position_mm: float
    strays: int


def tolerance_ions(layer: LayerProgram, facility: Facility) -> tuple[np.ndarray, np.ndarray]:
    """max(1 % of the spot, 2 counts + level x 20 us), at most 5 % of the heaviest; and which spots the 1 % holds."""
    absolute = COUNTS * facility.ions_per_count(layer.species, layer.energy_mev_u)
    absolute += REACTION_S * layer.intensity_ions_per_s
    own = PERCENT * layer.target_ions
    limit = np.minimum(np.maximum(own, absolute), CEILING * layer.target_ions.max())
    return limit, own >= absolute


def judge_ticks(layers: Sequence[LayerProgram], counter: TickCounter, facility: Facility) -> Judgement:
    """Every spot of a program against what crossed the isocentre plane."""
    missed: list[str] = []
    distance: list[np.ndarray] = []
    prescribed = delivered = held = 0.0
    for layer in layers:
        ions, x, y = counter.layer(layer).T
        limit, by_percent = tolerance_ions(layer, facility)
        prescribed += layer.total_ions
        delivered += float(ions.sum())
        held += float(layer.target_ions[by_percent].sum())
        distance.append(np.hypot(x - layer.x_mm, y - layer.y_mm))
        missed.extend(
            f"beam {layer.beam_index}, layer {layer.layer_index}, spot {i}: {ions[i]:.0f} ions, planned "
            f"{layer.target_ions[i]:.0f} +- {limit[i]:.0f}"
            for i in np.flatnonzero(np.abs(ions - layer.target_ions) > limit)
        )
    errors = np.concatenate(distance)
    return Judgement(
        spots=int(errors.size),
        missed=tuple(missed),
        percent_share=held / prescribed,
        total_error=delivered / prescribed - 1.0,
        p99_position_mm=float(np.percentile(errors, 99.0)) if np.isfinite(errors).all() else float("nan"),
        strays=counter.strays + sum(int(v[:, IONS].sum()) for k, v in counter.sums.items() if k not in _tokens(layers)),
    )


def _tokens(layers: Sequence[LayerProgram]) -> set[int]:
    return {layer.token for layer in layers}
