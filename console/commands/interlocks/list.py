"""`ionctl interlocks list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from console.commands.interlocks.common import open_desk
from console.options import FACILITY, JSON, ROOM, SPECIES
from console.settings import Settings
from facility.errors import UsageError

if TYPE_CHECKING:
    from console.commands.interlocks.common import Desk
    from interlocks.model import Rule
    from interlocks.rules import RuleSet
    from rig.interlock_desk import LiveInterlocks, LiveRule


def _value(rule: Rule, now: LiveRule) -> str:
    """The value now with its unit, for a table."""
    from interlocks.explain import with_unit

    return with_unit(rule, now.value) if now.live else "trip"


@click.command("list")
@click.option("--tripped", is_flag=True, help="Only what is latched, present or bypassed.")
@FACILITY
@ROOM
@SPECIES
@JSON
@click.pass_obj
def list_(
    settings: Settings, tripped: bool, facility_name: str, room: str | None, species: str | None, as_json: bool
) -> None:
    """List the rules; with what is tripped or bypassed where the facility is up."""
    from console.tables import print_json, print_wrapped

    desk = open_desk(settings, facility_name, room, species)
    live = desk.live
    if tripped and live is None:
        raise UsageError("list.not-up", f"{desk.facility.id} is not up", "--tripped", "ionctl up, or leave it out")
    rules = [rule for rule in desk.rules.rules if not tripped or (live is not None and live.rules[rule.id].state())]
    if as_json:
        print_json(_data(desk, rules))
        return
    _table(desk, rules)
    if live is None:
        print_wrapped("", f"{desk.absent[0].upper()}{desk.absent[1:]}. One rule in full: ionctl interlocks show RULE")
        return
    latched = [name for name, rule in live.rules.items() if rule.latched]
    permit = "beam permitted" if live.permit else "no beam permit"
    first = f", first fault {live.first_fault}" if live.first_fault else ""
    print_wrapped("", 'Value "trip": the rack judges it in each 10 us tick, and tells its value at a trip alone.')
    print_wrapped(
        "", f"{permit}, action in force {live.action}, mode {live.mode.lower()}{first}; {len(latched)} latched."
    )
    if not live.permit:
        print_wrapped("", _what_next(desk.rules, live, latched))


def _data(desk: Desk, rules: list[Rule]) -> dict[str, object]:
    from interlocks.explain import condition

    live = desk.live
    return {
        "facility": desk.facility.id, "room": desk.room, "species": desk.species,
        "rules": [{**rule.model_dump(), "condition": condition(rule),
                   "now": None if live is None else live.rules[rule.id].to_data()} for rule in rules],
        "now": None if live is None else live.to_data(),
    }  # fmt: skip


def _table(desk: Desk, rules: list[Rule]) -> None:
    from console.tables import print_table
    from interlocks.explain import condition

    columns = ["rule", "tier", "chain", "action", "must hold", "reset by", "bypass", "title"]
    rows = [[rule.id, rule.tier, rule.chain, rule.action, condition(rule), rule.reset, rule.bypass, rule.title]
            for rule in rules]  # fmt: skip
    if desk.live is not None:
        columns[5:5] = ["value", "now"]
        for row, rule in zip(rows, rules, strict=True):
            row[5:5] = [_value(rule, desk.live.rules[rule.id]), desk.live.rules[rule.id].state()]
    print_table(f"{len(rows)} interlocks of {desk.title}", columns, rows,
                spare=("bypass", "reset by", "chain", "must hold", "tier", "title"))  # fmt: skip


def _what_next(rules: RuleSet, live: LiveInterlocks, latched: list[str]) -> str:
    """Why there is no permit, and what a person does."""
    withheld = [name for name, rule in live.rules.items()
                if rule.present and not rule.bypassed and not rules.rule(name).is_echo
                and (rules.rule(name).latches or rules.rule(name).action == "INHIBIT")]  # fmt: skip
    if withheld:
        return f"the permit is withheld by {', '.join(withheld)}; see: ionctl interlocks show {withheld[0]}"
    if latched:
        return f"see: ionctl interlocks show {latched[0]}; then: ionctl interlocks reset"
    return "nothing stands against a permit; a person releases it: ionctl interlocks reset, or ionctl deliver"
