"""The verdict on a trial: times and surplus by raw ticks, the latch, who may reset, the words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from facility.constants import TICK_NS
from facility.states import Action
from interlocks.explain import Bound, bound, by_dump, number
from interlocks.model import Rule
from rig.trials.bench import Bench
from rig.trials.causes import TrialState
from rig.trials.result import TrialResult
from rig.trials.truth import DRIVE_MAX, beam_off_ns, ions_at_most, rate_before

if TYPE_CHECKING:
    from rig.trials.run import Found

DECISION_H_US = 20.0
"""Condition to decision, tier H: two ticks."""
ACTED_US = 180.0
"""Decision to beam off with all beam-off devices."""
ACTED_DEGRADED_US = 300.0
"""With the fast quadrupole or the chopper failed, where the facility has both."""
SINGLE_IONS_US, SLOW_US = 800.0, 1000.0
"""Where the extraction's tail alone is left, single ions keep the mean up by chance for two lags more."""
NOT_FOR_CONTROL = frozenset({"command.not-allowed", "safety.role"})
"""How a reset by control is refused."""
LASTS_US = 200_000.0
"""Waiting for the ring lasts so long at least; with a longer bound beam may have come by right."""
_SLOW_NOTICE = "chamber-disagreement"
"""The rule that notices a dead chamber at the latest."""


def judge(bench: Bench, found: Found) -> TrialResult:
    """Everything that was seen, against what was promised."""
    if found.truth is None:
        raise ValueError("a trial without truth cannot be judged")
    rule = found.rule
    takes_beam = rule.strength >= Action.HOLD
    per_tick = rate_before(found.truth, found.cause_ns) or rate_before(found.truth, found.decision_ns or found.cause_ns)
    off_ns = beam_off_ns(found.truth, found.cause_ns, found.until_ns, per_tick) if takes_beam else None
    came = found.truth.between(found.cause_ns, found.until_ns)
    ions = float(came.ions.sum()) if takes_beam else 0.0
    waited_us = (found.applies_ns - found.cause_ns) / 1000.0
    bound_us = found.promised.total_us + found.trial.builds_up_ms * 1000.0 + waited_us
    allowed = ions_allowed(bench, found, bound_us)
    target = _spot_target(bench, found)
    failures = list(
        _degraded(bench, found, off_ns, ions) if found.variant else _all(bench, found, off_ns, bound_us, ions, allowed)
    )
    if off_ns is not None and off_ns >= found.until_ns and not _no_device_left(found):
        failures.append("beam was still on when the truth was looked at last")
    return TrialResult(
        rule=rule.id,
        tier=rule.tier,
        action=rule.action,
        state=found.state.value,
        variant=found.variant.name if found.variant else "",
        seed=bench.seed,
        t_cause_ns=found.cause_ns,
        t_condition_ns=found.condition_ns,
        t_decision_ns=found.decision_ns,
        t_off_ns=off_ns,
        bound_us=bound_us,
        surplus_ions=ions,
        surplus_bound_ions=allowed,
        surplus_pct=100.0 * ions / target if target else 0.0,
        surplus_bound_pct=100.0 * allowed / target if target else 0.0,
        surplus_mgy=ions * bench.peak_mgy_per_ion,
        surplus_bound_mgy=allowed * bench.peak_mgy_per_ion,
        words=found.words,
        refused=found.refusal,
        failures=tuple(failures),
    )


def acts_within_us(rule: Rule, promised: Bound) -> float:
    """Longest time from the decision of a latching rule to beam off with all beam-off devices, us."""
    within_us = promised.actuator_us + 20.0
    return within_us if by_dump(rule) else min(ACTED_US, within_us)


def ions_allowed(bench: Bench, found: Found, bound_us: float) -> float:
    """Most ions from the cause to beam off within the bound; 0 where the state has no beam and the cause makes none."""
    beam = found.state in (TrialState.SPOT, TrialState.MOVE)
    points = _points(found) | {fault.point for fault in found.trial.faults}
    makes_beam = "rfko.on" in points
    outlasts = bound_us > LASTS_US and found.state in (TrialState.RING, TrialState.ENERGY)
    if not (beam or makes_beam or outlasts):
        return 0.0
    factor = found.trial.rate_factor
    if any(point.startswith("ic1.") for point in points):  # the intensity loop looks at chamber 1
        factor *= DRIVE_MAX
    return ions_at_most(bound_us, bench.program.layers[0].intensity_ions_per_s, factor, bench.facility)


