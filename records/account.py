"""What a session gave, as the journal has it and nothing else: the one source of every record.

The dose register is not asked: what it holds came into the journal when the session ended, was resumed or closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa

from control.layer_table import COLUMN, FloatArray
from control.plan.program import LayerProgram, MachineProgram
from control.plan.uids import derived_uid
from facility.errors import JournalError
from facility.timebase import FACILITY_EPOCH_UNIX_S, NS_PER_S
from journal import read
from journal.read import LayerEntry, SessionEntry
from journal.schema import BATCHES, BYPASSES, EVENTS, LAYERS, SESSIONS, TRIPS
from journal.store import Journal

Termination = Literal["NORMAL", "OPERATOR", "MACHINE", "UNKNOWN"]
"""TreatmentTerminationStatus (3008,002A)."""


@dataclass(frozen=True, eq=False)
class LayerAccount:
    """One layer as it was booked last; arrays are of shape (n,), over all loads, in delivery order."""

    index: int
    """0-based within the session's program."""
    layer: LayerProgram
    entry: LayerEntry
    written: datetime
    """Calendar time of facility time `entry.t_ns`."""
    ends: FloatArray
    """(n,): when each spot ended, s after `written`; NaN where it has no end. Facility time alone would not do: loads
    of a layer may have been given by plants that were switched on at different times."""

    @property
    def given_ions(self) -> FloatArray:
        """By the first chamber, ions; never less than none."""
        ions: FloatArray = np.maximum(self.entry.rows[:, COLUMN["ic1_ions"]], 0.0)
        return ions

    @property
    def begun(self) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Spots of which something was, or may have been, delivered."""
        rows, uncertain = self.entry.rows, self.entry.uncertain
        return np.flatnonzero((self.given_ions > 0.0) | (uncertain > 0.0) | (rows[:, COLUMN["t_end_ns"]] > 0.0))

    @property
    def first_ns(self) -> int:
        """Facility time at which the first spot got beam; that of the booking where no time is known."""
        ends = self.entry.rows[:, COLUMN["t_end_ns"]]
        starts = ends - 1e3 * self.entry.rows[:, COLUMN["beam_us"]]
        return int(starts[ends > 0.0].min()) if (ends > 0.0).any() else self.entry.t_ns

    @property
    def began(self) -> datetime:
        """Calendar time of the first beam."""
        return self._at(self.ends - 1e-6 * self.entry.rows[:, COLUMN["beam_us"]], np.nanmin)

    @property
    def ended(self) -> datetime:
        """Calendar time of the last spot's end."""
        return self._at(self.ends, np.nanmax)

    def _at(self, seconds: FloatArray, which: Callable[[FloatArray], Any]) -> datetime:
        known = bool(np.isfinite(seconds).any())
        return self.written + timedelta(seconds=float(which(seconds)) if known else 0.0)


@dataclass(frozen=True)
class Override:
    """Something that was not as it usually is."""

    parameter: str
    """Keyword of the DICOM attribute that it concerns; empty where there is none."""
    reason: str
    by: str


@dataclass(frozen=True, eq=False)
class SessionAccount:
    """One session."""

    entry: SessionEntry
    program: MachineProgram
    """The session's own: of a continuation, the rest."""
    layers: tuple[LayerAccount, ...]
    """Of which something was booked, by index."""
    unheard: tuple[int, ...]
    """Layers that were armed and of which the journal does not tell what they got."""
    overrides: tuple[Override, ...]
    termination: Termination
    reason: str
    opened: datetime
    last_seq: int
    """Of the journal's rows of its layers: two accounts with the same one are the same."""
    earlier: tuple[str, ...] = ()
    """UIDs of the records of the sessions that it continues, the first one first."""

    @property
    def uid(self) -> str:
        """Of its record: another one whenever the journal has told more."""
        return _uid(self.entry, self.last_seq)

    @property
    def verified(self) -> bool:
        """Every layer of the program."""
        return sum(1 for one in self.layers if one.entry.status == read.VERIFIED) == len(self.program.layers)


def read_account(journal: Journal, session: str, program: MachineProgram) -> SessionAccount:
    """The account of a session; `program` is its own. JournalError where they do not belong together."""
    entry = read.session(journal, session)
    entries = read.layers(journal, session)
    if entry.plan_hash != program.plan_hash or entry.layers != len(program.layers):
        raise JournalError("record.program", "the session had another program than this one", session,
                           "give the plan that it was opened with")  # fmt: skip
    with journal.reading() as connection:
        calendar = _calendar(connection, session)
        opened = _opened(connection, entry)
        overrides = (*_qa(entry), *_bypassed(connection, session))
        tripped = connection.execute(sa.select(TRIPS.c.rule).where(TRIPS.c.session == session)).scalars().all()
    booked = {one.layer: one for one in entries if one.status != read.ARMING}
    layers = tuple(_layer(index, program, entries, calendar) for index in sorted(booked))
    last = {one.layer: one.status for one in entries}
    unheard = tuple(index for index, status in sorted(last.items()) if status == read.ARMING)
    reason = _reason(journal, entry)
    return SessionAccount(
        entry, program, layers, unheard, overrides, _termination(entry, reason, tripped), reason, opened,
        max((one.seq for one in entries), default=0), _earlier(journal, entry),
    )  # fmt: skip


def _uid(entry: SessionEntry, last_seq: int) -> str:
    return derived_uid("record", entry.facility, entry.session, entry.status, str(last_seq))


