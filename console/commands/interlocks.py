"""`ionctl interlocks`: what must never happen, what is latched, and letting go of it.

Resets go from here straight to the safety controller, signed with the console's own key; control cannot do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from console.settings import Settings

if TYPE_CHECKING:
    from interlocks.rules import RuleSet

_FACILITY = click.option("--facility", "facility_name", default="wuwei", show_default=True)
_ROOM = click.option("--room", help="Room; default the one that runs, or the first one.")
_SPECIES = click.option("--species", help="Species; default the one that runs, or the first one.")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON.")


@click.group()
def interlocks() -> None:
    """List, show and reset interlocks."""


@interlocks.command("list")
@_FACILITY
@_ROOM
@_SPECIES
@_JSON
@click.pass_obj
def list_(settings: Settings, facility_name: str, room: str | None, species: str | None, as_json: bool) -> None:
    """List the rules; with what is latched where the facility is up."""
    from console.tables import print_json, print_table
    from interlocks.explain import condition

    rules = _rules(settings, facility_name, room, species)
    latched = _latched(settings, facility_name)
    if as_json:
        print_json({"rules": [rule.model_dump() for rule in rules.rules], "latched": latched})
        return
    state = {str(entry.get("rule", entry.get("id", ""))): entry for entry in latched or []}
    rows = [(rule.id, rule.tier, rule.action, condition(rule), rule.reset, "LATCHED" if rule.id in state else "",
             rule.title) for rule in rules.rules]  # fmt: skip
    print_table(f"{len(rows)} interlocks of {facility_name}",
                ("rule", "tier", "action", "trips unless", "reset by", "now", "title"), rows)  # fmt: skip
    print("The facility is not up." if latched is None else f"{len(latched)} latched.")


@interlocks.command()
@click.argument("rule_id")
@_FACILITY
@_ROOM
@_SPECIES
@_JSON
@click.pass_obj
def show(
    settings: Settings, rule_id: str, facility_name: str, room: str | None, species: str | None, as_json: bool
) -> None:
    """Show one rule: what it sees, its limits, what it does, why, and where the limit comes from."""
    from console.tables import print_json, print_table
    from interlocks.explain import condition

    rule = _rules(settings, facility_name, room, species).rule(rule_id)
    if as_json:
        print_json(rule.model_dump())
        return
    rows = [(key, ", ".join(value) if isinstance(value, tuple) else value) for key, value in rule.model_dump().items()
            if value is not None]  # fmt: skip
    print_table(f"{rule.id}: trips unless {condition(rule)}", ("", ""), rows)


@interlocks.command()
@_FACILITY
@_JSON
@click.pass_obj
def reset(settings: Settings, facility_name: str, as_json: bool) -> None:
    """Let go of latched rules whose cause is gone. Nothing starts beam by it."""
    from console.tables import print_json
    from rig.remote import reset_interlocks

    answer = reset_interlocks(settings.facility(facility_name), settings.home())
    if as_json:
        print_json(answer)
    else:
        left = answer.get("latched", [])
        print(f"still latched: {', '.join(map(str, left))}" if left else "nothing is latched")


def _rules(settings: Settings, facility_name: str, room: str | None, species: str | None) -> RuleSet:
    from interlocks.rules import load_rules
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    run, _ = Supervisor(settings.home(), facility.id).status()
    room = room or (run.room if run else next(iter(facility.rooms)))
    species = species or (run.species if run else next(iter(facility.species)))
    return load_rules(facility, room, species, settings.config_dir)


def _latched(settings: Settings, facility_name: str) -> list[dict[str, Any]] | None:
    """Latched rules of the facility that is up; None where none is."""
    from rig.remote import latched_interlocks
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    supervisor = Supervisor(settings.home(), facility.id)
    _, lines = supervisor.status()
    if not all(line.alive for line in lines):
        return None
    return latched_interlocks(facility, settings.home())
