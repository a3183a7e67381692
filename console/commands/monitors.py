"""`ionctl monitors`: the dose monitors' daily check."""

from __future__ import annotations

import click

from console.options import FACILITY, JSON, seed_option, speed_option
from console.settings import Settings


@click.group()
def monitors() -> None:
    """Dose monitors: the daily check of both chambers and the backup counter."""


@monitors.command()
@FACILITY
@click.option("--target", type=click.Choice(["virtual", "ca", "hil"]), default="virtual", show_default=True,
              help="As of ionctl deliver.")  # fmt: skip
@click.option("--room", help="Room; default the first one.")
@click.option("--species", help="Species; default the facility's first one.")
@seed_option(None, "; default that of the facility that is up, else 1")
@speed_option(None, ", target ca; default that of the facility that is up, else 1")
@JSON
@click.pass_obj
def daily(
    settings: Settings, facility_name: str, target: str, room: str | None, species: str | None, seed: int | None,
    speed: float | None, as_json: bool,
) -> int:  # fmt: skip
    """Deliver a small field at three energies and hold the monitors against each other.

    One that is off by more than 0.5 % from the two that agree is named; exit code 7 then.
    """
    from console.tables import print_json, print_table
    from rig.logs import configure_logs
    from rig.monitor_check import MONITORS, run_check

    configure_logs(json_lines=settings.log_json, level=settings.log_level)
    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    facility.species_named(name)
    where = room or next(iter(facility.rooms))
    facility.room_named(where)
    found = run_check(facility, name, where, settings.home(), target, seed, speed)
    if as_json:
        print_json(found.to_data())
        return int(found.exit_code)
    if found.check is None:
        print(f"the field was not completed: {found.delivery.summary['reason']}")
        return int(found.exit_code)
    rows = [
        (f"{one.energy_mev_u:.1f}", *(f"{ions:.5e}" for ions in one.ions), MONITORS[one.odd], f"{one.odd_rel:+.2%}",
         f"{one.pair_rel:.2%}")
        for one in found.check.readings
    ]  # fmt: skip
    columns = ("MeV/u", *(f"{monitor}, ions" for monitor in MONITORS), "odd one", "over the others", "others apart")
    print_table(f"Monitors of {facility.id}, {name}, room {where}", columns, rows, right=(0, 1, 2, 3, 5, 6))
    print(f"{'passed' if found.check.passed else 'FAILED'}: {found.check.words}")
    return int(found.exit_code)
