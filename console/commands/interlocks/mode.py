"""`ionctl interlocks mode`."""

from __future__ import annotations

import click

from console.options import FACILITY, JSON
from console.settings import Settings


@click.command()
@click.argument("wanted", metavar="MODE", type=click.Choice(["clinical", "qa", "service"]))
@FACILITY
@JSON
@click.pass_obj
def mode(settings: Settings, wanted: str, facility_name: str, as_json: bool) -> None:
    """Set the operating mode, as the physicist; without a permit, and where the key switch agrees."""
    from console.tables import print_json
    from rig.interlock_desk import ask_safety

    answer = ask_safety(settings.facility(facility_name), settings.home(), "set_mode", {"mode": wanted}, "physicist")
    if as_json:
        print_json(dict(answer))
    else:
        print(f"mode {answer.get('mode', wanted)}")
