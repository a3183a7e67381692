"""Where causes may begin: instants of a delivery, and what it does from here on when nothing fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facility.constants import TICK_NS
from facility.errors import InternalError
from facility.states import FrontEndState
from rig.branch import Emit, branch
from rig.trials.truth import Ticks, ticks
from rig.virtual_world import World

MS_NS = 1_000_000
LOOK_S = 0.08
"""How far ahead of the trials a delivery without a fault is looked at for spots and moves."""
SPAN_NS = 15 * MS_NS
"""In a state that lasts, causes begin within so long."""
LEAD_NS = 2 * MS_NS
_DEMAND, _SPILL, _STATE_SHIFT = 1 << 1, 1 << 2, 8


@dataclass(frozen=True)
class Instants:
    """Where causes may begin: ends of ticks (ns), and the spot at each; shape (n,)."""

    t_ns: npt.NDArray[np.int64]
    spot: npt.NDArray[np.int64]

    @classmethod
    def spread(cls, begin_ns: int) -> Instants:
        """Anywhere in a state that lasts."""
        t_ns = np.arange(begin_ns + LEAD_NS, begin_ns + LEAD_NS + SPAN_NS, TICK_NS, dtype=np.int64)
        return cls(t_ns, np.full(t_ns.shape, -1, dtype=np.int64))

    def draw(self, random: np.random.Generator) -> tuple[int, int]:
        """An instant within a tick, on no grid; and the spot."""
        if not self.t_ns.size:
            raise InternalError("trials.state", "the delivery never comes into this state", "rig.trials.instants")
        i = int(random.integers(self.t_ns.size))
        return int(self.t_ns[i]) - int(random.integers(TICK_NS)), int(self.spot[i])


async def look_ahead(world: World) -> Ticks:
    """What the delivery does from here on when nothing fails."""
    found: list[Ticks] = []
    now_ns = world.loop.now_ns()

    async def work(send: Emit) -> None:
        await asyncio.sleep(LOOK_S)
        send(ticks(world.plant, now_ns + LEAD_NS))

    await branch(work, found.append)
    return found[0]


def beam_on(seen: Ticks) -> npt.NDArray[np.bool_]:
    """Ticks of a spot with beam."""
    return np.asarray(_irradiating(seen) & ((seen.flags & _DEMAND) != 0) & ((seen.flags & _SPILL) != 0))


def beam_off(seen: Ticks) -> npt.NDArray[np.bool_]:
    """Ticks of a move without beam."""
    return np.asarray(_irradiating(seen) & ((seen.flags & (_DEMAND | _SPILL)) == 0))


def _irradiating(seen: Ticks) -> npt.NDArray[np.bool_]:
    return np.asarray((seen.flags >> _STATE_SHIFT) & 0xF == FrontEndState.IRRADIATING)
