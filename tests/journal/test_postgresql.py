"""The same journal on a real PostgreSQL server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from facility.errors import JournalError
from facility.timebase import ManualClock
from interlocks.snapshot import Mode
from journal import read
from journal.store import Journal, open_journal, sqlite_url
from journal.verify import verify
from journal.writer import InlineWriter
from records.account import read_account
from records.dicom_record import record_bytes
from rig.deliver_virtual import deliver_in
from rig.virtual_world import World, WorldOptions
from tests.journal.postgresql import server, why_not
from tests.journal.rows import batch, event
from tests.recovery.test_crashes import facility, program

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder, server(Path(folder)) as found:
        yield found


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    found = open_journal(url, "wuwei")
    yield found
    found.close()


def test_it_is_written_verified_and_gone_on_with(journal: Journal, url: str) -> None:
    journal.append([batch(1, 2), batch(3)])
    other = open_journal(url, "wuwei")
    other.append([batch(4)])
    journal.append([batch(5)])
    verdict = verify(other)
    other.close()
    assert (verdict.broken, verdict.batches, verdict.rows) == ("", 4, 10)
    with journal.reading() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_what_is_read_is_of_one_moment(journal: Journal, url: str) -> None:
    """Else rows and batches of a commit that comes between would not go together, and the chain be called broken."""
    other = open_journal(url, "wuwei")
    journal.append([batch(1, 2)])
    with journal.reading() as connection:
        counted = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in ("events", "batches")
        ]
        other.append([batch(3)])
        again = [connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in ("events", "batches")]
    assert counted == again == [2, 1]
    verdict = verify(journal)
    assert (verdict.broken, verdict.batches) == ("", 2)
    other.close()


@pytest.mark.parametrize("verb", ["UPDATE events SET t_ns = 1", "DELETE FROM batches"])
def test_it_is_append_only(journal: Journal, verb: str) -> None:
    journal.append([batch(1)])
    with pytest.raises(JournalError, match="append-only"), journal.reading() as connection:
        connection.exec_driver_sql(verb)


def test_a_changed_row_is_named(journal: Journal) -> None:
    journal.append([batch(1, 2)])
    with journal.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER ALL")
        connection.exec_driver_sql("UPDATE events SET data = '' WHERE seq = 3")
    assert "events, row 3" in verify(journal).broken


def test_another_facility_is_refused(journal: Journal, url: str) -> None:
    with pytest.raises(JournalError, match="wuwei, not of pimms"):
        open_journal(url, "pimms")


def test_a_server_that_has_gone_is_a_fault_and_what_was_given_is_written_when_it_is_back(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        with server(Path(folder)) as url:
            it = InlineWriter(open_journal(url, "wuwei"), ManualClock())
            it.add("events", "S-1", event(1).values)
            it.flush()
            assert it.fault() is None
        it.add("events", "S-1", event(2).values)
        it.flush()
        assert "the journal cannot be written" in str(it.fault())
        with server(Path(folder)):
            it.flush()
            assert it.fault() is None
            verdict = verify(it.journal)
            assert (verdict.broken, verdict.rows) == ("", 2)
            it.close()


def test_a_delivery_is_on_record_there_as_in_a_file(journal: Journal, tmp_path: Path) -> None:
    """The same session, the same accounts of its spots, the same treatment record to the byte."""
    on_record = []
    for kept in (journal, open_journal(sqlite_url(tmp_path / "journal.sqlite"), "wuwei")):
        options = WorldOptions(load_program=lambda *_: program(), mode=Mode.QA, journal=kept)
        _, summary = deliver_in(World(facility(), program().room_id, "carbon", 1, options), program())
        assert summary.status == "completed"
        (entry,) = read.sessions(kept)
        assert entry.status == "completed"
        on_record.append(record_bytes(read_account(kept, entry.session, program())))
        verdict = verify(kept)
        on_record.append(f"{verdict.broken} {verdict.rows} {verdict.tip.hash}".encode())
    kept.close()
    assert on_record[:2] == on_record[2:]
