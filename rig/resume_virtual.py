"""Go on with a session of a virtual delivery, or close it as partial, at a virtual facility of its own.

A virtual facility ends with its process, and what it delivered is what its session's folder says: journal, dose
register and truth. A new one is made of journal and register, with another seed. It works on a copy of the journal: if
it dies, its beam has never been, and the session stands as it stood.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control.plan.program import MachineProgram
from facility.config import Facility
from facility.errors import CommandRefused, InternalError, IonctlError
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.read import SessionEntry
from journal.store import Journal, open_journal, sqlite_url
from rig.deliver import DeliveryRequest, GoingOn, OnProgress, species_of, write_files
from rig.deliver_virtual import leave, live, record_files
from rig.home import JOURNAL_FILE, Home
from rig.operator_client import Closed
from rig.parts import Earlier, read_earlier
from rig.result import DeliveryResult
from rig.run_dir import POST_MORTEM
from rig.scratch import alone, scratch
from rig.session_desk import layer_lines, program_of
from rig.virtual_register import leave_register, left_register
from rig.virtual_world import World, WorldOptions, WorldParts

if TYPE_CHECKING:
    from rig.resume import Confirm

_SEED_UNKNOWN = 1 << 20


@dataclass(frozen=True)
class Left:
    """What the parts of a session so far have left."""

    path: Path
    """A copy of the journal."""
    journal: Journal
    entry: SessionEntry
    store: MemoryStore


@contextlib.contextmanager
def _left(facility: Facility, home: Home, name: str) -> Iterator[Left]:
    """One at a time; the copy is gone afterwards unless somebody has put it elsewhere."""
    folder = home.session_dir(name)
    with alone(folder, name), scratch(home.sessions) as run:
        path = run / JOURNAL_FILE
        shutil.copyfile(folder / JOURNAL_FILE, path)
        with closing(open_journal(sqlite_url(path), facility.id)) as journal:
            yield Left(path, journal, read.session(journal, name), left_register(folder, journal.tip()))


def resume_virtual(
    facility: Facility, home: Home, name: str, plan: Path | None, reason: str, confirm: Confirm,
    on_progress: OnProgress | None = None, *, new_limits: bool = False,
) -> DeliveryResult:  # fmt: skip
    """Deliver what a session has left. Raises as `rig.resume.resume_session`."""
    with _left(facility, home, name) as left:
        entry, earlier = left.entry, read_earlier(left.journal, name, home.session_dir(name))
        program = program_of(entry, facility, home, plan)
        earlier.keep()
        _keep_post_mortems(earlier)

        def shown() -> None:
            if not confirm(entry, layer_lines(left.journal, entry, program)):
                raise CommandRefused("recovery.declined", "not confirmed: nothing was delivered", name)

        seed = _next_seed(earlier.said, earlier.parts)
        going_on = GoingOn(name, reason, shown, earlier, new_limits)
        path = plan or Path(entry.plan_path)
        request = DeliveryRequest(path, facility, entry.room, home, entry.qa, seed=seed, going_on=going_on)
        life = live(request, program, left.journal, on_progress, left.store)
        left.journal.close()
        return leave(request, program, life, left.path)


def _keep_post_mortems(earlier: Earlier) -> None:
    there = earlier.folder / POST_MORTEM
    if earlier.parts and there.is_dir():
        shutil.copytree(there, earlier.folder_of(earlier.parts) / POST_MORTEM, dirs_exist_ok=True)


def close_virtual(
    facility: Facility, home: Home, name: str, reason: str, plan: Path | None, *, without_plan: bool
) -> Closed:
    """Close a session as partial; journal and register are brought together for the last time."""
    with _left(facility, home, name) as left:
        program, problem = _program(left.entry, facility, home, plan)
        if problem is not None and (left.entry.status in read.ENDED or not without_plan):
            raise problem
        world = _world(facility, program or problem, left)

        async def close(parts: WorldParts) -> Closed:
            return await parts.operator.close_partial(name, reason)

        closed = world.run(close)
        record = {} if program is None else record_files(left.journal, name, program)
        left.journal.close()
        leave_register(home.session_dir(name), world.plant, None)
        left.path.replace(home.session_dir(name) / JOURNAL_FILE)
        write_files(home.session_dir(name), record)
        return closed


def _program(
    entry: SessionEntry, facility: Facility, home: Home, plan: Path | None
) -> tuple[MachineProgram | None, IonctlError | None]:
    """What a session goes on with, or why it has none."""
    try:
        return program_of(entry, facility, home, plan, "close"), None
    except IonctlError as problem:
        return None, problem


def _world(facility: Facility, found: MachineProgram | IonctlError | None, left: Left) -> World:
    """A facility that delivers nothing; where there is no program, whoever asks for it is told why."""

    def load(_path: str, _room: str, _qa: bool) -> MachineProgram:
        if isinstance(found, MachineProgram):
            return found
        raise found or InternalError("resume.program", "neither a program nor a reason", left.entry.session)

    options = WorldOptions(mode=Mode.QA if left.entry.qa else Mode.CLINICAL, load_program=load, bring_up=False,
                           register_store=left.store, journal=left.journal)  # fmt: skip
    rooms = facility.rooms
    room = left.entry.room if left.entry.room in rooms else next(iter(rooms))
    species = species_of(found) if isinstance(found, MachineProgram) else next(iter(facility.species))
    return World(facility, room, species, 1, options)


def _next_seed(said: Mapping[str, Any] | None, parts: int) -> int:
    """One that no part before had: two facilities with one seed would have the same noise."""
    return _SEED_UNKNOWN + parts if said is None else int(said["seed"]) + 1
