"""What has to hold in every run whatever went wrong, judged by raw ticks, event log, register and record.

Truth is recomputed from ticks; the plant's own sums, control's record and the monitors stand beside it. Each invariant
is a generator of objections in words; another witness (a journal) is another generator in `INVARIANTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from control.layer_machine import DELIVERING, State
from control.layer_table import COLUMN
from control.plan.program import LayerProgram
from facility.events import Event
from facility.pv_catalogue import TCS_STATES
from facility.states import Action, FrontEndState
from facility.timebase import BEAM_TICK_NS, NS_PER_MS
from interlocks.explain import bound
from ioc_sim.layout import FLAG_DEMAND, FLAG_PERMIT, FLAG_STATE_SHIFT
from rig.campaign.mishaps import Mishaps, touched
from rig.campaign.operator import Attendance
from rig.campaign.ticks import Records
from rig.trials.bench import Bench
from rig.trials.truth import DRIVE_MAX, ions_at_most
from rig.truth_check import T_IONS, spot_truth
from rig.virtual_world import World, WorldParts

MEASURING = ("ic1.", "ic2.", "gas.", "layer.", "field.", "fe.", "timer.", "backup.")
"""Fault points by which a dose is measured or counted: with one of them failed the monitors may be wrong until a rule
has seen it, and the dose is held to what that rule allows instead of the tolerance of a spot."""
ENDING = ("rfko.", "chopper.", "quad.", "dump.", "spill.", "beam.", "ring.", "fe.", "h.")
"""Fault points by which beam is made and ended: with one of them failed more may come after a decision."""
FROZEN = ("fe.", "h.")
"""A tier of the rack that hangs shows what it showed: beam-off devices act without it, on the other tier's word."""
AFTER_NS = 2 * NS_PER_MS
"""After the permit has gone: every beam-off device is done, and so is the slowest tail."""
SLACK_US = 5_000.0
SEEN_US = 300_000.0
"""A fault of no rule's own that falsifies a dose by more than the rules allow is seen within this."""
ALTERED = ("plan-altered", "fault/process/control/memory")
LINKS = ("fault/link/", "fault/process/")
RECORD_REL = 0.01
"""The record is what the first chamber says: gain, noise and rounding are within this."""
REACTION_US = 130.0
"""From a decision to beam off with sound devices: what an interruption may add to the spot it falls into."""
NAMED_NS = 50 * NS_PER_MS
"""After a trip control writes its name down so soon."""
_GO_ON = frozenset({"START", "RESUME", "RESELECT"})
_QUIET = frozenset({State.COMPLETED, State.TERMINATED, State.INTERRUPTED, State.STANDBY, State.LOADED, State.PREPARED,
                    State.READY})  # fmt: skip


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
        return tuple(_spots(self))

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


def failures(evidence: Evidence) -> Iterator[str]:
    """Every objection."""
    if evidence.broken:
        yield evidence.broken
    for invariant in INVARIANTS:
        yield from invariant(evidence)


def tolerances(bench: Bench) -> tuple[np.ndarray, ...]:
    """What a spot may differ by, ions, by layer."""
    return tuple(spot_truth(layer, None, bench.facility).tolerance_ions for layer in bench.program.layers)


def _spots(evidence: Evidence) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    truth, facility = evidence.truth[0], evidence.bench.facility
    for layer, tolerance in zip(evidence.bench.program.layers, evidence.tolerances, strict=True):
        reaction = ions_at_most(REACTION_US, layer.intensity_ions_per_s, 1.0, facility)
        allowed = tolerance + evidence.extra_ions + reaction * evidence.cuts(layer)
        yield truth[layer.token] - layer.target_ions, allowed


def surplus(evidence: Evidence) -> tuple[float, float]:
    """Of the spot that got most too much: ions, and % of its layer's heaviest."""
    worst = (0.0, 0.0)
    for index, (over, _) in enumerate(evidence.spots):
        heaviest = float(evidence.bench.program.layers[index].target_ions.max())
        worst = max(worst, (float(over.max()), 100.0 * float(over.max()) / heaviest))
    return worst