def _spot_target(bench: Bench, found: Found) -> float:
    layer = bench.program.layers[0]
    return float(layer.target_ions[found.spot]) if 0 <= found.spot < layer.n_spots else 0.0


def _all(bench: Bench, found: Found, off_ns: int | None, bound_us: float, ions: float, allowed: float) -> Iterator[str]:
    if found.overtaken:
        if off_ns is not None and off_ns - found.cause_ns > bound_us * 1000.0:
            yield f"beam off {(off_ns - found.cause_ns) / 1000.0:.1f} us after the cause, promised {bound_us:.1f}"
    else:
        yield from _times(bench, found, off_ns, bound_us)
    if ions > allowed:
        yield f"{ions:.0f} ions after the cause, at most {allowed:.0f} are allowed"
    yield from _latches(found)
    yield from _resets(bench, found)
    yield from _words(found)


def _times(bench: Bench, found: Found, off_ns: int | None, bound_us: float) -> Iterator[str]:
    rule, cause_ns = found.rule, found.cause_ns
    if found.condition_ns is None:
        yield "the condition never held"
    elif found.early:
        yield "the condition held before the cause"
    if found.decision_ns is None:
        yield "no decision"
        return
    link = bench.rules.link
    decide_us = DECISION_H_US if rule.tier == "H" else 2000.0 * link.scan_ms
    earliest_us = -1000.0 * link.scan_ms if rule.tier == "T" else 0.0  # a line falls between two looks at it
    late_us = 0.0 if found.condition_ns is None else (found.decision_ns - found.condition_ns) / 1000.0
    if not earliest_us <= late_us <= decide_us:
        yield f"decided {late_us:.1f} us after the condition, at most {decide_us:g}"
    yield from _line(found)
    if off_ns is None:
        return
    promised, within_us = found.promised, acts_within_us(rule, found.promised)
    if rule.latches and off_ns - found.decision_ns > within_us * 1000.0:
        acted_us = (off_ns - found.decision_ns) / 1000.0
        yield f"beam off {acted_us:.1f} us after the decision, at most {within_us:g}"
    if rule.strength == Action.HOLD and off_ns - found.decision_ns > (promised.actuator_us + 20.0) * 1000.0:
        yield f"beam off {(off_ns - found.decision_ns) / 1000.0:.1f} us after the decision"
    if off_ns - cause_ns > bound_us * 1000.0:
        yield f"beam off {(off_ns - cause_ns) / 1000.0:.1f} us after the cause, promised {bound_us:.1f}"


def _line(found: Found) -> Iterator[str]:
    """By raw ticks: the rack's line fell within two ticks of the decision, where it had stood until then."""
    truth, decision_ns = found.truth, found.decision_ns
    if truth is None or decision_ns is None or found.rule.strength < Action.PAUSE:
        return
    before = truth.between(decision_ns - 3 * TICK_NS, decision_ns - TICK_NS)
    after = truth.between(decision_ns, decision_ns + 2 * TICK_NS)
    stood = before.flags.size > 0 and bool((before.flags & 1).all())
    if stood and after.flags.size > 1 and bool(after.flags[-1] & 1):
        yield "the permit line stood two ticks after the decision"


def _latches(found: Found) -> Iterator[str]:
    rule = found.rule
    if rule.latches and rule.id not in found.latched and not found.overtaken:
        yield "not latched"
    if not rule.latches and rule.id in found.latched:
        yield "latched, although it does not latch"
    others = sorted(found.latched - {rule.id, *found.trial.also, *found.trial.behind})
    if others:
        yield f"other rules latched: {', '.join(others)}"


def _resets(bench: Bench, found: Found) -> Iterator[str]:
    if found.late:
        yield found.late
    if found.let_go_early or not found.latched:
        return
    needs = any(bench.rules.rule(rule_id).reset == "physicist" for rule_id in found.latched)
    for what, answer in found.answers:
        when, who = what.split(", ")
        if when == "standing" and answer != "safety.present":
            yield f"reset while the cause stood: {answer}"
        elif when == "unresolved" and answer != "safety.present":
            yield f"{who} while the termination was unresolved: {answer}"
        elif when == "mended" and who == "control" and answer not in NOT_FOR_CONTROL:
            yield f"reset by control: {answer}"
        elif when == "mended" and who == "operator" and needs and answer != "safety.role":
            yield f"reset of a physicist's rule by the operator: {answer}"
    last = "physicist" if needs else "operator"
    if (f"mended, {last}", "done") not in found.answers:
        yield f"the {last} could not reset after the cause was gone: {found.answers[-1:]}"
    if found.latched_after:
        yield f"still latched after the reset: {', '.join(sorted(found.latched_after))}"
    elif not found.permit_after:
        yield "no permit after the reset"
    if found.ions_after:
        yield f"{found.ions_after:.0f} ions came after the reset, without a start"


