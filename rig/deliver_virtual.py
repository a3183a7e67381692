"""Deliver in virtual time, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control.plan.program import MachineProgram
from control.sample_log import SampleLog
from control.session import Session, SessionSummary
from control.spot_log import spot_log_bytes
from facility.errors import ConfigError, InternalError, JournalError
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal.chain import Tip
from journal.read import ENDED
from journal.store import Journal, open_journal, sqlite_url
from records.account import read_account
from records.dicom_record import record_bytes
from rig.deliver import (
    EVENTS_FILE,
    FILE_KINDS,
    RECORD_FILE,
    SAMPLES_FILE,
    SPOTS_FILE,
    SUMMARY_FILE,
    DeliveryRequest,
    GoingOn,
    OnProgress,
    species_of,
    write_files,
)
from rig.earlier_delivery import keep_earlier
from rig.home import JOURNAL_FILE
from rig.part_truth import judged
from rig.parts import Earlier
from rig.post_mortem import write_post_mortems
from rig.result import DeliveryResult
from rig.scratch import alone, scratch
from rig.truth_log import TRUTH_LOG_FILE
from rig.virtual_register import leave_register
from rig.virtual_world import World, WorldOptions, WorldParts
from rig.wall_clock import monotonic_s

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOWEST = 5.0
_GRACE_S = 600.0
_PROGRESS_WALL_S = 0.1


def deliver_virtual(
    request: DeliveryRequest, program: MachineProgram, on_progress: OnProgress | None = None, *, journal: bool = True
) -> DeliveryResult:
    """Deliver; Ctrl-C pauses the delivery, which ends it as interrupted. Without `journal` neither it nor a
    record nor samples are kept: for measurements of what they cost."""
    with scratch(request.home.sessions) as run:
        path = run / JOURNAL_FILE
        with closing(open_journal(sqlite_url(path), request.facility.id)) if journal else nullcontext() as kept:
            life = live(request, program, kept, on_progress)
        with alone(request.home.session_dir(life.summary.session), life.summary.session):
            return leave(request, program, life, path if journal else None)


@dataclass(frozen=True)
class VirtualLife:
    """What one virtual facility came to."""

    world: World
    session: Session
    summary: SessionSummary
    samples: SampleLog
    record: dict[str, bytes]
    tip: Tip | None
    """Where its journal ends; None where none was kept."""
    wall_s: float


def live(
    request: DeliveryRequest, program: MachineProgram, journal: Journal | None, on_progress: OnProgress | None,
    store: MemoryStore | None = None,
) -> VirtualLife:  # fmt: skip
    """Make a facility, deliver, or go on with `request.going_on`, and let the facility go; `store` is the dose register
    that it begins with."""
    started_s, samples = monotonic_s(), SampleLog()
    options = WorldOptions(
        mode=Mode.QA if request.qa else Mode.CLINICAL, load_program=lambda _path, _room, _qa: program,
        post_mortem=True, journal=journal, samples=None if journal is None else samples, register_store=store,
    )  # fmt: skip
    world = World(request.facility, request.room, species_of(program), request.first_seed, options)
    with _pause_on_interrupt(world):
        session, summary = deliver_in(
            world, program, on_progress, plan=str(request.plan.resolve()), going_on=request.going_on
        )
    wall_s = monotonic_s() - started_s
    record = {} if journal is None else record_files(journal, session.id, program)
    return VirtualLife(world, session, summary, samples, record, None if journal is None else journal.tip(), wall_s)


def leave(request: DeliveryRequest, program: MachineProgram, life: VirtualLife, journal: Path | None) -> DeliveryResult:
    """Put the files of a session in its folder, with its journal, which lies at `journal` until then. ConfigError where
    the disk does not take them: the journal, which is there already, comes first."""
    try:
        return _leave(request, program, life, journal)
    except OSError as problem:
        folder = request.home.session_dir(life.summary.session)
        kept = "the journal is kept" if (folder / JOURNAL_FILE).exists() else "nothing is kept"
        what = f"not all files of session {life.summary.session} can be written ({kept}): {problem.strerror or problem}"
        raise ConfigError("session.files", what, str(folder), "make room on the disk") from problem


def _leave(
    request: DeliveryRequest, program: MachineProgram, life: VirtualLife, journal: Path | None
) -> DeliveryResult:
    """See `leave`."""
    world, session, summary = life.world, life.session, life.summary
    folder, facility = request.home.session_dir(summary.session), request.facility
    earlier = Earlier(folder, 0) if request.going_on is None else request.going_on.earlier
    happened, notes = world.events.to_bytes(), tuple(program.notes)
    if request.going_on is None:
        tip = "" if life.tip is None else life.tip.hash
        notes += keep_earlier(folder, session.id, facility.id, happened, tip)
    if journal is not None and life.tip is not None:
        leave_register(folder, world.plant, life.tip if summary.status not in ENDED else None)
        journal.replace(folder / JOURNAL_FILE)  # each virtual run is a facility of its own
    config = facility.canonical_json()
    logs = {SPOTS_FILE: spot_log_bytes(session, config), SAMPLES_FILE: life.samples.to_bytes(session, config)}
    files = write_files(folder, {**logs, EVENTS_FILE: happened, **life.record})
    part = earlier.parts + 1
    truth, words = judged(facility, session.id, program, earlier, part, world.plant.truth_spots())
    if (folder / TRUTH_LOG_FILE).exists():
        files[FILE_KINDS[TRUTH_LOG_FILE]] = str(folder / TRUTH_LOG_FILE)
    write_post_mortems(folder, (*world.post_mortems, *world.safety_scans))
    files["summary"] = str(folder / SUMMARY_FILE)
    told = earlier.joined(summary.to_data(), part) if earlier.parts else summary.to_data()
    result = DeliveryResult(
        "virtual", facility.id, request.room, request.first_seed, None, told, truth, life.wall_s, files, part=part,
        session_facility_s=earlier.session_s(summary.facility_s), truth_words=words, notes=notes,
    )  # fmt: skip
    result.write(folder / SUMMARY_FILE)
    return result


def record_files(journal: Journal, session: str, program: MachineProgram) -> dict[str, bytes]:
    """The treatment record by the name of its file, where anything was delivered."""
    try:
        return {RECORD_FILE: record_bytes(read_account(journal, session, program))}
    except JournalError as problem:
        if problem.code != "record.empty":
            raise
        return {}


def deliver_in(
    world: World, program: MachineProgram, on_progress: OnProgress | None = None, linger_s: float = 0.0,
    plan: str = "plan", going_on: GoingOn | None = None,
) -> tuple[Session, SessionSummary]:  # fmt: skip
    """Deliver a program in a world as `delivered`, and wait for `linger_s` s more."""

    async def work(parts: WorldParts) -> tuple[Session, SessionSummary]:
        summary = await delivered(parts, program, on_progress, plan, going_on)
        await asyncio.sleep(linger_s)
        session = parts.control.sequencer.session
        if session is None:
            raise InternalError("virtual.session", "the session has gone before its record was read", summary.session)
        return session, summary

    return world.run(work)


async def delivered(
    parts: WorldParts, program: MachineProgram, on_progress: OnProgress | None = None, plan: str = "plan",
    going_on: GoingOn | None = None,
) -> SessionSummary:  # fmt: skip
    """Reset, load or open again, prepare, start, and wait for the record; `plan` is where the journal says it is."""
    limit_s = _SLOWEST * program.expected_s + _GRACE_S
    operator = parts.operator
    await operator.reset("operator")
    if going_on is None:
        session_id = await operator.load(plan, program.room_id, program.qa, program.plan_hash)
    else:
        session_id = going_on.session
        await operator.recover(
            session_id, plan, program.room_id, program.qa, going_on.reason, new_limits=going_on.new_limits
        )
    left = await operator.prepare("" if going_on is None else session_id)
    if left and going_on is not None:
        going_on.shown()
    if left:
        await operator.start()
    await operator.ended(session_id, limit_s, _throttled(operator_progress(parts, on_progress)))
    return await parts.control.sequencer.recorded(limit_s)


def operator_progress(parts: WorldParts, on_progress: OnProgress | None) -> Callable[[], None] | None:
    """What shows progress when something has changed."""
    if on_progress is None:
        return None
    return lambda: on_progress(parts.operator.progress())


def _throttled(show: Callable[[], None] | None) -> Callable[[], None] | None:
    """At most ten times a second of wall time: drawing costs more than delivering."""
    if show is None:
        return None
    last_s = 0.0

    def now_and_then() -> None:
        nonlocal last_s
        now_s = monotonic_s()
        if now_s - last_s >= _PROGRESS_WALL_S:
            last_s = now_s
            show()

    return now_and_then


@contextlib.contextmanager
def _pause_on_interrupt(world: World) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM pause the delivery."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        world.interrupted = True

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
