"""`ionctl up`, `down`, `status`: the three processes of a facility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from console.options import FACILITY, JSON, seed_option, speed_option
from console.settings import Settings
from facility.errors import ExitCode

if TYPE_CHECKING:
    from facility.config import Facility
    from rig.home import Home
    from rig.supervisor import Supervisor


@click.command()
@FACILITY
@click.option("--room", help="Room that gets the beam; default the first one.")
@click.option("--species", help="What is accelerated; default the first one.")
@seed_option()
@speed_option()
@click.option("--mqtt", default="", help="MQTT broker for telemetry, host:port; default $IONCTL_MQTT.")
@click.option("--allow-faults", is_flag=True, help="Let faults be injected into simulated devices.")
@click.option("--mode", type=click.Choice(["clinical", "qa", "service"]), default="clinical", show_default=True,
              help="Operating mode, and where the mode key stands.")  # fmt: skip
@click.pass_obj
def up(
    settings: Settings, facility_name: str, room: str | None, species: str | None, seed: int, speed: float, mqtt: str,
    allow_faults: bool, mode: str,
) -> None:  # fmt: skip
    """Start plant, safety controller and control server on loopback."""
    import asyncio
    import os

    from rig.remote_room import bring_up
    from rig.supervisor import RunOptions, Supervisor

    facility = settings.facility(facility_name)
    options = RunOptions(
        room=room or next(iter(facility.rooms)),
        species=species or next(iter(facility.species)),
        seed=seed,
        speed=speed,
        mqtt=mqtt or os.environ.get("IONCTL_MQTT", ""),
        log_json=settings.log_json,
        allow_faults=allow_faults,
        mode=mode,
    )
    supervisor = Supervisor(settings.home(), facility.id)
    run = supervisor.up(facility, options, tell=_tell)
    _require_link(supervisor, facility, settings.home())
    try:
        _tell("searching the room, running the proof tests")
        passed = asyncio.run(bring_up(facility, supervisor.home, run))
        _tell(f"{passed} proof tests passed")
    except BaseException:
        supervisor.down()
        raise
    print(f"{facility.id} is up in {supervisor.folder}")
    print(f"export EPICS_CA_AUTO_ADDR_LIST=NO EPICS_CA_ADDR_LIST='{' '.join(run.ca_addresses)}'")


def _require_link(supervisor: Supervisor, facility: Facility, home: Home) -> None:
    """Stop all again if the safety link does not keep time at this speed."""
    from facility.errors import IonctlError
    from rig.remote import check_link

    try:
        check_link(facility, home)
    except IonctlError:
        supervisor.down()
        raise


@click.command()
@FACILITY
@click.pass_obj
def down(settings: Settings, facility_name: str) -> None:
    """Stop the processes: control, plant (beam off), safety controller."""
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    outcomes = Supervisor(settings.home(), facility.id).down()
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    if not outcomes:
        print(f"nothing is running of {facility.id}")


@click.command()
@FACILITY
@JSON
@click.pass_obj
def status(settings: Settings, facility_name: str, as_json: bool) -> int:
    """Show what runs, where it is reached, and since when; exit code 6 unless all three run."""
    from console.tables import print_json, print_table
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    supervisor = Supervisor(settings.home(), facility.id)
    described = describe(supervisor) | {
        "link": _link(facility, settings.home(), supervisor),
        "external": _external(facility, settings.home(), supervisor),
    }
    code = ExitCode.OK if described["up"] else ExitCode.TARGET_UNAVAILABLE
    if as_json:
        print_json(described)
        return int(code)
    rows = [(p["name"], p["alive"], p["pid"], p.get("ca_port"), p["log"]) for p in described["processes"]]
    print_table(f"{facility_name} in {supervisor.folder}", ("process", "alive", "pid", "CA port", "log"), rows)
    run = described["run"]
    if run is not None:
        print(f"room {run['room']}, {run['species']}, seed {run['seed']}, speed {run['speed']:g}, "
              f"up for {described['up_for_s']:.0f} s of wall time")  # fmt: skip
    for end, one in described["link"].items():
        print(f"safety link at the {end}: gaps up to {one['gap_ms']:g} ms in the last second, {one['worst_ms']:g} ms "
              f"in all, 99.9 % within {one['p999_ms']:g} ms; watchdog {one['watchdog_ms']:g} ms; "
              f"{one['trips']} trips")  # fmt: skip
    for one in described["external"]:
        print(f"external {one['device']}: {'good' if one['ok'] else 'LOST'}, last reading {one['value']:g}, "
              f"{one['age_ms']:g} ms old")  # fmt: skip
    return int(code)


def _external(facility: Facility, home: Home, supervisor: Supervisor) -> list[dict[str, Any]]:
    """Devices in the loop; empty where there are none, or they cannot be read."""
    from facility.errors import IonctlError
    from rig.remote import device_state

    try:
        return [] if supervisor.running() is None else device_state(facility, home)
    except IonctlError:
        return []


def _link(facility: Facility, home: Home, supervisor: Supervisor) -> dict[str, Any]:
    """How both ends hear each other; empty where that cannot be read."""
    from dataclasses import asdict

    from facility.errors import IonctlError
    from rig.remote import link_state

    try:
        if supervisor.running() is None:
            return {}
        return {end: asdict(reading) for end, reading in link_state(facility, home).items()}
    except IonctlError:
        return {}


def describe(supervisor: Supervisor) -> dict[str, Any]:
    """What runs, as plain data."""
    from rig.wall_clock import unix_s

    run, lines = supervisor.status()
    return {
        "facility": supervisor.facility_id,
        "run_dir": str(supervisor.folder),
        "up": all(line.alive for line in lines),
        "up_for_s": None if run is None else max(0.0, unix_s() - run.started_unix_s),
        "run": None if run is None else dict(vars(run)),
        "processes": [
            {"name": line.name, "alive": line.alive, "log": str(supervisor.folder / f"{line.name}.log"), **line.ready,
             "pid": line.pid}
            for line in lines
        ],
    }  # fmt: skip


def _tell(words: str) -> None:
    click.echo(words, err=True)
