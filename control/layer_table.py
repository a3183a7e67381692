"""From a layer of the program to the table a front end takes, and back from its register to a verdict.

Array work only: a layer of 10,000 spots costs the same few calls as one of ten.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facility.config.models import Facility
from facility.landing import stop_ms
from facility.pv_catalogue import MAX_SPOTS_PER_LAYER, REGISTER_COLUMNS, SPOT_COLUMNS

FloatArray = npt.NDArray[np.float64]

MOST_STARTED = 1.5
"""Largest share of its target that a front end takes for what a spot got before."""
COLUMN = {name: i for i, name in enumerate(REGISTER_COLUMNS)}
"""Column of the register by name."""


class LayerLike(Protocol):
    """What control needs of a layer of the machine program; arrays are float64 of shape (n,)."""

    @property
    def beam_index(self) -> int:
        """0-based."""
        ...

    @property
    def layer_index(self) -> int:
        """0-based within the beam."""
        ...

    @property
    def token(self) -> int:
        """Unique within the program, positive, below 2^31."""
        ...

    @property
    def species(self) -> str: ...

    @property
    def energy_code(self) -> int: ...

    @property
    def energy_mev_u(self) -> float: ...

    @property
    def intensity_ions_per_s(self) -> float: ...

    @property
    def x_mm(self) -> FloatArray: ...

    @property
    def y_mm(self) -> FloatArray: ...

    @property
    def x_set_a(self) -> FloatArray: ...

    @property
    def y_set_a(self) -> FloatArray: ...

    @property
    def target_ions(self) -> FloatArray: ...

    @property
    def range_shifter_code(self) -> int:
        """Bit mask over the facility's range shifters."""
        ...

    @property
    def expected_s(self) -> float: ...

    @property
    def ions_per_count(self) -> float:
        """Ions behind one count of the first chamber."""
        ...

    @property
    def transport_set(self) -> int:
        """Number of the transport's set points."""
        ...


@dataclass(frozen=True)
class LayerRules:
    """Numbers of the front end and tolerances of the layer check.

    - `spot_rel`, `spot_counts`, `spot_beam_us`: a spot may miss by max(`spot_rel` x target, `spot_counts` counts
      of the chamber + intensity x `spot_beam_us`).
    - `layer_rel`: the first chamber's sum may miss by this share plus the same absolute term.
    - `chambers_rel`: the second chamber's sum may differ from the first by this share plus `chambers_counts` counts.
    - `cut_rel`, `cut_counts`, `cut_beam_us`: by this share, so many counts and intensity x `cut_beam_us` they may
      differ at a spot of a load that was stopped: gains are calibrated to 0.2 %, the second is booked by whole ticks.
    The limits are wider than the tolerances of delivery: the check finds a front end that is wrong, it is no interlock.
    """

    beam_off_move_mm: float = 20.0
    spot_timeout_factor: float = 10.0
    spot_timeout_min_us: float = 50_000.0
    spot_rel: float = 0.02
    spot_counts: float = 4.0
    spot_beam_us: float = 60.0
    layer_rel: float = 0.005
    chambers_rel: float = 0.05
    cut_rel: float = 0.01
    cut_counts: float = 20.0
    cut_beam_us: float = 20.0
    chambers_counts: float = 40.0
    stop_ms: float = 3.0
    """What a stop adds to the time with the spill commanded, ms."""

    @staticmethod
    def of(facility: Facility) -> LayerRules:
        """The rules as the facility's front end has them."""
        front_end = facility.front_end
        return LayerRules(
            beam_off_move_mm=facility.beam_off_move_mm,
            spot_timeout_factor=front_end.spot_timeout_factor,
            spot_timeout_min_us=front_end.spot_timeout_min_ms * 1e3,
            stop_ms=stop_ms(facility),
        )


def counted_ions(layer: LayerLike, rows: FloatArray | None, uncertain: FloatArray) -> FloatArray:
    """What counts as delivered, ions (n,), from total rows and uncertain charge (n,).

    A spot that is done is done, whatever its counts: it is never begun again for what is missing to its prescription.
    One that has got far too much has no more than `MOST_STARTED` of it here: there is nothing left of it all the same.
    """
    most = MOST_STARTED * layer.target_ions
    if rows is None:
        return np.minimum(uncertain, most)
    ions = np.maximum(rows[:, COLUMN["ic1_ions"]], 0.0) + uncertain
    return np.minimum(np.where(rows[:, COLUMN["done"]] > 0.5, np.maximum(ions, layer.target_ions), ions), most)


def moves_mm(layer: LayerLike) -> FloatArray:
    """Distances (n - 1,) from each spot to the next."""
    moves: FloatArray = np.hypot(np.diff(layer.x_mm), np.diff(layer.y_mm))
    return moves


