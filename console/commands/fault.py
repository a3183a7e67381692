"""`ionctl fault`: what can go wrong."""

from __future__ import annotations

import click

from console.lazy import LazyGroup
from console.options import JSON

FAMILIES = ("device", "machine", "tier", "link", "process", "operator", "rogue", "external")
COMMANDS = {"list": ("console.commands.fault", "list_", "List every fault that can be injected.")}


@click.group(cls=LazyGroup, table=COMMANDS)
def fault() -> None:
    """Faults of devices, machine, links, processes, operators, and rogue clients."""


@click.command("list")
@click.option("--family", "families", multiple=True, type=click.Choice(FAMILIES), help="Only these; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Every way of every device, not one line for each device.")
@JSON
def list_(families: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """List the catalogue: names for scenario files, units, usual values and ranges, targets."""
    from console.tables import print_json, print_table
    from rig.scenario.faults import CATALOGUE, MODES

    chosen = [entry for entry in CATALOGUE.values() if not families or entry.family.value in families]
    if as_json:
        rows = [
            {
                "name": entry.name, "family": entry.family.value, "about": entry.about, "unit": entry.unit or None,
                "typical": entry.typical if entry.takes_value else None,
                "range": [entry.low, entry.high] if entry.takes_value else None,
                "targets": [target.value for target in entry.targets], "why_not": entry.why_not,
            }
            for entry in chosen
        ]  # fmt: skip
        print_json({"schema": "ionctl.faults/1", "faults": rows})
        return
    shown = chosen if everything else [e for e in chosen if e.family.value != "device" or e.name.endswith("/step")]
    table = [
        (
            entry.name if everything or entry.family.value != "device" else entry.name.removesuffix("/step") + "/...",
            entry.about if everything or entry.family.value != "device" else entry.about.rsplit(": ", 1)[0],
            f"{entry.typical:g} {entry.unit}" if entry.takes_value else "",
            ", ".join(target.value for target in entry.targets),
        )
        for entry in shown
    ]
    print_table(f"{len(chosen)} faults", ("fault", "what happens", "usual value", "targets"), table,
                spare=("targets", "usual value"))  # fmt: skip
    if not everything and any(entry.family.value == "device" for entry in shown):
        ways = "; ".join(f"{way}: it {mode.about}" for way, mode in MODES.items())
        click.echo(f"Each device fails in {len(MODES)} ways. {ways}.")
