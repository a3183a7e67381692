"""`ionctl interlocks prove`."""

from __future__ import annotations

import click

from console.commands.interlocks.common import FACILITY, JSON
from console.settings import Settings


@click.command()
@click.argument("tests", nargs=-1, metavar="[TEST]...")
@FACILITY
@JSON
@click.pass_obj
def prove(settings: Settings, tests: tuple[str, ...], facility_name: str, as_json: bool) -> None:
    """Run pre-beam proof tests, those named or all, and show what they gave."""
    from console.tables import print_json, print_table
    from rig.remote_room import prove as run_tests

    rows = run_tests(settings.facility(facility_name), settings.home(), list(tests))
    if as_json:
        print_json({"proofs": rows})
        return
    print_table(
        f"{sum(bool(row['valid']) for row in rows)} of {len(rows)} proof tests valid",
        ("test", "value", "low", "high", "unit", ""),
        [(row["id"], row.get("value"), row.get("low"), row.get("high"), row.get("unit"),
          "valid" if row["valid"] else "MISSING") for row in rows],
    )  # fmt: skip
