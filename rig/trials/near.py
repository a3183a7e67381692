"""Trials near a limit: 0.98 of it never trips for the rest of the layer, 1.02 always does."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable

import numpy as np

from facility.constants import TICK_NS
from facility.signals import INDEX
from facility.states import FrontEndState
from interlocks.model import Rule
from ioc_sim.faults import Fault
from rig.branch import Emit, branch
from rig.trials.bench import Bench
from rig.trials.causes import Near, NearDose, NearSpot, Trial, nears_of
from rig.trials.instants import Instants, beam_on, look_ahead
from rig.trials.near_dose import SpotSeen, faults_of_dose
from rig.trials.near_end import Growth, NearFaults, at_the_end
from rig.trials.near_run import NearRun
from rig.trials.near_spot import faults_at, goes_on, within_spots
from rig.trials.truth import Ticks
from rig.virtual_world import World, WorldParts

BELOW, ABOVE = 0.98, 1.02
"""Shares of a limit: never, and always."""
STEP_S = 0.001
Faults = Callable[[float, int], Awaitable[tuple[Fault, ...]]]
"""As `NearFaults`, where it takes a look ahead to say so."""
Where = Callable[[], Awaitable[Instants]]
"""From where on."""


def _soon(faults: NearFaults) -> Faults:
    async def ready(share: float, at_ns: int) -> tuple[Fault, ...]:
        return faults(share, at_ns)

    return ready


class NearTrials:
    """Runs beside a delivery that irradiates; each trial is a branch of it.

    Args:
        bench: what is tried where.
        world, parts: the facility, in the beam of the first layer.
        emit: takes each result as soon as it is there.
    """

    def __init__(self, bench: Bench, world: World, parts: WorldParts, emit: Emit) -> None:
        self._bench = bench
        self._world = world
        self._parts = parts
        self._emit = emit
        self._growth: Growth | None = None
        self._on: Ticks | None = None

    async def all(self, wanted: Iterable[tuple[Rule, Trial]]) -> None:
        """Of these rules, those that can be brought near to their limits."""
        for rule, trial in wanted:
            for near in nears_of(rule, trial):
                faults = self._fault_of(near)
                await self._both_sides(rule, trial, near.side, faults, self._spots if near.for_ms else self._anywhere)
            if trial.near_end is not None:
                self._growth = self._growth or await self._look_to_the_end()
                at_end = functools.partial(at_the_end, rule, trial.near_end, self._growth)
                await self._both_sides(rule, trial, "", _soon(at_end), self._anywhere)
            if trial.near_spot is not None:
                for side, limit in (("low", rule.low), ("high", rule.high)):
                    if limit is not None:
                        within = functools.partial(self._within_a_spot, rule, trial.near_spot, limit)
                        await self._both_sides(rule, trial, side, within, self._spots)
            if trial.near_dose is not None:
                dose = functools.partial(self._dose, rule, trial.near_dose)
                where = self._stop_spots if trial.near_dose.steers else self._spots
                await self._both_sides(rule, trial, "", dose, where)
            if trial.near_act:
                await self._both_sides(rule, trial, "", _soon(lambda _share, _at_ns: ()), self._anywhere)

    def _fault_of(self, near: Near) -> Faults:
        level = self._bench.program.layers[0].intensity_ions_per_s
        return _soon(lambda share, at_ns: near.faults(share, at_ns, level))

    async def _within_a_spot(
        self, rule: Rule, near: NearSpot, limit: float, share: float, at_ns: int
    ) -> tuple[Fault, ...]:
        return await faults_at(rule, near, limit, share, at_ns, self._look_at)

    async def _dose(self, rule: Rule, near: NearDose, share: float, at_ns: int) -> tuple[Fault, ...]:
        return await faults_of_dose(rule, near, share, at_ns, self._watch_spot)

    async def _watch_spot(self, faults: tuple[Fault, ...], at_ns: int, rule: Rule) -> SpotSeen:
        """What a rule compares from an instant to the end of the spot, with these faults."""
        found: list[SpotSeen] = []
        plant, loop = self._world.plant, self._world.loop
        first, second = (INDEX[name] for name in (rule.inputs[0], rule.inputs[-1]))

        async def work(send: Emit) -> None:
            for fault in faults:
                plant.inject(fault)
            await asyncio.sleep((at_ns + 2 * TICK_NS - loop.now_ns()) / 1e9)
            soon, stands = float(plant.signals[first]), float(plant.signals[second])
            most = soon
            while plant.signals[second] == stands:
                most = max(most, float(plant.signals[first]))
                await asyncio.sleep(TICK_NS / 1e9)
            send(SpotSeen(soon, most, stands))

        await branch(work, found.append)
        return found[0]

    async def _look_at(self, faults: tuple[Fault, ...], at_ns: int, signal: str) -> float:
        """What a signal is at an instant, with these faults."""
        found: list[float] = []

        async def work(send: Emit) -> None:
            for fault in faults:
                self._world.plant.inject(fault)
            await asyncio.sleep(max(0, at_ns - self._world.loop.now_ns()) / 1e9)
            send(float(self._world.plant.signals[INDEX[signal]]))

        await branch(work, found.append)
        return found[0]

    async def _both_sides(self, rule: Rule, trial: Trial, side: str, faults: Faults, where: Where) -> None:
        """Below a limit and above it, from one of the instants that `where` gives."""
        for share in (BELOW, ABOVE):
            at_ns, _ = (await where()).draw(self._bench.draw(rule.id, "near", f"{side}{share}"))
            found = await faults(share, at_ns)

            async def work(
                send: Emit, share: float = share, at_ns: int = at_ns, found: tuple[Fault, ...] = found
            ) -> None:
                run = NearRun(self._bench, self._world, self._parts, rule, trial)
                await run.bypass()
                send(await run.run_near(found, share, side, at_ns))

            await branch(work, self._emit)

    async def _anywhere(self) -> Instants:
        return Instants.spread(self._world.loop.now_ns())

    async def _spots(self) -> Instants:
        """Well within spots and beam that goes on."""
        on = await self._beam()
        inside = on.kept(within_spots(on) & goes_on(on))
        return Instants(inside.t_ns, inside.spot)

    async def _stop_spots(self) -> Instants:
        """Well within spots after which the beam is stopped."""
        on = await self._beam()
        inside = on.kept(within_spots(on) & self._bench.stop_spots()[on.spot])
        return Instants(inside.t_ns, inside.spot)

    async def _beam(self) -> Ticks:
        """Ticks with beam on a spot, from here on."""
        if self._on is None:
            seen = await look_ahead(self._world)
            self._on = seen.kept(beam_on(seen))
        return self._on

    async def _look_to_the_end(self) -> Growth:
        """How the signals of the layer grow when nothing fails."""
        found: list[Growth] = []
        plant, loop = self._world.plant, self._world.loop

        async def work(send: Emit) -> None:
            token, rows = plant.status.token, list[tuple[int, np.ndarray]]()
            while plant.status.token == token and plant.status.state != FrontEndState.DONE:
                rows.append((loop.now_ns(), plant.signals.copy()))
                await asyncio.sleep(STEP_S)
            send(Growth(np.array([t_ns for t_ns, _ in rows]), np.array([row for _, row in rows])))

        await branch(work, found.append)
        return found[0]
