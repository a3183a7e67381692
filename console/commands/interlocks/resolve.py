"""`ionctl interlocks resolve`."""

from __future__ import annotations

import click

from console.options import FACILITY, JSON, words_option
from console.settings import Settings


@click.command()
@words_option("--words", "What became of the field; it is recorded.")
@click.option("--resume", is_flag=True, help="The field goes on; without it, it is closed.")
@FACILITY
@JSON
@click.pass_obj
def resolve(settings: Settings, words: str, resume: bool, facility_name: str, as_json: bool) -> None:
    """Account for a terminated field, as the physicist. No permit is released before; a reset comes after it."""
    from console.tables import print_json
    from rig.remote import resolve_termination

    answer = resolve_termination(settings.facility(facility_name), settings.home(), words, resume=resume)
    if as_json:
        print_json(dict(answer))
    else:
        name = answer.get("resolved") or "without a name"
        print(f"field {name} {'goes on' if resume else 'is closed'}; release the permit with: ionctl interlocks reset")
        if answer.get("account"):
            print(f"closed as partial in the journal: {answer['account']}")
        if not answer.get("closed", True):
            print(f"the journal does not know that it is closed, and it could be resumed: {answer['not_closed']}")
            print(f"close it there with: ionctl session close {name} --reason ...")
