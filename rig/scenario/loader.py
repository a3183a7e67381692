"""Read scenario files: typed, validated against rules, faults, facilities and each other; errors say where and what."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from control.layer_machine import State
from facility.config import config_roots
from facility.config.base import tuples
from facility.errors import ConfigError, IonctlError, names_meant, no_such
from facility.states import RingPhase
from rig.scenario.faults import CATALOGUE
from rig.scenario.model import Act, Scenario, Target
from rig.scenario.sources import facility_of, rules_of

SCHEMA = "ionctl.scenarios/1"
FOLDER = "scenarios"
_TOP = ("schema", "defaults", "scenario")


@dataclass(frozen=True)
class Loaded:
    """A scenario and where it stands."""

    scenario: Scenario
    source: str
    folder: Path | None
    """Of its file, for plans beside it; None for the packaged copy of a zip."""
    config_dir: Path | None = None


def load_all(
    names: Sequence[str] = (), config_dir: Path | None = None, facility: str | None = None
) -> tuple[Loaded, ...]:
    """Scenarios by file, folder or id; where nothing is named, all of the first configuration folder that has some.

    Args:
        names: paths of files or folders, ids of scenarios in any configuration folder, or `file.toml::id`.
        config_dir: folder whose `scenarios` come before those of the project.
        facility: runs them all at this facility instead of their own; in its first room and with its first species
            where it does not have theirs.

    Raises ConfigError that names file, scenario and key; UsageError for an id that there is not.
    """
    found: dict[str, Loaded] = {}
    ids: list[str] = []
    for name in names:
        path, _, wanted = name.partition("::")
        if path.endswith(".toml") or Path(path).is_dir():
            some = _from_path(Path(path), config_dir, facility)
            if wanted and wanted not in {one.scenario.id for one in some}:
                raise no_such("scenario.unknown", "scenario", wanted, [one.scenario.id for one in some], path)
            _add(found, [one for one in some if not wanted or one.scenario.id == wanted])
        else:
            ids.append(name)
    folders = _shipped(config_dir, facility)
    if not names:
        return tuple(next(folders).values())
    if ids:
        _pick(found, ids, folders)
    return tuple(found.values())


def _pick(found: dict[str, Loaded], ids: list[str], folders: Iterator[dict[str, Loaded]]) -> None:
    """By id, from the first folder that has it."""
    known: dict[str, Loaded] = {}
    for folder in folders:
        known = folder | known
        if set(ids) <= set(known):
            break
    for scenario_id in ids:
        if scenario_id not in known:
            raise no_such("scenario.unknown", "scenario", scenario_id, known, "", "ionctl scenario list")
        found[scenario_id] = known[scenario_id]


def _shipped(config_dir: Path | None, facility: str | None) -> Iterator[dict[str, Loaded]]:
    """Those of each configuration folder that has any; ConfigError where none has."""
    some = False
    for root in config_roots(config_dir):
        folder = root.joinpath(FOLDER)
        if folder.is_dir():
            found: dict[str, Loaded] = {}
            files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda e: e.name)
            for entry in files:
                text = entry.read_text(encoding="utf-8")
                _add(found, _from_text(text, str(entry), _path(folder), config_dir, facility))
            some = True
            yield found
    if not some:
        raise ConfigError("scenario.none", f"no folder {FOLDER} in any configuration folder", "", "give files")


def _path(folder: Traversable) -> Path | None:
    return folder if isinstance(folder, Path) else None


def _from_path(path: Path, config_dir: Path | None, facility: str | None) -> list[Loaded]:
    files = sorted(path.rglob("*.toml")) if path.is_dir() else [path]
    found: list[Loaded] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError("scenario.unreadable", f"cannot read the file: {problem}", str(file)) from problem
        found += _from_text(text, str(file), file.parent, config_dir, facility)
    if not found:
        raise ConfigError("scenario.none", "no scenario file in this folder", str(path), "give one that holds *.toml")
    return found


def _add(found: dict[str, Loaded], more: Iterable[Loaded]) -> None:
    for one in more:
        before = found.get(one.scenario.id)
        if before is not None and before.source != one.source:
            raise ConfigError(
                "scenario.repeated", f"scenario {one.scenario.id!r} is also in {before.source}",
                f"{one.source}, key id", "give each an id of its own",
            )  # fmt: skip
        found[one.scenario.id] = one


def scenarios_from_toml(text: str, where: str = "scenarios.toml", config_dir: Path | None = None) -> list[Scenario]:
    """The scenarios of a file's text, checked."""
    return [one.scenario for one in _from_text(text, where, None, config_dir, None)]


