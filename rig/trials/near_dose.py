"""Limits of the dose of one spot: how many counts too many a chamber's register has to show for a share of one.

The counts come at one instant within a spot. In a chamber by which the front end does not steer the spot is given as it
would have been, and read with so much more. One by which it does ends the spot there and then: if the beam is stopped
after it, no other spot is set, and what is read of it stands. What a count makes of it follows from looks at copies of
the delivery.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from facility.errors import InternalError
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearDose

FEW_COUNTS = 100.0
STOPS_AT = 0.95
"""Share of the limit that is more than the spot's target, and no trip."""


class SpotSeen(NamedTuple):
    """What a rule compares over the rest of a spot."""

    soon: float
    """The first, two ticks after an instant."""
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
    limit = (rule.relative or 0.0) * plain.second + (rule.high or 0.0)
    risen = (few.soon - plain.soon) if near.steers else (few.most - plain.most)
    if not risen > 0.0:
        raise InternalError("trials.near", f"{rule.inputs[0]} does not follow {near.point}", "rig.trials.near_dose")
    per_count, number, seen = risen / FEW_COUNTS, 0.0, plain
    if near.steers:
        number = (STOPS_AT * limit - plain.soon) / per_count
        seen = await watch(counts(number), at_ns, rule)
    return counts(round(number + (share * limit - seen.most) / per_count))
