"""When things happen in a delivery that nothing goes wrong in: what the moments of scenarios refer to.

A run is a function of facility, plan, seed and mode until the first fault, so the same delivery, run once without one,
says to the tick when spot 12 of layer 1 is half delivered. It is run once and kept for all scenarios that share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.constants import TICK_NS
from facility.errors import ConfigError
from facility.events import Event
from rig.scenario.model import Moment

MS_NS = 1_000_000
NOT_SET = -1


@dataclass
class Timeline:
    """What a fault-free delivery does, by truth and by its events."""

    tokens: tuple[int, ...]
    """Of the layers, in order."""
    started_ns: int = 0
    """When START was done."""
    trace: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    """Raw ticks, `TRUTH_DTYPE`."""
    states: list[tuple[int, str, int]] = field(default_factory=list)
    """Control: when, which state, in which layer."""
    phases: list[tuple[int, str, int]] = field(default_factory=list)
    """Ring: when, which phase, token."""

    @classmethod
    def of(
        cls, tokens: Iterable[int], started_ns: int, trace: npt.NDArray[Any], events: Iterable[Event]
    ) -> Timeline:  # fmt: skip
        """Of a delivery that is over, from its raw ticks and its events."""
        found = cls(tuple(tokens), started_ns, trace)
        for event in events:
            if event.kind == "state" and event.source == "control":
                found.states.append((event.t_ns, str(event.data["to"]), int(event.data.get("layer", 0))))
            elif event.kind == "phase":
                found.phases.append((event.t_ns, str(event.data["phase"]), int(event.data["token"])))
        return found

    def edges_ns(self) -> npt.NDArray[np.int64]:
        """Ticks in which the beam leaves a spot for another one, or for none."""
        return np.asarray(self.trace["t_ns"][np.flatnonzero(np.diff(self.trace["spot"]) != 0) + 1])

    def instant_ns(self, at: Moment, where: str = "scenario") -> int:
        """When the moment is; ConfigError if it never comes."""
        t_ns = self._instant_ns(at, where) + round(at.after_ms * MS_NS)
        if t_ns < self.started_ns:
            what = f"{at.after_ms:g} ms puts it before START"
            raise ConfigError("scenario.moment", what, f"{where}, key at.after_ms", "give a later moment")
        return t_ns

    def _instant_ns(self, at: Moment, where: str) -> int:
        if at.layer >= len(self.tokens):
            raise ConfigError("scenario.moment", f"layer {at.layer} of {len(self.tokens)}", f"{where}, key at.layer",
                              f"give 0 to {len(self.tokens) - 1}")  # fmt: skip
        token = self.tokens[at.layer]
        if at.spot is not None:
            return self._spot_ns(at, token, where)
        if at.phase is not None:
            return self._first(
                [t for t, phase, of in self.phases if phase == at.phase and of == token], at.phase, where
            )
        if at.state is not None:
            return self._first([t for t, s, i in self.states if s == at.state and i == at.layer], at.state, where)
        if at.beam_ms is not None:
            beam = self.trace[(self.trace["token"] == token) & (self.trace["ions"] > 0)]
            return self._first([int(beam["t_ns"][0])] if beam.size else [], "beam", where) + round(at.beam_ms * MS_NS)
        return self.started_ns

    def _spot_ns(self, at: Moment, token: int, where: str) -> int:
        mine = self.trace[self.trace["token"] == token]
        ions = _ions_of(mine, at.spot or 0)
        if not ions.any():
            last = int(mine["spot"].max()) if mine.size else NOT_SET
            raise ConfigError("scenario.moment", f"spot {at.spot} of layer {at.layer} never has beam",
                              f"{where}, key at.spot", f"give 0 to {last}")  # fmt: skip
        if at.move:
            after = mine[(mine["t_ns"] > mine["t_ns"][np.flatnonzero(ions)[-1]]) & (mine["spot"] == (at.spot or 0) + 1)]
            still = after[after["ions"] == 0]["t_ns"]
            if not still.size:
                raise ConfigError("scenario.moment", f"no pause of the beam after spot {at.spot}",
                                  f"{where}, key at.spot", "name a spot before a wide gap")  # fmt: skip
            return int(still[len(still) // 2])
        share = np.cumsum(ions) / ions.sum()
        k = max(int(np.searchsorted(share, at.fraction)), int(np.flatnonzero(ions)[0]))
        return int(mine["t_ns"][min(k, len(mine) - 1)]) - TICK_NS // 2

    @staticmethod
    def _first(found: list[int], what: str, where: str) -> int:
        if not found:
            raise ConfigError("scenario.moment", f"{what} never comes in this layer", f"{where}, key at",
                              "look at what the delivery does: ionctl deliver --target virtual")  # fmt: skip
        return found[0]


def _ions_of(ticks: npt.NDArray[Any], spot: int) -> npt.NDArray[np.int64]:
    """Ions of a spot in each tick of its layer, (n,): those before the set point moved on are of the spot before."""
    before = ticks["ions_previous_spot"].astype(np.int64)
    old = np.concatenate((ticks["spot"][:1], ticks["spot"][:-1]))
    return np.where(old == spot, before, 0) + np.where(ticks["spot"] == spot, ticks["ions"] - before, 0)
