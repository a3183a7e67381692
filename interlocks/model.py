"""What a rule is: the typed form of one entry of `configs/interlocks.toml`, and what makes it consistent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from facility.config.base import NonNegative, Positive, Section, Text
from facility.signals import IMAGE, INDEX, SIGNALS
from facility.states import Action
from interlocks.fast import HIST_LEN, TICK_US
from interlocks.own_inputs import CONTROL_INPUT, LINE_INPUTS, OWN_INPUTS

Kind = Literal["digital", "limit", "window", "excess", "equal", "mismatch", "either", "stale", "beat"]
Tier = Literal["H", "P", "T"]
ActionName = Literal["INHIBIT", "HOLD", "PAUSE", "ABORT"]
Role = Literal["none", "operator", "physicist"]
Bypass = Literal["never", "clinical", "qa", "service"]
"""The strictest mode in which a rule may be bypassed: there and in those that `MODES` names after it."""
MODES: tuple[str, ...] = ("clinical", "qa", "service")
"""Operating modes, the strictest first."""
MODE_CODES: dict[str, int] = {mode: code for code, mode in enumerate(MODES, start=1)}
"""What both banks of the key switch read in each position; 0 is a key between two positions or a broken wire."""
Chain = Literal["personnel", "patient", "machine"]
"""Whom a rule protects: people outside of the patient's place, the patient, the machine."""
RuleId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}$")]

IMAGE_NAMES: frozenset[str] = frozenset(SIGNALS[i].name for i in IMAGE)

LONGEST_US = 10_000_000.0
"""A rule that stays bad for longer than this before it acts protects from nothing."""
BEAT_MS = 1.0
"""A heartbeat rises by one in this time."""
BEAT_MODULUS = 1 << 20

_ARITY: dict[str, tuple[int, int]] = {
    "digital": (1, 4),
    "limit": (1, 1),
    "window": (1, 1),
    "excess": (2, 2),
    "equal": (2, 2),
    "mismatch": (2, 2),
    "either": (2, 2),
    "stale": (1, 1),
    "beat": (1, 1),
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "digital": ("equals",),
    "limit": (),
    "window": ("window_us",),
    "excess": ("relative", "high"),
    "equal": (),
    "mismatch": ("high",),
    "either": ("equals",),
    "stale": ("window_us",),
    "beat": ("high",),
}
_TAKES: dict[str, frozenset[str]] = {
    "digital": frozenset({"equals"}),
    "limit": frozenset({"low", "high"}),
    "window": frozenset({"low", "high", "window_us"}),
    "excess": frozenset({"relative", "high"}),
    "equal": frozenset(),
    "mismatch": frozenset({"relative", "high", "window_us"}),
    "either": frozenset({"equals"}),
    "stale": frozenset({"window_us"}),
    "beat": frozenset({"high"}),
}
_ONLY_TIER: dict[str, str] = {"window": "H", "stale": "H", "beat": "P"}


class LinkSettings(Section):
    """Time behaviour of the safety link and the scan; the bound of P rules follows from it."""

    period_ms: Positive
    scan_ms: Positive
    latency_ms: NonNegative
    watchdog_ms: Positive
    max_age_ms: Positive


class PolicySettings(Section):
    """How often something may happen in a field, and what a bypass may be at most."""

    max_holds: Annotated[int, Field(ge=0)] = 20
    """Times a HOLD rule may hold a field and let it go by itself, where the rule says nothing else."""
    max_pauses: Annotated[int, Field(ge=0)] = 5
    """Interruptions of the permit in a field; one more terminates it."""
    max_bypass_s: Positive = 3600.0
    max_bypasses: Annotated[int, Field(ge=0)] = 3
    """Bypasses in force at once."""


class Rule(Section):
    """One interlock."""

    id: RuleId
    title: Text
    hazard: Text
    remedy: Text | None = None
    """What a person does about it, where the cause does not go by itself."""
    inputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=4)]
    when: str | None = None
    kind: Kind
    low: float | None = None
    high: float | None = None
    relative: float | None = None
    equals: float | Literal["room"] | None = None
    unit: Annotated[str, Field(min_length=1, max_length=7)]
    window_us: NonNegative = 0.0
    debounce_us: Annotated[NonNegative, Field(le=LONGEST_US)] = 0.0
    input_delay_us: NonNegative = 0.0
    """How late the cause shows in the inputs: drift, strip window, publishing, watchdog."""
    tier: Tier
    chain: Chain = "patient"
    action: ActionName
    latching: bool = True
    """Only asked of ABORT and PAUSE; HOLD and INHIBIT never latch."""
    standing: bool = False
    """Without a permit and a field under way its presence withholds the permit and is no trip: a room is opened, a
    console is left, every day.  Only asked of rules that latch, tiers P and T."""
    max_holds: Annotated[int, Field(ge=0)] | None = None
    """HOLD only: how often in a field it may hold and let go by itself; None: `[policy] max_holds`."""
    reset: Role
    bypass: Bypass
    critical: bool = False
    """Never bypassed in clinical mode (domain 2.3: 1 to 6, 8, 9, 22, 25), whatever `bypass` says."""
    citation: Text
    sigma: Text

    @property
    def strength(self) -> Action:
        """The action as a number that compares."""
        return Action[self.action]

    @property
    def latches(self) -> bool:
        """Stays in force when the condition has gone, until a person resets it."""
        return self.latching and self.strength >= Action.PAUSE

    @property
    def is_echo(self) -> bool:
        """A fast rule that repeats what the safety controller says: it looks at its lines."""
        return self.tier == "H" and self.inputs[0].startswith("p.")

    @property
    def expected(self) -> float:
        """`equals` as a number; 0 where the kind has none. The room's index has been put in by then."""
        return self.equals if isinstance(self.equals, float) else 0.0


