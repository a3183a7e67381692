"""`ionctl scenario`: run and list scenarios."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.lazy import LazyGroup
from console.options import JSON, OutputFile
from console.settings import Settings

if TYPE_CHECKING:
    from rig.scenario.loader import Loaded
    from rig.scenario.result import ScenarioResult

TARGETS = ("virtual", "ca", "hil")
COLUMNS = (
    "scenario",
    "first",
    "beam off, ms",
    "bound, ms",
    "ions after",
    "state",
    "end",
    "spots in tolerance",
    "verdict",
)
COMMANDS = {
    "run": ("console.commands.scenario", "run", "Run scenarios and judge them by truth."),
    "list": ("console.commands.scenario", "list_", "List scenarios, their rules and their targets."),
}
WHICH = click.argument("which", nargs=-1, metavar="[FILE|FOLDER|ID]...")
AT_FACILITY = click.option("--facility", "facility_name", help="Run them at this facility instead of their own.")


@click.group(cls=LazyGroup, table=COMMANDS)
def scenario() -> None:
    """Scenarios: a moment of a delivery, what goes wrong there, what people do then, and what is expected of it."""


@click.command("run")
@WHICH
@click.option("--target", type=click.Choice(TARGETS), default="virtual", show_default=True)
@AT_FACILITY
@click.option("--rule", "rule_ids", multiple=True, help="Only those that exercise this rule; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes, in virtual time.")
@click.option("--junit", type=OutputFile(), help="Write JUnit XML here.")
@click.option("--html", type=OutputFile((".html",)), help="Write one HTML file, with traces, here.")
@JSON
@click.pass_obj
def run(
    settings: Settings, which: tuple[str, ...], target: str, facility_name: str | None, rule_ids: tuple[str, ...],
    jobs: int, junit: Path | None, html: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Run the named scenarios, or all that come with the project. Exit code 7 if one fails, or nothing was run."""
    from console.tables import print_json
    from facility.errors import ExitCode
    from rig.logs import configure_logs
    from rig.scenario.model import Target
    from rig.scenario.report import junit_xml, to_data
    from rig.scenario.run import run_on
    from rig.wall_clock import monotonic_s

    configure_logs(
        json_lines=settings.log_json, level="error" if settings.log_level == "warning" else settings.log_level
    )
    chosen = _chosen(settings, which, facility_name, rule_ids)
    begin_s = monotonic_s()
    results: list[ScenarioResult] = []
    for result in run_on(Target(target), chosen, jobs, trace=html is not None):
        results.append(result)
        _show_progress(results, len(chosen))
    wall_s = monotonic_s() - begin_s
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    if junit is not None:
        junit.write_bytes(junit_xml(results, target, wall_s))
    if html is not None:
        from console.scenario_page import page

        html.write_text(page(results, target, wall_s), encoding="utf-8")
    if as_json:
        print_json(to_data(results, target, wall_s))
    else:
        _print(results, target, wall_s)
    good = any(r.passed for r in results) and not any(r.verdict == "failed" for r in results)
    return int(ExitCode.OK if good else ExitCode.VERIFICATION_FAILED)


def _chosen(
    settings: Settings, which: tuple[str, ...], facility_name: str | None, rule_ids: tuple[str, ...]
) -> tuple[Loaded, ...]:
    from facility.errors import no_such
    from rig.scenario.loader import load_all

    found = load_all(which, settings.config_dir, facility_name)
    known = {rule for one in found for rule in one.scenario.rules}
    for rule in rule_ids:
        if rule not in known:
            raise no_such("scenario.rule", "scenario of a rule", rule, sorted(known), "--rule")
    return tuple(one for one in found if not rule_ids or set(rule_ids) & set(one.scenario.rules))


def _show_progress(results: list[ScenarioResult], total: int) -> None:
    last = results[-1]
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{len(results)} of {total}, {last.id}", nl=False, err=True)
    elif last.verdict == "failed" or len(results) % 20 == 0:
        click.echo(f"{len(results)} of {total}, {last.id} {last.verdict}", err=True)


def _print(results: list[ScenarioResult], target: str, wall_s: float) -> None:
    from console.tables import print_table
    from rig.scenario.report import counts

    ran = [result for result in results if result.verdict != "skipped"]
    print_table(f"{len(ran)} scenarios on {target}", COLUMNS, [_row(result) for result in ran], right=range(2, 5),
                spare=("ions after", "state", "bound, ms"))  # fmt: skip
    for result in results:
        for failure in result.failures:
            click.echo(f"FAILED {result.id}: {failure}")
    for result in results:
        if result.verdict == "skipped":
            click.echo(f"skipped {result.id}: {result.reason}")
    found = counts(results)
    click.echo(f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped in {wall_s:.1f} s.")


def _row(result: ScenarioResult) -> tuple[object, ...]:
    final = result.final
    return (
        result.id, result.first or "none", "" if result.off_us is None else f"{result.off_us / 1e3:.3f}",
        "" if result.bound_us is None else f"{result.bound_us / 1e3:.3f}", f"{result.surplus_ions:.0f}", result.state,
        result.end, "" if final is None or final.nothing else f"{final.spots - final.beyond} of {final.spots}",
        "passed" if result.passed else "FAILED",
    )  # fmt: skip


@click.command("list")
@WHICH
@AT_FACILITY
@JSON
@click.pass_obj
def list_(settings: Settings, which: tuple[str, ...], facility_name: str | None, as_json: bool) -> None:
    """List scenarios with rules, recovery paths and targets."""
    from console.tables import print_json, print_table

    found = _chosen(settings, which, facility_name, ())
    if as_json:
        print_json({
            "schema": "ionctl.scenario-list/1",
            "scenarios": [{**one.scenario.model_dump(mode="json"), "source": one.source} for one in found],
        })  # fmt: skip
        return
    rows = [
        (one.scenario.id, ", ".join(one.scenario.rules), one.scenario.recovery or "", ", ".join(one.scenario.targets),
         one.scenario.title)
        for one in found
    ]  # fmt: skip
    print_table(f"{len(found)} scenarios", ("id", "rules", "recovery", "targets", "title"), rows,
                spare=("title", "recovery"))  # fmt: skip
    reasons = sorted({(t, words) for one in found for t, words in one.scenario.not_on.items()})
    for target, words in reasons:
        click.echo(f"Not on {target}: {words}.")
