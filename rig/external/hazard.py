"""May this plan be delivered although devices in the loop are slow to say what they do?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control.plan.program import LayerProgram, MachineProgram
from facility.config import Facility
from facility.errors import PlanError
from facility.external import LINES
from interlocks.explain import bound, external_inputs
from interlocks.rules import RuleSet, load_rules

LINES_SHARE = 0.5
"""Hazard share where nothing but digital lines is external."""


class SlowRule(NamedTuple):
    """A rule that reads an external device."""

    rule: str
    hazard: str
    bound_us: float
    """Cause to beam off with the fastest beam-off device failed, or by the dump where there is no second one."""
    share: float
    """Part of a layer's lightest spot that may be delivered wrongly until then."""


def slow_rules(rules: RuleSet, facility: Facility) -> Iterator[SlowRule]:
    """The rules of tiers H and P that are not fast, with their bounds and what those must keep to."""
    for rule in rules.rules:
        devices = external_inputs(rule, facility)
        if not devices:
            continue
        shares = [facility.external[name].hazard_share for name in devices if name != LINES]
        yield SlowRule(rule.id, rule.hazard, bound(rule, rules, facility).total_us, min(shares, default=LINES_SHARE))


def require_hazard_bounds(program: MachineProgram, facility: Facility) -> None:
    """PlanError 'external.hazard' unless every rule that reads an external device takes the beam in time.

    What flows at the layer's level until the beam is off must not be more than the share of the layer's lightest spot
    that `hazard_share` of the device allows.
    """
    if not facility.fitted or not program.layers:
        return
    rules = load_rules(facility, program.room_id, program.layers[0].species)
    slow = list(slow_rules(rules, facility))
    for layer in program.layers:
        for rule in slow:
            _require(rule, layer, program)


def _require(rule: SlowRule, layer: LayerProgram, program: MachineProgram) -> None:
    wrong_ions = layer.intensity_ions_per_s * rule.bound_us * 1e-6
    lightest = float(layer.target_ions.min())
    if wrong_ions <= rule.share * lightest:
        return
    raise PlanError(
        "external.hazard",
        f"rule {rule.rule} ({rule.hazard}) takes the beam within {rule.bound_us * 1e-3:.1f} ms; at "
        f"{layer.intensity_ions_per_s:.3g} ions/s that is {wrong_ions:.3g} ions, {wrong_ions / lightest:.0%} of the "
        f"lightest spot ({lightest:.3g} ions)",
        f"{program.plan_label}, beam {layer.beam_index}, layer {layer.layer_index}",
        f"at most {rule.share:.0%}: a device with a lower max_age_ms, heavier spots, or another hazard_share after a "
        "risk analysis",
    )
