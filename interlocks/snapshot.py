"""What the safety controller shows of itself: for PVs, displays and records.  Data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from facility.states import Action
from interlocks.explain import and_remedy, why
from interlocks.model import Rule


class Mode(Enum):
    """Operating mode; on every record."""

    CLINICAL = "clinical"
    QA = "qa"
    SERVICE = "service"


@dataclass(frozen=True)
class RuleView:
    """One rule as it stands.  Present and latched are apart: an acknowledged latch never hides a present fault."""

    rule: Rule
    present: bool = False
    latched: bool = False
    value: float = math.nan
    """Last value compared; NaN where it is not known.  Of a rule that is not live (`live_values`), at its last trip."""
    limit: float = math.nan
    trip_value: float = math.nan
    trip_limit: float = math.nan
    since_ns: int = 0
    """When the condition held first, at the last trip; facility time."""
    bypassed: bool = False
    """The rule is shown as it is and neither acts nor latches."""
    bypass_until_ns: int = 0
    """When that ends by itself; facility time."""
    bypass_reason: str = ""
    bypass_by: str = ""

    def to_data(self) -> dict[str, Any]:
        """JSON values: value and limit at the trip, None where they are not known."""
        return {
            "id": self.rule.id,
            "tier": self.rule.tier,
            "action": self.rule.action,
            "present": self.present,
            "value": _number(self.trip_value),
            "limit": _number(self.trip_limit),
            "unit": self.rule.unit,
            "t_ns": self.since_ns,
        }

    def words(self) -> str:
        """Why it is tripped, and what a person does about it."""
        return why(self.rule, self.trip_value, self.trip_limit) + and_remedy(self.rule)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class SafetySnapshot:
    """The safety controller as it stands."""

    t_ns: int
    permit: bool
    hold: bool
    released: bool
    """A person has let the beam and nothing has objected since."""
    action: Action
    """Strongest action in force, both tiers."""
    first_fault: str
    """Id of the first rule that latched since the permit was last released; empty if none."""
    mode: Mode
    link_ok: bool
    rules: tuple[RuleView, ...]
    """In the order of the file."""
    key_agrees: bool = True
    """The key switch stands where the mode says; otherwise no mode is in force."""
    session: str = ""
    """Session of the field under way; empty if nobody has named it."""
    holds: Mapping[str, int] = field(default_factory=dict)
    """How often each HOLD rule has held this field."""
    pauses: int = 0
    """How often the field was interrupted."""
    begun: bool = False
    """A layer of it was active under a permit."""
    unresolved: bool = False
    """Its termination has not been accounted for by a physicist."""

    proofs: tuple[Mapping[str, Any], ...] = ()
    """Proof tests as JSON values, in the order of their file."""
    proofs_running: bool = False

    @property
    def bypassed(self) -> tuple[RuleView, ...]:
        """Bypassed rules."""
        return tuple(view for view in self.rules if view.bypassed)

    @property
    def latched(self) -> tuple[RuleView, ...]:
        """Latched rules, the first fault first."""
        found = [view for view in self.rules if view.latched]
        return tuple(sorted(found, key=lambda view: (view.rule.id != self.first_fault, view.since_ns)))


@dataclass(frozen=True)
class SafetyEvent:
    """Something that happened, for the event log."""

    t_ns: int
    kind: str
    """'interlock.trip', 'interlock.cleared', 'permit.released', 'permit.dropped', 'reset.incomplete', 'mode',
    'first-fault', 'bypass.begun', 'bypass.ended', 'bypass.masked', 'field.*' (`interlocks.field_book`)."""
    data: Mapping[str, Any] = field(default_factory=dict)
