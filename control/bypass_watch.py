"""Which bypasses are in force, written down each time that changes: they belong to the record of what was delivered.

The safety controller shows them; control believes what it shows and asks for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from channels.protocol import Channel, ChannelProvider, Sample, Unsubscribe
from control.bookkeeper import Bookkeeper

SIGNAL = "SAFE:Bypassed-RB"


class BypassWatch:
    """Writes the journal's `bypasses`. Use as an async context manager.

    Args:
        provider: where the safety controller's PVs are.
        prefix: the facility's.
        books: the journal.
        session: id of the session that is open, empty if none is.
        connect_s: longest wait for the PV, event-loop s.
    """

    def __init__(
        self, provider: ChannelProvider, prefix: str, books: Bookkeeper, session: Callable[[], str], connect_s: float
    ) -> None:
        self._provider = provider
        self._name = f"{prefix}:{SIGNAL}"
        self._books = books
        self._session = session
        self._connect_s = connect_s
        self._known: dict[str, dict[str, Any]] = {}
        self._unsubscribe: Unsubscribe = lambda: None

    async def __aenter__(self) -> BypassWatch:
        channels = await self._provider.connect([self._name], self._connect_s, monitor={self._name})
        self._unsubscribe = channels[self._name].subscribe(self._heard)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unsubscribe()

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
