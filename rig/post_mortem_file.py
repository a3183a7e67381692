"""The post-mortem file: one second around a trip, every signal each 10 us, in Parquet; written and read here.

Schema `ionctl.post-mortem/1` (docs/reference/formats.md).  What is known of the trip lies in the file's metadata as
canonical JSON under `post_mortem`; each column has its unit and a sentence in its own metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facility.constants import TICK_NS
from facility.errors import ConfigError
from facility.events import canonical_json
from facility.signals import SIGNALS
from interlocks.explain import MEAN_US, OFF_SHARE
from ioc_sim.rerun import Block

SCHEMA = "ionctl.post-mortem/1"
METADATA_KEY = b"post_mortem"
SCHEMA_KEY = b"schema"
_BEFORE_NS = 2_000_000
"""The rate before is the mean over this long."""
COLUMNS: tuple[tuple[str, pa.DataType, str, str], ...] = (
    ("t_ns", pa.int64(), "ns", "facility time, each 10 us"),
    ("rfko_on", pa.float64(), "1", "extraction device, 1 is on"),
    ("quad_open", pa.float64(), "1", "fast quadrupole, share of the beam that it lets through"),
    ("chopper_open", pa.float64(), "1", "chopper, share of the beam that it lets through"),
    ("dump", pa.int32(), "bool", "the ring's dump is commanded"),
    ("permit", pa.int32(), "bool", "permit line at the beam-off devices"),
    ("hold", pa.int32(), "bool", "hold line at the beam-off devices"),
    ("demand", pa.int32(), "bool", "the front end asks for beam"),
    ("action", pa.int32(), "enum", "action of the fast tier in force, facility.states.Action"),
    ("state", pa.int32(), "enum", "facility.states.FrontEndState"),
    ("latched", pa.int64(), "mask", "latched fast rules, by position in `rule_ids`"),
    ("present", pa.int64(), "mask", "fast rules whose condition is present"),
    ("truth_ions", pa.int32(), "ions", "truth: ions that crossed the isocentre plane within the 10 us"),
    ("truth_x_um", pa.int32(), "um", "truth: position of the beam at the isocentre; 0 where no beam is possible"),
    ("truth_y_um", pa.int32(), "um", "truth: position of the beam at the isocentre; 0 where no beam is possible"),
    ("truth_spot", pa.int32(), "index", "spot that is set"),
    ("stored_ions", pa.float64(), "ions", "truth: ions stored in the ring"),
)
"""The columns of `ioc_sim.rerun_tick.ROW_DTYPE`; the signals of `facility.signals` follow, each under its own name."""


@dataclass(frozen=True)
class Recording:
    """A post-mortem as it was read."""

    about: Mapping[str, Any]
    table: pa.Table
    sha256: str

    def column(self, name: str) -> np.ndarray:
        """One column as numbers."""
        return np.asarray(self.table.column(name).to_numpy())


def arrow_schema() -> pa.Schema:
    """Columns with units."""
    own = [pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": words})
           for name, kind, unit, words in COLUMNS]  # fmt: skip
    signals = [pa.field(s.name, pa.float64(), nullable=False, metadata={"unit": s.unit, "description": s.description})
               for s in SIGNALS]  # fmt: skip
    return pa.schema([*own, *signals], metadata={SCHEMA_KEY: SCHEMA.encode()})


class Writer:
    """Collects blocks into the bytes of a file."""

    def __init__(self) -> None:
        self._schema = arrow_schema()
        self._sink = pa.BufferOutputStream()
        # nothing but rows and metadata goes in: no time stamp, no host
        self._out = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", compression_level=1, version="2.6", use_dictionary=True,
        )  # fmt: skip
        self.off = BeamOff()
        self.samples = 0

    def add(self, block: Block) -> None:
        """The next steps."""
        self.off.add(block.rows["t_ns"], block.rows["truth_ions"])
        self.samples += len(block.rows)
        arrays = [pa.array(np.ascontiguousarray(block.rows[name]), kind) for name, kind, *_ in COLUMNS]
        arrays += [pa.array(np.ascontiguousarray(block.signals[:, i])) for i in range(len(SIGNALS))]
        self._out.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self, about: Mapping[str, Any]) -> bytes:
        """The file, with what is known of the trip."""
        self._out.add_key_value_metadata({METADATA_KEY: canonical_json(about)})
        self._out.close()
        data: bytes = self._sink.getvalue().to_pybytes()
        return data


class BeamOff:
    """Finds the last instant at which the 50 us mean of the truth is above 0.1 % of the rate before a moment."""

    def __init__(self) -> None:
        self._t_ns: list[np.ndarray] = []
        self._ions: list[np.ndarray] = []

    def add(self, t_ns: np.ndarray, ions: np.ndarray) -> None:
        """Steps in order: ends, ions."""
        self._t_ns.append(t_ns.copy())
        self._ions.append(ions.astype(np.float64))

    def after(self, moment_ns: int) -> int | None:
        """Facility time, ns; None where there was no beam before the moment, or there still is at the end."""
        if not self._t_ns:
            return None
        return beam_off_ns(np.concatenate(self._t_ns), np.concatenate(self._ions), moment_ns)


def beam_off_ns(t_ns: np.ndarray, ions: np.ndarray, moment_ns: int) -> int | None:
    """See `BeamOff`.  What is left out between two times has no beam."""
    before = (t_ns > moment_ns - _BEFORE_NS) & (t_ns <= moment_ns)
    rate = ions[before].mean() if before.any() else 0.0
    if rate <= 0.0:
        return None
    places = (t_ns - t_ns[0]) // TICK_NS
    window = round(MEAN_US * 1000.0 / TICK_NS)
    dense = np.zeros(int(places[-1]) + 1)
    dense[places] = ions
    mean = np.convolve(dense, np.full(window, 1.0 / window))[: len(dense)]
    last = int(np.flatnonzero(mean > OFF_SHARE * rate)[-1])
    return None if last >= len(dense) - window else int(t_ns[0]) + last * TICK_NS


def sha256_of(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_recording(path: Path, sha256: str | None = None, schema: str = SCHEMA) -> Recording:
    """Read a post-mortem, or a file of another `schema` beside it.

    ConfigError if it is none, is damaged, or is not the one that the event log means.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigError("post-mortem.missing", f"cannot read it: {problem.strerror}", str(path)) from problem
    found = sha256_of(data)
    if sha256 is not None and found != sha256:
        raise ConfigError("post-mortem.hash", f"SHA-256 is {found}, the event says {sha256}", str(path),
                          "the file was changed after the trip")  # fmt: skip
    return recording_of(data, str(path), schema)


def recording_of(data: bytes, where: str = "post-mortem", wanted: str = SCHEMA) -> Recording:
    """The same from a file's bytes."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        metadata = file.metadata.metadata or {}
        schema = metadata.get(SCHEMA_KEY, b"").decode()
        if schema != wanted:
            raise ConfigError("post-mortem.schema", f"schema is {schema!r}", where, f"give a {wanted} file")
        return Recording(json.loads(metadata[METADATA_KEY]), file.read(), sha256_of(data))
    except (pa.ArrowException, KeyError, ValueError) as problem:
        raise ConfigError("post-mortem.unreadable", str(problem), where) from problem


def all_blocks(writer: Writer, blocks: Iterable[Block]) -> None:
    """Write them one by one."""
    for block in blocks:
        writer.add(block)
