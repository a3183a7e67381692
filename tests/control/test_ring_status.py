"""What of the ring's cycle wakes control."""

from __future__ import annotations

from itertools import pairwise

from control.machine_status import RingStatus
from facility.states import RingPhase

CHANGES = {"INJECTION", "FLAT_TOP", "ENERGY_STEP", "DUMP", "FAULT"}


def test_a_phase_is_news_where_control_decides_by_it() -> None:
    seen = [(phase, RingStatus(phase, 7, 3, 2).decisive) for phase in RingPhase]
    assert {phase.name for (_, before), (phase, after) in pairwise(seen) if after != before} == CHANGES


def test_another_token_energy_or_cycle_is_news() -> None:
    one = RingStatus(RingPhase.RAMP, 7, 3, 2)
    others = [RingStatus(RingPhase.RAMP, *values) for values in ((8, 3, 2), (7, 4, 2), (7, 3, 3))]
    assert len({one.decisive, *(other.decisive for other in others)}) == 4
