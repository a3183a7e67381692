"""Personnel safety: search, door, emergency stop, tokens; stopper and source by a line of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import tomllib
from collections.abc import Awaitable, Callable
from importlib import resources

import pytest

from channels.command import Signer
from control.server import PERMISSIONS
from facility import signals as g
from facility.config import load_facility
from facility.errors import ChannelError, CommandRefused, IonctlError
from facility.states import SearchStage
from interlocks.explain import matrix
from interlocks.model import Rule
from interlocks.rules import load_rules
from interlocks.verbs import VERBS
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from rig.keys import CONTROL, LISTENS_TO, OPERATOR, PHYSICIST, ROOM
from rig.room_panel import RoomPanel
from rig.virtual_world import World, WorldOptions, WorldParts

MS = 1_000_000
S = 1000 * MS


@functools.cache
def facility():
    return load_facility("wuwei")


STOPPER_MS = 150.0  # of wuwei: 50 ms dead time, 100 ms of travel
RULES = load_rules(facility(), "1", "carbon")


def in_world(
    work: Callable[[World, WorldParts], Awaitable[None]], *, bring_up: bool = True, faults: bool = False
) -> World:
    world = World(facility(), "1", "carbon", 1, WorldOptions(bring_up=bring_up, allow_faults=faults))

    async def run(parts: WorldParts) -> None:
        await work(world, parts)

    world.run(run)
    return world


async def wait_ms(world: World, ms: float) -> None:
    await asyncio.sleep(ms / 1000.0)


def signal(world: World, index: int) -> float:
    return float(world.plant.signals[index])


def stands(world: World) -> tuple[bool, bool]:
    """Stopper in, source inhibited: in the plant."""
    return signal(world, g.STOPPER_IN) == 1.0, signal(world, g.SOURCE_INHIBITED) == 1.0


# --- which rules belong to the personnel chain ---------------------------------------------------------------------
PEOPLE = ("door.", "search.", "estop.", "area.", "room.", "hebt.route")


@pytest.mark.parametrize("rule", RULES.rules, ids=lambda rule: rule.id)
def test_a_rule_is_of_the_personnel_chain_if_it_looks_at_people_and_rooms(rule: Rule) -> None:
    assert (rule.chain == "personnel") == rule.inputs[0].startswith(PEOPLE)
    row = next(row for row in matrix(RULES, facility()) if row.rule == rule.id)
    assert (row.chain, row.stopper) == (rule.chain, rule.chain == "personnel")


def test_every_rule_of_the_file_says_its_chain() -> None:
    text = resources.files("configs").joinpath("interlocks.toml").read_text(encoding="utf-8")
    assert [entry["id"] for entry in tomllib.loads(text)["rule"] if "chain" not in entry] == []


PERSONNEL = {
    "emergency-stop": Fault("estop.b", FaultKind.SET, 0.0),
    "door": Fault("door.a", FaultKind.SET, 0.0),
    "search": Fault("search.b", FaultKind.DEAD),
    "area-radiation": Fault("area.dose_usv_h", FaultKind.SET, 10.0),
    "room-keys": Fault("room.keys", FaultKind.SET, 3.0),
}
"""A device that fails for each that does not ask for demand."""
WITH_DEMAND = {"room-token", "beam-route"}
PATIENT = {
    "strip-electronics": Fault("strip.ok", FaultKind.DEAD),
    "chamber-voltage-ic1": Fault("ic1.hv", FaultKind.SCALE, 0.8),
}


def test_each_personnel_rule_has_a_case() -> None:
    assert set(PERSONNEL) | WITH_DEMAND == {rule.id for rule in RULES.rules if rule.chain == "personnel"}


@pytest.mark.parametrize("rule", PERSONNEL)
def test_a_personnel_trip_closes_the_stopper_and_inhibits_the_source(rule: str) -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await wait_ms(world, STOPPER_MS + 20)
        assert stands(world) == (False, False)
        world.plant.inject(PERSONNEL[rule])
        await wait_ms(world, 8 + RULES.rule(rule).input_delay_us / 1000)
        assert rule in [view.rule.id for view in world.controller.snapshot().latched]
        assert stands(world) == (False, True)  # the source at once, the stopper travels
        assert not world.plant.status.permit
        await wait_ms(world, STOPPER_MS)
        assert stands(world) == (True, True)

    in_world(work, faults=True)


@pytest.mark.parametrize("rule", PATIENT)
def test_a_patient_trip_leaves_the_stopper_alone(rule: str) -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await wait_ms(world, STOPPER_MS + 20)
        world.plant.inject(PATIENT[rule])
        await wait_ms(world, STOPPER_MS + 20)
        assert not world.plant.status.permit
        assert stands(world) == (False, False)

    in_world(work, faults=True)


def test_a_dead_link_closes_the_stopper() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await wait_ms(world, STOPPER_MS + 20)
        world.safety.wire.cut = True
        await wait_ms(world, STOPPER_MS + 30)
        assert stands(world) == (True, True)

    in_world(work)


# --- search ------------------------------------------------------------------------------------------------------
def test_no_permit_before_the_search_and_bring_up_shows_in_the_events() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await wait_ms(world, 2000)  # a sign of life tells what stands
        with pytest.raises(CommandRefused, match="Room not searched"):
            await parts.operator.reset()
        assert stands(world) == (True, True)
        with pytest.raises(ChannelError, match="no search of the room that it has seen"):
            await parts.operator.see_search()
        await parts.room.search()
        await parts.operator.see_search()
        await parts.operator.prove()
        await parts.operator.reset()
        await parts.operator.until(lambda: parts.operator.permit, 1.0, "permit")

    world = in_world(work, bring_up=False)
    stages = [e.data["search"] for e in world.events.events if e.kind == "room"]
    assert [stage for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]] == [
        "NOT_DONE", "SEARCHING", "LEAVING", "WARNING", "DONE",
    ]  # fmt: skip


def test_a_door_undoes_the_search_and_closing_it_does_not_redo_it() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await parts.room.do("move_door", closed=0)
        await wait_ms(world, 10)
        await parts.room.do("move_door", closed=1)
        await wait_ms(world, 3000)
        assert (signal(world, g.SEARCH_A), signal(world, g.SEARCH_B)) == (0.0, 0.0)
        with pytest.raises(CommandRefused, match="Room not searched"):
            await parts.operator.reset()
        await parts.room.search()
        with pytest.raises(CommandRefused, match="physicist"):
            await parts.operator.ask("SAFE", "reset", role="operator")
        assert stands(world) == (True, True)
        await parts.operator.reset()
        await wait_ms(world, STOPPER_MS + 20)
        assert stands(world) == (False, False)

    in_world(work)


class Room:
    """A plant without anything around it, and what its search chains say."""

    def __init__(self) -> None:
        self.plant = Plant(facility(), "1", "carbon", seed=1, allow_faults=True)
        self.wait(2)

    def wait(self, ms: float) -> None:
        until_ns = self.plant.t_ns + round(ms * MS)
        while self.plant.advance(until_ns) < until_ns:
            pass

    def press(self, button: str) -> None:
        self.plant.press_search(button)
        self.wait(2)

    def door(self, closed_a: bool, closed_b: bool | None = None) -> None:
        self.plant.set_door(closed_a, closed_a if closed_b is None else closed_b)
        self.wait(2)

    @property
    def stage(self) -> SearchStage:
        return SearchStage(int(self.plant.signals[g.SEARCH_STAGE]))

    @property
    def done(self) -> tuple[float, float]:
        return float(self.plant.signals[g.SEARCH_A]), float(self.plant.signals[g.SEARCH_B])


def searched() -> Room:
    room = Room()
    room.press("far")
    room.press("exit")
    room.door(False)
    room.door(True)
    room.wait(1000)
    assert room.done == (1.0, 1.0)
    return room


def test_the_delay_must_pass() -> None:
    room = Room()
    room.press("far")
    room.press("exit")
    room.door(False)
    room.door(True)
    room.wait(990)
    assert (room.stage, room.done) == (SearchStage.WARNING, (0.0, 0.0))
    room.wait(20)
    assert (room.stage, room.done) == (SearchStage.DONE, (1.0, 1.0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: (r.press("exit"), r.door(False), r.door(True)),  # no far button
        lambda r: (r.press("far"), r.door(False), r.door(True)),  # no exit button
        lambda r: (r.press("far"), r.wait(60_010), r.press("exit"), r.door(False), r.door(True)),  # too slow inside
        lambda r: (r.press("far"), r.press("exit"), r.door(False), r.wait(30_010), r.door(True)),  # too slow out
        lambda r: (r.press("far"), r.press("exit")),  # nobody has left
        lambda r: (r.press("far"), r.door(False), r.press("exit"), r.door(True)),  # somebody came in
        lambda r: (r.press("far"), r.press("exit"), r.door(False), r.door(True), r.press("exit")),  # and is inside
        lambda r: (r.press("far"), r.press("exit"), r.door(False), r.door(True), r.door(False), r.door(True)),
    ],
)  # fmt: skip
def test_a_search_out_of_turn_or_out_of_time_is_none(wrong: Callable[[Room], object]) -> None:
    room = Room()
    wrong(room)
    room.wait(2000)
    assert room.done == (0.0, 0.0)


def test_one_door_contact_undoes_one_chain_and_a_button_both() -> None:
    room = searched()
    room.door(True, False)
    assert room.done == (1.0, 0.0)
    room = searched()
    room.press("far")
    assert room.done == (0.0, 0.0)


def test_a_button_that_is_stuck_searches_nothing() -> None:
    room = Room()
    room.plant.inject(Fault("search.far", FaultKind.SET, 1.0))
    room.plant.inject(Fault("search.exit", FaultKind.SET, 1.0))
    for _ in range(3):
        room.door(False)
        room.door(True)
        room.wait(1100)
    assert room.done == (0.0, 0.0)


# --- emergency stop ------------------------------------------------------------------------------------------------
ARGS = {
    "set_mode": {"mode": "clinical"}, "bypass": {"rule": "emergency-stop", "reason": "to see", "minutes": 1},
    "unbypass": {"rule": "emergency-stop"}, "open_field": {"session": "S-1"}, "close_field": {"session": "S-1"},
    "load": {"plan": "plan", "room": "1", "qa": False},
}  # fmt: skip


async def everything_remote(world: World, parts: WorldParts) -> int:
    """Every verb of every server but the room's panels, by everybody; and the panels' verbs by everybody else."""
    tried = 0
    nonces = itertools.count(1000)

    def signer(name: str, role: str) -> Signer:
        return Signer(name, role, world._keys[name], nonces.__next__)

    for role in ("operator", "physicist"):
        parts.operator._signers[role] = signer(role, role)
    for server, verbs in (("SAFE", VERBS), ("TCS", PERMISSIONS)):
        for verb in verbs:
            for name, role in (
                (OPERATOR, "operator"),
                (PHYSICIST, "physicist"),
                (PHYSICIST, "operator"),
                (CONTROL, "control"),
            ):
                parts.operator._signers["somebody"] = signer(name.name, role)
                with contextlib.suppress(IonctlError):
                    await parts.operator.ask(server, verb, ARGS.get(verb, {}), role="somebody")
                tried += 1
    for name, role in ((OPERATOR, "operator"), (PHYSICIST, "physicist"), (CONTROL, "control"), (CONTROL, "room")):
        panel = RoomPanel(parts.room._channels, signer(name.name, role), world.loop, 1.0)
        for verb in ("release_estop", "press_search", "move_door", "turn_key"):
            args = {"press_search": {"exit": 0}, "move_door": {"closed": 1}, "turn_key": {"position": 3}}.get(verb, {})
            with pytest.raises(IonctlError, match=r"(?i)room"):
                await panel.do(verb, **args)
            tried += 1
    return tried


def test_no_remote_verb_lets_an_emergency_stop_go() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await parts.room.do("press_estop")
        await wait_ms(world, 10)
        assert await everything_remote(world, parts) > 40
        await wait_ms(world, 300)
        assert (signal(world, g.ESTOP_A), signal(world, g.ESTOP_B)) == (0.0, 0.0)
        view = next(v for v in world.controller.snapshot().rules if v.rule.id == "emergency-stop")
        assert view.present
        assert view.latched
        assert not world.plant.status.permit
        assert stands(world) == (True, True)
        await parts.room.do("release_estop")
        await wait_ms(world, 10)
        with pytest.raises(CommandRefused, match="physicist"):
            await parts.operator.ask("SAFE", "reset", role="operator")
        assert signal(world, g.ESTOP_A) == 1.0
        assert not world.plant.status.permit

    in_world(work)


def test_let_go_at_the_button_and_reset_by_the_physicist_it_permits_again() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        await parts.room.do("press_estop")
        await wait_ms(world, 10)
        with pytest.raises(CommandRefused, match="Emergency stop"):
            await parts.operator.reset()
        await parts.room.do("release_estop")
        await wait_ms(world, 10)
        await parts.operator.reset()
        await parts.operator.until(lambda: parts.operator.permit, 1.0, "permit")

    in_world(work)


# --- room token ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault("room.keys", FaultKind.SET, 3.0), 2.0),
        (Fault("room.keys", FaultKind.DEAD), 0.0),
        (Fault("room.keys", FaultKind.NAN), 0.0),
        (Fault("room.keys", FaultKind.SET, 7.0), 3.0),
    ],
)
def test_two_rooms_with_the_token_or_none_trip(fault: Fault, seen: float) -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await parts.operator.reset()
        world.plant.inject(fault)
        await wait_ms(world, 10)
        assert signal(world, g.ROOM_TOKENS) == seen
        assert signal(world, g.ROOM_TOKEN) == -1.0
        assert [view.rule.id for view in world.controller.snapshot().latched] == ["room-keys"]
        assert not world.plant.status.permit

    in_world(work, faults=True)


def test_no_permit_while_no_room_holds_the_token() -> None:
    async def work(world: World, parts: WorldParts) -> None:
        await wait_ms(world, 20)
        with pytest.raises(CommandRefused, match="Not exactly one room"):
            await parts.operator.reset()

    world = World(facility(), "1", "carbon", 1, WorldOptions(bring_up=False))
    world.plant.set_room_beam(False)

    async def run(parts: WorldParts) -> None:
        await work(world, parts)

    world.run(run)


def test_the_room_s_key_is_the_room_s_alone() -> None:
    assert [process for process, issuers in LISTENS_TO.items() if ROOM in issuers] == ["plant"]
    assert not {ROOM.folder} & {issuer.folder for issuer in (OPERATOR, PHYSICIST, CONTROL)}
