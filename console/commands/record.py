"""`ionctl record`: treatment records, compared with their plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, JSON
from console.settings import Settings
from facility.errors import ExitCode

if TYPE_CHECKING:
    from records.compare import Comparison

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def record() -> None:
    """Treatment records."""


@record.command()
@click.argument("files", metavar="FILE", nargs=-1, required=True, type=_FILE)
@click.option(
    "--plan", type=_FILE, help="The plan that was delivered; default the one that the session's journal names."
)
@FACILITY
@JSON
@click.pass_obj
def check(settings: Settings, files: tuple[Path, ...], plan: Path | None, facility_name: str, as_json: bool) -> int:
    """Compare a treatment record with its plan, spot by spot; several files are one fraction and its continuations.

    Exit code 5 if something is missing and the record says so, 7 if it contradicts plan or itself.
    """
    from console.tables import print_json
    from rig.record_desk import check_records

    records, found = check_records(files, plan, settings.facility(facility_name), settings.home())
    if as_json:
        print_json({"records": [one.uid for one in records], **found.to_data()})
    else:
        _print(found)
    if not found.good:
        return int(ExitCode.VERIFICATION_FAILED)
    return int(ExitCode.OK if found.complete else ExitCode.INTERRUPTED)


def _print(found: Comparison) -> None:
    from console.tables import print_table

    rows = [
        (line.beam, line.layer, f"{line.delivered} of {line.spots}", line.missing, line.over, f"{line.planned:.6g}",
         f"{line.given:.6g}", line.worst_spot, f"{line.worst:+.4g}", f"{line.worst_position_mm:.2f}")
        for line in found.lines
    ]  # fmt: skip
    head = ("beam", "layer", "spots", "missing", "over", f"planned {found.unit}", f"on record {found.unit}",
            "worst spot", "by", "off mm")  # fmt: skip
    print_table("record and plan", head, rows)
    for objection in found.objections:
        print(f"WRONG: {objection}")
    if found.good:
        print(
            "every spot was delivered as planned"
            if found.complete
            else "what is on record is as planned; some is missing"
        )
