"""`ionctl interlocks list`."""

from __future__ import annotations

import click

from console.commands.interlocks.common import FACILITY, JSON, ROOM, SPECIES, latched_now, rules_of
from console.settings import Settings


@click.command("list")
@FACILITY
@ROOM
@SPECIES
@JSON
@click.pass_obj
def list_(settings: Settings, facility_name: str, room: str | None, species: str | None, as_json: bool) -> None:
    """List the rules; with what is latched where the facility is up."""
    from console.tables import print_json, print_table
    from interlocks.explain import condition

    rules = rules_of(settings, facility_name, room, species)
    latched = latched_now(settings, facility_name)
    if as_json:
        print_json({"rules": [rule.model_dump() for rule in rules.rules], "latched": latched})
        return
    state = {str(entry.get("rule", entry.get("id", ""))): entry for entry in latched or []}
    rows = [(rule.id, rule.tier, rule.action, condition(rule), rule.reset, "LATCHED" if rule.id in state else "",
             rule.title) for rule in rules.rules]  # fmt: skip
    print_table(f"{len(rows)} interlocks of {facility_name}",
                ("rule", "tier", "action", "trips unless", "reset by", "now", "title"), rows)  # fmt: skip
    print("The facility is not up." if latched is None else f"{len(latched)} latched.")
