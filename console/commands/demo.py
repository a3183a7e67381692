"""`ionctl demo`: a carbon field into a water target over real Channel Access, in under two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, seed_option, speed_option
from console.settings import Settings
from facility.errors import ChannelError

if TYPE_CHECKING:
    from facility.config.models import Facility
    from rig.home import Home
    from rig.result import DeliveryResult

SHAPE, SIZE_MM, DEPTH_MM, DOSE_GY = "sphere", 40.0, 150.0, 1.0
SPEEDS = (5.0, 2.0, 1.0)
"""Tried in this order until the machine holds one."""


@click.command()
@FACILITY
@speed_option(None, "; default the highest of 5, 2 and 1 that this machine holds")
@seed_option()
@click.pass_obj
def demo(settings: Settings, facility_name: str, speed: float | None, seed: int) -> int:
    """Start a facility, make a plan, deliver it over Channel Access, show what came of it, stop everything."""
    from console.summary import print_result
    from rig.broker import local_broker
    from rig.logs import configure_logs

    configure_logs(json_lines=settings.log_json, level="error")
    facility, home = settings.facility(facility_name), settings.home()
    plan = make_demo_plan(facility, home)
    with local_broker(home.run_dir(facility.id)) as broker:
        _say(f"telemetry by MQTT at {broker}" if broker else "mosquitto is not installed: this runs without telemetry")
        result = _deliver(facility, home, plan, seed, (speed,) if speed else SPEEDS, broker or "")
    print_result(result)
    print(f"plan: {plan}")
    print(f"logs: {home.run_dir(facility.id)}")
    return int(result.exit_code)


def make_demo_plan(facility: Facility, home: Home) -> Path:
    """The demo's plan, made where it is not there yet."""
    from control.plan.dicom_writer import write_dicom_plan
    from control.plan.maker import make_plan

    species = next(iter(facility.species))
    path = home.plans / f"demo-{facility.id}.dcm"
    _say(f"making a plan: {SHAPE} of {SIZE_MM:g} mm at {DEPTH_MM:g} mm in water, {DOSE_GY:g} Gy")
    made = make_plan(SHAPE, SIZE_MM, DEPTH_MM, DOSE_GY, species, facility)
    write_dicom_plan(made, path)
    _say(f"{made.n_spots} spots in {made.n_layers} layers")
    return path


def _deliver(
    facility: Facility, home: Home, plan: Path, seed: int, speeds: tuple[float, ...], broker: str
) -> DeliveryResult:
    from console.progress import progress_bar
    from rig.deliver import DeliveryRequest, deliver_plan
    from rig.supervisor import RunOptions, Supervisor

    room, species = next(iter(facility.rooms)), next(iter(facility.species))
    supervisor = Supervisor(home, facility.id)
    for speed in speeds:
        options = RunOptions(room, species, seed, speed, broker)
        try:
            run = supervisor.up(facility, options, tell=_say)
        except ChannelError as problem:
            if problem.code != "pacing.jitter" or speed == speeds[-1]:
                raise
            _say(f"speed {speed:g}: {problem.what}; trying a lower one")
            continue
        break
    try:
        _say(f"up at speed {run.speed:g}; Channel Access at {' '.join(run.ca_addresses)}")
        request = DeliveryRequest(plan, facility, room, home, seed=seed, speed=run.speed)
        with progress_bar() as show:
            return deliver_plan(request, "ca", on_progress=show)
    finally:
        supervisor.down(tell=_say)


def _say(words: str) -> None:
    click.echo(words, err=True)
