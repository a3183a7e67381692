"""Read `configs/interlocks.toml`: validate every rule, apply what a facility overrides, compile the H rules to rows.

`load_rules(facility, room, species)` is the way in; `RuleSet.fast()` is what the rack takes.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from facility.config import Facility, find_config, list_facilities
from facility.config.base import Section, tuples
from facility.errors import ConfigError, no_such
from facility.events import canonical_json
from facility.signals import INDEX
from interlocks import fast
from interlocks.model import LinkSettings, PolicySettings, Rule, problems
from interlocks.own_inputs import AGREE_INPUT

S = TypeVar("S", bound=Section)
SCHEMA = "ionctl.interlocks/1"
FILE_NAME = "interlocks.toml"
OVERRIDABLE = frozenset({"low", "high", "relative", "equals", "window_us", "debounce_us", "citation", "sigma"})
MAX_RULES = 200
KEPT = 16
"""Rule sets that are kept."""
_TOP_KEYS = frozenset({"schema", "link", "policy", "rule", "override"})


@dataclass(frozen=True)
class FastRules:
    """Compiled H rules, what the rack evaluates."""

    compiled: NDArray[Any]
    """`interlocks.fast.RULE_DTYPE`, shape (n,), with nothing remembered; take `rows`."""
    hist_index: NDArray[np.int64]
    """Signals whose history is kept, in the order of the ring's columns."""
    ids: tuple[str, ...]
    bypassable: int = 0
    """Rules that may be bypassed in some mode, mask: the rack masks no other, whatever the link says."""

    @property
    def rows(self) -> NDArray[Any]:
        """A copy of the rows of its own for each evaluator: rows remember counts and latches."""
        return self.compiled.copy()


@dataclass(frozen=True)
class RuleSet:
    """All rules of a facility, a room and a species, in the order of the file."""

    facility: str
    rules: tuple[Rule, ...]
    link: LinkSettings
    policy: PolicySettings = PolicySettings()  # noqa: RUF009 - frozen
    overridden: tuple[str, ...] = ()
    """Whom the file has limits of their own for: facilities, or facility and species."""

    @cached_property
    def by_id(self) -> dict[str, Rule]:
        """Rules by id."""
        return {rule.id: rule for rule in self.rules}

    @cached_property
    def h(self) -> tuple[Rule, ...]:
        """Rules of the fast tier; the position is the bit in the masks."""
        return tuple(rule for rule in self.rules if rule.tier == "H")

    @cached_property
    def p(self) -> tuple[Rule, ...]:
        """Rules of the safety controller over the process image and its own watchdogs."""
        return tuple(rule for rule in self.rules if rule.tier == "P")

    @cached_property
    def t(self) -> tuple[Rule, ...]:
        """Rules of the procedure: control checks and vouches, the safety controller judges."""
        return tuple(rule for rule in self.rules if rule.tier == "T")

    @cached_property
    def scanned(self) -> tuple[Rule, ...]:
        """What both evaluators of the safety controller judge at each scan: tiers P and T, in the order of the file."""
        return tuple(rule for rule in self.rules if rule.tier != "H" and AGREE_INPUT not in rule.inputs)

    @cached_property
    def comparison(self) -> Rule | None:
        """The rule that speaks of a disagreement of the two; None if there is none."""
        return next((rule for rule in self.rules if AGREE_INPUT in rule.inputs), None)

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON of the resolved rules: facility, link, rules in the order of the file, policy."""
        data = [
            self.facility,
            self.link.model_dump(),
            self.policy.model_dump(),
            [rule.model_dump() for rule in self.rules],
        ]
        return canonical_json(data)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the resolved rules, hexadecimal: both ends of a run must have the same."""
        return hashlib.sha256(self.canonical).hexdigest()

    def rule(self, rule_id: str) -> Rule:
        """The rule, or UsageError with the ids that are close."""
        try:
            return self.by_id[rule_id]
        except KeyError:
            raise no_such("interlocks.no-rule", "rule", rule_id, self.by_id, "", "ionctl interlocks list") from None

    def fast(self) -> FastRules:
        """The H rules compiled, with nothing remembered."""
        return compile_fast(self.h)


def load_rules(facility: Facility, room: str, species: str, config_dir: Path | None = None) -> RuleSet:
    """Rules for this facility, room and species, from the first `interlocks.toml` of the configuration folders.

    Raises ConfigError that names file, rule and key.
    """
    source = find_config(FILE_NAME, config_dir)
    if source is None:
        raise ConfigError("interlocks.no-file", f"no {FILE_NAME}", "", "give a --config-dir that holds one")
    facility.species_named(species)
    facility.room_named(room)
    rules = rules_from_toml(
        source.read_text(encoding="utf-8"), facility.id, species, list(facility.rooms).index(room), str(source)
    )
    for name in rules.overridden:
        _check_owner(name, facility, config_dir, f"{source}, override.{name}")
    return rules


def _check_owner(name: str, facility: Facility, config_dir: Path | None, where: str) -> None:
    """ConfigError for limits of a facility or a species that there is not: they would be in force nowhere."""
    whole, _, species = name.rpartition("-")
    if name == facility.id or find_config(f"{name}.toml", config_dir) is not None:
        return
    if whole == facility.id and species not in facility.species:
        known = ", ".join(facility.species)
        raise ConfigError("interlocks.override", f"{whole} has no species {species!r}", where, f"known: {known}")
    if whole != facility.id and find_config(f"{whole}.toml", config_dir) is None:
        known = ", ".join(list_facilities(config_dir))
        raise ConfigError("interlocks.override", f"there is no facility {name!r}", where, f"known: {known}")


