"""A trip that comes and is reset while control is about to command beam needs a new START; by truth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from channels.command import CommandResult
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from control.session import SessionSummary
from facility.config import load_facility
from facility.errors import CommandRefused
from facility.states import FrontEndState
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from rig.processes.plant import first_epoch
from rig.truth_check import judge_truth
from rig.virtual_world import World, WorldOptions, WorldParts

MS = 1_000_000
FACILITY = load_facility("wuwei")
PROGRAM = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, next(iter(FACILITY.rooms)), qa=True)
BEAM_S = 1.5
"""After an arm or a resume there is beam within so long, where nothing stands against it."""
PAUSE, ABORT = "intercom.ok", "scan.ok"
"""Devices whose failure is a PAUSE, an ABORT."""


def world() -> World:
    return World(
        FACILITY, PROGRAM.room_id, "carbon", 1,
        WorldOptions(mode=Mode.QA, load_program=lambda *_: PROGRAM, allow_faults=True),
    )  # fmt: skip


class Gap:
    """Control stands still between its last check and `verb`; a device fails, is mended, somebody resets."""

    def __init__(self, made: World, parts: WorldParts, verb: str, device: str | None, *, stops: bool) -> None:
        self._made = made
        self._parts = parts
        self._verb = verb
        self._device = device
        self._stops = stops
        self._link = parts.control.sequencer._link
        self._command = self._link.command
        self.refusal = ""
        self.sent = asyncio.Event()
        """The command has been given, and answered."""
        self.ions_before = 0.0
        self._link.command = self._late  # type: ignore[method-assign]

    async def _late(self, group: str, verb: str, args: Mapping[str, Any]) -> CommandResult:
        if verb != self._verb or self.sent.is_set():
            return await self._command(group, verb, args)
        if self._device is not None:
            await self._trip_and_reset(self._device)
        self.ions_before = self._made.plant.truth_total_ions
        try:
            return await self._command(group, verb, args)
        except CommandRefused as refusal:
            self.refusal = refusal.code
            raise
        finally:
            self.sent.set()
            if self._stops:
                await asyncio.Event().wait()

    async def _trip_and_reset(self, device: str) -> None:
        plant = self._made.plant
        plant.inject(Fault(device, FaultKind.SET, 0.0))
        await self._until(lambda: not plant.status.permit)
        plant.clear_faults()
        async with asyncio.timeout(1.0):
            while True:
                try:
                    await self._parts.operator.reset()
                    break
                except CommandRefused:
                    await asyncio.sleep(0.001)
        await self._until(lambda: plant.status.permit)

    async def _until(self, met: Any) -> None:
        async with asyncio.timeout(1.0):
            while not met():  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.001)


async def started(parts: WorldParts) -> None:
    operator = parts.operator
    await operator.reset()
    await operator.load("plan", PROGRAM.room_id, True)
    await operator.prepare()
    await operator.start()


async def to_a_pause(made: World, parts: WorldParts) -> None:
    """Beam, then an operator's pause in the middle of the layer."""
    await started(parts)
    async with asyncio.timeout(5.0):
        while made.plant.truth_total_ions == 0.0:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
    await parts.operator.ask("TCS", "pause")
    await parts.operator.until(lambda: made.plant.status.state is FrontEndState.PAUSED, 1.0, "PAUSED")
    await asyncio.sleep(0.1)


async def gap_before(made: World, parts: WorldParts, verb: str, device: str | None, *, stops: bool) -> Gap:
    """Deliver, or go on after a pause, until the command has been given."""
    if verb == "resume":
        await to_a_pause(made, parts)
    gap = Gap(made, parts, verb, device, stops=stops)
    if verb == "resume":
        await parts.operator.ask("TCS", "resume")
    else:
        await started(parts)
    await gap.sent.wait()
    return gap