def _from_text(
    text: str, where: str, folder: Path | None, config_dir: Path | None, facility: str | None
) -> list[Loaded]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError("scenario.syntax", f"not valid TOML: {problem}", where) from problem
    if data.get("schema") != SCHEMA:
        raise ConfigError("scenario.schema", f"schema = {data.get('schema')!r}", f"{where}, key schema",
                          f"must be {SCHEMA!r}")  # fmt: skip
    unknown = sorted(set(data) - set(_TOP))
    if unknown:
        raise ConfigError("scenario.unknown-key", f"unknown key {unknown[0]!r}", where,
                          names_meant(unknown[0], _TOP))  # fmt: skip
    defaults, entries = data.get("defaults", {}), data.get("scenario")
    if not isinstance(entries, list) or not entries:
        raise ConfigError("scenario.none", "no table [[scenario]]", f"{where}, key scenario", "add one")
    if not isinstance(defaults, dict):
        raise ConfigError("scenario.bad-value", f"defaults = {defaults!r}", f"{where}, key defaults", "make it a table")
    found: list[Loaded] = []
    for number, entry in enumerate(entries):
        chosen = {**defaults, **entry}
        scenario = _typed(_moved(chosen, facility, config_dir) if facility else chosen, number, where)
        place = f"{where}, scenario {scenario.id}"
        if any(one.scenario.id == scenario.id for one in found):
            raise ConfigError("scenario.repeated", "two scenarios of one id", f"{place}, key id", "give another id")
        check(scenario, place, config_dir)
        found.append(Loaded(scenario, where, folder, config_dir))
    return found


def _moved(entry: dict[str, Any], facility: str, config_dir: Path | None) -> dict[str, Any]:
    """At another facility: in its first room and with its first species where it has not those of the scenario."""
    there = facility_of(facility, config_dir)
    has = {"room": set(there.rooms), "species": set(there.species)}
    kept = {key: value for key, value in entry.items() if key not in has or value in has[key]}
    return {**kept, "facility": facility}


