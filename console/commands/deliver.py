"""`ionctl deliver`: one plan, one target, one result."""

from __future__ import annotations

from pathlib import Path

import click

from console.options import FACILITY, JSON, seed_option, speed_option, words_option
from console.settings import Settings
from facility.errors import UsageError


@click.command()
@click.argument("plan", type=click.Path(path_type=Path, dir_okay=False))
@FACILITY
@click.option("--target", type=click.Choice(["virtual", "ca", "hil"]), default="virtual", show_default=True,
              help="virtual: in this process, as fast as it goes. ca: real processes over Channel Access. "
              "hil: the same, with the devices that the facility file gives to hardware.")  # fmt: skip
@click.option("--room", help="Room; default the first one.")
@click.option("--qa", is_flag=True, help="Deliver every beam at the room's fixed angle, and record it.")
@click.option(
    "--fraction", type=click.IntRange(1, 1000), help="Fraction of the course that it must be; default the next."
)
@click.option("--continues", default="", metavar="SESSION",
              help="Deliver what this session, closed as partial, has left (DICOM CONTINUATION).")  # fmt: skip
@click.option("--new-limits", is_flag=True,
              help="As the physicist: deliver it although the interlock rules are others than SESSION went by. "
              "It is recorded.")  # fmt: skip
@words_option("--reason", "Of --new-limits: why it may be delivered; for the record.", required=False)
@seed_option(None, "; default that of the facility that is up, else 1")
@speed_option(None, ", target ca; default that of the facility that is up, else 1")
@JSON
@click.pass_obj
def deliver(
    settings: Settings, plan: Path, facility_name: str, target: str, room: str | None, qa: bool,
    fraction: int | None, continues: str, new_limits: bool, reason: str, seed: int | None, speed: float | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Deliver PLAN, spot by spot. Ctrl-C takes the beam off and ends the session as interrupted."""
    from console.progress import progress_bar
    from rig.deliver import DeliveryRequest, deliver_plan
    from rig.logs import configure_logs

    if new_limits != bool(reason):
        missing, given = ("--reason", "--new-limits") if new_limits else ("--new-limits", "--reason")
        raise UsageError("deliver.new-limits", f"{given} without {missing}", missing,
                         f"give both, or leave {given} out")  # fmt: skip
    configure_logs(json_lines=settings.log_json, level=settings.log_level)
    facility = settings.facility(facility_name)
    request = DeliveryRequest(
        plan=plan,
        facility=facility,
        room=room or next(iter(facility.rooms)),
        qa=qa,
        seed=seed,
        speed=speed,
        home=settings.home(),
        fraction=fraction or 0,
        continues=continues,
        new_limits=reason,
    )
    with progress_bar(enabled=not as_json) as show:
        result = deliver_plan(request, target, on_progress=show)
    if as_json:
        from console.tables import print_json

        print_json(result.to_data())
    else:
        from console.summary import print_result

        print_result(result)
    return int(result.exit_code)
