"""Load a plan from a file, whatever its format: the content decides, not the name."""

from __future__ import annotations

import stat
from pathlib import Path

from control.plan.model import Plan
from control.plan.trip98_reader import MAGIC, read_trip98_plan
from facility.errors import PlanError

#: The largest plan seen has 0.4 MB for 15,416 spots; this holds thirty million spots.
MAX_BYTES = 512 * 1024 * 1024
_DICM = slice(128, 132)
"""Where a DICOM file says that it is one: PS3.10, 7.1."""


def load_plan(path: Path | str) -> Plan:
    """The plan in the file at `path`: DICOM RT Ion Plan or TRiP98 `.rst`. Raises PlanError for all that is wrong."""
    file = Path(path)
    return read_plan(bounded_bytes(file, MAX_BYTES, "plan", "give a plan file"), file.name)


def bounded_bytes(file: Path, most: int, kind: str, fix: str) -> bytes:
    """What is in a file; PlanError '<kind>.unreadable' beyond `most` bytes (with `fix`), or where it cannot be read."""
    try:
        known = file.stat()
        if not (stat.S_ISREG(known.st_mode) or stat.S_ISDIR(known.st_mode)):  # of a device or a pipe no size is known
            raise PlanError(f"{kind}.unreadable", "it is a device or a pipe", str(file), fix)
        if known.st_size > most:
            raise PlanError(f"{kind}.unreadable", f"the file is too large for a {kind}", file.name, fix)
        return file.read_bytes()
    except OSError as error:
        what = f"cannot be opened: {error.strerror or error}"
        raise PlanError(f"{kind}.unreadable", what, str(file), "check the path and its permissions") from error


def read_plan(data: bytes, name: str) -> Plan:
    """The plan in `data`; `name` is used in messages. Raises PlanError for anything that is not a whole plan."""
    if not data:
        raise PlanError("plan.truncated", "the file is empty", name, "transfer the file again")
    if data[_DICM] == b"DICM":
        from control.plan.dicom_reader import read_dicom_plan  # pydicom is large, and most processes read no DICOM

        return read_dicom_plan(data, name)
    if data.lstrip()[: len(MAGIC)] == MAGIC:
        return read_trip98_plan(data, name)
    raise PlanError(
        "plan.not-dicom",
        "neither a DICOM file (DICM at byte 128) nor a TRiP98 raster file (rstfile on the first line)",
        name,
        "give a DICOM RT Ion Plan or a TRiP98 .rst file",
    )
