"""Appends to a journal without making anybody wait for a disk.

Rows are gathered, sealed into a batch, and committed: by a thread of its own (`ThreadedWriter`), or when somebody asks
for it (`InlineWriter`, virtual time: the disk's wall time is not the facility's).
Whoever may only go on once something is on the disk awaits `durable`; nobody who takes beam away ever does.

A journal that fails keeps what it was given, tries again, and says so in `fault`: then there is no beam. What waits is
bounded; beyond that a fault stays until somebody has looked, because something was not written down.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from facility.errors import JournalError
from facility.timebase import Clock
from journal.store import Batch, Journal, Row

OLDEST_S = 2.0
"""A commit that has waited longer means: no beam."""
RETRY_S = 0.25
MOST_ROWS = 20_000


class Writer(Protocol):
    """What writes the journal down."""

    def add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        """A row of the batch in the making."""

    def seal(self) -> None:
        """The batch in the making is whole."""

    def settle(self) -> None:
        """Commit soon what was sealed; nobody waits for it, a failure is told by `fault`."""

    async def durable(self) -> None:
        """All that was sealed is on the disk. JournalError if it is not, or not within OLDEST_S."""

    def fault(self) -> str | None:
        """Why there must be no beam, in words; None if all is well."""


class NullWriter:
    """For tests of something else: nothing is written, nothing fails."""

    def add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        """Forgotten."""

    def seal(self) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to do."""

    async def durable(self) -> None:
        """Nothing to wait for."""

    def fault(self) -> str | None:
        """None ever."""
        return None


class NoJournal(NullWriter):
    """A journal that could not be opened: no beam, and the reason why.

    Args:
        problem: what was wrong with it.
    """

    def __init__(self, problem: JournalError) -> None:
        self.problem = problem

    async def durable(self) -> None:
        """Never."""
        raise self.problem

    def fault(self) -> str | None:
        """The reason."""
        return str(self.problem)


class _Gatherer:
    """Rows in the making and batches that wait; not for use from several threads at once."""

    def __init__(self, clock: Clock, written: Callable[[], str]) -> None:
        self._clock = clock
        self._written = written
        self._rows: list[Row] = []
        self.waiting: deque[Batch] = deque()
        self.rows_waiting = 0
        self.overflown = False
        self._cut = False
        """The batch in the making does not fit: nothing of it is kept, half of it would be worse than none."""

    def add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        if self._cut or self.rows_waiting + len(self._rows) >= MOST_ROWS:
            self.overflown = self._cut = True
            self._rows = []
            return
        self._rows.append(Row(table, self._clock.now_ns(), session, values))

    def seal(self) -> bool:
        """Whether there was anything."""
        self._cut = False
        if not self._rows:
            return False
        self.waiting.append(Batch(tuple(self._rows), self._clock.now_ns(), self._written()))
        self.rows_waiting += len(self._rows)
        self._rows = []
        return True

    def take(self) -> tuple[Batch, ...]:
        return tuple(self.waiting)

    def committed(self, count: int) -> None:
        for _ in range(count):
            self.rows_waiting -= len(self.waiting.popleft().rows)

    @property
    def fault(self) -> str | None:
        return (
            f"more than {MOST_ROWS} rows wait for the journal: some were not written down" if self.overflown else None
        )


class InlineWriter:
    """Commits when `durable` or `flush` is called, in the caller's own time.

    Args:
        journal: where to.
        clock: facility time.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self._gathered = _Gatherer(clock, lambda: "")
        self._failed: JournalError | None = None

    def add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        """A row of the batch in the making."""
        self._gathered.add(table, session, values)

    def seal(self) -> None:
        """The batch in the making is whole."""
        self._gathered.seal()

    def settle(self) -> None:
        """Commit what waits."""
        self.flush()

    async def durable(self) -> None:
        """Commit what waits."""
        self.flush()
        if self._failed is not None:
            raise self._failed

    def flush(self) -> None:
        """Commit what waits; a failure is kept for `fault` and `durable`, and what was not written waits on."""
        self._gathered.seal()
        batches = self._gathered.take()
        if not batches:
            return
        try:
            self.journal.append(batches)
        except JournalError as problem:
            self._failed = problem
            return
        self._failed = None
        self._gathered.committed(len(batches))

    def fault(self) -> str | None:
        """Why there must be no beam."""
        return self._gathered.fault or (None if self._failed is None else str(self._failed))

    def close(self) -> None:
        """Write the rest, let go."""
        self.flush()
        self.journal.close()


class ThreadedWriter:
    """Commits in a thread of its own.

    Args:
        journal: where to; the thread's alone from now on.
        clock: facility time.
        now_s: a clock that goes on when facility time does not, s.
        written: calendar time in ISO form.
        on_change: called on the thread when something was committed or has failed.
    """

    def __init__(
        self, journal: Journal, clock: Clock, now_s: Callable[[], float], written: Callable[[], str],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.journal = journal
        self.on_change = on_change
        self._now_s = now_s
        self._gathered = _Gatherer(clock, written)
        self._since_s: deque[float] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._sealed = self._done = 0
        self._failed: JournalError | None = None
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        """A row of the batch in the making."""
        with self._lock:
            self._gathered.add(table, session, values)

    def seal(self) -> None:
        """The batch in the making is whole; the thread commits it."""
        with self._lock:
            if not self._gathered.seal():
                return
            self._sealed += 1
            self._since_s.append(self._now_s())
        self._wake.set()

    def settle(self) -> None:
        """The thread is at it already."""

    async def durable(self) -> None:
        """Wait for the thread, OLDEST_S at most."""
        self.seal()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._done >= self._sealed:
                return
            self._waiters.append((self._sealed, loop, future))
        try:
            async with asyncio.timeout(OLDEST_S):
                await future
        except TimeoutError:
            raise self._failed or JournalError(
                "journal.slow", f"a commit has not ended within {OLDEST_S:g} s", self.journal.where,
                "see what keeps its disk or server busy",
            ) from None  # fmt: skip

    def fault(self) -> str | None:
        """Why there must be no beam."""
        with self._lock:
            if self._gathered.fault is not None:
                return self._gathered.fault
            if not self._thread.is_alive() and not self._stopping:
                return "the journal's thread has ended"
            if self._failed is not None:
                return str(self._failed)
            age_s = self._now_s() - self._since_s[0] if self._since_s else 0.0
        return f"a commit to the journal waits for {age_s:.1f} s" if age_s > OLDEST_S else None

    def close(self, timeout_s: float = 5.0) -> None:
        """Write the rest, `timeout_s` (s) at most, and let go."""
        self.seal()
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._commit():
                if self._stopping and self._failed is not None:
                    break
                if self._failed is not None:
                    self._wake.wait(RETRY_S)
                    self._wake.clear()
            if self._stopping:
                self.journal.close()
                return

    def _commit(self) -> bool:
        """One transaction with all that waits; False if nothing does."""
        with self._lock:
            batches = self._gathered.take()
        if not batches:
            return False
        try:
            self.journal.append(batches)
        except JournalError as problem:
            with self._lock:
                self._failed = problem
            self.on_change()
            return True
        with self._lock:
            self._failed = None
            self._gathered.committed(len(batches))
            for _ in batches:
                self._since_s.popleft()
            self._done += len(batches)
            ready = [waiter for waiter in self._waiters if waiter[0] <= self._done]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > self._done]
        for _, loop, future in ready:
            loop.call_soon_threadsafe(_settle, future)
        self.on_change()
        return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
