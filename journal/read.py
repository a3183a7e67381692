"""What a journal says, for recovery, reports and checks. Nothing here writes.

    journal = open_journal(url, facility, read_only=True)
    for entry in sessions(journal): ...
    for layer in layers(journal, entry.session): layer.rows[:, column]

Rows are the front end's register in `REGISTER_COLUMNS`, totals over all loads, as far as they were booked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from facility.errors import JournalError, no_such
from facility.pv_catalogue import REGISTER_COLUMNS
from journal.schema import BY_NAME, COURSES, EVENTS, FRACTIONS, LAYERS, OPERATORS, SESSIONS, SPOTS
from journal.store import Journal

FloatArray = npt.NDArray[np.float64]
RECORD_KIND = "session.record"
RULES_KIND = "session.rules"
"""Kind of an event: a session goes by interlock rules of this `rules_hash`. Where `before` is not empty, somebody has
had it delivered under them for the first time, and before it went by those."""
UNKNOWN_RULES = "unknown"
"""`before` of a session whose journal does not say by which interlock rules it went."""
NEW_LIMITS = "new limits"
"""Of a row of operators: who went on with a session under other interlock rules than it went by."""
RECONCILED_KIND = "session.reconciled"
"""Kind of an event: journal and register were brought together; `known` is false where that could not be."""
ARMING, BOOKED, RECOVERED, VERIFIED = "arming", "booked", "recovered", "verified"
"""Status of a row of `layers`."""


OPEN = "open"
"""Status of a session without a record: it is under way, or who kept it died."""
BEGINS = ("start", "go on")
"""What `operators` calls a person's word to deliver: of a session that was just opened, and of one under way."""
ENDED = ("completed", "partial")
"""Status of a session that nobody can go on with."""
TREATMENT, CONTINUATION = "TREATMENT", "CONTINUATION"
"""What a session gives, in DICOM's words: a fraction from its beginning, or the rest of one closed as partial."""


@dataclass(frozen=True)
class SessionEntry:
    """One session, as it stands."""

    session: str
    t_opened_ns: int
    facility: str
    config_hash: str
    energy_table: str
    room: str
    mode: str
    qa: bool
    plan_label: str
    plan_hash: str
    plan_path: str
    patient: str
    operator: str
    layers: int
    spots: int
    prescribed_ions: float
    status: str
    """open (no record: it is under way, or who kept it died), interrupted, terminated, completed, partial."""
    reason: str
    ic1_ions: float
    """By the first chamber, as far as it was booked."""
    plan_uid: str = ""
    fraction: int = 0
    """Of a course, from 1; 0: of none (quality assurance, or an older journal)."""
    fractions_planned: int = 0
    delivery: str = TREATMENT
    continues: str = ""
    """The session whose rest this one gives."""
    rules_hash: str | None = None
    """Of the interlock rules that it goes by, since it was last started; None in a journal that does not say."""
    intent: str | None = None
    """PlanIntent of its plan, empty where the plan has none; None in a journal that knows no courses."""

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class LayerEntry:
    """One booking of a layer, totals over all its loads."""

    seq: int
    t_ns: int
    layer: int
    token: int
    status: str
    loads: int
    spots_done: int
    ic1_ions: float
    ic2_ions: float
    uncertain_ions: float
    rows: FloatArray
    """(n, len(REGISTER_COLUMNS)); (0, ...) for an arming."""
    uncertain: FloatArray
    """(n,): charge by spot that counts as delivered without having been measured."""


def sessions(journal: Journal, *, patient: str | None = None, plan_hash: str = "") -> list[SessionEntry]:
    """All sessions, oldest first; with `patient` those of that patient's plan alone."""
    wanted, record, course = (
        sa.select(SESSIONS),
        sa.select(EVENTS).where(EVENTS.c.kind.in_((RECORD_KIND, RULES_KIND))),
        sa.select(COURSES),
    )
    if patient is not None:
        wanted = wanted.where(SESSIONS.c.patient == patient, SESSIONS.c.plan_hash == plan_hash)
        course = course.where(COURSES.c.patient == patient, COURSES.c.plan_hash == plan_hash)
        record = record.where(EVENTS.c.session.in_(wanted.with_only_columns(SESSIONS.c.session)))
    with journal.reading() as connection:
        opened = connection.execute(wanted.order_by(SESSIONS.c.seq)).mappings().all()
        started = _started(connection)
        events = connection.execute(record.order_by(EVENTS.c.seq)).mappings().all()
        ended = {row["session"]: {"seq": row["seq"], **json.loads(row["data"])} for row in _of(events, RECORD_KIND)}
        rules = {row["session"]: json.loads(row["data"])["rules_hash"] for row in _of(events, RULES_KIND)}
        for name, told in ended.items():  # somebody has gone on since, and did not live to say how that ended
            if told["status"] not in ENDED and started.get(name, 0) > told["seq"]:
                told |= {"status": OPEN, "reason": ""}
        shares = {row["session"]: row for row in connection.execute(course.order_by(COURSES.c.seq)).mappings()}
        alive = {row["session"] for row in opened if ended.get(row["session"], {}).get("status") not in ENDED}
        booked = _booked_ions(connection, alive)
    first: dict[str, Any] = {}
    for row in opened:
        first.setdefault(row["session"], row)
    return [
        replace(_entry(row, ended.get(name, {}), shares.get(name), booked.get(name, 0.0)), rules_hash=rules.get(name))
        for name, row in first.items()
    ]


