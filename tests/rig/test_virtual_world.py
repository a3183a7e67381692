"""A whole facility in virtual time: it delivers, it is the same every time, and interlocks stop it by name."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from channels.memory_link import LinkFault
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from control.session import SessionSummary
from control.spot_log import spot_log_bytes
from facility.config import load_facility
from facility.errors import CommandRefused
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from rig.deliver_virtual import deliver_in
from rig.truth_check import TruthReport, judge_truth
from rig.virtual_world import World, WorldOptions, WorldParts

MS = 1_000_000


@functools.cache
def facility(name: str = "wuwei"):
    return load_facility(name)


@functools.cache
def program(name: str = "wuwei"):
    found = facility(name)
    return compile_program(make_small_plan(found, "carbon"), found, next(iter(found.rooms)), qa=True)


@dataclass(frozen=True)
class Run:
    world: World
    summary: SessionSummary
    truth: TruthReport
    spots: bytes
    events: bytes

    def trips(self) -> list[tuple[int, str]]:
        return [(e.t_ns, str(e.data["id"])) for e in self.world.events.events if e.kind == "interlock.trip"]

    def first(self, kind: str) -> int:
        return next(e.t_ns for e in self.world.events.events if e.kind == kind)


def run(seed: int = 1, name: str = "wuwei", faults: tuple[Fault, ...] = (), linger_s: float = 0.0, **options) -> Run:
    found = facility(name)
    plan = program(name)
    chosen = WorldOptions(load_program=lambda *_: plan, allow_faults=bool(faults), mode=Mode.QA)
    world = World(found, plan.room_id, "carbon", seed, replace(chosen, **options))
    for fault in faults:
        world.plant.inject(fault)
    session, summary = deliver_in(world, plan, linger_s=linger_s)
    truth = judge_truth(plan.layers, world.plant.truth_spots())
    return Run(world, summary, truth, spot_log_bytes(session), world.events.to_bytes())


@functools.cache
def good() -> Run:
    return run()


def in_beam(delay_ms: float = 2.0) -> int:
    """A moment with beam, facility time in ns."""
    return good().first("beam-on") + round(delay_ms * MS)


def test_delivers_within_tolerance_by_truth():
    done = good()
    assert done.summary.status == "completed"
    assert done.summary.interlocks == ()
    assert done.truth.within_tolerance
    assert abs(done.truth.total_error_pct) < 0.5
    assert done.truth.p99_position_error_mm < 0.3
    assert done.truth.unplanned_ions == 0.0


@pytest.mark.parametrize("name", ["lanzhou", "pimms", "himm-mee"])
def test_delivers_at_every_facility(name):
    done = run(name=name)
    assert (done.summary.status, done.summary.reason) == ("completed", "")
    assert done.truth.within_tolerance


def test_same_seed_same_bytes():
    again = run()
    assert again.spots == good().spots
    assert again.events == good().events


@pytest.mark.parametrize("slice_ns", [997_000, 13_370_000])
def test_slicing_changes_nothing(slice_ns):
    sliced = run(slice_ns=slice_ns)
    assert sliced.spots == good().spots
    assert sliced.events == good().events


def test_another_seed_is_another_run_within_the_same_tolerances():
    other = run(seed=2)
    assert other.spots != good().spots
    assert other.truth.within_tolerance


CASES = {
    "door": (Fault("door.a", FaultKind.SET, 0.0), "door", "terminated"),
    "emergency stop": (Fault("estop.b", FaultKind.SET, 0.0), "emergency-stop", "terminated"),
    "chamber voltage": (Fault("ic2.hv", FaultKind.SCALE, 0.8), "chamber-voltage-ic2", "terminated"),
    "strip electronics": (Fault("strip.ok", FaultKind.DEAD), "strip-electronics", "terminated"),
    "magnet status": (Fault("scan.ok", FaultKind.DEAD), "scan-supplies", "terminated"),
    "position": (Fault("beam.x", FaultKind.OFFSET, 5.0), "position-x", "terminated"),
    "energy token": (Fault("ring.token", FaultKind.OFFSET, 1.0), "energy-token-ring", "terminated"),
    "front end frozen": (Fault("fe.freeze", FaultKind.SET, 1.0), "front-end-beats", "terminated"),
    "fast tier frozen": (Fault("h.freeze", FaultKind.SET, 1.0), "fast-tier-alive", "terminated"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trip_ends_the_session_with_the_rule_s_name(case):
    fault, rule, status = CASES[case]
    at_ns = in_beam()
    done = run(faults=(replace(fault, at_ns=at_ns),), linger_s=5.0)
    assert done.summary.status == status
    assert rule in [trip for _, trip in done.trips()]
    assert done.summary.interlocks[0].rule == rule
    assert done.truth.truth_ions < done.truth.prescribed_ions
    last_ion_ns = max(rows[:, 4].max() for rows in done.world.plant.truth_spots().values())
    assert at_ns < last_ion_ns < at_ns + 50 * MS
    assert done.world.plant.t_ns > last_ion_ns + 5000 * MS  # and truth ran on


@pytest.mark.parametrize("case", ["door", "chamber voltage", "front end frozen", "fast tier frozen", "position"])
def test_leaving_quiet_exchanges_out_changes_no_trip(case):
    fault, _, _ = CASES[case]
    faults = (replace(fault, at_ns=in_beam()),)
    seldom, always = run(faults=faults), run(faults=faults, exchange_always=True)
    assert seldom.trips() == always.trips()
    assert seldom.summary.interlocks == always.summary.interlocks
    assert seldom.world.safety.exchanges < 0.1 * always.world.safety.exchanges


def test_a_good_run_is_the_same_with_every_exchange():
    always = run(exchange_always=True)
    assert always.spots == good().spots
    assert always.summary.status == "completed"


def test_interrupting_pauses_the_delivery():
    plan = program()
    world = World(facility(), plan.room_id, "carbon", 1, WorldOptions(load_program=lambda *_: plan, mode=Mode.QA))
    at_ns = in_beam()
    world.loop.call_at_rank(at_ns, 0, lambda: setattr(world, "interrupted", True))
    session, summary = deliver_in(world, plan)
    assert summary.status == "interrupted"
    assert "operator" in summary.reason
    assert session.unaccounted or summary.spots_done < summary.spots


def test_a_silent_operator_pauses_the_beam():
    plan = program()
    world = World(facility(), plan.room_id, "carbon", 1, WorldOptions(load_program=lambda *_: plan, mode=Mode.QA))

    async def work(parts: WorldParts) -> SessionSummary:
        await parts.operator.reset()
        await parts.operator.load("plan", plan.room_id, True)
        await parts.operator.prepare()
        parts.operator.lost = "the operator has left"
        await parts.operator.ask("TCS", "start")
        return await parts.control.sequencer.recorded(600.0)

    summary = world.run(work)
    assert summary.status == "interrupted"
    assert summary.interlocks[0].rule == "operator-heartbeat"


def test_control_cannot_reset():
    plan = program()
    world = World(facility(), plan.room_id, "carbon", 1, WorldOptions(load_program=lambda *_: plan))

    async def work(parts: WorldParts) -> None:
        parts.operator._signers["operator"] = world._signer("control", "control")
        with pytest.raises(CommandRefused, match="control"):
            await parts.operator.ask("SAFE", "reset")
        parts.operator._signers["operator"] = world._signer("control", "operator")
        with pytest.raises(CommandRefused, match="not operator"):
            await parts.operator.ask("SAFE", "reset")

    world.run(work)


def _cut(world: World) -> None:
    world.safety.wire.cut = True


def _corrupt_permits(world: World) -> None:
    world.safety.wire.b.inject(LinkFault.CORRUPT, 3)


def _lose_images(world: World) -> None:
    world.safety.wire.a.inject(LinkFault.DROP, 20)


@pytest.mark.parametrize("fault", [_cut, _corrupt_permits, _lose_images])
@pytest.mark.parametrize("always", [False, True])
def test_a_link_that_fails_takes_the_beam(fault: Callable[[World], None], always: bool):
    plan = program()
    options = WorldOptions(load_program=lambda *_: plan, mode=Mode.QA, exchange_always=always)
    world = World(facility(), plan.room_id, "carbon", 1, options)
    at_ns = in_beam()
    world.loop.call_at_rank(at_ns, 0, fault, world)
    _, summary = deliver_in(world, plan, linger_s=1.0)
    assert summary.status == "terminated"
    last_ion_ns = max(rows[:, 4].max() for rows in world.plant.truth_spots().values())
    assert at_ns < last_ion_ns < at_ns + 25 * MS


def test_exchanges_are_left_out_again_once_both_watchdogs_have_run_and_no_frame_is_late():
    world = World(facility(), program().room_id, "carbon", 1, WorldOptions(mode=Mode.QA))
    safety, wire = world.safety, world.safety.wire

    async def resting_after(ms: float, fault: LinkFault, delay_ns: int = 0) -> bool:
        await asyncio.sleep(0.2)
        assert not safety.always
        wire.a.inject(fault, 1, delay_ns=delay_ns)
        assert safety.always
        await asyncio.sleep(ms * 1e-3)
        return not safety.always

    async def work(_: WorldParts) -> None:
        assert not await resting_after(28.0, LinkFault.DROP)
        assert await resting_after(33.0, LinkFault.DROP)
        assert not await resting_after(58.0, LinkFault.DELAY, 60 * MS)
        assert await resting_after(93.0, LinkFault.DELAY, 60 * MS)

    world.run(work)
