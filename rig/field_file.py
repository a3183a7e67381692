"""The safety controller's record of the field under way, in the run directory: it survives the process and `down`.

Replaced in one step and not waited for: what a dead process has written is read by the next one; after a loss of power
the last record may be an older one, or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIELD_FILE = "field.json"
MAX_BYTES = 65_536


class FieldFile:
    """A `FieldStore` (`interlocks.field_book`) in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FIELD_FILE

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
        """Replace the record.  OSError ends the safety controller, which ends the permit."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")
        new.replace(self.path)
