"""`ionctl interlocks list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from console.commands.interlocks.common import open_desk
from console.options import FACILITY, JSON, ROOM, SPECIES
from console.settings import Settings

if TYPE_CHECKING:
    from interlocks.model import Rule
    from rig.interlock_desk import LiveRule


def _value(rule: Rule, now: LiveRule) -> str:
    """The value now with its unit, for a table."""
    from interlocks.explain import with_unit

    return with_unit(rule, now.value) if now.live else "trip"


@click.command("list")
@FACILITY
@ROOM
@SPECIES
@JSON
@click.pass_obj
def list_(settings: Settings, facility_name: str, room: str | None, species: str | None, as_json: bool) -> None:
    """List the rules; with what is tripped or bypassed where the facility is up."""
    from console.tables import print_json, print_table
    from interlocks.explain import condition

    desk = open_desk(settings, facility_name, room, species)
    live = desk.live
    if as_json:
        print_json({
            "facility": desk.facility.id, "room": desk.room, "species": desk.species,
            "rules": [{**rule.model_dump(), "condition": condition(rule),
                       "now": None if live is None else live.rules[rule.id].to_data()} for rule in desk.rules.rules],
            "now": None if live is None else live.to_data(),
        })  # fmt: skip
        return
    columns = ["rule", "tier", "chain", "action", "must hold", "reset by", "bypass", "title"]
    rows = [[rule.id, rule.tier, rule.chain, rule.action, condition(rule), rule.reset, rule.bypass, rule.title]
            for rule in desk.rules.rules]  # fmt: skip
    if live is not None:
        columns[5:5] = ["value", "now"]
        for row, rule in zip(rows, desk.rules.rules, strict=True):
            row[5:5] = [_value(rule, live.rules[rule.id]), live.rules[rule.id].state()]
    print_table(f"{len(rows)} interlocks of {desk.title}", columns, rows,
                spare=("title", "bypass", "reset by", "chain", "tier"))  # fmt: skip
    if live is None:
        print("The facility is not up.")
        return
    print("trip: the rack judges it in each 10 us tick, and tells its value at a trip alone.")
    latched = [name for name, rule in live.rules.items() if rule.latched]
    permit = "beam permitted" if live.permit else "no beam permit"
    first = f", first fault {live.first_fault}" if live.first_fault else ""
    inhibits = [name for name, rule in live.rules.items()
                if rule.present and not rule.bypassed and desk.rules.rule(name).action == "INHIBIT"]  # fmt: skip
    if inhibits and not live.permit:
        print(f"the permit is withheld by {', '.join(inhibits)}; see: ionctl interlocks show {inhibits[0]}")
    print(f"{permit}, action in force {live.action}, mode {live.mode.lower()}{first}; {len(latched)} latched.")
