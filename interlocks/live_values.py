"""Live values of fast rules, as far as the process image carries what they judge.

The rack judges them each 10 us and tells value and limit of a trip.  Here those whose inputs are in the image, and
which need no history, are compared once more, for display alone: nothing acts on it.  Of the others a sample now and
then would say nothing, since their signals change from tick to tick; they keep the value of their last trip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from interlocks import evaluator
from interlocks.evaluator import Judgement, Probe
from interlocks.model import IMAGE_NAMES, Rule
from interlocks.snapshot import RuleView


def is_live(rule: Rule) -> bool:
    """The safety controller knows the value of this rule at any time, and not at a trip alone."""
    return rule.tier != "H" or (rule.window_us == 0.0 and all(name in IMAGE_NAMES for name in rule.inputs))


class LiveValues:
    """Views of fast rules with the value of the last image in them.

    Args:
        rules: rules of tier H.
        compare: compares on the last image, `Scanner.compare`.
    """

    def __init__(self, rules: Iterable[Rule], compare: Callable[[Probe], Judgement]) -> None:
        self._probes = {rule.id: evaluator.probe(rule) for rule in rules if is_live(rule)}
        self._compare = compare
        self._shown: dict[str, tuple[RuleView, RuleView]] = {}
        """By rule: a view as it came, and with its value."""

    def of(self, view: RuleView) -> RuleView:
        """The view with value and limit as they are now; the very one of the last time where nothing has changed."""
        probe = self._probes.get(view.rule.id)
        if probe is None:
            return view
        found = self._compare(probe)
        came, shown = self._shown.get(view.rule.id, (None, view))
        if came is view and _same(shown.value, found.value) and _same(shown.limit, found.limit):
            return shown
        shown = replace(view, value=found.value, limit=found.limit)
        self._shown[view.rule.id] = view, shown
        return shown


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
