"""How sessions are opened and closed for good: from a plan, from the journal, as partial.

One at a time, in the order in which it was asked for. A plan is compiled and a journal checked aside, and the event
loop turns meanwhile: a session that is open may be started, delivered and closed. So what a session is opened by, its
account and its place in the course, is read after that, and nothing is awaited from there to the sequencer, which looks
at its state again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from control.aside import SLOW, Aside, at_once
from control.continuation import chain_of, continued
from control.course import require_given_by_nobody_else, require_let_go, share_of
from control.layer_machine import DELIVERING, Event, State, not_now, refused
from control.recovery import changed_limits, require_alike, require_same, restore
from control.sequencer import Sequencer
from control.session import ProgramLike, Session
from facility.errors import CommandRefused, IonctlError, JournalError
from facility.ids import field_number
from journal import read
from journal.course import Course, Share, delivered_by_beam, read_course
from journal.read import SessionEntry
from journal.store import Journal
from journal.verify import Stretch, require_whole

ENDS_S = 10.0
"""Until a session that was stopped has ended and is on record, event-loop s."""
LONGEST_S = 25.0
"""For a plan to be compiled or a journal to be checked, event-loop s: a file that never ends keeps nobody else waiting,
and who has asked, and waits for longer, hears of it."""
KNOWN_S = 120.0
"""What was found whole of a journal is known for so long after that, event-loop s: who had to give up waiting asks
again, and is answered at once."""
KEPT_S = 600.0
"""What took longer to read than this, event-loop s, is not kept: its beginning was read too long ago."""
LoadProgram = Callable[[str, str, bool], ProgramLike]
"""(plan path, room id, QA) -> program; PlanError or ConfigError for what cannot be delivered."""
T = TypeVar("T")
Verb = Callable[[Mapping[str, Any], str], Awaitable[dict[str, Any]]]
"""(arguments, issuer) -> data of the result."""


class SessionDesk:
    """The verbs load, recover, both under other rules, and close_partial; see `control.server` for their arguments.

    Args:
        sequencer, load_program, journal, energy_table, rules_hash: see `control.server.ControlServer`.
        aside: carries out what takes long.
    """

    def __init__(
        self, sequencer: Sequencer, load_program: LoadProgram, journal: Journal | None, energy_table: str,
        rules_hash: str = "", aside: Aside = at_once,
    ) -> None:  # fmt: skip
        self._sequencer = sequencer
        self._load_program = load_program
        self._journal = journal
        self._energy_table = energy_table
        self._rules_hash = rules_hash
        self._aside = aside
        self._turn = asyncio.Lock()
        self._whole: tuple[float, Stretch] | None = None
        """What has been found whole of the journal, and when."""
        self.verbs: dict[str, Verb] = {
            "load": self._in_turn(self._load), "load_new_limits": self._in_turn(self._load_new_limits),
            "recover": self._in_turn(self._recover), "recover_new_limits": self._in_turn(self._recover_new_limits),
            "close_partial": self._in_turn(self._close_partial),
        }  # fmt: skip

    def _in_turn(self, verb: Verb) -> Verb:
        async def waited(args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
            async with self._turn:
                return await verb(args, issuer)

        return waited

    async def _long(self, verb: str, work: Callable[[], T]) -> T:
        """The result of work that is done aside; CommandRefused after LONGEST_S, and nothing was done."""
        try:
            async with asyncio.timeout(LONGEST_S):
                return await self._aside(work)
        except TimeoutError:
            what = f"plan and journal were not read within {LONGEST_S:g} s"
            fix = "it goes on: ask again in a minute, and see what keeps their disk or server busy"
            raise CommandRefused(SLOW, what, verb, fix) from None

    async def _load_new_limits(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        _require("load_new_limits", args, {"continues": str, "reason": str})
        _require_reason("load_new_limits", args["reason"])
        if not args["continues"]:
            raise CommandRefused("control.arguments", "load_new_limits wants a session in continues", "TCS:Cmd",
                                 "a session of its own goes by the rules in force: load")  # fmt: skip
        return await self._load(args, issuer, new_limits=True)

    async def _load(self, args: Mapping[str, Any], issuer: str, *, new_limits: bool = False) -> dict[str, Any]:
        wanted = {"plan": str, "room": str, "qa": bool, "plan_hash": str, "fraction": int, "continues": str,
                  "reason": str}  # fmt: skip
        given = {"qa": False, "plan_hash": "", "fraction": 0, "continues": "", "reason": "", **args}
        _require("load", given, wanted)
        self._require_possible()
        books = self._sequencer.books
        program = await self._long("load", lambda: self._load_program(given["plan"], given["room"], given["qa"]))
        await books.durable()
        if self._share(program, given)[0].continues:
            await self._long("load", self._check("load", given["continues"]))
            await books.durable()
        share, known = self._share(program, given)
        rules_before = ""
        if share.continues:
            before = read.session(self._written("load"), share.continues)
            rules_before = changed_limits(before, self._rules_hash, accepted=new_limits, rest=True)
            program = self._rest(program, share.continues, "load")

        def dress(session: Session) -> None:
            session.plan_path, session.energy_table, session.share = given["plan"], self._energy_table, share
            session.rules_hash, session.rules_before = self._rules_hash, rules_before
            session.opened_because, session.known_fields = given["reason"], known

        session = await self._sequencer.load(
            program, mode=self._sequencer.mode, operator=issuer, approved_hash=given["plan_hash"], dress=dress
        )
        spots = sum(int(layer.target_ions.size) for layer in program.layers)
        return {"session": session, "plan_hash": program.plan_hash, "layers": len(program.layers), "spots": spots}

    def _share(self, program: ProgramLike, given: Mapping[str, Any]) -> tuple[Share, frozenset[int] | None]:
        """What would be loaded of a course, as the journal stands, and which fields of it have their dose there."""
        course = self._course(program)
        share = share_of(self._sequencer.mode, program, course, given["fraction"], given["continues"])
        return share, self._known_fields(course) if course is not None and share.number else None

    def _course(self, program: ProgramLike) -> Course | None:
        """What the journal knows of the course of a plan; None where it belongs to none, or nothing is written down.
        CommandRefused where the session that is open would be given twice."""
        sequencer, journal = self._sequencer, self._journal
        if not refused(sequencer.state, Event.LOAD):  # where it is refused anyway, the state is the better reason
            require_let_go(sequencer.session, program)
        if journal is None or sequencer.mode != "clinical" or program.qa:
            return None  # what is given for quality assurance belongs to none
        return read_course(journal, program.patient_id, program.plan_hash)

    def _known_fields(self, course: Course) -> frozenset[int]:
        """Fields of a plan whose dose the journal has: sessions of its course that delivered, and those that belong to
        none."""
        entries = read.sessions(self._written("load"), patient=course.patient, plan_hash=course.plan_hash)
        known = (*(part.entry for part in course.parts), *(one for one in entries if not one.fraction))
        return frozenset(field_number(one.session) for one in known)

    def _rest(self, program: ProgramLike, continues: str, verb: str) -> ProgramLike:
        """What is left of a session that was closed as partial; the same machine must give it. The journal is whole."""
        journal = self._written(verb)
        require_alike(read.session(journal, continues), program, self._energy_table)
        return continued(journal, program, continues)

    def _check(self, verb: str, session: str) -> Callable[[], None]:
        """`_require_whole`, to be done aside, by the time of this event loop."""
        return functools.partial(self._require_whole, verb, session, asyncio.get_running_loop().time)

    def _require_whole(self, verb: str, session: str, now_s: Callable[[], float]) -> None:
        """JournalError unless the journal is what was written since this session was opened, and those whose rest it
        gives. Takes as long as the journal is: aside. What is found is kept for who asks again, though nobody waits."""
        journal = self._written(verb)
        first, begun_s = chain_of(journal, session)[0].session, now_s()
        found_s, known = self._whole or (0.0, None)
        if begun_s - found_s > KNOWN_S:
            known = None
        try:
            found = require_whole(journal, first, known)
        except JournalError:
            self._whole = None
            raise
        if known is None or found.begin != known.begin:
            found_s = now_s()
        self._whole = (found_s, found) if now_s() - begun_s <= KEPT_S else None

    async def _recover_new_limits(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        return await self._recover(args, issuer, new_limits=True)

    async def _recover(self, args: Mapping[str, Any], issuer: str, *, new_limits: bool = False) -> dict[str, Any]:
        _require("recover", args, {"session": str, "plan": str, "room": str, "qa": bool, "reason": str})
        _require_reason("recover", args["reason"])
        self._require_possible()
        journal, books = self._written("recover"), self._sequencer.books
        check = self._check("recover", args["session"])

        def compiled() -> ProgramLike:
            check()
            return self._load_program(args["plan"], args["room"], args["qa"])

        await books.durable()
        program = await self._long("recover", compiled)
        await books.durable()
        entry = read.session(journal, args["session"])
        require_same(entry, program, self._energy_table)
        rules_before = changed_limits(entry, self._rules_hash, accepted=new_limits)
        self._require_mode(entry)
        if entry.fraction:
            require_given_by_nobody_else(entry, read_course(journal, entry.patient, entry.plan_hash))
        if entry.continues:
            program = self._rest(program, entry.continues, "recover")
        layers = read.layers(journal, entry.session)

        def dress(session: Session) -> None:
            session.plan_path, session.energy_table = args["plan"], self._energy_table
            session.opened_because = args["reason"]
            session.rules_hash, session.rules_before = self._rules_hash, rules_before
            session.share = Share(entry.fraction, entry.fractions_planned, entry.continues)
            restore(session, layers)

        await self._sequencer.load(
            program, mode=self._sequencer.mode, operator=issuer, approved_hash=entry.plan_hash, dress=dress,
            session_id=entry.session,
        )  # fmt: skip
        return {"session": entry.session, "plan_hash": program.plan_hash}

    async def _close_partial(self, args: Mapping[str, Any], issuer: str) -> dict[str, Any]:
        args = {"plan": "", **args}
        _require("close_partial", args, {"session": str, "reason": str, "plan": str})
        name, reason = args["session"], args["reason"]
        _require_reason("close_partial", reason)
        journal, sequencer = self._written("close_partial"), self._sequencer
        if sequencer.session is not None and sequencer.session.id == name:
            if sequencer.state is State.INTERRUPTED:  # the front end holds its layer for a RESUME
                await sequencer.stop()
                await sequencer.recorded(ENDS_S)
            await sequencer.close()
        self._require_idle()
        await sequencer.books.durable()
        entry = read.session(journal, name)
        if entry.status in read.ENDED:
            raise CommandRefused("session.ended", f"session {name} is {entry.status}", "close_partial")
        words, known = await self._heard(entry, args["plan"] or entry.plan_path)
        await sequencer.books.durable()
        ions = sum(delivered_by_beam(journal, name).values())
        sequencer.books.closed_partial(entry, issuer, reason if known else f"{reason}; {words}", ions)
        await sequencer.books.durable()
        for listener in tuple(sequencer.listeners):
            listener("closed", {"session": name})
        return {"session": name, "account": words, "known": known}

    async def _heard(self, entry: SessionEntry, plan: str) -> tuple[str, bool]:
        """Bring journal and register together for the last time; what was found, and whether it is all. Where that
        cannot be, the journal's account stands, and nobody gives what it says is left (`continued`)."""
        sequencer, check = self._sequencer, self._check("close_partial", entry.continues)

        def compiled() -> ProgramLike:
            program = self._load_program(plan, entry.room, entry.qa)
            require_same(entry, program, self._energy_table)
            if entry.continues:
                check()
                program = self._rest(program, entry.continues, "close_partial")
            return program

        try:
            program = await self._long("close_partial", compiled)
        except IonctlError as problem:
            if problem.code == SLOW:  # what is not known yet can still be heard
                raise
            return self._unheard(entry, problem)
        self._require_idle()  # somebody may have started a session meanwhile
        try:
            session = Session(entry.session, program, mode=sequencer.mode, operator=entry.operator, t_ns=0)
            restore(session, read.layers(self._written("close_partial"), entry.session))
            session.on_booked = sequencer.books.booker(session)
            return await sequencer.reconcile(session), True
        except IonctlError as problem:
            return self._unheard(entry, problem)

    def _unheard(self, entry: SessionEntry, problem: IonctlError) -> tuple[str, bool]:
        words = f"journal and register were not brought together: {problem}"
        self._sequencer.books.event(entry.session, read.RECONCILED_KIND, {"words": words, "known": False})
        return words, False

    def _require_possible(self) -> None:
        """CommandRefused where no session can be opened now: then nothing is read for it."""
        if refused(self._sequencer.state, Event.LOAD):
            raise not_now(self._sequencer.state, Event.LOAD)

    def _require_idle(self) -> None:
        """CommandRefused while a session is delivered: a plan is read and compiled for what is closed."""
        sequencer = self._sequencer
        if sequencer.session is not None and sequencer.state in DELIVERING:
            what = f"session {sequencer.session.id} is being delivered, and control has nothing to do beside that"
            raise CommandRefused("control.busy", what, "close_partial", "ask again when it is interrupted or has ended")

    def _require_mode(self, entry: SessionEntry) -> None:
        """What holds for a patient does not hold in other modes, so nobody goes on in another one."""
        mode = self._sequencer.mode
        if mode != entry.mode:
            raise CommandRefused("recovery.mode", f"mode {mode}, the session was opened in mode {entry.mode}",
                                 entry.session, f"turn the mode to {entry.mode}, or close it as partial")  # fmt: skip

    def _written(self, verb: str) -> Journal:
        """The journal, to read."""
        if self._journal is None:
            raise CommandRefused("recovery.journal", "control runs without a journal", verb)
        return self._journal


def _require_reason(verb: str, reason: str) -> None:
    """CommandRefused for a reason without words: the record has to say why."""
    if not reason.strip():
        raise CommandRefused("control.arguments", f"{verb} wants a reason", "TCS:Cmd", "say why, for the record")


def _require(verb: str, args: Mapping[str, Any], wanted: Mapping[str, type]) -> None:
    """CommandRefused unless the arguments are those, and of these types."""
    for name, kind in wanted.items():
        if type(args.get(name)) is not kind:
            raise CommandRefused("control.arguments", f"{verb} wants {name} ({kind.__name__})", "TCS:Cmd")
