"""`ionctl interlocks generate`."""

from __future__ import annotations

from pathlib import Path

import click

from console.commands.interlocks.common import open_desk
from console.options import FACILITY, ROOM, SPECIES, OutputFile
from console.settings import Settings


@click.command("generate")
@FACILITY
@ROOM
@SPECIES
@click.option("--output", type=OutputFile(), help="Write the source here.")
@click.pass_obj
def generate(
    settings: Settings, facility_name: str, room: str | None, species: str | None, output: Path | None
) -> None:
    """Print the source of the second evaluator, as the safety controller makes it from these rules."""
    from interlocks.second import source_of

    source = source_of(open_desk(settings, facility_name, room, species, live=False).rules)
    if output is None:
        print(source, end="")
        return
    output.write_text(source, encoding="utf-8")
    print(f"{len(source.splitlines())} lines in {output}")
