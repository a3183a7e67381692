"""Truth outside the plant's process: a mapped ring of ticks, and a table per spot. For tests and reports only.

`truth.trace`: a header (`HEADER_DTYPE`), then a ring of `TRUTH_DTYPE` records, written by the kernel itself; it stays
readable when the process has died. `truth.npz`: per layer token the table of `Plant.truth_spots`, replaced in one step.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.errors import ChannelError
from ioc_sim.layout import TRUTH_DTYPE

TRACE_FILE = "truth.trace"
SPOTS_FILE = "truth.npz"
HEADER_DTYPE = np.dtype(
    [("magic", "S8"), ("records", "<i8"), ("t_ns", "<i8"), ("count", "<i8"), ("total_ions", "<f8"), ("wall_ns", "<i8"),
     ("seq", "<i8"), ("crc", "<u4"), ("spare", "<u4")]
)  # fmt: skip
MAGIC = b"IONTRUTH"
_READ_TRIES = 100


@dataclass(frozen=True)
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
        size = HEADER_DTYPE.itemsize + records * TRUTH_DTYPE.itemsize
        with self._file.open("wb") as out:
            out.truncate(size)
        self._header: Any = np.memmap(self._file, HEADER_DTYPE, "r+", 0, (1,))
        self._map = np.memmap(self._file, TRUTH_DTYPE, "r+", HEADER_DTYPE.itemsize, (records,))
        self._header["magic"], self._header["records"] = MAGIC, records
        self._seq = 0
        self.stamp(TruthNow(0, 0, 0.0, 0))

    @property
    def ring(self) -> npt.NDArray[Any]:
        """The records, as a plain array on the mapped memory."""
        return np.asarray(self._map)

    def stamp(self, now: TruthNow) -> None:
        """Say how far the ring has been written."""
        self._seq += 1
        values = (now.t_ns, now.count, now.total_ions, now.wall_ns, self._seq)
        for name, value in zip(("t_ns", "count", "total_ions", "wall_ns", "seq"), values, strict=True):
            self._header[name] = value
        self._header["crc"] = _crc(self._header)


def read_now(folder: Path) -> TruthNow:
    """Where the truth stands; ChannelError if there is no truth, or the header never becomes whole."""
    path = folder / TRACE_FILE
    for _ in range(_READ_TRIES):
        try:
            with path.open("rb") as file:
                raw = file.read(HEADER_DTYPE.itemsize)
        except OSError as problem:
            raise ChannelError("truth.missing", f"no truth trace: {problem}", str(path)) from problem
        if len(raw) == HEADER_DTYPE.itemsize:
            header = np.frombuffer(raw, HEADER_DTYPE)
            if header["magic"][0] == MAGIC and int(header["crc"][0]) == _crc(header):
                h = header[0]
                return TruthNow(int(h["t_ns"]), int(h["count"]), float(h["total_ions"]), int(h["wall_ns"]))
    raise ChannelError("truth.torn", "the header of the truth trace is not whole", str(path))


def read_ticks(folder: Path) -> npt.NDArray[Any]:
    """The ticks that the ring still holds, oldest first."""
    path = folder / TRACE_FILE
    count = read_now(folder).count
    ring = np.fromfile(path, TRUTH_DTYPE, offset=HEADER_DTYPE.itemsize)
    if count <= len(ring):
        return ring[:count]
    start = count % len(ring)
    return np.concatenate([ring[start:], ring[:start]])


def write_spots(folder: Path, spots: Mapping[int, npt.NDArray[np.float64]], now: TruthNow) -> None:
    """Replace the table per spot."""
    arrays = {f"token_{token}": rows for token, rows in spots.items()}
    new = folder / "truth.new.npz"
    np.savez(new, t_ns=np.int64(now.t_ns), total_ions=np.float64(now.total_ions), **arrays)  # type: ignore[arg-type]
    new.replace(folder / SPOTS_FILE)


def read_spots(folder: Path) -> tuple[TruthNow, dict[int, npt.NDArray[np.float64]]]:
    """The table per spot by layer token, and when it was written."""
    path = folder / SPOTS_FILE
    try:
        with np.load(path) as data:
            now = TruthNow(int(data["t_ns"]), 0, float(data["total_ions"]), 0)
            return now, {int(k.removeprefix("token_")): data[k] for k in data.files if k.startswith("token_")}
    except (OSError, ValueError, KeyError) as problem:
        raise ChannelError("truth.missing", f"no truth per spot: {problem}", str(path)) from problem


def _crc(header: Any) -> int:
    return zlib.crc32(np.asarray(header).tobytes()[: HEADER_DTYPE.fields["crc"][1]])  # type: ignore[index]
