"""`ionctl session`, `ionctl resume` and `ionctl journal`: what was delivered, and going on with it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, JSON, OutputFile, words_option
from console.settings import Settings
from facility.errors import ExitCode

if TYPE_CHECKING:
    from journal.course import Course
    from journal.read import SessionEntry
    from rig.session_desk import LayerLine

JOURNAL = click.option("--journal", "journal_at", default="", metavar="URL",
                       help="URL or file of the journal; default $IONCTL_JOURNAL or the facility's own.")  # fmt: skip

PLAN = click.option("--plan", type=click.Path(path_type=Path, dir_okay=False),
                    help="The plan, where its file has moved.")  # fmt: skip
SPARE = ("room", "mode", "layers", "patient", "prescribed", "fraction", "plan", "facility", "delivered")
"""Columns of the list of sessions that a narrow screen does without, the first one first."""


@click.group()
def session() -> None:
    """Sessions of the journal: list, show, export, close."""


@session.command("list")
@FACILITY
@JOURNAL
@JSON
@click.pass_obj
def list_sessions(settings: Settings, facility_name: str, journal_at: str, as_json: bool) -> int:
    """List all sessions, oldest first; then those of virtual deliveries, each by a facility of its own."""
    from console.tables import print_json, print_table
    from rig import session_desk
    from rig.logs import configure_logs

    configure_logs(json_lines=settings.log_json, level=settings.log_level)
    kept, virtual = session_desk.all_sessions(settings.home(), settings.facility(facility_name).id, journal_at)
    found = [*((entry, False) for entry in kept), *((entry, True) for entry in virtual)]
    if as_json:
        print_json({"sessions": [{**entry.to_data(), "virtual": own} for entry, own in found]})
        return int(ExitCode.OK)
    rows = [
        (entry.session, entry.status, entry.plan_label, entry.patient, _fraction(entry), entry.room, entry.mode,
         "virtual" if own else facility_name, entry.layers, f"{entry.prescribed_ions:.4e}", f"{entry.ic1_ions:.4e}",
         entry.reason)
        for entry, own in found
    ]  # fmt: skip
    head = (
        "session",
        "status",
        "plan",
        "patient",
        "fraction",
        "room",
        "mode",
        "facility",
        "layers",
        "prescribed",
        "delivered",
        "reason",
    )
    print_table(f"sessions of {facility_name}", head, rows, right=(0, 8, 9, 10), spare=SPARE)
    return int(ExitCode.OK)


@session.command()
@click.argument("name", metavar="SESSION")
@FACILITY
@JOURNAL
@JSON
@click.pass_obj
def show(settings: Settings, name: str, facility_name: str, journal_at: str, as_json: bool) -> int:
    """Show planned, delivered and remaining ions of each layer that was begun."""
    from console.tables import print_json, print_wrapped
    from rig import session_desk

    facility = settings.facility(facility_name).id
    with session_desk.session_at(settings.home(), facility, name, journal_at) as (journal, entry):
        lines = session_desk.layer_lines(journal, entry)
        course = session_desk.course_of(journal, entry)
        limits = session_desk.new_limits(journal, entry)
        unknown = session_desk.rules_unknown(journal, entry)
    if as_json:
        layers = [line.to_data() for line in lines]
        rules = {"new_limits": limits, "rules_unknown": unknown}
        print_json({**entry.to_data(), "layers_begun": layers, "course": course.to_data(), **rules})
    else:
        _print_layers(entry, lines)
        for one in limits:
            print_wrapped("", f"Gone on with under other interlock rules by the {one['operator']}: {one['reason']}")
        if unknown:
            print_wrapped("", "Gone on with, and by which interlock rules it went before is unknown: an older journal.")
        _print_course(course)
    return int(ExitCode.OK)


@session.command()
@click.argument("name", metavar="SESSION")
@click.option("--output", type=OutputFile((".json", ".dcm")), required=True,
              help="JSON file, or treatment record (.dcm), to write.")  # fmt: skip
@click.option("--plan", type=click.Path(path_type=Path, dir_okay=False),
              help="The plan of a treatment record, where its file has moved.")  # fmt: skip
@FACILITY
@JOURNAL
@click.pass_obj
def export(settings: Settings, name: str, output: Path, plan: Path | None, facility_name: str, journal_at: str) -> int:
    """Write everything that the journal has of a session and where its hash chain ends, or its treatment record."""
    from rig import record_desk, session_desk

    facility = settings.facility(facility_name)
    with session_desk.session_at(settings.home(), facility.id, name, journal_at) as (journal, entry):
        if output.suffix == ".dcm":
            output.write_bytes(record_desk.record_of(journal, name, facility, plan))
        else:
            found = session_desk.export(journal, entry)
            output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {output}")
    return int(ExitCode.OK)


@session.command()
@click.argument("name", metavar="SESSION")
@words_option("--reason", "Why it will not be finished.")
@PLAN
@click.option("--without-plan", is_flag=True,
              help="Close it although its plan is not found: then no rest of it can be given.")  # fmt: skip
@FACILITY
@click.pass_obj
def close(settings: Settings, name: str, reason: str, plan: Path | None, without_plan: bool, facility_name: str) -> int:
    """Close a session as partial, where it would be gone on with: nobody goes on with it any more."""
    from rig.resume import close_partial

    facility, home = settings.facility(facility_name), settings.home()
    closed = close_partial(facility, home, name, reason, plan, without_plan=without_plan)
    print(f"{name} is closed as partial: {closed.account}")
    if not closed.known:
        print("What it got is not known for sure: no rest of it can be given.")
    return int(ExitCode.OK)


@click.command()
@click.argument("name", metavar="SESSION")
@PLAN
@words_option("--reason", "What had happened, and why it may go on; for the record.")
@click.option("--yes", is_flag=True, help="Confirm what is left without being asked.")
@click.option(
    "--new-limits",
    is_flag=True,
    help="As the physicist: go on although the interlock rules are others than it went by. It is recorded.",
)
@FACILITY
@JSON
@click.pass_obj
def resume(
    settings: Settings, name: str, plan: Path | None, reason: str, yes: bool, new_limits: bool, facility_name: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Go on with a session at the exact spot and remainder: at the facility that is up, or in virtual time.

    Journal and dose register are brought together first; what is planned, delivered and left is shown for confirmation.
    """
    from console.progress import progress_bar
    from console.tables import print_json
    from rig.logs import configure_logs
    from rig.resume import resume_session

    configure_logs(json_lines=settings.log_json, level=settings.log_level)

    def confirm(entry: SessionEntry, lines: list[LayerLine]) -> bool:
        if not as_json:
            _print_layers(entry, lines)
        return yes or click.confirm("Deliver what remains?", err=True)

    with progress_bar(enabled=not as_json) as progress:
        result = resume_session(
            settings.facility(facility_name), settings.home(), name, plan, reason, confirm, progress,
            new_limits=new_limits,
        )  # fmt: skip
    if as_json:
        print_json(result.to_data())
    else:
        from console.summary import print_result

        print_result(result)
    return int(result.exit_code)


