"""What a device is set to, so that a layer ends at a chosen share of a limit that it comes near to at its end only."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import load_facility
from facility.errors import InternalError
from facility.signals import INDEX, N_SIGNALS
from interlocks.model import Rule
from interlocks.rules import load_rules
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearEnd, load_trials
from rig.trials.near_end import Growth, at_the_end

RULES = load_rules(load_facility("wuwei"), "1", "carbon")
TRIALS = load_trials(RULES)
AT_NS = 10_500_000
ENDS = {
    rule_id: (RULES.rule(rule_id), trial.near_end)
    for rule_id, trial in TRIALS.items()
    if trial.near_end and not RULES.rule(rule_id).window_us
}


def growth(rule: Rule) -> Growth:
    """100 ms in which the first quantity grows to 1e8, and the second with it where they are to agree."""
    signals = np.zeros((100, N_SIGNALS))
    signals[:, INDEX[rule.inputs[1]]] = 9e7
    signals[:, INDEX[rule.inputs[0]]] = np.arange(100) * 1e8 / 99
    if rule.kind == "mismatch":
        signals[:, INDEX[rule.inputs[1]]] = 0.999 * signals[:, INDEX[rule.inputs[0]]]
    signals[-1, INDEX[rule.inputs[0]]] = 0.0  # the layer is no more
    return Growth(np.arange(100, dtype=np.int64) * 1_000_000, signals)


def share_at_the_end(rule: Rule, near: NearEnd, fault: Fault) -> float:
    """What the rule compares over its limit, at the end of the layer with the fault."""
    (a0, b0), (a1, b1) = growth(rule).pair(rule, AT_NS), growth(rule).end(rule)
    match near.moves:
        case "limit":
            b1 = fault.value
        case "first":
            a1 = a0 + fault.value * (a1 - a0)
        case "second":
            b1 = b0 + fault.value * (b1 - b0)
    if rule.kind == "mismatch":
        return abs(a1 - b1) / (rule.high + rule.relative * max(a1, b1))
    return a1 / (rule.relative * b1 + rule.high)


@pytest.mark.parametrize("rule_id", ENDS)
@pytest.mark.parametrize("share", [0.98, 1.02])
def test_the_layer_ends_at_the_share_of_the_limit(rule_id: str, share: float) -> None:
    rule, near = ENDS[rule_id]
    fault, *besides = at_the_end(rule, near, growth(rule), share, AT_NS)
    assert (fault.device, fault.kind) == (near.point, FaultKind.SET if near.moves == "limit" else FaultKind.SCALE)
    assert {one.at_ns for one in (fault, *besides)} == {AT_NS}
    assert [one.device for one in besides] == [one.point for one in near.besides]
    assert share_at_the_end(rule, near, fault) == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_over_a_window_the_share_is_of_where_most_comes(share: float) -> None:
    rule = RULES.rule("chamber-disagreement")
    near = TRIALS[rule.id].near_end
    assert near is not None
    t_ns = np.arange(0, 600_000_000, 1_000_000, dtype=np.int64)
    signals = np.zeros((t_ns.size, N_SIGNALS))
    rate = np.where(t_ns < 300_000_000, 1e5, 2e5)  # a millisecond
    rate[t_ns >= 500_000_000] = 1e4
    signals[:, INDEX["ic1.ions"]] = np.cumsum(rate)
    signals[:, INDEX["ic2.ions"]] = 0.999 * np.cumsum(rate)
    (fault,) = at_the_end(rule, near, Growth(t_ns, signals), share, 50_000_000)
    first, second = 2e7, fault.value * 0.999 * 2e7
    assert fault.kind == FaultKind.SCALE
    assert (first - second) / (rule.relative * first + rule.high) == pytest.approx(share, rel=1e-9)
    with pytest.raises(InternalError, match="ends within"):
        at_the_end(rule, near, Growth(t_ns, signals), share, 550_000_000)


def test_what_does_not_grow_is_no_trial() -> None:
    rule, near = ENDS["layer-timer"]
    still = Growth(np.arange(3, dtype=np.int64), np.zeros((3, N_SIGNALS)))
    with pytest.raises(InternalError, match=r"timer\.layer_ms does not grow"):
        at_the_end(rule, near, still, 0.98, 2)
