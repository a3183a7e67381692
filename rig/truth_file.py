"""Truth outside the plant's process: a mapped ring of ticks, and a table per spot. For tests and reports only.

`truth.trace`: two headers (magic, records, t_ns, count, total_ions, wall_ns, seq, CRC), written in turn so that one of
them is always whole, then a ring of `TRUTH_DTYPE` records, written by the kernel itself; it stays readable when the
process has died. `truth.npz`: per layer token the table of `Plant.truth_spots`, replaced in one step.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from facility.errors import ChannelError
from ioc_sim.layout import T_IONS, T_SUM_X, T_SUM_Y, TRUTH_DTYPE

TRACE_FILE = "truth.trace"
SPOTS_FILE = "truth.npz"
_HEADER = struct.Struct("<8sqqqdqq")
_CRC = struct.Struct("<II")
_HEADER_BYTES = _HEADER.size + _CRC.size
_RING_AT = 2 * _HEADER_BYTES
MAGIC = b"IONTRUTH"
SpotTruth: TypeAlias = dict[int, npt.NDArray[np.float64]]
"""By layer token, float64 of shape (n, T_COLUMNS)."""
SpotIons: TypeAlias = dict[int, npt.NDArray[np.float64]]
"""By layer token, ions by spot, (n,)."""


@dataclass(frozen=True, order=True)
class TruthNow:
    """Where the truth stands: facility time, ticks written so far, all ions so far, wall time of the writer."""

    t_ns: int
    count: int
    total_ions: float
    wall_ns: int


class TruthTrace:
    """The mapped file, from the plant's side: give `ring` to the kernel, call `stamp` after each slice."""

    def __init__(self, folder: Path, records: int) -> None:
        self._file = folder / TRACE_FILE
        with self._file.open("wb") as out:
            out.truncate(_RING_AT + records * TRUTH_DTYPE.itemsize)
        self._headers = np.asarray(np.memmap(self._file, np.uint8, "r+", 0, (_RING_AT,)))
        self._map = np.memmap(self._file, TRUTH_DTYPE, "r+", _RING_AT, (records,))
        self._records = records
        self._seq = 0
        self.stamp(TruthNow(0, 0, 0.0, 0))

    @property
    def ring(self) -> npt.NDArray[Any]:
        """The records, as a plain array on the mapped memory."""
        return np.asarray(self._map)

    def stamp(self, now: TruthNow) -> None:
        """Say how far the ring has been written."""
        self._seq += 1
        body = _HEADER.pack(MAGIC, self._records, now.t_ns, now.count, now.total_ions, now.wall_ns, self._seq)
        raw = body + _CRC.pack(zlib.crc32(body), 0)
        at = (self._seq % 2) * len(raw)
        self._headers[at : at + len(raw)] = np.frombuffer(raw, np.uint8)


def read_now(folder: Path) -> TruthNow:
    """Where the truth stands; ChannelError if there is no truth."""
    path = folder / TRACE_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(_RING_AT)
    except OSError as problem:
        raise ChannelError("truth.missing", f"no truth trace: {problem}", str(path)) from problem
    found = [header for at in (0, _HEADER_BYTES) if (header := _whole(raw[at : at + _HEADER_BYTES])) is not None]
    if not found:
        raise ChannelError("truth.torn", "no header of the truth trace is whole", str(path))
    return max(found)[1]


def _whole(raw: bytes) -> tuple[int, TruthNow] | None:
    """Sequence number and content of a header, None if it is not whole."""
    if len(raw) != _HEADER_BYTES or _CRC.unpack_from(raw, _HEADER.size)[0] != zlib.crc32(raw[: _HEADER.size]):
        return None
    magic, _, t_ns, count, total, wall_ns, seq = _HEADER.unpack_from(raw)
    return (seq, TruthNow(t_ns, count, total, wall_ns)) if magic == MAGIC else None


def read_ticks(folder: Path) -> npt.NDArray[Any]:
    """The ticks that the ring still holds, oldest first."""
    count, ring = read_now(folder).count, read_ring(folder)
    if count <= len(ring):
        return ring[:count]
    start = count % len(ring)
    return np.concatenate([ring[start:], ring[:start]])


def read_ring(folder: Path) -> npt.NDArray[Any]:
    """The ring as it lies in the file: places that were never written are zeros."""
    return np.asarray(np.fromfile(folder / TRACE_FILE, TRUTH_DTYPE, offset=_RING_AT))


def read_last_ticks(folder: Path, most: int) -> npt.NDArray[Any]:
    """The last `most` ticks at most, oldest first, without reading the rest of the ring."""
    count = read_now(folder).count
    ring = np.memmap(folder / TRACE_FILE, TRUTH_DTYPE, "r", _RING_AT)
    last = min(most, count, len(ring))
    return np.asarray(ring[np.arange(count - last, count) % len(ring)])


def write_spots(folder: Path, spots: Mapping[int, npt.NDArray[np.float64]], now: TruthNow) -> None:
    """Replace the table per spot."""
    arrays = {f"token_{token}": rows for token, rows in spots.items()}
    new = folder / "truth.new.npz"
    np.savez(new, t_ns=np.int64(now.t_ns), total_ions=np.float64(now.total_ions), **arrays)  # type: ignore[arg-type]
    new.replace(folder / SPOTS_FILE)


def gained(after: SpotTruth, before: SpotTruth) -> SpotTruth:
    """What came between two looks at a plant: the same plan delivered twice has the same tokens.

    A layer whose table has another length is another layer, and has come whole.
    """
    found = {}
    for token, rows in after.items():
        old = before.get(token)
        found[token] = rows.copy()
        if old is not None and old.shape == rows.shape:
            found[token][:, [T_IONS, T_SUM_X, T_SUM_Y]] -= old[:, [T_IONS, T_SUM_X, T_SUM_Y]]
    return found


def added(first: SpotTruth, second: SpotTruth) -> SpotTruth:
    """What two parts of a delivery gave together; layers that only one of them has are there, too."""
    found = {token: rows.copy() for token, rows in second.items()}
    for token, rows in first.items():
        if token in found and found[token].shape == rows.shape:
            found[token][:, [T_IONS, T_SUM_X, T_SUM_Y]] += rows[:, [T_IONS, T_SUM_X, T_SUM_Y]]
        else:
            found[token] = rows.copy()
    return found


def read_spots(folder: Path) -> tuple[TruthNow, SpotTruth]:
    """The table per spot by layer token, and when it was written."""
    path = folder / SPOTS_FILE
    try:
        with np.load(path) as data:
            now = TruthNow(int(data["t_ns"]), 0, float(data["total_ions"]), 0)
            return now, {int(k.removeprefix("token_")): data[k] for k in data.files if k.startswith("token_")}
    except (OSError, ValueError, KeyError) as problem:
        raise ChannelError("truth.missing", f"no truth per spot: {problem}", str(path)) from problem
