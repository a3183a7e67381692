"""What the commands share: options, the rules of a facility, what the safety controller says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from console.settings import Settings

if TYPE_CHECKING:
    from interlocks.rules import RuleSet

FACILITY = click.option("--facility", "facility_name", default="wuwei", show_default=True)
ROOM = click.option("--room", help="Room; default the one that runs, or the first one.")
SPECIES = click.option("--species", help="Species; default the one that runs, or the first one.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


def rules_of(settings: Settings, facility_name: str, room: str | None, species: str | None) -> RuleSet:
    """The rules of a facility: of the room and species that run, unless others are asked for."""
    from interlocks.rules import load_rules
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    run, _ = Supervisor(settings.home(), facility.id).status()
    room = room or (run.room if run else next(iter(facility.rooms)))
    species = species or (run.species if run else next(iter(facility.species)))
    return load_rules(facility, room, species, settings.config_dir)


def latched_now(settings: Settings, facility_name: str) -> list[dict[str, Any]] | None:
    """Latched rules of the facility that is up; None where none is."""
    from rig.remote import latched_interlocks
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    supervisor = Supervisor(settings.home(), facility.id)
    _, lines = supervisor.status()
    if not all(line.alive for line in lines):
        return None
    return latched_interlocks(facility, settings.home())
