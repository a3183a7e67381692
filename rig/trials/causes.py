"""Read `configs/interlock_trials.toml`: how every rule is tried, typed and checked against rules and fault points."""

from __future__ import annotations

import math
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from facility.config import find_config
from facility.config.base import NonNegative, Section, tuples
from facility.errors import ConfigError
from facility.signals import INDEX, SIGNALS
from interlocks.model import Rule, RuleId
from interlocks.rules import RuleSet
from ioc_sim.faults import ABOUT, FOREVER_NS, Fault, FaultKind
from ioc_sim.physics.utilities import DEVICES

SCHEMA = "ionctl.trials/1"
FILE_NAME = "interlock_trials.toml"
MAX_FAULTS = 4
NOISE_ENDS = 2.45
"""The noise of a slow device ends at so many sigma (`ioc_sim.physics.utilities`)."""
END_KINDS = ("mismatch", "excess")
"""Kinds of rules whose limit a layer comes near to at its end."""
NEAR_KINDS = ("limit", "window", "mismatch", "excess", "beat", "stale")
"""Kinds of rules whose limit is a number that a quantity can be brought near to."""


class TrialState(StrEnum):
    """Where a delivery stands when the cause begins."""

    STANDBY = "standby"
    """Nothing loaded, the ring stands by, the permit is given."""
    RING = "ring"
    """A layer is armed and waits for the ring."""
    ARMED = "armed"
    """Armed on the flat top, the gate keeps the beam off."""
    SPOT = "spot"
    """Irradiating."""
    MOVE = "move"
    """Between spots, beam off."""
    HELD = "held"
    """Beam off in mid-layer, the gate is closed."""
    PAUSED = "paused"
    """Beam off by the operator, in mid-layer."""
    ENERGY = "energy"
    """A layer is done, the next one has another energy."""


class Act(StrEnum):
    """Causes that are no fault of a device of the plant."""

    RELAY_PAUSE = "relay-pause"
    """The relays of the safety link's lines show PAUSE: permit away, hold on."""
    RELAY_ABORT = "relay-abort"
    """Both relays fall: ABORT."""
    RELAY_HOLD = "relay-hold"
    """Both relays on: HOLD."""
    CUT_TO_RACK = "cut-to-rack"
    """Frames of the safety controller are lost on their way."""
    CUT_FROM_RACK = "cut-from-rack"
    """Frames of the rack are lost on their way."""
    CONSOLE_SILENT = "console-silent"
    """The operator's console sends no keep-alives."""
    COPY_FLIPPED = "copy-flipped"
    """A bit of the second evaluator's image flips in the safety controller's memory."""
    CONTROL_SILENT = "control-silent"
    """Control sends no keep-alives."""
    PLAN_ALTERED = "plan-altered"
    """The program in control's memory is changed after it was loaded."""
    READBACK_WRONG = "readback-wrong"
    """What control reads back of the range shifter is not the plan's."""
    AUTHORITY_LOST = "authority-lost"
    """Control holds no record of who started the delivery."""
    PROOF_FAILS = "proof-fails"
    """A device has failed unnoticed, and its proof test is run."""
    PLANT_LATE = "plant-late"
    """The plant falls behind its pace."""
    HOLD_AGAIN = "hold-again"
    """A HOLD comes and goes in a field until its allowance is spent, and once more."""
    INTERRUPT_AGAIN = "interrupt-again"
    """A PAUSE comes and is reset in a field until `max_pauses` are spent, and once more."""


HISTORIES = (Act.HOLD_AGAIN, Act.INTERRUPT_AGAIN)
"""Acts that are one more of what has happened in the field as often as it may."""

KindName = Literal["STUCK", "SET", "OFFSET", "SCALE", "DRIFT", "NAN", "DEAD"]
StateName = Literal["any", "standby", "ring", "armed", "spot", "move", "held", "paused", "energy"]
ActName = Literal[
    "relay-pause",
    "relay-abort",
    "relay-hold",
    "cut-to-rack",
    "cut-from-rack",
    "console-silent",
    "plant-late",
    "hold-again",
    "interrupt-again",
    "copy-flipped",
    "control-silent",
    "plan-altered",
    "readback-wrong",
    "authority-lost",
    "proof-fails",
]


