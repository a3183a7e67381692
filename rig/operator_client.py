"""The operator's side of a facility: keep-alives and resets to safety, commands to control, and what comes back.

Works over any channel provider: memory in virtual time, Channel Access otherwise. It holds the console's keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from channels.background import Background
from channels.command import Signer
from channels.command_client import CommandClient
from channels.keepalive import KeepAliveMaker
from channels.protocol import Channel, ChannelProvider, Sample
from control.layer_machine import State
from facility.config import Facility
from facility.errors import ChannelError, CommandRefused
from facility.pv_catalogue import PROGRESS, TCS_STATES
from facility.timebase import Clock, to_next_s
from interlocks.snapshot import Mode
from rig.caller import Caller
from rig.external.watch import pace, require_devices
from rig.link_check import LinkReading, link_readings, require_link

ENDED = frozenset({State.COMPLETED, State.INTERRUPTED, State.TERMINATED})
_TCS = ("TCS:State-Sts", "TCS:Progress-RB", "TCS:Session-RB", "TCS:Message-RB", "TCS:Summary-RB", "TCS:Cmd-Result")
_SAFE = ("SAFE:Permit-Sts", "SAFE:Action-Sts", "SAFE:FirstFault-RB", "SAFE:Cmd-Result", "SAFE:Mode-Sts",
         "SAFE:Key-Sts", "SAFE:Field-RB", "SAFE:Field-Sts", "SAFE:Proof-Sts", "SAFE:Proof-RB",
         "SAFE:SEARCH:Present-Sts")  # fmt: skip
_BEATS = ("TCS:Heartbeat-RB", "SAFE:Heartbeat-RB")
_PUT_ONLY = ("TCS:Cmd", "SAFE:Cmd", "SAFE:KeepAlive")
_SUMMARY_S = 20.0
_PROOFS_VALID = 2
"""State of SAFE:Proof-Sts."""


@dataclass(frozen=True)
class OperatorLimits:
    """Times in event-loop s."""

    connect_s: float = 10.0
    command_s: float = 5.0
    load_s: float = 30.0
    ready_s: float = 30.0
    prove_s: float = 30.0
    keep_alive_s: float = 0.5
    silence_s: float = 2.0
    """Silence of control or of the safety controller after which the operator vouches for nothing any more."""


@dataclass(frozen=True)
class Closed:
    """A session that was closed as partial."""

    account: str
    """What was found when journal and register were brought together, in words."""
    known: bool
    """They could be; otherwise no rest of it can be given."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    state: str
    layer: int
    layers: int
    spots_done: int
    spots: int
    ions_done: float
    ions: float
    beam: bool
    permit: bool
    beam_on_s: float
    facility_s: float


