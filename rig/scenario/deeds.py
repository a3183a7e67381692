"""What people do in a scenario: the operator, the physicist, whoever is in the room. The same over every target.

Everything goes through a console and a room panel, as people do it. What fails is the business of `Hands`, of which
each target has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from channels.command import Signer
from control.layer_machine import State
from facility.errors import ChannelError, CommandRefused, InternalError, PlanError, UsageError
from rig.letting_go import ask_reset, search_undone
from rig.operator_client import ENDED, OperatorClient
from rig.room_panel import RoomPanel
from rig.scenario.model import Act, Begin, Scenario

MS = 1e-3
OPERATOR = "operator"
RETRY_S = 0.05
CALM_S = 1.5
"""People wait so long after a mending before they ask for a reset: slow devices creep past their limits."""
UNLOAD_S = 1.0
"""A cause that the loaded layer still shows so long after the mending goes with the layer: the operator stops it."""
NUISANCES_MAX = 20
PRESSED_MAX = 3
STARTED_S = 5.0
NAMED_S = 2.0
NOT_STARTED = (State.LOADED, State.PREPARED, State.READY)
STOPPED = (State.INTERRUPTED, State.TERMINATED)
"""The field stands still, and a person has to go on."""
WORDS = "scenario: the field goes on at the exact remainder"


@dataclass(frozen=True)
class Answer:
    """What somebody was told."""

    who: str
    deed: str
    answer: str
    """'done', or the code of the refusal."""


class Hands(Protocol):
    """What makes things fail, at one target."""

    @property
    def scale(self) -> float:
        """Event-loop s for a facility s."""

    async def begin(self, act: Act) -> None:
        """Let a fault of the catalogue come about now, and go by itself after `for_ms`."""

    async def mend(self) -> None:
        """Everything that was broken is as it was."""

    def signer_of_control(self) -> Signer | None:
        """Control's key, where a scenario tries what control may not do; None where nobody can have it."""


