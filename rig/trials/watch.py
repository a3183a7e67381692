"""When a rule's condition holds on the signals, and when the decision falls, seen from outside of any evaluator.

The plant is run in steps of one tick (tier H) or one millisecond (tier P, whose image is made so often) and the signals
are compared here, with the rule as the file has it and with code of its own: what the compiled evaluator and the safety
controller make of them is what is being tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from facility.constants import TICK_NS
from facility.errors import InternalError
from facility.signals import INDEX, SIGNALS
from interlocks.model import Rule
from ioc_sim.plant import Plant
from rig.virtual_world import World

DIGITS = 12
"""Of a value of the process image: more than 32 bits have, fewer than show how it was computed."""
MS_NS = 1_000_000
OwnInputs = Mapping[str, Callable[[int], float]]
"""Inputs that the safety controller knows by itself, as functions of facility time, ns."""


def holds(rule: Rule, a: float, b: float, values: list[float]) -> bool:
    """Whether what the rule wants is so; `a` and `b` are increments where the rule has a window."""
    match rule.kind:
        case "digital":
            return all(value == rule.expected for value in values)
        case "either":
            return all(math.isfinite(v) for v in values) and any(value == rule.expected for value in values)
        case "limit" | "window":
            above = rule.low is None or a >= rule.low
            below = rule.high is None or a <= rule.high
            return math.isfinite(a) and above and below
        case "excess":
            return a <= (rule.relative or 0.0) * b + (rule.high or 0.0) and math.isfinite(a)
        case "equal":
            return a == b and math.isfinite(a)
        case "mismatch":
            allowed = (rule.high or 0.0) + (rule.relative or 0.0) * max(abs(a), abs(b))
            return abs(a - b) <= allowed and math.isfinite(a) and math.isfinite(b)
    raise InternalError("trials.kind", f"no comparison for kind {rule.kind!r}", rule.id)


def carried(value: float, resolution: float) -> float:
    """What arrives of a value in the process image: it travels in steps of its resolution, and NaN beyond 32 bits.

    A value less than half a step beyond a limit is not beyond it for who reads the image.
    """
    steps = value / resolution if resolution else math.nan
    if not abs(steps) <= 2**31 - 1:
        return math.nan
    return float(f"{round(steps) * resolution:.{DIGITS}g}")


class ConditionWatch:
    """Looks at one rule from `start` on; `condition_ns` is when its condition, with window and debounce, holds first.

    Args:
        world: the facility.
        rule: what is looked at.
        cause_ns: when the cause begins; what holds before is no effect of it.
        own: inputs that are no signals.
    """

    def __init__(self, world: World, rule: Rule, cause_ns: int, own: OwnInputs) -> None:
        self.condition_ns: int | None = None
        self.present_ns: int | None = None
        """Tier H: the first tick at whose end the rack says that the rule is present."""
        self.applies_ns: int | None = None
        """The beginning of the first step since the cause at whose end the rule applies, without a break until now."""
        self.early = False
        """The condition held already when the cause began."""
        self._world = world
        self._rule = rule
        self._cause_ns = cause_ns
        self._own = own
        self._fast = rule.tier == "H"
        self._windowed = rule.kind in ("window", "mismatch") and rule.window_us > 0.0
        self._row = world.plant.rule_ids.index(rule.id) if self._fast else -1
        self._history: list[tuple[float, float]] = []
        self._bad_since_ns: int | None = None
        self._last = math.nan
        self._changed_ns = 0
        self._seen_ns = -1
        self._tried_ns = -1

    def start(self) -> None:
        """From now on."""
        plant = self._world.plant
        self._history = _past(plant, self._rule) if self._windowed else []
        run_on = plant.advance

        def step_and_look(until_ns: int) -> int:
            if self._done():
                return run_on(until_ns)
            begin_ns = plant.t_ns
            # without beam the plant steps by milliseconds, but it may turn to ticks at the beginning of any of them
            ticking = self._fast and (plant._state[0].fine == 1 or self._tried_ns != begin_ns)
            self._tried_ns = begin_ns
            step = TICK_NS if ticking else MS_NS
            reached_ns = run_on(min(until_ns, max(plant._now_ns, (begin_ns // step + 1) * step)))
            self._look()
            return reached_ns

        plant.advance = step_and_look  # type: ignore[method-assign]

    def _done(self) -> bool:
        return self.condition_ns is not None and (self.present_ns is not None or not self._fast)

    def _look(self) -> None:
        t_ns = self._world.plant.t_ns
        if self._done() or t_ns == self._seen_ns or not (self._fast or t_ns % MS_NS == 0):
            return
        self._seen_ns = t_ns
        bad = not self._good(t_ns)
        if self._fast and self.present_ns is None and t_ns > self._cause_ns - TICK_NS:
            row = self._world.plant.rule_rows[self._row]
            self.present_ns = t_ns if row["present"] != 0 or row["latched"] != 0 else None
        if not bad:
            self._bad_since_ns = None
            return
        self._bad_since_ns = t_ns if self._bad_since_ns is None else self._bad_since_ns
        held_ns = t_ns - self._bad_since_ns + (self._step_ns() if self._fast else 0)
        if held_ns >= round(self._rule.debounce_us * 1000.0) and self.condition_ns is None:
            self.condition_ns = t_ns
            self.early = t_ns <= self._cause_ns - TICK_NS

    def _step_ns(self) -> int:
        """How long the rack's last step was: without beam it judges a millisecond at once."""
        return TICK_NS if self._world.plant._state[0].fine == 1 else MS_NS

    def _value(self, name: str, t_ns: int) -> float:
        own = self._own.get(name)
        if own is not None:
            return own(t_ns)
        value = float(self._world.plant.signals[INDEX[name]])
        return value if self._fast else carried(value, SIGNALS[INDEX[name]].resolution)

    def _good(self, t_ns: int) -> bool:
        rule = self._rule
        values = [self._value(name, t_ns) for name in rule.inputs]
        a, b = values[0], values[-1]
        applies = rule.when is None or self._value(rule.when, t_ns) != 0.0
        if not applies and self.condition_ns is None:
            self.applies_ns = None  # a spot may end, and the next one settle, before the cause has shown
        if rule.when and applies and self.applies_ns is None and t_ns > self._cause_ns - TICK_NS:
            self.applies_ns = t_ns - (TICK_NS if self._fast else MS_NS)
        if rule.kind in ("stale", "beat"):
            return self._lives(a, applies, t_ns)
        if self._windowed:
            a, b = self._increments(a, b)
        return not applies or holds(rule, a, b, values)

    def _lives(self, count: float, applies: bool, t_ns: int) -> bool:
        limit_ns = round(
            self._rule.window_us * 1000.0 if self._rule.kind == "stale" else (self._rule.high or 0.0) * 1e6
        )
        if count != self._last or not applies:
            self._changed_ns = t_ns
        self._last = count
        return not applies or t_ns - self._changed_ns <= limit_ns

    def _increments(self, a: float, b: float) -> tuple[float, float]:
        if self._world.plant._state[0].fine != 1:
            self._history.clear()
            return a - a, b - b
        self._history.append((a, b))
        back = min(round(self._rule.window_us * 1000.0 / TICK_NS), len(self._history) - 1)
        old_a, old_b = self._history[-1 - back]
        return a - old_a, b - old_b


def _past(plant: Plant, rule: Rule) -> list[tuple[float, float]]:
    """The rule's signals in the ticks before now, oldest first, as far back as the rack has written them down."""
    columns = [list(plant._hist_index).index(INDEX[name]) for name in (rule.inputs[0], rule.inputs[-1])]
    place, length = (int(v) for v in plant._hist_state)
    if plant._state[0].fine != 1:
        return []
    at = np.arange(place - length + 1, place + 1) % len(plant._hist)
    kept = plant._hist[at][:, columns]
    return [(float(a), float(b)) for a, b in kept]
