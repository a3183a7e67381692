"""Long work of control on a thread of its own: one at a time; one that never ends keeps no process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from control.aside import SLOW
from facility.errors import CommandRefused

T = TypeVar("T")


class ThreadAside:
    """A `control.aside.Aside`. Whoever waits may give up; the work goes on, and until it has ended there is no other.

    Raises CommandRefused 'control.slow' while work that was given up has not ended.
    """

    def __init__(self) -> None:
        self._busy = False

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The work's result, or what it raises."""
        if self._busy:
            what = "what was read before, for longer than anybody waited, is still being read"
            raise CommandRefused(SLOW, what, "control", "see what keeps the disk or server of the journal busy")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._busy = True

        def carry_out() -> None:
            told: Callable[[], object]
            try:
                result = work()
            except BaseException as problem:  # noqa: BLE001 - raised where it is waited for
                told = _unless_done(answer, answer.set_exception, problem)
            else:
                told = _unless_done(answer, answer.set_result, result)
            self._busy = False
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(told)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(carry_out,), name="aside", daemon=True).start()
        return await answer


def _unless_done(answer: asyncio.Future[Any], tell: Callable[[Any], object], what: Any) -> Callable[[], object]:
    """Tell, unless nobody waits any more."""
    return lambda: None if answer.done() else tell(what)
