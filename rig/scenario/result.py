"""What a scenario came to: times by raw ticks, doses by truth, answers, verdict. Plain data, JSON-ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rig.scenario.model import Scenario

SCHEMA = "ionctl.scenario-results/1"
Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class FinalDose:
    """By truth, at the end."""

    spots: int
    beyond: int
    """Out of tolerance."""
    worst_pct: float
    """Of the layer's heaviest spot."""
    total_error_pct: float
    unplanned_ions: float

    @property
    def nothing(self) -> bool:
        """No ion of the plan came: nobody began the field."""
        return self.total_error_pct <= -100.0


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario on one target."""

    id: str
    title: str
    target: str
    rules: tuple[str, ...]
    hazards: Mapping[str, str]
    """By rule; by '' where the scenario itself says it."""
    tiers: tuple[str, ...]
    recovery: str | None
    source: str
    seed: int
    facility: str
    facility_hash: str
    rules_hash: str
    plan_hash: str
    verdict: Verdict
    reason: str = ""
    """Why it was skipped."""
    failures: tuple[str, ...] = ()
    t_cause_ns: int | None = None
    t_decision_ns: int | None = None
    """When the condition of the first rule held, as whoever judges it says."""
    t_off_ns: int | None = None
    """Last instant with beam by raw ticks; None where there was none after the cause."""
    bound_us: float | None = None
    surplus_ions: float = 0.0
    surplus_bound_ions: float = 0.0
    first: str = ""
    latched: tuple[str, ...] = ()
    words: str = ""
    state: str = ""
    """Of control, once it had settled."""
    end: str = ""
    reset_by: str = ""
    answers: tuple[tuple[str, str, str], ...] = ()
    """Who asked for what, and 'done' or the code of the refusal."""
    final: FinalDose | None = None
    digest: str = ""
    """SHA-256 of the event log: two runs with the same one are the same run."""
    trace: Mapping[str, Any] | None = field(default=None, repr=False)
    """What `rig.scenario.trace` draws, where traces were asked for."""
    wall_s: float | None = field(default=None, repr=False, compare=False)
    """What the run took, by a clock on the wall: told to a CI alone, since no two runs take the same."""

    @property
    def passed(self) -> bool:
        """Run, and nothing to object to."""
        return self.verdict == "passed"

    @property
    def off_us(self) -> float | None:
        """From the cause to beam off."""
        return None if self.t_cause_ns is None or self.t_off_ns is None else (self.t_off_ns - self.t_cause_ns) / 1e3

    def to_data(self) -> dict[str, Any]:
        """JSON-ready, without the picture's data and without what no two runs share."""
        data = asdict(self)
        del data["trace"], data["wall_s"]
        return data | {"hazards": dict(self.hazards), "off_us": self.off_us}


def no_result(
    scenario: Scenario, target: str, source: str, verdict: Verdict, words: str, **more: Any
) -> ScenarioResult:
    """Skipped, with the reason; or failed, since it could not be carried out."""
    failures, reason = ((words,), "") if verdict == "failed" else ((), words)
    facts = {"hazards": {}, "tiers": (), "facility_hash": "", "rules_hash": "", "plan_hash": "", **more}
    return ScenarioResult(
        scenario.id, scenario.title, target, scenario.rules, recovery=scenario.recovery, source=source,
        seed=scenario.seed, facility=scenario.facility, verdict=verdict, reason=reason, failures=failures, **facts,
    )  # fmt: skip
