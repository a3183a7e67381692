"""`ionctl interlocks history`: trips of the runs below the home, one of them in full, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.commands.interlocks.common import at_s
from console.options import JSON, OutputFile
from console.settings import Settings
from facility.errors import UsageError

if TYPE_CHECKING:
    from interlocks.model import Rule
    from rig.post_mortem_file import Recording
    from rig.trip_history import Trip

PICTURES = (".png", ".svg", ".pdf")
_COLUMNS = (
    "id",
    "facility",
    "run",
    "facility time, s",
    "rule",
    "tier",
    "action",
    "value",
    "limit",
    "unit",
    "beam off, ms",
    "file",
)


_NO_ONES = frozenset({"field", "field.number", "proof_action", "proof_seq"})
"""Of the scans: numbers that stand for a session and for steps of proof tests, which tell nobody anything."""
_MASKS = {"fast_latched": "fast rules that are latched", "fast_present": "fast rules that are present"}


@click.command()
@click.argument("trip_id", metavar="[ID]", required=False)
@click.option("--facility", "facility_name", help="Only trips of this facility.")
@click.option("--plot", type=OutputFile(PICTURES), help="Draw it: .png, .svg or .pdf.")
@JSON
@click.pass_obj
def history(
    settings: Settings, trip_id: str | None, facility_name: str | None, plot: Path | None, as_json: bool
) -> None:
    """List trips, the latest run first; with ID show one, as frozen when it happened."""
    from rig.logs import configure_logs
    from rig.trip_history import trip_named, trips

    configure_logs(json_lines=settings.log_json, level=settings.log_level)
    if trip_id is None:
        if plot is not None:
            raise UsageError(
                "history.which", "--plot draws one trip", "--plot", "ionctl interlocks history ID --plot FILE"
            )
        if facility_name is not None:
            settings.facility(facility_name)
        _list(trips(settings.home(), facility_name), as_json, "" if facility_name is None else f" of {facility_name}")
        return
    _one(settings, trip_named(settings.home(), trip_id), plot, as_json)


def _list(found: list[Trip], as_json: bool, of: str) -> None:
    from console.tables import print_json, print_table

    if as_json:
        print_json({"trips": [trip.to_data() for trip in found]})
        return
    if not found:
        print(f"no trips{of} are on record")
        return
    rows: list[tuple[Any, ...]] = []
    for trip in found:
        data = trip.to_data()
        off_ms = None if data["t_off_ns"] is None else (data["t_off_ns"] - _decided_ns(trip)) * 1e-6
        rows.append((trip.id, trip.facility, f"{trip.target} {trip.run}", f"{trip.t_ns * 1e-9:.6f}", trip.rule,
                     data["tier"], data["action"], data["value"], data["limit"], _unit(data["unit"]), off_ms,
                     "yes" if trip.file is not None else ""))  # fmt: skip
    print_table(f"{len(rows)} trip{'' if len(rows) == 1 else 's'}", _COLUMNS, rows, right=(3, 7, 8, 10),
                spare=("tier", "facility", "file", "beam off, ms", "run", "unit", "limit", "value"))  # fmt: skip
    print("Facility time: when the rule tripped. Beam off: after the first decision of that recording.")
    if any(trip.data.get("unit") in ("ms", "us") for trip in found):
        print("A value in ms or us is a time that had passed when the rule tripped, not since: of operator-heartbeat, "
              "how long the console had been silent.")  # fmt: skip
    if any(trip.file is not None for trip in found):
        print("Show one: ionctl interlocks history ID [--plot FILE]")


def _unit(unit: str) -> str:
    from interlocks.explain import NO_UNIT

    return "" if unit in NO_UNIT else unit


def _decided_ns(trip: Trip) -> int:
    """Decision in the plant's time, in which beam-off is told: first of what tripped."""
    said = trip.said or {}
    return int(said.get("t_decision_ns", trip.t_ns))


def _one(settings: Settings, trip: Trip, plot: Path | None, as_json: bool) -> None:
    from console.tables import print_json, print_wrapped

    found = trip.recording() if trip.file is not None or plot is not None else None
    scans = trip.scanned()
    about = None if found is None else dict(found.about)
    rule = None if about is None else _rule_of(settings, trip, about)
    if plot is not None and found is not None:
        from console.post_mortem_plot import draw

        draw(found, plot, rule, scans, trip.ahead_ns)
    if as_json:
        print_json({**trip.to_data(), "post_mortem": about, "safety_scans": _scans_data(scans),
                    "plot": None if plot is None else str(plot)})  # fmt: skip
        return
    print_wrapped("", f"{trip.id}: {trip.data.get('words') or trip.rule}, tripped at {at_s(trip.t_ns)}")
    print(f"{trip.facility}, {trip.target}, {trip.run}; mode {trip.data.get('mode') or 'not told'}")
    heard_ns = None if scans is None else int(scans.about["event"]["t_ns"]) - trip.ahead_ns
    if found is None:
        print("No post-mortem was kept of it.")
    else:
        _explain(found, rule, heard_ns if trip.data.get("tier") == "H" else None)
    if scans is not None:
        zero_ns = heard_ns if found is None else int(found.about["t_decision_ns"])
        _show_scans(scans, int(zero_ns or 0), trip.ahead_ns)
    for file in filter(None, (trip.file, trip.scans_file)):
        print(f"File {file}, SHA-256 as the event says.")
    if plot is not None:
        print(f"Picture {plot}")


