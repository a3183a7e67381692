"""Treatment records of sessions: written from journal and plan, and compared with the plan again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from control.continuation import continued
from control.plan.load import bounded_bytes, load_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from facility.errors import InternalError, IonctlError, PlanError, UsageError
from journal import read
from journal.store import Journal
from records.account import read_account
from records.compare import Comparison, compare
from records.dicom_record import record_bytes
from records.reader import MAX_BYTES, Record, read_record
from rig.home import Home
from rig.session_desk import compiled, plan_file, session_at

_GIVE_PLAN = "give it with --plan"
_log = structlog.get_logger(__name__)


def record_of(journal: Journal, session: str, facility: Facility, plan: Path | None = None) -> bytes:
    """The record of a session of the journal; `plan`: its file, where it has moved.

    JournalError 'record.empty' if it has delivered nothing; CommandRefused for another plan or configuration.
    """
    entry = read.session(journal, session)
    program = compiled(entry, facility, plan)
    if entry.continues:
        rest = continued(journal, program, entry.continues)
        if not isinstance(rest, MachineProgram):
            raise InternalError("record.rest", "the rest of a program is no program", session)
        program = rest
    return record_bytes(read_account(journal, session, program))


def keep_record(journal: Journal, session: str, facility: Facility, path: Path) -> None:
    """Write the record of a session that has ended, been interrupted or closed; what prevents it is logged, no more:
    the journal has it all, and `ionctl session export` writes it again."""
    try:
        data = record_of(journal, session, facility)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except IonctlError as problem:
        if problem.code != "record.empty":
            _log.error("no record was written", session=session, problem=str(problem))
    except OSError as problem:
        _log.error("no record was written", session=session, problem=str(problem))


def check_records(
    files: Sequence[Path], plan_file: Path | None, facility: Facility, home: Home
) -> tuple[list[Record], Comparison]:
    """Records of one fraction against their plan; None: the one that the journal has for their session.

    PlanError for files that cannot be read or do not belong together, and where no plan is found.
    """
    records = [load_record(file) for file in files]
    plan = load_plan(plan_file or _plan_of(records[0], facility, home))
    header = records[0].header
    room = str(header.get("room") or next(iter(facility.rooms)))
    program = compile_program(plan, facility, room, qa=bool(header.get("qa", True)))
    if header.get("config_hash", facility.hash) != facility.hash:
        raise PlanError("record.other", "the record was written under another configuration of the facility",
                        records[0].name, "give --facility as it was then")  # fmt: skip
    return records, compare(records, plan, program)


def _plan_of(record: Record, facility: Facility, home: Home) -> Path:
    """Where the plan of a record's session lay when it was delivered; whether it is still that one is compared."""
    session = str(record.header.get("session") or "")
    if not session:
        raise PlanError("record.plan", "the record names no session of a journal", record.name, _GIVE_PLAN)
    try:
        with session_at(home, facility.id, session) as (_, entry):
            return plan_file(entry)
    except UsageError as problem:
        raise PlanError("record.plan", f"nothing is known of its session: {problem.what}", record.name,
                        _GIVE_PLAN) from problem  # fmt: skip


def load_record(file: Path) -> Record:
    """The record in a file; PlanError for all that is wrong."""
    return read_record(bounded_bytes(file, MAX_BYTES, "record", "give a record"), file.name)
