"""Compares the two evaluators of the safety controller after every scan; whatever they differ in is an ABORT.

It stands outside both and shares no step with them, not even the latch: a stuck evaluator cannot hide that it is stuck.
Of every rule the comparison, the presence (which has debounce and heartbeat in it) and the latch are compared, and the
image of the one with the complement of the other's.  A latch that only one of them has is a trip once, and goes from
both with the reset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from facility.states import Action
from interlocks.model import Rule
from interlocks.snapshot import RuleView

Decision = tuple[bool, bool, bool]
"""Good, present, latched."""
ROLE = "physicist"
"""Who may let go of it."""


class Agreement:
    """Whether two evaluators agree, with a latch of its own.

    Args:
        rule: the rule that speaks of it; None for a rule set without one, where nothing stays when they agree again.
        ids: the rules that both judge, in their order.
    """

    def __init__(self, rule: Rule | None, ids: Sequence[str]) -> None:
        self.rule = rule
        self.good = True
        """Both agree in what is so now."""
        self.latched = False
        self.differing: tuple[str, ...] = ()
        """Rules in which they differ."""
        self._ids = tuple(ids)
        self._one_sided: frozenset[int] = frozenset()
        """Latches that only one of them has, known since an earlier comparison."""
        self._since_ns: int | None = None
        """When it tripped last; None before the first time."""

    def compare(self, first: Sequence[Decision], second: Sequence[Decision], same_image: bool, now_ns: int) -> bool:
        """Compare; True if this trips."""
        differing, one_sided = [], set()
        for k, (one, other) in enumerate(zip(first, second, strict=True)):
            if one == other:
                continue  # by far the commonest
            if one[:2] != other[:2]:
                differing.append(self._ids[k])
            if one[2] != other[2]:
                one_sided.add(k)
        new = one_sided - self._one_sided
        self._one_sided = frozenset(one_sided)
        self.differing = tuple(differing) + tuple(self._ids[k] for k in sorted(new))
        self.good = same_image and not self.differing
        if self.good or self.latched:
            return False
        self.latched = self.rule is not None
        self._since_ns = now_ns
        return True

    @property
    def action(self) -> Action:
        """In force now."""
        return Action.NONE if self.good and not self.latched else Action.ABORT

    def reset(self, role: str) -> None:
        """Let go of the latch, if the role may and the two agree again."""
        if role == ROLE and self.good:
            self.latched = False
            self._one_sided = frozenset()

    def view(self, rule: Rule) -> RuleView:
        """The rule as it stands."""
        tripped = (math.nan, math.nan) if self._since_ns is None else (0.0, 1.0)
        return RuleView(rule, not self.good, self.latched, float(self.good), 1.0, *tripped, self._since_ns or 0)
