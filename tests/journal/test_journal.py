"""The journal keeps what it was given, in order, and says which row is not what was written."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from facility.errors import JournalError
from journal import schema
from journal.course import read_course
from journal.store import Batch, Journal, Row, open_journal, sqlite_url
from journal.verify import Stretch, require_whole, verify
from tests.journal.rows import batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path):
    found = open_journal(sqlite_url(path), "wuwei")
    found.append([batch(1, 2), batch(3)])
    found.append([batch(4)])
    yield found
    found.close()


def raw(path: Path, *statements: str) -> None:
    """What somebody does who has the file and knows his way."""
    with sqlite3.connect(path) as connection:
        for table in (*schema.BY_NAME, "batches"):
            for verb in ("update", "delete"):
                connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        for statement in statements:
            connection.execute(statement)


def broken(path: Path) -> str:
    found = open_journal(sqlite_url(path), "wuwei")
    try:
        return verify(found).broken
    finally:
        found.close()


def test_a_journal_is_whole_and_ends_where_it_says(journal: Journal) -> None:
    verdict = verify(journal)
    assert (verdict.broken, verdict.batches, verdict.rows) == ("", 3, 8)
    assert verdict.tip == journal.tip()


def test_it_is_kept_in_full_at_each_commit(journal: Journal) -> None:
    with journal.reading() as connection:
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert values == ["wal", 2]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE events SET data = '{}' WHERE seq = 3", "events, row 3"),
        ("UPDATE spots SET rows = x'00' WHERE seq = 4", "spots, row 4"),
        ("UPDATE events SET t_ns = 99 WHERE seq = 1", "events, row 1"),
        ("UPDATE events SET session = 'S-2' WHERE seq = 7", "events, row 7"),
        ("DELETE FROM spots WHERE seq = 6", "row 6 of batch 2"),
        ("DELETE FROM events WHERE batch = 1", "row 1 of batch 1"),
        ("DELETE FROM batches WHERE batch = 2", "events, row 5: belongs to no batch"),
        ("DELETE FROM batches WHERE batch = 3", "events, row 7: belongs to no batch"),
        ("UPDATE batches SET hash = 'x' WHERE batch = 2", "batches, row 2"),
        ("UPDATE batches SET t_ns = 0 WHERE batch = 1", "batches, row 1"),
        ("INSERT INTO events SELECT 9, 3, t_ns, session, source, kind, data, digest FROM events WHERE seq = 7",
         "events, row 9"),
    ],
)  # fmt: skip
def test_the_first_broken_row_is_named(journal: Journal, path: Path, statement: str, named: str) -> None:
    journal.close()
    raw(path, statement)
    assert named in broken(path)


def test_what_was_written_since_a_session_was_opened_is_checked_alone(journal: Journal, path: Path) -> None:
    journal.append([_opened("S-9", 5), batch(6)])
    assert (verify(journal, "S-9").broken, verify(journal, "S-9").rows) == ("", verify(journal).rows)
    assert verify(journal, "S-9").batches == 2
    journal.close()
    raw(path, "UPDATE events SET data = '{}' WHERE seq = 3")
    again = open_journal(sqlite_url(path), "wuwei")
    require_whole(again, "S-9")
    assert "events, row 3" in verify(again).broken
    assert "events, row 3" in verify(again, "a session that it does not know").broken
    again.close()
    raw(path, "DELETE FROM spots WHERE seq = 11")
    again = open_journal(sqlite_url(path), "wuwei")
    with pytest.raises(JournalError, match=r"not what was written: row 11 of batch 5 is missing .*: keep the file"):
        require_whole(again, "S-9")
    again.close()


def _opened(name: str, t_ns: int) -> Batch:
    """A session is opened."""
    values = dict.fromkeys(
        [column.name for column in schema.SESSIONS.columns if column.name not in schema.COMMON], "x"
    ) | {"qa": 0, "layers": 1, "spots": 2, "prescribed_ions": 1.0}
    return Batch((Row("sessions", t_ns, name, values),), t_ns)


def test_what_has_just_been_found_whole_is_not_gone_through_again(journal: Journal, path: Path) -> None:
    journal.append([_opened("S-8", 5), batch(6), _opened("S-9", 7), batch(8)])
    tip = journal.tip()
    known = require_whole(journal, "S-8")
    assert (known.begin.batch, known.end) == (3, tip)
    journal.append([batch(9)])
    journal.close()
    raw(path, "UPDATE events SET data = '{}' WHERE seq = 10")  # of the batch after S-8 was opened
    again = open_journal(sqlite_url(path), "wuwei")
    with pytest.raises(JournalError, match=r"events, row 10"):
        require_whole(again, "S-8")
    later = require_whole(again, "S-8", known)
    assert (later.begin, later.end) == (known.begin, again.tip())
    assert require_whole(again, "S-9", known) == later  # it was opened within what is known
    with pytest.raises(JournalError, match=r"events, row 10"):
        require_whole(again, "S-8", require_whole(again, "S-9"))  # begins later
    assert require_whole(again, "S-9", Stretch(later.end, later.end)).begin.batch == 5  # begins before what is known
    with pytest.raises(JournalError, match=r"events, row 10"):
        require_whole(again, "S-9", Stretch(known.begin, known.begin))  # opened after what is known: read from there
    again.close()
    raw(path, "UPDATE events SET data = '{}' WHERE seq = 15")  # after what is known
    again = open_journal(sqlite_url(path), "wuwei")
    with pytest.raises(JournalError, match=r"events, row 15"):
        require_whole(again, "S-8", known)
    again.close()


@pytest.mark.parametrize(
    "change", ["UPDATE batches SET hash = 'x'", "UPDATE batches SET rows = 3", "DELETE FROM batches"]
)
def test_a_journal_that_no_longer_has_what_it_was_known_by_is_broken(journal: Journal, path: Path, change: str) -> None:
    journal.append([_opened("S-8", 5), batch(6)])
    known = require_whole(journal, "S-8")
    journal.close()
    raw(path, *(f"DELETE FROM {name} WHERE batch = 5" for name in schema.BY_NAME), f"{change} WHERE batch = 5")
    again = open_journal(sqlite_url(path), "wuwei")
    with pytest.raises(JournalError, match="batches, row 5: is no longer what it was just now"):
        require_whole(again, "S-8", known)
    again.close()


def test_a_session_is_no_part_of_what_is_known_because_its_row_says_so(journal: Journal, path: Path) -> None:
    journal.append([_opened("S-8", 5), batch(6), _opened("S-9", 7), batch(8)])
    known = require_whole(journal, "S-9")
    journal.close()
    raw(path, "UPDATE sessions SET batch = 6 WHERE session = 'S-8'")
    again = open_journal(sqlite_url(path), "wuwei")
    with pytest.raises(JournalError, match="not what was written"):
        require_whole(again, "S-8", known)
    again.close()


def test_a_change_with_its_digest_mended_breaks_the_batch(journal: Journal, path: Path) -> None:
    journal.close()
    raw(path, "UPDATE events SET digest = 'ab' WHERE seq = 5")
    assert "events, row 5" in broken(path)


@pytest.mark.parametrize("verb", ["UPDATE events SET t_ns = 1", "DELETE FROM batches", "DELETE FROM spots"])
def test_the_database_refuses_to_change_what_is_written(journal: Journal, verb: str) -> None:
    with pytest.raises(JournalError, match="append-only"), journal.reading() as connection:
        connection.exec_driver_sql(verb)


def test_it_goes_on_where_it_ended(journal: Journal, path: Path) -> None:
    journal.close()
    again = open_journal(sqlite_url(path), "wuwei")
    again.append([batch(9)])
    assert verify(again).broken == ""
    assert again.tip().batch == 4
    again.close()


def test_two_writers_share_one_chain(journal: Journal, path: Path) -> None:
    other = open_journal(sqlite_url(path), "wuwei")
    for k in range(5):
        other.append([batch(10 + k)])
        journal.append([batch(20 + k)])
    assert verify(other).broken == ""
    other.close()


def test_the_journal_of_another_facility_is_refused(journal: Journal, path: Path) -> None:
    with pytest.raises(JournalError, match=r"wuwei, not of lanzhou .*--facility wuwei"):
        open_journal(sqlite_url(path), "lanzhou")


def test_a_newer_journal_is_refused(journal: Journal, path: Path) -> None:
    journal.close()
    raw(path, "INSERT INTO schema_steps VALUES (99, 'wuwei')")
    with pytest.raises(JournalError, match="version 99"):
        open_journal(sqlite_url(path), "wuwei")


def test_an_older_journal_is_brought_forward(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.close()

    def second(connection) -> None:
        connection.exec_driver_sql("CREATE TABLE notes (note TEXT)")

    monkeypatch.setattr("journal.store.STEPS", (*schema.STEPS, second))
    monkeypatch.setattr("journal.store.VERSION", schema.VERSION + 1)
    newer = open_journal(sqlite_url(path), "wuwei")
    with newer.reading() as connection:
        assert connection.exec_driver_sql("SELECT max(version) FROM schema_steps").scalar() == schema.VERSION + 1
        assert connection.exec_driver_sql("SELECT count(*) FROM notes").scalar() == 0
    assert verify(newer).broken == ""
    newer.close()


def test_a_journal_of_the_first_version_gets_the_courses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as old:
        old.setattr("journal.store.STEPS", schema.STEPS[:1])
        old.setattr("journal.store.VERSION", 1)
        first = open_journal(sqlite_url(path), "wuwei")
        first.append([batch(1, 2)])
        first.close()
    newer = open_journal(sqlite_url(path), "wuwei")
    assert read_course(newer, "P-1", "ab").fractions == ()
    newer.append([batch(3)])
    assert (verify(newer).broken, verify(newer).batches) == ("", 2)
    newer.close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO courses VALUES (9, 3, 0, 'S', 'P', 'h', 'u', '', 1, 1, 'TREATMENT', '', 'd')")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM courses")


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "postgresql+nodriver://x/y"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(JournalError, match="no journal can be opened"):
        open_journal(url, "wuwei")


def test_a_file_that_is_no_journal_is_named_and_left_alone(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough for one" * 50)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="not a database"):
        open_journal(sqlite_url(path), "wuwei")
    assert path.read_bytes() == before


def test_bytes_that_are_overwritten_are_found(journal: Journal, path: Path, tmp_path: Path) -> None:
    journal.append([batch(*range(100, 400))])
    journal.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    data = bytearray(copy.read_bytes())
    place = data.index(b'{"k":250}')
    data[place : place + 9] = b'{"k":251}'
    copy.write_bytes(data)
    assert "events, row" in broken(copy)