@dataclass
class Deeds:
    """Does the acts of one scenario, in order, and writes down what people were told."""

    scenario: Scenario
    operator: OperatorClient
    room: RoomPanel
    hands: Hands
    plan: str
    """Path of the plan, as the console names it."""
    room_id: str
    plan_hash: str = ""
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    session: str = ""
    summary: dict[str, Any] | None = None
    was_load: Callable[[str], bool] = lambda _rule: False
    """Whether a rule that took the beam says no more than that this machine is busy: a long field goes on then."""
    patient: bool = False
    """People press again where the field has not gone on, and let it go on before the next thing fails."""
    on_beam: Callable[[], None] = lambda: None
    """Called right before anybody may bring the beam back."""
    _search: bool = False

    async def go(self, begin: Begin) -> None:
        """As far as the first act needs it."""
        steps: dict[Begin, tuple[Callable[[], Awaitable[Any]], ...]] = {
            "up": (),
            "reset": (self.operator.reset,),
            "loaded": (self.operator.reset, self._load),
            "ready": (self.operator.reset, self._load, self.operator.prepare),
            "started": (self.operator.reset, self._load, self.operator.prepare, self.operator.start),
        }
        for step in steps[begin]:
            await step()

    async def begin_again(self, within_s: float) -> None:
        """What was begun has been stopped before anything was tried, on its way to READY or later: on from there."""
        await self.operator.until(lambda: self.operator.state in (*STOPPED, *NOT_STARTED), within_s, "a stop")
        if self.operator.state in NOT_STARTED and not self.operator.permit:
            await self._let_go(within_s)
        await self._go_on_once(within_s, NOT_STARTED)

    async def _load(self) -> None:
        self.session = await self.operator.load(self.plan, self.room_id, True, self.plan_hash)

    async def do(self, act: Act) -> None:
        """One act, after its pause."""
        if act.after_ms:
            await asyncio.sleep(act.after_ms * MS * self.hands.scale)
        for turn in range(act.times):
            if turn:
                await asyncio.sleep(act.every_ms * MS * self.hands.scale)
            await self._once(act)

    async def _once(self, act: Act) -> None:
        if act.fault is not None:
            await self._fault(act)
            return
        code = await self._told(act.role, str(act.do), lambda: self._deed(act))
        self._expected(act, code)

    def _expected(self, act: Act, code: str) -> None:
        if act.refused is None and code != "done":
            self.failures.append(f"{act.do} by {act.role} was refused: {code}")
        elif act.refused is not None and code == "done":
            self.failures.append(f"{act.do or act.fault} by {act.role} was not refused")
        elif act.refused not in (None, "*", code):
            self.failures.append(f"{act.do or act.fault} by {act.role} was refused with {code}, expected {act.refused}")

    async def _told(self, who: str, deed: str, ask: Callable[[], Awaitable[Any]]) -> str:
        try:
            await ask()
            answer = "done"
        except (CommandRefused, PlanError, UsageError) as refused:
            answer = refused.code
        self.answers.append(Answer(who, deed, answer))
        return answer

    # --- faults ------------------------------------------------------------------------------------------------
    async def _fault(self, act: Act) -> None:
        if act.fault is None or not act.fault.startswith("operator/"):
            if self.patient and self.operator.state in STOPPED and await self._was_busy():
                await self._go_on(act.within_ms * MS)
                await self._delivering(State.IRRADIATING, act.within_ms * MS)
            await self.hands.begin(act)
            return
        times = round(act.value or 0.0) or 5
        match act.fault:
            case "operator/console-silent":
                await self.hands.begin(act)
            case "operator/early-start" | "operator/double-start":
                self._expected(act, await self._told("operator", "start", self.operator.start))
            case "operator/wrong-plan":
                self._expected(act, await self._told("operator", "load", self._load))
            case "operator/wrong-room":
                other = await self._told("operator", "load", self._load_elsewhere)
                self._expected(act, other)
            case "operator/pause-storm":
                for _ in range(times):
                    await self._told("operator", "pause", lambda: self.operator.ask("TCS", "pause"))
                    await self._told("operator", "resume", lambda: self.operator.ask("TCS", "resume"))
            case "operator/reset-storm":
                for _ in range(times):
                    await self._told("physicist", "reset", self.operator.reset)
            case _:
                raise InternalError("scenario.fault", f"nobody knows how to do {act.fault}", self.scenario.id)

    async def _load_elsewhere(self) -> None:
        await self.operator.ask("TCS", "load", {"plan": self.plan, "room": "elsewhere", "qa": True, "plan_hash": ""})

    # --- deeds -------------------------------------------------------------------------------------------------
    async def _deed(self, act: Act) -> None:
        operator, deed = self.operator, act.do
        within_s = act.within_ms * MS * self.hands.scale
        match deed:
            case "load":
                await self._load()
            case "prepare":
                await operator.prepare()
            case "start" | "resume":
                self.on_beam()
                await operator.ask("TCS", deed)
            case "pause" | "stop" | "close":
                await operator.ask("TCS", deed)
            case "reset":
                await self._reset(act.role)
            case "resolve" | "abandon":
                await operator.resolve(WORDS, deed == "resolve")
            case "close-field":
                await operator.ask("SAFE", "close_field", {"session": operator.field or self.session})
            case "bypass":
                seconds = 60.0 if act.value is None else act.value
                args = {"rule": act.rule, "reason": "scenario", "seconds": seconds}
                await operator.ask("SAFE", "bypass", args, role=act.role)
            case "unbypass":
                await operator.ask("SAFE", "unbypass", {"rule": act.rule}, role=act.role)
            case "prove":
                await operator.prove(None if act.test is None else [act.test])
            case "search":
                await self.room.search()
            case "open-door" | "close-door":
                self._search = True
                await self.room.do("move_door", closed=int(deed == "close-door"))
            case "press-estop" | "release-estop":
                await self.room.do(deed.replace("-", "_"))
            case "turn-key":
                await self.room.do("turn_key", position=round(act.value or 0.0))
            case _:
                await self._of_the_rig(act, within_s)

    async def _of_the_rig(self, act: Act, within_s: float) -> None:
        match act.do:
            case "mend":
                await self.hands.mend()
            case "wait":
                await asyncio.sleep((act.value or 0.0) * MS * self.hands.scale)
            case "await":
                await self._until_state(State[str(act.state)], within_s)
            case "well":
                await self._let_go(within_s)
            case "go-on":
                await self._go_on(within_s)
            case "recover":
                await self._go_on(within_s)
                await self._ended(within_s)
            case "ended":
                await self._ended(within_s)
            case _:
                raise InternalError("scenario.deed", f"nobody knows how to do {act.do}", self.scenario.id)

    async def _reset(self, role: str) -> None:
        if role == "control":
            await self.operator.ask("SAFE", "reset", role="operator", signer=self.hands.signer_of_control())
        elif role == "physicist":
            await self.operator.reset()
        else:
            await self.operator.ask("SAFE", "reset", role=role)

    async def _until_state(self, state: State, within_s: float) -> None:
        if self.patient and state is State.IRRADIATING:
            await self._started(within_s)
            return await self._delivering(state, within_s)
        return await self.operator.until(lambda: self.operator.state is state, within_s, state.name)

    # --- recovery ----------------------------------------------------------------------------------------------
    async def _go_on(self, within_s: float) -> None:
        """Go on, and once more where this machine's load has tripped something on the way."""
        for turn in range(NUISANCES_MAX):
            try:
                return await self._go_on_once(within_s, NOT_STARTED if turn else ())
            except (ChannelError, CommandRefused):
                if not self._load_tripped():
                    raise
                if self.operator.state in NOT_STARTED:  # on the way to READY: from the permit on again
                    await self._let_go(within_s)
        return None

    async def _go_on_once(self, within_s: float, on_the_way: tuple[State, ...]) -> None:
        """Mend, let go as whoever may, account for a termination, and let the field go on; also from `on_the_way`."""
        await self.hands.mend()
        await asyncio.sleep(CALM_S * self.hands.scale)
        operator = self.operator
        if search_undone(self.room):
            await self.room.search()
        if operator.state in STOPPED and not operator.permit:
            await self._let_go(within_s)
        self.on_beam()
        if operator.state is State.INTERRUPTED:
            await self._told("operator", "resume", lambda: operator.ask("TCS", "resume"))
        elif operator.state in (State.TERMINATED, *on_the_way):
            if operator.state is not State.READY:
                await operator.prepare()
            await self._told("operator", "start", operator.start)

    async def _let_go(self, within_s: float) -> None:
        """Ask for a reset until the cause has gone, first as the operator, then as who may; then for the permit."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        role, unloaded = OPERATOR, False
        while loop.time() < begin_s + within_s:
            answer = await self._ask_reset(role)
            if answer == "done":
                return
            if answer == "safety.role":
                role = "physicist"
                continue
            if not unloaded and loop.time() > begin_s + UNLOAD_S * self.hands.scale:
                unloaded = True
                if self.operator.state is State.INTERRUPTED:
                    await self._told(OPERATOR, "stop", lambda: self.operator.ask("TCS", "stop"))
            await asyncio.sleep(RETRY_S * self.hands.scale)
        raise ChannelError("scenario.reset", f"no reset within {within_s:g} s: {self.answers[-1:]}", self.scenario.id)

    async def _ask_reset(self, role: str) -> str:
        """'done' with the permit there, the code of the refusal, or what still inhibits."""
        operator = self.operator
        told = await ask_reset(operator, role)
        answer = told.answer
        if not self.answers or self.answers[-1] != Answer(role, "reset", answer):
            self.answers.append(Answer(role, "reset", answer))
        if told.unresolved:
            await self._told("physicist", "resolve", lambda: operator.resolve(WORDS, resume=True))
        if answer == "done":
            await operator.until(lambda: operator.permit, operator.limits.command_s, "permit")
        return answer

    async def _was_busy(self) -> bool:
        """What took the beam was the load of this machine; its name comes a little later than control's state."""
        operator = self.operator
        if operator.state not in STOPPED:
            return False
        with contextlib.suppress(ChannelError):
            await operator.until(lambda: bool(operator.first_fault), NAMED_S * self.hands.scale, "name of the rule")
        return self._load_tripped()

    def _load_tripped(self) -> bool:
        rule = self.operator.first_fault
        if not self.was_load(rule):
            return False
        self.answers.append(Answer("machine", "busy", rule))
        return True

    async def _started(self, within_s: float) -> None:
        """The field has gone on; ChannelError if it has not."""
        operator = self.operator
        for left in reversed(range(PRESSED_MAX if self.patient else 1)):
            try:
                return await operator.until(lambda: operator.state not in STOPPED, STARTED_S, "a new start")
            except ChannelError:
                if not left:
                    raise
                await self._go_on(within_s)
        return None

    async def _delivering(self, state: State, within_s: float) -> None:
        """Until this state; what this machine's load trips on the way is let go of."""
        operator = self.operator
        for _ in range(NUISANCES_MAX):
            await operator.until(lambda: operator.state is state or operator.state in STOPPED, within_s, state.name)
            if operator.state is state or not await self._was_busy():
                break
            await self._go_on(within_s)
            await self._started(within_s)
        await operator.until(lambda: operator.state is state, within_s, state.name)

    async def _ended(self, within_s: float) -> None:
        operator = self.operator
        for _ in range(NUISANCES_MAX):
            await self._started(within_s)
            await operator.until(lambda: operator.state in ENDED, within_s, "end of the session")
            if not await self._was_busy():
                break
            await self._go_on(within_s)
        self.summary = await operator.ended(self.session, within_s)
