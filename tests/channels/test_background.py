"""A task beside its owner: it begins, is stopped once or twice, and hides no failure."""

from __future__ import annotations

import asyncio

import pytest

from channels.background import Background


def test_a_task_is_started_stopped_and_started_again() -> None:
    async def scene() -> list[str]:
        said: list[str] = []

        async def work(words: str) -> None:
            said.append(words)
            try:
                await asyncio.Event().wait()
            finally:
                said.append(f"{words} ends")

        one = Background("one")
        await one.stop()
        assert not one.running
        for words in ("first", "second"):
            one.start(work(words))
            await asyncio.sleep(0)
            assert one.running
            await one.stop()
            await one.stop()
            assert not one.running
        return said

    assert asyncio.run(scene()) == ["first", "first ends", "second", "second ends"]


def test_a_failure_is_raised_where_it_is_stopped() -> None:
    async def scene() -> None:
        async def work() -> None:
            raise ValueError("the roof leaks")

        one = Background("one")
        one.start(work())
        await asyncio.sleep(0)
        await one.stop()

    with pytest.raises(ValueError, match="the roof leaks"):
        asyncio.run(scene())
