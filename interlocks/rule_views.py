"""All rules as they stand, whichever part of the safety controller knows of each."""

from __future__ import annotations

from interlocks.bypass_desk import BypassDesk
from interlocks.fast_mirror import FastMirror
from interlocks.live_values import LiveValues
from interlocks.pair import EvaluatorPair
from interlocks.rules import RuleSet
from interlocks.snapshot import RuleView


class RuleViews:
    """Views of the rules, with their bypasses in them."""

    def __init__(self, rules: RuleSet, fast: FastMirror, pair: EvaluatorPair, bypasses: BypassDesk) -> None:
        self._fast = fast
        self._pair = pair
        self._bypasses = bypasses
        self._live = LiveValues(rules.h, pair.first.compare)
        self._compared = () if rules.comparison is None else (rules.comparison,)
        found = [rule.id for rule in (*rules.h, *rules.scanned, *self._compared)]
        self._places = [found.index(rule.id) for rule in rules.rules]
        """Where the rules of the file stand among the fast ones, those that are scanned, and the comparison."""

    def all(self, *, live: bool = True) -> tuple[RuleView, ...]:
        """In the order of the file; not `live`: fast rules with what they compared when they tripped last."""
        fast = self._fast.views()
        found = [*map(self._live.of, fast)] if live else [*fast]
        found += self._pair.first.views()
        found += map(self._pair.agreement.view, self._compared)
        views = [found[place] for place in self._places]
        return tuple(map(self._bypasses.shown, views) if self._bypasses.rules else views)

    def latched_ids(self) -> tuple[str, ...]:
        """Rules that are latched."""
        return tuple([view.rule.id for view in self.all(live=False) if view.latched])
