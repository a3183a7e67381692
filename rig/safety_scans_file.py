"""What the safety controller leaves of a trip: its scans of that second, in Parquet; written and read here.

Schema `ionctl.safety-scans/1` (docs/reference/formats.md): a row for each scan, which stands until the next one. It
lies beside the post-mortem of the plant, and is tied to its event as that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facility.constants import TICK_NS
from facility.events import canonical_json
from facility.signals import IMAGE, SIGNALS
from facility.timebase import NS_PER_MS
from interlocks.own_inputs import OWN
from interlocks.process_image import N_IMAGE
from interlocks.rules import RuleSet
from rig.post_mortem import PostMortem, definitions, event_data
from rig.post_mortem_file import METADATA_KEY, SCHEMA_KEY, Recording, read_recording, sha256_of
from rig.safety_scans import OUTPUTS, FrozenScans, Scans

SCHEMA = "ionctl.safety-scans/1"
FACILITY_TIME, NOMINAL_TIME = "facility", "nominal"
"""Whose time the controller goes by: the plant's in virtual time, the clock's over Channel Access."""
MAX_CHANGES = 20
_HELD = (
    "a scan's inputs, values and decisions stand until the next scan: each 10 us sample is that of the last scan; "
    "an age counts from the last of its signs_of_life"
)


def arrow_schema(rules: RuleSet) -> pa.Schema:
    """Columns with units."""
    fields = [_field("t_ns", pa.int64(), "ns", "when it scanned"),
              _field("image_t_ns", pa.int64(), "ns", "when the process image was taken that it judged")]  # fmt: skip
    fields += [_field(name, pa.int64(), "1", "what it told the rack, or had decided") for name in OUTPUTS]
    fields += [_field(name, pa.float64(), own.unit, own.what) for name, own in OWN.items()]
    fields += [_field(SIGNALS[i].name, pa.float64(), SIGNALS[i].unit, SIGNALS[i].description) for i in IMAGE]
    for rule in rules.scanned:
        fields += [_field(f"{rule.id}.value", pa.float64(), rule.unit, "what it compared"),
                   _field(f"{rule.id}.limit", pa.float64(), rule.unit, "with what"),
                   _field(f"{rule.id}.state", pa.uint8(), "mask", "1 bad, 2 present, 4 latched")]  # fmt: skip
    return pa.schema(fields)


def _field(name: str, kind: pa.DataType, unit: str, words: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": words})


def _columns(scans: Scans) -> Iterator[np.ndarray]:
    """In the order of `arrow_schema`."""
    yield scans.t_ns
    yield scans.image_t_ns
    yield from scans.outputs.T
    yield from scans.inputs[:, N_IMAGE:].T
    yield from scans.inputs[:, :N_IMAGE].T
    for k in range(scans.states.shape[1]):
        yield scans.values[:, k, 0]
        yield scans.values[:, k, 1]
        yield scans.states[:, k]


def write_scans(frozen: FrozenScans, about: Mapping[str, Any], rules: RuleSet, clock: str) -> PostMortem:
    """The file, and what the event log says of it.

    Args:
        frozen: the window.
        about: what every file says of the run, see `post_mortem.about_run`.
        rules: those that the controller judges.
        clock: FACILITY_TIME or NOMINAL_TIME.
    """
    cause, scans = frozen.events[0], frozen.scans
    tripped = [str(event.data["id"]) for event in frozen.events]
    said = {
        "scans": len(scans.t_ns),
        "from_ns": frozen.from_ns,
        "to_ns": frozen.to_ns,
        "trips": [event.seq for event in frozen.events],
        "rules": tripped,
    }
    told = {
        **about,
        **said,
        **frozen.facts,
        "schema": SCHEMA,
        "clock": clock,
        "held": _HELD,
        "step_ns": TICK_NS,
        "samples": (frozen.to_ns - frozen.from_ns) // TICK_NS,
        "signs_of_life": dict(scans.signs),
        "longest_gap_ns": int(np.diff(scans.t_ns).max(initial=0)),
        "event": event_data(cause),
        "rule_ids": [rule.id for rule in rules.scanned],
        "fast_rule_ids": [rule.id for rule in rules.h],
        "definitions": definitions(rules, tripped),
    }
    metadata = {SCHEMA_KEY: SCHEMA.encode(), METADATA_KEY: canonical_json(told)}
    schema = arrow_schema(rules).with_metadata(metadata)
    arrays = [pa.array(np.ascontiguousarray(column)) for column in _columns(scans)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd", version="2.6")
    data = sink.getvalue().to_pybytes()
    name = f"safety-{frozen.number:03d}-{cause.t_ns}.parquet"
    return PostMortem(name, data, {"file": name, "sha256": sha256_of(data), **said}, cause)


def read_scans(path: Path, sha256: str | None = None) -> Recording:
    """Read a file of scans; ConfigError if it is none, is damaged, or is not the one that the event log means."""
    return read_recording(path, sha256, SCHEMA)


def held(found: Recording, name: str, t_ns: np.ndarray) -> np.ndarray:
    """A column at instants (ns, the controller's time), by the last scan at each; NaN before the first scan.

    An age is exact at each instant, by the signs of life.
    """
    signs = np.array(found.about["signs_of_life"].get(name, ()), np.int64)
    if signs.size:
        last = np.searchsorted(signs, t_ns, side="right") - 1
        return np.where(last < 0, np.nan, (t_ns - signs[last.clip(0)]) / NS_PER_MS)
    places = np.searchsorted(found.column("t_ns"), t_ns, side="right") - 1
    values = found.column(name).astype(np.float64)
    return np.where(places < 0, np.nan, values[places.clip(0)])


def every_tick(found: Recording) -> np.ndarray:
    """The instants of the window, 10 us apart: the arguments of `held` for all of its samples."""
    about = found.about
    return np.arange(int(about["from_ns"]) + TICK_NS, int(about["to_ns"]) + 1, TICK_NS)


def story(found: Recording) -> dict[str, Any]:
    """The controller's own inputs and lines by name: at the trip, least, most, and the last changes (ns, value)."""
    at_ns = np.array([int(found.about["event"]["t_ns"])])
    return {name: _story_of(found, name, at_ns) for name in (*OWN, *OUTPUTS)}


def _story_of(found: Recording, name: str, at_ns: np.ndarray) -> dict[str, Any]:
    values, t_ns = found.column(name).astype(np.float64), found.column("t_ns")
    if name in found.about["signs_of_life"]:  # it grows between two scans
        values = held(found, name, every_tick(found))
    known = values[np.isfinite(values)]
    ages = name in OWN and OWN[name].unit == "ms"  # which change all the time
    turns = () if ages else (np.flatnonzero(np.diff(values)) + 1)[-MAX_CHANGES:]
    return {
        "at_trip": _number(held(found, name, at_ns)[0]),
        "least": _number(known.min()) if known.size else None,
        "most": _number(known.max()) if known.size else None,
        "changes": [[int(t_ns[i]), _number(values[i])] for i in turns],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
