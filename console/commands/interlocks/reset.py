"""`ionctl interlocks reset`."""

from __future__ import annotations

import click

from console.commands.interlocks.common import FACILITY, JSON
from console.settings import Settings


@click.command()
@FACILITY
@JSON
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