class OperatorClient:
    """One operator at one facility. Use as an async context manager: keep-alives run inside the block."""

    def __init__(
        self,
        provider: ChannelProvider,
        prefix: str,
        clock: Clock,
        operator: Signer,
        physicist: Signer,
        keep_alive: KeepAliveMaker,
        limits: OperatorLimits = OperatorLimits(),
    ) -> None:
        self.limits = limits
        self._provider = provider
        self._prefix = prefix
        self._clock = clock
        self._signers = {"operator": operator, "physicist": physicist}
        self._session = ""
        """What this console has opened last."""
        self._keep_alive = keep_alive
        self._channels: dict[str, Channel] = {}
        self._changed = asyncio.Event()
        self._task = Background("operator-keep-alive")
        self._alive = asyncio.Event()
        self._beats: dict[str, float] = {}
        self.lost = ""
        """Who has fallen silent; no keep-alives are sent from then on, so that the beam goes."""

    async def __aenter__(self) -> OperatorClient:
        monitored = {f"{self._prefix}:{name}" for name in (*_TCS, *_SAFE, *_BEATS)}
        names = [*sorted(monitored), *(f"{self._prefix}:{name}" for name in _PUT_ONLY)]
        found = await self._provider.connect(names, self.limits.connect_s, monitor=monitored)
        self._channels = {name.removeprefix(f"{self._prefix}:"): channel for name, channel in found.items()}
        for name in (*_TCS, *_SAFE):
            self._channels[name].subscribe(self._wake)
        for name in _BEATS:
            self._channels[name].subscribe(self._on_beat)
        self._task.start(self._keep_alive_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._task.stop()

    async def fall_silent(self) -> None:
        """The console dies: no more keep-alives."""
        await self._task.stop()

    def speak_again(self) -> None:
        """The console lives again."""
        self._task.start(self._keep_alive_for_ever())

    def _wake(self, _channel: Channel, _sample: Sample) -> None:
        self._changed.set()

    def _on_beat(self, channel: Channel, _sample: Sample) -> None:
        self._beats[channel.name] = asyncio.get_running_loop().time()

    def _who_is_silent(self) -> str:
        now_s = asyncio.get_running_loop().time()
        return ", ".join(sorted(name for name, last_s in self._beats.items() if now_s - last_s > self.limits.silence_s))

    async def _keep_alive_for_ever(self) -> None:
        channel = self._channels["SAFE:KeepAlive"]
        while not self.lost:
            try:
                await channel.put(self._keep_alive.make(), self.limits.keep_alive_s)
                self._alive.set()
            except ChannelError:
                pass  # the next one is as good; safety counts the silence
            await asyncio.sleep(to_next_s(asyncio.get_running_loop().time(), self.limits.keep_alive_s))
            self.lost = self.lost or self._who_is_silent()
        self._changed.set()

    # --- what is to be seen --------------------------------------------------------------------------------
    def _value(self, name: str) -> Any:
        sample = self._channels[name].latest()
        return None if sample is None else sample.value

    @property
    def state(self) -> State:
        """State of treatment control."""
        return State[TCS_STATES[int(self._value("TCS:State-Sts") or 0)]]

    @property
    def permit(self) -> bool:
        """Whether the safety controller permits beam."""
        return bool(self._value("SAFE:Permit-Sts") == 1)

    @property
    def first_fault(self) -> str:
        """Rule that tripped first since the last reset."""
        return str(self._value("SAFE:FirstFault-RB") or "")

    def message(self) -> str:
        """Control's last words."""
        raw = self._value("TCS:Message-RB")
        return raw.decode("utf-8", "replace").strip() if isinstance(raw, bytes) else ""

    def progress(self) -> Progress:
        """How far the session is."""
        raw = self._value("TCS:Progress-RB")
        values = dict.fromkeys(PROGRESS, 0.0)
        if isinstance(raw, np.ndarray) and raw.size == len(PROGRESS):
            values = dict(zip(PROGRESS, raw.tolist(), strict=True))
        return Progress(
            state=self.state.name,
            layer=int(values["layer"]),
            layers=int(values["layers"]),
            spots_done=int(values["spots_done"]),
            spots=int(values["spots"]),
            ions_done=values["ions_done"],
            ions=values["ions"],
            beam=values["beam"] > 0.5,
            permit=self.permit,
            beam_on_s=values["beam_on_s"],
            facility_s=values["facility_s"],
        )

    async def require_link(self, speed: float) -> None:
        """ChannelError 'link.jitter' unless the safety link keeps time at both ends."""
        await require_link(self._provider, self._prefix, speed)

    async def require_devices(self, facility: Facility) -> None:
        """ChannelError 'external.silent' unless every device in the loop gives good readings in time."""
        await require_devices(self._provider, facility)

    async def pace(self) -> dict[str, Any]:
        """How the plant has kept its pace so far."""
        return await pace(self._provider, self._prefix)

    async def link_readings(self) -> dict[str, LinkReading]:
        """How both ends of the safety link hear each other."""
        return await link_readings(self._provider, self._prefix)

    def summary(self, session: str) -> dict[str, Any] | None:
        """Control's record of this session, as far as it is published."""
        raw = self._value("TCS:Summary-RB")
        if not isinstance(raw, bytes):
            return None
        try:
            data = json.loads(raw.rstrip(b"\0 ") or b"{}")
        except ValueError:
            return None
        return data if isinstance(data, dict) and data.get("session") == session else None

    async def until(self, met: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for something to be seen; ChannelError 'operator.timeout' after `timeout_s` (event-loop s)."""
        try:
            async with asyncio.timeout(timeout_s):
                while not met():
                    if self.lost:
                        raise ChannelError(
                            "target.lost", f"{self.lost} stands still; no keep-alives are sent any more", self._prefix,
                            "the interlocks take the beam; look at: ionctl status",
                        )  # fmt: skip
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            fault = f", interlock {self.first_fault}" if self.first_fault else ""
            said = f"; control says: {self.message()}" if self.message() else ""
            raise ChannelError(
                "operator.timeout",
                f"no {what} within {timeout_s:g} s: control is {self.state.name}, "
                f"{'beam permitted' if self.permit else 'no permit'}{fault}{said}",
                f"{self._prefix}:TCS",
                "look at: ionctl interlocks list",
            ) from None

    # --- what is asked for ---------------------------------------------------------------------------------
    async def ask(
        self,
        server: str,
        verb: str,
        args: Mapping[str, Any] | None = None,
        *,
        role: str = "operator",
        signer: Signer | None = None,
        timeout_s: float | None = None,
    ) -> Mapping[str, Any]:
        """A signed command to TCS or SAFE; the data of its result. Raises the server's error.

        `signer`: somebody else's signature instead of one of the console's own, for trials of who may do what.
        """
        signs = signer or self._signers[role]
        command, answer = (self._channels[f"{server}:{name}"] for name in ("Cmd", "Cmd-Result"))
        client = CommandClient(command, answer, signs, self._clock)
        result = await Caller(client).call(verb, args or {}, self.limits.command_s if timeout_s is None else timeout_s)
        return result.data

    async def reset(self, role: str = "physicist") -> Mapping[str, Any]:
        """Let go of latched rules whose cause is gone, as somebody: a physicist may reset every class.  The refusal
        names what another role must reset."""
        await asyncio.wait_for(self._alive.wait(), self.limits.command_s)
        return await self.ask("SAFE", "reset", role=role)

    async def resolve(self, words: str, resume: bool = False) -> Mapping[str, Any]:
        """Account for a termination, as the physicist: what became of the field, and whether it goes on."""
        args = {"session": self.field, "words": words, "resume": resume}
        return {**await self.ask("SAFE", "resolve", args, role="physicist"), "resolved": args["session"]}

    async def close_partial(self, session: str, reason: str, plan: str = "") -> Closed:
        """Have control close a session as partial; `plan`: where its file lies now, if not where it lay."""
        args = {"session": session, "reason": reason, **({"plan": plan} if plan else {})}
        answer = await self.ask("TCS", "close_partial", args, timeout_s=self.limits.load_s)
        return Closed(str(answer.get("account", "")), answer.get("known") is not False)

    @property
    def field(self) -> str:
        """Session of the field that the safety controller has open; empty if none is."""
        return str(self._value("SAFE:Field-RB") or "")

    @property
    def mode(self) -> str:
        """The mode that the safety controller is in."""
        return list(Mode)[int(self._value("SAFE:Mode-Sts") or 0)].value

    @property
    def key_agrees(self) -> bool:
        """The key switch says the mode that was set."""
        return bool(self._value("SAFE:Key-Sts"))

    def proofs(self) -> list[dict[str, Any]]:
        """The proof tests as the safety controller shows them: id, value, limits, time, pass, valid."""
        raw = self._value("SAFE:Proof-RB")
        try:
            rows = json.loads(raw.rstrip(b"\0 ") or b"[]") if isinstance(raw, bytes) else []
        except ValueError:
            return []
        return rows if isinstance(rows, list) else []

    async def see_search(self) -> None:
        """Wait until the safety controller finds the room searched, too: it hears of it after the room's panels."""
        seen = "SAFE:SEARCH:Present-Sts"
        await self.until(lambda: self._value(seen) == 0, self.limits.command_s, "search of the room that it has seen")

    async def prove(self, tests: list[str] | None = None) -> None:
        """Run the pre-beam proof tests if any is due, or those named; an error names test, value and limit."""
        if tests is None and self._value("SAFE:Proof-Sts") == _PROOFS_VALID:
            return
        if tests is None:
            with contextlib.suppress(CommandRefused):  # nothing is latched: what is missing are the tests
                await self.reset("operator")
        await self.ask("SAFE", "prove", {} if tests is None else {"tests": tests}, timeout_s=self.limits.prove_s)
        await self.until(
            lambda: self._value("SAFE:Proof-Sts") == _PROOFS_VALID or tests is not None, self.limits.command_s,
            "valid proof tests",
        )  # fmt: skip

    async def load(
        self, plan: str, room: str, qa: bool, plan_hash: str = "", fraction: int = 0, continues: str = "",
        new_limits: str = "",
    ) -> str:  # fmt: skip
        """Load a plan and open a field for it; the session's id. Refused while a termination is unresolved, and where
        control has read another plan than the console (`plan_hash`). See `control.course.share_of` for the rest.
        `new_limits`: why, as the physicist, under other interlock rules than the session that it `continues`."""
        args: dict[str, Any] = {"plan": plan, "room": room, "qa": qa, "plan_hash": plan_hash}
        more = {"fraction": fraction, "continues": continues, "reason": new_limits}
        args |= {name: value for name, value in more.items() if value}
        verb, role = ("load_new_limits", "physicist") if new_limits else ("load", "operator")
        data = await self.ask("TCS", verb, args, role=role, timeout_s=self.limits.load_s)
        self._session = session = str(data["session"])
        await self.ask("SAFE", "open_field", {"session": session})
        return session

    async def recover(
        self, session: str, plan: str, room: str, qa: bool, reason: str, *, new_limits: bool = False
    ) -> None:
        """Open a session of the journal again, and its field: what it got is counted; `prepare` hears the register.
        `new_limits`: as the physicist, although the interlock rules are others than it went by."""
        args = {"session": session, "plan": plan, "room": room, "qa": qa, "reason": reason}
        verb, role = ("recover_new_limits", "physicist") if new_limits else ("recover", "operator")
        await self.ask("TCS", verb, args, role=role, timeout_s=self.limits.load_s)
        self._session = session
        if self.field != session:
            await self.ask("SAFE", "open_field", {"session": session})

    async def prepare(self, resumed: str = "") -> bool:
        """Prepare, and wait until control is READY; False if nothing is left of the session that is `resumed`: whoever
        delivered it died before it was recorded as complete, and now it is."""

        def complete() -> bool:
            return bool(resumed) and self.state is State.COMPLETED and self._final(resumed) is not None

        await self.ask("TCS", "prepare")
        await self.until(lambda: self.state is State.READY or complete(), self.limits.ready_s, "READY")
        return not complete()

    async def start(self) -> None:
        """Start delivery, of the session that this console has opened and no other."""
        await self.ask("TCS", "start", {"session": self._session} if self._session else {})

    async def ended(
        self, session: str, timeout_s: float, on_change: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Wait for the end of a session and return control's record of it."""

        def met() -> bool:
            if on_change is not None:
                on_change()
            return self.state in ENDED

        await self.until(met, timeout_s, "end of the session")
        await self.until(lambda: self._final(session) is not None, _SUMMARY_S, "record of the session")
        final = self._final(session)
        if final is None:
            raise ChannelError("operator.summary", "the record of the session has gone", f"{self._prefix}:TCS")
        if self.state is State.COMPLETED:
            with contextlib.suppress(CommandRefused):  # an ABORT came in between: it must be accounted for
                await self.ask("SAFE", "close_field", {"session": session})
        return final

    def _final(self, session: str) -> dict[str, Any] | None:
        """The record, once it says the same as the state."""
        found = self.summary(session)
        return found if found is not None and found["status"] == self.state.name.lower() else None
