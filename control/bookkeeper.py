"""What control writes into the journal: every session, layer, spot, command and stop, in the order in which it happens.

Booked before it is relied upon: an arming is on the disk before the front end is armed, a layer's spots before the next
layer is loaded. What takes beam away never waits for the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from channels.command import Command, CommandResult
from control.layer_table import FloatArray
from control.session import Interlock, LayerBook, LayerResult, Session, SessionSummary
from facility.events import canonical_json
from journal.read import ARMING, NEW_LIMITS, RECORD_KIND, RULES_KIND, UNKNOWN_RULES, SessionEntry, pack_rows
from journal.writer import NullWriter, Writer

_KEPT = ("status", "reason", "spots", "spots_done", "prescribed_ions", "ic1_ions", "ic2_ions", "beam_on_s", "mode",
         "room", "plan_hash")  # fmt: skip
"""Of a summary, what a session's record in the journal says."""


class Bookkeeper:
    """Writes rows for one control.

    Args:
        writer: where they go.
    """

    def __init__(self, writer: Writer | None = None) -> None:
        self.writer: Writer = writer or NullWriter()

    def fault(self) -> str | None:
        """Why there must be no beam: the journal cannot be relied upon. None if it can."""
        found = self.writer.fault()
        return None if found is None else f"journal: {found}"

    async def durable(self) -> None:
        """Wait until all of it is on the disk; JournalError where that fails."""
        await self.writer.durable()

    def settle(self) -> None:
        """Something that must not wait for more: a trip, the end of a delivery. Nobody waits for it."""
        self.writer.seal()
        self.writer.settle()

    def opened(self, session: Session) -> None:
        """A session is opened, or opened again."""
        program = session.program
        self._add("sessions", session.id, {
            "facility": program.facility_id, "config_hash": program.facility_hash,
            "energy_table": session.energy_table, "room": program.room_id, "mode": session.mode, "qa": int(program.qa),
            "plan_label": program.plan_label, "plan_hash": program.plan_hash, "plan_path": session.plan_path,
            "patient": program.patient_id, "operator": session.operator, "layers": len(session.books),
            "spots": session.spots, "prescribed_ions": session.prescribed_ions,
        })  # fmt: skip
        share = session.share
        self._add("courses", session.id, {
            "patient": program.patient_id, "plan_hash": program.plan_hash, "plan_uid": program.plan_uid,
            "intent": program.intent, "fraction": share.number, "planned": share.planned, "delivery": share.delivery,
            "continues": share.continues,
        })  # fmt: skip
        if session.rules_before != UNKNOWN_RULES:  # until somebody has it delivered it goes by what it went by
            self._goes_by(session, session.rules_before or session.rules_hash)
        self.person(session, session.operator, "open", session.opened_because)
        self.writer.seal()

    def begun(self, session: Session, by: str) -> None:
        """Somebody's word to start or to go on is taken up; the first one under other interlock rules than the session
        went by puts those on record, in the same batch. Nothing is armed before it is on the disk."""
        if session.rules_before:
            self._goes_by(session, session.rules_hash, session.rules_before)
        if session.rules_before not in ("", UNKNOWN_RULES):
            self.person(session, session.operator, NEW_LIMITS, session.opened_because)
        self.person(session, by, "go on" if session.t_started_ns is not None else "start")

    def _goes_by(self, session: Session, rules_hash: str, before: str = "") -> None:
        data = {"rules_hash": rules_hash, "before": before}
        self._add("events", session.id, {"source": "control", "kind": RULES_KIND, "data": _json(data)})

    def person(self, session: Session, who: str, what: str, reason: str = "") -> None:
        """Somebody has opened, started, resumed, confirmed or closed."""
        self._add("operators", session.id, {"operator": who, "role": session.mode, "what": what, "reason": reason})

    def event(self, session: str, kind: str, data: Mapping[str, Any]) -> None:
        """Something happened; a batch of its own."""
        self._add("events", session, {"source": "control", "kind": kind, "data": _json(data)})
        self.writer.seal()

    def arming(self, session: Session) -> None:
        """The present layer is about to be armed."""
        book = session.book
        layer = book.layer
        self._add("layers", session.id, {
            "layer": session.index, "beam": layer.beam_index, "token": layer.token, "status": ARMING,
            "loads": book.loads, "spots": int(layer.target_ions.size), "spots_done": 0,
            "prescribed_ions": float(layer.target_ions.sum()), "ic1_ions": float(book.start_ions.sum()),
            "ic2_ions": 0.0, "uncertain_ions": float(book.uncertain.sum()), "beam_on_s": 0.0,
        })  # fmt: skip
        self.writer.seal()

    def booked(self, session: Session, result: LayerResult, rows: FloatArray, uncertain: FloatArray, how: str) -> None:
        """A layer's account, totals over all loads: `how` is booked, recovered or verified."""
        self._add("layers", session.id, {
            "layer": result.index, "beam": result.beam, "token": result.token, "status": how, "loads": result.loads,
            "spots": result.spots, "spots_done": result.spots_done, "prescribed_ions": result.prescribed_ions,
            "ic1_ions": result.ic1_ions, "ic2_ions": result.ic2_ions, "uncertain_ions": float(uncertain.sum()),
            "beam_on_s": result.beam_on_s,
        })  # fmt: skip
        packed = pack_rows(np.nan_to_num(rows), uncertain)
        self._add("spots", session.id, {"layer": result.index, "status": how, "n": len(rows), "rows": packed})
        self.writer.seal()

    def booker(self, session: Session) -> Callable[[LayerBook, LayerResult, str], None]:
        """What writes the accounts of this session's layers, for `Session.on_booked`."""

        def book(of: LayerBook, result: LayerResult, how: str) -> None:
            if of.rows is not None:
                self.booked(session, result, of.rows, of.uncertain, how)

        return book

    def interlock(self, session: Session, trip: Interlock) -> None:
        """An interlock took the beam."""
        self._add("trips", session.id, {"rule": trip.rule, "action": trip.action, "layer": trip.layer,
                                        "detail": _json(trip.detail)})  # fmt: skip
        self.settle()

    def bypasses(self, session: str, data: Mapping[str, Any]) -> None:
        """The bypasses in force have changed: `in_force`, and the ids of those that were set and have ended."""
        self._add("bypasses", session, {"data": _json(data)})
        self.writer.seal()

    def record(self, session: Session, summary: SessionSummary) -> None:
        """The session has ended, for now or for good."""
        data = summary.to_data()
        self._add("events", session.id, {"source": "control", "kind": RECORD_KIND,
                                         "data": _json({name: data[name] for name in _KEPT})})  # fmt: skip
        if summary.status == "completed" and session.share.number:
            self.fraction(session, "completed", summary.ic1_ions)
        self.settle()

    def closed_partial(self, entry: SessionEntry, who: str, reason: str, ions: float) -> None:
        """A session is closed for good with something left; a later fraction can carry it. `ions`: what counts as
        delivered."""
        self._add("operators", entry.session, {"operator": who, "role": entry.mode, "what": "close partial",
                                               "reason": reason})  # fmt: skip
        data = {"status": "partial", "reason": reason, "ic1_ions": ions}
        self._add("events", entry.session, {"source": "control", "kind": RECORD_KIND, "data": _json(data)})
        if entry.fraction:
            self._add("fractions", entry.session, {
                "patient": entry.patient, "plan_hash": entry.plan_hash, "fraction": entry.fraction,
                "planned": entry.fractions_planned, "status": "partial", "ic1_ions": ions,
            })  # fmt: skip
        self.settle()

    def fraction(self, session: Session, status: str, ic1_ions: float) -> None:
        """A fraction has begun or ended."""
        self._add("fractions", session.id, {
            "patient": session.program.patient_id, "plan_hash": session.program.plan_hash,
            "fraction": session.share.number, "planned": session.share.planned, "status": status, "ic1_ions": ic1_ions,
        })  # fmt: skip

    def command(self, session: str, command: Command, result: CommandResult) -> None:
        """A command of a person, and what became of it."""
        self._add("commands", session, {
            "command": command.id, "issuer": command.issuer, "role": command.role, "verb": command.verb,
            "arguments": _json(command.args), "outcome": result.status.value, "words": result.words,
        })  # fmt: skip
        self.writer.seal()

    def _add(self, table: str, session: str, values: Mapping[str, Any]) -> None:
        self.writer.add(table, session, {name: _known(value) for name, value in values.items()})


def _known(value: Any) -> Any:
    """What is no number is written as 0: neither JSON nor every database has one, and the event log tells of it."""
    return 0.0 if isinstance(value, float) and not math.isfinite(value) else value


def _json(data: Any) -> str:
    if isinstance(data, Mapping):
        data = {name: _known(value) for name, value in data.items()}
    return canonical_json(data).decode("utf-8")
