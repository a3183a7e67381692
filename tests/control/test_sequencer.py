"""The sequencer against a scripted machine, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from channels.protocol import LinkState
from control.layer_machine import State
from control.machine_status import Dose
from control.observer import UNNAMED, Observer
from control.session import SessionSummary
from control.stages import SequencerLimits
from facility.errors import CommandRefused
from facility.states import Action, FrontEndState, HoldReason
from rig.virtual_time import VirtualLoop, run_virtual
from tests.control.fakes import Bench, FakeProgram, bench, program

ENDED = {State.COMPLETED, State.INTERRUPTED, State.TERMINATED}


def run(test: Callable[[Bench], Awaitable[None]], **options: object) -> Bench:
    """Run `test` on a bench whose sequencer lives as long as the test."""
    loop = VirtualLoop(limit_ns=3_600_000_000_000)
    kept: list[Bench] = []

    async def main() -> None:
        made = await bench(loop, **options)  # type: ignore[arg-type]
        kept.append(made)
        async with made.sequencer:
            await test(made)

    run_virtual(main(), loop)
    return kept[0]


async def started(b: Bench, plan: FakeProgram | None = None) -> None:
    """Load, prepare, start."""
    await b.sequencer.load(plan or program(), mode="qa", operator="test")
    await b.sequencer.prepare()
    await b.sequencer.until({State.READY}, 30.0)
    await b.sequencer.start("test")


async def delivered(b: Bench, plan: FakeProgram | None = None) -> SessionSummary:
    await started(b, plan)
    return await b.sequencer.recorded(300.0)


@pytest.mark.parametrize("after_s", [0.0, 0.0012, 0.0024])
def test_who_asks_for_the_dose_register_as_a_layer_ends_does_not_spoil_the_layer_s_own(after_s: float) -> None:
    """Both are read by one PV, and another session may be closed while one is delivered."""
    asked: list[asyncio.Task[Dose | None]] = []

    async def test(b: Bench) -> None:
        b.machine.dose = {"token": 1, "field": 1, "plan_hash": "", "table_crc32": 0, "spot": -1, "uncertain_ions": 0.0,
                          "seq": 1, "n": 20}  # fmt: skip
        ends = b.machine._layer_done

        async def ask() -> Dose | None:
            await asyncio.sleep(after_s)
            return await b.link.read_dose(0)

        def done() -> None:
            ends()
            asked.append(asyncio.ensure_future(ask()))

        b.machine._layer_done = done  # type: ignore[method-assign]
        assert (await delivered(b)).status == "completed"
        doses = await asyncio.gather(*asked)
        assert len(doses) == 3
        assert all(dose is not None and not dose.rows.any() for dose in doses)

    run(test)


def test_delivers_every_layer_and_verifies_it() -> None:
    plan = program(layers=4)

    async def test(b: Bench) -> None:
        summary = await delivered(b, plan)
        assert b.sequencer.state is State.COMPLETED
        assert (summary.status, summary.spots_done, len(summary.layers)) == ("completed", 80, 4)
        assert summary.ic1_ions == pytest.approx(summary.prescribed_ions)
        assert all(layer.verified and layer.loads == 1 for layer in summary.layers)
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


def test_the_next_cycle_is_asked_for_while_the_present_layer_runs() -> None:
    async def test(b: Bench) -> None:
        await delivered(b, program(layers=3))

    assert run(test).machine.log == [
        "open_field", "request_cycle 1001", "table", "load_layer 1001", "arm 1001",
        "request_cycle 1002", "table",
        "load_layer 1002", "arm 1002",
        "request_cycle 1003", "table",
        "load_layer 1003", "arm 1003",
        "end_cycle",
    ]  # fmt: skip


def test_a_register_older_than_the_end_of_its_layer_is_asked_for() -> None:
    async def test(b: Bench) -> None:
        b.machine.tells_register = False
        summary = await delivered(b, program(layers=3))
        assert summary.status == "completed"
        assert b.machine.log.count("read_register") == 3

    run(test)


def test_time_between_layers_is_hidden_behind_the_cycle() -> None:
    """From the end of a layer to the next one armed: at most 50 ms, so the ring waits for nobody."""

    async def test(b: Bench) -> None:
        done: list[int] = []
        armed: list[int] = []
        b.sequencer.listeners.append(
            lambda topic, data: done.append(data["t_ns"]) if data.get("event") == "LAYER_DONE" else None
        )
        b.sequencer.listeners.append(
            lambda topic, data: armed.append(data["t_ns"]) if data.get("event") == "ARMED_OK" else None
        )
        summary = await delivered(b, program(layers=5))
        gaps_ms = [(a - d) * 1e-6 for d, a in zip(done[:-1], armed[1:], strict=True)]
        assert max(gaps_ms) < 50.0
        # 5 layers: 5 x (1 s to the flat top + 0.2 s beam + 0.3 s) less the last ramp-down, and little else
        assert summary.facility_s < 5 * 1.5 - 0.3 + 0.05

    run(test)


def test_a_layer_over_several_flat_tops_needs_no_help() -> None:
    async def test(b: Bench) -> None:
        summary = await delivered(b, program(layers=2, spots=20, ions=4e6))  # 8 s of beam a layer, 3 s flat top
        assert summary.status == "completed"
        assert b.machine.log.count("arm 1001") == 1
        assert [topic for topic, data in b.told if data.get("event") == "HOLD"]

    run(test)


def test_a_ring_that_goes_on_too_early_is_called_back() -> None:
    plan = program(layers=3, ions=4e6)

    async def test(b: Bench) -> None:
        b.machine.hasty = True
        summary = await delivered(b, plan)
        assert summary.status == "completed"
        assert [event.kind for event in b.events.events].count("ring.strayed") >= 2
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


def test_range_shifters_move_before_the_layer_that_wants_them() -> None:
    async def test(b: Bench) -> None:
        summary = await delivered(b, program(layers=3, shifters=(1, 1, 2)))
        assert summary.status == "completed"
        assert b.machine.log[0] == "insert"
        assert b.machine.log.count("insert") == 2
        assert b.machine.log.index("insert", 1) < b.machine.log.index("load_layer 1003")

    run(test)


@pytest.mark.parametrize(
    ("verb", "reason"), [("request_cycle", "quench"), ("load_layer", "memory"), ("arm", "key"), ("insert", "stuck")]
)
def test_a_refused_command_interrupts_or_is_said_at_once(verb: str, reason: str) -> None:
    async def test(b: Bench) -> None:
        b.machine.refuse[verb] = reason
        if verb == "insert":
            await b.sequencer.load(program(shifters=(1,)), mode="qa", operator="test")
            await b.sequencer.prepare()
            await b.sequencer.until({State.LOADED}, 5.0)
            await asyncio.sleep(1.0)
            assert b.sequencer.state is State.LOADED
            assert b.sequencer.session is not None
            assert reason in b.sequencer.session.reason
            return
        summary = await delivered(b)
        assert (summary.status, summary.ic1_ions) == ("interrupted", 0.0)
        assert reason in summary.reason

    run(test)


@pytest.mark.parametrize("told_s", [0.3, 5.0])
def test_the_front_end_may_hear_of_the_field_after_the_operator_has_been_answered(told_s: float) -> None:
    async def test(b: Bench) -> None:
        b.machine.field_told_s = b.loop.time() + told_s
        await b.sequencer.load(program(), mode="qa", operator="test")
        await b.sequencer.prepare()
        await asyncio.sleep(1.5)
        assert (b.sequencer.state is State.READY) is (told_s < 1.0)
        assert b.machine.log.count("open_field") > 1

    run(test)


def test_a_command_without_answer_is_a_named_timeout() -> None:
    async def test(b: Bench) -> None:
        b.machine.mute.add("load_layer")
        summary = await delivered(b)
        assert summary.status == "interrupted"
        assert "timeout.command" in summary.reason
        assert "load_layer" in summary.reason

    run(test)


def test_a_refused_prefetch_costs_time_only() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({State.ARMED}, 10.0)
        b.machine.refuse["request_cycle"] = "not now"
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.refuse.clear()
        summary = await b.sequencer.recorded(100.0)
        assert summary.status == "completed"
        assert any(event.kind == "prefetch.failed" for event in b.events.events)

    run(test)


@pytest.mark.parametrize("heart", ["SAFE:Heartbeat-RB", "PLANT:Heartbeat-RB"])
def test_a_heart_that_stands_still_interrupts(heart: str) -> None:
    async def test(b: Bench) -> None:
        await started(b, program(layers=2, ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        stuck = b.machine.channels[heart]
        stuck.publish = lambda _value: stuck._arrive(stuck.latest().value, 0)  # type: ignore[method-assign]
        t0 = b.loop.time()
        summary = await b.sequencer.recorded(10.0)
        assert b.loop.time() - t0 < 1.6
        assert summary.status == "interrupted"
        assert heart in summary.reason
        assert b.machine.state is FrontEndState.PAUSED
        with pytest.raises(CommandRefused, match="stands still"):
            await b.sequencer.resume("test")

    run(test)


def test_a_lost_connection_interrupts_at_once() -> None:
    async def test(b: Bench) -> None:
        await started(b, program(layers=2, ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.channels["SAFE:Permit-Sts"].set_state(LinkState.DISCONNECTED)
        summary = await b.sequencer.recorded(1.0)
        assert summary.status == "interrupted"
        assert "SAFE:Permit-Sts is disconnected" in summary.reason
        b.machine.channels["SAFE:Permit-Sts"].set_state(LinkState.CONNECTED)
        await b.sequencer.resume("test")
        assert (await b.sequencer.recorded(60.0)).status == "completed"

    run(test)


def test_pause_and_resume_by_the_operator_lose_nothing() -> None:
    plan = program(layers=2, ions=1e6)

    async def test(b: Bench) -> None:
        await started(b, plan)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        await asyncio.sleep(0.77)
        await b.sequencer.pause()
        summary = await b.sequencer.recorded(5.0)
        assert summary.reason == "paused by the operator"
        assert summary.ic1_ions == pytest.approx(float(b.machine.delivered(1001).sum()))
        assert 7e6 < summary.ic1_ions < 8.5e6
        assert b.sequencer.progress()["ions_done"] == pytest.approx(summary.ic1_ions)
        assert b.machine.state is FrontEndState.PAUSED
        await asyncio.sleep(30.0)
        await b.sequencer.resume("test")
        summary = await b.sequencer.recorded(60.0)
        assert summary.status == "completed"
        assert b.machine.log.count("load_layer 1001") == 1
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


@pytest.mark.parametrize("moment_ms", range(0, 2600, 130))
def test_a_pause_at_any_moment_ends_in_the_exact_dose(moment_ms: int) -> None:
    plan = program(layers=3)

    async def test(b: Bench) -> None:
        await started(b, plan)
        await asyncio.sleep(moment_ms * 1e-3 + 0.0007)
        await b.sequencer.pause()
        await b.sequencer.recorded(5.0)
        await asyncio.sleep(2.0)
        await b.sequencer.resume("test")
        assert (await b.sequencer.recorded(60.0)).status == "completed"
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


@pytest.mark.parametrize("moment_ms", range(0, 3600, 170))
def test_an_abort_at_any_moment_and_a_new_start_end_in_the_exact_dose(moment_ms: int) -> None:
    plan = program(layers=3)

    async def test(b: Bench) -> None:
        await started(b, plan)
        await asyncio.sleep(moment_ms * 1e-3 + 0.0007)
        active = {FrontEndState.ARMED, FrontEndState.IRRADIATING, FrontEndState.HELD}
        b.machine.trip("door", Action.ABORT, FrontEndState.ABORTED if b.machine.state in active else b.machine.state)
        assert (await b.sequencer.recorded(5.0)).status == "terminated"
        b.machine.reset()
        await asyncio.sleep(2.0)
        await b.sequencer.prepare()
        await b.sequencer.until({State.READY}, 10.0)
        await b.sequencer.start("test")
        summary = await b.sequencer.recorded(60.0)
        assert (summary.status, summary.spots_done) == ("completed", 60)
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


def test_a_pausing_rule_waits_for_reset_and_for_the_operator() -> None:
    plan = program(layers=2, ions=1e6)

    async def test(b: Bench) -> None:
        await started(b, plan)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.trip("dose-rate-low", Action.PAUSE, FrontEndState.PAUSED)
        summary = await b.sequencer.recorded(5.0)
        assert (summary.status, summary.reason) == ("interrupted", "dose-rate-low")
        assert [(i.rule, i.action, i.detail) for i in summary.interlocks] == [
            ("dose-rate-low", "PAUSE", {"id": "dose-rate-low", "value": 3.5})
        ]
        with pytest.raises(CommandRefused, match="dose-rate-low"):
            await b.sequencer.resume("test")
        b.machine.reset()
        await asyncio.sleep(20.0)
        assert b.sequencer.state is State.INTERRUPTED  # reset alone starts nothing
        assert b.machine.state is FrontEndState.PAUSED
        await b.sequencer.resume("test")
        assert (await b.sequencer.recorded(60.0)).status == "completed"
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


def test_an_aborting_rule_terminates_and_only_a_new_start_goes_on() -> None:
    plan = program(layers=3, ions=1e6)

    async def test(b: Bench) -> None:
        await started(b, plan)
        await b.sequencer.until({State.VERIFY_LAYER}, 20.0)
        await b.sequencer.until({State.IRRADIATING}, 20.0)
        await asyncio.sleep(0.9)
        b.machine.trip("chamber-mismatch", Action.ABORT, FrontEndState.ABORTED)
        summary = await b.sequencer.recorded(5.0)
        assert (summary.status, summary.reason) == ("terminated", "chamber-mismatch")
        assert [(layer.verified, layer.spots_done) for layer in summary.layers] == [(True, 20), (False, 9)]
        for ask in (lambda: b.sequencer.resume("test"), lambda: b.sequencer.start("test"), b.sequencer.pause):
            with pytest.raises(CommandRefused, match="TERMINATED"):
                await ask()
        b.machine.reset()
        await asyncio.sleep(10.0)
        assert b.sequencer.state is State.TERMINATED
        await b.sequencer.prepare()
        await b.sequencer.until({State.READY}, 10.0)
        await asyncio.sleep(5.0)
        assert b.sequencer.state is State.READY
        await b.sequencer.start("test")
        await b.sequencer.until({State.IRRADIATING}, 20.0)
        await asyncio.sleep(0.35)
        await b.sequencer.pause()
        paused = await b.sequencer.recorded(5.0)
        assert 32 <= paused.spots_done <= 33
        progress = b.sequencer.progress()
        assert progress["spots_done"] == paused.spots_done, "of the load before, too"
        assert progress["ions_done"] == pytest.approx(paused.ic1_ions)
        await b.sequencer.resume("test")
        summary = await b.sequencer.recorded(60.0)
        assert summary.status == "completed"
        assert [layer.loads for layer in summary.layers] == [1, 2, 1]
        assert summary.ic1_ions == pytest.approx(summary.prescribed_ions)
        assert [i.action for i in summary.interlocks] == ["ABORT"]
        for layer in plan.layers:
            np.testing.assert_allclose(b.machine.delivered(layer.token), layer.target_ions)

    run(test)


def test_an_abort_seen_first_as_a_pause_terminates() -> None:
    async def test(b: Bench) -> None:
        await started(b, program(layers=2, ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.trip("door", Action.NONE, FrontEndState.PAUSED)
        await b.sequencer.until({State.INTERRUPTED}, 5.0)
        b.machine.channels["SAFE:Action-Sts"].publish(int(Action.ABORT))
        await b.sequencer.until({State.TERMINATED}, 5.0)
        summary = await b.sequencer.recorded(5.0)
        assert (summary.status, summary.reason) == ("terminated", "door")
        assert [(i.rule, i.action) for i in summary.interlocks] == [("door", "ABORT")]

    run(test)


def test_a_trip_whose_name_comes_late_is_nowhere_on_record_as_unknown() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.trip("late", Action.PAUSE, FrontEndState.PAUSED, name_after_s=0.05)
        summary = await b.sequencer.recorded(2.0)
        assert (summary.status, summary.reason) == ("interrupted", "late")
        assert summary.messages[-2:] == (UNNAMED, "PAUSE by late")
        assert b"unknown rule" not in b.events.to_bytes()

    run(test)


def test_a_trip_without_a_name_is_not_waited_for_long() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.trip("late", Action.ABORT, FrontEndState.ABORTED, name_after_s=60.0)
        summary = await b.sequencer.recorded(2.0)
        assert (summary.status, summary.reason) == ("terminated", "unknown rule")

    run(test)


def test_stop_by_the_operator_accounts_for_what_was_given() -> None:
    async def test(b: Bench) -> None:
        await started(b, program(layers=2, ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        await asyncio.sleep(0.5)
        await b.sequencer.stop()
        summary = await b.sequencer.recorded(5.0)
        assert (summary.status, summary.reason) == ("terminated", "stopped by the operator")
        assert summary.ic1_ions == pytest.approx(float(b.machine.delivered(1001).sum()))
        assert 4e6 < summary.ic1_ions < 6e6
        await b.sequencer.close()
        await b.sequencer.until({State.STANDBY}, 1.0)
        assert b.sequencer.session is None

    run(test)


def test_stop_is_accepted_without_a_session_and_reaches_the_front_end() -> None:
    async def test(b: Bench) -> None:
        await b.sequencer.stop()
        assert b.sequencer.state is State.STANDBY
        b.machine._set_fe(FrontEndState.ARMED)  # by somebody else
        await asyncio.sleep(0.1)
        await b.sequencer.stop()
        assert b.machine.state not in (FrontEndState.ARMED, FrontEndState.IRRADIATING)
        assert b.sequencer.state is State.STANDBY

    run(test)


def spoil_sum(rows: np.ndarray) -> None:
    rows[:, 3] *= 1.02


def spoil_second(rows: np.ndarray) -> None:
    rows[:, 4] *= 0.9


def spoil_target(rows: np.ndarray) -> None:
    rows[3, 1] += 1.0


def spoil_done(rows: np.ndarray) -> None:
    rows[7, 9] = 0.0


def spoil_nan(rows: np.ndarray) -> None:
    rows[7, 3] = np.nan


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_sum, "chamber 1 counted"),
        (spoil_second, "chamber 2 counted"),
        (spoil_target, "not that of the layer"),
        (spoil_done, "1 of 20 spots are not done"),
        (spoil_nan, "no numbers"),
    ],
)
def test_a_register_that_does_not_agree_terminates(spoil: Callable[[np.ndarray], None], words: str) -> None:
    async def test(b: Bench) -> None:
        b.machine.spoil = spoil
        summary = await delivered(b, program(layers=2, ions=1e6))
        assert summary.status == "terminated"
        assert words in summary.reason
        assert "arm 1002" not in b.machine.log

    run(test)


def test_the_wrong_room_is_not_prepared() -> None:
    async def test(b: Bench) -> None:
        b.machine.channels["HEBT:Room-RB"].publish("V")
        await asyncio.sleep(0.1)
        await b.sequencer.load(program(), mode="qa", operator="test")
        await b.sequencer.prepare()
        await asyncio.sleep(1.0)
        assert b.sequencer.state is State.LOADED
        assert any("room V" in str(data) for topic, data in b.told if topic == "message")

    run(test)


def test_no_ready_without_permit() -> None:
    async def test(b: Bench) -> None:
        b.machine.channels["SAFE:Action-Sts"].publish(int(Action.INHIBIT))
        await b.sequencer.load(program(), mode="qa", operator="test")
        await b.sequencer.prepare()
        await b.sequencer.until({State.PREPARED}, 5.0)
        await asyncio.sleep(1.0)
        assert b.sequencer.state is State.PREPARED
        with pytest.raises(CommandRefused, match="START is not possible in PREPARED"):
            await b.sequencer.start("test")
        b.machine.channels["SAFE:Action-Sts"].publish(int(Action.NONE))
        await b.sequencer.until({State.READY}, 1.0)

    run(test)


def test_a_ring_that_never_comes_is_a_named_timeout() -> None:
    async def test(b: Bench) -> None:
        b.machine.cycle_s = 1e3
        summary = await delivered(b)
        assert summary.status == "interrupted"
        assert summary.reason.startswith("timeout.armed")

    run(test, limits=SequencerLimits(progress_s=20.0))


def test_beam_that_nobody_asked_for_is_stopped() -> None:
    async def test(b: Bench) -> None:
        await b.sequencer.load(program(), mode="qa", operator="test")
        b.machine._set_fe(FrontEndState.IRRADIATING)
        summary = await b.sequencer.recorded(5.0)
        assert summary.status == "terminated"
        assert "disarm" in b.machine.log

    run(test)


def test_two_runs_are_the_same_byte_for_byte() -> None:
    def once() -> bytes:
        async def test(b: Bench) -> None:
            await delivered(b)

        return run(test).events.to_bytes()

    assert once() == once()


def test_a_second_program_replaces_one_that_was_not_started() -> None:
    async def test(b: Bench) -> None:
        first = await b.sequencer.load(program(), mode="qa", operator="test")
        second = await b.sequencer.load(program(layers=1), mode="qa", operator="test")
        assert first != second
        await b.sequencer.prepare()
        await b.sequencer.until({State.READY}, 5.0)
        await b.sequencer.start("test")
        summary = await b.sequencer.recorded(60.0)
        assert (summary.session, summary.mode, summary.layers_total) == (second, "qa", 1)
        assert b.sequencer.progress()["spots_done"] == 20

    run(test)


@pytest.mark.parametrize("left", [FrontEndState.ARMED, FrontEndState.HELD])
def test_a_front_end_that_was_not_paused_is_paused_when_the_link_returns(left: FrontEndState) -> None:
    """The pause was lost with the link: a front end that would go on by itself must not wait for its chance."""

    async def test(b: Bench) -> None:
        await started(b, program(layers=2, ions=1e6))
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        b.machine.channels["SAFE:Permit-Sts"].set_state(LinkState.DISCONNECTED)
        await b.sequencer.recorded(1.0)
        b.machine._set_fe(left)  # as if no pause had come
        await asyncio.sleep(2.0)
        assert b.machine.state is left
        b.machine.channels["SAFE:Permit-Sts"].set_state(LinkState.CONNECTED)
        await asyncio.sleep(1.5)
        assert b.machine.state is FrontEndState.PAUSED
        assert b.sequencer.state is State.INTERRUPTED

    run(test)


@pytest.mark.parametrize(("action", "end"), [(Action.ABORT, State.TERMINATED), (Action.PAUSE, State.INTERRUPTED)])
def test_a_trip_that_was_reset_before_control_looked_still_ends_the_delivery(action: Action, end: State) -> None:
    """Between two layers nothing is armed that would remember the trip; a reset alone must not start the next one."""

    async def test(b: Bench) -> None:
        def trip_and_reset(_rows: np.ndarray) -> None:  # while control reads the register
            if "load_layer 1002" not in b.machine.log and not tripped:
                tripped.append(True)
                b.machine.channels["SAFE:Action-Sts"].publish(int(action))
                b.machine.channels["SAFE:Action-Sts"].publish(0)

        tripped: list[bool] = []
        b.machine.spoil = trip_and_reset
        b.machine.tells_register = False  # so that control asks for it
        await started(b, program(layers=2))
        assert await b.sequencer.until(ENDED, 30.0) is end
        assert "arm 1002" not in b.machine.log
        if end is State.INTERRUPTED:
            await b.sequencer.resume("test")
            assert await b.sequencer.until({State.COMPLETED}, 30.0) is State.COMPLETED

    run(test)


def test_a_front_end_that_pauses_by_itself_is_no_unknown_rule() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        known = Observer(b.link, 1.0, fast_rules=("chamber-mismatch",))
        for reason, words in (
            (HoldReason.NO_PERMIT, "the front end itself: permit, range shifter or beam stopper"),
            (HoldReason.HANG, "the front end itself: it did not run for a while"),
            (HoldReason.GATE, "the front end itself"),
        ):
            b.link.fe = dataclasses.replace(b.link.fe, state=FrontEndState.PAUSED, hold_reason=reason, first_rule=-1)
            assert await known.rule_name(0.0) == words

    run(test)


def test_a_trip_that_only_the_front_end_tells_is_named_by_its_place_among_the_fast_rules() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        await b.sequencer.until({State.IRRADIATING}, 10.0)
        known = Observer(b.link, 1.0, fast_rules=("chamber-mismatch", "spot-limit"))
        for place, name in ((1, "spot-limit"), (7, "fast rule 7"), (-1, "unknown rule")):
            b.link.fe = dataclasses.replace(b.link.fe, first_rule=place)
            assert await known.rule_name(0.0) == name

    run(test)
