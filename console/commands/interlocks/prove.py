"""`ionctl interlocks prove`."""

from __future__ import annotations

import click

from console.options import FACILITY, JSON
from console.settings import Settings


@click.command()
@click.argument("tests", nargs=-1, metavar="[TEST]...")
@FACILITY
@JSON
@click.pass_obj
def prove(settings: Settings, tests: tuple[str, ...], facility_name: str, as_json: bool) -> None:
    """Run pre-beam proof tests, those named or all, and show what they gave."""
    from console.tables import print_json, print_table
    from interlocks.proof_file import load_proofs
    from interlocks.rules import load_rules
    from rig.remote_room import prove as run_tests

    facility = settings.facility(facility_name)
    rules = load_rules(facility, next(iter(facility.rooms)), next(iter(facility.species)), settings.config_dir)
    known = [proof.id for proof in load_proofs(facility, rules.link.watchdog_ms)]
    for name in tests:
        if name not in known:
            raise click.UsageError(f"no proof test {name!r}; there are {', '.join(known)}")
    rows = run_tests(facility, settings.home(), list(tests))
    if as_json:
        print_json({"proofs": rows})
        return
    print_table(
        f"{sum(bool(row['valid']) for row in rows)} of {len(rows)} proof tests valid",
        ("test", "value", "low", "high", "unit", ""),
        [(row["id"], row.get("value"), row.get("low"), row.get("high"), row.get("unit"),
          "valid" if row["valid"] else "MISSING") for row in rows],
    )  # fmt: skip
