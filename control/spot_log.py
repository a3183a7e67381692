"""The spot log: one row per delivered spot, as an Arrow table and as Parquet.

The bytes depend on the rows and on what is written in the metadata, on nothing else: no time stamp, no host, one row
group, fixed encodings. Two runs with one seed give one file, as long as the Arrow version is the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from control.layer_table import COLUMN, FloatArray, measured
from control.session import Session

SPOT_LOG_SCHEMA = "ionctl.spot-log"
SPOT_LOG_VERSION = "1"

_FIELDS: tuple[tuple[str, pa.DataType, str, str], ...] = (
    ("layer", pa.int32(), "1", "layer, 0-based within the program"),
    ("spot", pa.int32(), "1", "spot, 0-based within the layer, in delivery order"),
    ("x_mm", pa.float64(), "mm", "planned position at the isocentre"),
    ("y_mm", pa.float64(), "mm", "planned position at the isocentre"),
    ("target_ions", pa.float64(), "ions", "prescription"),
    ("ic1_ions", pa.float64(), "ions", "delivered by the first chamber, all loads of the layer"),
    ("ic2_ions", pa.float64(), "ions", "delivered by the second chamber, all loads of the layer"),
    ("x_meas_mm", pa.float64(), "mm", "strip chamber, mean over the spot; null where nothing was measured"),
    ("y_meas_mm", pa.float64(), "mm", "strip chamber, mean over the spot; null where nothing was measured"),
    ("beam_us", pa.float64(), "us", "time with beam demanded, all loads of the layer"),
    ("t_end_ns", pa.int64(), "ns", "facility time of the end of the spot; 0 where it was never begun"),
    ("done", pa.bool_(), "1", "whether the front end finished the spot"),
)


def log_metadata(session: Session, schema: str, config: str) -> dict[str, str]:
    """Who the rows belong to, with hashes; `config` is the facility's configuration as JSON."""
    program = session.program
    return {
        "schema": schema,
        "session": session.id,
        "plan_hash": program.plan_hash,
        "facility": program.facility_id,
        "facility_hash": program.facility_hash,
        "room": program.room_id,
        "mode": session.mode,
        "qa": "true" if program.qa else "false",
        **({"config": config} if config else {}),
    }


def spot_log_schema(session: Session, config: str = "") -> pa.Schema:
    """Columns with units, and who the rows belong to."""
    fields = [
        pa.field(name, kind, nullable=name in ("x_meas_mm", "y_meas_mm"),
                 metadata={"unit": unit, "description": description})
        for name, kind, unit, description in _FIELDS
    ]  # fmt: skip
    return pa.schema(fields, metadata=log_metadata(session, f"{SPOT_LOG_SCHEMA}/{SPOT_LOG_VERSION}", config))


def spot_log(session: Session, config: str = "") -> pa.Table:
    """Rows of every layer whose register has been read, in delivery order."""
    parts = [(i, book, rows) for i, book in enumerate(session.books) if (rows := book.log_rows) is not None]
    columns: dict[str, list[FloatArray]] = {name: [] for name, *_ in _FIELDS}
    for index, book, rows in parts:
        seen = measured(rows)
        columns["layer"].append(np.full(len(rows), float(index)))
        columns["spot"].append(rows[:, COLUMN["spot"]])
        columns["x_mm"].append(book.layer.x_mm)
        columns["y_mm"].append(book.layer.y_mm)
        for name in ("target_ions", "ic1_ions", "ic2_ions", "beam_us", "t_end_ns", "done"):
            columns[name].append(rows[:, COLUMN[name]])
        for name, source in (("x_meas_mm", "x_mm"), ("y_meas_mm", "y_mm")):
            columns[name].append(np.where(seen, rows[:, COLUMN[source]], np.nan))
    arrays = [_array(np.concatenate(columns[name]) if parts else np.zeros(0), name, kind) for name, kind, *_ in _FIELDS]
    return pa.Table.from_arrays(arrays, schema=spot_log_schema(session, config))


def _array(values: FloatArray, name: str, kind: pa.DataType) -> pa.Array:
    if kind == pa.bool_():
        return pa.array(values > 0.5, type=kind)
    if kind == pa.float64():
        return pa.array(values, type=kind, mask=np.isnan(values) if name.endswith("_meas_mm") else None)
    return pa.array(np.rint(values).astype(np.int64), type=kind)


def spot_log_bytes(session: Session, config: str = "") -> bytes:
    """The Parquet file; `config`: see `log_metadata`."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        spot_log(session, config), sink, compression="zstd", compression_level=3, version="2.6", write_statistics=True,
        row_group_size=1_000_000, use_dictionary=["layer"], store_schema=True, write_page_index=False,
    )  # fmt: skip
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_spot_log(session: Session, path: Path, config: str = "") -> int:
    """Write the Parquet file; returns its rows."""
    path.write_bytes(spot_log_bytes(session, config))
    return sum(0 if book.log_rows is None else len(book.log_rows) for book in session.books)


def read_spot_log(path: Path) -> pa.Table:
    """Read a spot log; ValueError if the file is no spot log of this version."""
    table = pq.read_table(path)
    schema = (table.schema.metadata or {}).get(b"schema", b"").decode()
    if schema != f"{SPOT_LOG_SCHEMA}/{SPOT_LOG_VERSION}":
        raise ValueError(f"{path}: schema is '{schema}', not {SPOT_LOG_SCHEMA}/{SPOT_LOG_VERSION}")
    return table
