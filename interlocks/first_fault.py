"""Which rule tripped first: the one whose condition held first, in facility time, whichever tier told of it first."""

from __future__ import annotations

from collections.abc import Sequence

from interlocks.model import Rule
from interlocks.snapshot import RuleView


class FirstFault:
    """The first of the rules that have latched since the permit was released last.

    Args:
        rules: every rule, in the order of the file, which decides between two of the same instant; tier H comes first.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._place = {rule.id: (0 if rule.tier == "H" else 1, place) for place, rule in enumerate(rules)}
        self._found: tuple[int, int, int, str] | None = None
        """Time, tier, place and id."""

    @property
    def id(self) -> str:
        """The rule; empty if none has latched."""
        return "" if self._found is None else self._found[-1]

    def note(self, view: RuleView) -> str:
        """A rule has latched; the rule that was thought to be first if this one was before it, else nothing."""
        earlier, found = self._found, (view.since_ns, *self._place[view.rule.id], view.rule.id)
        self._found = found if earlier is None else min(earlier, found)
        return earlier[-1] if earlier is not None and self._found != earlier else ""

    def forget(self) -> None:
        """The permit is released."""
        self._found = None
