"""The first fault: by time, at one instant by tier, then by the order of the file."""

from __future__ import annotations

import pytest

from interlocks.first_fault import FirstFault
from interlocks.snapshot import RuleView
from tests.interlocks.support import body, several

RULES = several(
    body(id="p-one", tier="P"), body(id="h-one"), body(id="p-two", tier="P"), body(id="h-two")
).rules  # fmt: skip
NAMED = {rule.id: rule for rule in RULES}


def first_of(*heard: tuple[str, int]) -> tuple[str, list[str]]:
    """The first fault and what each note has said, for rules that latch in this order, with their instants."""
    # a file may name a rule of tier P before one of tier H
    it = FirstFault([NAMED[name] for name in ("p-one", "h-one", "p-two", "h-two")])
    said = [it.note(RuleView(NAMED[name], latched=True, since_ns=since_ns)) for name, since_ns in heard]
    return it.id, said


@pytest.mark.parametrize(
    ("heard", "first", "said"),
    [
        ([], "", []),
        ([("p-one", 5)], "p-one", [""]),
        ([("p-one", 5), ("h-one", 6)], "p-one", ["", ""]),
        ([("p-one", 5), ("h-one", 4)], "h-one", ["", "p-one"]),
        ([("p-one", 5), ("h-one", 5)], "h-one", ["", "p-one"]),
        ([("h-two", 5), ("p-one", 5)], "h-two", ["", ""]),
        ([("p-two", 5), ("p-one", 5)], "p-one", ["", "p-two"]),
        ([("h-two", 5), ("h-one", 5), ("h-two", 5)], "h-one", ["", "h-two", ""]),
    ],
)
def test_the_first_is_by_time_then_by_tier_then_by_the_file(
    heard: list[tuple[str, int]], first: str, said: list[str]
) -> None:
    assert first_of(*heard) == (first, said)


def test_with_the_permit_all_is_forgotten() -> None:
    it = FirstFault(RULES)
    it.note(RuleView(NAMED["h-one"], since_ns=1))
    it.forget()
    assert it.id == ""
    assert it.note(RuleView(NAMED["h-two"], since_ns=2)) == ""
    assert it.id == "h-two"
