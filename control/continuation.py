"""The rest of a fraction that was closed as partial, as a program of its own.

What counts as delivered is what a resume would count, from the same accounts: uncertain charge, and all of a layer that
was armed and of which nobody knows what it got. A remainder below `LEAST_COUNTS` is none. Layers and spots without a
rest are left out; the layers that stay have tokens of their own, so that nobody takes one delivery for the other.
"""

from __future__ import annotations

import json

import numpy as np

from control.layer_table import FloatArray
from control.recovery import LEAST_COUNTS, restore
from control.session import ProgramLike, Session
from facility.errors import CommandRefused, JournalError
from journal import read
from journal.read import SessionEntry
from journal.store import Journal


def continued(journal: Journal, program: ProgramLike, continues: str) -> ProgramLike:
    """What `program` has left after the session `continues`, and after those that it continued itself.

    CommandRefused where nothing is left.
    """
    for attempt, entry in enumerate(chain_of(journal, continues), 1):
        _require_known(journal, entry)
        program = program.rest(_left(journal, program, entry), attempt)
        if not program.layers:
            raise CommandRefused("course.nothing-left", f"session {entry.session} has left nothing", "load")
    return program


def chain_of(journal: Journal, name: str) -> list[SessionEntry]:
    """A session behind those whose rest it gives, the first one first. UsageError where there is none of that name,
    JournalError where one would give its own rest."""
    chain = [read.session(journal, name)]
    while (before := chain[0].continues) and before not in [entry.session for entry in chain]:
        chain.insert(0, read.session(journal, before))
    if before:
        raise JournalError("journal.course", f"session {before} would give its own rest", name,
                           "keep the file, restore the last good copy beside it, ionctl journal verify")  # fmt: skip
    return chain


def _require_known(journal: Journal, entry: SessionEntry) -> None:
    """CommandRefused 'course.unsure' where a session was closed without its register having been heard: it may have got
    more than the journal tells."""
    for row in read.rows_of(journal, "events", entry.session):
        if row["kind"] == read.RECONCILED_KIND and (said := json.loads(row["data"])).get("known") is False:
            raise CommandRefused("course.unsure", f"what session {entry.session} got is not known: {said['words']}",
                                 "load", "no rest of it can be given: it needs a plan of its own")  # fmt: skip


def _left(journal: Journal, program: ProgramLike, entry: SessionEntry) -> list[FloatArray]:
    """Ions (n,) by layer that a session has not delivered."""
    session = Session(entry.session, program, mode="clinical", operator="", t_ns=0)
    restore(session, read.layers(journal, entry.session))
    left = []
    for index, book in enumerate(session.books):
        layer = book.layer
        ions = np.maximum(layer.target_ions - book.start_ions, 0.0)
        if index < session.index or (index == session.index and session.armed_unbooked):
            ions = np.zeros(layer.target_ions.size)
        least = LEAST_COUNTS * layer.ions_per_count
        begun = book.start_ions > 0.0
        left.append(np.where(begun & (ions <= least), 0.0, ions))
    return left
