"""What a trial found: the four times, the surplus, the verdict. Plain data, JSON-ready."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from interlocks.model import Rule

if TYPE_CHECKING:
    from rig.trials.near_run import NearTimes

SCHEMA = "ionctl.trial-results/1"


@dataclass(frozen=True)
class TrialResult:
    """One rule, tried in one state."""

    rule: str
    tier: str
    action: str
    state: str
    variant: str
    """What had failed beside the cause; empty for nothing."""
    seed: int
    t_cause_ns: int
    t_condition_ns: int | None
    """When the rule's condition, with window and debounce, held on the signals it sees; None where it never did."""
    t_decision_ns: int | None
    """Tier H: end of the tick that decided. Tier P: when the rack's line fell."""
    t_off_ns: int | None
    """Last instant with beam; None where there was none after the cause."""
    bound_us: float
    """Cause to beam off: what the rule promises, and `builds_up_ms` of the trial."""
    surplus_ions: float
    """All that crossed the isocentre plane after the cause."""
    surplus_bound_ions: float
    surplus_pct: float
    """Of the spot in which the cause began; 0 where there was none."""
    surplus_bound_pct: float
    surplus_mgy: float
    """At the peak in water, as if all of it had come as one spot."""
    surplus_bound_mgy: float
    words: str
    """What the operator reads."""
    refused: str
    """Why a reset was refused while the cause stood; empty where the rule does not see it without beam."""
    failures: tuple[str, ...]
    near_share: float | None = None
    """Share of its limit to which the quantity was brought; None where the cause takes it far beyond. With one, neither
    condition nor bound nor surplus is looked for: 0 there, or None."""
    t_looked_ns: int | None = None
    """Near a limit: until when it was looked at."""

    @property
    def tripped(self) -> bool:
        """There was a decision."""
        return self.t_decision_ns is not None

    @property
    def passed(self) -> bool:
        """Nothing to object to."""
        return not self.failures

    @property
    def decided_us(self) -> float | None:
        """Condition to decision."""
        return _us(self.t_condition_ns, self.t_decision_ns)

    @property
    def acted_us(self) -> float | None:
        """Decision to beam off; None without beam."""
        return _us(self.t_decision_ns, self.t_off_ns)

    @property
    def reacted_us(self) -> float | None:
        """Cause to beam off; None without beam."""
        return _us(self.t_cause_ns, self.t_off_ns)

    @property
    def name(self) -> str:
        """Rule, state and variant as one word."""
        return "/".join(filter(None, (self.rule, self.state, self.variant)))

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {
            "decided_us": self.decided_us,
            "acted_us": self.acted_us,
            "reacted_us": self.reacted_us,
            "tripped": self.tripped,
            "passed": self.passed,
        }


def broken(rule: Rule, state: str, variant: str, seed: int, cause_ns: int, problem: Exception) -> TrialResult:
    """A trial that could not be carried out: failed, with the reason."""
    return TrialResult(
        rule.id, rule.tier, rule.action, state, variant, seed, cause_ns, None, None, None, 0.0, 0.0, 0.0, 0.0, 0.0,
        0.0, 0.0, "", "", (f"the trial could not be carried out: {type(problem).__name__}: {problem}",),
    )  # fmt: skip


def near_result(
    rule: Rule, seed: int, share: float, told: str, times: NearTimes, words: str, failures: tuple[str, ...]
) -> TrialResult:
    """A quantity at a share of its limit: whether it tripped, and when. No bound from the cause on: readings lag."""
    return TrialResult(
        rule.id, rule.tier, rule.action, "spot", told, seed, times.cause, None, times.decision, times.off, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0, words, "", failures, share, times.until,
    )  # fmt: skip


def _us(begin_ns: int | None, end_ns: int | None) -> float | None:
    return None if begin_ns is None or end_ns is None else (end_ns - begin_ns) / 1000.0