def spot_table(layer: LayerLike, start_ions: FloatArray, rules: LayerRules) -> FloatArray:
    """The table of shape (n, len(SPOT_COLUMNS)); `start_ions` (n,) was delivered by earlier loads."""
    x, y = layer.x_mm, layer.y_mm
    beam_off_move = np.zeros(x.size)
    beam_off_move[1:] = moves_mm(layer) > rules.beam_off_move_mm
    expected_us = layer.target_ions / layer.intensity_ions_per_s * 1e6
    columns = {
        "x_mm": x,
        "y_mm": y,
        "x_set_a": layer.x_set_a,
        "y_set_a": layer.y_set_a,
        "target_ions": layer.target_ions,
        "start_ions": start_ions,
        "beam_off_move": beam_off_move,
        "limit_us": np.maximum(rules.spot_timeout_factor * expected_us, rules.spot_timeout_min_us),
    }
    table = np.empty((x.size, len(SPOT_COLUMNS)))
    for k, name in enumerate(SPOT_COLUMNS):
        table[:, k] = columns[name]
    return table


def field_preset(layers: Sequence[LayerLike], rules: LayerRules) -> tuple[float, float]:
    """What a field should get over all its layers, ions, and the time with the spill commanded that takes, ms."""
    ions = expected_ms = 0.0
    for layer in layers:
        total = float(layer.target_ions.sum())
        stops = 1 + int(np.count_nonzero(moves_mm(layer) > rules.beam_off_move_mm))
        ions += total
        expected_ms += 1e3 * total / layer.intensity_ions_per_s + stops * rules.stop_ms
    return ions, expected_ms


def table_crc32(table: FloatArray) -> int:
    """CRC-32 over the little-endian float64 bytes, row-major."""
    return zlib.crc32(np.ascontiguousarray(table, dtype="<f8").tobytes())


def program_fault(layer: LayerLike) -> str | None:
    """Why this layer cannot be a table at all, in words; None if it can."""
    n = layer.target_ions.size
    if not 1 <= n <= MAX_SPOTS_PER_LAYER:
        return f"{n} spots; a table holds 1 to {MAX_SPOTS_PER_LAYER}"
    columns = (layer.x_mm, layer.y_mm, layer.x_set_a, layer.y_set_a, layer.target_ions)
    if any(column.shape != (n,) for column in columns):
        return "columns of different length"
    if not all(bool(np.isfinite(column).all()) for column in columns):
        return "a value that is no number"
    if not bool((layer.target_ions > 0.0).all()) or not layer.intensity_ions_per_s > 0.0:
        return "a spot without ions or a layer without intensity"
    if not 0 < layer.token < 2**31:
        return f"token {layer.token} is not a positive 31-bit number"
    return None


def register_rows(value: Any, layer: LayerLike, start_ions: FloatArray) -> FloatArray | None:
    """The register as (n, len(REGISTER_COLUMNS)); None if it is not the register of this load of this layer.

    Its ions are those of this load alone; `start_ions` came before.
    """
    flat = np.asarray(value, dtype=np.float64).ravel()
    n = layer.target_ions.size
    if flat.size < n * len(REGISTER_COLUMNS):
        return None
    rows = flat[: n * len(REGISTER_COLUMNS)].reshape(n, len(REGISTER_COLUMNS))
    mine = (
        np.array_equal(rows[:, COLUMN["spot"]], np.arange(n, dtype=np.float64))
        and np.array_equal(rows[:, COLUMN["target_ions"]], layer.target_ions)
        and np.array_equal(rows[:, COLUMN["start_ions"]], start_ions)
    )
    return rows if mine and not bool(flat[rows.size :].any()) else None


def add_earlier(rows: FloatArray, earlier: FloatArray | None) -> FloatArray:
    """Register rows of this load with what earlier loads of the layer gave: ions and beam time become totals."""
    if earlier is None:
        return rows
    total = rows.copy()
    for name in ("ic1_ions", "ic2_ions", "beam_us"):
        total[:, COLUMN[name]] += earlier[:, COLUMN[name]]
    total[:, COLUMN["done"]] = np.maximum(rows[:, COLUMN["done"]], earlier[:, COLUMN["done"]])
    untouched = rows[:, COLUMN["t_end_ns"]] == 0.0
    total[untouched, COLUMN["t_end_ns"]] = earlier[untouched, COLUMN["t_end_ns"]]
    unseen = ~measured(rows)
    for name in ("x_mm", "y_mm"):
        total[unseen, COLUMN[name]] = earlier[unseen, COLUMN[name]]
    return total


def measured(rows: FloatArray) -> npt.NDArray[np.bool_]:
    """Spots (n,) for which the strip chamber gave a centroid; the register holds zero twice, or NaN, where not."""
    x, y = rows[:, COLUMN["x_mm"]], rows[:, COLUMN["y_mm"]]
    seen: npt.NDArray[np.bool_] = np.isfinite(x) & np.isfinite(y) & ((x != 0.0) | (y != 0.0))
    return seen


