"""What became of a run: plain data, JSON-ready, small enough to keep thousands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """One run, judged."""

    seed: int
    end: str
    """State of control at the end; `broken` where the run itself failed."""
    causes: tuple[str, ...]
    """What went wrong, in words, in the order drawn."""
    happened: tuple[str, ...] = ()
    """Kinds of causes that did come about."""
    failures: tuple[str, ...] = ()
    """Invariants that did not hold; empty: passed."""
    rules: tuple[str, ...] = ()
    """Rules that tripped, sorted."""
    cells: tuple[str, ...] = ()
    """`STATE EVENT` of the layer machine's table, sorted: taken, or refused."""
    plant_events: tuple[str, ...] = ()
    resumes: int = 0
    """How often somebody went on: resumed, or started anew after a termination."""
    resets: int = 0
    surplus_ions: float = 0.0
    """Of the spot that got most too much."""
    surplus_pct: float = 0.0
    """The same, of the heaviest spot of its layer."""
    facility_s: float = 0.0
    digest: str = ""
    """SHA-256 of the event log and of the raw ticks; only where it was asked for."""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Nothing to object to."""
        return not self.failures

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"passed": self.passed}
