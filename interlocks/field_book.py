"""The account of the field as the safety controller keeps it: scans and commands in, answers, events and a record out.

The step is in `field`.  The record survives the process: a field that was under way when the safety controller ended,
or whose record cannot be read, is an unresolved termination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from channels.command import Command, CommandResult, Status
from facility.ids import field_number
from facility.states import Action
from interlocks import field
from interlocks.answers import refused
from interlocks.field import Effect, FieldState
from interlocks.model import PolicySettings, Rule

Emit = Callable[..., None]
RECORD_SCHEMA = "ionctl.field/1"
SESSION_MAX = 64
"""Longest session id, characters."""
WORDS_MAX = 1000
"""Longest account of a termination, characters."""
_EVENTS = {
    Effect.BEGUN: "field.begun",
    Effect.PAUSED: "field.paused",
    Effect.TERMINATED: "field.terminated",
    Effect.OPENED: "field.opened",
    Effect.CLOSED: "field.closed",
    Effect.RESOLVED: "field.resolved",
}


class FieldStore(Protocol):
    """Where the record lives."""

    def load(self) -> Mapping[str, Any] | None:
        """The last record; None if there has never been one.  ValueError if it cannot be read."""

    def save(self, record: Mapping[str, Any]) -> None:
        """Replace it; on return it survives the process."""


class MemoryStore:
    """A record that lives as long as its owner: virtual time, tests."""

    def __init__(self) -> None:
        self.record: Mapping[str, Any] | None = None

    def load(self) -> Mapping[str, Any] | None:
        """See FieldStore."""
        return self.record

    def save(self, record: Mapping[str, Any]) -> None:
        """See FieldStore."""
        self.record = dict(record)


class FieldBook:
    """The field under way.

    Args:
        rules: every rule.
        settings: `[policy]`.
        store: where the record lives.
        emit: takes kind and data of an event.
    """

    def __init__(self, rules: Sequence[Rule], settings: PolicySettings, store: FieldStore, emit: Emit) -> None:
        self.spec = field.spec_of(rules, settings)
        self._store = store
        self._emit = emit
        self.state = self._restored()
        if self.state.unresolved:
            self._save(self.state)

    # --- the record ---------------------------------------------------------------------------------------------
    def _restored(self) -> FieldState:
        try:
            record = self._store.load()
            state = field.fresh(self.spec) if record is None else _state_of(self.spec, record)
        except ValueError as problem:
            self._emit("field.terminated", session="", why=f"the record cannot be read: {problem}")
            return field.fresh(self.spec)._replace(begun=True, unresolved=True)
        if state.begun and not state.unresolved:
            self._emit("field.terminated", session=state.session, why="the safety controller has restarted")
            return state._replace(unresolved=True)
        return state

    def _save(self, state: FieldState) -> None:
        self._store.save(
            {
                "schema": RECORD_SCHEMA,
                "session": state.session,
                "begun": state.begun,
                "holds": dict(zip(self.spec.rules, state.holds, strict=True)),
                "pauses": state.pauses,
                "unresolved": state.unresolved,
            }
        )

    # --- scans --------------------------------------------------------------------------------------------------
    def observe(self, active: bool, present: frozenset[str], released: bool, aborted: bool) -> bool:
        """Follow a scan: rules that are present, the permit.  True if rules must be judged again because of it."""
        holding = sum(1 << place for place, rule in enumerate(self.spec.rules) if rule in present)
        before = self.inputs
        self._step(field.Observed(active, holding, released, aborted))
        return self.inputs != before

    @property
    def inputs(self) -> tuple[int, int, int, int]:
        """What rules see: `field.hold_ok`, `field.pause_ok`, `field.resolved`, `field.number`."""
        state = self.state
        good = (field.hold_ok(self.spec, state), field.pause_ok(self.spec, state), not state.unresolved)
        return int(good[0]), int(good[1]), int(good[2]), self.number

    @property
    def number(self) -> int:
        """Number of the field that is open, 0 if nobody has opened one by name."""
        return field_number(self.state.session)

    def _step(self, event: field.Event, **data: object) -> tuple[Effect, ...]:
        """The record is written first: where that fails (OSError) nothing has happened."""
        before = self.state
        state, effects = field.step(self.spec, before, event)
        if effects and state != before:
            self._save(state)
        self.state = state
        for effect in effects:
            if effect in _EVENTS:
                named = state.session or before.session
                self._emit(_EVENTS[effect], **{"session": named, "pauses": state.pauses, **data})
        return effects

    # --- commands -----------------------------------------------------------------------------------------------
    def open(self, command: Command, active: bool) -> CommandResult:
        """Verb `open_field` {session}: counts begin at zero."""
        session = _session(command)
        if not session:
            return refused(command, "field.session", f"give a session of 1 to {SESSION_MAX} characters")
        return self._carry_out(command, field.Opened(session, active))

    def close(self, command: Command, active: bool) -> CommandResult:
        """Verb `close_field` {session}: the field is over and accounted for."""
        return self._carry_out(command, field.Closed(_session(command), active))

    def resolve(self, command: Command) -> CommandResult:
        """Verb `resolve` {session, words, resume}: a physicist accounts for a termination."""
        words, resume = command.args.get("words"), command.args.get("resume", False)
        if not isinstance(words, str) or not 0 < len(words.strip()) <= WORDS_MAX:
            return refused(command, "field.words", f"say in 1 to {WORDS_MAX} characters what became of the field")
        if not isinstance(resume, bool):
            return refused(command, "field.resume", "resume is true or false")
        event = field.Resolved(_session(command), resume)
        return self._carry_out(command, event, words=words, resume=resume)

    def _carry_out(
        self, command: Command, event: field.Opened | field.Closed | field.Resolved, **data: object
    ) -> CommandResult:
        try:
            effects = self._step(event, by=command.issuer, **data)
        except OSError as problem:
            words = f"the record of the field cannot be written: {problem}; all is as before"
            return refused(command, "field.record", words)
        return self._answer(command, event.session, effects)

    def _answer(self, command: Command, session: str, effects: tuple[Effect, ...]) -> CommandResult:
        effect = effects[-1]
        if effect in _EVENTS:
            return CommandResult(command.id, Status.DONE, data={"session": self.state.session})
        here = self.state.session or "without a name"
        words = {
            Effect.REFUSED_ACTIVE: "a layer is active: wait until it is done, or stop it",
            Effect.REFUSED_UNRESOLVED: f"the termination of field {here} is unresolved: a physicist must resolve it",
            Effect.REFUSED_SAME: f"field {session} is open already",
            Effect.REFUSED_OTHER: f"the field is {here}, not {session!r}",
            Effect.REFUSED_NOTHING: "no termination is unresolved",
        }
        return refused(command, f"field.{effect.value}", words[effect])


def _session(command: Command) -> str:
    """The session that a command names; empty if it names none that could be."""
    session = command.args.get("session", "")
    return session if isinstance(session, str) and len(session) <= SESSION_MAX else ""


def _state_of(spec: field.FieldSpec, record: Mapping[str, Any]) -> FieldState:
    """The state behind a record; ValueError says what is wrong with it."""
    if record.get("schema") != RECORD_SCHEMA:
        raise ValueError(f"schema is not {RECORD_SCHEMA}")
    session, holds = record.get("session"), record.get("holds")
    if not isinstance(session, str) or not isinstance(holds, dict):
        raise ValueError("session must be a string, holds an object")
    counts = (*(holds.get(rule, 0) for rule in spec.rules), record.get("pauses"))
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("holds and pauses must be counts")
    begun, unresolved = record.get("begun"), record.get("unresolved")
    if not isinstance(begun, bool) or not isinstance(unresolved, bool):
        raise ValueError("begun and unresolved must be true or false")
    return FieldState(counts[:-1], session, begun=begun, pauses=counts[-1], unresolved=unresolved)


def aborted(released: bool, dropped: Action) -> bool:
    """There is no permit, and an ABORT took it or has come since."""
    return not released and dropped == Action.ABORT
