"""`ionctl interlocks bypass` and `unbypass`."""

from __future__ import annotations

import re

import click

from console.commands.interlocks.common import at_s, open_desk
from console.commands.interlocks.reset import ROLE
from console.options import FACILITY, JSON, words_option
from console.settings import Settings

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """A time such as 90s, 10m or 1h, in seconds; click.BadParameter for another one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
    if found is None or float(found[1]) <= 0.0:
        raise click.BadParameter(f"{value!r} is no time; give for instance 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]


@click.command()
@click.argument("rule_id", metavar="RULE")
@words_option("--reason", "Why; it is recorded.")
@click.option("--for", "seconds", metavar="TIME", callback=seconds_of, required=True, help="How long: 90s, 10m, 1h.")
@FACILITY
@JSON
@click.pass_obj
def bypass(settings: Settings, rule_id: str, reason: str, seconds: float, facility_name: str, as_json: bool) -> None:
    """Bypass one rule for a limited time, as the physicist; it ends by itself. It stays visible and is recorded."""
    from console.tables import print_json
    from rig.interlock_desk import ask_safety, facility_time

    desk = open_desk(settings, facility_name, live=False)
    rule = desk.rules.rule(rule_id)
    args = {"rule": rule.id, "reason": reason, "seconds": seconds}
    answer = ask_safety(desk.facility, settings.home(), "bypass", args, "physicist")
    if as_json:
        print_json(dict(answer))
        return
    until_ns = answer.get("until_ns")
    end = (
        f"for {seconds:g} s"
        if until_ns is None
        else f"until {at_s(facility_time(desk.facility, settings.home()).of(int(until_ns)))}"
    )
    print(f"{rule.id} is bypassed {end}: {reason}")


@click.command()
@click.argument("rule_id", metavar="RULE")
@ROLE
@FACILITY
@JSON
@click.pass_obj
def unbypass(settings: Settings, rule_id: str, role: str, facility_name: str, as_json: bool) -> None:
    """End the bypass of a rule; it acts again at once."""
    from console.tables import print_json
    from rig.interlock_desk import ask_safety

    desk = open_desk(settings, facility_name, live=False)
    rule = desk.rules.rule(rule_id)
    answer = ask_safety(desk.facility, settings.home(), "unbypass", {"rule": rule.id}, role)
    if as_json:
        print_json(dict(answer))
    else:
        print(f"{rule.id} acts again")
