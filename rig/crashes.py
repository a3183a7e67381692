"""A facility in virtual time that dies at any instant, in part or whole; another one goes on with what is left.

What is left is what outlives a process: the words of the dose register, and the journal's files as the disk has them.
Where one process dies alone, the others see it and do what they do; then they are stopped, or die too.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from control.plan.program import MachineProgram
from control.session import SessionSummary
from facility.config import Facility
from facility.errors import IonctlError
from facility.timebase import Rank
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.store import Journal, open_journal, sqlite_url
from rig.control_stack import stop_delivery
from rig.deliver_virtual import delivered
from rig.home import JOURNAL_FILE
from rig.session_check import objections
from rig.virtual_deaths import Victim, die
from rig.virtual_world import World, WorldOptions, WorldParts

REASON = "the facility has died"
LONGEST_S = 5000.0
COMPLETED = "completed"


NEVER = 1 << 62
"""For a crash that somebody calls: `Life.strike_now`."""


class DeathError(SystemExit):
    """It goes through the event loop like an exit, past every `except Exception`."""


@dataclass(frozen=True)
class Crash:
    """Who dies, and when: at `at_ns` of facility time, or in the journal's commit number `commit`, counted from 0 in
    this life: before its rows are whole on the disk, or (`written`) right after, before control knows it."""

    at_ns: int = 0
    victim: Victim = Victim.ALL
    commit: int | None = None
    written: bool = False
    lives_on_s: float = 0.0
    """Facility time for which the others live on."""
    orderly: bool = False
    """Then they are told to end, as by `ionctl down`; otherwise they die, too."""


@dataclass
class Left:
    """What a facility leaves, and the truth that nobody in it can see."""

    store: MemoryStore
    folder: Path
    truth: dict[int, np.ndarray] = field(default_factory=dict)
    """Ions by spot, (n,), of all lives together; by layer token."""
    summary: SessionSummary | None = None
    """Of a life that came to its end and whose operator saw it."""
    completed: bool = False
    """The journal says that the session is complete, whether anybody lived to see it or not."""
    crashed: bool = False
    """The last life met its crash."""

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

    def deliver(self, seed: int, crash: Crash | None) -> Left:
        """Deliver from the beginning; crash if it is not over by then."""
        left = Left(MemoryStore(), self.folder / "begun")
        left.folder.mkdir()
        return self._live(left, seed, crash, lambda _life, parts: delivered(parts, self.program))

    def resume(self, left: Left, seed: int, crash: Crash | None) -> Left:
        """Go on with what is left, with a seed that no life before had; crash again as in `deliver`."""
        session, program = left.session(self.facility.id), self.program

        async def work(_life: Life, parts: WorldParts) -> SessionSummary:
            operator = parts.operator
            await operator.reset()
            await operator.recover(session, "plan", program.room_id, program.qa, REASON)
            if await operator.prepare(session):
                await operator.start()
            await operator.ended(session, LONGEST_S)
            return await parts.control.sequencer.recorded(LONGEST_S)

        return self._live(left, seed, crash, work)

    def _live(self, left: Left, seed: int, crash: Crash | None, work: Work) -> Left:
        with closing(open_journal(left.url, self.facility.id)) as journal:
            world = self._world(left, journal, seed)
            life = Life(world, left, self.folder / f"left{seed}", crash)
            life.expect(journal)
            try:
                summary = world.run(lambda parts: life.lived(parts, work))
            except DeathError:
                summary = None
            except IonctlError:  # whoever was being waited for has died
                if not left.crashed:
                    raise
                summary = None
        left.summary = summary
        life.bury()
        left.completed = self._completed(left)
        return left

    def _completed(self, left: Left) -> bool:
        with closing(open_journal(left.url, self.facility.id)) as journal:
            return any(entry.status == COMPLETED for entry in read.sessions(journal))

    def _world(self, left: Left, journal: Journal, seed: int) -> World:
        program = self.program
        options = WorldOptions(
            load_program=lambda *_: program, mode=Mode.QA if program.qa else Mode.CLINICAL, register_store=left.store,
            journal=journal,
        )  # fmt: skip
        return World(self.facility, program.room_id, program.layers[0].species, seed, options)

    def objections(self, left: Left) -> list[str]:
        """What is wrong with a session that came to its end, by truth; empty if nothing is (`rig.session_check`)."""
        session = left.session(self.facility.id)
        return objections(self.facility, self.program, left.url, session, left.truth, left.store)


Work = Callable[["Life", WorldParts], Awaitable[SessionSummary]]


@dataclass
class Life:
    """One life of the facility, and what its crash keeps of it."""

    world: World
    left: Left
    after: Path
    """Where the journal lies that a dead control has left."""
    crash: Crash | None
    store: MemoryStore | None = None
    truth: dict[int, np.ndarray] | None = None
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    kept: bool = False
    """The journal has been copied: control has died."""

    def expect(self, journal: Journal) -> None:
        """Let the crash come."""
        self.left.crashed = False
        if self.crash is None:
            return
        if self.crash.commit is None:
            self.world.loop.call_at_rank(self.crash.at_ns, Rank.PLANT, self._strike)
        else:
            self._strike_at_commit(journal, self.crash)

    def _strike_at_commit(self, journal: Journal, crash: Crash) -> None:
        commit, whole = journal._append, journal.append
        done = 0

        def within(connection: Any, batches: Sequence[Any]) -> Any:
            nonlocal done
            tip = commit(connection, batches)
            done += 1
            if done - 1 == crash.commit and not crash.written:
                self._strike()
            return tip

        def after(batches: Sequence[Any]) -> Any:
            tip = whole(batches)
            if done - 1 == crash.commit and crash.written and not self.left.crashed:
                self._strike()
            return tip

        vars(journal).update(_append=within, append=after)

    def strike_now(self) -> None:
        """The crash comes at this instant."""
        self.world.loop.call_at_rank(self.world.loop.now_ns(), Rank.PLANT, self._strike)

    def _strike(self) -> None:
        """The crash: what the dead leave is kept as it is at this very instant."""
        crash, world = self.crash, self.world
        if crash is None or self.left.crashed or not world.providers:
            return
        self.left.crashed = True
        self.struck.set()
        if crash.victim in (Victim.CONTROL, Victim.ALL):
            self._keep_journal()
        if crash.victim in (Victim.PLANT, Victim.ALL):
            self._keep_plant()
        if crash.victim is Victim.ALL:
            raise DeathError
        die(world, crash.victim)
        if not crash.orderly:
            world.loop.call_at_rank(world.loop.now_ns() + round(crash.lives_on_s * 1e9), Rank.PLANT, self._all_die)

    def _all_die(self) -> None:
        """Who lived on dies, too."""
        self._keep_journal()
        self._keep_plant()
        raise DeathError

    def _keep_journal(self) -> None:
        if self.kept:
            return
        self.kept = True
        self.after.mkdir()
        for path in self.left.folder.glob(f"{JOURNAL_FILE}*"):
            if not path.name.endswith("-shm"):  # memory of processes that are gone
                shutil.copy(path, self.after / path.name)

    def _keep_plant(self) -> None:
        if self.store is None:
            self.store, self.truth = self.left.store.copy(), self._truth()

    def _truth(self) -> dict[int, np.ndarray]:
        return {token: rows[:, 0].copy() for token, rows in self.world.plant.truth_spots().items()}

    async def lived(self, parts: WorldParts, work: Work) -> SessionSummary | None:
        """What the operator does; what a death makes of it is the facility's, and its end."""
        task = asyncio.ensure_future(work(self, parts))
        struck = asyncio.ensure_future(self.struck.wait())
        await asyncio.wait({task, struck}, return_when=asyncio.FIRST_COMPLETED)
        struck.cancel()
        if not self.left.crashed or self.crash is None:
            return await task
        await asyncio.sleep(self.crash.lives_on_s)
        await stop_delivery(parts.control)
        task.cancel()
        found = (await asyncio.gather(task, return_exceptions=True))[0]
        return found if isinstance(found, SessionSummary) else None

    def bury(self) -> None:
        """Leave what is left."""
        left = self.left
        if self.kept:
            left.folder = self.after
        truth = self._truth() if self.truth is None else self.truth
        left.store = left.store if self.store is None else self.store
        for token, ions in truth.items():
            left.truth[token] = left.truth.get(token, np.zeros(len(ions))) + ions
