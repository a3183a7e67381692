"""Lets the causes of a run come about and go again, and notes when each did."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from control.layer_machine import DELIVERING, State
from facility.errors import CommandRefused, IonctlError
from facility.timebase import Rank
from interlocks.own_inputs import RESOLVED_INPUT
from rig.campaign.draw import OPERATOR, Cause
from rig.scenario.faults import CATALOGUE, Family
from rig.scenario.model import Act, Target
from rig.scenario.virtual_hands import VirtualHands
from rig.trials.bench import Bench
from rig.trials.causes import Trial
from rig.trials.deed import Deed
from rig.virtual_world import World, WorldParts

STORM = 5
_SILENCE = "operator/console-silent"
_OFTEN_REFUSED_S = 0.02
_FIELD_ON = frozenset({State.INTERRUPTED}) | DELIVERING


@dataclass
class Happened:
    """One cause, and when it stood."""

    cause: Cause
    begun_ns: int | None = None
    ended_ns: int | None = None
    problem: str = ""
    """Why it could not come about; empty: it could."""


class Mishaps:
    """The causes of one run.

    Args:
        bench: how rules are tried.
        world: where they come about.
        parts: who lives there.
        causes: what was drawn.
    """

    def __init__(self, bench: Bench, world: World, parts: WorldParts, causes: tuple[Cause, ...]) -> None:
        self.happened = [Happened(cause) for cause in causes]
        self.refused: list[tuple[str, str]] = []
        """What operators asked for in vain: verb, code."""
        self._world = world
        self._parts = parts
        self._bench = bench
        self._deeds: dict[int, Deed] = {}
        self._hands: dict[int, VirtualHands] = {}
        self._entered: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def begin(self) -> None:
        """From now on."""
        level = self._bench.program.layers[0].intensity_ions_per_s
        for number, one in enumerate(self.happened):
            trial = self.trial(one.cause)
            if trial is not None:
                self._deeds[number] = deed = Deed(self._world, self._parts, trial, level)
                deed.prepare()
            if not one.cause.after:
                self._at(one.cause.at_ns, number)

    def trial(self, cause: Cause) -> Trial | None:
        """The trial whose cause it is; None for an operator's."""
        kind, name = cause.what.split("/", 1)
        return self._bench.trials[name] if kind == "rule" else None

    def entered(self, state: str) -> None:
        """Control has entered a state."""
        self._entered[state] = nth = self._entered.get(state, 0) + 1
        for number, one in enumerate(self.happened):
            if one.cause.after == state and one.cause.nth == nth and one.begun_ns is None:
                self._at(self._world.loop.now_ns() + one.cause.at_ns, number)

    def close(self) -> None:
        """The field is over: nothing more comes about, and everything is mended."""
        self._closed = True
        self.mend()

    @property
    def standing(self) -> bool:
        """Something that has to be mended stands."""
        return any(one.begun_ns is not None and one.ended_ns is None for one in self.happened)

    def mend(self) -> None:
        """Everything that has failed is as it was."""
        for number in range(len(self.happened)):
            self._end(number)

    @property
    def search_needed(self) -> bool:
        """Something that stood undid the search of the room."""
        begun = (self.trial(one.cause) for one in self.happened if one.begun_ns is not None)
        return any(trial is not None and trial.removed == "search" for trial in begun)

    async def settled(self) -> None:
        """Whoever still asks for something has been answered."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    # --- one cause -------------------------------------------------------------------------------------------
    def _at(self, t_ns: int, number: int) -> None:
        self._world.loop.call_at_rank(t_ns, Rank.PLANT, self._begin, number)

    def _begin(self, number: int) -> None:
        if self._closed:
            return
        one = self.happened[number]
        one.begun_ns = self._world.loop.now_ns()
        kind, name = one.cause.what.split("/", 1)
        if kind == "fault":
            self._hands[number] = VirtualHands(self._world, self._parts)
            self._spawn(self._fail(number, name))
            return
        if kind == "operator":
            one.ended_ns = one.begun_ns
            self._spawn(self._operate(name))
            return
        deed = self._deeds[number]
        try:
            deed.now(one.begun_ns)
        except IonctlError as problem:  # control has no layer to change any more
            one.problem, one.ended_ns = problem.code, one.begun_ns
            return
        self._world.loop.call_at_rank(one.begun_ns + one.cause.lasts_ns, Rank.PLANT, self._end, number)

    def _end(self, number: int) -> None:
        one = self.happened[number]
        if one.begun_ns is None or one.ended_ns is not None:
            return
        one.ended_ns = self._world.loop.now_ns()
        if number in self._deeds:
            self._deeds[number].end()
        else:
            self._spawn(self._hands[number].mend())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._world.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fail(self, number: int, name: str) -> None:
        one = self.happened[number]
        try:
            await self._hands[number].begin(Act(fault=name, value=one.cause.value))
        except IonctlError as problem:
            one.problem, one.ended_ns = problem.code, one.begun_ns
            return
        self._world.loop.call_at_rank(self._world.loop.now_ns() + one.cause.lasts_ns, Rank.PLANT, self._end, number)

    # --- what an operator does at the wrong moment -----------------------------------------------------------
    async def _operate(self, verb: str) -> None:
        match verb:
            case "reset":
                await self._ask("SAFE", "reset", role="physicist")
            case "reset-storm":
                for _ in range(STORM):
                    await self._ask("SAFE", "reset", role="physicist")
            case "pause-storm":
                for _ in range(STORM):
                    await self._ask("TCS", "pause")
                    await self._ask("TCS", "resume")
            case "load":
                if self._load_is_refused():  # elsewhere another field begins, by right
                    room, program = self._bench.room, self._bench.program
                    await self._ask(
                        "TCS", "load", {"plan": "plan", "room": room, "qa": True, "plan_hash": program.plan_hash}
                    )
            case _:
                await self._ask("TCS", verb)

    def _load_is_refused(self) -> bool:
        """A field is on, or the one that is open has delivered something."""
        sequencer = self._parts.control.sequencer
        session = sequencer.session
        return sequencer.state in _FIELD_ON or (session is not None and session.done()[1] > 0.0)

    async def _ask(self, server: str, verb: str, args: Mapping[str, Any] | None = None, role: str = "operator") -> None:
        state = self._parts.control.sequencer.state.name
        try:
            await self._parts.operator.ask(server, verb, args, role=role)
        except CommandRefused as refused:
            self.refused.append((f"{state} {verb.upper()}", refused.code))
            await asyncio.sleep(_OFTEN_REFUSED_S)
        except IonctlError as problem:
            self.refused.append((f"{state} {verb.upper()}", problem.code))


Pool = Mapping[str, tuple[str, ...]]
"""Names of what may go wrong, by kind."""


def usable(bench: Bench) -> Pool:
    """Everything that can come about in the middle of a delivery in virtual time: no cause that needs a history of the
    field, nor what any ABORT leaves behind."""
    rules = (
        rule_id
        for rule_id, trial in bench.trials.items()
        if trial.history is None
        and RESOLVED_INPUT not in bench.rules.rule(rule_id).inputs
        and set(trial.states) - {"standby"}
    )
    faults = (
        entry.name
        for entry in CATALOGUE.values()
        if Target.VIRTUAL in entry.targets and (entry.family is not Family.OPERATOR or entry.name == _SILENCE)
    )
    named = {"rule": rules, "fault": faults, "operator": OPERATOR}
    return {kind: tuple(f"{kind}/{name}" for name in names) for kind, names in named.items()}


def touched(bench: Bench, what: str) -> frozenset[str]:
    """Devices that a cause makes fail, or the one act."""
    kind, name = what.split("/", 1)
    if kind == "rule":
        trial = bench.trials[name]
        return frozenset({trial.act}) if trial.act is not None else frozenset(fault.point for fault in trial.faults)
    parts = CATALOGUE[name].parts if kind == "fault" else ()
    return frozenset(point for point, _, _ in parts) or frozenset({what})
