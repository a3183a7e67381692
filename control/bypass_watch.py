"""Which bypasses are in force, written down each time that changes: they belong to the record of what was delivered.

The safety controller shows them; control believes what it shows and asks for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from channels.protocol import Channel, Sample
from control.bookkeeper import Bookkeeper
from control.machine_link import MachineLink

SIGNAL = "SAFE:Bypassed-RB"


class BypassWatch:
    """Writes the journal's `bypasses`.

    It listens to what control listens to anyway: a delivery that is written down goes as one that is not.

    Args:
        link: control's; its PVs are monitored with or without a journal.
        books: the journal.
        session: id of the session that is open, empty if none is.
    """

    def __init__(self, link: MachineLink, books: Bookkeeper, session: Callable[[], str]) -> None:
        self._books = books
        self._session = session
        self._known: dict[str, dict[str, Any]] = {}
        link.follow(SIGNAL, self._heard)

    def _heard(self, _channel: Channel, sample: Sample) -> None:
        found = in_force(sample.value)
        if found is None or found == self._known:
            return
        before, self._known = self._known, found
        data = {
            "in_force": list(found.values()), "set": [name for name in found if found[name] != before.get(name)],
            "ended": [name for name in before if name not in found],
        }  # fmt: skip
        self._books.bypasses(self._session(), data)


def in_force(value: object) -> dict[str, dict[str, Any]] | None:
    """The bypasses by rule: id, reason, by, until_ns; None where the PV says nothing sensible."""
    try:
        rows = json.loads(value.rstrip(b"\0 ") or b"[]") if isinstance(value, bytes) else None
    except ValueError:
        return None
    if not isinstance(rows, list):
        return None
    return {str(row["id"]): row for row in rows if isinstance(row, dict) and "id" in row}