def _typed(entry: Any, number: int, where: str) -> Scenario:
    name = entry.get("id") if isinstance(entry, dict) else None
    place = f"{where}, scenario {name}" if isinstance(name, str) else f"{where}, scenario number {number}"
    try:
        return Scenario.model_validate(tuples(entry))
    except ValidationError as problem:
        first = min(problem.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys_at(first["loc"][:-1])
            raise ConfigError("scenario.unknown-key", f"unknown key {first['loc'][-1]!r}", f"{place}, key {key}",
                              names_meant(str(first["loc"][-1]), known)) from problem  # fmt: skip
        value = "" if first["type"] == "missing" else f"{key} = {first['input']!r}: "
        raise ConfigError("scenario.bad-value", f"{value}{first['msg']}", f"{place}, key {key}") from problem


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    from rig.scenario import model

    table: dict[str, Any] = {
        "at": model.Moment,
        "expect": model.Expect,
        "plan": model.PlanSource,
        "before": Act,
        "acts": Act,
        "then": Act,
    }
    owner = next((table[str(part)] for part in loc if str(part) in table), Scenario)
    return sorted(owner.model_fields)


# --- against the rest of the configuration --------------------------------------------------------------------
def check(scenario: Scenario, where: str, config_dir: Path | None = None) -> None:
    """ConfigError for what no run could be made of: names that there are not, keys that contradict each other."""

    def refuse(key: str, what: str, fix: str) -> None:
        raise ConfigError("scenario.contradiction", what, f"{where}, key {key}", fix)

    try:
        facility = facility_of(scenario.facility, config_dir)
        room = scenario.room or next(iter(facility.rooms))
        species = scenario.species or next(iter(facility.species))
        facility.room_named(room)
        facility.species_named(species)
    except IonctlError as problem:
        what = f"{problem.what} in {problem.where}" if problem.where else problem.what
        raise ConfigError("scenario.facility", what, f"{where}, key facility", problem.fix) from problem
    known = rules_of(scenario.facility, room, species, config_dir).by_id
    expect = scenario.expect
    lists = (
        ("rules", scenario.rules),
        ("expect.also", expect.also),
        ("expect.besides", expect.besides),
        ("expect.trips", expect.trips),
    )
    named = [(key, rule) for key, rules in lists for rule in rules]
    named += [("expect.first", expect.first)] if expect.first else []
    for key, rule in named:
        if rule not in known:
            refuse(key, f"no rule {rule!r} at {facility.id}", names_meant(rule, known))
    if not scenario.rules and not scenario.recovery and not scenario.hazard:
        refuse("rules", "neither a rule, a recovery path nor a hazard", "say what it shows")
    _check_plan(scenario, refuse)
    _check_moment(scenario, refuse)
    for key, acts in (("before", scenario.before), ("acts", scenario.acts), ("then", scenario.then)):
        for number, act in enumerate(acts):
            _check_act(act, f"{key}.{number}", refuse)
    _check_targets(scenario, refuse)


def _check_plan(scenario: Scenario, refuse: Any) -> None:
    if (scenario.plan.make is None) == (scenario.plan.file is None):
        refuse("plan", "give exactly one of make and file", 'for example plan = { make = "trial" }')


def _check_moment(scenario: Scenario, refuse: Any) -> None:
    at = scenario.at
    given = [name for name in ("spot", "phase", "state", "beam_ms") if getattr(at, name) is not None]
    if len(given) > 1:
        refuse("at", f"{' and '.join(given)} together", "give one of spot, phase, state, beam_ms")
    if given and scenario.begin != "started":
        refuse("at", f"{given[0]} before START", 'it needs begin = "started"')
    if at.move and at.spot is None:
        refuse("at.move", "a move after no spot", "give spot too")
    if at.phase is not None and at.phase not in RingPhase.__members__:
        refuse("at.phase", f"no ring phase {at.phase!r}", names_meant(at.phase, RingPhase.__members__))
    if at.state is not None and at.state not in State.__members__:
        refuse("at.state", f"no state {at.state!r} of control", names_meant(at.state, State.__members__))


def _check_act(act: Act, key: str, refuse: Any) -> None:
    if (act.fault is None) == (act.do is None):
        refuse(key, "give exactly one of fault and do", "a fault of `ionctl fault list`, or a deed")
    if act.fault is not None:
        if act.fault not in CATALOGUE:
            refuse(f"{key}.fault", f"no fault {act.fault!r}", names_meant(act.fault, CATALOGUE))
        if act.value is not None and not CATALOGUE[act.fault].takes_value:
            refuse(f"{key}.value", f"{act.fault} takes no value, not {act.value:g}", "take the key out")
        if act.refused is not None and CATALOGUE[act.fault].family != "operator":
            refuse(f"{key}.refused", "a fault is not refused", "take the key out")
    if act.do == "await" and (act.state is None or act.state not in State.__members__):
        refuse(f"{key}.state", f"await state {act.state!r}", f"give one of {', '.join(State.__members__)}")
    if act.do in ("bypass", "unbypass") and act.rule is None:
        refuse(f"{key}.rule", f"{act.do} of no rule", "name it")
    if act.do in ("wait", "turn-key") and act.value is None:
        refuse(f"{key}.value", f"{act.do} without a value", "ms to wait, or the position of the key")


def _check_targets(scenario: Scenario, refuse: Any) -> None:
    for target in Target:
        runs = target.value in scenario.targets
        if runs == (target.value in scenario.not_on):
            what = "runs, and a reason why not" if runs else "does not run, without a reason"
            refuse(
                "targets", f"{target.value}: {what}", "each target is either in targets or in not_on, with its reason"
            )
        if not runs:
            continue
        for act in (*scenario.before, *scenario.acts, *scenario.then):
            entry = None if act.fault is None else CATALOGUE[act.fault]
            if entry is not None and target not in entry.targets:
                refuse("targets", f"{act.fault} cannot be had on {target.value}: {entry.why_not}",
                       f"take {target.value} out, and say so in not_on")  # fmt: skip
