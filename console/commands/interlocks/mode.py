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
    """Turn the mode key and set the operating mode, as the physicist; without a permit and between fields."""
    from console.tables import print_json
    from rig.remote_mode import change_mode

    answer = change_mode(settings.facility(facility_name), settings.home(), wanted)
    if as_json:
        print_json(dict(answer))
    else:
        print(f"mode {answer.get('mode', wanted)}")
