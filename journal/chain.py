"""The hash chain: a digest for each row, a hash for each batch over the one before and its rows' digests.

A row that was changed no longer has its digest; one that is missing, added or moved breaks its batch. Somebody who may
write the file can make a whole new chain: what proves otherwise is a hash that was kept elsewhere (`Tip`, printed by
`ionctl journal verify` and written into every record that leaves).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from facility.events import canonical_json
from journal.schema import JOURNAL_SCHEMA


@dataclass(frozen=True)
class Tip:
    """Where a chain ends."""

    batch: int
    seq: int
    hash: str


def tip_of(batch: Any) -> Tip:
    """The tip of a chain that ends with this row of `batches`."""
    return Tip(batch["batch"], batch["first_seq"] + batch["rows"] - 1, batch["hash"])


def genesis(facility: str) -> Tip:
    """The tip of a journal with nothing in it."""
    return Tip(0, 0, hashlib.sha256(canonical_json([JOURNAL_SCHEMA, facility])).hexdigest())


def row_digest(table: str, row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over table and columns without the digest itself; bytes by their own SHA-256."""
    plain = {name: _plain(value) for name, value in row.items() if name != "digest"}
    return hashlib.sha256(canonical_json([table, plain])).hexdigest()


def _plain(value: Any) -> Any:
    return hashlib.sha256(bytes(value)).hexdigest() if isinstance(value, bytes | memoryview) else value


def batch_hash(before: str, batch: int, t_ns: int, written: str, first_seq: int, digests: Iterable[str]) -> str:
    """SHA-256 (hex) of a batch: the hash before, its own numbers, its rows' digests by rising sequence number."""
    return hashlib.sha256(canonical_json([before, batch, t_ns, written, first_seq, list(digests)])).hexdigest()
