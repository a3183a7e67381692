"""A progress bar for a delivery: layers, spots, dose, permit, beam."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from console.tables import screen

if TYPE_CHECKING:
    from rig.operator_client import Progress

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

    columns = (
        TextColumn("{task.fields[state]:<13}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, state="STARTING", words="")

        def show(now: Progress) -> None:
            total = now.ions if now.ions > 0.0 else None
            bar.update(task, total=total, completed=min(now.ions_done, now.ions), state=now.state, words=words(now))

        yield show


def words(now: Progress) -> str:
    """One line: layers, spots, dose, permit, beam."""
    return (
        f"layer {min(now.layer + 1, now.layers)}/{now.layers}  spots {now.spots_done}/{now.spots}  "
        f"{now.ions_done:.2e}/{now.ions:.2e} ions  permit {'yes' if now.permit else 'NO '}  "
        f"beam {'ON ' if now.beam else 'off'}  {now.facility_s:.0f} s"
    )