class Problem(NamedTuple):
    """What is wrong with a rule: key, and what would be right."""

    key: str
    text: str


def problems(rule: Rule) -> Iterator[Problem]:
    """Contradictions within one rule whose keys are valid one by one."""
    yield from _inputs(rule)
    yield from _limits(rule)
    yield from _times(rule)
    yield from _consequence(rule)


def _inputs(rule: Rule) -> Iterator[Problem]:
    least, most = _ARITY[rule.kind]
    if rule.kind == "digital" and rule.tier == "H":
        most = 1
    if not least <= len(rule.inputs) <= most:
        yield Problem("inputs", f"kind {rule.kind!r} in tier {rule.tier} takes {least} to {most} inputs")
    if len(set(rule.inputs)) < len(rule.inputs):
        yield Problem("inputs", "a signal is named twice: a rule that compares it with itself is always good")
    named = [("inputs", name) for name in rule.inputs]
    if rule.when is not None:
        named.append(("when", rule.when))
    for key, name in named:
        if rule.tier != "H" and name in OWN_INPUTS:
            continue
        if name not in INDEX:
            yield Problem(key, f"no signal {name!r}; see facility/signals.py")
        elif rule.tier != "H" and name not in IMAGE_NAMES:
            yield Problem(key, f"{name!r} is not in the process image, so tier {rule.tier} cannot see it")
    if rule.tier == "T" and not all(name in (CONTROL_INPUT, *LINE_INPUTS) for name in rule.inputs):
        yield Problem("inputs", f"tier T judges what control vouches for: {CONTROL_INPUT}, {', '.join(LINE_INPUTS)}")
    yield from _unit(rule)


def _unit(rule: Rule) -> Iterator[Problem]:
    if rule.kind == "beat":
        if rule.unit != "ms":
            yield Problem("unit", "a beat is compared in ms")
        return
    for name in rule.inputs:
        unit = SIGNALS[INDEX[name]].unit if name in INDEX else OWN_INPUTS.get(name, rule.unit)
        if unit != rule.unit:
            yield Problem("unit", f"{name!r} is in {unit!r}")


def _limits(rule: Rule) -> Iterator[Problem]:
    takes = _TAKES[rule.kind]
    for key in ("low", "high", "relative", "equals"):
        if getattr(rule, key) is not None and key not in takes:
            yield Problem(key, f"kind {rule.kind!r} does not take it")
    if rule.window_us > 0.0 and "window_us" not in takes:
        yield Problem("window_us", f"kind {rule.kind!r} does not take it")
    for key in _NEEDS[rule.kind]:
        if getattr(rule, key) is None or (key == "window_us" and rule.window_us == 0.0):
            yield Problem(key, f"kind {rule.kind!r} needs it")
    if rule.kind in ("limit", "window"):
        if rule.low is None and rule.high is None:
            yield Problem("high", f"kind {rule.kind!r} needs low, high or both")
        if rule.low is not None and rule.high is not None and rule.low > rule.high:
            yield Problem("low", "must not lie above high")
    if rule.kind in ("mismatch", "beat") and rule.high is not None and rule.high < 0.0:
        yield Problem("high", "must not be negative")
    if rule.relative is not None and rule.relative < 0.0:
        yield Problem("relative", "must not be negative")


def _times(rule: Rule) -> Iterator[Problem]:
    if rule.kind in _ONLY_TIER and rule.tier != _ONLY_TIER[rule.kind]:
        yield Problem("kind", f"{rule.kind!r} exists in tier {_ONLY_TIER[rule.kind]} only")
    if rule.tier != "H" and rule.kind == "mismatch" and rule.window_us > 0.0:
        yield Problem("window_us", f"tier {rule.tier} has no history")
    if rule.tier == "H":
        for key in ("window_us", "debounce_us"):
            if getattr(rule, key) % TICK_US != 0.0:
                yield Problem(key, f"must be a multiple of the tick, {TICK_US:g} us")
    longest = (HIST_LEN - 1) * TICK_US
    if rule.kind != "stale" and rule.window_us > longest:
        yield Problem("window_us", f"the history reaches back {longest:g} us")


def _consequence(rule: Rule) -> Iterator[Problem]:
    if rule.chain == "personnel" and (rule.tier != "P" or rule.bypass != "never"):
        yield Problem("chain", "a rule of the personnel chain is of tier P and never bypassed")
    if not rule.latches:
        if rule.reset != "none":
            yield Problem("reset", f"{rule.action} that does not latch has nothing to reset: give 'none'")
    elif rule.reset == "none":
        yield Problem("reset", f"{rule.action} latches: give 'operator' or 'physicist'")
    elif rule.strength == Action.ABORT and rule.reset != "physicist":
        yield Problem("reset", "ABORT is reset by a physicist")
    if rule.standing and (rule.tier == "H" or not rule.latches):
        yield Problem("standing", "only a rule of tier P or T that latches can stand without tripping")
    if rule.max_holds is not None and rule.strength != Action.HOLD:
        yield Problem("max_holds", "only HOLD resumes by itself")
    if rule.critical and rule.bypass == MODES[0]:
        yield Problem("bypass", "a critical rule has no bypass in clinical mode")
