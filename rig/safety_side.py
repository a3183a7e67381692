"""What both targets share of the safety controller's surroundings: its IOC with a hook, the rack's first fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog

from channels.command_server import CommandVerifier
from facility import signals as g
from facility.config import Facility
from facility.timebase import Clock
from interlocks.controller import SafetyController
from interlocks.ioc import HEARTBEAT_NS, VALUES_NS, SafetyIoc
from interlocks.link import RackEnd, SafetyEnd
from interlocks.process_image import MAX_OTHERS, NO_FAULT, FastFault, OtherFault
from interlocks.rules import RuleSet
from ioc_sim.plant import Plant

_log = structlog.get_logger(__name__)


def link_name(facility: Facility, rules: RuleSet) -> str:
    """What both ends of the safety link must have in common: the facility, and the rules, whose places in the file are
    the bits of the masks that travel."""
    return f"{facility.hash} {rules.hash}"


def carry_out(end: RackEnd, plant: Plant) -> None:
    """Do what the frames that a rack has heard ask of its plant once: a reset of fast latches, a step of a proof."""
    mask = end.take_reset()
    if mask:
        plant.reset_fast(mask)
    asked = end.take_proof()
    if asked is not None:
        plant.prove(*asked)


def tell_trip(end: RackEnd | SafetyEnd, before: int) -> None:
    """Log why an end of the link has tripped, if it has since it had tripped `before` times."""
    if end.trips != before:
        _log.warning("link tripped", cause=end.trip_cause, bad_frames=end.bad_frames)


class HookedSafetyIoc(SafetyIoc):
    """A safety IOC that says when a client has done something to the controller.

    `touched` is told of it; `heard` before that, also of a sign of life that brings nothing new.
    """

    def __init__(
        self, prefix: str, controller: SafetyController, verifier: CommandVerifier, clock: Clock,
        touched: Callable[[], None], heartbeat_ns: int = HEARTBEAT_NS, values_ns: int = VALUES_NS,
        heard: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(prefix, controller, verifier, clock, heartbeat_ns, values_ns)
        self._touched = touched
        self._heard = heard or (lambda: None)

    def on_keep_alive(self, frame: bytes) -> None:
        """See SafetyIoc."""
        super().on_keep_alive(frame)
        self._heard()
        self._touched()

    def on_lines(self, frame: bytes) -> bool:
        """See SafetyIoc."""
        changed = super().on_lines(frame)
        self._heard()
        if changed:
            self._touched()
        return changed

    def on_command(self, frame: bytes) -> None:
        """See SafetyIoc."""
        super().on_command(frame)
        self._heard()
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
