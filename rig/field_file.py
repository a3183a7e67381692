"""The safety controller's record of the field under way, in the run directory: it survives the process and `down`.

Replaced in one step before `save` returns: what a dead process has written is read by the next one.  A thread forces
it to the disk right after, so that a scan, and with it the frame that the rack waits for, never waits for a disk.  A
loss of power in between, a few milliseconds, leaves the record before it, or one that cannot be read: a termination.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

FIELD_FILE = "field.json"
MAX_BYTES = 65_536


class FieldFile:
    """A `FieldStore` (`interlocks.field_book`) in a folder; `fsync` forces an open file, or folder, to the disk."""

    def __init__(self, folder: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.path = folder / FIELD_FILE
        self._fsync = fsync
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="field-file")
        self._last: Future[None] | None = None
        self._failure: OSError | None = None

    def load(self) -> Mapping[str, Any] | None:
        """The record; None if there is no file; ValueError for anything that is not one whole JSON object."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise ValueError(f"{self.path}: {problem}") from problem
        if len(data) > MAX_BYTES:
            raise ValueError(f"{self.path}: more than {MAX_BYTES} bytes")
        record = json.loads(data)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        if not isinstance(record, dict):
            raise ValueError(f"{self.path}: no JSON object")
        return record

    def save(self, record: Mapping[str, Any]) -> None:
        """Replace the record.  OSError, also the disk's since the last time, ends the safety controller, and so the
        permit; a command that wanted it is refused."""
        if self._failure is not None:
            raise self._failure
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")
        new.replace(self.path)
        if self._last is not None:
            self._last.cancel()  # it has not begun: this one does for both, so that at most one waits
        self._last = self._disk.submit(self._force)

    def wait(self, timeout_s: float) -> None:
        """Until the record is on the disk; TimeoutError, or the OSError that `save` would raise."""
        if self._last is not None:
            self._last.result(timeout_s)
        if self._failure is not None:
            raise self._failure

    def _force(self) -> None:
        """The record, then the folder that names it."""
        try:
            for path in (self.path, self.path.parent):
                handle = os.open(path, os.O_RDONLY)
                try:
                    self._fsync(handle)
                finally:
                    os.close(handle)
        except OSError as problem:
            self._failure = problem
