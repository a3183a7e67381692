"""All that is known of a run when it is over: what its invariants are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from control.layer_machine import State
from control.plan.program import LayerProgram
from facility.events import Event
from facility.pv_catalogue import TCS_STATES
from facility.states import FrontEndState
from facility.timebase import NS_PER_MS
from interlocks.explain import bound
from ioc_sim.layout import FLAG_DEMAND, FLAG_PERMIT, FLAG_STATE_SHIFT
from rig.campaign.mishaps import Mishaps, touched
from rig.campaign.operator import Attendance
from rig.campaign.ticks import Records
from rig.trials.bench import Bench
from rig.trials.truth import DRIVE_MAX, ions_at_most
from rig.virtual_world import World, WorldParts

MEASURING = ("ic1.", "ic2.", "gas.", "layer.", "field.", "fe.", "timer.", "backup.")
"""Fault points by which a dose is measured or counted: with one of them failed the monitors may be wrong until a rule
has seen it, and the dose is held to what that rule allows instead of the tolerance of a spot."""
ENDING = ("rfko.", "chopper.", "quad.", "dump.", "spill.", "beam.", "ring.", "fe.", "h.")
"""Fault points by which beam is made and ended: with one of them failed more may come after a decision."""
AFTER_NS = 2 * NS_PER_MS
"""After the permit has gone: every beam-off device is done, and so is the slowest tail."""
SLACK_US = 5_000.0
SEEN_US = 300_000.0
"""A fault of no rule's own that falsifies a dose by more than the rules allow is seen within this."""
ALTERED = ("plan-altered", "fault/process/control/memory")
LINKS = ("fault/link/", "fault/process/")
REACTION_US = 130.0
"""From a decision to beam off with sound devices: what an interruption may add to the spot it falls into."""


@dataclass
class Evidence:
    """All that is known of a run when it is over."""

    bench: Bench
    world: World
    parts: WorldParts
    ticks: Records
    """From the last one before the run left the trunk."""
    truth: tuple[Mapping[int, np.ndarray], int]
    """Ions by spot from all raw ticks, the trunk's included, by layer token; and those outside of all spots."""
    tolerances: tuple[np.ndarray, ...]
    """Of each spot by layer, ions."""
    mishaps: Mishaps
    attendance: Attendance
    seen: int
    """Events of the trunk that came before."""
    left_behind: list[str]
    """Tasks that run and did not run before."""
    broken: str
    """Why the run did not end; empty: it did."""

    @cached_property
    def events(self) -> list[Event]:
        """Of this run alone."""
        return list(self.world.events.events)[self.seen :]

    @property
    def state(self) -> State:
        """Of control, at the end."""
        return self.parts.control.sequencer.state

    @cached_property
    def demand(self) -> np.ndarray:
        """Whether the front end asks for beam, by tick."""
        return np.asarray(self.ticks["flags"] & (1 << FLAG_DEMAND) != 0)

    @cached_property
    def permit(self) -> np.ndarray:
        """Whether the rack has a permit, by tick."""
        return np.asarray(self.ticks["flags"] & (1 << FLAG_PERMIT) != 0)

    @cached_property
    def asked_ns(self) -> np.ndarray:
        """Ticks in which the front end asks for beam, ns."""
        return np.asarray(self.ticks["t_ns"][self.demand])

    @cached_property
    def trips(self) -> list[tuple[int, str]]:
        """When which rule tripped, by the safety controller's events."""
        return [(e.t_ns, str(e.data["id"])) for e in self.events if e.kind == "interlock.trip"]

    @property
    def tripped(self) -> tuple[str, ...]:
        """Rules, sorted."""
        return tuple(sorted({rule_id for _, rule_id in self.trips}))

    @property
    def cells(self) -> set[str]:
        """Cells of the layer machine's table: taken, and refused."""
        taken = {f"{e.data['from']} {e.data['event']}" for e in self.events if e.kind == "state"}
        names = {"PAUSE": "OPERATOR_PAUSE", "STOP": "OPERATOR_STOP"}
        for what, code in self.mishaps.refused:
            state, verb = what.split(" ")
            if code == "control.state" and state in TCS_STATES:
                taken.add(f"{state} {names.get(verb, verb)}")
        return taken

    @cached_property
    def taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Token and spot of each tick in which an interlock or an operator took the beam."""
        demand = self.demand
        fell = self.ticks[np.flatnonzero(demand[:-1] & ~demand[1:]) + 1]
        fell = fell[(fell["flags"] >> FLAG_STATE_SHIFT) & 0xF != FrontEndState.IRRADIATING]
        return fell["token"], fell["spot"].astype(np.int64)

    def cuts(self, layer: LayerProgram) -> np.ndarray:
        """How often an interlock or an operator took the beam from each spot, or from the one before, shape (n,)."""
        token, spot = self.taken
        spot = spot[token == layer.token]
        where = np.concatenate([spot, spot - 1, spot + 1])
        return np.bincount(where[(where >= 0) & (where < layer.n_spots)], minlength=layer.n_spots).astype(np.float64)

    @cached_property
    def spots(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """By layer: surplus of each spot (signed, ions), and what it may be."""
        truth, facility, found = self.truth[0], self.bench.facility, []
        for layer, tolerance in zip(self.bench.program.layers, self.tolerances, strict=True):
            reaction = ions_at_most(REACTION_US, layer.intensity_ions_per_s, 1.0, facility)
            allowed = tolerance + self.extra_ions + reaction * self.cuts(layer)
            found.append((truth[layer.token] - layer.target_ions, allowed))
        return tuple(found)

    @cached_property
    def late_ns(self) -> int:
        """How much later than decided a permit may fall: as long as the watchdog of a cut link waits."""
        link = self.bench.rules.link
        cut = any(point in ("cut-to-rack", "cut-from-rack") or point.startswith(LINKS) for point in self.failed)
        return AFTER_NS + (round(link.watchdog_ms * NS_PER_MS) if cut else 0)

    @cached_property
    def failed(self) -> frozenset[str]:
        """Every device that failed, and every act that came about."""
        begun = (one.cause.what for one in self.mishaps.happened if one.begun_ns is not None)
        return frozenset(point for what in begun for point in touched(self.bench, what))

    @cached_property
    def extra_ions(self) -> float:
        """What failed monitors and beam-off devices may bring beyond the tolerance of a spot, over the whole run."""
        total, facility, rules = 0.0, self.bench.facility, self.bench.rules
        level = max(layer.intensity_ions_per_s for layer in self.bench.program.layers)
        for one in self.mishaps.happened:
            points = touched(self.bench, one.cause.what)
            measured = any(point.startswith((*MEASURING, *ENDING)) or point in ALTERED for point in points)
            if one.begun_ns is None or not measured:
                continue
            trial = self.mishaps.trial(one.cause)
            if trial is None:
                total += ions_at_most(SEEN_US, level, DRIVE_MAX, facility)
                continue
            promised = bound(rules.rule(trial.rule), rules, facility)
            factor = trial.rate_factor * (DRIVE_MAX if any(point.startswith("ic1.") for point in points) else 1.0)
            duration_us = promised.total_us + trial.builds_up_ms * 1000.0 + SLACK_US
            total += ions_at_most(duration_us, level, factor, facility)
        return total
