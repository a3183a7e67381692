"""Go on from one moment in many ways: each branch is a copy of the whole process, made by the operating system.

A facility in virtual time is one thread without sockets, so a forked process is an exact snapshot of it: plant, soft
IOCs, safety controller, control and operator with everything they wait for. A branch runs its work on the copy, sends
back what it found and is gone; the trunk stands where it stood. Branches may branch again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import struct
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from facility.errors import InternalError

Emit = Callable[[Any], None]
"""Takes one finding, as soon as there is one."""
_LENGTH = struct.Struct("<Q")
_FAILED = "branch.failed"


async def branch(work: Callable[[Emit], Awaitable[None]], emit: Emit) -> None:
    """Run `work` on a copy of everything; hand on what it emits. Raises InternalError if it fails there.

    What is emitted must pickle.
    """
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        asyncio._set_running_loop(loop)  # asyncio forgets the loop of another process; this copy of it goes on
        os.close(reading)
        gc.disable()  # collecting would touch, and so copy, every page
        await _run_and_leave(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            _relay(stream, emit)
    finally:
        os.waitpid(child, 0)  # noqa: ASYNC222 - in facility time nothing waits


async def _run_and_leave(work: Callable[[Emit], Awaitable[None]], writing: int) -> None:
    """In the copy: work, report, leave without unwinding what belongs to the trunk."""

    def send(item: Any) -> None:
        data = pickle.dumps(item)
        _write_all(writing, _LENGTH.pack(len(data)) + data)

    code = 0
    try:
        await work(send)
    except BaseException:  # noqa: BLE001 - told to the trunk, which raises
        code = 1
        send((_FAILED, traceback.format_exc()))
    finally:
        os._exit(code)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _relay(stream: BinaryIO, emit: Emit) -> None:
    while head := stream.read(_LENGTH.size):
        item = pickle.loads(stream.read(_LENGTH.unpack(head)[0]))
        if isinstance(item, tuple) and item and item[0] == _FAILED:
            raise InternalError(_FAILED, f"a branch of the run failed:\n{item[1]}", "rig.trials.branch")
        emit(item)
