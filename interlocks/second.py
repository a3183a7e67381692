"""The second evaluator at work: generated code, compiled once, over its own complemented copy of the process image.

It shares with the first evaluator the configuration, the layout of the image and the instants at which it is asked, and
no line of code.  Its image is made from the bytes of the frame itself, complemented, when the frame is received: what
goes wrong between reception and judgement, in either copy, makes the two differ.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from operator import invert
from types import CodeType
from typing import Any

from interlocks.generate import generate
from interlocks.own_inputs import AGREE_INPUT, OWN_INPUTS
from interlocks.rules import RuleSet

_RANKS = {"operator": 1, "physicist": 2}
_KEPT = 64


def complement_of(payload: bytes, count: int) -> tuple[int, ...]:
    """Bitwise complement of the first `count` codes of a frame's payload, straight from its bytes."""
    return tuple(map(invert, struct.unpack_from(f">{count}i", payload)))


def source_of(rules: RuleSet) -> str:
    """The source of the second evaluator for a rule set."""
    return generate(rules.canonical, OWN_INPUTS, AGREE_INPUT)


@lru_cache(maxsize=_KEPT)
def _compiled(canonical: bytes) -> CodeType:
    return compile(generate(canonical, OWN_INPUTS, AGREE_INPUT), "<second evaluator>", "exec")


class SecondEvaluator:
    """Generated rules with their memory."""

    def __init__(self, rules: RuleSet) -> None:
        self.code: dict[str, Any] = {"__name__": "second_evaluator"}
        exec(_compiled(rules.canonical), self.code)
        self._memory = self.code["Memory"]()

    def take(self, complement: Sequence[int], t_ns: int) -> None:
        """A fresh image as its complement, and when it was taken (ns)."""
        self.code["take"](self._memory, [*map(invert, complement)], t_ns)

    def judge(
        self, own: Sequence[int], fresh: bool, now_ns: int, first: Sequence[bool], permitted: bool = True
    ) -> None:
        """Judge all rules; `own` are the controller's own inputs as integers, `first` what the other evaluator found,
        which counts where a value lies exactly at a limit that is computed from two; `permitted`: there is a permit, or
        a field is under way."""
        self.code["judge"](self._memory, own, fresh, now_ns, first, permitted)

    def bypass(self, rules: Collection[str]) -> None:
        """These rules latch no more, all others do."""
        self.code["bypass"](self._memory, rules)

    def reset(self, role: str) -> None:
        """Let go of all latches that this role may reset and whose cause is gone."""
        self.code["reset"](self._memory, _RANKS.get(role, 0))

    def boxes(self) -> Iterator[tuple[int, float, float]]:
        """Places of the image with the codes within which the rules with limits do not change their minds."""
        for place, low, high in self.code["boxes"](self._memory):
            yield place, -math.inf if low is None else low, math.inf if high is None else high

    def decisions(self) -> Iterator[tuple[bool, bool, bool]]:
        """Good, present and latched of each rule, in the order of `RuleSet.scanned`."""
        memory = self._memory
        return zip(memory.good, memory.present, memory.latched, strict=True)