def ions_in_the_gap(verb: str, device: str | None) -> tuple[float, str]:
    """Ions after the command, by truth, and what it was refused with. Control does nothing more after the command."""
    made = world()

    async def work(parts: WorldParts) -> tuple[float, str]:
        gap = await gap_before(made, parts, verb, device, stops=True)
        await asyncio.sleep(BEAM_S)
        return made.plant.truth_total_ions - gap.ions_before, gap.refusal

    return made.run(work)


@pytest.mark.parametrize("verb", ["arm", "resume"])
def test_without_a_trip_the_command_brings_beam(verb: str) -> None:
    ions, refusal = ions_in_the_gap(verb, None)
    assert refusal == ""
    assert ions > 1e5


@pytest.mark.parametrize(("verb", "device"), [("arm", PAUSE), ("arm", ABORT), ("resume", PAUSE)])
def test_a_trip_reset_before_the_command_leaves_no_beam(verb: str, device: str) -> None:
    ions, refusal = ions_in_the_gap(verb, device)
    assert (ions, refusal) == (0.0, "fe.epoch")


@pytest.mark.parametrize("verb", ["arm", "resume"])
def test_a_new_start_goes_on_at_the_exact_remainder(verb: str) -> None:
    made = world()

    async def work(parts: WorldParts) -> SessionSummary:
        await gap_before(made, parts, verb, PAUSE, stops=False)
        await asyncio.sleep(0.1)
        sequencer = parts.control.sequencer
        assert (await sequencer.recorded(5.0)).status == "interrupted"
        await parts.operator.ask("TCS", "resume")
        await sequencer.until({sequencer.state.COMPLETED}, 600.0)
        return await sequencer.recorded(5.0)

    summary = made.run(work)
    truth = judge_truth(PROGRAM.layers, made.plant.truth_spots())
    assert summary.status == "completed"
    assert truth.within_tolerance
    assert abs(truth.total_error_pct) < 0.5


def test_what_was_granted_to_a_plant_that_has_gone_is_not_taken_by_the_next() -> None:
    """A layer is loaded and the permit stands, as often changed as before; control remembers another plant's."""
    made = world()
    epochs = [first_epoch(1_800_000_000_000_000_000 + ns) for ns in (0, 999_999_999, 1_000_000_000, 3 * 10**9)]
    assert epochs == sorted(epochs)
    assert epochs[-1] + 2**20 < 2**53, "whole in a float64, and as an argument of a command"

    async def work(parts: WorldParts) -> str:
        await parts.operator.reset()
        await parts.operator.load("plan", PROGRAM.room_id, True)
        await parts.operator.prepare()
        plant = made.plant
        before = plant.status.permit_epoch
        plant._state[0].permit_epoch += epochs[-1]
        gap = Gap(made, parts, "arm", None, stops=True)
        parts.control.sequencer._link.fe = replace(parts.control.sequencer._link.fe, permit_epoch=before)  # type: ignore[type-var]
        await parts.operator.start()
        await gap.sent.wait()
        return gap.refusal

    assert made.run(work) == "fe.epoch"
    assert made.plant.truth_total_ions == 0.0


def test_a_plant_counts_its_permits_from_where_it_is_told() -> None:
    plant = Plant(FACILITY, PROGRAM.room_id, "carbon", seed=1, first_epoch=7)
    assert plant.status.permit_epoch == 7
    plant.set_safety_lines(True, False, True)
    plant.advance(2 * MS)
    assert plant.status.permit_epoch == 8
    assert Plant(FACILITY, PROGRAM.room_id, "carbon", seed=1).status.permit_epoch == 0


def test_lines_that_fall_and_rise_between_two_ticks_are_a_lost_permit() -> None:
    made = world()

    async def work(parts: WorldParts) -> tuple[int, int, bool]:
        await parts.operator.reset()
        await asyncio.sleep(0.05)
        plant = made.plant
        before = plant.status.permit_epoch
        plant.set_safety_lines(False, True, True, personnel=True)
        plant.set_safety_lines(True, False, True, personnel=True)
        await asyncio.sleep(0.01)
        return before, plant.status.permit_epoch, plant.status.permit

    before, after, permit = made.run(work)
    assert (after - before, permit) == (2, True)
