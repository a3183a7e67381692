"""What the plant tells: its events, its status; and what it needs to know of the fast rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from facility.states import FrontEndState, HoldReason, RingPhase


class FastRules(Protocol):
    """Compiled H rules, as ``interlocks.rules`` makes them."""

    @property
    def rows(self) -> Any:
        """Rule rows, ``interlocks.fast.RULE_DTYPE``, shape (n,)."""

    @property
    def hist_index(self) -> Any:
        """Signal indices of the history ring, int64."""

    @property
    def ids(self) -> Sequence[str]:
        """Rule ids in row order."""

    @property
    def bypassable(self) -> int:
        """Rules that may ever be bypassed, mask by row."""


@dataclass(frozen=True)
class PlantEvent:
    """Something that happened at the end of the tick at ``t_ns``."""

    t_ns: int
    kind: str
    data: dict[str, int | float | str] = field(default_factory=dict)


class ExternalWanted(NamedTuple):
    """What external devices should be set to."""

    token: int
    """Layer that is loaded, 0 if none."""
    spot: int
    """Spot that is under way, -1 if none."""
    setpoints: tuple[float, float, float, float]
    """Supply x and y, A; chamber 1 and 2, V."""


class ExternalState(NamedTuple):
    """How an external device stands with the rack."""

    device: str
    good: bool
    """By its connection and by what it says of itself."""
    in_time: bool
    """Its last reading is not older than the contract."""
    age_ms: float
    value: float
    """Last reading, in the unit of the rack."""


class PlantStatus(NamedTuple):
    """What an operator's panel would show; a tuple, since one is made at every event."""

    t_ns: int
    phase: RingPhase
    ring_token: int
    energy_code: int
    cycle: int
    stored_ions: float
    flat_top_ms: float
    state: FrontEndState
    hold_reason: HoldReason
    token: int
    spot: int
    spots: int
    done_spots: int
    ic1_ions: float
    ic2_ions: float
    demand: bool
    permit: bool
    permit_epoch: int
    """Changes of the permit since the start; an arm or a resume is meant for one of them."""
    beam_us: float
    level: float
    rate: float
    first_rule: int
    spill_cmd: bool
    rfko_on: bool
    quad_block: bool
    chopper_block: bool
    stopper_in: bool
