"""Limits of a reading that is judged within one spot: how a device is set so that the reading is a share of one.

A reading that noise moves by more than the two percent is set to a value, for a fraction of a spot in which nothing
else moves it. What value that is follows from two looks at copies of the delivery: it grows with what is set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from facility.constants import TICK_NS
from facility.errors import InternalError
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import NearSpot
from rig.trials.truth import Ticks

BEFORE_NS, AFTER_NS = 1_200_000, 600_000
"""A fault begins so long after the beam came onto a spot, its magnets long settled, and so long before it leaves it."""
GOES_ON_NS = 12_000_000
"""Beam goes on for so long, from one close spot to the next. Five times as fast it lasts two milliseconds still, were
the spill a sixth weaker than planned over all of it: a burst must not run into the spot after which the beam stops."""
TRIED = (0.0, 1.0)
"""What the device is set to in the two looks, in the unit of its point."""
Look = Callable[[tuple[Fault, ...], int, str], Awaitable[float]]
"""What a signal is at an instant (ns), in a copy of the delivery with these faults."""


def within_spots(seen: Ticks) -> np.ndarray:
    """Of ticks with beam, those that lie well within a spot: bool, shape (n,)."""
    return _well_within(_pauses(seen) | (np.diff(seen.spot) != 0), BEFORE_NS, AFTER_NS)


def goes_on(seen: Ticks) -> np.ndarray:
    """Of ticks with beam, those after which it goes on: bool, shape (n,)."""
    return _well_within(_pauses(seen), 0, GOES_ON_NS)


def _pauses(seen: Ticks) -> np.ndarray:
    return np.asarray(np.diff(seen.t_ns) != TICK_NS)


def _well_within(ends: np.ndarray, before_ns: int, after_ns: int) -> np.ndarray:
    """Ticks so far from both ends of their piece; `ends`: where the next tick is of another one."""
    kept = np.zeros(ends.size + 1, np.bool_)
    for piece in np.split(np.arange(ends.size + 1), np.flatnonzero(ends) + 1):
        kept[piece[before_ns // TICK_NS : max(0, piece.size - after_ns // TICK_NS)]] = True
    return kept


async def faults_at(
    rule: Rule, near: NearSpot, limit: float, share: float, at_ns: int, look: Look
) -> tuple[Fault, ...]:
    """What is set from `at_ns` on so that the rule's reading is at `share` of its limit."""
    until_ns = at_ns + round(near.for_us * 1000.0)
    first: tuple[Fault, ...] = ()
    for quiet in near.quiet:  # what the reading is compared with, or what would move it, is set to what it should be
        first = (*first, await _set(quiet.point, quiet.signal, 0.0, first, at_ns, until_ns, look))
    return (await _set(near.point, rule.inputs[0], share * limit, first, at_ns, until_ns, look), *first)


async def _set(
    point: str, signal: str, wanted: float, first: tuple[Fault, ...], at_ns: int, until_ns: int, look: Look
) -> Fault:
    """The device set so that the signal is what is wanted."""

    def set_to(value: float) -> Fault:
        return Fault(point, FaultKind.SET, value, at_ns=at_ns, until_ns=until_ns)

    low, high = TRIED
    q0, q1 = [await look((set_to(value), *first), until_ns, signal) for value in TRIED]
    if not abs(q1 - q0) > 0.0:
        raise InternalError("trials.near", f"{signal} does not follow {point}: {q0:g}, {q1:g}", "rig.trials.near_spot")
    return set_to(low + (wanted - q0) / (q1 - q0) * (high - low))
