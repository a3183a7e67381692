"""What a person asks the journal: which sessions there are, what each layer got, and what a session goes on with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from control.plan.load import load_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from facility.errors import CommandRefused, JournalError, PlanError, UsageError, no_such
from journal import read
from journal.course import Course, read_course
from journal.read import SessionEntry
from journal.store import Journal, open_journal, sqlite_url
from rig.deliver import rest_of
from rig.home import JOURNAL_FILE, Home

_log = structlog.get_logger(__name__)
ARMED = "armed"
"""What a person is told of a layer whose last word in the journal is its arming."""
TABLES = ("trips", "operators", "commands", "bypasses", "events", "fractions", "courses")


@contextlib.contextmanager
def journal_at(home: Home, facility_id: str, given: str = "") -> Iterator[Journal]:
    """The journal of a facility, to read: `given` (a URL or a file), $IONCTL_JOURNAL, or the facility's own file.

    JournalError if there is none or it cannot be read.
    """
    url = given if "://" in given else sqlite_url(Path(given).resolve()) if given else home.journal_url(facility_id)
    journal = open_journal(url, facility_id, read_only=True)
    try:
        yield journal
    finally:
        journal.close()


@contextlib.contextmanager
def session_at(home: Home, facility_id: str, name: str, given: str = "") -> Iterator[tuple[Journal, SessionEntry]]:
    """A session and its journal, to read: that of a virtual delivery lies in its session's folder.

    UsageError 'session.unknown' where nobody knows it, in the facility's journal or in a folder of its own; with
    `given` only that journal is asked, and raises as `journal_at`.
    """
    own = home.virtual_journal(name)
    with contextlib.ExitStack() as opened:
        try:
            journal = opened.enter_context(journal_at(home, facility_id, given or ("" if own is None else str(own))))
            entry = read.session(journal, name)
        except (JournalError, UsageError) as problem:
            if given or problem.code not in ("journal.missing", "session.unknown"):
                raise
            raise _unknown(home, facility_id, name) from problem
        yield journal, entry


def _unknown(home: Home, facility_id: str, name: str) -> UsageError:
    """There is no such session: what comes close, and where they are listed."""
    try:
        found, virtual = all_sessions(home, facility_id)
    except JournalError:
        found, virtual = [], []
    known = [entry.session for entry in (*found, *virtual)]
    return no_such("session.unknown", "session", name, known, f"journal and virtual deliveries of {facility_id}",
                   f"ionctl session list --facility {facility_id}")  # fmt: skip


def all_sessions(home: Home, facility_id: str, given: str = "") -> tuple[list[SessionEntry], list[SessionEntry]]:
    """Sessions of a journal, oldest first, and those of virtual deliveries in this home, by name: each of them has a
    journal of its own. With `given` those of that journal alone.

    Raises as `journal_at` where there is neither; a journal that cannot be read is logged and passed over.
    """
    found: list[SessionEntry] = []
    own = [] if given else _virtual(home, facility_id)
    try:
        with journal_at(home, facility_id, given) as journal:
            found = read.sessions(journal)
    except JournalError as problem:
        if problem.code != "journal.missing" or not own:
            raise
    return found, own


def _virtual(home: Home, facility_id: str) -> list[SessionEntry]:
    found = []
    for path in sorted(home.sessions.glob(f"S-*/{JOURNAL_FILE}")):
        try:
            with contextlib.closing(open_journal(sqlite_url(path), facility_id, read_only=True)) as journal:
                found += read.sessions(journal)
        except JournalError as problem:
            if problem.code != "journal.facility":
                _log.error("a journal cannot be read", problem=str(problem))
    return found


@dataclass(frozen=True)
class LayerLine:
    """One layer of a session: ions planned, delivered by the first chamber, uncertain, and left."""

    layer: int
    status: str
    spots: int
    spots_done: int
    prescribed_ions: float
    ic1_ions: float
    uncertain_ions: float
    unsure: bool = False
    """It was armed, and what came of that is not in the journal yet: what it has got is at least this."""

    @property
    def remaining_ions(self) -> float:
        """What is still to be given, at most; uncertain charge counts as delivered."""
        if self.status == read.VERIFIED:
            return 0.0
        return max(self.prescribed_ions - self.ic1_ions - self.uncertain_ions, 0.0)

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "remaining_ions": self.remaining_ions}


def layer_lines(journal: Journal, entry: SessionEntry, program: MachineProgram | None = None) -> list[LayerLine]:
    """Planned, delivered and remaining by layer; layers nobody has begun only with the program."""
    last = {one.layer: one for one in read.layers(journal, entry.session) if one.status != read.ARMING}
    planned = {row["layer"]: row for row in read.rows_of(journal, "layers", entry.session)}
    armed = _armed_last(journal, entry, list(planned.values()))
    lines = []
    for index in range(entry.layers):
        one, row = last.get(index), planned.get(index)
        layer = None if program is None else program.layers[index]
        if row is None and layer is None:
            continue
        spots = layer.n_spots if layer is not None else int(row["spots"]) if row is not None else 0
        ions = layer.total_ions if layer is not None else float(row["prescribed_ions"]) if row is not None else 0.0
        status = ARMED if row is not None and (one is None or index == armed) else "" if one is None else one.status
        got = (0, ions, 0.0, 0.0) if one is None else (one.spots_done, ions, one.ic1_ions, one.uncertain_ions)
        lines.append(LayerLine(index, status, spots, *got, unsure=index == armed))
    return lines


def _armed_last(journal: Journal, entry: SessionEntry, rows: list[dict[str, Any]]) -> int:
    """The layer that was armed and of which the journal has no account since, neither of its own nor from the dose
    register; -1 if there is none."""
    last = max(rows, key=lambda row: int(row["seq"]), default=None)
    if last is None or last["status"] != read.ARMING:
        return -1
    for row in read.rows_of(journal, "events", entry.session):
        heard = row["kind"] == read.RECONCILED_KIND and json.loads(row["data"]).get("known") is not False
        if heard and row["seq"] > last["seq"]:
            return -1
    return int(last["layer"])


def new_limits(journal: Journal, entry: SessionEntry) -> list[dict[str, Any]]:
    """Who has gone on with a session under other interlock rules than it went by, and why: operator, reason, t_ns."""
    rows = read.rows_of(journal, "operators", entry.session)
    return [
        {name: row[name] for name in ("operator", "reason", "t_ns")} for row in rows if row["what"] == read.NEW_LIMITS
    ]


def rules_unknown(journal: Journal, entry: SessionEntry) -> bool:
    """A session was gone on with of which the journal does not say by which interlock rules it went before."""
    said = [json.loads(row["data"]) for row in read.rows_of(journal, "events", entry.session)
            if row["kind"] == read.RULES_KIND]  # fmt: skip
    return any(one["before"] == read.UNKNOWN_RULES for one in said)


def course_of(journal: Journal, entry: SessionEntry) -> Course:
    """The course that a session belongs to; one without fractions where it belongs to none."""
    if entry.fraction:
        return read_course(journal, entry.patient, entry.plan_hash)
    return Course(entry.patient, entry.plan_hash, 0)


def export(journal: Journal, entry: SessionEntry) -> dict[str, Any]:
    """Everything that the journal has of a session, JSON-ready."""
    found: dict[str, Any] = {"schema": "ionctl.session-export/1", **entry.to_data()}
    found["layers_booked"] = [
        {"seq": one.seq, "t_ns": one.t_ns, "layer": one.layer, "status": one.status, "loads": one.loads,
         "ic1_ions": one.ic1_ions, "ic2_ions": one.ic2_ions, "uncertain_ions": one.uncertain_ions,
         "rows": one.rows.tolist(), "uncertain": one.uncertain.tolist()}
        for one in read.layers(journal, entry.session)
    ]  # fmt: skip
    for table in TABLES:
        found[table] = read.rows_of(journal, table, entry.session)
    found["course"] = course_of(journal, entry).to_data()
    tip = journal.tip()
    found["journal"] = {"where": journal.where, "batch": tip.batch, "seq": tip.seq, "hash": tip.hash}
    return found


def program_of(
    entry: SessionEntry, facility: Facility, home: Home, plan: Path | None = None, verb: str = "resume"
) -> MachineProgram:
    """The program that goes on with a session, from its own plan or another file of it.

    CommandRefused for a session that has ended, for another plan, patient or configuration; PlanError without one.
    """
    if entry.status in read.ENDED:
        raise CommandRefused("recovery.ended", f"session {entry.session} is {entry.status}", verb)
    program = compiled(entry, facility, plan)
    return rest_of(program, facility, home, entry.continues) if entry.continues else program


def plan_file(entry: SessionEntry) -> Path:
    """Where the plan of a session lay when it was opened; PlanError if it is no longer there."""
    path = Path(entry.plan_path)
    if not path.is_file():
        raise PlanError("session.plan", f"the plan of session {entry.session} is no longer {path}", entry.session,
                        "give its file with --plan")  # fmt: skip
    return path


def compiled(entry: SessionEntry, facility: Facility, plan: Path | None = None) -> MachineProgram:
    """The whole program of a session's plan; PlanError where it is not found, CommandRefused as `program_of`."""
    program = compile_program(load_plan(plan or plan_file(entry)), facility, entry.room, qa=entry.qa)
    for name, was, found in (
        ("plan hash", entry.plan_hash, program.plan_hash), ("patient", entry.patient, program.patient_id),
        ("configuration", entry.config_hash, facility.hash),
    ):  # fmt: skip
        if was != found:
            raise CommandRefused("recovery.other", f"{name} {found}, the session was opened with {was}", entry.session,
                                 "give the file that the session was opened with, or close it as partial")  # fmt: skip
    return program