def _scans_data(scans: Recording | None) -> dict[str, Any] | None:
    """What the file of scans says of itself, and its own inputs and lines."""
    from rig.safety_scans_file import story

    return None if scans is None else {**scans.about, "columns": scans.table.schema.names, "story": story(scans)}


def _show_scans(scans: Recording, zero_ns: int, ahead_ns: int) -> None:
    """What the safety controller knew by itself, and what it decided in the window; `zero_ns` is the decision in the
    plant's time, `ahead_ns` how far the controller's is ahead of it."""
    from console.tables import print_table
    from interlocks.own_inputs import OWN_INPUTS
    from rig.safety_scans_file import story

    rows: list[tuple[Any, ...]] = []
    for name, told in story(scans).items():
        if name in _NO_ONES or not (name in OWN_INPUTS or told["changes"]):
            continue
        last = _after_ms(told["changes"][-1][0] - ahead_ns, zero_ns) if told["changes"] else ""
        if name in _MASKS:
            rows.append((_MASKS[name], last, _rules_in(told["at_trip"], scans.about["fast_rule_ids"]), "", ""))
        elif name == "action":
            rows.append((name, last, _action(told["at_trip"]), _action(told["least"]), _action(told["most"])))
        else:
            rows.append((name, last, told["at_trip"], told["least"], told["most"]))
    print_table(f"What the safety controller had, by {scans.about['scans']} scans of that second",
                ("", "last changed, ms after the decision", "when it tripped there", "least", "most"), rows,
                right=(1, 2, 3, 4), spare=("least", "most"))  # fmt: skip


def _action(value: float | None) -> str:
    from facility.states import Action

    return "" if value is None else Action(int(value)).name


def _rules_in(mask: float | None, ids: list[str]) -> str:
    """The rules whose bits are set."""
    names = [name for place, name in enumerate(ids) if int(mask or 0) >> place & 1]
    return ", ".join(names) or "none"


def _explain(found: Recording, rule: Rule | None, heard_ns: int | None) -> None:
    """The four times, what else tripped, and whether the recording may be believed."""
    about = found.about
    from console.tables import print_table, print_wrapped
    from interlocks.explain import condition, consequence
    from rig.post_mortem_story import times_of

    if rule is not None:
        print_wrapped("", f"{rule.title} protects from: {rule.hazard}")
        print_wrapped("", f"It must hold: {condition(rule)}; else {consequence(rule)}.")
    marks = times_of(about)
    zero_ns = marks["t_decision"] or 0
    words = {
        "t_cause": "fault injected",
        "t_condition": "condition holds",
        "t_decision": "decision",
        "t_off": "beam off",
    }
    rows = [(words[name], f"{t_ns * 1e-9:.6f}", _after_ms(t_ns, zero_ns))
            for name, t_ns in marks.items() if t_ns is not None]  # fmt: skip
    if heard_ns is not None:
        rows.append(("heard by the safety controller", f"{heard_ns * 1e-9:.6f}", _after_ms(heard_ns, zero_ns)))
    print_table("Times", ("", "facility time, s", "ms after the decision"), rows, right=(1, 2))
    print_table("What tripped, or was present", ("rule", "action", "", "value", "limit", "ms after the decision"),
                _tripped(found, zero_ns), right=(3, 4, 5))  # fmt: skip
    if about["identical"]:
        judged = "run again from a copy of the plant: the same as what happened, bit for bit"
    else:
        judged = f"NOT the same as what happened: {', '.join(about['differences'])} differ"
    print_wrapped("", f"{about['samples']} samples, {judged}.")


def _tripped(found: Recording, zero_ns: int) -> list[tuple[Any, ...]]:
    """What latched, then fast rules that were present, in order of time: state, value, limit, and when that began."""
    from rig.post_mortem_story import tripped

    rows = []
    for told in tripped(found):
        state = "latched" if told.latched else "present"
        if told.follows:
            state += ", follows: the safety controller withholds the permit"
        began = "before the recording" if told.began_ns is None else _after_ms(told.began_ns, zero_ns)
        rows.append((told.rule, told.action, state, told.value, told.limit, began))
    return rows


def _after_ms(t_ns: int, zero_ns: int) -> str:
    return f"{(t_ns - zero_ns) * 1e-6:+.3f}"


def _rule_of(settings: Settings, trip: Trip, about: dict[str, Any]) -> Rule | None:
    """The rule as it stood where the file tells, else as it stands now; None where nobody knows."""
    from interlocks.rules import load_rules
    from rig.post_mortem_story import main_rule

    told = main_rule(about)
    if told is not None:
        return told
    rules = load_rules(settings.facility(about["facility"]), about["room"], about["species"], settings.config_dir)
    return rules.by_id.get(trip.rule)
