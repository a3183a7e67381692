"""What the safety controller knows of the fast tier: its masks, and value and limit of rules as they latch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from facility.states import Action
from interlocks.model import Rule
from interlocks.process_image import PLACE, FastFault, OtherFault, mask_of
from interlocks.snapshot import RuleView

_PINNED = ("h.latched", "h.latched_high", "h.present", "h.present_high", "h.first")


class FastMirror:
    """Present and latched fast rules, as the process image tells."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._views = [RuleView(rule) for rule in rules]
        self._place = {rule.id: i for i, rule in enumerate(rules)}
        self._known = (1 << len(rules)) - 1
        self._codes: dict[str, float] = {name: float("nan") for name in _PINNED}
        self.present_mask = 0
        self.latched_mask = 0
        """Latched rules.  An invalid mask counts as all of them."""
        self.bypassed_mask = 0
        """Rules that are shown as they are and act no more; set by the controller."""

    def take(self, image: NDArray[np.int32], fault: FastFault, now_ns: int) -> list[str]:
        """Follow an image; ids of the rules that have latched since, the first fault first."""
        latched = mask_of(image, "h.latched") & self._known
        present = mask_of(image, "h.present") & self._known
        self._codes = {name: float(image[PLACE[name]]) for name in _PINNED}
        if (latched, present) == (self.latched_mask, self.present_mask):
            return []
        new = _places(latched & ~self.latched_mask)
        for i in _places((latched ^ self.latched_mask) | (present ^ self.present_mask)):
            self._views[i] = replace(self._views[i], present=bool(present >> i & 1), latched=bool(latched >> i & 1))
        told: dict[int, FastFault | OtherFault] = {other.rule: other for other in fault.others}
        told[fault.rule] = fault
        for i in new:
            self._views[i] = _tripped(self._views[i], told.get(i), now_ns)
        self.latched_mask, self.present_mask = latched, present
        new.sort(key=lambda i: (i != fault.rule, i))
        return [self._views[i].rule.id for i in new]

    @property
    def acting_mask(self) -> int:
        """Latched rules that are not bypassed."""
        return self.latched_mask & ~self.bypassed_mask

    @property
    def acting(self) -> Action:
        """Strongest action of these."""
        mask = self.acting_mask
        if not mask:
            return Action.NONE
        return max(view.rule.strength for i, view in enumerate(self._views) if mask >> i & 1)

    @property
    def resettable_mask(self) -> int:
        """Latches that a reset speaks of: not those of a bypassed rule that is present, which would not go."""
        return self.latched_mask & ~(self.bypassed_mask & self.present_mask)

    def ids(self, mask: int) -> list[str]:
        """Rules in a mask."""
        return [view.rule.id for place, view in enumerate(self._views) if mask >> place & 1]

    def present_ids(self) -> list[str]:
        """Rules that are present."""
        return [view.rule.id for view in self._views if view.present] if self.present_mask else []

    def boxes(self) -> Iterator[tuple[int, float, float]]:
        """Any change of the masks is news."""
        for name, code in self._codes.items():
            yield PLACE[name], code, code

    def view(self, rule_id: str) -> RuleView:
        """A rule as it stands."""
        return self._views[self._place[rule_id]]

    def views(self) -> list[RuleView]:
        """All fast rules as they stand, in their order; the very view of the last time where nothing has changed."""
        return self._views


def _places(mask: int) -> list[int]:
    """Places of the bits that are set."""
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


def _tripped(view: RuleView, fault: FastFault | OtherFault | None, now_ns: int) -> RuleView:
    if fault is None:
        return replace(view, since_ns=now_ns, trip_value=float("nan"), trip_limit=float("nan"))
    return replace(
        view,
        since_ns=fault.t_ns,
        value=fault.value,
        limit=fault.limit,
        trip_value=fault.value,
        trip_limit=fault.limit,
    )
