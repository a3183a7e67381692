"""`ionctl interlocks test`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, JSON, OutputFile, seed_option
from console.settings import Settings

if TYPE_CHECKING:
    from rig.trials.bench import Bench
    from rig.trials.report import Figure
    from rig.trials.result import TrialResult
    from rig.trials.stages import Choice

STATES = ("standby", "ring", "armed", "spot", "move", "held", "paused", "energy")
EVERY = 50
"""Where nobody watches a terminal, progress is a line each so many trials."""
MANY = 5
"""More rules than that with one reason are told by their number."""
COLUMNS = (
    "rule", "state", "with", "condition, ms", "decision, ms", "beam off, ms", "bound, ms", "surplus, % of spot",
    "surplus, mGy", "bound, mGy", "verdict",
)  # fmt: skip


@click.command("test")
@click.option("--target", type=click.Choice(["virtual"]), default="virtual", show_default=True)
@click.option("--rule", "rule_ids", multiple=True, help="Only this rule; may be given several times.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only in this state.")
@FACILITY
@click.option("--room", help="Room; default the first one.")
@click.option("--species", help="Species; default the first one.")
@seed_option()
@click.option(
    "--degraded",
    is_flag=True,
    help="With every beam-off device stuck, not only the fast ones, and with either chamber dead.",
)
@click.option("--near", is_flag=True, help="Also 0.98 and 1.02 of each limit that a device can be set to, with beam.")
@click.option("--junit", type=OutputFile(), help="Write JUnit XML here.")
@JSON
@click.pass_obj
def test(
    settings: Settings, target: str, rule_ids: tuple[str, ...], states: tuple[str, ...], facility_name: str,
    room: str | None, species: str | None, seed: int, degraded: bool, near: bool, junit: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Try every rule in every state where it applies: its cause in the device, the beam by raw ticks of the truth.

    Exit code 7 if a trial fails.
    """
    from console.tables import print_json
    from facility.errors import ExitCode
    from rig.logs import configure_logs
    from rig.trials.bench import make_bench
    from rig.trials.causes import TrialState
    from rig.trials.report import figures, junit_xml, to_data
    from rig.trials.stages import FAST_FAILED, VARIANTS, choose, not_tried_near, run_trials
    from rig.wall_clock import monotonic_s

    configure_logs(json_lines=settings.log_json, level=settings.log_level)
    bench = make_bench(settings.facility(facility_name), room, species, seed, settings.config_dir)
    chosen = tuple(TrialState(state) for state in states)
    choice = choose(bench, rule_ids, chosen, variants=VARIANTS if degraded else FAST_FAILED, near=near)
    not_near = not_tried_near(bench, choice)
    results: list[TrialResult] = []
    begin_s = monotonic_s()
    ends_s = [begin_s]

    def take(result: TrialResult) -> None:
        results.append(result)
        ends_s.append(monotonic_s())
        _show_progress(results)

    run_trials(bench, choice, take)
    wall_s = monotonic_s() - begin_s
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    if junit is not None:
        took_s = [end - begin for begin, end in itertools.pairwise(ends_s)]
        junit.write_bytes(junit_xml(bench, results, wall_s, not_near, took_s))
    if as_json:
        print_json(to_data(bench, results, wall_s, not_near))
    else:
        _print(bench, choice, results, wall_s, not_near)
    good = bool(results) and all(result.passed for result in results)
    good = good and all(figure.holds for figure in figures(bench, results))
    return int(ExitCode.OK if good else ExitCode.VERIFICATION_FAILED)


def _show_progress(results: list[TrialResult]) -> None:
    failed = sum(not result.passed for result in results)
    line = f"{len(results)} trials, {failed} failed, {results[-1].name}"
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=False, err=True)
    elif len(results) % EVERY == 0:
        click.echo(line, err=True)


def _print(bench: Bench, choice: Choice, results: list[TrialResult], wall_s: float, not_near: dict[str, str]) -> None:
    from console.tables import print_table, print_wrapped
    from rig.trials.report import figures

    if not results:
        _say_not_near(not_near)
        print_wrapped("", f"Nothing to try: {_where_tried(bench, choice)}.")
        return
    print_table(f"{len(results)} trials of the interlocks of {bench.facility.id}", COLUMNS,
                [_row(result) for result in results], right=range(3, 10),
                spare=("bound, mGy", "surplus, mGy", "condition, ms", "surplus, % of spot", "bound, ms"))  # fmt: skip
    summary = figures(bench, results)
    print_table("Worst and median", ("what", "trials", "median", "worst", "bound", "unit", "worst in", "verdict"),
                [_figure_row(figure) for figure in summary], right=(1, 2, 3, 4),
                spare=("trials", "median", "worst in"))  # fmt: skip
    _say_not_near(not_near)
    for result in results:
        for failure in result.failures:
            click.echo(f"FAILED {result.name}: {failure}")
    for figure in summary:
        if not figure.holds:
            click.echo(f"FAILED {figure.name}: {figure.worst:.4g} {figure.unit}, at most {figure.bound:.4g}")
    failed = sum(not result.passed for result in results)
    click.echo(f"{len(results)} trial{'' if len(results) == 1 else 's'} in {wall_s:.1f} s: {failed} failed.")


def _where_tried(bench: Bench, choice: Choice) -> str:
    """In which states the chosen rules apply, a few of them."""
    tried = [f"{rule_id} is tried in {', '.join(state.value for state in trial.applies_in)}"
             for rule_id, trial in bench.trials.items() if rule_id in choice.rules]  # fmt: skip
    return "; ".join(tried[:MANY])


def _say_not_near(not_near: dict[str, str]) -> None:
    """Why nothing near was tried, the rules of one reason together."""
    from console.tables import print_wrapped

    reasons: dict[str, list[str]] = {}
    for rule, why in not_near.items():
        reasons.setdefault(why, []).append(rule)
    for why, rules in reasons.items():
        named = ", ".join(rules) if len(rules) <= MANY else f"{len(rules)} rules"
        print_wrapped("Not tried near its limit: ", f"{named}: {why}")


def _row(result: TrialResult) -> tuple[object, ...]:
    def after(t_ns: int | None) -> str:
        return "" if t_ns is None else f"{(t_ns - result.t_cause_ns) / 1e6:.3f}"

    near = result.near_share is not None
    off = after(result.t_off_ns) or ("" if near and not result.tripped else "no beam")
    promised = [""] * 4 if near else [
        f"{result.bound_us / 1000.0:.3f}", f"{result.surplus_pct:.1f}", f"{result.surplus_mgy:.2f}",
        f"{result.surplus_bound_mgy:.2f}",
    ]  # fmt: skip
    return (
        result.rule, result.state, result.variant, after(result.t_condition_ns),
        after(result.t_decision_ns) or ("no trip" if near else ""), off, *promised,
        "passed" if result.passed else "FAILED",
    )  # fmt: skip


def _figure_row(figure: Figure) -> tuple[object, ...]:
    return (
        figure.name, figure.trials, f"{figure.median:.4g}", f"{figure.worst:.4g}",
        "" if figure.bound is None else f"{figure.bound:.4g}", figure.unit, figure.worst_in, figure.verdict,
    )  # fmt: skip
