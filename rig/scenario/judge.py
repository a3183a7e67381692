"""The verdict on a scenario: what was seen, by raw ticks, against what was expected; the same on all targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from facility.config import Facility
from facility.states import Action
from interlocks.explain import bound
from interlocks.model import Rule
from interlocks.rules import RuleSet
from rig.scenario.deeds import STOPPED, Answer
from rig.scenario.model import Scenario
from rig.scenario.result import FinalDose
from rig.trials.truth import DRIVE_MAX, Ticks, beam_off_ns, ions_at_most, rate_before
from rig.truth_check import TruthReport

STATE_OF = {Action.PAUSE: "INTERRUPTED", Action.ABORT: "TERMINATED", Action.HOLD: "HELD"}
"""Control's state after a rule of this action has taken the beam."""
STOOD = frozenset(state.name for state in STOPPED)


@dataclass
class Seen:
    """What a run showed, before it is judged."""

    cause_ns: int
    until_ns: int = 0
    """Until when the beam is looked at: nobody had done anything to bring it back."""
    ticks: Ticks | None = None
    first: str = ""
    trips: tuple[str, ...] = ()
    """All that tripped from the cause to the end, in order."""
    latched: tuple[str, ...] = ()
    present: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()
    """Of what tripped from the cause to the end: rules that trip where this machine is busy with other things, when it
    was; they are no verdict on hardware. Empty where nothing but the scenario's own cause is let pass."""
    words: str = ""
    decision_ns: int | None = None
    state: str = ""
    end: str = ""
    reset_by: str = ""
    ions_while_off: float = 0.0
    """Between the settling and the moment at which somebody may bring the beam back."""
    dose: TruthReport | None = None
    overdosed: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What a scenario expects, with what follows from its rule filled in."""

    scenario: Scenario
    rule: Rule | None
    bound_us: float | None
    state: str | None
    end: str | None
    latched: bool
    recovers: bool

    @classmethod
    def of(cls, scenario: Scenario, rules: RuleSet, facility: Facility) -> Wanted:
        """Fill in."""
        expect = scenario.expect
        rule = rules.rule(expect.first) if expect.first else None
        within_us = None
        if expect.off_within_ms is not None:
            within_us = expect.off_within_ms * 1e3
        elif rule is not None and rule.strength >= Action.HOLD:
            within_us = bound(rule, rules, facility).total_us + expect.builds_up_ms * 1e3
        state = expect.state
        if state is None and rule is not None and scenario.begin == "started":
            strongest = max((rules.rule(other).strength for other in expect.besides), default=rule.strength)
            state = STATE_OF.get(max(strongest, rule.strength))
        recovers = any(act.do in ("recover", "ended") for act in scenario.then)
        end = expect.end if expect.end is not None else ("COMPLETED" if recovers else None)
        latched = expect.latched if expect.latched is not None else (rule is not None and rule.latches)
        return cls(scenario, rule, within_us, state, end, latched, recovers)


def surplus_bound(wanted: Wanted, level_ions_per_s: float, facility: Facility) -> float:
    """Most ions from the cause to beam off; infinite where nothing is promised."""
    expect = wanted.scenario.expect
    if expect.surplus_within_ions is not None:
        return expect.surplus_within_ions
    if wanted.bound_us is None:
        return float("inf")
    factor = expect.rate_factor
    if any(act.fault is not None and act.fault.startswith("ic1.") for act in wanted.scenario.acts):
        factor *= DRIVE_MAX  # the intensity loop looks at chamber 1
    return ions_at_most(wanted.bound_us, level_ions_per_s, factor, facility)


def beam_off(seen: Seen) -> tuple[int | None, float]:
    """Last instant with beam after the cause, ns, None without any; and the ions from the cause until nobody looks."""
    if seen.ticks is None:
        return None, 0.0
    per_tick = rate_before(seen.ticks, seen.cause_ns)
    if per_tick <= 0.0:
        per_tick = rate_before(seen.ticks, seen.decision_ns or seen.cause_ns)
    ions = float(seen.ticks.between(seen.cause_ns, seen.until_ns).ions.sum())
    return beam_off_ns(seen.ticks, seen.cause_ns, seen.until_ns, per_tick), ions


def failures(wanted: Wanted, seen: Seen, off_ns: int | None, ions: float, ions_bound: float) -> Iterator[str]:
    """All that is not as it should be."""
    yield from seen.failures
    if wanted.scenario.expect.beam_needed and wanted.scenario.begin == "started":
        before = 0.0 if seen.ticks is None else rate_before(seen.ticks, seen.cause_ns)
        if before <= 0.0:
            yield "there was no beam before the cause: nothing is shown"
    yield from _trips(wanted, seen)
    yield from _beam(wanted, seen, off_ns, ions, ions_bound)
    if wanted.state is not None and seen.state != wanted.state and not (seen.busy and seen.state in STOOD):
        yield f"control is {seen.state}, expected {wanted.state}"
    if wanted.recovers:
        yield from _recovery(wanted, seen)
    if wanted.end is not None and seen.end != wanted.end:
        yield f"it ends {seen.end}, expected {wanted.end}"
    most = wanted.scenario.expect.overdosed
    if most is not None and len(seen.overdosed) > most:
        yield f"{len(seen.overdosed)} spots above their tolerance by truth: {seen.overdosed[0]}"
    if wanted.end == "COMPLETED" and seen.dose is not None:
        yield from _dose(wanted, seen.dose)


def _trips(wanted: Wanted, seen: Seen) -> Iterator[str]:
    expect, rule = wanted.scenario.expect, wanted.rule
    allowed = {expect.first, *expect.also, *expect.besides}
    others = [other for other in seen.latched if other not in allowed | seen.busy]
    if others:
        yield f"other rules latched: {', '.join(others)}"
    late = [other for other in expect.trips if other not in seen.trips]
    if late:
        yield f"{', '.join(late)} never tripped"
    missing = [other for other in expect.besides if other not in seen.latched]
    if missing:
        yield f"{', '.join(missing)} did not latch"
    if rule is None:
        unwanted = [trip for trip in seen.trips if trip not in allowed]
        if unwanted:
            yield f"{unwanted[0]} tripped, and nothing should"
        return
    if not rule.latches:
        if rule.id not in seen.present:
            yield f"{rule.id} is not present"
    elif seen.first != rule.id and not (expect.any_order and seen.first in allowed):
        yield f"{seen.first or 'nothing'} tripped first, expected {rule.id}"
    if expect.any_order:
        if seen.first not in seen.latched:
            yield f"{seen.first} is not latched"
    elif wanted.latched != (rule.id in seen.latched):
        yield f"{rule.id} is {'not ' if wanted.latched else ''}latched"


def _beam(wanted: Wanted, seen: Seen, off_ns: int | None, ions: float, ions_bound: float) -> Iterator[str]:
    if wanted.bound_us is None:
        return
    if off_ns is not None and off_ns - seen.cause_ns > wanted.bound_us * 1e3:
        off_ms, bound_ms = (off_ns - seen.cause_ns) / 1e6, wanted.bound_us / 1e3
        yield f"beam off {off_ms:.3f} ms after the cause, at most {bound_ms:.3f} ms"
    if ions > ions_bound:
        yield f"{ions:.0f} ions after the cause, at most {ions_bound:.0f}"
    if seen.ions_while_off > 0.0:
        yield f"{seen.ions_while_off:.0f} ions came while the beam was off, before anybody let it"


def _recovery(wanted: Wanted, seen: Seen) -> Iterator[str]:
    rule, expect = wanted.rule, wanted.scenario.expect
    who = expect.reset
    if who is None:
        who = "none" if rule is None or not wanted.latched else rule.reset
    found = seen.reset_by or "none"
    if (expect.also or expect.besides or seen.busy) and expect.reset is None and found == "physicist":
        return  # another rule that the cause tripped wants the stronger role, or one that this machine's load has
    if wanted.latched and who != "none" and found != who:
        yield f"the reset of the {found} let go, expected that of the {who}"


def _dose(wanted: Wanted, dose: TruthReport) -> Iterator[str]:
    expect = wanted.scenario.expect
    beyond = dose.spots - dose.spots_within
    if beyond > expect.spots_beyond:
        yield f"{beyond} of {dose.spots} spots out of tolerance by truth, at most {expect.spots_beyond}"
    if expect.worst_pct is not None and dose.worst_spot_error_pct > expect.worst_pct:
        yield f"worst spot {dose.worst_spot_error_pct:.2f} % off, at most {expect.worst_pct:g} %"
    if dose.unplanned_ions:
        yield f"{dose.unplanned_ions:.0f} ions that nobody planned"


def final_dose(dose: TruthReport | None) -> FinalDose | None:
    """For the result."""
    if dose is None:
        return None
    return FinalDose(dose.spots, dose.spots - dose.spots_within, dose.worst_spot_error_pct, dose.total_error_pct,
                     dose.unplanned_ions)  # fmt: skip