def _words(found: Found) -> Iterator[str]:
    rule = found.rule
    if rule.strength == Action.INHIBIT and found.refusal and rule.title not in found.refusal:
        yield f"the refusal of a reset does not name the rule: {found.refusal!r}"
    if not rule.latches or found.overtaken:
        return
    if rule.title not in found.words:
        yield f"the words do not name the rule: {found.words!r}"
    told = rule.tier == "P" or found.first_fault == rule.id
    if told and "limit not known" in found.words:
        yield f"the words do not say the limit: {found.words!r}"
    if told and found.view is not None and not _beyond(rule, found.view.trip_value, found.view.trip_limit):
        yield f"value {number(found.view.trip_value)} is not beyond limit {number(found.view.trip_limit)}"


def _beyond(rule: Rule, value: float, limit: float) -> bool:
    """Whether the value told is on the wrong side of the limit told; a value that is no number is wrong by itself."""
    if not math.isfinite(value):
        return True
    if rule.kind in ("limit", "window"):
        low = rule.low is not None and math.isclose(limit, rule.low) and value < limit
        return low or value > limit
    if rule.kind in ("digital", "equal", "either"):
        return value != limit
    return value > limit


def _degraded(bench: Bench, found: Found, off_ns: int | None, ions: float) -> Iterator[str]:
    """With something else failed at the same instant only the beam is judged: when it was off, and what came."""
    if off_ns is None or found.variant is None:
        return
    if _no_device_left(found):
        return
    actuator = found.promised.degraded_us + 20.0 + _by_chance_us(found)
    off = bench.facility.beam_off
    if (
        off.fast_quad.present and off.chopper.present
        and found.rule.strength >= Action.PAUSE and not by_dump(found.rule)
    ):  # fmt: skip
        actuator = min(actuator, ACTED_DEGRADED_US)
    if found.decision_ns is not None and off_ns - found.decision_ns > actuator * 1000.0:
        yield f"beam off {(off_ns - found.decision_ns) / 1000.0:.1f} us after the decision, at most {actuator:g}"
    bound_us = degraded_bound_us(bench, found)
    if off_ns - found.cause_ns > bound_us * 1000.0:
        yield f"beam off {(off_ns - found.cause_ns) / 1000.0:.1f} us after the cause, promised {bound_us:.1f}"
    allowed = ions_allowed(bench, found, bound_us)
    if ions > allowed:
        yield f"{ions:.0f} ions after the cause, at most {allowed:.0f} are allowed"


def degraded_bound_us(bench: Bench, found: Found) -> float:
    """Longest time from the cause to beam off with a device more that has failed, us."""
    waited_us = (found.applies_ns - found.cause_ns) / 1000.0
    bound_us = _slowest_us(found.promised) + _by_chance_us(found) + found.trial.builds_up_ms * 1000.0 + waited_us
    if any(point.endswith(".counts") for point in _points(found)):
        # the rule that sees a dead chamber takes the beam if this one is blind
        bound_us = max(bound_us, _slowest_us(bound(bench.rules.rule(_SLOW_NOTICE), bench.rules, bench.facility)))
    if found.decision_ns is None:  # the rule no longer applied: what noticed the failed device has taken the beam
        others = [bound(bench.rules.rule(rule_id), bench.rules, bench.facility) for rule_id in found.latched]
        bound_us = max([bound_us, *(_slowest_us(other) + _by_chance_us(found) for other in others)])
    return bound_us


def _no_device_left(found: Found) -> bool:
    """That could take the beam: nothing is promised."""
    return by_dump(found.rule) and "dump.cmd" in _points(found)


def _slowest_us(promised: Bound) -> float:
    return promised.observation_us + promised.decision_us + promised.degraded_us


def _by_chance_us(found: Found) -> float:
    return SINGLE_IONS_US if found.promised.degraded_us > SLOW_US else 0.0


def _points(found: Found) -> set[str]:
    """Devices that have failed beside the cause."""
    return {fault.point for fault in found.variant.faults} if found.variant else set()
