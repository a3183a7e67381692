"""Bypasses, as a pure step: (spec, state, event, time) -> (state, effects).

One bypass is of one rule, by one person, for one reason, until one instant; nothing prolongs it.  What a rule's policy
forbids in the mode in force is refused, and ends by itself when that mode is no longer in force.  A controller that has
just started has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, TypeAlias

from interlocks.model import MODES, Bypass, PolicySettings, Rule

NS_PER_S = 1_000_000_000
CLINICAL = MODES[0]
NO_MODE = ""
"""Key and command do not agree: no mode is in force, and no bypass is possible."""


class RulePolicy(NamedTuple):
    """What a rule says about its bypass."""

    rule: str
    bypass: Bypass
    critical: bool


class BypassSpec(NamedTuple):
    """What never changes: policies of all rules, longest time, most bypasses at once."""

    policies: tuple[RulePolicy, ...]
    max_ns: int
    most: int

    def policy(self, rule: str) -> RulePolicy | None:
        """The policy of a rule; None if there is no such rule."""
        return next((policy for policy in self.policies if policy.rule == rule), None)


class Entry(NamedTuple):
    """A bypass in force: since_ns <= t < until_ns."""

    rule: str
    by: str
    reason: str
    since_ns: int
    until_ns: int


class BypassState(NamedTuple):
    """All bypasses in force."""

    entries: tuple[Entry, ...] = ()

    def of(self, rule: str) -> Entry | None:
        """The bypass of a rule; None if it has none."""
        return next((entry for entry in self.entries if entry.rule == rule), None)


class Wanted(NamedTuple):
    """A person wants a rule bypassed for `duration_ns`, with `mode` in force."""

    rule: str
    by: str
    reason: str
    duration_ns: int
    mode: str


class Unwanted(NamedTuple):
    """A person ends the bypass of a rule."""

    rule: str


class Passed(NamedTuple):
    """Time has passed, with `mode` in force."""

    mode: str


class ModeChanged(NamedTuple):
    """Another mode has been set: every bypass ends."""


Event: TypeAlias = Wanted | Unwanted | Passed | ModeChanged


class Kind(Enum):
    """What a step leads to; the refusals change nothing."""

    BEGUN = "begun"
    ENDED = "ended"
    EXPIRED = "expired"
    MODE_LEFT = "mode-left"
    REFUSED_UNKNOWN = "no-rule"
    REFUSED_NEVER = "never"
    REFUSED_CRITICAL = "critical"
    REFUSED_MODE = "mode"
    REFUSED_REASON = "reason"
    REFUSED_TIME = "time"
    REFUSED_TWICE = "twice"
    REFUSED_MANY = "many"
    REFUSED_NONE = "none"


class Effect(NamedTuple):
    """What has happened, to which rule's bypass."""

    kind: Kind
    rule: str


def spec_of(rules: Iterable[Rule], settings: PolicySettings) -> BypassSpec:
    """What the rules and `[policy]` say."""
    policies = tuple(RulePolicy(rule.id, rule.bypass, rule.critical) for rule in rules)
    return BypassSpec(policies, round(settings.max_bypass_s * NS_PER_S), settings.max_bypasses)


def allowed(policy: RulePolicy, mode: str) -> Kind | None:
    """None if a rule may be bypassed with `mode` in force, else why not."""
    if policy.bypass == "never":
        return Kind.REFUSED_NEVER
    if mode not in MODES or MODES.index(mode) < MODES.index(policy.bypass):
        return Kind.REFUSED_MODE
    if policy.critical and mode == CLINICAL:
        return Kind.REFUSED_CRITICAL
    return None


def step(spec: BypassSpec, state: BypassState, event: Event, t_ns: int) -> tuple[BypassState, tuple[Effect, ...]]:
    """The next state and what follows.  Whatever the event is, bypasses whose time has come end."""
    over = tuple(Effect(Kind.EXPIRED, entry.rule) for entry in state.entries if t_ns >= entry.until_ns)
    state = BypassState(tuple(entry for entry in state.entries if t_ns < entry.until_ns))
    if isinstance(event, Wanted):
        state, effects = _wanted(spec, state, event, t_ns)
    elif isinstance(event, Unwanted):
        state, effects = _unwanted(state, event)
    else:
        state, effects = _left(spec, state, event)
    return state, (*over, *effects)


def _wanted(spec: BypassSpec, state: BypassState, event: Wanted, t_ns: int) -> tuple[BypassState, tuple[Effect, ...]]:
    refusal = _refusal(spec, state, event)
    if refusal is not None:
        return state, (Effect(refusal, event.rule),)
    entry = Entry(event.rule, event.by, event.reason, t_ns, t_ns + event.duration_ns)
    return BypassState((*state.entries, entry)), (Effect(Kind.BEGUN, event.rule),)


def _refusal(spec: BypassSpec, state: BypassState, event: Wanted) -> Kind | None:
    policy = spec.policy(event.rule)
    if policy is None:
        return Kind.REFUSED_UNKNOWN
    forbidden = allowed(policy, event.mode)
    if forbidden is not None:
        return forbidden
    if not event.reason.strip():
        return Kind.REFUSED_REASON
    if not 0 < event.duration_ns <= spec.max_ns:
        return Kind.REFUSED_TIME
    if state.of(event.rule) is not None:
        return Kind.REFUSED_TWICE
    return Kind.REFUSED_MANY if len(state.entries) >= spec.most else None


def _unwanted(state: BypassState, event: Unwanted) -> tuple[BypassState, tuple[Effect, ...]]:
    kept = tuple(entry for entry in state.entries if entry.rule != event.rule)
    kind = Kind.REFUSED_NONE if len(kept) == len(state.entries) else Kind.ENDED
    return BypassState(kept), (Effect(kind, event.rule),)


def _left(spec: BypassSpec, state: BypassState, event: Passed | ModeChanged) -> tuple[BypassState, tuple[Effect, ...]]:
    if not state.entries:
        return state, ()
    mode = event.mode if isinstance(event, Passed) else NO_MODE
    kept = tuple(entry for entry in state.entries if _stays(spec, entry, mode))
    gone = tuple(Effect(Kind.MODE_LEFT, entry.rule) for entry in state.entries if entry not in kept)
    return BypassState(kept), gone


def _stays(spec: BypassSpec, entry: Entry, mode: str) -> bool:
    policy = spec.policy(entry.rule)
    return policy is not None and allowed(policy, mode) is None


def deadline_ns(state: BypassState) -> int | None:
    """When the next bypass ends by itself."""
    return min((entry.until_ns for entry in state.entries), default=None)
