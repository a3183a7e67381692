"""Judge a delivery by truth: ions and positions that crossed the isocentre plane, against the plan.

Monitors have no say here. A spot is held to |truth - planned| <= max(1 % of the spot, 2 counts + level x 20 us), never
above 5 % of the layer's heaviest spot (`facility.intensity.spot_tolerance_ions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facility.errors import InternalError
from facility.intensity import spot_tolerance_ions

FloatArray = npt.NDArray[np.float64]
T_IONS, T_SUM_X, T_SUM_Y, T_FIRST_NS, T_LAST_NS = range(5)
"""Columns of the truth per spot, as the plant keeps it."""
P99 = 99.0


class PlannedLayer(Protocol):
    """What is needed of a layer of a machine program."""

    @property
    def token(self) -> int: ...
    @property
    def ions_per_count(self) -> float: ...
    @property
    def intensity_ions_per_s(self) -> float: ...
    @property
    def target_ions(self) -> FloatArray: ...
    @property
    def x_mm(self) -> FloatArray: ...
    @property
    def y_mm(self) -> FloatArray: ...


@dataclass(frozen=True)
class LayerTruth:
    """One layer by truth. Errors of unfinished layers count what is missing."""

    index: int
    token: int
    spots: int
    prescribed_ions: float
    truth_ions: float
    heaviest_ions: float
    worst_spot: int
    worst_error_ions: float
    worst_error_pct: float
    """Of the layer's heaviest spot."""
    worst_position_mm: float
    within: int
    """Spots within tolerance."""
    by_percent: int
    """Spots whose tolerance is their own 1 %; the others are held by counts and reaction time."""
    by_percent_ions: float


@dataclass(frozen=True)
class TruthReport:
    """The whole delivery by truth."""

    prescribed_ions: float
    truth_ions: float
    total_error_pct: float
    worst_spot_error_pct: float
    p99_position_error_mm: float
    worst_position_error_mm: float
    spots: int
    spots_within: int
    spots_by_percent: int
    dose_share_by_percent: float
    unplanned_ions: float
    """Booked to layers that the program does not have."""
    layers: tuple[LayerTruth, ...]

    @property
    def within_tolerance(self) -> bool:
        """Every spot."""
        return self.spots_within == self.spots

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SpotTruth:
    """Per-spot columns of one layer, shape (n,); positions are NaN where no ion came."""

    ions: FloatArray
    x_mm: FloatArray
    y_mm: FloatArray
    position_error_mm: FloatArray
    tolerance_ions: FloatArray
    by_percent: npt.NDArray[np.bool_]
    within: npt.NDArray[np.bool_]


def spot_truth(layer: PlannedLayer, rows: FloatArray | None) -> SpotTruth:
    """The spots of one layer by truth; `rows` has shape (n, 5), None if the layer never came."""
    n = int(layer.target_ions.size)
    if rows is None:
        rows = np.zeros((n, 5))
    if rows.shape != (n, 5):
        raise InternalError("truth.shape", f"truth of shape {rows.shape} for {n} spots", f"token {layer.token}")
    ions = rows[:, T_IONS]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(ions > 0.0, rows[:, T_SUM_X] / ions, np.nan)
        y = np.where(ions > 0.0, rows[:, T_SUM_Y] / ions, np.nan)
    heaviest = float(layer.target_ions.max())
    tolerance, by_percent = spot_tolerance_ions(
        layer.target_ions, layer.intensity_ions_per_s, layer.ions_per_count, heaviest
    )
    within = np.abs(ions - layer.target_ions) <= tolerance
    return SpotTruth(ions, x, y, np.hypot(x - layer.x_mm, y - layer.y_mm), tolerance, by_percent, within)


def overdosed(layers: Sequence[PlannedLayer], truth: Mapping[int, FloatArray]) -> list[str]:
    """Spots that had more than their tolerance allows, in words; what was not given is no matter here."""
    found = []
    for layer in layers:
        spots = spot_truth(layer, truth.get(layer.token))
        over = spots.ions - layer.target_ions - spots.tolerance_ions
        found += [f"token {layer.token} spot {k}: {over[k]:.0f} ions" for k in np.flatnonzero(over > 0.0)]
    return found


def judge_truth(layers: Sequence[PlannedLayer], truth: Mapping[int, FloatArray]) -> TruthReport:
    """Judge the truth, by layer token, of a delivery of `layers`."""
    spots = [spot_truth(layer, truth.get(layer.token)) for layer in layers]
    judged = tuple(_layer(i, layer, found) for i, (layer, found) in enumerate(zip(layers, spots, strict=True)))
    errors = np.concatenate([found.position_error_mm for found in spots]) if spots else np.zeros(0)
    errors = errors[np.isfinite(errors)]
    prescribed = float(sum(entry.prescribed_ions for entry in judged))
    total = float(sum(entry.truth_ions for entry in judged))
    planned = {layer.token for layer in layers}
    return TruthReport(
        prescribed_ions=prescribed,
        truth_ions=total,
        total_error_pct=100.0 * (total - prescribed) / prescribed if prescribed > 0.0 else 0.0,
        worst_spot_error_pct=max((abs(entry.worst_error_pct) for entry in judged), default=0.0),
        p99_position_error_mm=float(np.percentile(errors, P99)) if errors.size else 0.0,
        worst_position_error_mm=float(errors.max()) if errors.size else 0.0,
        spots=sum(entry.spots for entry in judged),
        spots_within=sum(entry.within for entry in judged),
        spots_by_percent=sum(entry.by_percent for entry in judged),
        dose_share_by_percent=sum(entry.by_percent_ions for entry in judged) / prescribed if prescribed > 0.0 else 0.0,
        unplanned_ions=float(sum(rows[:, T_IONS].sum() for token, rows in truth.items() if token not in planned)),
        layers=judged,
    )


def _layer(index: int, layer: PlannedLayer, found: SpotTruth) -> LayerTruth:
    error = found.ions - layer.target_ions
    worst = int(np.argmax(np.abs(error)))
    heaviest = float(layer.target_ions.max())
    position = found.position_error_mm[np.isfinite(found.position_error_mm)]
    return LayerTruth(
        index=index,
        token=layer.token,
        spots=int(error.size),
        prescribed_ions=float(layer.target_ions.sum()),
        truth_ions=float(found.ions.sum()),
        heaviest_ions=heaviest,
        worst_spot=worst,
        worst_error_ions=float(error[worst]),
        worst_error_pct=100.0 * float(error[worst]) / heaviest,
        worst_position_mm=float(position.max()) if position.size else 0.0,
        within=int(found.within.sum()),
        by_percent=int(found.by_percent.sum()),
        by_percent_ions=float(layer.target_ions[found.by_percent].sum()),
    )
