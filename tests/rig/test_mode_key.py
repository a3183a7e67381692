"""The mode key in a facility that runs: turned at its panel, seen by the safety controller, between fields alone."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import pytest

from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import load_facility
from facility.errors import CommandRefused
from interlocks.snapshot import Mode
from rig.remote_mode import turn_and_set
from rig.virtual_world import World, WorldOptions, WorldParts


@functools.cache
def program():
    found = load_facility("wuwei")
    return compile_program(make_small_plan(found, "carbon"), found, "1")


def in_world(work: Callable[[World, WorldParts], Awaitable[None]]) -> World:
    world = World(load_facility("wuwei"), "1", "carbon", 1, WorldOptions(load_program=lambda *_: program()))

    async def run(parts: WorldParts) -> None:
        await work(world, parts)

    world.run(run)
    return world


def test_the_key_is_turned_the_mode_set_and_both_recorded() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        for wanted in ("qa", "service", "clinical", "clinical"):
            assert await turn_and_set(parts.operator, parts.room, wanted) == {"mode": wanted}
            snapshot = world.controller.snapshot()
            assert (snapshot.mode.value, snapshot.key_agrees) == (wanted, True)
        await parts.operator.reset()

    world = in_world(work)
    modes = [event.data["mode"] for event in world.events.events if event.kind == "mode"]
    assert modes == ["qa", "service", "clinical", "clinical"]
    keys = [event.data["key"] for event in world.events.events if event.kind == "room"]
    assert [key for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]] == [1, 2, 3, 1]
    assert [event for event in world.events.events if event.kind == "interlock.trip"] == []


def test_not_under_a_permit_nor_in_a_field_and_the_key_stays() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        operator = parts.operator
        await operator.reset()
        await operator.until(lambda: operator.permit, 1.0, "permit")
        with pytest.raises(CommandRefused, match="permitted"):
            await turn_and_set(operator, parts.room, "qa")
        await operator.load("plan", "1", False, program().plan_hash)
        await operator.until(lambda: operator.field != "", 1.0, "field")
        with pytest.raises(CommandRefused, match="under way"):
            await turn_and_set(operator, parts.room, "qa")
        with pytest.raises(CommandRefused, match="only without a permit"):
            await operator.ask("SAFE", "set_mode", {"mode": "qa"}, role="physicist")
        await operator.prepare()
        await operator.start()
        await operator.until(lambda: operator.state.name == "ARMED", 1.0, "armed layer")
        with pytest.raises(CommandRefused, match="layer is active"):
            await parts.room.do("turn_key", position=2)
        snapshot = world.controller.snapshot()
        assert (snapshot.mode, snapshot.key_agrees, snapshot.permit) == (Mode.CLINICAL, True, True)

    in_world(work)


def test_a_field_that_control_has_let_go_of_is_closed_first() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        operator = parts.operator
        await operator.reset()
        await operator.load("plan", "1", False, program().plan_hash)
        await operator.ask("TCS", "close")
        await operator.until(lambda: operator.state.name == "STANDBY" and operator.field != "", 1.0, "STANDBY")
        await turn_and_set(operator, parts.room, "qa")
        assert world.controller.snapshot().session == ""
        await operator.reset()

    in_world(work)


@pytest.mark.parametrize("position", [0, 4, -1])
def test_there_are_three_positions(position: int) -> None:
    async def work(_world: World, parts: WorldParts) -> None:
        with pytest.raises(CommandRefused, match="position"):
            await parts.room.do("turn_key", position=position)

    in_world(work)
