"""Tables and progress on a terminal; plain text when the output is no terminal."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 200
_BETWEEN = 3
"""Columns of the screen between two columns of a table."""
_LONG_WORD = 26
"""A longer one may be folded: a path, a hash."""


def screen(*, stderr: bool = False) -> Console:
    """A rich console; wide where nobody wraps lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream, width=width, color_system=None if plain else "auto", highlight=False, emoji=False, markup=False
    )


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = (),
    spare: Sequence[str] = (), console: Any = None,
) -> None:  # fmt: skip
    """A table with a title; `right` are the columns whose cells stand right, and are never cut.

    On a screen that is too narrow for that and for whole words the columns of `spare` are left out, the first one
    first, and a line below says so.
    """
    out = console or screen()
    cells = [[cell(value) for value in row] for row in rows]
    flush_right = set(right)
    parts = [_Column(head, [row[i] for row in cells], i in flush_right) for i, head in enumerate(columns)]
    left_out = []
    for name in spare:
        if sum(part.least + _BETWEEN for part in parts) <= out.width:
            break
        left_out.append(name)
        parts = [part for part in parts if part.heading != name]
    out.print(title, style="bold")
    out.print(_table(parts, out.width))
    if left_out:
        out.print(f"Left out on {out.width} columns: {'; '.join(left_out)}.")


def print_wrapped(head: str, words: str) -> None:
    """A line that begins with `head`; what does not fit the screen goes on below, under the first word of `words`."""
    lines = textwrap.wrap(words, max(20, screen().width - len(head)), break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        print(f"{head if number == 0 else ' ' * len(head)}{line}")


class _Column:
    """A column: its least width (whole cells where they stand right, whole words else) and the one it wishes for."""

    def __init__(self, heading: str, cells: Sequence[str], stands_right: bool) -> None:
        self.heading = heading
        self.cells = cells
        self.stands_right = stands_right
        words = [word for one in cells for word in ([one] if stands_right else one.split())]
        least = max(map(len, [*heading.split(), *words]), default=0)
        self.least = least if stands_right else min(least, _LONG_WORD)
        self.wish = max(self.least, *map(len, [heading, *cells]))


def _widths(columns: Sequence[_Column], screen_width: int) -> list[int]:
    """What is left beyond the least widths is shared out, and nobody gets more than he wishes for."""
    free = max(0, screen_width - sum(column.least + _BETWEEN for column in columns))
    widths = [column.least for column in columns]
    waiting = sorted(range(len(columns)), key=lambda i: columns[i].wish - columns[i].least)
    for place, i in enumerate(waiting):
        more = min(columns[i].wish - columns[i].least, free // (len(columns) - place))
        widths[i] += more
        free -= more
    return widths


def _table(columns: Sequence[_Column], screen_width: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, width in zip(columns, _widths(columns, screen_width), strict=True):
        justify: Any = "right" if column.stands_right else "left"
        table.add_column(column.heading, justify=justify, width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:.4e}"
    return str(value)


def print_json(data: Any) -> None:
    """One object, sorted keys."""
    print(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False))


def print_or_draw(
    data: Callable[[], Mapping[str, Any]], say: Callable[[], None], draw: Callable[[Path], None], *,
    as_json: bool, plot: Path | None,
) -> None:  # fmt: skip
    """Figures as the options want them: drawn into `plot`, then one JSON object, or said with where the picture is."""
    if plot is not None:
        draw(plot)
    if as_json:
        print_json(dict(data()))
        return
    say()
    if plot is not None:
        print(f"drawn into {plot}")
