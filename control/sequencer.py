"""The sequencer: one task that feeds the layer machine and carries out its effects.

People ask (`load`, `prepare`, `start`, `pause`, `resume`, `stop`, `close`), the machine reports through `MachineLink`,
stages report what they achieved; every event goes through `control.layer_machine.step` and nothing changes the state
beside it. What the machine says is read as levels, not edges, so that a lost monitor update cannot lose an event.
Requests and reasons to stop come before the results of stages; long waits give way to them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from channels.background import Background
from control.bookkeeper import Bookkeeper
from control.layer_machine import BEAM_POSSIBLE, HOLDING, Effect, Event, State, matters, not_now, refused, step
from control.layer_table import LayerRules
from control.machine_link import MachineLink
from control.observer import Observer
from control.procedure import Lines, Procedure
from control.progress import progress_of
from control.recorder import Listener, Recorder
from control.session import Mode, ProgramLike, Session, SessionSummary
from control.stage_fault import Preempted, StageFault, as_fault
from control.stages import SequencerLimits, Stages
from facility.errors import ChannelError, CommandRefused, InternalError, JournalError
from facility.events import EventLog
from facility.ids import IdSource
from facility.states import FrontEndState
from facility.timebase import Clock

_log = structlog.get_logger(__name__)

_BEST_EFFORT = frozenset({Effect.PAUSE_BEAM, Effect.STOP_BEAM, Effect.PEEK, Effect.ACCOUNT, Effect.END_CYCLE})
"""Effects whose failure is noted but changes nothing: the interlocks hold the beam, not control."""
_INTERLOCKS = frozenset({Event.PAUSED_BY_INTERLOCK, Event.ABORTED_BY_INTERLOCK})
_GO_ON = frozenset({Event.START, Event.RESUME, Event.RESELECT})
_VERIFIED = frozenset({Event.VERIFIED_MORE, Event.VERIFIED_LAST})
_RECORDED = {State.COMPLETED: "completed", State.INTERRUPTED: "interrupted", State.TERMINATED: "terminated"}


@dataclass
class _Request:
    event: Event
    answer: asyncio.Future[None]
    apply: Callable[[], None] = field(default=lambda: None)


class Sequencer:
    """Delivers programs over a `MachineLink`. Use as an async context manager: the task lives inside the block.

    Args:
        link: connected to plant and safety controller.
        clock: facility time.
        ids: where session ids come from.
        events: event log of the run.
        rules, limits: numbers of the front end, longest waits.
        facility_hash: configuration that programs must be made for; None: not checked.
        books: the journal; None: nothing is written down.
        fast_rules: see `Observer`.
    """

    def __init__(
        self, link: MachineLink, clock: Clock, ids: IdSource, events: EventLog, *, rules: LayerRules | None = None,
        limits: SequencerLimits | None = None, facility_hash: str | None = None, books: Bookkeeper | None = None,
        fast_rules: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.rules = rules or LayerRules()
        self.books = books or Bookkeeper()
        """The journal."""
        self.state = State.STANDBY
        self.session: Session | None = None
        self._link = link
        self._clock = clock
        self._ids = ids
        self._recorder = Recorder(clock, events, self.books)
        self._candidate: Session | None = None
        self._limits = limits or SequencerLimits()
        self._procedure = Procedure(link, self.rules, facility_hash, self.books)
        self.on_turn: Callable[[], None] = lambda: None
        """Called at every turn of the task: something may have changed that `lines` shows."""
        self._stages = Stages(link, self.rules, self._limits, self._must_stop, self._procedure, self.books)
        self._observer = Observer(link, self._limits.progress_s * self._limits.scale, self.books.fault, fast_rules)
        self._requests: deque[_Request] = deque()
        self._results: deque[tuple[Event, str]] = deque()
        self._prefetch_due = False
        self._changed = asyncio.Event()
        self._task = Background("sequencer")

    async def __aenter__(self) -> Sequencer:
        self._task.start(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._task.stop()

    @property
    def task(self) -> asyncio.Task[None]:
        """The task; it ends only with the block, or by a defect, which whoever runs the sequencer has to notice."""
        if self._task.task is None:
            raise InternalError("control.not-entered", "the sequencer runs only inside its block", "sequencer")
        return self._task.task

    @property
    def mode(self) -> Mode:
        """Operating mode of the facility, as the safety controller says."""
        return self._link.mode

    # --- what people ask -----------------------------------------------------------------------------------
    async def load(
        self, program: ProgramLike, *, mode: Mode, operator: str, approved_hash: str = "",
        dress: Callable[[Session], None] = lambda _session: None, session_id: str = "",
    ) -> str:  # fmt: skip
        """Take a program; gives the session's id. CommandRefused in a wrong state or if another plan was approved.

        `session_id` opens a session again; `dress` gives the new one what only the caller knows.
        """
        if approved_hash not in ("", program.plan_hash):
            what = f"approved was {approved_hash}, this is {program.plan_hash}"
            raise CommandRefused("plan.not-approved", what, "load", "load the file that was approved")

        def apply() -> None:
            t_ns = self._clock.now_ns()
            of = f"{program.plan_hash} {program.facility_hash} {program.room_id}"
            self._candidate = Session(
                session_id or self._ids.session(of), program, mode=mode, operator=operator, t_ns=t_ns,
                approved_hash=approved_hash,
            )  # fmt: skip
            dress(self._candidate)

        await self._ask(Event.LOAD, apply)
        if self._candidate is None:
            raise InternalError("control.load", "LOAD was accepted without a session", "sequencer")
        return self._candidate.id

    async def prepare(self) -> None:
        """Check the machine, put range shifters in place; READY follows by itself when beam is permitted."""
        await self._ask(Event.PREPARE)

    async def start(self, by: str) -> None:
        """Deliver; `by` is who wants it, for the record. It counts for the permit of now, for no later one."""
        await self._ask(Event.START, self._authority(by))

    async def pause(self) -> None:
        """Beam off; `resume` goes on."""
        await self._ask(Event.OPERATOR_PAUSE)

    async def resume(self, by: str) -> None:
        """Go on after an interruption (`by`: as `start`), at the exact remainder. CommandRefused while it stands."""
        await self._link.permit_shown(self._limits.permit_shown_s * self._limits.scale)
        event = self._observer.resume_event(self._session()) if self.state is State.INTERRUPTED else Event.RESUME
        await self._ask(event, self._authority(by))

    async def stop(self) -> None:
        """Beam off for good. Without a delivery there is nothing to end, but the front end is told all the same."""
        if refused(self.state, Event.OPERATOR_STOP):
            await self._stages.stop_beam()
        else:
            await self._ask(Event.OPERATOR_STOP)

    async def close(self) -> None:
        """Let go of the session; `last_summary` keeps its record."""
        await self._ask(Event.CLOSE)

    async def until(self, states: frozenset[State] | set[State], timeout_s: float) -> State:
        """Wait for one of the states; ChannelError 'control.timeout' after `timeout_s` (event-loop s)."""
        wanted = ", ".join(sorted(state.name for state in states))
        await self._wait_for(lambda: self.state in states, timeout_s, wanted)
        return self.state

    async def recorded(self, timeout_s: float) -> SessionSummary:
        """Wait until the delivery has ended or is interrupted and its record is written; `timeout_s` as `until`."""
        await self._wait_for(lambda: self._record() is not None, timeout_s, "a record")
        summary = self._record()
        if summary is None:
            raise InternalError("control.record", "the record has gone", "sequencer")
        return summary

    async def reconcile(self, session: Session) -> str:
        """Bring the journal's account of a session that is not open together with the dose register; what was found."""
        return await self._stages.reconcile(session, self._clock.now_ns(), disarm=self.state not in HOLDING)

    @property
    def listeners(self) -> list[Listener]:
        """Who is told what happens."""
        return self._recorder.listeners

    @property
    def last_summary(self) -> SessionSummary | None:
        """Record of the last session that ended or was interrupted; None while one is being delivered."""
        return self._recorder.summary

    def _authority(self, by: str) -> Callable[[], None]:
        """What a person's word to go on does once it is taken up; the permit it is meant for is the one of now."""
        epoch = self._link.permit_epoch

        def authorise() -> None:
            session = self._session()
            session.authorise(by, epoch)
            self._recorder.begun(session, by)

        return authorise

    def _record(self) -> SessionSummary | None:
        summary = self._recorder.summary
        return summary if summary is not None and summary.status == _RECORDED.get(self.state) else None

    async def _wait_for(self, met: Callable[[], bool], timeout_s: float, wanted: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not met():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            what = f"still {self.state.name} after {timeout_s:g} s, waited for {wanted}"
            raise ChannelError("control.timeout", what, "sequencer") from None

    def progress(self) -> dict[str, float]:
        """Elements of TCS:Progress-RB by name."""
        end = self._clock.now_ns() if self._recorder.summary is None else self._recorder.summary.t_ended_ns
        values = {"seq": float(self._recorder.steps), "state": float(self.state.index), "beam": float(self._beam())}
        return progress_of(self.session, self._link.fe, end) | values

    def lines(self, whole: bool) -> Lines:
        """What control vouches for, see `control.procedure`; nothing once the task has ended."""
        if not self._task.running:
            return Lines(False, False, False, False)
        return self._procedure.lines(self.state, self.session, whole=whole)

    def _beam(self) -> bool:
        fe = self._link.fe
        return self.state is State.IRRADIATING and fe is not None and fe.state is FrontEndState.IRRADIATING

    def _session(self) -> Session:
        if self.session is None:
            raise CommandRefused("control.no-session", "no session is open", "sequencer", "load a plan first")
        return self.session

    async def _ask(self, event: Event, apply: Callable[[], None] | None = None) -> None:
        if refused(self.state, event):
            raise not_now(self.state, event)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(event, answer, apply or (lambda: None)))
        self._link.wake.set()
        await answer

    # --- the task ------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while True:
            self.on_turn()
            if self._requests:
                await self._apply_request(self._requests.popleft())
            elif (found := self._observer.stop(self.state, self.session)) is not None:
                await self._apply(*found)
            elif self._results:
                await self._apply(*self._results.popleft())
            elif (found := self._observer.progress(self.state, self.session)) is not None:
                await self._apply(*found)
            elif self._prefetch_due and self._stages.prefetch_possible(self._session()):
                await self._prefetch()
            elif self.state in BEAM_POSSIBLE and self._stages.strayed(self._session()):
                await self._recall()
            else:
                await self._link.changed(self._limits.check_s)

    def _must_stop(self) -> bool:
        return bool(self._requests) or self._observer.stop(self.state, self.session) is not None

    async def _apply_request(self, request: _Request) -> None:
        if refused(self.state, request.event):  # the state changed since it was asked
            if not request.answer.done():
                request.answer.set_exception(not_now(self.state, request.event))
            return
        self._results.clear()  # what stages found before a person decided does not count any more
        if request.event in _GO_ON:
            self._link.acknowledge()
        request.apply()
        if not request.answer.done():
            request.answer.set_result(None)
        await self._apply(request.event, "")

    async def _apply(self, event: Event, reason: str) -> None:
        before = self.state
        if not matters(before, event):
            return
        self.state, effects = step(before, event)
        if event is Event.BEAM_ON and before not in BEAM_POSSIBLE:
            self._observer.stray_handled()
        if event in _VERIFIED:
            self._recorder.verified(self._session(), self._stages)
        self._recorder.step(self.session, before, self.state, event, reason)
        self._changed.set()
        if event in _INTERLOCKS and Effect.CLOSE_RECORD in effects:
            await self._perform_all(tuple(effect for effect in effects if effect is not Effect.CLOSE_RECORD))
            rule = await self._observer.rule_name(self._limits.rule_name_s * self._limits.scale)
            await self._recorder.interlock(self._session(), self._link, rule)
            effects = (Effect.CLOSE_RECORD,)
        await self._perform_all(effects)

    async def _perform_all(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            outcome = await self._guarded(effect)
            if outcome is not None:
                self._results.append(outcome)

    async def _guarded(self, effect: Effect) -> tuple[Event, str] | None:
        try:
            event = await self._perform(effect)
        except Preempted:
            return None
        except StageFault as fault:
            return self._failed(effect, fault)
        except (CommandRefused, ChannelError, JournalError) as error:
            return self._failed(effect, as_fault(error))
        return None if event is None else (event, "")

    def _failed(self, effect: Effect, fault: StageFault) -> tuple[Event, str] | None:
        self._recorder.emit("effect.failed", {"effect": effect.name, "reason": fault.reason})
        _log.warning("effect failed", effect=effect.name, reason=fault.reason)
        return None if effect in _BEST_EFFORT else (fault.event, fault.reason)

    async def _perform(self, effect: Effect) -> Event | None:
        if effect in (Effect.REFUSE, Effect.REPORT):  # whoever asked is told by `_ask`, the operator by the recorder
            return None
        if effect in (Effect.OPEN_SESSION, Effect.CLOSE_SESSION):
            self._open_or_close(effect)
            return None
        if effect is Effect.STOP_BEAM:  # needs no session: beam may come when there is none
            self._prefetch_due = False
            await self._stages.stop_beam()
            return None
        stages, session = self._stages, self._session()
        match effect:
            case Effect.CHECK_MACHINE:
                return await stages.check_machine(session, self._clock.now_ns())
            case Effect.SELECT_ENERGY:
                return await stages.select_energy(session)
            case Effect.LOAD_SPOTS:
                return await stages.load_spots(session)
            case Effect.ARM:
                self._observer.restart()
                return await stages.arm(session, self._clock.now_ns())
            case Effect.PREFETCH:
                self._prefetch_due = True
            case Effect.RESUME_BEAM:
                with self._observer.resuming():
                    await stages.resume_beam(session)
                self._prefetch_due = True
            case Effect.READ_REGISTER:
                self._prefetch_due = False
                return await stages.read_register(session, last=session.next_layer is None)
            case Effect.PAUSE_BEAM:
                self._prefetch_due = False
                await stages.pause_beam()
            case Effect.PEEK:
                await stages.peek(session, self._clock.now_ns())
            case Effect.ACCOUNT:
                await stages.account(session, self._clock.now_ns)
            case Effect.END_CYCLE:
                await stages.end_cycle()
            case Effect.CLOSE_RECORD:
                self._recorder.close_record(session, self.state)
                self._changed.set()
        return None

    async def _prefetch(self) -> None:
        self._prefetch_due = False
        try:
            await self._stages.prefetch(self._session())
        except (CommandRefused, ChannelError) as error:  # asked again when its turn comes
            self._stages.forget_ahead()
            self._recorder.emit("prefetch.failed", {"reason": str(error)})

    async def _recall(self) -> None:
        self._recorder.emit("ring.strayed", {"layer": self._session().index})
        self._prefetch_due = True
        try:
            await self._stages.recall(self._session())
        except (CommandRefused, ChannelError) as error:
            self._recorder.emit("recall.failed", {"reason": str(error)})

    def _open_or_close(self, effect: Effect) -> None:
        if effect is Effect.OPEN_SESSION:
            self.session = self._candidate
            self._procedure.opened(self._session())
            self._recorder.summary = None
            self._stages.forget_ahead()
            self._session().on_booked = self.books.booker(self._session())
            self.books.opened(self._session())
        session = self._session()
        self._recorder.opened_or_closed(session, opened=effect is Effect.OPEN_SESSION)
        if effect is Effect.CLOSE_SESSION:
            self.session = None
        self._recorder.tell("session", {"session": "" if self.session is None else self.session.id})
