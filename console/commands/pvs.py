"""`ionctl pvs`: the catalogue of process variables."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from facility.config.models import Facility
    from facility.pv_catalogue import PvEntry

from console.options import FACILITY, JSON
from console.settings import Settings

FIELDS = ("name", "server", "type", "unit", "precision", "length", "writer", "limits", "alarms", "states", "fields",
          "description")  # fmt: skip


@click.command()
@FACILITY
@click.option("--server", type=click.Choice(["plant", "safety", "control"]), help="Only PVs of this process.")
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header.")
@click.pass_obj
def pvs(settings: Settings, facility_name: str, server: str | None, as_json: bool, as_csv: bool) -> None:
    """Print every process variable: name, type, unit, limits, writer and what it is."""
    from facility.pv_catalogue import CATALOGUE

    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    facility = settings.facility(facility_name)
    prefix = facility.pv_prefix
    chosen = [entry for entry in (*CATALOGUE, *_rule_entries(settings, facility)) if server in (None, entry.server)]
    rows = [describe(entry, prefix) for entry in chosen]
    if as_json:
        from console.tables import print_json

        print_json(rows)
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(rows, facility_name)


def describe(entry: PvEntry, prefix: str) -> dict[str, Any]:
    """One entry as plain data."""
    return {
        "name": entry.full_name(prefix),
        "server": entry.server,
        "type": entry.kind,
        "unit": entry.unit,
        "precision": entry.precision if entry.kind in ("float", "floats") else None,
        "length": entry.length,
        "writer": entry.writer,
        "limits": list(entry.limits) if entry.limits else None,
        "alarms": list(entry.alarms) if entry.alarms else None,
        "states": list(entry.states),
        "fields": list(entry.fields),
        "description": entry.description,
    }


def _rule_entries(settings: Settings, facility: Facility) -> tuple[PvEntry, ...]:
    from interlocks.pvs import entries
    from interlocks.rules import load_rules

    room, species = next(iter(facility.rooms)), next(iter(facility.species))
    return entries(load_rules(facility, room, species, settings.config_dir).rules)


def _print_csv(rows: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow([_flat(row[field]) for field in FIELDS])


def _flat(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)


def _print_table(rows: list[dict[str, Any]], facility_name: str) -> None:
    from console.tables import print_table

    cells = [(r["name"], _type(r), r["unit"], r["writer"], r["server"], r["description"]) for r in rows]
    print_table(f"{len(rows)} process variables of {facility_name}",
                ("name", "type", "unit", "writer", "server", "description"), cells,
                spare=("server", "unit"))  # fmt: skip


def _type(row: dict[str, Any]) -> str:
    return str(row["type"]) if row["length"] == 1 else f"{row['type']}[{row['length']}]"
