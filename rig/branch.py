"""Go on from one moment in many ways: each branch is a copy of the whole process, made by the operating system.

A facility in virtual time is one thread without sockets, so a forked process is an exact snapshot of it: plant, soft
IOCs, safety controller, control and operator with everything they wait for. A branch runs its work on the copy, sends
back what it found and is gone; the trunk stands where it stood. Branches may branch again.

`branch` runs one such copy at once. A `Snapshot` is a copy that waits: any number of runs start from it, also when the
trunk has gone on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import pickle
import struct
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, BinaryIO, NoReturn

from facility.errors import InternalError
from rig.large_pages import gather
from rig.virtual_time import VirtualLoop

Emit = Callable[[Any], None]
"""Takes one finding, as soon as there is one."""
Work = Callable[[Emit], Awaitable[None]]
"""What a branch does; what it emits must pickle."""
_LENGTH = struct.Struct("<Q")
_FAILED, _DONE = "branch.failed", "branch.done"
_WHERE = "rig.branch"
_held: set[int] = set()
"""Descriptors through which this process holds snapshots: a copy of it must not hold them, too."""


@contextlib.contextmanager
def unmoved() -> Iterator[None]:
    """Inside, nobody collects garbage: looking at every object writes to every page, and a page that copies share is
    copied, or has to be taken back, for it. What there is lies in large pages, of which a copy takes fewer."""
    gc.freeze()
    try:
        gather()
        gc.disable()
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def branch(work: Work, emit: Emit, broken: Callable[[BaseException], Any] | None = None) -> None:
    """Run `work` on a copy of everything; hand on what it emits.

    Raises InternalError if it fails there, the loop included; `broken` makes a finding of such a failure instead.
    """
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        await _run_and_leave(loop, work, writing, broken or _words)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            _, failure = _relay(stream, emit)
    finally:
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - in facility time nothing waits
    _require_well(status, failure)


class Snapshot:
    """A run as it stood at one instant, kept by a process that waits. Close it, or use it as a context manager.

    Args:
        t_ns: the instant, facility time.
        keeper: process id of the copy.
        requests: where it takes work from.
        answers: where it sends what the work has found.
    """

    def __init__(self, t_ns: int, keeper: int, requests: int, answers: int) -> None:
        self.t_ns = t_ns
        self._keeper = keeper
        self._requests = requests
        self._answers: BinaryIO = os.fdopen(answers, "rb")
        _held.add(requests)

    def run(self, work: Callable[..., Awaitable[None]], emit: Emit) -> None:
        """Run `work` from the instant on, in a copy that is gone afterwards; hand on what it emits.

        `work` must pickle: a function of a module, or a `functools.partial` of one. It is given what the snapshot was
        taken with, and `Emit`. Raises InternalError if it fails, or if the snapshot is closed.
        """
        if self._answers.closed:
            raise InternalError("snapshot.closed", "the snapshot has been closed", _WHERE)
        _send(self._requests, work)
        status, failure = _relay(self._answers, emit)
        _require_well(status, failure)

    def close(self) -> None:
        """Let the copy go."""
        if self._answers.closed:
            return
        _held.discard(self._requests)
        os.close(self._requests)
        self._answers.close()
        os.waitpid(self._keeper, 0)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def take_snapshot(t_ns: int, *given: object) -> Snapshot:
    """A copy of everything that waits for work; `given` is what each work gets before `Emit`. Call it where nothing is
    left to do at the instant."""
    loop = asyncio.get_running_loop()
    requests, asking = os.pipe()
    answering, answers = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        for descriptor in (asking, answering, *_held):
            os.close(descriptor)
        _held.clear()
        await _keep(loop, given, requests, answers)
    os.close(requests)
    os.close(answers)
    return Snapshot(t_ns, keeper, asking, answering)


async def _keep(loop: asyncio.AbstractEventLoop, given: tuple[object, ...], requests: int, answers: int) -> NoReturn:
    """In the copy: stand still, and run each work in a copy of one's own."""
    with os.fdopen(requests, "rb") as stream:
        while (work := _receive(stream)) is not None:
            child = os.fork()
            if child == 0:
                await _run_and_leave(loop, functools.partial(work, *given), answers, _words)
            _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - in facility time nothing waits
            _send(answers, (_DONE, status))
    os._exit(0)


async def _run_and_leave(
    loop: asyncio.AbstractEventLoop, work: Work, writing: int, broken: Callable[[BaseException], Any]
) -> NoReturn:
    """In the copy: work, report, leave without unwinding what belongs to the trunk."""
    asyncio._set_running_loop(loop)  # asyncio forgets the loop of another process; this copy of it goes on
    gc.disable()  # collecting would touch, and so copy, every page

    def fail(problem: BaseException) -> NoReturn:
        try:
            item = broken(problem)
            with contextlib.suppress(OSError):
                _send(writing, item)
        finally:
            os._exit(0 if broken is not _words else 1)

    if isinstance(loop, VirtualLoop):
        loop.on_failure = fail
    try:
        await work(functools.partial(_send, writing))
    except BaseException as problem:  # noqa: BLE001 - told to the trunk, which raises
        fail(problem)
    finally:
        os._exit(0)


def _words(problem: BaseException) -> tuple[str, str]:
    return _FAILED, "".join(traceback.format_exception(problem))


def _send(descriptor: int, item: Any) -> None:
    data = pickle.dumps(item)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _receive(stream: BinaryIO) -> Any:
    """The next item; None at the end."""
    head = stream.read(_LENGTH.size)
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0])) if len(head) == _LENGTH.size else None


def _relay(stream: BinaryIO, emit: Emit) -> tuple[int, str]:
    """Hand on until the work is done; the exit status that was told, -1 for none, and why the work has failed."""
    failure = ""
    while (item := _receive(stream)) is not None:
        match item:
            case ("branch.failed", str(words)):
                failure = words
            case ("branch.done", int(status)):
                return status, failure
            case _:
                emit(item)
    return -1, failure


def _require_well(status: int, failure: str) -> None:
    if failure:
        raise InternalError(_FAILED, f"a branch of the run failed:\n{failure}", _WHERE)
    if status:
        raise InternalError("branch.died", f"a branch of the run ended without a word, status {status}", _WHERE)