@lru_cache(maxsize=KEPT)
def rules_from_toml(text: str, facility: str, species: str, room_index: int, where: str = FILE_NAME) -> RuleSet:
    """Rules from the text of a file; `room_index` is the value of the beam token of the room, from 0.

    What was made of a text is kept: nothing in a rule set changes, and every world and every trial needs one.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError("interlocks.syntax", str(problem), where) from problem
    if data.get("schema") != SCHEMA:
        raise ConfigError(
            "interlocks.schema", f"schema {data.get('schema')!r}", f"{where}, key schema", f"give {SCHEMA!r}"
        )
    unknown = sorted(set(data) - _TOP_KEYS)
    if unknown:
        raise ConfigError(
            "interlocks.unknown-key", f"unknown key {unknown[0]!r}", where, f"allowed: {sorted(_TOP_KEYS)}"
        )
    link = _section(LinkSettings, data.get("link", {}), f"{where}, link")
    policy = _section(PolicySettings, data.get("policy", {}), f"{where}, policy")
    entries = _entries(data.get("rule"), where)
    for name in (facility, f"{facility}-{species}"):
        _override(
            entries, _table(data.get("override", {}), f"{where}, override").get(name, {}), f"{where}, override.{name}"
        )
    rules = tuple(_rule(entry, room_index, f"{where}, rule {rule_id}") for rule_id, entry in entries.items())
    h_rules = sum(rule.tier == "H" for rule in rules)
    if h_rules > fast.MAX_RULES:
        raise ConfigError("interlocks.too-many", f"{h_rules} rules of tier H", where, f"at most {fast.MAX_RULES}")
    return RuleSet(facility, rules, link, policy, tuple(_table(data.get("override", {}), f"{where}, override")))


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("interlocks.bad-value", "not a table", where)
    return value


def _entries(value: object, where: str) -> dict[str, dict[str, Any]]:
    """Rules by id in the order of the file, not yet validated."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_RULES:
        raise ConfigError("interlocks.no-rules", f"give 1 to {MAX_RULES} tables [[rule]]", f"{where}, key rule")
    found: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(value):
        entry = dict(_table(item, f"{where}, rule number {number}"))
        rule_id = entry.get("id")
        if not isinstance(rule_id, str):
            raise ConfigError("interlocks.no-id", "a rule has no id", f"{where}, rule number {number}, key id")
        if rule_id in found:
            raise ConfigError("interlocks.repeated-id", "two rules have this id", f"{where}, rule {rule_id}, key id")
        found[rule_id] = entry
    return found


def _override(entries: dict[str, dict[str, Any]], changes: object, where: str) -> None:
    for rule_id, change in _table(changes, where).items():
        if rule_id not in entries:
            raise ConfigError("interlocks.no-rule", f"there is no rule {rule_id!r} to override", where)
        for key, value in _table(change, f"{where}.{rule_id}").items():
            if key not in OVERRIDABLE:
                allowed = ", ".join(sorted(OVERRIDABLE))
                what = f"key {key!r} cannot be overridden"
                raise ConfigError("interlocks.override", what, f"{where}.{rule_id}.{key}", f"allowed: {allowed}")
            entries[rule_id][key] = value


def _rule(entry: dict[str, Any], room_index: int, where: str) -> Rule:
    rule = _section(Rule, entry, where)
    if rule.equals == "room":
        rule = rule.model_copy(update={"equals": float(room_index)})
    for problem in problems(rule):
        value = entry.get(problem.key)
        raise ConfigError(
            "interlocks.bad-rule", f"{problem.key} = {value!r}: {problem.text}", f"{where}, key {problem.key}"
        )
    return rule


def _section(model: type[S], entry: object, where: str) -> S:
    try:
        return model.model_validate(tuples(entry))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError("interlocks.bad-value", f"{key}: {first['msg']}", f"{where}, key {key}") from problem


def compile_fast(rules: tuple[Rule, ...]) -> FastRules:
    """Rows for the fast evaluator, in the order given; windowed signals share columns of the history."""
    columns: dict[int, int] = {}
    rows = np.zeros(len(rules), dtype=fast.RULE_DTYPE)
    for row, rule in zip(rows, rules, strict=True):
        _fill(row, rule, columns)
    bypassable = sum(1 << place for place, rule in enumerate(rules) if rule.bypass != "never")
    return FastRules(rows, np.array(list(columns), dtype=np.int64), tuple(rule.id for rule in rules), bypassable)


def _fill(row: Any, rule: Rule, columns: dict[int, int]) -> None:
    signals = [INDEX[name] for name in rule.inputs]
    row["kind"] = fast.KINDS[rule.kind]
    row["when"] = -1 if rule.when is None else INDEX[rule.when]
    row["a"] = signals[0]
    row["b"] = signals[-1]
    row["lo"], row["hi"], row["rel"] = _limits(rule)
    row["window"] = round(rule.window_us / fast.TICK_US)
    if rule.kind in ("window", "mismatch") and rule.window_us > 0.0:
        row["windowed"] = 1
        row["hist_a"] = columns.setdefault(signals[0], len(columns))
        row["hist_b"] = columns.setdefault(signals[-1], len(columns))
    row["debounce"] = round(rule.debounce_us / fast.TICK_US)
    row["action"] = int(rule.strength)
    row["latching"] = int(rule.latches)
    row["last"] = np.nan
    for name in ("value", "limit", "bad_value", "bad_limit"):
        row[name] = np.nan


def _limits(rule: Rule) -> tuple[float, float, float]:
    """lo, hi, rel as the evaluator takes them."""
    low = -fast.NO_LIMIT if rule.low is None else rule.low
    high = fast.NO_LIMIT if rule.high is None else rule.high
    if rule.kind in ("digital", "either"):
        return rule.expected, rule.expected, 0.0
    if rule.kind == "equal":
        return 0.0, 0.0, 1.0
    return low, high, rule.relative or 0.0
