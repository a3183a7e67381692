"""Work beside control's event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from facility.errors import CommandRefused
from rig.aside import ThreadAside


async def test_result_and_error_come_back_from_another_thread() -> None:
    aside = ThreadAside()
    assert await aside(threading.get_ident) != threading.get_ident()
    with pytest.raises(ValueError, match="no number"):
        await aside(lambda: _fail("no number"))
    assert await aside(lambda: 7) == 7, "one after the other"


def _fail(words: str) -> None:
    raise ValueError(words)


async def test_what_was_given_up_is_not_joined_by_more() -> None:
    aside, begun, may_end = ThreadAside(), threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        may_end.wait()

    waiting = asyncio.create_task(aside(stuck))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(CommandRefused, match="still being read"):
        await aside(lambda: 7)
    threads = [thread for thread in threading.enumerate() if thread.name == "aside"]
    may_end.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await aside(lambda: 7) == 7


def test_a_process_ends_though_work_does_not() -> None:
    may_end = threading.Event()

    async def give_up() -> None:
        async with asyncio.timeout(0):
            await ThreadAside()(may_end.wait)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    may_end.set()
