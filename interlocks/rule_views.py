"""All rules as they stand, whichever part of the safety controller knows of each."""

from __future__ import annotations

from interlocks.bypass_desk import BypassDesk
from interlocks.fast_mirror import FastMirror
from interlocks.live_values import LiveValues
from interlocks.model import Rule
from interlocks.pair import EvaluatorPair
from interlocks.rules import RuleSet
from interlocks.snapshot import RuleView


class RuleViews:
    """Views of the rules, with their bypasses in them."""

    def __init__(self, rules: RuleSet, fast: FastMirror, pair: EvaluatorPair, bypasses: BypassDesk) -> None:
        self._rules = rules
        self._fast = fast
        self._pair = pair
        self._bypasses = bypasses
        self._live = LiveValues(rules.h, pair.first.compare)

    def all(self, *, live: bool = True) -> tuple[RuleView, ...]:
        """In the order of the file; not `live`: fast rules with what they compared when they tripped last."""
        views = (self._view(rule, live) for rule in self._rules.rules)
        return tuple(map(self._bypasses.shown, views) if self._bypasses.rules else views)

    def latched_ids(self) -> tuple[str, ...]:
        """Rules that are latched."""
        return tuple(view.rule.id for view in self.all(live=False) if view.latched)

    def _view(self, rule: Rule, live: bool) -> RuleView:
        if rule is self._rules.comparison:
            return self._pair.agreement.view(rule)
        if rule.tier != "H":
            return self._pair.first.view(rule.id)
        return self._live.of(self._fast.view(rule.id)) if live else self._fast.view(rule.id)
