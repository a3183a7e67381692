"""What a campaign found: a function of its seeds and setting alone, whoever ran it; and what it has exercised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control.layer_machine import TABLE, Event, State, matters, refused
from rig.campaign.outcome import Outcome
from rig.campaign.setting import Setting, bench_of, choice_of

SCHEMA = "ionctl.campaign/1"
CONFIDENCE = 0.95
PLANT_EVENTS = ("aborted", "beam-on", "held", "layer-done", "paused", "phase", "room", "spill-end", "trip")


@dataclass(frozen=True)
class Covered:
    """How often each thing of one kind was exercised; 0 is a gap."""

    title: str
    counts: Mapping[str, int]

    @property
    def gaps(self) -> tuple[str, ...]:
        """What was not exercised."""
        return tuple(name for name, count in self.counts.items() if not count)

    @property
    def share(self) -> str:
        """`covered of all`."""
        return f"{len(self.counts) - len(self.gaps)} of {len(self.counts)}"

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"title": self.title, "covered": self.share, "gaps": list(self.gaps), "counts": dict(self.counts)}


@dataclass(frozen=True)
class Report:
    """All outcomes of a campaign, in order of their seeds."""

    setting: Setting
    outcomes: tuple[Outcome, ...]
    shrunk: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Causes that are left of a failing run, by seed."""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Runs that did not keep an invariant."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    @property
    def passed(self) -> bool:
        """All of them."""
        return not self.failed

    @property
    def bound(self) -> float | None:
        """Upper bound of the rate of failures at 95 % confidence; None where something failed."""
        return None if self.failed or not self.outcomes else 1.0 - (1.0 - CONFIDENCE) ** (1.0 / len(self.outcomes))

    @property
    def worst(self) -> Outcome:
        """The run with the greatest surplus of a spot."""
        return max(self.outcomes, key=lambda outcome: (outcome.surplus_pct, -outcome.seed))

    @property
    def ends(self) -> dict[str, int]:
        """Runs by the state in which they ended."""
        return dict(sorted(Counter(outcome.end for outcome in self.outcomes).items()))

    def coverage(self) -> tuple[Covered, ...]:
        """Pairs of state and event, rules, causes and events of the plant."""
        causes = [name for names in choice_of(self.setting).pool.values() for name in names]
        return (
            _covered("states", [s.name for s in State], (_states(o.cells) for o in self.outcomes)),
            _covered("transitions", moves(), (o.cells for o in self.outcomes)),
            _covered("refusals", refusals(), (o.cells for o in self.outcomes)),
            _covered("rules tripped", [r.id for r in bench_of(self.setting).rules.rules if r.latches],
                     (o.rules for o in self.outcomes)),
            _covered("causes", causes, (o.happened for o in self.outcomes)),
            _covered("plant events", PLANT_EVENTS, (o.plant_events for o in self.outcomes)),
        )  # fmt: skip

    def to_data(self) -> dict[str, Any]:
        """JSON-ready; the same however the runs were spread."""
        return {
            "schema": SCHEMA,
            "facility": self.setting.facility,
            "plan": self.setting.plan,
            "faults": list(self.setting.faults),
            "first_seed": self.outcomes[0].seed if self.outcomes else None,
            "runs": len(self.outcomes),
            "failed": len(self.failed),
            "failure_rate_below": self.bound,
            "ends": self.ends,
            "resumes": sum(outcome.resumes for outcome in self.outcomes),
            "worst_surplus": {"seed": self.worst.seed, "ions": self.worst.surplus_ions, "pct": self.worst.surplus_pct},
            "coverage": [covered.to_data() for covered in self.coverage()],
            "failures": [o.to_data() | {"shrunk": list(self.shrunk.get(o.seed, ()))} for o in self.failed],
        }


def moves() -> list[str]:
    """Pairs of the layer machine's table that move or do something."""
    return [_pair(state, event) for state, event in _cells() if matters(state, event) and not refused(state, event)]


def refusals() -> list[str]:
    """Pairs that refuse what a person asks for; RESELECT is control's own name for a RESUME."""
    return [_pair(state, event) for state, event in _cells() if refused(state, event) and event is not Event.RESELECT]


def _cells() -> list[tuple[State, Event]]:
    """Of the layer machine's table, which is in no order of its own from one process to the next."""
    return [(state, event) for state in State for event in Event if (state, event) in TABLE]


def _states(cells: Iterable[str]) -> set[str]:
    """Where the transitions of a run began and led."""
    pairs = [cell.split() for cell in cells]
    return {name for state, event in pairs for name in (state, TABLE[State[state], Event[event]][0].name)}


def _pair(state: State, event: Event) -> str:
    return f"{state.name} {event.name}"


def _covered(title: str, names: Iterable[str], seen: Iterable[Iterable[str]]) -> Covered:
    counted = Counter(name for found in seen for name in found)
    return Covered(title, {name: counted[name] for name in names})
