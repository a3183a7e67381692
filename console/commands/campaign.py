"""`ionctl campaign` and `ionctl replay`: search thousands of treatments for one that goes wrong, and run that again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, JSON, OutputFile, seed_option
from console.settings import Settings
from facility.errors import ExitCode

if TYPE_CHECKING:
    from rig.campaign.report import Report
    from rig.campaign.setting import Setting

_GAPS_SHOWN = 12
_PLAN = click.option("--plan", type=click.Path(path_type=Path, dir_okay=False),
                     help="Plan file; default a grid of 3 layers of 60 spots.")  # fmt: skip
_FAULTS = click.option("--faults", multiple=True, metavar="NAME",
                       help="Only causes whose name begins so: rule/, fault/, operator/; may be repeated.")  # fmt: skip


@click.command()
@click.option("--runs", type=click.IntRange(1, 10_000_000), default=100, show_default=True, help="How many.")
@seed_option(0, "; run n has the seed plus n")
@FACILITY
@_PLAN
@_FAULTS
@click.option("--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", default="", help="Dask scheduler whose workers run them instead.")
@click.option("--picture", type=OutputFile((".svg",)), help="Write what was exercised as an SVG picture.")
@JSON
@click.pass_obj
def campaign(
    settings: Settings, runs: int, seed: int, facility_name: str, plan: Path | None, faults: tuple[str, ...], jobs: int,
    scheduler: str, picture: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Deliver one small plan many times in virtual time, and let things go wrong at the worst moments.

    Each run draws from its seed up to four causes and when they come about; an operator who behaves goes on until the
    field is done. Every run is judged by truth. Exit code 7 if an invariant did not hold in one of them.
    """
    from console.campaign_progress import counting
    from console.coverage_picture import coverage_svg
    from console.tables import print_json
    from rig.campaign.campaign import run_campaign
    from rig.logs import configure_logs
    from rig.wall_clock import monotonic_s

    configure_logs(json_lines=settings.log_json, level="error")
    setting = _setting(settings, facility_name, plan, faults)
    begin_s = monotonic_s()
    with counting(runs, enabled=not as_json) as on_done:
        report = run_campaign(setting, seed, runs, jobs, scheduler, on_done)
    wall_s = monotonic_s() - begin_s
    if picture is not None:
        picture.write_text(coverage_svg(report), encoding="utf-8")
    if as_json:
        print_json(report.to_data() | {"measured": {"wall_s": wall_s, "runs_per_s": runs / wall_s, "jobs": jobs}})
    else:
        _print(report, wall_s)
    return int(ExitCode.OK if report.passed else ExitCode.VERIFICATION_FAILED)


@click.command()
@click.argument("seed", type=click.IntRange(0))
@FACILITY
@_PLAN
@_FAULTS
@click.option("--shrink", is_flag=True, help="Leave out causes as long as the same invariant fails.")
@click.option("--trace", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the event log and the raw ticks.")  # fmt: skip
@JSON
@click.pass_obj
def replay(
    settings: Settings, seed: int, facility_name: str, plan: Path | None, faults: tuple[str, ...], shrink: bool,
    trace: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Run one SEED of a campaign again, bit for bit, with the same --plan and --faults; exit code 7 if it fails."""
    from console.tables import print_json
    from rig.campaign.block import replay as run_again
    from rig.campaign.block import shrink as make_smaller
    from rig.logs import configure_logs

    configure_logs(json_lines=settings.log_json, level="error")
    setting = _setting(settings, facility_name, plan, faults)
    found = run_again(setting, seed)
    if trace is not None:
        found.write(trace)
    outcome = found.outcome
    left = tuple(cause.words() for cause in make_smaller(setting, seed)[0].causes) if shrink else ()
    if as_json:
        print_json(outcome.to_data() | ({"shrunk": list(left)} if shrink else {}))
    else:
        for line in found.story():
            print(line)
        print(f"\nseed {seed}: {outcome.end}, {'passed' if outcome.passed else 'FAILED'}; digest {outcome.digest}")
        for words in (*outcome.causes, *(f"left when shrunk: {words}" for words in left), *outcome.failures):
            print(f"  {words}")
    return int(ExitCode.OK if outcome.passed else ExitCode.VERIFICATION_FAILED)


def _setting(settings: Settings, facility: str, plan: Path | None, faults: tuple[str, ...]) -> Setting:
    from rig.campaign.setting import Setting

    config_dir = None if settings.config_dir is None else str(settings.config_dir)
    return Setting(facility, config_dir, None if plan is None else str(plan), faults)


def _print(report: Report, wall_s: float) -> None:
    from console.tables import print_table

    runs, worst = len(report.outcomes), report.worst
    rows = [
        ("runs", runs), ("failed", len(report.failed)), ("runs per second", runs / wall_s),
        ("ended", ", ".join(f"{end} {count}" for end, count in report.ends.items())),
        ("went on after a trip or a stop", sum(outcome.resumes for outcome in report.outcomes)),
        ("worst surplus of a spot", f"{worst.surplus_ions:.0f} ions, {worst.surplus_pct:.2f} % of the layer's heaviest "
                                    f"(seed {worst.seed})"),
        ("failure rate below, at 95 %", "" if report.bound is None else f"{report.bound:.3%}"),
    ]  # fmt: skip
    print_table("Campaign", ("", ""), rows)
    print_table(
        "Exercised", ("what", "of all", "not exercised"),
        [(c.title, c.share, _some(c.gaps)) for c in report.coverage()],
    )  # fmt: skip
    for outcome in report.failed:
        print(f"FAILED seed {outcome.seed}: ionctl replay {outcome.seed}")
        for words in (*outcome.failures, *(f"left: {words}" for words in report.shrunk.get(outcome.seed, ()))):
            print(f"  {words}")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _GAPS_SHOWN} more (--json names all)" if len(names) > _GAPS_SHOWN else ""
    return ", ".join(names[:_GAPS_SHOWN]) + more
