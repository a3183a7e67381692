"""What a person started counts for the permit that stood then, and for no later one: control's side."""

from __future__ import annotations

import asyncio

import pytest

from control.layer_machine import State
from control.layer_table import LayerRules
from control.procedure import Procedure
from control.session import Session
from control.stage_fault import Preempted
from control.stages import SequencerLimits, Stages
from facility.states import FrontEndState
from tests.control.fakes import Bench, program
from tests.control.test_sequencer import run, started


def lost_for_a_moment(b: Bench) -> None:
    """The permit goes and comes back, and nothing of it arrives at control."""
    b.machine.epoch += 2


@pytest.mark.parametrize("moment", [State.SELECT_ENERGY, State.LOAD_SPOTS])
def test_a_loss_that_control_never_hears_of_needs_a_new_start(moment: State) -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({moment}, 5.0)
        lost_for_a_moment(b)
        summary = await b.sequencer.recorded(30.0)
        assert (summary.status, summary.ic1_ions) == ("interrupted", 0.0)
        assert "permit" in summary.reason
        assert b.machine.state is FrontEndState.LOADED
        b.machine._set_fe(b.machine.state)
        await asyncio.sleep(0.1)
        await b.sequencer.resume("test")
        assert (await b.sequencer.recorded(300.0)).status == "completed"

    run(test)


def test_between_two_layers_too() -> None:
    async def test(b: Bench) -> None:
        await started(b, program(layers=2))
        await b.sequencer.until({State.VERIFY_LAYER}, 30.0)
        lost_for_a_moment(b)
        summary = await b.sequencer.recorded(30.0)
        assert (summary.status, len(summary.layers)) == ("interrupted", 1)

    run(test)


def test_a_resume_counts_from_the_moment_at_which_it_was_asked_for() -> None:
    async def test(b: Bench) -> None:
        await started(b, program(ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 30.0)
        await b.sequencer.pause()
        await b.sequencer.recorded(5.0)
        asked = asyncio.create_task(b.sequencer.resume("test"))
        await asyncio.sleep(0)
        lost_for_a_moment(b)
        b.machine._set_fe(b.machine.state)
        await asked
        summary = await b.sequencer.recorded(5.0)
        assert summary.status == "interrupted"
        assert b.machine.state is FrontEndState.PAUSED
        await b.sequencer.resume("test")
        assert (await b.sequencer.recorded(300.0)).status == "completed"

    run(test)


def test_an_arm_that_was_accepted_and_not_carried_out_is_noticed() -> None:
    async def test(b: Bench) -> None:
        def accepted(token: int, permit_epoch: int) -> None:
            lost_for_a_moment(b)
            b.machine._set_fe(b.machine.state)

        b.machine._arm = accepted  # type: ignore[method-assign]
        await started(b)
        summary = await b.sequencer.recorded(5.0)
        assert summary.status == "interrupted"
        assert "has not armed" in summary.reason

    run(test)


@pytest.mark.parametrize("verb", ["arm", "resume"])
def test_no_command_that_brings_beam_is_given_while_something_more_urgent_waits(verb: str) -> None:
    async def test(b: Bench) -> None:
        link, rules = b.link, LayerRules()
        stages = Stages(link, rules, SequencerLimits(), lambda: True, Procedure(link, rules))
        session = Session("S-1", program(), mode="qa", operator="test", t_ns=0)
        if verb == "resume":
            b.machine._set_fe(FrontEndState.PAUSED)
            await asyncio.sleep(0.1)
        with pytest.raises(Preempted):
            await (stages.arm(session, 0) if verb == "arm" else stages.resume_beam(session))
        assert not [entry for entry in b.machine.log if entry.startswith(verb)]

    run(test)