@click.group()
def journal() -> None:
    """The journal of a facility."""


@journal.command()
@click.argument("name", metavar="SESSION", default="")
@FACILITY
@JOURNAL
@JSON
@click.pass_obj
def verify(settings: Settings, name: str, facility_name: str, journal_at: str, as_json: bool) -> int:
    """Recompute the hash chain of the facility's journal, or of the one that has SESSION, which may be a virtual
    delivery's own; exit code 7 names the first broken row."""
    from console.tables import print_json
    from journal.verify import verify as verify_journal
    from rig import session_desk

    home, facility = settings.home(), settings.facility(facility_name).id
    with contextlib.ExitStack() as stack:
        if name:
            opened, _ = stack.enter_context(session_desk.session_at(home, facility, name, journal_at))
        else:
            opened = stack.enter_context(session_desk.journal_at(home, facility, journal_at))
        found = verify_journal(opened)
        where = opened.where
    if as_json:
        print_json({"journal": where, "batches": found.batches, "rows": found.rows, "hash": found.tip.hash,
                    "broken": found.broken})  # fmt: skip
    else:
        print(f"{where}: {found.batches} batches, {found.rows} rows sound, ends with {found.tip.hash}")
        if found.broken:
            print(f"BROKEN: {found.broken}")
    return int(ExitCode.VERIFICATION_FAILED if found.broken else ExitCode.OK)


def _fraction(entry: SessionEntry) -> str:
    """Which part of a course it is."""
    rest = f", rest of {entry.continues}" if entry.continues else ""
    return f"{entry.fraction} of {entry.fractions_planned}{rest}" if entry.fraction else "none"


def _print_course(course: Course) -> None:
    from console.tables import print_table

    if not course.fractions:
        return
    rows = [(one.number, one.status, f"{sum(part.ions for part in one.parts):.4e}",
             ", ".join(part.entry.session for part in one.parts)) for one in course.fractions]  # fmt: skip
    title = f"course of {course.patient}: {course.completed} of {course.planned} fractions completed"
    print_table(title, ("fraction", "status", "ions", "sessions"), rows)
    print_table("delivered by beam", ("beam", "ions"), [(beam, f"{ions:.4e}") for beam, ions in course.beams.items()])


def _print_layers(entry: SessionEntry, lines: list[LayerLine]) -> None:
    from console.tables import print_table

    rows = [
        (line.layer, line.status, f"{line.spots_done} of {line.spots}", f"{line.prescribed_ions:.0f}",
         f"{'at least ' * line.unsure}{line.ic1_ions:.0f}", f"{line.uncertain_ions:.0f}",
         f"{'at most ' * line.unsure}{line.remaining_ions:.0f}")
        for line in lines
    ]  # fmt: skip
    title = f"{entry.session}: {entry.status}, {entry.plan_label}, room {entry.room}, fraction {_fraction(entry)}"
    print_table(title, ("layer", "booked", "spots", "planned", "delivered", "uncertain", "remaining"), rows)
    for line in lines:
        if line.unsure:
            print(f"Layer {line.layer} was armed: what it got since is in the dose register, not yet in the journal; "
                  "ionctl resume or session close brings both together.")  # fmt: skip
