"""What fields have had: a table of the dose register with a row for each field that was ever opened.

A row is written when its field is opened and when the next one is; in between, the slots say what the open field has
had.  It has two places that are written in turn, the checksum last, so that one of them is whole at whatever
instruction the process dies; both lie in one sector of a disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facility.errors import CommandRefused, ConfigError
from ioc_sim.dose_register import checksum, thousandths, thousandths_read

MOST_FIELDS = 2048
"""More are refused: a row that was given away could begin at zero once more."""
PLACE_WORDS = 8
FIELD_ROW_WORDS = 2 * PLACE_WORDS
# words of a place; presets are the bits of float64
F_WRITE, F_FIELD, F_OPENED, F_IONS, F_TIMER_US, F_PRESET, F_EXPECTED, F_CHECK = range(PLACE_WORDS)
CLOSED = -1


@dataclass(frozen=True)
class FieldCount:
    """What a field should get and has had."""

    preset_ions: float
    expected_ms: float
    ions: float = 0.0
    """By the backup counter; NaN where nobody knows."""
    timer_ms: float = 0.0
    """Beam-on time; NaN where nobody knows."""
    opened: int = CLOSED
    """Sequence number of the register when the field was opened: since then the slots say what it has had."""


class FieldTable:
    """The table in the image.

    Args:
        words: its part of the image, int64, shape (MOST_FIELDS, 2, PLACE_WORDS), writable.

    Raises ConfigError 'register.torn' for a row that is damaged.
    """

    def __init__(self, words: NDArray[np.int64]) -> None:
        self._words = words
        self.counts: dict[int, FieldCount] = {}
        """By number of the field."""
        self.writes = 0
        """Rows written by this process."""
        self._places: dict[int, tuple[int, int]] = {}
        used = np.flatnonzero(words[:, :, F_CHECK].any(axis=1))
        for k in used:
            self._read(int(k))

    def _read(self, k: int) -> None:
        for place in self._words[k]:
            if not place[F_CHECK]:
                continue  # nothing, or the process died while it wrote
            if int(place[F_CHECK]) != _check(place):
                raise ConfigError("register.torn", f"row {k} of the fields is damaged", "dose register",
                                  "count its field as delivered; find out what has become of the medium")  # fmt: skip
            field, write = int(place[F_FIELD]), int(place[F_WRITE])
            if field not in self._places or write > self._places[field][1]:
                preset, expected = place[[F_PRESET, F_EXPECTED]].view(np.float64)
                ions, timer_ms = thousandths_read(place[[F_IONS, F_TIMER_US]])
                self.counts[field] = FieldCount(
                    float(preset), float(expected), float(ions), float(timer_ms), int(place[F_OPENED])
                )
                self._places[field] = k, write

    def counted(self, field: int, preset_ions: float, expected_ms: float) -> tuple[float, float]:
        """Ions and beam-on time, ms, that a field has had; zeros for a new one.

        Raises CommandRefused 'fe.field' for other presets than it was opened with, 'fe.fields' where no row is left.
        """
        known = self.counts.get(field)
        if known is None and len(self.counts) >= MOST_FIELDS:
            raise CommandRefused("fe.fields", f"the dose register holds {MOST_FIELDS} fields, and not {field}",
                                 "open_field", "finish what is open, then begin a new register")  # fmt: skip
        if known is None:
            return 0.0, 0.0
        if (known.preset_ions, known.expected_ms) != (preset_ions, expected_ms):
            what = (f"field {field} was opened with {known.preset_ions!r} ions in {known.expected_ms!r} ms, "
                    f"not {preset_ions!r} in {expected_ms!r}")  # fmt: skip
            raise CommandRefused("fe.field", what, "open_field", "what a field should get is fixed when it is opened")
        return known.ions, known.timer_ms

    def write(self, field: int, count: FieldCount) -> bool:
        """Write the row of a field; False where none is left."""
        k, last = self._places.get(field, (len(self._places), -1))
        if k >= MOST_FIELDS:
            return False
        place = self._words[k, (last + 1) & 1]
        place[F_CHECK] = 0
        place[:F_CHECK] = (
            last + 1, field, count.opened, thousandths(count.ions), thousandths(count.timer_ms),
            *np.array([count.preset_ions, count.expected_ms]).view(np.int64),
        )  # fmt: skip
        place[F_CHECK] = _check(place)
        self._places[field], self.counts[field] = (k, last + 1), count
        self.writes += 1
        return True


def _check(place: NDArray[np.int64]) -> int:
    with np.errstate(over="ignore"):
        return int(checksum(place.reshape(1, PLACE_WORDS), 0, F_CHECK))
