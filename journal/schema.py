"""Tables of the journal, and the steps that bring an older one to this version.

Every table begins with the same columns (`COMMON`); rows are only ever appended, and the database itself refuses
anything else. Steps are a list: a migration tool would bring a second source of truth, templates and a configuration
file for what is a handful of statements that never change once they are out (decision 0023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

JOURNAL_SCHEMA = "ionctl.journal/1"
COMMON = ("seq", "batch", "t_ns", "session", "digest")
METADATA = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("t_ns", sa.BigInteger, nullable=False),
        sa.Column("session", sa.String(64), nullable=False, index=True),
        *columns,
        sa.Column("digest", sa.String(64), nullable=False),
    )


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False)


def _whole(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double, nullable=False)


STEPS_TABLE = sa.Table(
    "schema_steps", METADATA, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False), _text("facility")
)
"""Which steps were taken, and for which facility the journal was begun."""
BATCHES = sa.Table(
    "batches",
    METADATA,
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    _whole("t_ns"),
    _text("written"),
    _whole("first_seq"),
    _whole("rows"),
    sa.Column("hash", sa.String(64), nullable=False),
)
"""The chain: each hash covers the one before and the digests of the batch's rows."""
SESSIONS = _table(
    "sessions", _text("facility"), _text("config_hash"), _text("energy_table"), _text("room"), _text("mode"),
    _whole("qa"), _text("plan_label"), _text("plan_hash"), _text("plan_path"), _text("patient"), _text("operator"),
    _whole("layers"), _whole("spots"), _number("prescribed_ions"),
)  # fmt: skip
"""A session was opened, or opened again to go on (`resumes` in `events`)."""
FRACTIONS = _table(
    "fractions", _text("patient"), _text("plan_hash"), _whole("fraction"), _whole("planned"), _text("status"),
    _number("ic1_ions"),
)  # fmt: skip
"""A fraction has begun, or ended: completed, partial."""
LAYERS = _table(
    "layers", _whole("layer"), _whole("beam"), _whole("token"), _text("status"), _whole("loads"), _whole("spots"),
    _whole("spots_done"), _number("prescribed_ions"), _number("ic1_ions"), _number("ic2_ions"),
    _number("uncertain_ions"), _number("beam_on_s"),
)  # fmt: skip
"""A layer was armed, booked unfinished, recovered or verified; what it got in all."""
SPOTS = _table(
    "spots", _whole("layer"), _text("status"), _whole("n"), sa.Column("rows", sa.LargeBinary, nullable=False)
)
"""The spots of a row of `layers`: float64, little-endian, (n, columns of the register), totals over all loads."""
EVENTS = _table("events", _text("source"), _text("kind"), _text("data"))
TRIPS = _table("trips", _text("rule"), _text("action"), _whole("layer"), _text("detail"))
BYPASSES = _table("bypasses", _text("data"))
"""The bypasses in force, each time they changed."""
COMMANDS = _table("commands", _text("command"), _text("issuer"), _text("role"), _text("verb"), _text("arguments"),
                  _text("outcome"), _text("words"))  # fmt: skip
OPERATORS = _table("operators", _text("operator"), _text("role"), _text("what"), _text("reason"))
"""Who opened, started, resumed, confirmed or closed a session, and why."""
COURSES = _table(
    "courses", _text("patient"), _text("plan_hash"), _text("plan_uid"), _text("intent"), _whole("fraction"),
    _whole("planned"), _text("delivery"), _text("continues"),
)  # fmt: skip
"""Which fraction of which course a session is, each time it is opened; fraction 0: of none."""

_FIRST_TABLES = (SESSIONS, FRACTIONS, LAYERS, SPOTS, EVENTS, TRIPS, BYPASSES, COMMANDS, OPERATORS)
ROW_TABLES = (*_FIRST_TABLES, COURSES)
BY_NAME = {table.name: table for table in ROW_TABLES}


def _first(connection: sa.Connection) -> None:
    METADATA.create_all(connection, tables=[STEPS_TABLE, *_FIRST_TABLES, BATCHES])
    _protect(connection, *_FIRST_TABLES, BATCHES)


def _courses(connection: sa.Connection) -> None:
    METADATA.create_all(connection, tables=[COURSES])
    _protect(connection, COURSES)


def _protect(connection: sa.Connection, *tables: sa.Table) -> None:
    for table in tables:
        for statement in _append_only(table.name, connection.dialect.name):
            connection.exec_driver_sql(statement)


def _append_only(table: str, dialect: str) -> list[str]:
    """Statements that have the database refuse to change or delete rows."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
            for verb in ("update", "delete")
        ]
    return [
        "CREATE OR REPLACE FUNCTION ionctl_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION ionctl_append_only()",
    ]


STEPS: tuple[Callable[[sa.Connection], None], ...] = (_first, _courses)
"""Step k makes version k + 1 of version k. Never change one that is out: append another."""
VERSION = len(STEPS)
