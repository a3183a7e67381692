"""Plain words: what a rule protects from, why it is tripped, what must happen before it can be reset."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from facility.config import BeamOff, Facility
from facility.external import BOUND_AGES, devices_read
from facility.signals import INDEX, SIGNALS
from facility.states import Action
from interlocks.model import Rule
from interlocks.own_inputs import OWN
from interlocks.rules import RuleSet

H_TICK_US = 10.0
H_DECISION_US = 2 * H_TICK_US
"""A trip decided at the end of a tick acts from the next."""
CONFIRM_WINDOW_US = 10_000.0
"""Within this time the rack sees beam of the lowest level that should be off (ioc_sim.physics.confirmation)."""
OFF_INPUT = "off.confirmed"
MEAN_US = 50.0
"""Beam counts as off when the mean over this time is below 0.1 % of the rate before."""
OFF_SHARE = 0.001
NO_UNIT = ("bool", "1", "token", "code", "index", "count")
"""Units that say nothing to people."""


class Bound(NamedTuple):
    """Longest time from the cause to beam off, us."""

    observation_us: float
    """Until the rule's condition holds: how late the cause shows, window, debounce."""
    decision_us: float
    actuator_us: float
    """With all fast beam-off devices."""
    degraded_us: float
    """With the fastest of them failed."""

    @property
    def total_us(self) -> float:
        """Cause to beam off with all devices."""
        return self.observation_us + self.decision_us + self.actuator_us


def bound(rule: Rule, rules: RuleSet, facility: Facility) -> Bound:
    """What the rule promises: computed from its own times, the tier's, and the facility's beam-off devices."""
    fastest, second = actuator_us(facility, rule.strength)
    observation = rule.input_delay_us + rule.window_us + rule.debounce_us
    if rule.kind == "beat" or rule.inputs[0].endswith("age_ms"):  # the limit itself is a time that has to pass
        observation += (rule.high or 0.0) * 1000.0
    observation += BOUND_AGES * oldest_us(rule, facility)
    if by_dump(rule):
        fastest = second = dump_us(facility)
    if rule.tier == "H":
        return Bound(observation, H_DECISION_US, fastest, second)
    link = rules.link
    decision = 1000.0 * (link.period_ms + 2.0 * link.latency_ms + 2.0 * link.scan_ms) + H_DECISION_US
    return Bound(observation, decision, fastest, second)


def external_inputs(rule: Rule, facility: Facility) -> tuple[str, ...]:
    """External devices of the facility that the rule reads."""
    return devices_read((*rule.inputs, *([rule.when] if rule.when else ())), facility.fitted)


def oldest_us(rule: Rule, facility: Facility) -> float:
    """Maximum age of what the rule reads of external devices, us; 0 where it reads none."""
    return max((facility.max_age_us(name) for name in external_inputs(rule, facility)), default=0.0)


def is_fast(rule: Rule, facility: Facility) -> bool:
    """Whether the rule sees its cause as fast as its tier is; not where it has to wait for an external device."""
    return not external_inputs(rule, facility)


def actuator_us(facility: Facility, action: Action) -> tuple[float, float]:
    """Time to beam off by the fastest and by the second fastest device that the action uses, us.

    HOLD gates the spill; the fast quadrupole falls only with the permit.  Without a second device: infinite.
    """
    off: BeamOff = facility.beam_off
    fast = (off.chopper,) if action == Action.HOLD else (off.chopper, off.fast_quad)
    times = [device.delay_us + device.fall_us for device in fast if device.present]
    times.append(off.rfko.delay_us + tail_us(facility))
    ordered = [*sorted(times), math.inf]
    return ordered[0] + MEAN_US, ordered[1] + MEAN_US


def tail_us(facility: Facility) -> float:
    """How long the extraction alone takes to fall to OFF_SHARE of its rate after its drive has stopped, us."""
    return facility.extraction.tail_us(OFF_SHARE)


def escalated_us(facility: Facility, action: Action) -> float:
    """Decision to beam off where none of the fast devices obeys and the extraction stays on, us: by the ring dump.

    An ABORT dumps at once; after a PAUSE the rack first has to see that beam still comes.
    """
    if action == Action.ABORT:
        return dump_us(facility)
    return facility.confirm_after_us() + CONFIRM_WINDOW_US + H_TICK_US + dump_us(facility)


def by_dump(rule: Rule) -> bool:
    """The rule trips where the fast devices have not taken the beam: only the ring dump is left."""
    return rule.inputs[0] == OFF_INPUT


def dump_us(facility: Facility) -> float:
    """Decision to an empty ring, us."""
    device = facility.beam_off.ring_dump
    return device.delay_us + device.fall_us + MEAN_US


def condition(rule: Rule) -> str:
    """What must hold, in one line with units."""
    words = _condition(rule)
    return words if rule.when is None else f"{words}, while {rule.when} is set"


def _condition(rule: Rule) -> str:
    first, last = _named(rule.inputs[0]), _named(rule.inputs[-1])
    unit = "" if rule.unit in NO_UNIT else f" {rule.unit}"
    match rule.kind:
        case "digital" | "either":
            word = " and " if rule.kind == "digital" else " or "
            return word.join(_is(name, rule.expected) for name in rule.inputs)
        case "limit":
            return f"{first} is {_range(rule, unit)}"
        case "window":
            return f"{first} gains {_range(rule, unit)} in {rule.window_us / 1000.0:g} ms"
        case "beat":
            return f"{first} has shown life within {rule.high:g} ms"
        case "stale":
            return f"{first} has changed within {rule.window_us / 1000.0:g} ms"
        case "equal":
            return f"{first} equals {last}"
        case "excess":
            share = "" if rule.relative == 1.0 else f"{rule.relative:g} times "
            return f"{first} is at most {share}{last}" + (f" plus {rule.high:g}{unit}" if rule.high else "")
        case _:
            span = f" over {rule.window_us / 1000.0:g} ms" if rule.window_us > 0.0 else ""
            share = f"{100.0 * rule.relative:g} % plus " if rule.relative else ""
            return f"{first} and {last} differ by at most {share}{rule.high:g}{unit}{span}"


