"""`ionctl interlocks matrix`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.commands.interlocks.common import ms, open_desk
from console.options import FACILITY, JSON, ROOM, SPECIES, OutputFile
from console.settings import Settings

if TYPE_CHECKING:
    from console.commands.interlocks.common import Desk
    from interlocks.explain import Bound, MatrixRow

_SUFFIXES = (".html", ".csv")


@click.command()
@FACILITY
@ROOM
@SPECIES
@click.option("--output", type=OutputFile(_SUFFIXES), help="Write it: .html or .csv.")
@JSON
@click.pass_obj
def matrix(
    settings: Settings, facility_name: str, room: str | None, species: str | None, output: Path | None, as_json: bool
) -> None:
    """Print the cause-and-effect matrix with bounds, or write it as a page or as CSV."""
    from console.matrix_page import EFFECTS, marks, slow
    from console.tables import print_json, print_table

    desk = open_desk(settings, facility_name, room, species, live=False)
    rows = _rows(desk)
    if output is not None:
        _write(desk, rows, output)
    if as_json:
        print_json({
            "facility": desk.facility.id, "room": desk.room, "species": desk.species, "rules_hash": desk.rules.hash,
            "rows": [{**row._asdict(), "degraded_us": _finite(row.degraded_us),
                      "parts_us": parts._asdict() | {"degraded_us": _finite(parts.degraded_us)}}
                     for row, parts in rows],
            "output": None if output is None else str(output),
        })  # fmt: skip
    elif output is not None:
        print(f"{len(rows)} causes written to {output}")
    else:
        cells = [(row.rule, row.tier, row.action, row.cause, *("x" if on else "" for on in marks(row)), row.reset,
                  row.bypass, ms(row.bound_us) + slow(row), ms(row.degraded_us)) for row, _ in rows]  # fmt: skip
        heads = ("cause", "tier", "action", "must hold", *(name.lower() for _, name, _ in EFFECTS), "reset by",
                 "bypass", "bound, ms", "one failed, ms")  # fmt: skip
        spare = ("must hold", "bypass", "one failed, ms", "reset by", "tier", "latches", "no ready")
        print_table(f"Cause and effect: {desk.title}", heads, cells, right=(11, 12), spare=spare)


def _rows(desk: Desk) -> list[tuple[MatrixRow, Bound]]:
    from interlocks import explain

    rows = explain.matrix(desk.rules, desk.facility)
    return [(row, explain.bound(desk.rules.rule(row.rule), desk.rules, desk.facility)) for row in rows]


def _write(desk: Desk, rows: list[tuple[MatrixRow, Bound]], output: Path) -> None:
    from console.matrix_page import matrix_csv, matrix_html

    as_csv = output.suffix.lower() == ".csv"
    text = matrix_csv(rows) if as_csv else matrix_html(desk.title, desk.rules.hash, rows)
    output.write_text(text, encoding="utf-8")


def _finite(us: float) -> float | None:
    return us if math.isfinite(us) else None
