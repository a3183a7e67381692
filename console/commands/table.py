"""`ionctl table`: the frozen energy and spill tables, their versions, and who answers for them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.options import FACILITY, JSON, words_option
from console.settings import Settings

if TYPE_CHECKING:
    from facility.config.models import Facility
    from facility.energy_table import EnergyTable
    from facility.table_approval import Approval
    from ioc_sim.extraction.table import SpillTable

SPECIES = click.option(
    "--species",
    help="Species, or 'spill' for the ring's calibration of the spill; default the facility's first species.",
)
SHOWN_ROWS = 12
"""Energies that are printed of a room; `--json` has all."""


@click.group()
def table() -> None:
    """Energy and spill tables: show them, make a new version, approve it."""


@table.command()
@FACILITY
@SPECIES
@click.option("--room", help="Show the constants of this room by energy.")
@JSON
@click.pass_obj
def show(settings: Settings, facility_name: str, species: str | None, room: str | None, as_json: bool) -> None:
    """Show a table's version and rows' hash, who approved what, whether it may be used; with --room its constants."""
    from console.tables import print_json, print_table
    from facility.table_approval import of_table, read_approvals, refusal

    facility, name = _which(settings, facility_name, species)
    found, where = _read(settings, facility, name)
    constants = None if room is None else _constants(found, room)
    approvals = read_approvals(settings.config_dir)
    refused = refusal(found, approvals, where)
    record = of_table(facility.id, name, approvals)
    if as_json:
        shown = {} if constants is None else {"room": room, "constants": constants}
        print_json(_described(found, where, record, refused) | shown)
        return
    if constants is not None:
        _print_constants(constants, f"{facility.id}, {name}, room {room}")
    rows = [(entry.version, entry.sha256[:12], entry.on.isoformat(), entry.by, entry.reason) for entry in record]
    print_table(f"Approvals of {facility.id}, {name}", ("version", "rows", "on", "by", "reason"), rows, right=(0,))
    count = _energies(found)
    size = f", {count} energies" if count else ""
    print(f"{where}: version {found.version}, rows {found.hash[:12]}{size}")
    print(f"refused: {refused}" if refused else "approved: this table is used")


@table.command()
@FACILITY
@SPECIES
@click.pass_obj
def make(settings: Settings, facility_name: str, species: str | None) -> None:
    """Compute a table from the facility's file, as the next version. It is used once it is approved."""
    from facility.config.loader import config_roots
    from facility.energy_table import render_energy_table, table_file
    from facility.errors import UsageError
    from facility.table_approval import SPILL, next_version, read_approvals

    facility, name = _which(settings, facility_name, species)
    if name == SPILL:
        raise UsageError("table.spill", "a spill table is made by tracking", "table make",
                         f"ionctl machine calibrate --facility {facility.id}")  # fmt: skip
    version = next_version(facility.id, name, read_approvals(settings.config_dir))
    path = Path(str(config_roots(settings.config_dir)[0])) / table_file(facility.id, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_energy_table(facility, name, version), encoding="utf-8")
    print(f"{path}: version {version}, not approved yet")


@table.command()
@FACILITY
@SPECIES
@click.option("--by", required=True, help="Who answers for it.")
@words_option("--reason", "What has changed, and how it was checked.")
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
    from facility.table_approval import SPILL

    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    if name != SPILL:
        facility.species_named(name)
    return facility, name


def _read(settings: Settings, facility: Facility, species: str) -> tuple[EnergyTable | SpillTable, str]:
    """The table as it lies there, approved or not, and where."""
    from facility.config.loader import find_config
    from facility.energy_table import parse_energy_table, table_file
    from facility.errors import ConfigError
    from facility.table_approval import SPILL

    if species == SPILL:
        from ioc_sim.extraction.table import read_spill_table

        return read_spill_table(facility, settings.config_dir)
    source = find_config(table_file(facility.id, species), settings.config_dir)
    if source is None:
        raise ConfigError("energy-table.missing", f"no energy table of {facility.id}, {species}", "",
                          f"make one with: ionctl table make --facility {facility.id} --species {species}")  # fmt: skip
    return parse_energy_table(source.read_text(encoding="utf-8"), facility, species, str(source)), str(source)


def _energies(found: EnergyTable | SpillTable) -> int:
    """How many the table has; a spill table is of none."""
    from facility.energy_table import EnergyTable

    return len(found) if isinstance(found, EnergyTable) else 0


def _constants(found: EnergyTable | SpillTable, room_id: str) -> dict[str, list[float]]:
    """Columns of the ring and of one room, by name."""
    from facility.energy_table import RING_COLUMNS, EnergyTable
    from facility.errors import UsageError
    from facility.room_constants import ROOM_COLUMNS

    if not isinstance(found, EnergyTable):
        raise UsageError("table.room", "a spill table is of the ring, not of a room", "table show", "leave --room out")
    room = found.room(room_id)
    ring = {name: getattr(found, name).tolist() for name in RING_COLUMNS}
    return ring | {name: getattr(room, name).tolist() for name in ROOM_COLUMNS}


def _print_constants(constants: dict[str, list[float]], title: str) -> None:
    """A dozen energies, evenly over the table."""
    from console.tables import print_table

    count = len(constants["energy_mev_u"])
    codes = sorted({round(k * (count - 1) / (SHOWN_ROWS - 1)) for k in range(SHOWN_ROWS)})
    heads = {"MeV/u": ("energy_mev_u", ".2f"), "range mm": ("range_mm", ".2f"), "T m": ("rigidity_tm", ".4f"),
             "sigma mm": ("spot_sigma_mm", ".2f"), "x mm/A": ("x_mm_per_a", ".5f"), "y mm/A": ("y_mm_per_a", ".5f"),
             "ic1 fC": ("charge_per_ion_ic1_fc", ".4f"), "ic2 fC": ("charge_per_ion_ic2_fc", ".4f"),
             "backup fC": ("charge_per_ion_backup_fc", ".4f"), "transport set": ("transport_set", ".0f")}  # fmt: skip
    rows = [(code, *(f"{constants[name][code]:{form}}" for name, form in heads.values())) for code in codes]
    print_table(title, ("code", *heads), rows, right=range(len(heads) + 1))


def _described(found: EnergyTable | SpillTable, where: str, record: list[Approval], refused: str) -> dict[str, Any]:
    return {
        "facility": found.facility_id, "species": found.species, "file": where, "version": found.version,
        "sha256": found.hash, "energies": _energies(found),
        "approved": not refused, "refused": refused,
        "approvals": [{"version": entry.version, "sha256": entry.sha256, "on": entry.on.isoformat(), "by": entry.by,
                       "reason": entry.reason} for entry in record],
    }  # fmt: skip
