"""Long work that must not keep the event loop waiting: a plan that is compiled, a whole journal that is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
SLOW = "control.slow"
"""Code of the error of who waited for too long, or would have to."""


class Aside(Protocol):
    """Carries out work that reads and changes nothing; beside the event loop where time is real (`rig.aside`).

    While it is awaited the event loop turns: what was known before may not hold any more.
    """

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The work's result, or what it raises."""
        ...


async def at_once(work: Callable[[], T], /) -> T:
    """In the caller's own time: virtual time knows no threads, and stands still meanwhile."""
    return work()