def dose(evidence: Evidence) -> Iterator[str]:
    """No spot gets more than planned, however often the field was interrupted; a complete field gives each its own."""
    for index, (over, allowed) in enumerate(evidence.spots):
        wrong = over > allowed
        if evidence.state is State.COMPLETED:
            wrong |= over < -allowed
        for spot in np.flatnonzero(wrong)[:3]:
            target = evidence.bench.program.layers[index].target_ions[spot]
            yield (
                f"dose: layer {index} spot {spot} got {target + over[spot]:.0f} ions, planned {target:.0f} "
                f"+- {allowed[spot]:.0f}"
            )
    strays = evidence.truth[1]
    if strays > evidence.extra_ions:
        yield f"dose: {strays} ions crossed with no spot set"


def demand_implies_permit(evidence: Evidence) -> Iterator[str]:
    """In no tick does the front end ask for beam without a permit; soon after the permit has gone no ion comes."""
    flags, t_ns, ions, demand = (*(evidence.ticks[name] for name in ("flags", "t_ns", "ions")), evidence.demand)
    if any(point.startswith(FROZEN) for point in evidence.failed):
        return
    permit = flags & (1 << FLAG_PERMIT) != 0
    wrong = np.flatnonzero(demand & ~permit)
    if wrong.size:
        yield f"permit: beam asked for in {wrong.size} ticks without a permit, first at {t_ns[wrong[0]]} ns"
    if any(point.startswith(ENDING) for point in evidence.failed):
        return
    unwanted = np.flatnonzero((ions > 0) & ~permit)
    held = np.flatnonzero(permit)
    before = np.searchsorted(held, unwanted) - 1
    last_ns = np.where(before >= 0, t_ns[held[before]], 0) if held.size else np.zeros(unwanted.size)
    late = unwanted[t_ns[unwanted] - last_ns > AFTER_NS]
    if late.size:
        yield f"permit: {ions[late].sum()} ions later than 2 ms after the permit had gone, first at {t_ns[late[0]]} ns"


def latched(evidence: Evidence) -> Iterator[str]:
    """What has tripped stays latched until somebody resets it; no beam and no permit come before."""
    held: dict[str, int] = {}
    for event in evidence.events:
        if event.kind == "interlock.trip" and evidence.bench.rules.rule(str(event.data["id"])).latches:
            held[str(event.data["id"])] = event.t_ns
        elif event.kind == "interlock.cleared":
            held.pop(str(event.data["id"]), None)
        elif event.kind == "permit.released" and held:
            yield f"latch: the permit was given at {event.t_ns} ns with {', '.join(sorted(held))} latched"
        elif event.kind == "beam-on" and held and event.t_ns > max(held.values()) + evidence.late_ns:
            yield f"latch: beam came at {event.t_ns} ns with {', '.join(sorted(held))} latched"
    for rule_id in sorted(set(held) - evidence.world.rules_that_are("latched")):
        yield f"latch: {rule_id} tripped at {held[rule_id]} ns and is not latched, though nobody has reset it"


def goes_on_by_a_person(evidence: Evidence) -> Iterator[str]:
    """After a PAUSE or an ABORT beam is asked for only once somebody has gone on."""
    if any(point.startswith(FROZEN) for point in evidence.failed):
        return
    t_ns, asked = evidence.ticks["t_ns"], evidence.asked_ns
    stopped_ns: int | None = None
    for event in evidence.events:
        if event.kind == "permit.dropped":
            stopped_ns = event.t_ns if stopped_ns is None else stopped_ns
        elif event.kind == "state" and event.data["event"] in _GO_ON and stopped_ns is not None:
            yield from _asked(asked, stopped_ns + evidence.late_ns, event.t_ns)
            stopped_ns = None
    if stopped_ns is not None:
        yield from _asked(asked, stopped_ns + evidence.late_ns, int(t_ns[-1]) if t_ns.size else stopped_ns)


def _asked(asked: np.ndarray, stopped_ns: int, until_ns: int) -> Iterator[str]:
    wrong = asked[(asked > stopped_ns) & (asked < until_ns)]
    if wrong.size:
        yield f"restart: beam asked for at {wrong[0]} ns, no later than {stopped_ns} ns without a person who goes on"


