"""Tables and progress on a terminal; plain text when the output is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 200


def screen(*, stderr: bool = False) -> Console:
    """A rich console; wide where nobody wraps lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = (), console: Any = None
) -> None:
    """A table with a title; `right` are the columns whose cells stand right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    flush_right = set(right)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in flush_right else "left", no_wrap=index in flush_right)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    out = console or screen()
    out.print(title, style="bold")
    out.print(table)


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
