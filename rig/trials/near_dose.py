"""Limits of the dose of one spot: how many counts too many a chamber's register has to show for a share of one.

The counts come at one instant within a spot, in a chamber by which the front end does not steer: the spot is given as
it would have been, and read with so much more. What a count makes of it follows from looks at copies of the delivery.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from facility.errors import InternalError
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearDose

FEW_COUNTS = 100.0


class SpotSeen(NamedTuple):
    """What a rule compares over the rest of a spot."""

    most: float
    """The first, where it is greatest."""
    second: float
    """The second, which stands."""


Watch = Callable[[tuple[Fault, ...], int, Rule], Awaitable[SpotSeen]]
"""What a rule compares from an instant (ns) to the end of the spot, in a copy of the delivery with these faults."""


async def faults_of_dose(rule: Rule, near: NearDose, share: float, at_ns: int, watch: Watch) -> tuple[Fault, ...]:
    """Counts too many from `at_ns` on, so that the spot's dose is read as `share` of the rule's limit."""

    def counts(number: float) -> tuple[Fault, ...]:
        return (Fault(near.point, FaultKind.OFFSET, number, at_ns=at_ns),)

    plain, few = await watch((), at_ns, rule), await watch(counts(FEW_COUNTS), at_ns, rule)
    per_count = (few.most - plain.most) / FEW_COUNTS
    if not per_count > 0.0:
        raise InternalError("trials.near", f"{rule.inputs[0]} does not follow {near.point}", "rig.trials.near_dose")
    limit = (rule.relative or 0.0) * plain.second + (rule.high or 0.0)
    return counts(round((share * limit - plain.most) / per_count))
