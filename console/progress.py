"""A progress bar for a delivery: layers, spots, dose, permit, beam."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from console.tables import screen

if TYPE_CHECKING:
    from rig.operator_client import Progress

WIDE = 120
"""Columns of a screen on which everything has room; on a narrower one the bar goes first."""
Show = Callable[["Progress"], None]


@contextlib.contextmanager
def progress_bar(*, enabled: bool = True) -> Iterator[Show | None]:
    """A function that shows progress; None where nobody would see it. Drawn on stderr."""
    console = screen(stderr=True)
    if not enabled or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    wide = console.width >= WIDE
    columns = (
        TextColumn("{task.fields[state]:<13}", markup=False),
        *((BarColumn(bar_width=30),) if wide else ()),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, state="STARTING", words="")

        def show(now: Progress) -> None:
            total = now.ions if now.ions > 0.0 else None
            bar.update(
                task, total=total, completed=min(now.ions_done, now.ions), state=now.state, words=words(now, wide=wide)
            )

        yield show


def words(now: Progress, *, wide: bool = True) -> str:
    """One line: beam, permit, layers, spots, and on a wide screen dose and facility time."""
    line = (
        f"beam {'ON ' if now.beam else 'off'}  permit {'yes' if now.permit else 'NO '}  "
        f"layer {min(now.layer + 1, now.layers)}/{now.layers}  spot {now.spots_done}/{now.spots}"
    )
    return f"{line}  {now.ions_done:.2e}/{now.ions:.2e} ions  {now.facility_s:.0f} s" if wide else line