def _earlier(journal: Journal, entry: SessionEntry) -> tuple[str, ...]:
    found: list[str] = []
    while entry.continues:
        entry = read.session(journal, entry.continues)
        found.insert(0, _uid(entry, max((one.seq for one in read.layers(journal, entry.session)), default=0)))
    return tuple(found)


def _layer(
    index: int, program: MachineProgram, entries: Sequence[LayerEntry], calendar: Mapping[int, datetime]
) -> LayerAccount:
    mine, layer = [one for one in entries if one.layer == index], program.layers[index]
    entry = [one for one in mine if one.status != read.ARMING][-1]
    if entry.token != layer.token or len(entry.rows) != layer.n_spots:
        raise JournalError("record.layer", f"layer {index} in the journal is not that of this plan", "record",
                           "give the plan that the session was opened with")  # fmt: skip
    return LayerAccount(index, layer, entry, calendar[entry.seq], _ends(mine, entry, calendar))


def _ends(entries: Sequence[LayerEntry], entry: LayerEntry, calendar: Mapping[int, datetime]) -> FloatArray:
    """See `LayerAccount.ends`. What a booking has that the one before has not was given by the load that was armed
    last: then its facility time was written down with the date, and by the same plant."""
    ends, before = np.full(len(entry.rows), np.nan), np.zeros(len(entry.rows))
    armed = entry
    for one in entries:
        if one.status == read.ARMING:
            armed = one
        elif one.seq <= entry.seq:
            t_ns = one.rows[:, COLUMN["t_end_ns"]]
            since_s = (calendar[armed.seq] - calendar[entry.seq]).total_seconds()
            new = (t_ns != before) & (t_ns > 0.0)
            ends[new], before = since_s + (t_ns[new] - armed.t_ns) / NS_PER_S, t_ns
    return ends


def facility_calendar(t_ns: int) -> datetime:
    """What facility time stands for in virtual time, where nobody wrote a date."""
    return datetime.fromtimestamp(FACILITY_EPOCH_UNIX_S, UTC) + timedelta(seconds=t_ns / NS_PER_S)


def _calendar(connection: sa.Connection, session: str) -> dict[int, datetime]:
    """Calendar time of each row of the session's layers, by sequence number. Where nobody wrote a date, the facility of
    each part of a virtual session begins where the one before ended."""
    wanted = sa.select(LAYERS.c.seq, LAYERS.c.t_ns, BATCHES.c.written).join(BATCHES, BATCHES.c.batch == LAYERS.c.batch)
    rows = connection.execute(wanted.where(LAYERS.c.session == session).order_by(LAYERS.c.seq)).all()
    found, last_ns, offset_ns = {}, 0, 0
    for seq, t_ns, written in rows:
        offset_ns += last_ns if t_ns < last_ns else 0
        found[seq], last_ns = _date(written, t_ns + offset_ns), t_ns
    return found


def _date(written: str, t_ns: int) -> datetime:
    return datetime.fromisoformat(written) if written else facility_calendar(t_ns)


def _opened(connection: sa.Connection, entry: SessionEntry) -> datetime:
    wanted = sa.select(BATCHES.c.written).join(SESSIONS, BATCHES.c.batch == SESSIONS.c.batch)
    found = connection.execute(wanted.where(SESSIONS.c.session == entry.session).order_by(SESSIONS.c.seq)).scalars()
    return _date(found.first() or "", entry.t_opened_ns)


def _qa(entry: SessionEntry) -> list[Override]:
    found = []
    if entry.mode != "clinical":
        found.append(Override("", f"delivered in mode {entry.mode}", entry.operator))
    if entry.qa:
        found.append(Override("GantryAngle", "QA: every beam at the room's fixed angle", entry.operator))
    return found


def _bypassed(connection: sa.Connection, session: str) -> list[Override]:
    """Bypasses in force when the session was opened, and those that were set until its last row."""
    first = connection.execute(sa.select(sa.func.min(SESSIONS.c.seq)).where(SESSIONS.c.session == session)).scalar()
    last = connection.execute(sa.select(sa.func.max(EVENTS.c.seq)).where(EVENTS.c.session == session)).scalar()
    wanted = sa.select(BYPASSES.c.seq, BYPASSES.c.data).order_by(BYPASSES.c.seq)
    rows = [(seq, json.loads(data)["in_force"]) for seq, data in connection.execute(wanted).all()]
    before = [found for seq, found in rows if seq < (first or 0)][-1:]
    during = [found for seq, found in rows if (first or 0) < seq <= (last or 0)]
    known: dict[tuple[Any, ...], Override] = {}
    for found in (*before, *during):
        for one in found:
            words = f"rule {one.get('id')} bypassed: {one.get('reason')}"
            known.setdefault((one.get("id"), one.get("until_ns")), Override("", words, str(one.get("by", ""))))
    return list(known.values())


def _reason(journal: Journal, entry: SessionEntry) -> str:
    """Why it ended: the last reason that its records have; of one closed as partial also what was said then."""
    if entry.status == read.OPEN:
        return entry.reason
    reasons = [
        str(json.loads(row["data"]).get("reason", ""))
        for row in read.rows_of(journal, "events", entry.session)
        if row["kind"] == read.RECORD_KIND
    ]
    return "; ".join(dict.fromkeys(reason for reason in reasons[-2:] if reason)) or entry.reason


def _termination(entry: SessionEntry, reason: str, tripped: Sequence[str]) -> Termination:
    if entry.status == "completed":
        return "NORMAL"
    if entry.status == read.OPEN:
        return "UNKNOWN"
    first = reason.split("; ")[0]
    if "by the operator" in first:
        return "OPERATOR"
    return "MACHINE" if first and (first in tripped or entry.status != "partial") else "UNKNOWN"
