"""Proof tests in the whole facility: they drive the devices, a failed device fails its test, truth shows no ion."""

from __future__ import annotations

import asyncio
import functools

import pytest

from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import list_facilities, load_facility
from facility.errors import IonctlError
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from rig.deliver_virtual import deliver_in
from rig.virtual_world import World, WorldOptions, WorldParts


@functools.cache
def facility(name: str = "wuwei"):
    return load_facility(name)


def world_of(name: str = "wuwei", *faults: Fault) -> World:
    found = facility(name)
    world = World(found, next(iter(found.rooms)), next(iter(found.species)), 1, WorldOptions(allow_faults=True))
    for fault in faults:
        world.plant.inject(fault)
    return world


async def nothing(_parts: WorldParts) -> None:
    """Bring the facility up, no more."""


@pytest.mark.parametrize("name", list_facilities())
def test_a_good_facility_passes_all_in_half_a_second_without_an_ion(name: str) -> None:
    world = world_of(name)
    world.run(nothing)
    begun, ended = (next(e for e in world.events.events if e.kind == f"proof.{what}") for what in ("begun", "ended"))
    assert ended.data["failed"] == []
    assert ended.data["passed"] == len(world.controller.snapshot().proofs)
    assert 0.2e9 < ended.t_ns - begun.t_ns < 0.5e9
    assert world.plant.truth_total_ions == 0.0
    assert world.plant.truth_count == 0  # not even a tick in which beam was possible
    assert [e for e in world.events.events if e.kind == "interlock.trip"] == []


TRIPS = {
    "beam-off-drive": Fault("rfko.on", FaultKind.SET, 1.0),
    "beam-off-quadrupole": Fault("quad.open", FaultKind.SET, 1.0),
    "beam-off-dump": Fault("dump.cmd", FaultKind.SET, 0.0),
    "source-inhibit": Fault("source.inhibit", FaultKind.SET, 0.0),
}
"""Devices that a rule watches too."""
FAULTS = {
    "charge-ic1": Fault("ic1.gain", FaultKind.SCALE, 0.9),
    "charge-ic2": Fault("ic2.injector", FaultKind.SCALE, 1.1),
    "count-path-ic1": Fault("ic1.counts", FaultKind.STUCK),
    "count-path-ic2": Fault("ic2.counts", FaultKind.DEAD),
    "leakage-ic1": Fault("ic1.leakage", FaultKind.SET, 9.0),
    "leakage-ic2": Fault("ic2.leakage", FaultKind.SET, 9.0),
    "voltage-ic1": Fault("ic1.hv", FaultKind.SCALE, 0.97),
    "voltage-step-ic2": Fault("ic2.hv", FaultKind.STUCK),
    "scan-zero-x": Fault("scan_x.readback", FaultKind.OFFSET, 3.0),
    "scan-step-y": Fault("scan_y.current", FaultKind.SCALE, 0.5),
    "probe-zero-y": Fault("scan_y.probe", FaultKind.OFFSET, 0.05),
    "stopper": Fault("stopper.in", FaultKind.SET, 0.0),
}


@pytest.mark.parametrize("test", FAULTS)
def test_a_failed_device_fails_its_test_and_there_is_no_permit(test: str) -> None:
    world = world_of("wuwei", FAULTS[test])
    with pytest.raises(IonctlError) as failed:
        world.run(nothing)
    assert f"({test}):" in str(failed.value)
    assert "limit" in str(failed.value)
    snapshot = world.controller.snapshot()
    assert test in [row["id"] for row in snapshot.proofs if not row["valid"]]
    assert not snapshot.permit
    assert next(view for view in snapshot.rules if view.rule.id == "proof-tests").present
    assert world.plant.truth_total_ions == 0.0


def fails_as_it_runs(world: World, test: str, fault: Fault) -> str:
    """Run all tests, with the fault once they have begun; what is said."""

    async def work(parts: WorldParts) -> None:
        proving = asyncio.create_task(parts.operator.prove([row["id"] for row in parts.operator.proofs()]))
        await parts.operator.until(lambda: world.controller.snapshot().proofs_running, 1.0, "proof tests")
        world.plant.inject(fault)
        await proving

    with pytest.raises(IonctlError) as failed:
        world.run(work)
    assert test in [row["id"] for row in world.controller.snapshot().proofs if not row["valid"]]
    assert world.plant.truth_total_ions == 0.0
    return str(failed.value)


@pytest.mark.parametrize("test", TRIPS)
def test_a_device_that_fails_under_test_fails_it_and_the_loop_and_none_begins_while_it_is_failed(test: str) -> None:
    said = fails_as_it_runs(world_of(), test, TRIPS[test])
    assert f"({test}):" in said
    assert "(permit-loop-drop): no value" in said, "the lines are not raised when something has tripped"
    world = world_of("wuwei", TRIPS[test])
    with pytest.raises(IonctlError, match=r"when nothing has tripped: .* does not obey"):
        world.run(nothing)
    assert not world.controller.snapshot().permit
    assert world.plant.truth_total_ions == 0.0


def test_chopper_of_a_facility_that_has_one() -> None:
    assert "(beam-off-chopper):" in fails_as_it_runs(
        world_of("pimms"), "beam-off-chopper", Fault("chopper.open", FaultKind.SET, 1.0)
    )


def test_a_delivery_whose_tests_fail_ends_before_beam_and_names_test_value_and_limit() -> None:
    found = facility()
    plan = compile_program(make_small_plan(found, "carbon"), found, "1", qa=True)
    options = WorldOptions(load_program=lambda *_: plan, allow_faults=True, mode=Mode.QA)
    world = World(found, "1", "carbon", 1, options)
    world.plant.inject(Fault("ic2.gain", FaultKind.SCALE, 0.9))
    with pytest.raises(IonctlError) as failed:
        deliver_in(world, plan)
    assert "Charge injection, chamber 2 (charge-ic2): 0.8947, limit 0.97 to 1.03" in str(failed.value)
    assert world.plant.truth_total_ions == 0.0


def test_a_mended_device_passes_again_and_one_test_can_be_run_alone() -> None:
    world = world_of("wuwei")

    async def work(parts: WorldParts) -> None:
        world.plant.inject(Fault("ic1.injector", FaultKind.SCALE, 0.5))
        with pytest.raises(IonctlError, match="charge-ic1"):
            await parts.operator.prove(["charge-ic1"])
        with pytest.raises(IonctlError, match="Proof tests"):
            await parts.operator.reset()
        world.plant.clear_faults()
        await asyncio.sleep(0.3)  # facility time: what failed is shown
        await parts.operator.prove()
        await parts.operator.reset()
        await parts.operator.until(lambda: parts.operator.permit, 1.0, "permit")
        with pytest.raises(IonctlError, match="without a permit"):
            await parts.operator.prove(["charge-ic1"])

    world.run(work)
