"""The rules of real processes: those of the file, with what guards processes and wires written in wall time."""

from __future__ import annotations

from dataclasses import replace

from interlocks.model import LinkSettings, Rule
from interlocks.own_inputs import CONSOLE_INPUT, CONTROL_INPUT, LINK_INPUT
from interlocks.rules import RuleSet

WALL_WATCHDOG_MS = 100.0
"""Watchdog of the safety link over real sockets, wall time: a busy laptop loses some 10 ms now and then."""
WALL_MAX_AGE_MS = 100.0
WALL_BEAT_MS = 200.0
"""Longest silence of a heartbeat of the rack, wall time."""
_SILENCES = frozenset({CONSOLE_INPUT, CONTROL_INPUT})
_LINKS = frozenset({LINK_INPUT, "link.p_ok"})


def paced_rules(rules: RuleSet, speed: float) -> RuleSet:
    """The rules for a plant paced by the wall clock at a speed factor.

    Watchdogs guard processes and wires, which live in wall time: their limits are set in wall time here and written
    down in facility time, which runs `speed` times as fast, and so is the delay with which a dead link shows. Every
    other limit stays as it is in the file.
    """
    longer_us = 1000.0 * (WALL_WATCHDOG_MS * speed - rules.link.watchdog_ms)
    link = LinkSettings(
        period_ms=rules.link.period_ms,
        scan_ms=rules.link.scan_ms,
        latency_ms=rules.link.latency_ms,
        watchdog_ms=WALL_WATCHDOG_MS * speed,
        max_age_ms=WALL_MAX_AGE_MS * speed,
    )
    return replace(rules, rules=tuple(_paced(rule, speed, longer_us) for rule in rules.rules), link=link)


def _paced(rule: Rule, speed: float, longer_us: float) -> Rule:
    if not _LINKS.isdisjoint(rule.inputs):
        return rule.model_copy(update={"input_delay_us": rule.input_delay_us + longer_us})
    if rule.kind == "beat" and rule.high is not None:
        return rule.model_copy(update={"high": max(rule.high, WALL_BEAT_MS * speed)})
    if not _SILENCES.isdisjoint(rule.inputs) and rule.high is not None:
        return rule.model_copy(update={"high": rule.high * speed})
    return rule