class DeviceFault(Section):
    """What fails in which device."""

    point: str
    kind: KindName
    value: float = 0.0
    per_level: bool = False
    """The value counts intensity levels of the layer, not ions per second."""

    def at(self, t_ns: int, level_ions_per_s: float = 1.0) -> Fault:
        """The fault, from this instant on, in a layer of this level."""
        value = self.value * (level_ions_per_s if self.per_level else 1.0)
        return Fault(self.point, FaultKind[self.kind], value, at_ns=t_ns)


class Near(Section):
    """A fault that puts the judged quantity at a chosen share of the rule's limit."""

    point: str
    kind: KindName
    zero: float
    """Value at which the quantity is as far from its limit as it is without a fault."""
    at_limit: float
    noise: float = 0.0
    """What the device's own noise adds at most, towards the limit."""
    side: Literal["", "low", "high"] = ""
    """Which of two limits it is."""
    per_level: bool = False
    """Values count intensity levels of the layer as they leave the ring."""
    for_ms: NonNegative = 0.0
    """The fault lasts so long; 0: for the rest of the layer."""

    def faults(self, share: float, t_ns: int, level_ions_per_s: float = 1.0) -> tuple[Fault, ...]:
        """The quantity at `share` of its limit, from this instant on, in a layer of this level."""
        value = self.zero + share * (self.at_limit - self.zero) - (self.noise if share < 1.0 else 0.0)
        value *= level_ions_per_s if self.per_level else 1.0
        until_ns = t_ns + round(self.for_ms * 1e6) if self.for_ms else FOREVER_NS
        return (Fault(self.point, FaultKind[self.kind], value, at_ns=t_ns, until_ns=until_ns),)


class NearEnd(Section):
    """A device whose fault lets a layer end at a chosen share of a limit that grows with it, or that it grows to."""

    point: str
    moves: Literal["limit", "first", "second"]
    """What the point sets: the register that the limit is made of, or the speed with which one of the two grows."""
    besides: Annotated[tuple[DeviceFault, ...], Field(max_length=MAX_FAULTS)] = ()
    """What fails, too: or another rule on the same register would come before this one."""


class Quiet(Section):
    """A device whose own noise is in the reading: it is set so that a signal of its own is 0."""

    point: str
    signal: str


class NearSpot(Section):
    """A device that is set, for a fraction of a spot, so that the rule's reading is at a chosen share of its limits."""

    point: str
    for_us: Annotated[float, Field(gt=0.0, le=500.0)] = 300.0
    quiet: Annotated[tuple[Quiet, ...], Field(max_length=MAX_FAULTS)] = ()
    """What the reading is compared with, or what would move it."""


class NearDose(Section):
    """A register of counts that shows too many, so that one spot is read at a chosen share of the limit of its dose."""

    point: str
    steers: bool = False
    """The front end steers by this chamber, and ends the spot for it: one after which the beam is stopped."""


class Trial(Section):
    """How one rule is tried."""

    rule: RuleId
    faults: Annotated[tuple[DeviceFault, ...], Field(max_length=MAX_FAULTS)] = ()
    act: ActName | None = None
    builds_up_ms: NonNegative = 0.0
    """Longest time until the condition holds, but for the rule's own delays; 0: from the first instant."""
    states: Annotated[tuple[StateName, ...], Field(min_length=1)]
    stop_spot: bool = False
    after_beam_ms: NonNegative = 0.0
    """The cause begins no earlier after the first beam."""
    gating: bool = False
    also: tuple[RuleId, ...] = ()
    behind: tuple[RuleId, ...] = ()
    """Rules that take the beam for the same cause before this one can."""
    removed: Literal["repair", "search", "unload", "undo"]
    near: Near | None = None
    near_end: NearEnd | None = None
    near_spot: NearSpot | None = None
    near_dose: NearDose | None = None
    near_act: bool = False
    """The act at a share of the limit: silent for so long, so late."""
    near_bypassed: tuple[RuleId, ...] = ()
    """Rules that would come before this one, bypassed by a physicist while it is tried near its limit."""
    not_near: Annotated[str, Field(max_length=300)] = ""
    """Why a rule with a number as its limit is tried far beyond it only."""

    @property
    def immediate(self) -> bool:
        """The condition holds from the first instant on."""
        return self.builds_up_ms == 0.0

    @property
    def applies_in(self) -> tuple[TrialState, ...]:
        """States, in the order of a delivery."""
        return tuple(state for state in TrialState if "any" in self.states or state.value in self.states)

    @property
    def history(self) -> Act | None:
        """What must have happened in the field before."""
        return Act(self.act) if self.act in HISTORIES else None

    @property
    def rate_factor(self) -> float:
        """How many times the planned beam the cause itself brings, at most until the condition holds."""
        spill = [fault for fault in self.faults if fault.point == "spill.rate"]
        scales = [fault.value for fault in spill if fault.kind == "SCALE"]
        gained = [1e-3 * fault.value * self.builds_up_ms for fault in spill if fault.kind == "DRIFT"]
        return max([1.0, *scales, *(1.0 + levels for levels in gained)])


