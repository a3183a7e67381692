"""A bar that counts runs, on stderr; nothing where nobody would see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from console.tables import screen


@contextlib.contextmanager
def counting(total: int, *, enabled: bool) -> Iterator[Callable[[int], None] | None]:
    """A function that is told how many are done; None where nobody would see it."""
    console = screen(stderr=True)
    if not enabled or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