def noticed(evidence: Evidence) -> Iterator[str]:
    """No beam while a cause stands, once the rule that watches for it has had its time."""
    ticks = evidence.ticks
    beam_ns = ticks["t_ns"][evidence.demand & (ticks["ions"] > 0)]
    for one in evidence.mishaps.happened:
        trial = evidence.mishaps.trial(one.cause)
        if (
            trial is None
            or one.begun_ns is None
            or one.problem
            or trial.stop_spot
            or trial.after_beam_ms
            or trial.behind
        ):
            continue
        if not {"spot", "any"} & set(trial.states):
            continue
        rule = evidence.bench.rules.rule(trial.rule)
        if rule.strength < Action.HOLD:
            continue
        promised = bound(rule, evidence.bench.rules, evidence.bench.facility)
        ended_ns = one.ended_ns if one.ended_ns is not None else evidence.world.loop.now_ns()
        beam_us = np.count_nonzero((beam_ns > one.begun_ns) & (beam_ns <= ended_ns)) * BEAM_TICK_NS / 1000.0
        allowed_us = promised.total_us + trial.builds_up_ms * 1000.0 + SLACK_US
        if beam_us > allowed_us:
            yield f"noticed: {beam_us:.0f} us of beam in spite of the cause of {rule.id}, at most {allowed_us:.0f}"


def explained(evidence: Evidence) -> Iterator[str]:
    """Where nothing has failed, whatever people asked for, no rule trips."""
    begun = [one.cause.what for one in evidence.mishaps.happened if one.begun_ns is not None]
    if all(what.startswith("operator/") for what in begun):
        for t_ns, rule_id in evidence.trips[:3]:
            yield f"trip: {rule_id} tripped at {t_ns} ns though nothing had failed"


def agrees(evidence: Evidence) -> Iterator[str]:
    """Register, record and truth say the same of every spot; the plant's own sums are those of its ticks."""
    session = evidence.parts.control.sequencer.session
    truth, _ = evidence.truth
    own = evidence.world.plant.truth_spots()
    for index, layer in enumerate(evidence.bench.program.layers):
        kept = own.get(layer.token)
        sums = np.zeros(layer.n_spots) if kept is None else kept[:, T_IONS]
        if not np.array_equal(sums, truth[layer.token]):
            yield f"truth: the plant's sums of layer {index} are not those of its ticks"
    if session is None or evidence.state in DELIVERING:
        return
    for index, book in enumerate(session.books):
        layer = evidence.bench.program.layers[index]
        allowed = np.maximum(evidence.tolerances[index], RECORD_REL * truth[layer.token]) + evidence.extra_ions
        rows = book.log_rows
        recorded = np.zeros(allowed.size) if rows is None else rows[:, COLUMN["ic1_ions"]]
        apart = np.abs(recorded - truth[book.layer.token])
        worst = int(np.argmax(apart - allowed))
        if apart[worst] > allowed[worst]:
            yield (
                f"record: layer {index} spot {worst} has {recorded[worst]:.0f} ions on record, by truth "
                f"{truth[book.layer.token][worst]:.0f} +- {allowed[worst]:.0f}"
            )


def names(evidence: Evidence) -> Iterator[str]:
    """What took the beam stands in the record under a name that the safety controller has logged; what does not latch
    leaves no name."""
    session = evidence.parts.control.sequencer.session
    for interlock in () if session is None else session.interlocks:
        before = [rule_id for t_ns, rule_id in evidence.trips if 0 <= interlock.t_ns - t_ns <= NAMED_NS]
        if before and interlock.rule not in evidence.tripped:
            yield f"record: {interlock.rule!r} has taken the beam at {interlock.t_ns} ns, {before[-1]} had tripped"


def ends(evidence: Evidence) -> Iterator[str]:
    """Every run ends, or waits for a person; nobody is left running."""
    if evidence.attendance.stuck:
        yield f"stuck: {evidence.attendance.stuck}"
    if evidence.state not in _QUIET:
        yield f"end: control is {evidence.state.name}"
    if evidence.left_behind:
        yield f"tasks: {', '.join(evidence.left_behind)} left running"
    sequencer = evidence.parts.control.sequencer
    record = sequencer.last_summary
    if evidence.state in (State.COMPLETED, State.TERMINATED) and record is None:
        yield "record: the session ended without one"


INVARIANTS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    dose, demand_implies_permit, latched, goes_on_by_a_person, noticed, explained, agrees, names, ends,
)  # fmt: skip
"""All of them; what a journal says of a run will be one more."""
