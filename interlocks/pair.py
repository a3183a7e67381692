"""Both evaluators of the safety controller and what holds them together: one image, one judgement, a comparison.

The first judges and latches; the second, generated and with its own copy of the image, judges the same; whatever they
differ in is the comparison's (`agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import invert

import numpy as np
from numpy.typing import NDArray

from facility.states import Action
from interlocks import process_image
from interlocks.agreement import Agreement
from interlocks.latch import Effect
from interlocks.rules import RuleSet
from interlocks.scanner import Scanner
from interlocks.second import SecondEvaluator


class EvaluatorPair:
    """The rules of tiers P and T, judged twice."""

    def __init__(self, rules: RuleSet) -> None:
        self.first = Scanner(rules.scanned)
        self.second = SecondEvaluator(rules)
        self.agreement = Agreement(rules.comparison, [rule.id for rule in rules.scanned])
        self.same_image = True
        """Image and complement said the same."""

    def take(self, image: NDArray[np.int32], complement: Sequence[int], t_ns: int) -> None:
        """An image of `t_ns`, and the own copy of the second evaluator, bitwise inverted."""
        self.first.take(process_image.decode(image), t_ns)
        self.same_image = image.tolist() == [*map(invert, complement)]
        if len(complement) == len(image):
            self.second.take(complement, t_ns)

    def judge(self, own: Sequence[int], fresh: bool, now_ns: int, permitted: bool) -> list[tuple[str, Effect]]:
        """Let the first evaluator judge: what has changed, by rule."""
        return self.first.judge(own, fresh, now_ns, permitted)

    def compare(self, own: Sequence[int], fresh: bool, now_ns: int, permitted: bool) -> bool:
        """Let the second judge the same, and hold what it finds against the first; True if that trips."""
        first = self.first.decisions()
        self.second.judge(own, fresh, now_ns, [good for good, _, _ in first], permitted)
        return self.agreement.compare(first, list(self.second.decisions()), self.same_image, now_ns)

    @property
    def action(self) -> Action:
        """Strongest action in force, that of a disagreement included."""
        return max(self.first.action, self.agreement.action)

    def bypass(self, rules: frozenset[str]) -> None:
        """From now on these rules are shown as they are and act no more."""
        self.first.bypass(rules)
        self.second.bypass(rules)

    def reset(self, role: str, now_ns: int) -> None:
        """Let go of all latches that this role may reset and whose cause is gone, in both and of the comparison."""
        self.first.reset(role, now_ns)
        self.second.reset(role)
        self.agreement.reset(role)
