"""`ionctl interlocks verify`."""

from __future__ import annotations

from pathlib import Path

import click

from console.commands.interlocks.common import open_desk
from console.options import FACILITY, JSON, ROOM, SPECIES, OutputFile
from console.settings import Settings
from facility.errors import ExitCode

EVERY_RULE = "every rule trips on an unknown input"


@click.command()
@FACILITY
@ROOM
@SPECIES
@click.option("--scene", "scenes", multiple=True, help="Explore scenes whose name begins so; can be repeated.")
@click.option("--counterexample", type=OutputFile(), default="counterexample.json",
              show_default=True, help="Where the run that breaks a property goes.")  # fmt: skip
@click.option("--replay", "replayed", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Play the run of this file again, step by step.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@JSON
@click.pass_obj
def verify(
    settings: Settings, facility_name: str, room: str | None, species: str | None, scenes: tuple[str, ...],
    counterexample: Path, replayed: Path | None, jobs: int, as_json: bool,
) -> int:  # fmt: skip
    """Prove the interlocks: explore the production step functions, every reachable state of every scene.

    Exit code 7 if a property does not hold; the run that breaks it is written to a file for --replay.
    """
    from console.tables import print_json, print_table, print_wrapped
    from rig.proof.verify import play, verify, write_counterexample
    from rig.wall_clock import monotonic_s

    rules = open_desk(settings, facility_name, room, species, live=False).rules
    if replayed is not None:
        for line in play(rules, replayed):
            print(line)
        return int(ExitCode.OK)
    begin = monotonic_s()
    proof = verify(rules, scenes, jobs=jobs)
    seconds = monotonic_s() - begin
    broken = write_counterexample(proof, counterexample)
    if as_json:
        print_json(
            proof.to_data() | {"wall_s": round(seconds, 2), "counterexample": str(counterexample) if broken else ""}
        )
    else:
        rows = [
            (
                one.scene,
                one.states,
                one.transitions,
                f"{sum(v.holds for v in one.verdicts)} of {len(one.verdicts)} hold",
            )
            for one in proof.found
        ]
        print_table(f"interlocks of {facility_name}, explored", ("scene", "states", "transitions", "properties"), rows,
                    right=(1, 2))  # fmt: skip
        for name, (count, bad) in _by_name(proof).items():
            of = "rules" if name == EVERY_RULE else "scenes"
            print_wrapped("BROKEN  " if bad else "holds   ", f"{name}{f'  ({count} {of})' if count > 1 else ''}")
        if broken:
            print(f"BROKEN: {broken!r}; the run is in {counterexample}, play it with --replay")
        print(f"{proof.states} states, {proof.transitions} transitions, {seconds:.1f} s:"
              f" {'proven' if proof.holds else 'NOT PROVEN'}")  # fmt: skip
    return int(ExitCode.OK if proof.holds else ExitCode.VERIFICATION_FAILED)


def _by_name(proof: object) -> dict[str, tuple[int, bool]]:
    """Properties over all scenes: in how many, and whether one is broken.  Those of single rules are one line."""
    from rig.proof.verify import Proof

    if not isinstance(proof, Proof):
        raise TypeError(type(proof).__name__)
    found: dict[str, tuple[int, bool]] = {}
    for one in proof.found:
        for verdict in one.verdicts:
            name = verdict.name
            if one.scene == "rules" and verdict.holds:
                name = EVERY_RULE
            count, bad = found.get(name, (0, False))
            found[name] = (count + 1, bad or not verdict.holds)
    return found
