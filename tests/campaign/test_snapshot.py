"""A run from a snapshot is the straight run, byte for byte; what fails in it is told."""

from __future__ import annotations

import asyncio
import gc
import os
from hashlib import sha256

import pytest

from control.layer_machine import State
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from control.spot_log import spot_log_bytes
from facility.config import load_facility
from facility.errors import InternalError
from interlocks.snapshot import Mode
from rig.branch import Emit, Snapshot, unmoved
from rig.virtual_time import VirtualLoop, run_virtual
from rig.virtual_world import World, WorldOptions, WorldParts

FACILITY = load_facility("wuwei")
ROOM = next(iter(FACILITY.rooms))
PROGRAM = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, ROOM, qa=True)
BEFORE_S = 1.0
"""After START: in the ramp before the second layer."""
PAUSE_S = 0.02
Digests = dict[str, str]


def make_world() -> World:
    options = WorldOptions(mode=Mode.QA, load_program=lambda *_: PROGRAM)
    return World(FACILITY, ROOM, "carbon", 7, options)


def test_what_fails_before_the_copies_leaves_the_garbage_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise OSError("no large pages")

    monkeypatch.setattr("rig.branch.gather", failing)
    with pytest.raises(OSError, match="no large pages"), unmoved():
        pytest.fail("there is nothing to do inside")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


async def to_the_middle(parts: WorldParts) -> None:
    await parts.operator.reset()
    await parts.operator.load("plan", ROOM, True, PROGRAM.plan_hash)
    await parts.operator.prepare()
    await parts.operator.start()
    await asyncio.sleep(BEFORE_S)


async def to_the_end(world: World, parts: WorldParts, emit: Emit, pause: bool = False) -> None:
    """Deliver the rest, with a pause of the operator in between if wanted; send what log and truth come to."""
    sequencer = parts.control.sequencer
    if pause:
        await parts.operator.ask("TCS", "pause")
        await sequencer.until({State.INTERRUPTED}, 60.0)
        await asyncio.sleep(PAUSE_S)
        await parts.operator.ask("TCS", "resume")
    await sequencer.until({State.COMPLETED}, 600.0)
    await sequencer.recorded(60.0)
    assert sequencer.session is not None
    emit(
        {
            "events": sha256(world.events.to_bytes()).hexdigest(),
            "spots": sha256(spot_log_bytes(sequencer.session)).hexdigest(),
            "truth": sha256(world.plant.trace.tobytes()).hexdigest(),
            "ions": repr(world.plant.truth_total_ions),
        }
    )


async def fails(_world: World, _parts: WorldParts, _emit: Emit) -> None:
    raise ValueError("by intent")


async def dies(_world: World, _parts: WorldParts, _emit: Emit) -> None:
    os._exit(9)


def straight() -> Digests:
    world, found = make_world(), list[Digests]()

    async def work(parts: WorldParts) -> None:
        await to_the_middle(parts)
        await to_the_end(world, parts, found.append)

    world.run(work)
    return found[0]


def test_runs_from_a_snapshot_are_the_straight_run_byte_for_byte() -> None:
    world, found, own, paused = make_world(), list[Digests](), list[Digests](), list[Digests]()

    async def work(parts: WorldParts) -> None:
        await to_the_middle(parts)
        with await world.snapshot() as kept, await world.snapshot() as second:
            assert kept.t_ns == world.loop.now_ns() == second.t_ns
            world.restore(kept, to_the_end, found.append)
            await to_the_end(world, parts, own.append)  # the trunk itself goes on to its end
            world.restore(kept, paused_to_the_end, paused.append)
            world.restore(kept, to_the_end, found.append)
            world.restore(second, to_the_end, found.append)

    world.run(work)
    assert found == 3 * [straight()]
    assert own == found[:1]
    assert paused[0] != found[0]


async def paused_to_the_end(world: World, parts: WorldParts, emit: Emit) -> None:
    await to_the_end(world, parts, emit, pause=True)


@pytest.mark.parametrize(("work", "code", "words"), [(fails, "branch.failed", "by intent"), (dies, "branch.died", "")])
def test_what_fails_in_a_restored_world_is_told_and_the_snapshot_lives_on(work: object, code: str, words: str) -> None:
    world, found = make_world(), list[Digests]()

    async def trunk(_parts: WorldParts) -> Snapshot:
        with await world.snapshot() as kept:
            with pytest.raises(InternalError) as caught:
                world.restore(kept, work, found.append)  # type: ignore[arg-type]
            assert caught.value.code == code
            assert words in str(caught.value)
            world.restore(kept, says_hello, found.append)
            return kept

    kept = world.run(trunk)
    assert found == [{"hello": "world"}]
    with pytest.raises(InternalError, match="closed"):
        world.restore(kept, says_hello, found.append)


async def says_hello(_world: World, _parts: WorldParts, emit: Emit) -> None:
    emit({"hello": "world"})


def test_a_world_that_does_not_run_cannot_be_kept() -> None:
    loop = VirtualLoop()
    world = make_world()
    with pytest.raises(InternalError, match="while a world runs"):
        run_virtual(world.snapshot(), loop)


def test_nothing_is_left_to_do_at_a_quiet_instant() -> None:
    loop, done = VirtualLoop(), list[str]()

    async def chain(name: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        done.append(name)

    async def work() -> None:
        tasks = [asyncio.create_task(chain(name, turns)) for name, turns in (("short", 1), ("long", 30))]
        loop.call_soon(done.append, "soon")
        loop.call_later(0.0, done.append, "timer")
        loop.call_later(0.001, done.append, "later")
        await loop.quiet()
        assert sorted(done) == ["long", "short", "soon", "timer"]
        assert loop.now_ns() == 0
        await asyncio.gather(*tasks)

    run_virtual(work(), loop)
