"""Rows that tests write."""

from __future__ import annotations

from journal.store import Batch, Row


def event(k: int, session: str = "S-1") -> Row:
    return Row("events", k, session, {"source": "test", "kind": "number", "data": f'{{"k":{k}}}'})


def spots(k: int, session: str = "S-1") -> Row:
    return Row("spots", k, session, {"layer": k, "status": "verified", "n": 2, "rows": bytes(range(k, k + 160))})


def batch(*numbers: int) -> Batch:
    rows = tuple(row for k in numbers for row in (event(k), spots(k % 50)))
    return Batch(rows, max(numbers))
