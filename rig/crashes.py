"""A facility in virtual time that dies at any instant, and another one that goes on with what it has left.

Everything dies at once: plant, safety controller, control, operator. What is left is what outlives a process: the words
of the dose register, and the journal's files as the disk has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from control.plan.program import MachineProgram
from control.session import SessionSummary
from facility.config import Facility
from facility.intensity import spot_tolerance_ions
from facility.pv_catalogue import REGISTER_COLUMNS
from facility.timebase import Rank
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.store import Journal, open_journal, sqlite_url
from journal.verify import verify
from rig.deliver_virtual import JOURNAL_FILE, deliver_in
from rig.virtual_world import World, WorldOptions, WorldParts

REASON = "the facility has died"
LONGEST_S = 5000.0
_IC1 = REGISTER_COLUMNS.index("ic1_ions")


class DeathError(SystemExit):
    """It goes through the event loop like an exit, past every `except Exception`."""


@dataclass
class Left:
    """What a facility leaves, and the truth that nobody in it can see."""

    store: MemoryStore
    folder: Path
    truth: dict[int, np.ndarray] = field(default_factory=dict)
    """Ions by spot, (n,), of all lives together; by layer token."""
    summary: SessionSummary | None = None
    """Of a life that came to its end."""

    @property
    def url(self) -> str:
        """The journal."""
        return sqlite_url(self.folder / JOURNAL_FILE)

    def session(self, facility_id: str) -> str:
        """The one session in the journal; empty if it died before there was one."""
        with closing(open_journal(self.url, facility_id)) as journal:
            found = read.sessions(journal)
        return found[0].session if found else ""


@dataclass(frozen=True)
class Crashes:
    """Lives of one facility with one program.

    Args:
        facility, program: what is delivered, where.
        folder: an empty folder for the journals that are left behind.
    """

    facility: Facility
    program: MachineProgram
    folder: Path

    def deliver(self, seed: int, die_ns: int | None) -> Left:
        """Deliver from the beginning; die at `die_ns` (ns of facility time) if it is not over by then."""
        left = Left(MemoryStore(), self.folder / "begun")
        left.folder.mkdir()
        return self._live(left, seed, die_ns, lambda world: deliver_in(world, self.program)[1])

    def resume(self, left: Left, seed: int, die_ns: int | None) -> Left:
        """Go on with what is left, with a seed that no life before had; die again as in `deliver`."""
        session, program = left.session(self.facility.id), self.program

        async def work(parts: WorldParts) -> SessionSummary:
            operator = parts.operator
            await operator.reset()
            await operator.recover(session, "plan", program.room_id, program.qa, REASON)
            await operator.prepare()
            await operator.start()
            await operator.ended(session, LONGEST_S)
            return await parts.control.sequencer.recorded(LONGEST_S)

        return self._live(left, seed, die_ns, lambda world: world.run(work))

    def _live(self, left: Left, seed: int, die_ns: int | None, run: Callable[[World], SessionSummary]) -> Left:
        with closing(open_journal(left.url, self.facility.id)) as journal:
            world = self._world(left, journal, seed)
            after = self.folder / f"left{seed}"
            if die_ns is not None:
                world.loop.call_at_rank(die_ns, Rank.PLANT, self._die, left, after)
            try:
                left.summary = run(world)
            except DeathError:
                left.summary = None
        for token, rows in world.plant.truth_spots().items():
            before = left.truth.get(token, np.zeros(len(rows)))
            left.truth[token] = before + rows[:, 0]
        return left

    def _world(self, left: Left, journal: Journal, seed: int) -> World:
        program = self.program
        options = WorldOptions(
            load_program=lambda *_: program, mode=Mode.QA if program.qa else Mode.CLINICAL, register_store=left.store,
            journal=journal,
        )  # fmt: skip
        return World(self.facility, program.room_id, program.layers[0].species, seed, options)

    @staticmethod
    def _die(left: Left, after: Path) -> None:
        """Keep what a dead process leaves, as it is at this very instant."""
        left.store = left.store.copy()
        after.mkdir()
        for path in left.folder.glob(f"{JOURNAL_FILE}*"):
            if not path.name.endswith("-shm"):  # memory of processes that are gone
                shutil.copy(path, after / path.name)
        left.folder = after
        raise DeathError

    def objections(self, left: Left) -> list[str]:
        """What is wrong with a session that came to its end, by truth; empty if nothing is.

        No spot over by more than 1 % or 2 counts and what a stop lets through; none under by more than that and what
        was stated as uncertain; the sum over by at most 0.5 %; journal whole, its account that of the prescription.
        """
        session = left.session(self.facility.id)
        with closing(open_journal(left.url, self.facility.id)) as journal:
            found = [broken] if (broken := verify(journal).broken) else []
            booked = {one.layer: one for one in read.layers(journal, session) if one.status != read.ARMING}
        total = 0.0
        for index, layer in enumerate(self.program.layers):
            entry = booked.get(index)
            if entry is None or entry.status != read.VERIFIED:
                found.append(f"layer {index} is not verified in the journal")
                continue
            truth = left.truth.get(layer.token, np.zeros(layer.n_spots))
            total += float(truth.sum())
            per_count = self.facility.ions_per_count(layer.species, layer.energy_mev_u)
            level, target = layer.intensity_ions_per_s, layer.target_ions
            allowed, _ = spot_tolerance_ions(target, level, per_count, float(target.max()))
            found += _spots(index, truth - target, allowed, entry.uncertain)
            account = np.abs(entry.rows[:, _IC1] + entry.uncertain - target)
            if (account > 2.0 * allowed).any():
                found.append(f"layer {index}, spot {int(account.argmax())}: the journal is off by {account.max():.0f}")
        if total > 1.005 * self.program.total_ions:
            found.append(f"{total:.0f} ions in all, prescribed {self.program.total_ions:.0f}")
        return found


def _spots(index: int, error: np.ndarray, allowed: np.ndarray, uncertain: np.ndarray) -> list[str]:
    """Spots of a layer that got too much or too little; all in ions, (n,)."""
    found = []
    for words, beyond in (("over", error - allowed), ("under", -error - allowed - uncertain)):
        if (beyond > 0.0).any():
            spot = int(beyond.argmax())
            found.append(f"layer {index}, spot {spot}: {words} by {abs(error[spot]):.0f} ions")
    return found
