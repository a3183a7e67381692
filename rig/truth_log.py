"""The truth per spot that a session leaves: what crossed the isocentre plane, beside what was planned.

One row per spot of the program, whether or not it came. Only tests and reports read it; dose is computed from it. The
bytes depend on rows and metadata alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from control.plan.program import LayerProgram, MachineProgram
from facility.config import Facility
from facility.errors import ConfigError
from rig.truth_check import T_IONS, T_SUM_X, T_SUM_Y

TRUTH_LOG_FILE = "truth.parquet"
SCHEMA = "ionctl.truth-log/1"
FloatArray = npt.NDArray[np.float64]
_COLUMNS: tuple[tuple[str, pa.DataType, str, str], ...] = (
    ("layer", pa.int32(), "1", "layer, 0-based within the program"),
    ("beam", pa.int32(), "1", "number of the beam in the plan"),
    ("spot", pa.int32(), "1", "spot, 0-based within the layer, in delivery order"),
    ("energy_mev_u", pa.float64(), "MeV/u", "of the ring, by the energy table"),
    ("shifter_mm", pa.float64(), "mm", "water equivalent of the range shifters in the beam"),
    ("x_mm", pa.float64(), "mm", "planned position at the isocentre"),
    ("y_mm", pa.float64(), "mm", "planned position at the isocentre"),
    ("target_ions", pa.float64(), "ions", "prescription"),
    ("ions", pa.float64(), "ions", "that crossed the isocentre plane"),
    ("x_true_mm", pa.float64(), "mm", "their mean position; null where no ion came"),
    ("y_true_mm", pa.float64(), "mm", "their mean position; null where no ion came"),
)


@dataclass(frozen=True, eq=False)
class TruthLog:
    """A truth log that was read: metadata, and columns as float64 of shape (n,)."""

    metadata: dict[str, str]
    columns: dict[str, FloatArray]


def shifter_mm(layer: LayerProgram, facility: Facility) -> float:
    """Water equivalent of the range shifters in the beam during a layer, mm."""
    by_id = {one.id: one.water_equivalent_mm for one in facility.range_shifters}
    return float(sum(by_id[name] for name in layer.range_shifter_ids))


def write_truth_log(
    path: Path, session: str, program: MachineProgram, truth: Mapping[int, FloatArray], facility: Facility
) -> None:
    """Write the rows of all layers of a program; `truth` by layer token, (n, 5) as the plant keeps it."""
    columns: dict[str, list[FloatArray]] = {name: [] for name, *_ in _COLUMNS}
    for index, layer in enumerate(program.layers):
        for name, values in _layer(index, layer, truth.get(layer.token), facility).items():
            columns[name].append(values)
    metadata = {
        "schema": SCHEMA, "session": session, "facility": program.facility_id, "facility_hash": program.facility_hash,
        "room": program.room_id, "plan_hash": program.plan_hash, "species": program.layers[0].species,
    }  # fmt: skip
    arrays = [_array(np.concatenate(columns[name]), name, kind) for name, kind, *_ in _COLUMNS]
    fields = [
        pa.field(name, kind, metadata={"unit": unit, "description": words}) for name, kind, unit, words in _COLUMNS
    ]
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata)), path, compression="zstd",
        compression_level=3, version="2.6", row_group_size=1_000_000, use_dictionary=["layer", "beam"],
        store_schema=True,
    )  # fmt: skip


def _layer(index: int, layer: LayerProgram, rows: FloatArray | None, facility: Facility) -> dict[str, FloatArray]:
    n = layer.n_spots
    found = np.zeros((n, 5)) if rows is None else rows
    ions = found[:, T_IONS]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (np.where(ions > 0.0, found[:, column] / ions, np.nan) for column in (T_SUM_X, T_SUM_Y))
    return {
        "layer": np.full(n, float(index)), "beam": np.full(n, float(layer.beam_number)), "spot": np.arange(float(n)),
        "energy_mev_u": np.full(n, layer.energy_mev_u), "shifter_mm": np.full(n, shifter_mm(layer, facility)),
        "x_mm": layer.x_mm, "y_mm": layer.y_mm, "target_ions": layer.target_ions, "ions": ions,
        "x_true_mm": x, "y_true_mm": y,
    }  # fmt: skip


def _array(values: FloatArray, name: str, kind: pa.DataType) -> pa.Array:
    if kind == pa.int32():
        return pa.array(values.astype(np.int32), type=kind)
    return pa.array(values, type=kind, mask=np.isnan(values) if name.endswith("_true_mm") else None)


def read_truth_log(path: Path) -> TruthLog:
    """Read a truth log; ConfigError if there is none, or the file is none of this version."""
    fix = "sessions with a part whose console died, and those of older versions, have none"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as problem:
        raise ConfigError("truth.missing", "there is no truth per spot", str(path), fix) from problem
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if metadata.get("schema") != SCHEMA:
        found = metadata.get("schema", "none")
        raise ConfigError("truth.schema", f"schema is {found}, not {SCHEMA}", str(path), "deliver again")
    columns: dict[str, Any] = {
        name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name, *_ in _COLUMNS
    }
    return TruthLog(metadata, columns)
