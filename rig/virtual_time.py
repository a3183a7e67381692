"""An event loop that lives in facility time: its clock jumps to the next timer or plant event, never waits.

Time is integer nanoseconds. One timer runs at a time, with everything it wakes, before the next one;
timers of the same nanosecond run in order of rank (`facility.timebase.Rank`), then of scheduling. The
physics is advanced before time moves, never past the next timer. The loop has no selector: sockets,
threads and executors are refused, so a run depends on its inputs alone. An exception in a callback ends
the run; asyncio would only log it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import threading
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar

from facility.errors import InternalError, IonctlError
from facility.timebase import NS_PER_S, Rank, current_rank

_WHERE = "rig.virtual_time"
COLLECT_AFTER = 50_000
"""New objects after which the garbage collector looks at them, within a run."""
_DEFAULT_LIMIT_NS = 24 * 3600 * NS_PER_S
_CALLBACKS_PER_INSTANT_MAX = 200_000
_STANDSTILLS_MAX = 1_000
_CANCELLED_MIN = 200

T = TypeVar("T")
Advance = Callable[[int], int]
"""Plant: advance to at most the given time (ns), stop early on an event, return the time reached (ns)."""


class _Soon(asyncio.Handle):
    """asyncio's, made without asking the loop whether it is being debugged: a run makes hundreds."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualLoop, context: Context | None
    ) -> None:
        self._callback, self._args = callback, args
        self._loop, self._context = loop, copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """As `_Soon`, with a time."""

    __slots__ = ()
    _scheduled: bool

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualLoop,
        context: Context | None,
    ) -> None:  # fmt: skip
        self._when = when
        self._callback, self._args = callback, args
        self._loop, self._context = loop, copy_context() if context is None else context
        self._cancelled = self._scheduled = False
        self._repr = self._source_traceback = None


