"""What both targets share of the safety controller's surroundings: its IOC with a hook, its rules at a pace, the rack's
first fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from channels.command_server import CommandVerifier
from facility import signals as g
from facility.timebase import Clock
from interlocks.controller import SafetyController
from interlocks.ioc import SafetyIoc
from interlocks.model import CONSOLE_INPUT, CONTROL_INPUT, LinkSettings, Rule
from interlocks.process_image import MAX_OTHERS, NO_FAULT, FastFault, OtherFault
from interlocks.rules import RuleSet
from ioc_sim.plant import Plant

WALL_WATCHDOG_MS = 100.0
"""Watchdog of the safety link over real sockets, wall time: a busy laptop loses some 10 ms now and then."""
WALL_MAX_AGE_MS = 100.0
WALL_BEAT_MS = 200.0
"""Longest silence of a heartbeat of the rack, wall time."""
_SILENCES = frozenset({CONSOLE_INPUT, CONTROL_INPUT})


class HookedSafetyIoc(SafetyIoc):
    """A safety IOC that says when a client has done something to the controller."""

    def __init__(
        self, prefix: str, controller: SafetyController, verifier: CommandVerifier, clock: Clock,
        touched: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(prefix, controller, verifier, clock)
        self._touched = touched

    def on_keep_alive(self, frame: bytes) -> None:
        """See SafetyIoc."""
        super().on_keep_alive(frame)
        self._touched()

    def on_lines(self, frame: bytes) -> bool:
        """See SafetyIoc; nobody is told of a sign of life that brings nothing new."""
        changed = super().on_lines(frame)
        if changed:
            self._touched()
        return changed

    def on_command(self, frame: bytes) -> None:
        """See SafetyIoc."""
        super().on_command(frame)
        self._touched()


def first_fault(plant: Plant, slip_ns: int = 0) -> FastFault:
    """The first fast rule that latched, and the latest of the others, as the link tells them.

    `slip_ns` is what the plant's time has slipped behind the nominal one, by which the safety controller dates its own
    trips: the order of trips of both tiers is judged in one time.
    """
    index = plant.signals[g.H_FIRST]
    if not (math.isfinite(index) and 0 <= index < len(plant.rule_rows)):
        return NO_FAULT
    rows = plant.rule_rows
    others = sorted((int(i) for i in np.flatnonzero(rows["latched"]) if i != int(index)),
                    key=lambda i: int(rows[i]["t_decision_ns"]))  # fmt: skip
    return FastFault(*_told(rows, int(index), slip_ns),
                     others=tuple(OtherFault(*_told(rows, i, slip_ns)) for i in others[-MAX_OTHERS:]))  # fmt: skip


def _told(rows: Any, i: int, slip_ns: int) -> tuple[int, float, float, int]:
    row = rows[i]
    return i, float(row["bad_value"]), float(row["bad_limit"]), int(row["t_condition_ns"]) + slip_ns


def paced_rules(rules: RuleSet, speed: float) -> RuleSet:
    """The rules for a plant paced by the wall clock at a speed factor.

    Watchdogs guard processes and wires, which live in wall time: their limits are set in wall time here and written
    down in facility time, which runs `speed` times as fast. Every other limit stays as it is in the file.
    """
    link = LinkSettings(
        period_ms=rules.link.period_ms,
        scan_ms=rules.link.scan_ms,
        latency_ms=rules.link.latency_ms,
        watchdog_ms=WALL_WATCHDOG_MS * speed,
        max_age_ms=WALL_MAX_AGE_MS * speed,
    )
    return replace(rules, rules=tuple(_paced(rule, speed) for rule in rules.rules), link=link)


def _paced(rule: Rule, speed: float) -> Rule:
    if rule.kind == "beat" and rule.high is not None:
        return rule.model_copy(update={"high": max(rule.high, WALL_BEAT_MS * speed)})
    if not _SILENCES.isdisjoint(rule.inputs) and rule.high is not None:
        return rule.model_copy(update={"high": rule.high * speed})
    return rule
