"""Every rule by itself: good inputs leave it alone, unknown ones trip it, and it does what its class says."""

from __future__ import annotations

import math

import numpy as np

from facility.signals import INDEX, N_SIGNALS
from interlocks import evaluator, fast, latch
from interlocks.evaluator import INPUT_PLACE
from interlocks.model import Rule
from interlocks.process_image import RESOLUTION
from interlocks.rules import RuleSet, compile_fast
from rig.proof.explore import Found, Verdict
from rig.proof.plain import plain

NAME = "rules"
_evaluate = plain(fast.evaluate)
_TICK_NS = 10_000


def check(rules: RuleSet) -> Found:
    """Each rule of the set, evaluated by the evaluator of its tier on inputs that are no numbers."""
    verdicts = []
    steps = 0
    for rule in rules.rules:
        holds, ticks = _fast_trips(rule) if rule.tier == "H" else _slow_trips(rule)
        steps += ticks
        verdicts.append(Verdict(f"{rule.id} trips on an unknown input", holds, ("its inputs are no number",)))
    words = "every rule of the file by itself, its inputs unknown"
    return Found(NAME, words, len(rules.rules), steps, tuple(verdicts))


def _fast_trips(rule: Rule) -> tuple[bool, int]:
    """The compiled rule on NaN for as long as its debounce asks, and a tick more."""
    compiled = compile_fast((rule,))
    rows, latched = compiled.rows, fast.new_latch()
    signals = np.ones(N_SIGNALS)
    for name in rule.inputs:
        signals[INDEX[name]] = math.nan
    ticks = round(rule.debounce_us / fast.TICK_US) + 2
    history, history_state = fast.new_history(len(compiled.hist_index))
    action = 0
    with np.errstate(invalid="ignore"):
        for tick in range(1, ticks + 1):
            action = _evaluate(
                rows, *fast.new_screen(rows), fast.new_seen(N_SIGNALS), signals, history, history_state,
                compiled.hist_index, latched, tick * _TICK_NS, 1, True,
            )  # fmt: skip
    return action == rule.strength and bool(rows[0]["latched"]) == rule.latches, ticks


def _slow_trips(rule: Rule) -> tuple[bool, int]:
    """The interpreter on NaN, and the latch with what it says."""
    places = tuple(INPUT_PLACE[name] for name in rule.inputs)
    inputs = [1.0] * (len(RESOLUTION) + len(INPUT_PLACE))
    for place in places:
        inputs[place] = math.nan
    found = evaluator.judge(evaluator.probe_at(rule, places), inputs, math.nan)
    spec = latch.spec_of(rule)
    state, _ = latch.step(spec, latch.LatchState(), latch.Observed(True, 0.0, 0.0), 0)
    for t_ns in (1, 1 + spec.debounce_ns):
        state, _ = latch.step(spec, state, latch.Observed(found.good, found.value, found.limit), t_ns)
    in_force = latch.in_force(spec, state) == rule.strength
    return not found.good and in_force and state.latched == rule.latches, 3
