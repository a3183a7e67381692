"""A task beside its owner: begun, ended and awaited in one place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any


class Background:
    """One task at a time; what it fails with is raised where it is stopped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.task: asyncio.Task[None] | None = None
        """The task that was started last; None before the first."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or `stop` is called."""
        self.task = asyncio.create_task(work, name=self._name)

    @property
    def running(self) -> bool:
        """It has been started and has not ended."""
        return self.task is not None and not self.task.done()

    async def stop(self) -> None:
        """Cancel the task and wait for its end; nothing if there is none, or if it has ended."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
