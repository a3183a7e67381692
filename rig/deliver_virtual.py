"""Deliver in virtual time, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from control.plan.program import MachineProgram
from control.sample_log import SampleLog
from control.session import Session, SessionSummary
from control.spot_log import spot_log_bytes
from facility.errors import InternalError, JournalError
from interlocks.snapshot import Mode
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
    OnProgress,
    species_of,
    write_files,
)
from rig.home import JOURNAL_FILE
from rig.post_mortem import write_post_mortems
from rig.result import DeliveryResult
from rig.truth_check import judge_truth
from rig.truth_log import TRUTH_LOG_FILE, write_truth_log
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
    started_s = monotonic_s()
    mode = Mode.QA if request.qa else Mode.CLINICAL
    samples = SampleLog()
    with tempfile.TemporaryDirectory(dir=request.home.sessions, prefix=".run-") as scratch:
        path = Path(scratch) / JOURNAL_FILE
        with _journal(path, request.facility.id) if journal else nullcontext() as kept:
            options = WorldOptions(
                mode=mode,
                load_program=lambda _path, _room, _qa: program,
                post_mortem=True,
                journal=kept,
                samples=samples if journal else None,
            )
            world = World(request.facility, request.room, species_of(program), request.first_seed, options)
            with _pause_on_interrupt(world):
                session, summary = deliver_in(world, program, on_progress)
            spots = world.plant.truth_spots()
            truth = judge_truth(program.layers, spots, request.facility)
            wall_s = monotonic_s() - started_s
            record = {} if kept is None else _record(kept, session.id, program)
        folder = request.home.session_dir(summary.session)
        if journal:
            path.replace(folder / JOURNAL_FILE)  # each virtual run is a facility of its own
    config = request.facility.canonical_json()
    logs = {SPOTS_FILE: spot_log_bytes(session, config), SAMPLES_FILE: samples.to_bytes(session, config)}
    files = write_files(folder, {**logs, EVENTS_FILE: world.events.to_bytes(), **record})
    write_truth_log(folder / TRUTH_LOG_FILE, session.id, program, spots, request.facility)
    files[FILE_KINDS[TRUTH_LOG_FILE]] = str(folder / TRUTH_LOG_FILE)
    write_post_mortems(folder, world.post_mortems)
    files["summary"] = str(folder / SUMMARY_FILE)
    result = DeliveryResult(
        "virtual",
        request.facility.id,
        request.room,
        request.first_seed,
        None,
        summary.to_data(),
        truth,
        wall_s,
        files,
        session_facility_s=summary.facility_s,
    )
    result.write(folder / SUMMARY_FILE)
    return result


def _journal(path: Path, facility_id: str) -> closing[Journal]:
    return closing(open_journal(sqlite_url(path), facility_id))


def _record(journal: Journal, session: str, program: MachineProgram) -> dict[str, bytes]:
    """The treatment record, where anything was delivered."""
    try:
        return {RECORD_FILE: record_bytes(read_account(journal, session, program))}
    except JournalError as problem:
        if problem.code != "record.empty":
            raise
        return {}


def deliver_in(
    world: World, program: MachineProgram, on_progress: OnProgress | None = None, linger_s: float = 0.0
) -> tuple[Session, SessionSummary]:
    """Deliver a program in a world: reset, load, prepare, start, wait for the end, and for `linger_s` s more."""

    async def work(parts: WorldParts) -> tuple[Session, SessionSummary]:
        summary = await delivered(parts, program, on_progress)
        await asyncio.sleep(linger_s)
        session = parts.control.sequencer.session
        if session is None:
            raise InternalError("virtual.session", "the session has gone before its record was read", summary.session)
        return session, summary

    return world.run(work)


async def delivered(
    parts: WorldParts, program: MachineProgram, on_progress: OnProgress | None = None
) -> SessionSummary:
    """Reset, load, prepare, start, and wait for the record."""
    limit_s = _SLOWEST * program.expected_s + _GRACE_S
    operator = parts.operator
    await operator.reset("operator")
    session_id = await operator.load("plan", program.room_id, program.qa, program.plan_hash)
    await operator.prepare()
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