def _named(name: str) -> str:
    """A signal by its name, what the safety controller knows by itself in words."""
    return OWN[name].what if name in OWN else name


def _is(name: str, expected: float) -> str:
    own = OWN.get(name)
    return own.what if own is not None and own.unit == "bool" and expected == 1.0 else f"{_named(name)} is {expected:g}"


def _range(rule: Rule, unit: str) -> str:
    if rule.low is None:
        return f"at most {rule.high:g}{unit}"
    if rule.high is None:
        return f"at least {rule.low:g}{unit}"
    return f"between {rule.low:g} and {rule.high:g}{unit}"


def consequence(rule: Rule) -> str:
    """What the rule does when it trips."""
    return {
        Action.INHIBIT: "no permit is released while it is present",
        Action.HOLD: "beam off; it goes on by itself when the cause is gone",
        Action.PAUSE: "beam off; the operator resumes after a reset",
        Action.ABORT: "beam off by all devices; the layer ends",
    }[rule.strength]


def before_reset(rule: Rule, present: bool) -> str:
    """What must happen before it can be let go."""
    if not rule.latches:
        return f"nothing: it does not latch, and goes with its cause{and_remedy(rule)}"
    cause = f"the cause must go first ({condition(rule)}); then " if present else ""
    who = "an operator or a physicist" if rule.reset == "operator" else "a physicist"
    return f"{cause}{who} resets it; beam needs a separate start{and_remedy(rule)}"


def and_remedy(rule: Rule) -> str:
    """What a person does about the cause, to be added to other words; empty where neither the rule nor an input of the
    safety controller's own says it."""
    known = [rule.remedy] if rule.remedy else [OWN[name].remedy for name in rule.inputs if name in OWN]
    return "".join(f"; {remedy}" for remedy in dict.fromkeys(known))


def looks_at(rule: Rule) -> list[tuple[str, str]]:
    """What the rule judges, and while what: names with a description each."""
    names = dict.fromkeys((*rule.inputs, *((rule.when,) if rule.when else ())))
    return [(name, OWN[name].what if name in OWN else SIGNALS[INDEX[name]].description) for name in names]


def canonical(rule: Rule) -> tuple[int, ...]:
    """Numbers of the canonical interlocks (1 to 40) that the rule's citation names."""
    return tuple(int(found) for found in re.findall(r"\bno\. (\d+)", rule.citation))


def number(value: float) -> str:
    """A value for people; 'not known' for NaN."""
    return "not known" if math.isnan(value) else f"{value:.6g}"


def why(rule: Rule, value: float, limit: float) -> str:
    """Why it is tripped: value and limit, or what is the matter in words where numbers say nothing."""
    wrong = [OWN[name].wrong for name in rule.inputs if name in OWN]
    if wrong and (rule.kind == "digital" or not math.isfinite(value)):
        return f"{rule.title}: {' / '.join(wrong)}"
    return f"{rule.title}: {measured(rule, value, limit)}"


def measured(rule: Rule, value: float, limit: float) -> str:
    """Value and limit with their unit."""
    told = "must be" if rule.kind in ("digital", "either", "equal") else "limit"
    return f"{with_unit(rule, value)}, {told} {with_unit(rule, limit)}"


def with_unit(rule: Rule, value: float) -> str:
    """A value of the rule for people."""
    return number(value) if rule.unit in NO_UNIT or math.isnan(value) else f"{number(value)} {rule.unit}"


class MatrixRow(NamedTuple):
    """A row of the cause-and-effect matrix."""

    rule: str
    title: str
    hazard: str
    tier: str
    cause: str
    action: str
    spill_off: bool
    """Extraction off and chopper blocking."""
    fast_quad: bool
    """Off the resonance."""
    dump: bool
    """The ring is emptied at once (after a PAUSE only when the permit stays away)."""
    chain: str
    stopper: bool
    """Stopper in and source inhibited: the personnel chain."""
    latches: bool
    reset: str
    bypass: str
    bound_us: float
    degraded_us: float
    fast: bool
    """False: the rule reads an external device, and its bound is that of the device's timing contract."""
    citation: str


def matrix(rules: RuleSet, facility: Facility) -> Iterator[MatrixRow]:
    """Causes, effects and bounds, in the order of the file."""
    for rule in rules.rules:
        promised = bound(rule, rules, facility)
        yield MatrixRow(
            rule=rule.id,
            title=rule.title,
            hazard=rule.hazard,
            tier=rule.tier,
            cause=condition(rule),
            action=rule.action,
            spill_off=rule.strength >= Action.HOLD,
            fast_quad=rule.strength >= Action.PAUSE,
            dump=rule.strength >= Action.ABORT,
            chain=rule.chain,
            stopper=rule.chain == "personnel",
            latches=rule.latches,
            reset=rule.reset,
            bypass=rule.bypass,
            bound_us=promised.total_us,
            degraded_us=promised.observation_us + promised.decision_us + promised.degraded_us,
            fast=is_fast(rule, facility),
            citation=rule.citation,
        )
