"""`ionctl table`: the frozen energy tables, their versions, and who answers for them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.options import FACILITY, JSON
from console.settings import Settings

if TYPE_CHECKING:
    from facility.config.models import Facility
    from facility.energy_table import EnergyTable
    from facility.table_approval import Approval

SPECIES = click.option("--species", help="Species; default the facility's first one.")


@click.group()
def table() -> None:
    """Energy tables: show them, make a new version, approve it."""


@table.command()
@FACILITY
@SPECIES
@JSON
@click.pass_obj
def show(settings: Settings, facility_name: str, species: str | None, as_json: bool) -> None:
    """Show a table's version and rows' hash, who approved what, and whether it may be used."""
    from console.tables import print_json, print_table
    from facility.errors import ConfigError
    from facility.table_approval import of_table, read_approvals, require_approved

    facility, name = _which(settings, facility_name, species)
    found, where = _read(settings, facility, name)
    approvals = read_approvals(settings.config_dir)
    refused = ""
    try:
        require_approved(found, approvals, where)
    except ConfigError as problem:
        refused = str(problem)
    record = of_table(facility.id, name, approvals)
    if as_json:
        print_json(_described(found, where, record, refused))
        return
    rows = [(entry.version, entry.sha256[:12], entry.on.isoformat(), entry.by, entry.reason) for entry in record]
    print_table(f"Approvals of {facility.id}, {name}", ("version", "rows", "on", "by", "reason"), rows, right=(0,))
    print(f"{where}: version {found.version}, rows {found.hash[:12]}, {len(found)} energies")
    print(f"refused: {refused}" if refused else "approved: this table is used")


@table.command()
@FACILITY
@SPECIES
@click.pass_obj
def make(settings: Settings, facility_name: str, species: str | None) -> None:
    """Compute a table from the facility's file, as the next version. It is used once it is approved."""
    from facility.config.loader import config_roots
    from facility.energy_table import render_energy_table, table_file
    from facility.table_approval import of_table, read_approvals

    facility, name = _which(settings, facility_name, species)
    record = of_table(facility.id, name, read_approvals(settings.config_dir))
    version = record[-1].version + 1 if record else 1
    path = Path(str(config_roots(settings.config_dir)[0])) / table_file(facility.id, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_energy_table(facility, name, version), encoding="utf-8")
    print(f"{path}: version {version}, not approved yet")


@table.command()
@FACILITY
@SPECIES
@click.option("--by", required=True, help="Who answers for it.")
@click.option("--reason", required=True, help="What has changed, and how it was checked.")
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Date; default today.")
@click.pass_obj
def approve(
    settings: Settings, facility_name: str, species: str | None, by: str, reason: str, on: datetime | None
) -> None:
    """Put the present table on record: from then on it is the one that is used, and no other of its version."""
    from facility.config.loader import config_roots
    from facility.table_approval import approve as put_on_record
    from facility.table_approval import read_approvals
    from rig.wall_clock import iso_now

    facility, name = _which(settings, facility_name, species)
    found, _ = _read(settings, facility, name)
    day = (datetime.fromisoformat(iso_now()) if on is None else on).date()
    folder = Path(str(config_roots(settings.config_dir)[0]))
    entry = put_on_record(folder, found, read_approvals(settings.config_dir), by, day, reason)
    print(f"{facility.id}, {name}: version {entry.version}, rows {entry.sha256[:12]}, approved by {entry.by}")


def _which(settings: Settings, facility_name: str, species: str | None) -> tuple[Facility, str]:
    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    facility.species_named(name)
    return facility, name


def _read(settings: Settings, facility: Facility, species: str) -> tuple[EnergyTable, str]:
    """The table as it lies there, approved or not, and where."""
    from facility.config.loader import find_config
    from facility.energy_table import parse_energy_table, table_file
    from facility.errors import ConfigError

    source = find_config(table_file(facility.id, species), settings.config_dir)
    if source is None:
        raise ConfigError("energy-table.missing", f"no energy table of {facility.id}, {species}", "",
                          f"make one with: ionctl table make --facility {facility.id} --species {species}")  # fmt: skip
    return parse_energy_table(source.read_text(encoding="utf-8"), facility, species, str(source)), str(source)


def _described(found: EnergyTable, where: str, record: list[Approval], refused: str) -> dict[str, Any]:
    return {
        "facility": found.facility_id, "species": found.species, "file": where, "version": found.version,
        "sha256": found.hash, "energies": len(found), "approved": not refused, "refused": refused,
        "approvals": [{"version": entry.version, "sha256": entry.sha256, "on": entry.on.isoformat(), "by": entry.by,
                       "reason": entry.reason} for entry in record],
    }  # fmt: skip