def load_trials(rules: RuleSet, config_dir: Path | None = None) -> dict[str, Trial]:
    """Trials by rule, in the order of the rules, from the first `interlock_trials.toml` of the configuration folders.

    Raises ConfigError that names file, rule and key.
    """
    source = find_config(FILE_NAME, config_dir)
    if source is None:
        raise ConfigError("trials.no-file", f"no {FILE_NAME}", "", "give a --config-dir that holds one")
    return trials_from_toml(source.read_text(encoding="utf-8"), rules, str(source))


def trials_from_toml(text: str, rules: RuleSet, where: str = FILE_NAME) -> dict[str, Trial]:
    """Trials from the text of a file, one for each rule."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError("trials.syntax", str(problem), where) from problem
    if data.get("schema") != SCHEMA:
        raise ConfigError("trials.schema", f"schema {data.get('schema')!r}", f"{where}, key schema", f"give {SCHEMA!r}")
    unknown = sorted(set(data) - {"schema", "trial"})
    if unknown:
        raise ConfigError("trials.unknown-key", f"unknown key {unknown[0]!r}", where, "allowed: schema, trial")
    entries = data.get("trial")
    if not isinstance(entries, list):
        raise ConfigError("trials.no-trials", "give tables [[trial]]", f"{where}, key trial")
    found: dict[str, Trial] = {}
    for number, entry in enumerate(entries):
        trial = _trial(entry, number, where)
        if trial.rule in found:
            raise ConfigError("trials.repeated", "two trials of one rule", f"{where}, rule {trial.rule}, key rule")
        _check(trial, rules, f"{where}, rule {trial.rule}")
        found[trial.rule] = trial
    missing = [rule.id for rule in rules.rules if rule.id not in found]
    if missing:
        raise ConfigError("trials.missing", f"rule {missing[0]!r} is never tried", where, "add a [[trial]] for it")
    return {rule.id: found[rule.id] for rule in rules.rules}


def _trial(entry: Any, number: int, where: str) -> Trial:
    name = entry.get("rule") if isinstance(entry, dict) else None
    place = f"{where}, rule {name}" if isinstance(name, str) else f"{where}, trial number {number}"
    try:
        return Trial.model_validate(tuples(entry))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError("trials.bad-value", f"{key}: {first['msg']}", f"{place}, key {key}") from problem


def _check(trial: Trial, rules: RuleSet, where: str) -> None:
    def refuse(key: str, what: str, fix: str) -> None:
        raise ConfigError("trials.bad-trial", what, f"{where}, key {key}", fix)

    if trial.rule not in rules.by_id:
        refuse("rule", f"no rule {trial.rule!r} in interlocks.toml", "take the trial out, or add the rule")
    if bool(trial.faults) == (trial.act is not None):
        refuse("faults", "faults and act together, or neither", "give one of them")
    points = [(f"faults.{i}.point", fault.point) for i, fault in enumerate(trial.faults)]
    if trial.near is not None:
        points.append(("near.point", trial.near.point))
        if rules.by_id[trial.rule].kind not in NEAR_KINDS:
            refuse("near", "this rule has no number as its limit", "take the key out")
    if trial.near_end is not None:
        points.append(("near_end.point", trial.near_end.point))
        points += [(f"near_end.besides.{i}.point", fault.point) for i, fault in enumerate(trial.near_end.besides)]
        if rules.by_id[trial.rule].kind not in END_KINDS:
            refuse("near_end", "this rule compares no two quantities", "take the key out")
    if trial.near_spot is not None:
        quiet = trial.near_spot.quiet
        points.append(("near_spot.point", trial.near_spot.point))
        points += [(f"near_spot.quiet.{i}.point", one.point) for i, one in enumerate(quiet)]
        if rules.by_id[trial.rule].kind != "limit":
            refuse("near_spot", "this rule has no limits for one reading", "take the key out")
        for i, one in enumerate(quiet):
            if one.signal not in INDEX:
                refuse(f"near_spot.quiet.{i}.signal", f"no signal {one.signal!r}", "see facility/signals.py")
    if trial.near_dose is not None:
        points.append(("near_dose.point", trial.near_dose.point))
        if rules.by_id[trial.rule].kind != "excess":
            refuse("near_dose", "this rule compares no dose with another", "take the key out")
    if trial.not_near and (tried_near(rules.by_id[trial.rule], trial) or not has_number(rules.by_id[trial.rule])):
        refuse("not_near", "this rule is tried near its limit, or has no number as its limit", "take the key out")
    if trial.near_act and (trial.act is None or rules.by_id[trial.rule].kind != "limit"):
        refuse("near_act", "no act with a limit", "take the key out")
    for other in trial.near_bypassed:
        if other not in rules.by_id or rules.by_id[other].bypass == "never":
            refuse("near_bypassed", f"{other!r} is no rule that can be bypassed", "see its key bypass")
    for key, point in points:
        if point not in ABOUT:
            refuse(key, f"no fault point {point!r}", "see ioc_sim/faults.py")
    for key, other in [*(("also", other) for other in trial.also), *(("behind", other) for other in trial.behind)]:
        if other not in rules.by_id or other == trial.rule:
            refuse(key, f"{other!r} is no other rule of interlocks.toml", f"known: {', '.join(rules.by_id)}")
    if "any" in trial.states and len(trial.states) > 1:
        refuse("states", "'any' and others", "give 'any' alone")
    if (trial.removed == "undo") != (trial.act is not None):
        refuse("removed", f"{trial.removed!r}", "'undo' for an act, 'repair', 'search' or 'unload' for faults")


def nears_of(rule: Rule, trial: Trial) -> tuple[Near, ...]:
    """How the judged quantity is brought near to its limit, or to each of two; empty where no device fault does that.

    The judged quantity is the reading. A slow device adds noise to what the fault drives, at most NOISE_ENDS
    sigma of it: below the limit it is the greatest reading that is at the share, above it the mean.
    """
    if trial.near is not None:
        return (trial.near,)
    point = rule.inputs[0]
    device = next((device for device in DEVICES if SIGNALS[device.signal].name == point), None)
    if rule.kind != "limit" or device is None:
        return ()
    sides: tuple[tuple[Literal["low", "high"], float | None], ...] = (("low", rule.low), ("high", rule.high))
    return tuple(
        Near(point=point, kind="SET", zero=device.nominal, at_limit=limit, side=side,
             noise=math.copysign(NOISE_ENDS * device.noise, limit - device.nominal))
        for side, limit in sides if limit is not None
    )  # fmt: skip


def tried_near(rule: Rule, trial: Trial) -> bool:
    """Whether it is tried at 0.98 and 1.02 of its limit."""
    ways = (trial.near_end, trial.near_spot, trial.near_dose)
    return trial.near_act or any(way is not None for way in ways) or bool(nears_of(rule, trial))


def has_number(rule: Rule) -> bool:
    """Whether the rule's limit is a number that a quantity can be brought near to."""
    return rule.kind in NEAR_KINDS


def why_not_near(rule: Rule, trial: Trial) -> str:
    """Why it is not tried at 0.98 and 1.02 of its limit; empty where it is."""
    if not has_number(rule):
        return "its limit is no number"
    if not tried_near(rule, trial):
        return trial.not_near or f"{FILE_NAME} says no way, and no reason in not_near"
    return "" if TrialState.SPOT in trial.applies_in else "it does not apply in state spot, where limits are tried"