@dataclass(frozen=True)
class Verdict:
    """What the register says about a layer. Ions are totals: earlier loads included."""

    ic1_ions: float
    ic2_ions: float
    worst_spot_error_ions: float
    """Signed, of the spot that is furthest from its prescription by the first chamber."""
    worst_spot: int
    worst_position_mm: float
    """Largest distance between the strip chamber's centroid and the plan; NaN where nothing was measured."""
    done_spots: int
    faults: tuple[str, ...]

    @property
    def good(self) -> bool:
        """No fault found."""
        return not self.faults


def judge(
    layer: LayerLike, rows: FloatArray, rules: LayerRules, complete: bool = True, uncertain: FloatArray | None = None
) -> Verdict:
    """Compare total rows (`add_earlier`) with the prescription; `complete`: every spot must be done.

    `uncertain` charge (n,) counts as delivered, by both chambers. What a spot had got beyond its prescription before
    the last load is on record, and no fault of this one.
    """
    target = layer.target_ions
    if uncertain is not None and bool(uncertain.any()):
        rows = rows.copy()
        for name in ("ic1_ions", "ic2_ions"):
            rows[:, COLUMN[name]] += uncertain
    ic1, ic2 = rows[:, COLUMN["ic1_ions"]], rows[:, COLUMN["ic2_ions"]]
    error = ic1 - target
    worst = int(np.argmax(np.abs(error)))
    done = int(np.count_nonzero(rows[:, COLUMN["done"]] > 0.5))
    sums = float(ic1.sum()), float(ic2.sum())
    return Verdict(
        ic1_ions=sums[0],
        ic2_ions=sums[1],
        worst_spot_error_ions=float(error[worst]),
        worst_spot=worst,
        worst_position_mm=worst_position_mm(layer, rows),
        done_spots=done,
        faults=_faults(layer, rows, rules, done, uncertain) if complete else (),
    )


def _known_excess(target: FloatArray, rows: FloatArray) -> FloatArray:
    """Ions (n,) beyond the prescription that came before the last load."""
    start = rows[:, COLUMN["start_ions"]]
    whole = start >= MOST_STARTED * target  # `counted_ions` says no more
    excess: FloatArray = np.maximum(np.where(whole, rows[:, COLUMN["ic1_ions"]], start) - target, 0.0)
    return excess


def _faults(
    layer: LayerLike, rows: FloatArray, rules: LayerRules, done: int, uncertain: FloatArray | None
) -> tuple[str, ...]:
    if not bool(np.isfinite(rows[:, [COLUMN["ic1_ions"], COLUMN["ic2_ions"], COLUMN["done"]]]).all()):
        return ("the register holds values that are no numbers",)
    faults: list[str] = []
    target = layer.target_ions
    count = layer.ions_per_count
    absolute = rules.spot_counts * count + layer.intensity_ions_per_s * rules.spot_beam_us * 1e-6
    if done != target.size:
        faults.append(f"{target.size - done} of {target.size} spots are not done")
    error = rows[:, COLUMN["ic1_ions"]] - _known_excess(target, rows) - target
    over = np.abs(error) - np.maximum(rules.spot_rel * target, absolute)
    spot = int(np.argmax(over))
    if over[spot] > 0.0:
        faults.append(f"spot {spot} got {target[spot] + error[spot]:.0f} ions, prescribed {target[spot]:.0f}")
    prescribed = float(target.sum())
    if abs(float(error.sum())) > rules.layer_rel * prescribed + absolute:
        faults.append(f"chamber 1 counted {prescribed + float(error.sum()):.0f} ions, prescribed {prescribed:.0f}")
    first, second = (float(rows[_measured_by_both(rows, uncertain), COLUMN[name]].sum())
                     for name in ("ic1_ions", "ic2_ions"))  # fmt: skip
    if abs(second - first) > rules.chambers_rel * prescribed + rules.chambers_counts * count:
        faults.append(f"chamber 2 counted {second:.0f} ions, chamber 1 {first:.0f}")
    return tuple(faults)


def _measured_by_both(rows: FloatArray, uncertain: FloatArray | None) -> npt.NDArray[np.bool_]:
    """Spots (n,) of which both chambers know all: without uncertain charge, nor an earlier load that one of them has
    lost (`control.chambers`)."""
    lost: npt.NDArray[np.bool_] = (rows[:, COLUMN["start_ions"]] > 0.0) & (rows[:, COLUMN["ic2_ions"]] == 0.0)
    return ~lost if uncertain is None else ~lost & (uncertain == 0.0)


def position_distances(layer: LayerLike, rows: FloatArray) -> FloatArray:
    """Distance between measured and planned spot centre at isocentre, mm, of finished spots that were measured."""
    distance = np.hypot(rows[:, COLUMN["x_mm"]] - layer.x_mm, rows[:, COLUMN["y_mm"]] - layer.y_mm)
    seen: FloatArray = distance[measured(rows) & (rows[:, COLUMN["done"]] > 0.5)]
    return seen


def worst_position_mm(layer: LayerLike, rows: FloatArray) -> float:
    """Largest of `position_distances`, mm; NaN if nothing was measured."""
    seen = position_distances(layer, rows)
    return float(seen.max()) if seen.size else float("nan")
