"""`ionctl interlocks show RULE`."""

from __future__ import annotations

import click

from console.commands.interlocks.common import FACILITY, JSON, ROOM, SPECIES, rules_of
from console.settings import Settings


@click.command()
@click.argument("rule_id")
@FACILITY
@ROOM
@SPECIES
@JSON
@click.pass_obj
def show(
    settings: Settings, rule_id: str, facility_name: str, room: str | None, species: str | None, as_json: bool
) -> None:
    """Show one rule: what it sees, its limits, what it does, why, and where the limit comes from."""
    from console.tables import print_json, print_table
    from interlocks.explain import condition

    rule = rules_of(settings, facility_name, room, species).rule(rule_id)
    if as_json:
        print_json(rule.model_dump())
        return
    rows = [(key, ", ".join(value) if isinstance(value, tuple) else value) for key, value in rule.model_dump().items()
            if value is not None]  # fmt: skip
    print_table(f"{rule.id}: trips unless {condition(rule)}", ("", ""), rows)
