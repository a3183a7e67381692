"""Is the journal whole? The first row that is not is named."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import sqlalchemy as sa

from facility.errors import JournalError
from journal.chain import Tip, batch_hash, genesis, row_digest, tip_of
from journal.schema import BATCHES, ROW_TABLES, SESSIONS
from journal.store import Journal


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    batches: int
    rows: int
    tip: Tip
    """Where the chain ends, as far as it is sound."""
    broken: str
    """The first thing that is wrong, with table and sequence number; empty if nothing is."""


@dataclass(frozen=True)
class Stretch:
    """A part of a journal that was found whole: what follows `begin`, up to `end`."""

    begin: Tip
    end: Tip


def require_whole(journal: Journal, session: str, known: Stretch | None = None) -> Stretch:
    """JournalError 'journal.broken' unless everything that was written since this session was opened is what was
    written: what a journal says of it is about to be relied upon.

    What is `known` to be whole, for it has just been gone through, is not gone through again; a journal that no longer
    has its end is broken. Returns what is known now.
    """
    with journal.reading() as connection:
        begin = tip = _tip_before(connection, journal.facility, session)
        if known is not None and known.begin.batch <= begin.batch and _begins_after(connection, session, known.begin):
            begin, tip = known.begin, known.end
            if tip.batch > 0 and _tip_at(connection, tip.batch) != tip:
                raise _not_whole(journal, f"batches, row {tip.batch}: is no longer what it was just now")
        verdict = _followed(connection, tip)
    if verdict.broken:
        raise _not_whole(journal, verdict.broken)
    return Stretch(begin, verdict.tip)


def _not_whole(journal: Journal, broken: str) -> JournalError:
    return JournalError("journal.broken", f"the journal is not what was written: {broken}", journal.where,
                        "keep the file, restore the last good copy beside it, ionctl journal verify")  # fmt: skip


def verify(journal: Journal, since: str = "") -> Verdict:
    """Recompute every digest and hash, of what was written since session `since` was opened, or of all. JournalError if
    the journal cannot be read at all."""
    with journal.reading() as connection:
        return _followed(connection, _tip_before(connection, journal.facility, since))


def _begins_after(connection: sa.Connection, session: str, tip: Tip) -> bool:
    """Whether all rows by which a session was opened follow this tip: by their own number, whatever batch they name."""
    first = connection.execute(sa.select(sa.func.min(SESSIONS.c.seq)).where(SESSIONS.c.session == session)).scalar()
    return (first or 0) > tip.seq


def _tip_at(connection: sa.Connection, number: int) -> Tip | None:
    """Where the chain ended with this batch; None if there is none of that number."""
    found = connection.execute(sa.select(BATCHES).where(BATCHES.c.batch == number)).mappings().first()
    return None if found is None else tip_of(found)


def _followed(connection: sa.Connection, tip: Tip) -> Verdict:
    """All that follows this tip."""
    rows = _rows_by_seq(connection, tip.batch)
    later = sa.select(BATCHES).where(BATCHES.c.batch > tip.batch).order_by(BATCHES.c.batch)
    batches, count = connection.execute(later).mappings(), 0
    grouped = groupby(rows, key=lambda item: item[2]["batch"])
    members = next(grouped, None)
    for batch in batches:
        found = list(members[1]) if members is not None and members[0] == batch["batch"] else []
        if members is not None and members[0] < batch["batch"]:
            table, seq = next(iter(members[1]))[1:]
            return Verdict(count, tip.seq, tip, f"{table}, row {seq['seq']}: belongs to no batch")
        if found:
            members = next(grouped, None)
        if broken := _broken(tip, batch, found):
            return Verdict(count, tip.seq, tip, broken)
        count += 1
        tip = tip_of(batch)
    if members is not None:
        _, table, row = next(iter(members[1]))
        return Verdict(count, tip.seq, tip, f"{table}, row {row['seq']}: belongs to no batch")
    return Verdict(count, tip.seq, tip, "")


def _tip_before(connection: sa.Connection, facility: str, session: str) -> Tip:
    """Where the chain ended when a session was opened; its beginning where that is not known."""
    first = connection.execute(sa.select(sa.func.min(SESSIONS.c.batch)).where(SESSIONS.c.session == session)).scalar()
    return _tip_at(connection, (first or 0) - 1) or genesis(facility)


def _rows_by_seq(connection: sa.Connection, after: int) -> Iterator[tuple[int, str, Any]]:
    """(seq, table, row) of all tables, of the batches after this one, by rising sequence number."""

    def of(table: sa.Table) -> Iterator[tuple[int, str, Any]]:
        wanted = sa.select(table).where(table.c.batch > after).order_by(table.c.seq)
        found = connection.execution_options(stream_results=False).execute(wanted)
        return ((row["seq"], table.name, row) for row in found.mappings())

    return heapq.merge(*(of(table) for table in ROW_TABLES), key=lambda item: item[0])


def _broken(tip: Tip, batch: Any, found: list[tuple[int, str, Any]]) -> str:
    """What is wrong with a batch that follows `tip`; empty if nothing is."""
    number, first = batch["batch"], batch["first_seq"]
    if number != tip.batch + 1 or first != tip.seq + 1:
        return f"batches, row {number}: follows batch {tip.batch}, row {tip.seq}; something is missing between them"
    for wanted, item in zip(range(first, first + batch["rows"]), chain(found, [None] * batch["rows"]), strict=False):
        if item is None or item[0] != wanted:
            return f"row {wanted} of batch {number} is missing"
        _, table, row = item
        if row["digest"] != row_digest(table, dict(row)):
            return f"{table}, row {wanted}: it is not what was written"
    if len(found) != batch["rows"]:
        return f"{found[batch['rows']][1]}, row {found[batch['rows']][0]}: was added to batch {number}"
    digests = [row["digest"] for _, _, row in found]
    if batch["hash"] != batch_hash(tip.hash, number, batch["t_ns"], batch["written"], first, digests):
        return f"batches, row {number}: its hash is not that of its rows and the batch before"
    return ""
