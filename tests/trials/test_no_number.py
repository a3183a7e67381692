"""Not-a-number at any place where hardware can fail, with beam on: a rule takes the beam, or nothing that is measured
comes from there."""

from __future__ import annotations

import asyncio
import functools

from facility.config import load_facility
from facility.states import FrontEndState
from ioc_sim.faults import FAULT_POINTS, Fault, FaultKind
from rig.branch import Emit, branch
from rig.trials.bench import Bench, make_bench
from rig.truth_check import overdosed
from rig.virtual_world import WorldParts

HARMLESS = frozenset({
    "ic1.injector", "ic2.injector", "search.far", "search.exit", "stopper.in",  # used without beam alone
    "gate.open", "gate.age",  # no gate is in use
    "ring.fill", "ring.supply", "hebt.set",  # the next cycle, which brings no beam: the layer waits
})  # fmt: skip
WAIT_S = 0.112
"""The longest of those that have to notice: the contacts of the mode key may differ for 100 ms."""
STEP_S = 0.002


@functools.cache
def bench() -> Bench:
    return make_bench(load_facility("wuwei"), seed=1)


def latched_by_point() -> dict[str, tuple[set[str], list[str]]]:
    """Rules that latched, and spots with too much by truth, by the place that gives no number."""
    world, found = bench().world(), list[tuple[str, set[str], list[str]]]()

    async def one(point: str, emit: Emit) -> None:
        world.plant.inject(Fault(point, FaultKind.NAN, 0.0, at_ns=world.loop.now_ns() + 1_234_567))
        end_s = world.loop.time() + WAIT_S
        while not world.rules_that_are("latched") and world.loop.time() < end_s:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(STEP_S)
        emit((point, world.rules_that_are("latched"),
              overdosed(bench().program.layers, world.plant.truth_spots())))  # fmt: skip

    async def work(parts: WorldParts) -> None:
        await parts.operator.reset()
        await parts.operator.load("plan", bench().room, True)
        await parts.operator.prepare()
        await parts.operator.start()
        while world.plant.status.state != FrontEndState.IRRADIATING:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(STEP_S)
        await asyncio.sleep(5.0 * STEP_S)
        for point in FAULT_POINTS:
            await branch(functools.partial(one, point), found.append)

    world.run(work)
    return {point: (latched, over) for point, latched, over in found}


def test_what_gives_no_number_takes_the_beam_unless_nothing_is_measured_there() -> None:
    found = latched_by_point()
    assert set(found) == set(FAULT_POINTS)
    assert {point for point, (latched, _) in found.items() if not latched} == HARMLESS
    assert [point for point, (_, over) in found.items() if over and point != "fe.freeze"] == []
