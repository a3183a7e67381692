"""What has to hold in every run whatever went wrong, judged by raw ticks, event log, register and record.

Truth is recomputed from ticks; the plant's own sums, control's record and the monitors stand beside it. Each invariant
is a generator of objections in words; another witness (a journal) is another generator in `INVARIANTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from control.layer_machine import DELIVERING, State
from control.layer_table import COLUMN
from control.plan.program import LayerProgram
from facility.states import Action
from facility.timebase import BEAM_TICK_NS, NS_PER_MS
from interlocks.explain import bound
from rig.campaign.evidence import AFTER_NS, ENDING, SLACK_US, Evidence
from rig.campaign.ticks import Records, stretches
from rig.trials.bench import Bench
from rig.truth_check import T_IONS, spot_truth

FROZEN = ("fe.", "h.")
"""A tier of the rack that hangs shows what it showed: beam-off devices act without it, on the other tier's word."""
FAST_TIER, NOTICES_IT = "h.", "fast-tier-alive"
"""While the fast tier hangs its rules see nothing: the beam goes when the other tier has noticed that."""
RECORD_REL = 0.01
"""The record is what the first chamber says: gain, noise and rounding are within this."""
RELAYS = ("relay-", "fault/link/relays/")
"""The permit line itself fails: it comes back when it is mended."""
PLACE_MM = 2.0
"""So far beside its place beam is a hazard, whatever the rules say: the hard limit of position, domain 2.3 no. 9."""
PLACE_US = 1500.0
"""From there to beam off: the strip chamber's window, a decision, the beam-off devices; and half a millisecond."""
PLACE_APART_NS = 2 * NS_PER_MS
_NEARLY_UM = round(PLACE_MM * 1e3) - 2
"""Rounding a planned place to micrometres loses none that is further away than PLACE_MM."""
NAMED_NS = 50 * NS_PER_MS
"""After a trip control writes its name down so soon."""
_GO_ON = frozenset({"START", "RESUME", "RESELECT"})
_QUIET = frozenset({State.COMPLETED, State.TERMINATED, State.INTERRUPTED, State.STANDBY, State.LOADED, State.PREPARED,
                    State.READY})  # fmt: skip


def failures(evidence: Evidence) -> Iterator[str]:
    """Every objection."""
    if evidence.broken:
        yield evidence.broken
    for invariant in INVARIANTS:
        yield from invariant(evidence)


def tolerances(bench: Bench) -> tuple[np.ndarray, ...]:
    """What a spot may differ by, ions, by layer."""
    return tuple(spot_truth(layer, None).tolerance_ions for layer in bench.program.layers)


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
    t_ns, ions, demand, permit = evidence.ticks["t_ns"], evidence.ticks["ions"], evidence.demand, evidence.permit
    if any(point.startswith(FROZEN) for point in evidence.failed):
        return
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
        if rule.tier == "H" and any(point.startswith(FAST_TIER) for point in evidence.failed):
            blind = bound(evidence.bench.rules.rule(NOTICES_IT), evidence.bench.rules, evidence.bench.facility)
            allowed_us += blind.total_us
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


def placed(evidence: Evidence) -> Iterator[str]:
    """Beam beside the spot that is set lasts no longer than it takes to notice it."""
    layers = evidence.bench.program.layers
    ticks = evidence.ticks[_perhaps_beside(evidence.ticks, layers)]
    for index, layer in enumerate(layers):
        mine = ticks[(ticks["token"] == layer.token) & (ticks["spot"] >= 0) & (ticks["spot"] < layer.n_spots)]
        x_mm, y_mm = layer.x_mm[mine["spot"]], layer.y_mm[mine["spot"]]
        off_mm = np.maximum(np.abs(mine["x_um"] / 1e3 - x_mm), np.abs(mine["y_um"] / 1e3 - y_mm))
        t_ns = mine["t_ns"][off_mm > PLACE_MM]
        for stretch in np.split(t_ns, np.flatnonzero(np.diff(t_ns) > PLACE_APART_NS) + 1):
            lasted_us = stretch.size * BEAM_TICK_NS / 1000.0
            if lasted_us > PLACE_US:
                yield (
                    f"place: {lasted_us:.0f} us of beam more than {PLACE_MM:g} mm beside the spot in layer {index}, "
                    f"from {stretch[0]} ns on"
                )


def _perhaps_beside(ticks: Records, layers: Sequence[LayerProgram]) -> np.ndarray:
    """Numbers of the ticks with beam that is PLACE_MM beside its spot, or nearly, or has no spot of the plan: a few of
    tens of thousands, found in whole micrometres."""
    begins = stretches(ticks)
    lengths = np.diff(begins, append=len(ticks))
    token, spot = ticks["token"][begins], ticks["spot"][begins]
    places = np.zeros((2, begins.size), dtype=np.int32)
    for layer in layers:
        mine = np.flatnonzero((token == layer.token) & (spot >= 0) & (spot < layer.n_spots))
        places[:, mine] = np.rint([layer.x_mm[spot[mine]] * 1e3, layer.y_mm[spot[mine]] * 1e3])
    beside = np.zeros(len(ticks), dtype=bool)
    for axis, place in zip(("x_um", "y_um"), places, strict=True):
        off_um = np.repeat(place, lengths)
        np.subtract(ticks[axis], off_um, out=off_um)
        np.abs(off_um, out=off_um)
        beside |= off_um >= _NEARLY_UM
    return np.flatnonzero(beside & (ticks["ions"] > 0))


def released(evidence: Evidence) -> Iterator[str]:
    """A permit that has gone comes back only when a person has let it."""
    if any(point.startswith(RELAYS) for point in evidence.failed):
        return
    t_ns, permit = evidence.ticks["t_ns"], evidence.permit
    falls = t_ns[np.flatnonzero(permit[:-1] & ~permit[1:]) + 1]
    given = np.array([event.t_ns for event in evidence.events if event.kind == "permit.released"], dtype=np.int64)
    for rise_ns in t_ns[np.flatnonzero(~permit[:-1] & permit[1:]) + 1]:
        before = falls[falls < rise_ns]
        since_ns = int(before[-1]) - AFTER_NS if before.size else 0
        if not np.any((given > since_ns) & (given <= rise_ns)):
            yield f"permit: it came back at {rise_ns} ns though nobody had given it"


INVARIANTS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    dose, demand_implies_permit, latched, goes_on_by_a_person, noticed, placed, released, explained, agrees, names,
    ends,
)  # fmt: skip
"""All of them; what a journal says of a run will be one more."""
