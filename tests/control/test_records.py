"""Layer tables, verdicts, session records, spot log and report."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from control.layer_table import (  # fmt: skip
    COLUMN,
    LayerRules,
    add_earlier,
    judge,
    program_fault,
    register_rows,
    spot_table,
    table_crc32,
)
from control.report import LayerTruth, session_report
from control.session import Session
from control.spot_log import read_spot_log, spot_log, spot_log_bytes, write_spot_log
from facility.pv_catalogue import REGISTER_COLUMNS, SPOT_COLUMNS
from tests.control.fakes import FakeLayer, program

RULES = LayerRules()


def register(layer: FakeLayer, start: np.ndarray | None = None, share: float = 1.0) -> np.ndarray:
    n = layer.target_ions.size
    start = np.zeros(n) if start is None else start
    rows = np.zeros((n, len(REGISTER_COLUMNS)))
    rows[:, COLUMN["spot"]] = np.arange(n)
    rows[:, COLUMN["target_ions"]] = layer.target_ions
    rows[:, COLUMN["start_ions"]] = start
    rows[:, COLUMN["ic1_ions"]] = (layer.target_ions - start) * share
    rows[:, COLUMN["ic2_ions"]] = rows[:, COLUMN["ic1_ions"]] * 1.002
    rows[:, COLUMN["x_mm"]] = layer.x_mm + 0.1
    rows[:, COLUMN["y_mm"]] = layer.y_mm - 0.05
    rows[:, COLUMN["beam_us"]] = 1000.0
    rows[:, COLUMN["t_end_ns"]] = 1e9 + np.arange(n)
    rows[:, COLUMN["done"]] = 1.0
    return rows


def test_the_table_says_where_beam_is_off_and_how_long_a_spot_may_last() -> None:
    layer = dataclasses.replace(program(layers=1).layers[0], x_mm=np.r_[np.zeros(10), np.full(10, 30.0)])
    table = spot_table(layer, np.zeros(20), RULES)
    column = {name: table[:, i] for i, name in enumerate(SPOT_COLUMNS)}
    assert column["beam_off_move"].tolist() == [0.0] * 10 + [1.0] + [0.0] * 9
    assert np.all(column["limit_us"] >= RULES.spot_timeout_min_us)
    assert column["limit_us"][19] == pytest.approx(max(RULES.spot_timeout_factor * layer.target_ions[19] / 10.0, 5e4))
    assert table_crc32(table) == zlib.crc32(table.astype("<f8").tobytes())
    assert table_crc32(table) != table_crc32(table + np.eye(20, len(SPOT_COLUMNS)) * 1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_ions": np.r_[0.0, np.ones(19)]}, "without ions"),
        ({"x_mm": np.r_[np.nan, np.zeros(19)]}, "no number"),
        ({"y_mm": np.zeros(3)}, "different length"),
        ({"token": 0}, "token 0"),
        ({"token": 2**31}, "31-bit"),
        ({"intensity_ions_per_s": 0.0}, "without intensity"),
    ],
)
def test_a_layer_that_cannot_be_is_named(change: dict[str, object], words: str) -> None:
    layer = program(layers=1).layers[0]
    assert program_fault(layer) is None
    fault = program_fault(dataclasses.replace(layer, **change))  # type: ignore[arg-type]
    assert fault is not None
    assert words in fault


def test_only_the_register_of_this_load_counts() -> None:
    layer, other = program(layers=1).layers[0], program(layers=1, ions=2e5).layers[0]
    start = layer.target_ions * 0.5
    flat = register(layer, start).ravel()
    assert register_rows(flat, layer, start) is not None
    assert register_rows(np.r_[flat, np.zeros(50)], layer, start) is not None  # a waveform padded with zeros
    assert register_rows(np.r_[flat, np.ones(10)], layer, start) is None
    assert register_rows(flat, layer, np.zeros(20)) is None
    assert register_rows(flat, other, start) is None
    assert register_rows(flat[:-1], layer, start) is None


def test_a_good_register_has_no_fault_and_small_misses_pass() -> None:
    layer = program(layers=1).layers[0]
    rows = register(layer)
    assert judge(layer, rows, RULES).good
    rows[4, COLUMN["ic1_ions"]] += 1500.0  # three counts
    verdict = judge(layer, rows, RULES)
    assert verdict.good
    assert verdict.worst_spot == 4
    assert verdict.worst_spot_error_ions == pytest.approx(1500.0)
    assert verdict.worst_position_mm == pytest.approx(math.hypot(0.1, 0.05))
    rows[4, COLUMN["ic1_ions"]] += 5000.0
    assert "spot 4" in judge(layer, rows, RULES).faults[0]


def test_loads_of_a_layer_add_up() -> None:
    layer = program(layers=1).layers[0]
    first = register(layer, share=0.4)
    first[10:, [COLUMN["ic1_ions"], COLUMN["ic2_ions"], COLUMN["done"], COLUMN["t_end_ns"]]] = 0.0
    start = first[:, COLUMN["ic1_ions"]].copy()
    second = register(layer, start)
    total = add_earlier(second, first)
    np.testing.assert_allclose(total[:, COLUMN["ic1_ions"]], layer.target_ions)
    assert total[0, COLUMN["beam_us"]] == 2000.0
    untouched = second.copy()
    untouched[3, [COLUMN["x_mm"], COLUMN["y_mm"], COLUMN["t_end_ns"]]] = 0.0
    assert add_earlier(untouched, first)[3, COLUMN["x_mm"]] == first[3, COLUMN["x_mm"]]
    assert add_earlier(second, None) is second


def delivered_session() -> Session:
    plan = program(layers=3)
    session = Session("S-0123456789ab", plan, mode="qa", operator="test", t_ns=0)
    session.t_started_ns = 1_000_000_000
    for layer in plan.layers:
        session.armed(2_000_000_000)
        session.verified(register(layer), 3_000_000_000)
    session.status = "completed"
    return session


def test_the_summary_is_canonical_json() -> None:
    summary = delivered_session().summary(5_000_000_000)
    data = json.loads(summary.to_json())
    assert data["schema"] == "ionctl.session-summary/1"
    assert (data["spots"], data["spots_done"], data["facility_s"]) == (60, 60, 4.0)
    assert data["layers"][1]["worst_position_mm"] == pytest.approx(math.hypot(0.1, 0.05))
    assert summary.to_json() == delivered_session().summary(5_000_000_000).to_json()


def test_the_spot_log_is_the_same_bytes_for_the_same_rows(tmp_path: Path) -> None:
    session = delivered_session()
    assert spot_log_bytes(session) == spot_log_bytes(delivered_session())
    path = tmp_path / "spots.parquet"
    assert write_spot_log(session, path) == 60
    table = read_spot_log(path)
    assert table.column("layer").to_pylist() == [0] * 20 + [1] * 20 + [2] * 20
    assert table.schema.field("x_mm").metadata[b"unit"] == b"mm"
    assert table.schema.field("beam_us").metadata[b"unit"] == b"us"
    assert table.schema.metadata[b"plan_hash"] == session.program.plan_hash.encode()
    assert table.column("t_end_ns").to_pylist()[1] == 1_000_000_001


def test_totals_are_rounded_once_so_that_every_python_writes_the_same_digits() -> None:
    """`sum` of floats adds one after the other up to Python 3.11, and compensates from 3.12 on."""
    session = delivered_session()
    for book, ions in zip(session.books, (1e16, 1.0, 1.0), strict=True):
        assert book.result is not None
        book.result = book.booked = replace(book.result, ic1_ions=ions, ic2_ions=ions, beam_on_s=ions)
    summary = session.summary(5_000_000_000)
    exact = 10_000_000_000_000_002.0  # one after the other: 1e16
    assert (summary.ic1_ions, summary.ic2_ions, summary.beam_on_s) == (exact, exact, exact)
    assert session.done()[1:] == (exact, exact)


def test_spots_that_were_not_measured_are_null(tmp_path: Path) -> None:
    session = delivered_session()
    rows = session.books[0].rows
    assert rows is not None
    rows[5, [COLUMN["x_mm"], COLUMN["y_mm"]]] = 0.0
    assert spot_log(session).column("x_meas_mm").null_count == 1
    empty = Session("S-0", program(), mode="qa", operator="test", t_ns=0)
    assert spot_log(empty).num_rows == 0
    assert write_spot_log(empty, tmp_path / "empty.parquet") == 0


def test_a_file_that_is_no_spot_log_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="not ionctl"):
        read_spot_log(path)


def test_the_report_judges_by_truth_where_it_has_it() -> None:
    session = delivered_session()
    summary = session.summary(5_000_000_000)
    without = session_report(session, summary)
    assert without.truth_ions is None
    assert without.worst_spot_error_pct == 0.0
    assert without.p99_position_error_mm == pytest.approx(math.hypot(0.1, 0.05))
    truth = {}
    for layer in session.program.layers:
        ions = layer.target_ions * 1.03
        truth[layer.token] = LayerTruth(ions, np.asarray(layer.x_mm) + 0.3, np.asarray(layer.y_mm))
    report = session_report(session, summary, truth)
    assert report.truth_ions == pytest.approx(1.03 * summary.prescribed_ions)
    assert report.worst_spot_error_pct == pytest.approx(3.0)
    assert report.worst_position_error_mm == pytest.approx(0.3)
    assert [row.truth_ions for row in report.rows] == [pytest.approx(1.03 * r.prescribed_ions) for r in report.rows]
    line = report.deliver_json(wall_s=1.5)
    wanted = "session status spots layers prescribed delivered worst_spot_error_pct p99_position_error_mm beam_on_s"
    assert set(wanted.split()) | {"facility_s", "wall_s", "interlocks"} <= set(line)
    assert line["delivered"] == report.truth_ions


def test_a_layer_from_the_journal_has_no_time_rather_than_a_negative_one() -> None:
    session = Session("S-1", program(layers=2), mode="clinical", operator="op", t_ns=0)
    rows = register(program(layers=2).layers[0])
    session.restore(rows, np.zeros(len(rows)), 1, 5_000_000_000, verified=True)
    assert session.summary(6_000_000_000).layers[0].time_s == 0.0
    part = rows * (np.arange(len(rows)) < 3)[:, None]
    session.restore(part, np.zeros(len(rows)), 1, 5_000_000_000, verified=False)
    session.armed(104_000_000_000)
    late = rows.copy()
    late[:, COLUMN["t_end_ns"]] = 105e9
    assert session.verified(late, 106_000_000_000).time_s == 1.0, "of this part alone"
