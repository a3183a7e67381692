"""The sample log: what the front end and the ring showed while a session was open, as an Arrow table and as Parquet.

One row for each status of the front end that control heard, ten a second at most, and one more at each change of its
state. What control sees is on record, not what was true: the truth is the rig's.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from channels.protocol import Channel, Sample
from control.machine_link import MachineLink
from control.session import Session
from control.spot_log import log_metadata
from facility.pv_catalogue import FE_STATUS, RING_STATUS

SAMPLE_LOG_SCHEMA = "ionctl.sample-log/1"
MOST_ROWS = 400_000
"""Eleven hours at ten a second; what comes later is not kept, and counted."""
_INTEGERS = frozenset(
    {"seq", "state", "hold_reason", "token", "spot", "spots", "done_spots", "first_rule", "permit_epoch"}
)
_UNITS = {"ic1_ions": "ions", "ic2_ions": "ions", "beam_us": "us"}
_RING = ("phase", "energy_code", "cycle", "ions")
_NAMES = ("t_ns", *(f"fe_{name}" for name in FE_STATUS), *(f"ring_{name}" for name in _RING))


class SampleLog:
    """Keeps what is heard of one session after the other; the last one's samples are there until the next is opened."""

    def __init__(self) -> None:
        self._rows = array("d")
        """Row by row: tuples of numbers would take four times as much."""
        self._ring: tuple[float, ...] = (0.0,) * len(_RING)
        self._session = ""
        self.lost = 0

    def follow(self, link: MachineLink) -> None:
        """Listen to what control listens to."""
        link.follow("RING:Status-RB", self._heard_ring)
        link.follow("FE:Status-RB", self._heard)

    def told(self, topic: str, data: Mapping[str, Any]) -> None:
        """A listener of the sequencer: another session begins another log."""
        if topic == "session" and data["session"] not in ("", self._session):
            self._session, self._rows, self.lost = str(data["session"]), array("d"), 0

    def _heard_ring(self, _channel: Channel, sample: Sample) -> None:
        if isinstance(sample.value, np.ndarray) and sample.value.size >= len(RING_STATUS):
            self._ring = tuple(float(sample.value[RING_STATUS.index(name)]) for name in _RING)

    def _heard(self, _channel: Channel, sample: Sample) -> None:
        if not isinstance(sample.value, np.ndarray) or sample.value.size < len(FE_STATUS):
            return
        if len(self._rows) >= MOST_ROWS * len(_NAMES):
            self.lost += 1
            return
        self._rows.extend((float(sample.t_ns), *sample.value[: len(FE_STATUS)].tolist(), *self._ring))

    def table(self, session: Session, config: str = "") -> pa.Table:
        """The rows, oldest first; `config`: the facility's configuration as JSON."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, len(_NAMES))
        fields, arrays = [], []
        for name, column in zip(_NAMES, rows.T, strict=True):
            plain = name.split("_", 1)[1] if name != "t_ns" else name
            whole = name == "t_ns" or plain in _INTEGERS or name in ("ring_phase", "ring_energy_code", "ring_cycle")
            kind = pa.int64() if whole else pa.float64()
            unit = "ns" if name == "t_ns" else "ions" if name == "ring_ions" else _UNITS.get(plain, "1")
            fields.append(pa.field(name, kind, nullable=False, metadata={"unit": unit}))
            arrays.append(pa.array(np.rint(column).astype(np.int64) if whole else column, type=kind))
        metadata = log_metadata(session, SAMPLE_LOG_SCHEMA, config) | {"lost": str(self.lost)}
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))

    def to_bytes(self, session: Session, config: str = "") -> bytes:
        """The Parquet file; the same rows are the same bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            self.table(session, config), sink, compression="zstd", compression_level=3, version="2.6",
            row_group_size=1_000_000, use_dictionary=False, store_schema=True, write_page_index=False,
        )  # fmt: skip
        data: bytes = sink.getvalue().to_pybytes()
        return data
