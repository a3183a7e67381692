"""One journal, open: appending batches in one transaction each, and reading.

SQLite: a file in WAL mode, synchronised in full at each commit. PostgreSQL: by URL, through the same statements; its
default is a synchronous commit, too. Writers take turns by a lock within the transaction, and read the tip inside it,
so that several consoles share one chain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from facility.errors import JournalError
from journal.chain import Tip, batch_hash, genesis, row_digest, tip_of
from journal.schema import BATCHES, BY_NAME, STEPS, STEPS_TABLE, VERSION

LOCKED_S = 0.5
"""How long a commit waits for another writer's before it fails."""
_LOCK_KEY = 0x696F6E63
"""PostgreSQL's advisory lock of the chain."""
_OLD = "this ionctl is older than the journal: use the newer one"


@dataclass(frozen=True)
class Row:
    """One row to come: `values` are the table's own columns."""

    table: str
    t_ns: int
    session: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Rows that are committed together and hashed as one."""

    rows: tuple[Row, ...]
    t_ns: int
    written: str = ""
    """Calendar time in ISO form; empty in virtual time."""


def sqlite_url(path: Path) -> str:
    """URL of a journal file."""
    return f"sqlite:///{path}"


class Journal:
    """A journal, open for one facility. Use `open_journal`."""

    def __init__(self, engine: sa.Engine, facility: str, where: str) -> None:
        self.engine = engine
        self.facility = facility
        self.where = where
        self._connection: sa.Connection | None = None
        """Kept open between commits, by the one thread that writes."""

    def append(self, batches: Sequence[Batch]) -> Tip:
        """Commit batches in one transaction: all of them or none. JournalError for whatever goes wrong."""
        with self._guarded("cannot be written"):
            if self._connection is None:
                self._connection = self.engine.connect()
            try:
                with self._connection.begin():
                    return self._append(self._connection, batches)
            except BaseException:
                self._connection.invalidate()
                self._connection.close()
                self._connection = None
                raise

    def _append(self, connection: sa.Connection, batches: Sequence[Batch]) -> Tip:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        tip = self._tip(connection)
        by_table: dict[str, list[dict[str, Any]]] = {}
        chain: list[dict[str, Any]] = []
        for batch in batches:
            tip = self._extend(tip, batch, by_table, chain)
        for name, rows in by_table.items():
            connection.execute(BY_NAME[name].insert(), rows)
        if chain:
            connection.execute(BATCHES.insert(), chain)
        return tip

    @staticmethod
    def _extend(tip: Tip, batch: Batch, by_table: dict[str, list[dict[str, Any]]], chain: list[dict[str, Any]]) -> Tip:
        number, digests = tip.batch + 1, []
        for place, row in enumerate(batch.rows, tip.seq + 1):
            made = {"seq": place, "batch": number, "t_ns": row.t_ns, "session": row.session, **row.values}
            made["digest"] = row_digest(row.table, made)
            digests.append(made["digest"])
            by_table.setdefault(row.table, []).append(made)
        found = batch_hash(tip.hash, number, batch.t_ns, batch.written, tip.seq + 1, digests)
        chain.append(
            {"batch": number, "t_ns": batch.t_ns, "written": batch.written, "first_seq": tip.seq + 1,
             "rows": len(batch.rows), "hash": found}
        )  # fmt: skip
        return Tip(number, tip.seq + len(batch.rows), found)

    def tip(self) -> Tip:
        """Where the chain ends."""
        with self.reading() as connection:
            return self._tip(connection)

    def _tip(self, connection: sa.Connection) -> Tip:
        last = connection.execute(sa.select(BATCHES).order_by(BATCHES.c.batch.desc()).limit(1)).mappings().first()
        return genesis(self.facility) if last is None else tip_of(last)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with: all that is read with it is of one moment, whoever writes meanwhile."""
        options = {"isolation_level": "REPEATABLE READ"} if self.engine.dialect.name == "postgresql" else {}
        readers = self.engine.execution_options(ionctl_read=True, **options)
        with self._guarded("cannot be read"), readers.connect() as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file or server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.engine.dispose()

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as problem:
            raise journal_error(problem, what, self.where) from problem


def journal_error(problem: Exception, what: str, where: str) -> JournalError:
    """The error that a person reads."""
    origin = getattr(problem, "orig", None) or problem
    words = str(origin).strip().splitlines()[0] if str(origin).strip() else type(origin).__name__
    fix = next((fix for sign, fix in _FIXES.items() if sign in words.lower()), "see that its disk or server is sound")
    return JournalError("journal.failed", f"the journal {what}: {words}", where, fix)


_FIXES = {
    "full": "make room on the disk",
    "readonly": "make the file and its folder writable",
    "read-only": "make the file and its folder writable",
    "locked": "find out who holds it: only ionctl may have the journal open",
    "malformed": "keep the file, restore the last good copy beside it, run ionctl journal verify",
    "not a database": "keep the file, restore the last good copy beside it, run ionctl journal verify",
    "unable to open": "see that the folder is there and writable",
}


def open_journal(url: str, facility: str, *, read_only: bool = False) -> Journal:
    """Open a journal, make it if it is not there, bring an older one to this version.

    JournalError if that fails, or for a journal of another facility or of a newer version.
    """
    try:
        engine = _engine(url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as problem:
        raise JournalError("journal.url", f"no journal can be opened there: {problem}", _shown(url),
                           "give sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE") from problem  # fmt: skip
    file = engine.url.database if read_only and engine.dialect.name == "sqlite" else None
    if file and not Path(file).exists():
        engine.dispose()
        raise JournalError(
            "journal.missing", "no journal: there is no such file", file, "deliver something first, or name another"
        )
    journal = Journal(engine, facility, _shown(url))
    try:
        with journal._guarded("cannot be opened"):
            _migrate(engine, facility, journal.where, read_only)
    except BaseException:
        engine.dispose()
        raise
    return journal


def _shown(url: str) -> str:
    """Without a password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "journal URL"


def _engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {round(LOCKED_S * 1e3)}", "journal_mode = WAL", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if options.get("ionctl_read") else "BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine, facility: str, where: str, read_only: bool) -> None:
    with engine.connect() as connection:
        found = _found(connection.execution_options(ionctl_read=True))
    if found is not None:
        _require_ours(found, facility, where)
    if found is not None and found[0] == VERSION:
        return
    if read_only:
        raise JournalError("journal.missing", "there is no journal of this version", where, "deliver something first")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        found = _found(connection)
        for version in range(0 if found is None else found[0], VERSION):
            STEPS[version](connection)
            connection.execute(STEPS_TABLE.insert(), {"version": version + 1, "facility": facility})


def _found(connection: sa.Connection) -> tuple[int, str] | None:
    """Version and facility of the journal that is there."""
    if not sa.inspect(connection).has_table(STEPS_TABLE.name):
        return None
    last = connection.execute(sa.select(STEPS_TABLE).order_by(STEPS_TABLE.c.version.desc()).limit(1)).first()
    return None if last is None else (int(last.version), str(last.facility))


def _require_ours(found: tuple[int, str], facility: str, where: str) -> None:
    version, owner = found
    if owner != facility:
        raise JournalError("journal.facility", f"this is the journal of {owner}, not of {facility}", where,
                           f"one journal holds one facility: name another journal, or --facility {owner}")  # fmt: skip
    if version > VERSION:
        raise JournalError("journal.version", f"version {version}; known: {VERSION}", where, _OLD)