def _of(events: Sequence[Any], kind: str) -> list[Any]:
    return [row for row in events if row["kind"] == kind]


def _started(connection: sa.Connection) -> dict[str, int]:
    """By session, where somebody last had it delivered."""
    wanted = sa.select(OPERATORS.c.session, sa.func.max(OPERATORS.c.seq)).where(OPERATORS.c.what.in_(BEGINS))
    return {str(name): int(seq) for name, seq in connection.execute(wanted.group_by(OPERATORS.c.session))}


def _booked_ions(connection: sa.Connection, names: set[str]) -> dict[str, float]:
    """By session, the ions by the first chamber of each layer's last account: of who died there is no other record."""
    columns = (LAYERS.c.session, LAYERS.c.layer, LAYERS.c.ic1_ions)
    wanted = sa.select(*columns).where(LAYERS.c.session.in_(names), LAYERS.c.status != ARMING).order_by(LAYERS.c.seq)
    last = {(name, layer): ions for name, layer, ions in connection.execute(wanted)} if names else {}
    found: dict[str, float] = {}
    for (name, _layer), ions in last.items():
        found[name] = found.get(name, 0.0) + ions
    return found


def session(journal: Journal, name: str) -> SessionEntry:
    """One session; UsageError if there is none of that name."""
    found = sessions(journal)
    for entry in found:
        if entry.session == name:
            return entry
    raise no_such("session.unknown", "session", name, [entry.session for entry in found], lister="ionctl session list")


def _entry(row: Any, record: dict[str, Any], share: Any, booked_ions: float) -> SessionEntry:
    names = ("session", "facility", "config_hash", "energy_table", "room", "mode", "plan_label", "plan_hash",
             "plan_path", "patient", "operator", "layers", "spots", "prescribed_ions")  # fmt: skip
    return SessionEntry(
        **{name: row[name] for name in names}, qa=bool(row["qa"]), t_opened_ns=row["t_ns"],
        status=record.get("status", OPEN), reason=record.get("reason", ""),
        ic1_ions=max(float(record.get("ic1_ions", 0.0)), booked_ions), **_share(share),
    )  # fmt: skip


def _share(row: Any) -> dict[str, Any]:
    if row is None:
        return {}
    return {"plan_uid": row["plan_uid"], "fraction": row["fraction"], "fractions_planned": row["planned"],
            "delivery": row["delivery"], "continues": row["continues"], "intent": row["intent"]}  # fmt: skip


def layers(journal: Journal, name: str) -> list[LayerEntry]:
    """All bookings of the layers of a session, oldest first: armings, unfinished, recovered and verified ones."""
    with journal.reading() as connection:
        found = connection.execute(sa.select(LAYERS).where(LAYERS.c.session == name).order_by(LAYERS.c.seq)).mappings()
        booked = found.all()
        spots = connection.execute(sa.select(SPOTS).where(SPOTS.c.session == name).order_by(SPOTS.c.seq)).mappings()
        rows = {row["seq"]: row for row in spots}
    return [_layer(row, rows.get(row["seq"] + 1)) for row in booked]


def _layer(row: Any, spots: Any) -> LayerEntry:
    width = len(REGISTER_COLUMNS) + 1
    if spots is None or row["status"] == ARMING:
        table = np.zeros((0, width))
    elif len(spots["rows"]) != spots["n"] * width * 8 or spots["layer"] != row["layer"]:
        raise JournalError("journal.spots", f"the spots of layer {row['layer']} are not whole",
                           f"spots, row {spots['seq']}", "run ionctl journal verify")  # fmt: skip
    else:
        table = np.frombuffer(spots["rows"], dtype="<f8").reshape(spots["n"], width).astype(np.float64)
    return LayerEntry(
        seq=row["seq"], t_ns=row["t_ns"], layer=row["layer"], token=row["token"], status=row["status"],
        loads=row["loads"], spots_done=row["spots_done"], ic1_ions=row["ic1_ions"], ic2_ions=row["ic2_ions"],
        uncertain_ions=row["uncertain_ions"], rows=table[:, :-1], uncertain=table[:, -1],
    )  # fmt: skip


def fractions(journal: Journal, patient: str, plan_hash: str) -> list[dict[str, Any]]:
    """What was begun and ended of a patient's plan, oldest first."""
    wanted = sa.select(FRACTIONS).where(FRACTIONS.c.patient == patient, FRACTIONS.c.plan_hash == plan_hash)
    with journal.reading() as connection:
        return [dict(row) for row in connection.execute(wanted.order_by(FRACTIONS.c.seq)).mappings()]


def rows_of(journal: Journal, table: str, name: str) -> list[dict[str, Any]]:
    """All rows of a table of a session, oldest first; binary columns left out."""
    found = BY_NAME[table]
    columns = [column for column in found.columns if not isinstance(column.type, sa.LargeBinary)]
    with journal.reading() as connection:
        result = connection.execute(sa.select(*columns).where(found.c.session == name).order_by(found.c.seq))
        return [dict(row) for row in result.mappings()]


def pack_rows(rows: FloatArray, uncertain: FloatArray) -> bytes:
    """Rows of the register and uncertain charge by spot as the column `rows` of `spots` holds them."""
    return np.ascontiguousarray(np.column_stack([rows, uncertain]), dtype="<f8").tobytes()