class VirtualLoop(base_events.BaseEventLoop):
    """Event loop in facility time; also a `facility.timebase.Clock`.

    Args:
        advance: the plant; called with the time of the next timer (ns), or the limit. Callbacks it wants to
            run at the time reached it schedules with `call_at_rank`. None: there is no plant.
        limit_ns: facility time beyond which the run is ended by InternalError 'virtual.limit'.
        start_ns: where time begins, for a run that goes on from a snapshot.

    Raises InternalError from the running loop: 'virtual.deadlock' (nothing can ever happen), 'virtual.limit',
    'virtual.livelock' (callbacks run for ever without time passing), 'virtual.plant' (the plant broke its
    contract), 'virtual.io' (real input, output or threads).
    """

    _ready: deque[asyncio.Handle]
    _closed: bool
    _stopping: bool
    _thread_id: int | None
    _check_closed: Callable[[], None]

    def __init__(self, advance: Advance | None = None, *, limit_ns: int = _DEFAULT_LIMIT_NS, start_ns: int = 0) -> None:
        super().__init__()
        self._advance = advance
        self._limit_ns = limit_ns
        self._t_ns = start_ns
        self._timers: list[tuple[int, int, int, _Timer]] = []
        self._timer_seq = 0
        self._cancelled_timers = 0
        self._instant_callbacks = 0
        self._standstills = 0
        self._failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], object] | None = None
        """Called with what ends the loop before it is raised: who runs on a copy of it reports there and leaves."""

    # clock

    def now_ns(self) -> int:
        """Facility time, ns."""
        return self._t_ns

    def time(self) -> float:
        """Facility time in s, as asyncio wants it; good to 1 ns up to 50 days."""
        return self._t_ns / NS_PER_S

    def set_plant(self, advance: Advance | None) -> None:
        """Give the loop its plant, or take it away."""
        self._advance = advance

    def next_timer_ns(self) -> int | None:
        """When the next timer is due, ns; None if there is none."""
        self._drop_cancelled_head()
        return self._timers[0][0] if self._timers else None

    # timers

    def call_at_rank(
        self, t_ns: int, rank: Rank, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at facility time `t_ns` (ns; the past counts as now) in the order of `rank`."""
        if self._closed:
            self._check_closed()
        handle = _Timer(t_ns / NS_PER_S, callback, args, self, context)
        self._timer_seq += 1
        due_ns = t_ns if t_ns > self._t_ns else self._t_ns
        heapq.heappush(self._timers, (due_ns, rank, self._timer_seq, handle))
        handle._scheduled = True
        return handle

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """asyncio's, in this instant."""
        if self._closed:
            self._check_closed()
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """asyncio's: `when` in s of facility time, rounded to ns; rank of the caller's context."""
        return self.call_at_rank(round(when * NS_PER_S), current_rank.get(), callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """asyncio's: `delay` in s, rounded to ns, added to the integer time; rank of the caller's context."""
        return self.call_at_rank(
            self._t_ns + round(delay * NS_PER_S), current_rank.get(), callback, *args, context=context
        )

    def _timer_handle_cancelled(self, handle: _Timer) -> None:
        if not handle._scheduled:
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > _CANCELLED_MIN and 2 * self._cancelled_timers > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[3]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def _drop_cancelled_head(self) -> None:
        timers = self._timers
        while timers and timers[0][3]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1

    async def quiet(self) -> None:
        """Wait until nothing is left to do at this instant but for the caller: a point at which a run may be kept."""
        while self._ready or (self.next_timer_ns() or self._t_ns + 1) <= self._t_ns:
            turn = self.create_future()
            self.call_at_rank(self._t_ns, Rank.TELEMETRY, turn.set_result, None)
            await turn

    # running

    def _run_once(self) -> None:
        try:
            self._turn()
        except BaseException as problem:
            if self.on_failure is not None:
                self.on_failure(problem)
            raise

    def _turn(self) -> None:
        if not self._ready and not self._stopping:
            self._next_instant_or_timer()
        ready = self._ready
        count = len(ready)
        self._instant_callbacks += count
        if self._instant_callbacks > _CALLBACKS_PER_INSTANT_MAX:
            self._fail("virtual.livelock", f"{self._instant_callbacks} callbacks at {self._t_ns} ns")
        for _ in range(count):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _next_instant_or_timer(self) -> None:
        """Make exactly one due timer ready; if none is due, move time (plant first) before."""
        self._drop_cancelled_head()
        if not self._timers or self._timers[0][0] > self._t_ns:
            self._move_time(self._target_ns())
            if self._ready:
                return
            self._drop_cancelled_head()
        timers = self._timers
        if timers and timers[0][0] <= self._t_ns:
            handle = heapq.heappop(timers)[3]
            handle._scheduled = False
            self._ready.append(handle)

    def _target_ns(self) -> int:
        if self._timers:
            target_ns = self._timers[0][0]
            if target_ns <= self._limit_ns:
                return target_ns
        elif self._advance is None:
            self._fail("virtual.deadlock", f"nothing is scheduled at {self._t_ns} ns and tasks still wait")
        if self._t_ns >= self._limit_ns or self._advance is None:
            self._fail("virtual.limit", f"facility time would pass {self._limit_ns} ns")
        return self._limit_ns

    def _move_time(self, target_ns: int) -> None:
        reached_ns = target_ns if self._advance is None else self._advance(target_ns)
        if not self._t_ns <= reached_ns <= target_ns:
            self._fail("virtual.plant", f"from {self._t_ns} ns, asked for {target_ns}, it went to {reached_ns}")
        if reached_ns == self._t_ns:
            self._standstills += 1
            if self._standstills > _STANDSTILLS_MAX:
                self._fail("virtual.plant", f"it stands still at {reached_ns} ns")
            return
        self._t_ns = reached_ns
        self._instant_callbacks = 0
        self._standstills = 0

    def _fail(self, code: str, what: str) -> NoReturn:
        waiting = "; ".join(_names(asyncio.all_tasks(self))[:8]) or "nobody"
        raise InternalError(code=code, what=what, where=_WHERE, fix=f"waiting: {waiting}")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the first exception of a callback, or of a task nobody awaited; the loop then raises it."""
        failure = context.get("exception")
        if self._failure is None and isinstance(failure, BaseException):
            self._failure = failure

    # what a deterministic run must not do

    def _refuse(self, what: str) -> NoReturn:
        raise InternalError(
            code="virtual.io", what=f"{what} in virtual time", where=_WHERE, fix="use the memory channels"
        )

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """From the loop's own thread the same as call_soon; from another one refused."""
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            self._refuse("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused."""
        self._refuse("a thread")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused."""
        self._refuse("reading from a file descriptor")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused."""
        self._refuse("writing to a file descriptor")

    def add_signal_handler(self, sig: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refused."""
        self._refuse("a signal handler")

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse("a socket")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse("a socket")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse("a socket")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse("a process")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse("a process")


def run_virtual(coro: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run to the end on `loop`, close it, and return the result.

    Raises InternalError 'virtual.leak' if the coroutine returns while tasks are still pending (they are
    cancelled first); what the coroutine or a callback raises comes through.
    """
    try:
        with _rare_collections():
            result = loop.run_until_complete(coro)
    except BaseException:
        with contextlib.suppress(IonctlError):  # the first failure is the one to report
            _cancel_all(loop)
        loop.close()
        raise
    leaked = _cancel_all(loop)
    loop.close()
    if leaked:
        what = f"{len(leaked)} tasks outlived the run: " + "; ".join(leaked[:8])
        raise InternalError(code="virtual.leak", what=what, where=_WHERE, fix="cancel and await them")
    return result


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """The collector comes after every 50,000 new objects instead of 700: it cost a tenth of a run."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _names(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Names of the coroutines: sorted, since a set of tasks has no order of its own."""
    return sorted(getattr(task.get_coro(), "__qualname__", "task") for task in tasks if not task.done())


def _cancel_all(loop: VirtualLoop) -> list[str]:
    pending = asyncio.all_tasks(loop)
    names = _names(pending)
    for task in sorted(pending, key=_creation_order):
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    return names


def _creation_order(task: asyncio.Task[Any]) -> tuple[int, str]:
    name = task.get_name()  # asyncio numbers tasks as they are created: Task-9, Task-10
    return len(name), name
