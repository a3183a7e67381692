"""Bring one delivery through all its states, and branch off the trials of each from there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import numpy as np

from facility.errors import InternalError
from facility.states import FrontEndState, HoldReason, RingPhase
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import PlantStatus
from rig.branch import Emit, branch
from rig.trials.bench import Bench
from rig.trials.causes import HISTORIES, Act, DeviceFault, Trial, TrialState, why_not_near
from rig.trials.history import History
from rig.trials.instants import MS_NS, Instants, beam_off, beam_on, look_ahead
from rig.trials.near import NearTrials
from rig.trials.result import TrialResult, broken
from rig.trials.run import TrialRun, Variant
from rig.trials.truth import Ticks
from rig.virtual_world import World, WorldParts

WAIT_S = 5.0
STEP_S = 0.001

VARIANTS = (
    Variant("quadrupole stuck", (DeviceFault(point="quad.open", kind="SET", value=1.0),)),
    Variant("chopper stuck", (DeviceFault(point="chopper.open", kind="SET", value=1.0),)),
    Variant("extraction stuck on", (DeviceFault(point="rfko.on", kind="SET", value=1.0),)),
    Variant("dump stuck", (DeviceFault(point="dump.cmd", kind="SET", value=0.0),)),
    Variant("chamber 1 dead", (DeviceFault(point="ic1.counts", kind="STUCK"),)),
    Variant("chamber 2 dead", (DeviceFault(point="ic2.counts", kind="STUCK"),)),
)
FAST_FAILED = VARIANTS[:2]
"""One of the fast beam-off devices: what is promised of them is promised with one of them failed, too."""


@dataclass(frozen=True)
class Choice:
    """What of all that could be tried is tried."""

    rules: frozenset[str]
    states: frozenset[TrialState]
    variants: tuple[Variant, ...] = VARIANTS
    near: bool = False
    """Also 0.98 and 1.02 of each limit that is a number, with beam."""


class Stages:
    """The trunk: one delivery without a fault. Everything that is tried happens in branches.

    Args:
        bench: what is tried where.
        world: the facility, just switched on.
        choice: what is wanted.
        emit: takes each `TrialResult` as soon as it is there.
    """

    def __init__(self, bench: Bench, world: World, choice: Choice, emit: Emit) -> None:
        self._bench = bench
        self._world = world
        self._choice = choice
        self._emit = emit
        self._history: Act | None = None
        """What has happened in this field before."""

    async def visit(self, parts: WorldParts) -> None:
        """All states, in the order of a delivery."""
        operator = parts.operator
        await operator.reset()
        await asyncio.sleep(0.02)
        await self._trials(parts, TrialState.STANDBY, self._emit)
        if self._choice.states <= {TrialState.STANDBY}:
            return
        await operator.load("plan", self._bench.room, True)
        await operator.prepare()
        await operator.start()
        await self._until(lambda s: s.state == FrontEndState.ARMED, "armed")
        await asyncio.sleep(0.02)
        await self._trials(parts, TrialState.RING, self._emit)
        for act in HISTORIES:
            await self._after_history(parts, act)
        await self._delivery(parts)

    async def _after_history(self, parts: WorldParts, act: Act) -> None:
        """The same delivery once more, in a field that has a history: the trials of the rules that need it."""
        rules = [rule_id for rule_id, trial in self._bench.trials.items() if trial.act == act.value]
        if self._choice.rules.isdisjoint(rules):
            return

        async def work(emit: Emit) -> None:
            self._emit, self._history = emit, act
            await History(self._world, parts).make(act)
            await self._trials(parts, TrialState.RING, emit)
            await self._delivery(parts)

        await branch(work, self._emit)

    async def _delivery(self, parts: WorldParts) -> None:
        """All states from the flat top on."""
        await self._aside(parts, TrialState.ARMED, self._to_armed)
        if self._choice.states <= {TrialState.STANDBY, TrialState.RING, TrialState.ARMED}:
            return
        await self._until(lambda s: s.state == FrontEndState.IRRADIATING, "irradiating")
        await asyncio.sleep(0.01)
        await self._trials(parts, TrialState.SPOT, self._emit)
        if self._choice.near:
            await NearTrials(self._bench, self._world, parts, self._emit).all(self._wanted(TrialState.SPOT))
        await self._trials(parts, TrialState.MOVE, self._emit)
        await self._aside(parts, TrialState.HELD, self._to_held)
        await self._aside(parts, TrialState.PAUSED, self._to_paused)
        if TrialState.ENERGY in self._choice.states:
            await self._until(lambda s: s.phase == RingPhase.DUMP, "at the end of the layer")
            await asyncio.sleep(0.012)
            await self._trials(parts, TrialState.ENERGY, self._emit)

    # --- states --------------------------------------------------------------------------------------------
    async def _aside(self, parts: WorldParts, state: TrialState, go: Callable[[WorldParts], Awaitable[None]]) -> None:
        """The trials of a state off the trunk's way."""
        if state not in self._choice.states or not self._wanted(state):
            return

        async def work(emit: Emit) -> None:
            await go(parts)
            await self._trials(parts, state, emit)

        await branch(work, self._emit)

    def _close_gate(self) -> None:
        self._world.plant.inject(Fault("gate.open", FaultKind.SET, 0.0))
        self._world.plant.set_gating(True)

    async def _to_armed(self, _parts: WorldParts) -> None:
        self._close_gate()

        def waits(s: PlantStatus) -> bool:
            gate = s.hold_reason == HoldReason.GATE
            return s.phase == RingPhase.FLAT_TOP and s.state == FrontEndState.ARMED and gate

        await self._until(waits, "armed behind the gate")
        await asyncio.sleep(0.005)

    async def _to_held(self, _parts: WorldParts) -> None:
        self._close_gate()
        await self._until(lambda s: s.state == FrontEndState.HELD, "held")
        await asyncio.sleep(0.01)

    async def _to_paused(self, parts: WorldParts) -> None:
        await parts.operator.ask("TCS", "pause")
        await self._until(lambda s: s.state == FrontEndState.PAUSED, "paused")
        await asyncio.sleep(0.01)

    async def _until(self, met: Callable[[PlantStatus], bool], what: str) -> None:
        end_ns = self._world.loop.now_ns() + round(WAIT_S * 1e9)
        while not met(self._world.plant.status):
            if self._world.loop.now_ns() > end_ns:
                status = self._world.plant.status
                raise InternalError("trials.state", f"not {what} within {WAIT_S:g} s: {status}", "rig.trials.stages")
            await asyncio.sleep(STEP_S)

    # --- trials --------------------------------------------------------------------------------------------
    def _wanted(self, state: TrialState) -> list[tuple[Rule, Trial]]:
        if state not in self._choice.states:
            return []
        pairs = ((rule, trial) for rule, trial in self._bench.of(state) if rule.id in self._choice.rules)
        return [(rule, trial) for rule, trial in pairs if self._history is trial.history]

    async def _trials(self, parts: WorldParts, state: TrialState, emit: Emit) -> None:
        wanted = self._wanted(state)
        if not wanted:
            return
        seen = await look_ahead(self._world) if state in (TrialState.SPOT, TrialState.MOVE) else None
        for rule, trial in wanted:
            for variant in self._variants(state):
                await self._one(parts, rule, trial, variant, state, self._instants(state, trial, seen), emit)

    def _variants(self, state: TrialState) -> Iterator[Variant | None]:
        yield None
        if state is TrialState.SPOT:
            yield from self._choice.variants

    async def _one(
        self, parts: WorldParts, rule: Rule, trial: Trial, variant: Variant | None, state: TrialState,
        instants: Instants, emit: Emit,
    ) -> None:  # fmt: skip
        name = variant.name if variant else ""
        at_ns, spot = instants.draw(self._bench.draw(rule.id, state.value, name))

        async def work(send: Emit) -> None:
            run = TrialRun(self._bench, self._world, parts, rule, trial)
            try:
                send(await run.run(state, at_ns, spot, variant))
            except Exception as problem:  # noqa: BLE001 - a trial that cannot be carried out has failed
                send(broken(rule, state.value, name, self._bench.seed, at_ns, problem))

        await branch(work, emit)

    def _instants(self, state: TrialState, trial: Trial, seen: Ticks | None) -> Instants:
        if seen is None:
            return Instants.spread(self._world.loop.now_ns())
        if state is TrialState.MOVE:
            kept = beam_off(seen)
        else:
            kept = beam_on(seen)
            kept &= seen.t_ns >= seen.t_ns[0] + round(trial.after_beam_ms * MS_NS)
            if trial.stop_spot:
                kept &= self._bench.stop_spots()[np.maximum(seen.spot, 0)]
        return Instants(seen.t_ns[kept], seen.spot[kept])


