"""PVs of the single rules, made from the rules themselves: present, latched, value and limit, each of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from facility.pv_catalogue import PvEntry
from interlocks.explain import condition
from interlocks.model import Rule

ABSENT_PRESENT = ("ABSENT", "PRESENT")
CLEAR_LATCHED = ("CLEAR", "LATCHED")

ACTS_BYPASSED = ("ACTS", "BYPASSED")


def base_name(rule: Rule) -> str:
    """First part of the rule's PV names, without the facility's prefix."""
    return f"SAFE:{rule.id.upper()}"


def rule_entries(rule: Rule) -> Iterator[PvEntry]:
    """The PVs of a rule."""
    base = base_name(rule)
    unit = "" if rule.unit in ("bool", "1") else rule.unit
    yield PvEntry(f"{base}:Present-Sts", "safety", base, "enum", f"{rule.title}: condition now", states=ABSENT_PRESENT)
    yield PvEntry(f"{base}:Latched-Sts", "safety", base, "enum", f"{rule.title}: latch", states=CLEAR_LATCHED)
    yield PvEntry(f"{base}:Bypassed-Sts", "safety", base, "enum", f"{rule.title}: bypass", states=ACTS_BYPASSED)
    yield PvEntry(f"{base}:Value-RB", "safety", base, "float", f"{rule.title}: value compared", unit, 6)
    yield PvEntry(f"{base}:Limit-RB", "safety", base, "float", f"must hold: {condition(rule)}", unit, 6)


@lru_cache(maxsize=4)
def entries(rules: tuple[Rule, ...]) -> tuple[PvEntry, ...]:
    """The PVs of all rules, in the order of the file."""
    return tuple(entry for rule in rules for entry in rule_entries(rule))
