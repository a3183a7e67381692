"""Fields, holds, terminations, bypasses and the key in a whole facility in virtual time, judged by truth and events."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from control.layer_machine import State
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from control.session import SessionSummary
from facility.config import load_facility
from facility.errors import CommandRefused
from interlocks.model import MODE_CODES
from interlocks.rules import RuleSet, load_rules
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.layout import FLAG_PERMIT
from rig.truth_check import judge_truth
from rig.virtual_world import World, WorldOptions, WorldParts
from tests.bring_up import up_ns

MS = 1_000_000
FACILITY = load_facility("wuwei")
BEAM_NS = up_ns() // MS * MS + 836 * MS
"""When the first beam of the plan comes, the seed being 1."""


@functools.cache
def program():
    return compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, next(iter(FACILITY.rooms)), qa=True)


def world(mode: Mode = Mode.QA, rules: RuleSet | None = None, **options: Any) -> World:
    plan = program()
    chosen = WorldOptions(mode=mode, load_program=lambda *_: plan, allow_faults=True, **options)
    return World(FACILITY, plan.room_id, "carbon", 1, chosen, rules)


async def deliver(parts: WorldParts, before: Callable[[], Awaitable[Any]] | None = None) -> dict[str, Any]:
    operator = parts.operator
    await operator.reset()
    session = await operator.load("plan", program().room_id, True)
    if before is not None:
        await before()
    await operator.prepare()
    await operator.start()
    return await operator.ended(session, 600.0)


def events(made: World, prefix: str) -> list[tuple[str, Any]]:
    return [
        (event.kind, event.data.get("id", event.data.get("session")))
        for event in made.events.events
        if event.source == "safety" and event.kind.startswith(prefix)
    ]


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_bypassed_fast_rule_is_present_and_lets_the_beam_on(bypassed: bool) -> None:
    made = world()
    made.plant.inject(Fault("ic2.gain", FaultKind.SCALE, 0.96, at_ns=up_ns()))

    async def work(parts: WorldParts) -> dict[str, Any]:
        async def bypass() -> None:
            args = {"rule": "chamber-drift", "reason": "gain of chamber 2 is under study", "seconds": 1800}
            await parts.operator.ask("SAFE", "bypass", args, role="physicist")

        return await deliver(parts, bypass if bypassed else None)

    summary = made.run(work)
    truth = judge_truth(program().layers, made.plant.truth_spots())
    assert summary["mode"] == "qa"  # the safety controller's, not what the plan asks for
    if bypassed:
        assert summary["status"] == "completed"
        assert truth.within_tolerance  # chamber 1 steers
        assert ("bypass.masked", "chamber-drift") in events(made, "bypass")
        assert events(made, "interlock.trip") == []
        assert made.plant.rule_rows["latched"].sum() == 0
    else:
        assert summary["status"] == "interrupted"
        assert events(made, "interlock.trip") == [("interlock.trip", "chamber-drift")]
        assert truth.truth_ions < truth.prescribed_ions


def test_a_bypass_that_expires_under_the_beam_trips() -> None:
    made = world()
    made.plant.inject(Fault("ic2.gain", FaultKind.SCALE, 0.96, at_ns=up_ns()))

    async def work(parts: WorldParts) -> dict[str, Any]:
        async def bypass() -> None:
            seconds = (BEAM_NS + 25 * MS - made.loop.now_ns()) * 1e-9
            args = {"rule": "chamber-drift", "reason": "gain of chamber 2 is under study", "seconds": seconds}
            await parts.operator.ask("SAFE", "bypass", args, role="physicist")

        return await deliver(parts, bypass)

    summary = made.run(work)
    assert summary["status"] == "interrupted"
    ended_ns = next(e.t_ns for e in made.events.events if e.kind == "bypass.ended")
    trip_ns = next(e.data["t_ns"] for e in made.events.events if e.kind == "interlock.trip")
    assert 0 <= trip_ns - ended_ns < 3 * MS
    last_ion_ns = max(rows[:, 4].max() for rows in made.plant.truth_spots().values())
    assert last_ion_ns < trip_ns + 5 * MS


def test_after_an_abort_no_field_before_somebody_has_accounted_for_it() -> None:
    made = world()

    async def work(parts: WorldParts) -> tuple[dict[str, Any], dict[str, Any]]:
        operator = parts.operator

        async def open_the_door() -> None:
            made.loop.call_at_rank(BEAM_NS + 5 * MS, 0, made.plant.set_door, False, True)

        first = await deliver(parts, open_the_door)
        await parts.room.search()  # the door that opened has undone the search
        await operator.ask("TCS", "close")
        said = await operator.reset()
        assert said["permit"] is False
        with pytest.raises(CommandRefused, match="physicist must resolve"):
            await operator.load("plan", program().room_id, True)
        await operator.ask("TCS", "close")
        with pytest.raises(CommandRefused, match="operator"):
            await operator.ask("SAFE", "resolve", {"session": first["session"], "words": "x"})
        resolved = await operator.resolve("door opened by hand, field abandoned")
        assert resolved["resolved"] == first["session"]
        assert not operator.permit
        return first, await deliver(parts)

    first, second = made.run(work)
    assert (first["status"], second["status"]) == ("terminated", "completed")
    kinds = [kind for kind, session in events(made, "field") if session == first["session"]]
    assert kinds == ["field.opened", "field.begun", "field.terminated", "field.resolved"]
    kinds = [kind for kind, session in events(made, "field") if session == second["session"]]
    assert kinds == ["field.opened", "field.begun", "field.closed"]
    trace = made.plant.trace[: made.plant.truth_count]
    stopped = next(e.t_ns for e in made.events.events if e.kind == "field.terminated")
    again = next(e.t_ns for e in made.events.events if e.kind == "permit.released" and e.t_ns > stopped)
    between = (trace["t_ns"] > stopped + 20 * MS) & (trace["t_ns"] < again)
    assert trace["ions"][between].sum() == 0
    assert not (trace["flags"][between] >> FLAG_PERMIT & 1).any()


def with_gate(max_holds: int) -> RuleSet:
    rules = load_rules(FACILITY, program().room_id, "carbon")
    changed = tuple(
        rule.model_copy(update={"max_holds": max_holds}) if rule.id == "gate" else rule for rule in rules.rules
    )
    return RuleSet(rules.facility, changed, rules.link, rules.policy)


@pytest.mark.parametrize("always", [False, True])
def test_a_gate_that_closes_too_often_ends_as_a_pause(always: bool) -> None:
    made = world(rules=with_gate(2), exchange_always=always)
    made.plant.set_gating(True)
    made.plant.inject(Fault("gate.open", FaultKind.SET, 1.0))  # whatever the breath does
    for at_ns in (BEAM_NS + 4 * MS, BEAM_NS + 10 * MS, BEAM_NS + 16 * MS):
        for value, t_ns in ((0.0, at_ns), (1.0, at_ns + 2 * MS)):
            made.loop.call_at_rank(t_ns, 0, made.plant.inject, Fault("gate.open", FaultKind.SET, value))

    async def work(parts: WorldParts) -> dict[str, Any]:
        return await deliver(parts)

    summary = made.run(work)
    assert summary["status"] == "interrupted"
    assert made.controller.snapshot().holds["gate"] == 3
    assert events(made, "interlock.trip")[0] == ("interlock.trip", "holds-spent")
    held_ns = [e.t_ns for e in made.events.events if e.kind == "held" and e.data["reason"] == "GATE"]
    trip_ns = next(e.t_ns for e in made.events.events if e.kind == "interlock.trip")
    assert trip_ns - held_ns[2] < 5 * MS


def test_the_key_that_is_turned_ends_what_its_mode_allowed() -> None:
    made = world()

    async def work(parts: WorldParts) -> SessionSummary:
        operator = parts.operator
        await operator.reset()
        args = {"rule": "chamber-drift", "reason": "gain study", "seconds": 1800}
        await operator.ask("SAFE", "bypass", args, role="physicist")
        assert made.controller.snapshot().bypassed
        made.plant.turn_key(MODE_CODES["clinical"])
        await operator.until(
            lambda: any(e.kind == "bypass.ended" for e in made.events.events), 5.0, "end of the bypass"
        )
        with pytest.raises(CommandRefused, match="do not agree"):
            await operator.ask("SAFE", "bypass", args, role="physicist")
        assert operator.state is State.STANDBY
        return made.controller.snapshot()

    snapshot = made.run(work)
    assert (snapshot.key_agrees, snapshot.bypassed) == (False, ())
    assert np.all(made.plant.rule_rows["action"] == made.rules.fast().rows["action"])


@pytest.mark.parametrize(("after_ns", "first"), [(200_000, "scan-supplies"), (700_000, "door")])
@pytest.mark.parametrize("always", [False, True])
def test_the_first_fault_is_the_earliest_of_both_tiers(after_ns: int, first: str, always: bool) -> None:
    """The door shows in the image of a millisecond and trips the scan 0.5 ms later; the supplies fail in between, or
    after it. Either way the safety controller hears of the rack's trip a frame later than of its own."""
    made = world(exchange_always=always)
    at_ns = BEAM_NS + 5 * MS
    made.plant.inject(Fault("door.a", FaultKind.SET, 0.0, at_ns=at_ns))
    made.plant.inject(Fault("scan.ok", FaultKind.DEAD, at_ns=at_ns + after_ns))

    async def work(parts: WorldParts) -> dict[str, Any]:
        return await deliver(parts)

    summary = made.run(work)
    trips = {e.data["id"]: e.data["t_ns"] for e in made.events.events if e.kind == "interlock.trip"}
    assert list(trips)[:2] == ["door", "scan-supplies"]
    assert min(trips, key=trips.__getitem__) == first
    assert made.controller.snapshot().first_fault == first
    assert summary["interlocks"][0]["rule"] == first
    assert [e.data["id"] for e in made.events.events if e.kind == "first-fault"] == ([first] if first != "door" else [])