def choose(
    bench: Bench,
    rules: tuple[str, ...] = (),
    states: tuple[TrialState, ...] = (),
    *,
    variants: tuple[Variant, ...] = VARIANTS,
    near: bool = False,
) -> Choice:
    """What is wanted; everything where nothing is named."""
    for rule_id in rules:
        bench.rules.rule(rule_id)
    wanted = frozenset(rules or bench.trials), frozenset(states or TrialState)
    return Choice(*wanted, variants, near)


def not_tried_near(bench: Bench, choice: Choice) -> dict[str, str]:
    """Of the chosen rules those that `near` tries nothing of, with the reason; empty where it was not asked for."""
    if not choice.near:
        return {}
    chosen = [(rule_id, trial) for rule_id, trial in bench.trials.items() if rule_id in choice.rules]
    if TrialState.SPOT not in choice.states:
        return {rule_id: "limits are come near to in state spot, which was not chosen" for rule_id, _ in chosen}
    reasons = {rule_id: why_not_near(bench.rules.rule(rule_id), trial) for rule_id, trial in chosen}
    return {rule_id: why for rule_id, why in reasons.items() if why}


def run_trials(bench: Bench, choice: Choice, on_result: Callable[[TrialResult], None]) -> None:
    """Run all that is chosen; each result as soon as it is there."""
    world = bench.world()
    world.run(Stages(bench, world, choice, on_result).visit)
