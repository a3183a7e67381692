"""Writing without waiting: what fails is said, kept and tried again; nothing that was written is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from facility.errors import JournalError
from facility.timebase import ManualClock
from journal import writer as writing
from journal.store import open_journal, sqlite_url
from journal.verify import verify
from journal.writer import OLDEST_S, InlineWriter, ThreadedWriter, Writer
from tests.journal.rows import event
from tests.journal.sqlite_files import FaultyFiles, after_power_loss, faulty_files, why_not

needs_layer = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")


def write(it: Writer, k: int) -> None:
    it.add("events", "S-1", event(k).values)
    it.seal()


def count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


def whole(path: Path) -> int:
    """Rows of a journal that verifies."""
    found = open_journal(sqlite_url(path), "wuwei")
    verdict = verify(found)
    found.close()
    assert verdict.broken == ""
    return verdict.rows


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def threaded(path: Path, watch: Watch) -> ThreadedWriter:
    return ThreadedWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock(), watch, lambda: "2026-01-01T00:00:00Z")


async def test_a_thread_commits_and_tells_who_waits(path: Path) -> None:
    it = threaded(path, Watch())
    for k in range(20):
        write(it, k)
    await it.durable()
    assert count(path) == 20
    assert it.fault() is None
    it.close()
    assert whole(path) == 20


async def test_inline_commits_when_asked(path: Path) -> None:
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    write(it, 1)
    write(it, 2)
    assert count(path) == 0
    await it.durable()
    assert count(path) == 2
    it.close()
    assert whole(path) == 2


@needs_layer
@pytest.mark.parametrize(("code", "words"), [(13, "full"), (10, "disk I/O error"), (8, "readonly")])
async def test_a_disk_that_fails_is_said_and_what_was_given_is_written_later(path: Path, code: int, words: str) -> None:
    with faulty_files() as files:
        it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
        write(it, 1)
        await it.durable()
        files.failure, files.fail_at = code, len(files.deeds)
        write(it, 2)
        with pytest.raises(JournalError, match=words):
            await it.durable()
        assert words in str(it.fault())
        files.fail_at = None
        await it.durable()
        assert it.fault() is None
        it.close()
    assert whole(path) == 2


async def test_a_journal_that_somebody_locks_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journal.store.LOCKED_S", 0.01)
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    write(it, 1)
    with pytest.raises(JournalError, match="locked"):
        await it.durable()
    holder.execute("ROLLBACK")
    await it.durable()
    assert it.fault() is None
    it.close()
    holder.close()
    assert whole(path) == 1


@needs_layer
async def test_a_commit_older_than_two_seconds_is_a_fault_and_delays_nobody(path: Path) -> None:
    """The disk hangs; whoever adds rows, and whoever takes beam away, goes on all the same."""
    release = threading.Event()
    watch = Watch()
    with faulty_files() as files:
        it = threaded(path, watch)
        files.slow = lambda: release.wait(20.0) and None
        write(it, 1)
        watch.s = 1.9
        assert it.fault() is None
        watch.s = 2.1
        assert "waits for 2.1 s" in str(it.fault())
        write(it, 2)  # returns at once
        files.slow = lambda: None
        release.set()
        await it.durable()
        assert it.fault() is None
        it.close()
    assert OLDEST_S == 2.0
    assert whole(path) == 2


async def test_what_waits_is_bounded_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ROWS", 10)
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    for k in range(11):
        write(it, k)
    assert "were not written down" in str(it.fault())
    await it.durable()
    assert "were not written down" in str(it.fault())
    it.close()
    assert whole(path) == 10


async def test_of_a_batch_that_does_not_fit_nothing_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer without its spots would make the whole session unreadable."""
    monkeypatch.setattr(writing, "MOST_ROWS", 4)
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    write(it, 0)
    for k in range(5):
        it.add("events", "S-1", event(k).values)
    it.seal()
    assert "were not written down" in str(it.fault())
    await it.durable()
    write(it, 1)
    it.close()
    assert whole(path) == 2


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal with nothing in it."""
    path = tmp_path_factory.mktemp("empty") / "journal.sqlite"
    open_journal(sqlite_url(path), "wuwei").close()
    return path.read_bytes()


def fill(path: Path, batches: int, files: FaultyFiles) -> list[int]:
    """Commit batches of four rows; how many deeds had been done after each that was durable."""
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    marks = []
    for k in range(batches):
        for j in range(4):
            it.add("events", "S-1", event(10 * k + j).values)
        it.flush()
        if it.fault() is None:
            marks.append(len(files.deeds))
    it.journal.close()
    return marks


@needs_layer
@pytest.mark.parametrize("begun", [True, False])
def test_power_loss_at_every_write_leaves_a_whole_chain_with_all_that_was_durable(
    path: Path, tmp_path: Path, empty: bytes, begun: bool
) -> None:
    before = {path.name: empty} if begun else {}
    if begun:
        path.write_bytes(empty)
    with faulty_files() as files:
        marks = fill(path, 6, files)
    rng = np.random.default_rng(3)
    for cut in range(0, len(files.deeds) + 1, 1 if begun else 9):  # making the tables is many writes alike
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        for name, data in after_power_loss(files.deeds, cut, rng, before).items():
            (folder / name).write_bytes(data)
        assert whole(folder / path.name) >= 4 * sum(mark <= cut for mark in marks)


@needs_layer
def test_a_death_at_every_write_leaves_a_whole_chain(path: Path, tmp_path: Path, empty: bytes) -> None:
    """kill -9: the operating system keeps every write that was made."""
    path.write_bytes(empty)
    with faulty_files() as files:
        fill(path, 2, files)
    for cut in range(len(files.deeds)):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(empty)
        with faulty_files() as dying:
            dying.fail_at = cut
            durable = len(fill(folder / path.name, 2, dying))
        assert whole(folder / path.name) >= 4 * durable


def test_the_event_loop_is_free_while_the_thread_writes(path: Path) -> None:
    async def beat() -> int:
        it = threaded(path, Watch())
        write(it, 1)
        beats = 0
        waiting = asyncio.ensure_future(it.durable())
        while not waiting.done():
            beats += 1
            await asyncio.sleep(0)
        it.close()
        return beats

    assert asyncio.run(beat()) > 0


def test_who_reads_does_not_keep_the_writer_waiting(path: Path) -> None:
    it = InlineWriter(open_journal(sqlite_url(path), "wuwei"), ManualClock())
    reader = open_journal(sqlite_url(path), "wuwei", read_only=True)
    with reader.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM events").scalar()
        write(it, 1)
        it.flush()
        assert it.fault() is None
    reader.close()
    it.close()
