"""How sessions are opened and closed for good: from a plan, from the journal, as partial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from control.course import require_let_go, share_of
from control.layer_machine import Event, refused
from control.recovery import require_same, restore
from control.sequencer import Sequencer
from control.session import ProgramLike, Session
from facility.errors import CommandRefused
from journal import read
from journal.course import Share, read_course
from journal.store import Journal

LoadProgram = Callable[[str, str, bool], ProgramLike]
"""(plan path, room id, QA) -> program; PlanError or ConfigError for what cannot be delivered."""
Verb = Callable[[Mapping[str, Any], str], Awaitable[dict[str, Any]]]
"""(arguments, issuer) -> data of the result."""


class SessionDesk:
    """The verbs load, recover and close_partial; see `control.server.ControlServer` for the arguments."""

    def __init__(
        self, sequencer: Sequencer, load_program: LoadProgram, journal: Journal | None, energy_table: str
    ) -> None:
        self._sequencer = sequencer
        self._load_program = load_program
        self._journal = journal
        self._energy_table = energy_table
        self.verbs: dict[str, Verb] = {
            "load": self._load, "recover": self._recover, "close_partial": self._close_partial
        }  # fmt: skip

    async def _load(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        plan, room, qa = args.get("plan"), args.get("room"), args.get("qa", False)
        if not isinstance(plan, str) or not isinstance(room, str) or not isinstance(qa, bool):
            what = "load wants plan (path), room (id) and qa (true or false)"
            raise CommandRefused("control.arguments", what, "TCS:Cmd")
        approved = args.get("plan_hash", "")
        if not isinstance(approved, str):
            raise CommandRefused("control.arguments", "plan_hash is the hash of the approved plan", "TCS:Cmd")
        program = self._load_program(plan, room, qa)
        share = self._share(program)

        def dress(session: Session) -> None:
            session.plan_path, session.energy_table, session.share = plan, self._energy_table, share

        session = await self._sequencer.load(
            program, mode=self._sequencer.mode, operator=issuer, approved_hash=approved, dress=dress
        )
        spots = sum(int(layer.target_ions.size) for layer in program.layers)
        return {"session": session, "plan_hash": program.plan_hash, "layers": len(program.layers), "spots": spots}

    def _share(self, program: ProgramLike) -> Share:
        """Which fraction it would be; CommandRefused where something would be given twice."""
        sequencer, journal = self._sequencer, self._journal
        if not refused(sequencer.state, Event.LOAD):  # where it is refused anyway, the state is the better reason
            require_let_go(sequencer.session, program)
        course = None if journal is None else read_course(journal, program.patient_id, program.plan_hash)
        return share_of(sequencer.mode, program, course)

    async def _recover(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        wanted: dict[str, type] = {"session": str, "plan": str, "room": str, "qa": bool, "reason": str}
        for name, kind in wanted.items():
            if type(args.get(name)) is not kind:
                raise CommandRefused("control.arguments", f"recover wants {name} ({kind.__name__})", "TCS:Cmd")
        entry = read.session(self._written("recover"), args["session"])
        program = self._load_program(args["plan"], args["room"], args["qa"])
        require_same(entry, program, self._energy_table)
        layers = read.layers(self._written("recover"), entry.session)

        def dress(session: Session) -> None:
            session.plan_path, session.energy_table = args["plan"], self._energy_table
            session.opened_because = args["reason"]
            session.share = Share(entry.fraction, entry.fractions_planned, entry.continues)
            restore(session, layers)

        await self._sequencer.load(
            program, mode=self._sequencer.mode, operator=issuer, approved_hash=entry.plan_hash, dress=dress,
            session_id=entry.session,
        )  # fmt: skip
        return {"session": entry.session, "plan_hash": program.plan_hash}

    async def _close_partial(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        session, reason = args.get("session"), args.get("reason")
        if not isinstance(session, str) or not isinstance(reason, str) or not reason.strip():
            raise CommandRefused("control.arguments", "close_partial wants session and reason", "TCS:Cmd")
        journal = self._written("close_partial")
        if self._sequencer.session is not None and self._sequencer.session.id == session:
            await self._sequencer.close()
        entry = read.session(journal, session)
        if entry.status in read.ENDED:
            raise CommandRefused("session.ended", f"session {session} is {entry.status}", "close_partial")
        self._sequencer.books.closed_partial(entry, issuer, reason)
        await self._sequencer.books.durable()
        return {"session": session}

    def _written(self, verb: str) -> Journal:
        """The journal, to read."""
        if self._journal is None:
            raise CommandRefused("recovery.journal", "control runs without a journal", verb)
        return self._journal
