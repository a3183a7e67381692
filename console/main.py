"""`ionctl`: the command line. Commands are imported when they are used, so that help comes at once."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from console.lazy import LazyGroup
from console.own_packages import refuse_foreign_packages
from console.settings import Settings
from facility.errors import ExitCode, IonctlError

COMMANDS = {
    "demo": ("console.commands.demo", "demo", "Everything at once: up, make a plan, deliver it, down."),
    "deliver": ("console.commands.deliver", "deliver", "Deliver a plan, spot by spot."),
    "resume": ("console.commands.sessions", "resume", "Go on with a session at the exact spot."),
    "session": ("console.commands.sessions", "session", "Sessions of the journal: list, show, export, close."),
    "journal": ("console.commands.sessions", "journal", "Verify the journal's hash chain."),
    "record": ("console.commands.record", "record", "Compare treatment records with their plan."),
    "dicom": ("console.commands.dicom", "dicom", "Receive plans and send records by DICOM C-STORE."),
    "plan": ("console.commands.plan", "plan", "Make, show and check plans."),
    "up": ("console.commands.processes", "up", "Start plant, safety controller and control server."),
    "down": ("console.commands.processes", "down", "Stop them: beam off first."),
    "status": ("console.commands.processes", "status", "Show what runs, and where it is reached."),
    "interlocks": (
        "console.commands.interlocks",
        "interlocks",
        "What must never happen: rules, latches, resets, proofs.",
    ),
    "scenario": ("console.commands.scenario", "scenario", "Run scenarios: what goes wrong, and what comes of it."),
    "fault": ("console.commands.fault", "fault", "List the faults that can be injected."),
    "room": ("console.commands.room", "room", "Stand in the room: search, door, emergency stop."),
    "campaign": ("console.commands.campaign", "campaign", "Search thousands of treatments for one that goes wrong."),
    "replay": ("console.commands.campaign", "replay", "Run one seed of a campaign again, bit for bit."),
    "monitors": ("console.commands.monitors", "monitors", "Daily check of the dose monitors."),
    "machine": ("console.commands.machine", "machine", "Physics of the machine, in numbers and pictures."),
    "dose": ("console.commands.dose", "dose", "Dose in water of a plan, or of what a session delivered."),
    "table": ("console.commands.table", "table", "Energy tables: show, make a new version, approve it."),
    "pvs": ("console.commands.pvs", "pvs", "Print the catalogue of process variables."),
    "facility": ("console.commands.facilities", "facility", "List and show facilities; begin one of your own."),
}


@click.command(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config-dir", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Folder searched first for facility files, rules and tables.")  # fmt: skip
@click.option("--home", "home_dir", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for runs, sessions, keys; default $IONCTL_HOME or the user's data directory.")  # fmt: skip
@click.option("--log-json", is_flag=True, help="Log JSON lines instead of words.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
              show_default=True)  # fmt: skip
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="ionctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, config_dir: Path | None, home_dir: Path | None, log_json: bool, log_level: str, debug: bool
) -> None:
    """Run an ion-therapy facility that fits in a laptop: plant, soft IOCs, control and hard interlocks.

    Exit codes: 0 ok, 2 usage, 3 configuration, 4 plan refused, 5 interrupted or terminated, 6 target unavailable,
    7 verification failed, 70 internal.
    """
    if config_dir is not None:
        from facility.config.loader import searched_first

        ctx.with_resource(searched_first(config_dir))
    ctx.obj = Settings(config_dir, home_dir, log_json, "debug" if debug else log_level, debug)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are one line on stderr."""
    debug = "--debug" in arguments
    try:
        refuse_foreign_packages()
        result = cli.main(args=list(arguments), prog_name="ionctl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        return int(ExitCode.USAGE)
    except click.ClickException as problem:
        return _say(_words_of(problem), ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", ExitCode.INTERRUPTED)
    except IonctlError as problem:
        if debug:
            raise
        return _say(str(problem), problem.exit_code)
    except Exception as problem:
        if debug:
            raise
        if isinstance(problem, OSError) and problem.filename is not None:
            return _say(f"{problem.strerror} ({problem.filename})", ExitCode.CONFIGURATION)
        words = f"{type(problem).__name__}: {problem} (a defect of ionctl; run again with --debug for the traceback)"
        return _say(words, ExitCode.INTERNAL)
    return int(result) if isinstance(result, int) else int(ExitCode.OK)


def _words_of(problem: click.ClickException) -> str:
    """A usage error in the form of every other: what is wrong, where, what to do."""
    what = " ".join(problem.format_message().split()).rstrip(".")
    where = problem.ctx.command_path if isinstance(problem, click.UsageError) and problem.ctx else "ionctl"
    return f"{what} ({where}): see {where} --help"


def _say(words: str, code: ExitCode) -> int:
    one_line = " ".join(words.split())
    print(f"ionctl: {one_line}", file=sys.stderr)
    return int(code)


class _Outlet(io.FileIO):
    """Where a standard stream goes: what a reader who has left would have read is dropped, the work goes on."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def _outlive_readers() -> None:
    """Let standard output and error end in `_Outlet`, so that `| head` neither ends a delivery nor hides its end."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError):  # closed, or replaced by something without a descriptor
            raw = _Outlet(stream.fileno(), "w", closefd=False)
            line_buffering = name == "stderr" or raw.isatty()
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors,
                                                line_buffering=line_buffering))  # fmt: skip


def main() -> NoReturn:
    """Console script."""
    _outlive_readers()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
