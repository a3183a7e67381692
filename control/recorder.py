"""What the sequencer writes down: session, event log, and whoever listens (operator's PVs, telemetry)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from control.bookkeeper import Bookkeeper
from control.layer_machine import Event, State
from control.machine_link import MachineLink
from control.session import Interlock, Session, SessionSummary, Status
from control.stages import Stages
from facility.errors import ChannelError, CommandRefused
from facility.events import EventLog
from facility.states import Action
from facility.timebase import Clock
from journal.read import UNKNOWN_RULES

Listener = Callable[[str, Mapping[str, Any]], None]
"""Called with a topic (session, state, layer, interlock, message, summary) and JSON data."""

_STATUS: dict[State, Status] = {State.COMPLETED: "completed", State.INTERRUPTED: "interrupted"}
_GOES_ON = frozenset({Event.START, Event.RESUME, Event.RESELECT})
_WORDS = {Event.OPERATOR_PAUSE: "paused by the operator", Event.OPERATOR_STOP: "stopped by the operator"}


class Recorder:
    """Keeps the record of the open session."""

    def __init__(self, clock: Clock, events: EventLog, books: Bookkeeper) -> None:
        self._books = books
        self.listeners: list[Listener] = []
        self.summary: SessionSummary | None = None
        """Record of the last end or interruption; None while a session is being delivered."""
        self.steps = 0
        self._clock = clock
        self._events = events

    def step(self, session: Session | None, before: State, after: State, event: Event, reason: str) -> None:
        """A step of the layer machine was made."""
        self.steps += 1
        t_ns = self._clock.now_ns()
        words = reason or _WORDS.get(event, "")
        data: dict[str, Any] = {"from": before.name, "to": after.name, "event": event.name, "reason": words}
        if session is not None:
            data |= {"session": session.id, "layer": session.index}
            self._book(session, after, event, words, t_ns)
        self._events.emit("control", "state", data)
        if session is not None:
            self._books.event(session.id, "state", data)
        self.tell("state", data)

    def _book(self, session: Session, after: State, event: Event, words: str, t_ns: int) -> None:
        if event in _GOES_ON:
            session.status, session.reason, self.summary = "open", "", None
            session.t_started_ns = t_ns if session.t_started_ns is None else session.t_started_ns
        elif event is Event.BEAM_ON and after is State.IRRADIATING:
            session.beam_on(t_ns)
        if words:
            session.reason = words
            session.messages.append(words)
            self.tell("message", {"text": words})

    def verified(self, session: Session, stages: Stages) -> None:
        """The present layer is verified: book it."""
        if stages.verdict is None:
            return
        result = session.verified(stages.verdict, self._clock.now_ns())
        stages.verdict = None
        data = {
            "session": session.id,
            "index": result.index,
            "token": result.token,
            "spots": result.spots,
            "prescribed_ions": result.prescribed_ions,
            "ic1_ions": result.ic1_ions,
            "ic2_ions": result.ic2_ions,
            "worst_spot_error_ions": result.worst_spot_error_ions,
        }
        self.emit("layer.verified", data)
        self.tell("layer", data)

    def opened_or_closed(self, session: Session, *, opened: bool) -> None:
        """A session was opened or let go of."""
        data = {"session": session.id, "plan_hash": session.program.plan_hash}
        self.emit("session.opened" if opened else "session.closed", data)

    def begun(self, session: Session, by: str) -> None:
        """Somebody's word to start or to go on is taken up: from now on the session goes by the rules in force."""
        self._books.begun(session, by)
        if session.rules_before not in ("", UNKNOWN_RULES):
            rules = {"rules_hash": session.rules_hash, "before": session.rules_before}
            data = {"session": session.id, "plan_hash": session.program.plan_hash} | rules
            self.emit("session.new-limits", data | {"by": session.operator, "reason": session.opened_because})
        session.rules_before = ""

    async def interlock(self, session: Session, link: MachineLink, rule: str) -> None:
        """An interlock took the beam: name, action and, where the safety controller tells, value and limit."""
        detail: dict[str, Any] = {}
        with contextlib.suppress(CommandRefused, ChannelError):
            detail = next((row for row in await link.read_latched() if row.get("id") == rule), {})
        action = link.action if link.action >= Action.PAUSE else Action.PAUSE
        known = Interlock(self._clock.now_ns(), rule, action.name, session.index, detail)
        if session.interlocks and session.status == "interrupted" and session.interlocks[-1].rule == rule:
            session.interlocks[-1] = known  # the same trip, first seen as the front end's pause
        else:
            session.interlocks.append(known)
        self._books.interlock(session, known)
        session.reason = rule
        session.messages.append(f"{action.name} by {rule}")
        data = {"session": session.id, "rule": rule, "action": action.name, "layer": session.index, "detail": detail}
        self.emit("interlock", data)
        self.tell("interlock", data)
        self.tell("message", {"text": session.messages[-1]})

    def close_record(self, session: Session, state: State) -> None:
        """The session has ended or is interrupted: make its summary."""
        session.status = _STATUS.get(state, "terminated")
        session.authorised_by = ""
        self.summary = session.summary(self._clock.now_ns())
        self._books.record(session, self.summary)
        data = {"session": session.id, "status": session.status, "reason": session.reason}
        self.emit("session.record", data | {"ic1_ions": self.summary.ic1_ions, "ic2_ions": self.summary.ic2_ions})
        self.tell("summary", self.summary.to_data())

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Log an event of control."""
        self._events.emit("control", kind, data)

    def tell(self, topic: str, data: Mapping[str, Any]) -> None:
        """Tell all listeners, with facility time."""
        stamped = {"t_ns": self._clock.now_ns(), **data}
        for listener in tuple(self.listeners):
            listener(topic, stamped)
