"""`ionctl interlocks reset`."""

from __future__ import annotations

import click

from console.commands.interlocks.common import open_desk
from console.options import FACILITY, JSON
from console.settings import Settings

ROLE = click.option("--role", type=click.Choice(["operator", "physicist"]), default="physicist", show_default=True,
                    help="Whose key signs it.")  # fmt: skip


@click.command()
@click.option("--rule", "only", multiple=True, metavar="RULE",
              help="Only if these, and no others, are latched when it is carried out; may be given again.")  # fmt: skip
@ROLE
@FACILITY
@JSON
@click.pass_obj
def reset(settings: Settings, only: tuple[str, ...], role: str, facility_name: str, as_json: bool) -> None:
    """Let go of latched rules whose cause is gone: of all or of none. Nothing starts beam by it."""
    from console.tables import print_json
    from rig.interlock_desk import ask_safety, look, reset_only

    facility, home = settings.facility(facility_name), settings.home()
    seen: dict[str, object] = {}
    if only:
        rules = open_desk(settings, facility_name, live=False).rules
        for name in only:
            rules.rule(name)
        seen = {"latched": reset_only(look(facility, home, rules.rules), only)}
    answer = ask_safety(facility, home, "reset", seen, role)
    if as_json:
        print_json(dict(answer))
        return
    cleared = answer.get("cleared") or []
    print(f"let go: {', '.join(map(str, cleared))}" if cleared else "nothing is latched")
    if answer.get("permit"):
        print("beam is permitted again; it needs a separate start")
        print("The permit goes again within seconds unless a console vouches for it, as ionctl deliver does.")
    else:
        why = ", ".join(map(str, answer.get("inhibited") or []))
        print(f"the beam permit stays away{f': {why}' if why else ''}")
