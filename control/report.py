"""The final table of a session as plain data; how it looks is the console's business.

Truth is what the rig adds: per spot the ions that crossed the isocentre plane and where. Control never sees it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from control.layer_table import FloatArray, position_distances
from control.session import LayerResult, Session, SessionSummary

REPORT_SCHEMA = "ionctl.session-report/1"


@dataclass(frozen=True, eq=False)
class LayerTruth:
    """What one layer got in truth; arrays have shape (n,), spots in delivery order.

    `x_mm`, `y_mm`: true mean position at the isocentre; NaN for spots that got nothing.
    """

    ions: FloatArray
    x_mm: FloatArray
    y_mm: FloatArray


@dataclass(frozen=True)
class ReportRow:
    """One layer of the table. Columns of truth are None where none was given. Errors are signed."""

    layer: int
    """0-based within the program."""
    beam: int
    energy_mev_u: float
    intensity_ions_per_s: float
    spots: int
    spots_done: int
    prescribed_ions: float
    ic1_ions: float
    ic2_ions: float
    truth_ions: float | None
    worst_spot_error_ions: float
    """By truth where given, else by the first chamber."""
    worst_spot_error_pct: float
    """Of the layer's heaviest spot."""
    worst_position_error_mm: float | None
    """By truth where given, else by the strip chamber."""
    time_s: float
    beam_on_s: float


@dataclass(frozen=True)
class SessionReport:
    """The table, its last line, and what ended the session."""

    session: str
    status: str
    reason: str
    rows: tuple[ReportRow, ...]
    spots: int
    spots_done: int
    layers: int
    prescribed_ions: float
    ic1_ions: float
    ic2_ions: float
    truth_ions: float | None
    worst_spot_error_pct: float
    worst_position_error_mm: float | None
    p99_position_error_mm: float | None
    beam_on_s: float
    facility_s: float
    interlocks: tuple[dict[str, Any], ...]
    schema: str = REPORT_SCHEMA

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def deliver_json(self, wall_s: float | None = None) -> dict[str, Any]:
        """The one object that `ionctl deliver --json` prints; `wall_s` is the rig's to measure."""
        delivered = self.ic1_ions if self.truth_ions is None else self.truth_ions
        return {
            "session": self.session,
            "status": self.status,
            "reason": self.reason,
            "spots": self.spots_done,
            "layers": self.layers,
            "prescribed": self.prescribed_ions,
            "delivered": delivered,
            "delivered_ic1": self.ic1_ions,
            "delivered_ic2": self.ic2_ions,
            "worst_spot_error_pct": self.worst_spot_error_pct,
            "p99_position_error_mm": self.p99_position_error_mm,
            "beam_on_s": self.beam_on_s,
            "facility_s": self.facility_s,
            "wall_s": wall_s,
            "interlocks": list(self.interlocks),
        }


def session_report(
    session: Session, summary: SessionSummary, truth: Mapping[int, LayerTruth] | None = None
) -> SessionReport:
    """The report of a session; `truth` by layer token, for layers that have it."""
    truth = truth or {}
    rows = tuple(_row(session, result, truth.get(result.token)) for result in summary.layers)
    distances = _distances(session, summary.layers, truth)
    known = [row.truth_ions for row in rows if row.truth_ions is not None]
    return SessionReport(
        session=summary.session,
        status=summary.status,
        reason=summary.reason,
        rows=rows,
        spots=summary.spots,
        spots_done=summary.spots_done,
        layers=summary.layers_total,
        prescribed_ions=summary.prescribed_ions,
        ic1_ions=summary.ic1_ions,
        ic2_ions=summary.ic2_ions,
        truth_ions=math.fsum(known) if known and len(known) == len(rows) else None,
        worst_spot_error_pct=max((abs(row.worst_spot_error_pct) for row in rows), default=0.0),
        worst_position_error_mm=float(distances.max()) if distances.size else None,
        p99_position_error_mm=float(np.percentile(distances, 99.0)) if distances.size else None,
        beam_on_s=summary.beam_on_s,
        facility_s=summary.facility_s,
        interlocks=tuple(asdict(interlock) for interlock in summary.interlocks),
    )


def _row(session: Session, result: LayerResult, truth: LayerTruth | None) -> ReportRow:
    error = result.worst_spot_error_ions
    if truth is not None and result.verified:
        errors = truth.ions - session.books[result.index].layer.target_ions
        error = float(errors[int(np.argmax(np.abs(errors)))])
    distance = _layer_distances(session, result, truth)
    return ReportRow(
        layer=result.index,
        beam=result.beam,
        energy_mev_u=result.energy_mev_u,
        intensity_ions_per_s=result.intensity_ions_per_s,
        spots=result.spots,
        spots_done=result.spots_done,
        prescribed_ions=result.prescribed_ions,
        ic1_ions=result.ic1_ions,
        ic2_ions=result.ic2_ions,
        truth_ions=None if truth is None else float(truth.ions.sum()),
        worst_spot_error_ions=error,
        worst_spot_error_pct=100.0 * error / result.heaviest_spot_ions,
        worst_position_error_mm=float(distance.max()) if distance.size else None,
        time_s=result.time_s,
        beam_on_s=result.beam_on_s,
    )


def _layer_distances(session: Session, result: LayerResult, truth: LayerTruth | None) -> FloatArray:
    book = session.books[result.index]
    if truth is not None:
        distance = np.hypot(truth.x_mm - book.layer.x_mm, truth.y_mm - book.layer.y_mm)
    elif book.log_rows is not None:
        distance = position_distances(book.layer, book.log_rows)
    else:
        return np.zeros(0)
    finite: FloatArray = distance[np.isfinite(distance)]
    return finite


def _distances(session: Session, results: Sequence[LayerResult], truth: Mapping[int, LayerTruth]) -> FloatArray:
    parts = [_layer_distances(session, result, truth.get(result.token)) for result in results]
    return np.concatenate(parts) if parts else np.zeros(0)
