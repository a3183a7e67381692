"""What a post-mortem tells of its trip, for whoever shows it: the four times, the rule, and what else tripped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from interlocks.model import Rule
from rig.post_mortem_file import Recording


@dataclass(frozen=True)
class Told:
    """A rule that tripped, or was present when the recording ended."""

    rule: str
    action: str
    latched: bool
    """Else it was but present."""
    follows: bool
    """It has no cause of its own: the safety controller withholds the permit."""
    value: float | None
    limit: float | None
    """Both in the rule's unit; None where there is none."""
    began_ns: int | None
    """When it was decided, or since when it is present, facility time; None: before the recording."""


def times_of(about: Mapping[str, Any]) -> dict[str, int | None]:
    """t_cause (known only where a fault was injected), t_condition, t_decision, t_off; ns of facility time."""
    decision = int(about["t_decision_ns"])
    begun = [f["at_ns"] for f in about["faults"] if about["from_ns"] <= f["at_ns"] <= decision]
    decided = [rule for rule in about["rules"] if rule["latched"] and rule["t_decision_ns"] == decision]
    return {
        "t_cause": min(begun, default=None),
        "t_condition": decided[0]["t_condition_ns"] if decided else _scanned_ns(about),
        "t_decision": decision,
        "t_off": about["t_off_ns"],
    }


def _scanned_ns(about: Mapping[str, Any]) -> int | None:
    """When the condition of the safety controller's first trip held, with its debounce; None where the file has none,
    as those of processes, whose safety controller keeps a log of its own."""
    found = [trip["t_ns"] for trip in about["trips"] if trip["kind"] == "interlock.trip" and trip["tier"] != "H"]
    return min((int(t_ns) for t_ns in found if t_ns <= about["t_decision_ns"]), default=None)


def main_rule(about: Mapping[str, Any]) -> Rule | None:
    """The rule that decided first, as it stood then; None where the file does not say."""
    decision = about["t_decision_ns"]
    first = [rule["id"] for rule in about["rules"] if rule["latched"] and rule["t_decision_ns"] == decision]
    named = [*first, *(trip.get("id") for trip in about["trips"])]
    for name in named:
        if name in about["definitions"]:
            return rule_of(about["definitions"][name])
    return None


def rule_of(definition: Mapping[str, Any]) -> Rule:
    """A rule as a file has it."""
    return Rule.model_validate({key: tuple(v) if isinstance(v, list) else v for key, v in definition.items()})


def tripped(found: Recording) -> list[Told]:
    """What latched, then fast rules that were present, each in order of time."""
    about = found.about
    rows = []
    for told in about["rules"]:
        latched = bool(told["latched"])
        began_ns = _began_ns(found, told["id"]) if not latched else told["t_decision_ns"] if told["inside"] else None
        rows.append(Told(told["id"], told["action"], latched, _is_echo(about["definitions"].get(told["id"])),
                         told["value"], told["limit"], began_ns))  # fmt: skip
    rows += [Told(trip["id"], trip["action"], True, False, trip["value"], trip["limit"], trip["t_ns"])
             for trip in about["trips"] if trip["kind"] == "interlock.trip" and trip["tier"] != "H"]  # fmt: skip
    return sorted(rows, key=lambda row: (not row.latched, row.began_ns or 0))


def _began_ns(found: Recording, rule_id: str) -> int | None:
    """Since when a fast rule that is present at the end of the recording is; None: since before it."""
    mask = found.column("present") >> list(found.about["rule_ids"]).index(rule_id) & 1
    gone = np.flatnonzero(mask == 0)
    if not gone.size:
        return None
    return int(found.column("t_ns")[min(int(gone[-1]) + 1, len(mask) - 1)])


def _is_echo(definition: Mapping[str, Any] | None) -> bool:
    return definition is not None and rule_of(definition).is_echo
