"""Tier T in control: what it vouches for, when it stops doing so, and the frames that say it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from channels.keepalive import Beat, KeepAliveMaker, KeepAliveState, check
from channels.keys import derived_private_key
from control.layer_machine import State
from control.procedure import PERIOD_S, Lines, LineSender, seal
from facility.errors import ChannelError, CommandRefused
from rig.virtual_time import VirtualLoop, run_virtual
from tests.control.fakes import Bench, program
from tests.control.test_sequencer import delivered, run, started

GOOD = Lines(True, True, True, True)
KEY = derived_private_key(1, "control")


def alter(b: Bench, **changes: Any) -> None:
    """Change the present layer in memory, behind the sequencer's back."""
    book = b.sequencer.session.book
    book.layer = replace(book.layer, **changes)


def test_lines_make_a_mask() -> None:
    assert GOOD.bits == 0b1111
    assert Lines(True, False, False, True).bits == 0b1001


@pytest.mark.parametrize(
    "change", [{"token": 5}, {"energy_code": 1}, {"intensity_ions_per_s": 2e7}, {"range_shifter_code": 4}]
)
def test_a_seal_covers_what_reaches_the_machine(change: dict[str, Any]) -> None:
    layer = program().layers[0]
    assert seal(layer) == seal(replace(layer))
    assert seal(replace(layer, **change)) != seal(layer)
    more = layer.target_ions.copy()
    more[3] += 1.0
    assert seal(replace(layer, target_ions=more)) != seal(layer)


def on_bench(test: Any, **options: Any) -> None:
    """Run `test` on a bench with a session that waits for START."""
    run(test, **options)


def test_all_is_vouched_for_from_before_a_session_to_after_it() -> None:
    async def test(b: Bench) -> None:
        seen: list[Lines] = []
        b.sequencer.on_turn = lambda: seen.append(b.sequencer.lines(True))
        assert b.sequencer.lines(True) == GOOD
        await delivered(b)
        assert b.sequencer.lines(True) == GOOD
        await b.sequencer.close()
        assert b.sequencer.lines(True) == GOOD
        assert set(seen) == {GOOD}
        assert len(seen) > 20

    on_bench(test)


def test_nothing_is_vouched_for_without_the_task() -> None:
    kept: list[Bench] = []

    async def test(b: Bench) -> None:
        kept.append(b)

    on_bench(test)
    assert kept[0].sequencer.lines(True) == Lines(False, False, False, False)


async def in_beam(b: Bench) -> None:
    await started(b)
    await b.sequencer.until({State.IRRADIATING}, 30.0)


def test_a_program_that_changes_in_memory_is_not_vouched_for() -> None:
    async def test(b: Bench) -> None:
        await in_beam(b)
        layer = b.sequencer.session.book.layer
        alter(b, target_ions=layer.target_ions * 1.5)
        assert b.sequencer.lines(False) == GOOD  # a quick look
        assert b.sequencer.lines(True) == GOOD._replace(plan_ok=False)
        assert b.sequencer.lines(False) == GOOD._replace(plan_ok=False)

    on_bench(test)


def test_a_changed_layer_is_not_armed() -> None:
    async def test(b: Bench) -> None:
        await started(b)
        book = b.sequencer.session.books[1]
        book.layer = replace(book.layer, target_ions=book.layer.target_ions * 1.5)
        summary = await b.sequencer.recorded(300.0)
        assert summary.status == "terminated"
        assert "has changed since it was loaded" in summary.reason
        assert [entry for entry in b.machine.log if entry.startswith("arm")] == ["arm 1001"]

    on_bench(test)


def test_a_table_that_is_not_the_layers_is_not_armed() -> None:
    async def test(b: Bench) -> None:
        await b.sequencer.load(program(), mode="qa", operator="test")
        b.sequencer._procedure.table_loaded = lambda crc32: None
        await b.sequencer.prepare()
        await b.sequencer.until({State.READY}, 30.0)
        await b.sequencer.start("test")
        summary = await b.sequencer.recorded(300.0)
        assert "table is not that of layer 0" in summary.reason
        assert not [entry for entry in b.machine.log if entry.startswith("arm")]

    on_bench(test)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("RS:Code-RB", 2, "range shifters 2"), ("HEBT:Room-RB", "V", "room V"), ("HEBT:Room-RB", "", "room none")],
)
def test_a_readback_that_differs_is_not_vouched_for(name: str, value: Any, said: str) -> None:
    async def test(b: Bench) -> None:
        await in_beam(b)
        channel = b.machine.channels[name]
        before = channel.value
        channel.publish(value)
        await b.sequencer._link.changed(1.0)
        assert b.sequencer.lines(False) == GOOD._replace(setpoints_ok=False)
        assert said in b.sequencer._procedure.readback_fault(b.sequencer.session)
        assert b.sequencer._link.wake.is_set(), "control looks why a line has fallen"
        b.sequencer._link.wake.clear()
        channel.publish(before)
        await b.sequencer._link.changed(1.0)
        assert b.sequencer.lines(False) == GOOD

    on_bench(test)


def test_the_rings_energy_is_read_back() -> None:
    async def test(b: Bench) -> None:
        await in_beam(b)
        b.machine.ring_code += 1
        b.machine.channels["RING:Status-RB"].publish(b.machine._ring_values())
        await b.sequencer._link.changed(1.0)
        assert not b.sequencer.lines(False).setpoints_ok
        assert "energy code" in b.sequencer._procedure.readback_fault(b.sequencer.session)

    on_bench(test)


def test_a_layer_of_nobody_is_not_vouched_for() -> None:
    async def test(b: Bench) -> None:
        procedure, link = b.sequencer._procedure, b.sequencer._link
        await in_beam(b)
        session = b.sequencer.session
        assert procedure.lines(State.STANDBY, None, whole=False) == Lines(True, True, False, False)
        link.fe = replace(link.fe, token=77)
        assert procedure.lines(State.IRRADIATING, session, whole=False) == GOOD._replace(session_ok=False)
        assert procedure.readback_fault(session) == "the front end holds another layer"
        link.fe = None
        assert not procedure.lines(State.IRRADIATING, session, whole=False).session_ok
        assert procedure.lines(State.STANDBY, None, whole=False) == Lines(True, True, False, False)

    on_bench(test)


def test_who_started_is_on_record_until_it_ends() -> None:
    async def test(b: Bench) -> None:
        await in_beam(b)
        session = b.sequencer.session
        assert session.authorised_by == "test"
        session.authorised_by = ""
        assert b.sequencer.lines(False) == GOOD._replace(authorised=False)
        assert b.sequencer._procedure.before_beam(session) == "nobody has started this delivery"
        session.authorised_by = "test"
        await b.sequencer.pause()
        await b.sequencer.recorded(30.0)
        assert (session.authorised_by, b.sequencer.lines(True)) == ("", GOOD)
        await b.sequencer.resume("other")
        assert session.authorised_by == "other"

    on_bench(test)


def test_a_plan_that_was_not_approved_is_not_loaded() -> None:
    async def test(b: Bench) -> None:
        with pytest.raises(CommandRefused, match="approved was"):
            await b.sequencer.load(program(), mode="qa", operator="test", approved_hash="ef" * 32)
        assert b.sequencer.state is State.STANDBY
        await b.sequencer.load(program(), mode="qa", operator="test", approved_hash=program().plan_hash)
        b.sequencer._procedure._hash = "ef" * 32
        assert not b.sequencer.lines(True).plan_ok

    on_bench(test)


def test_a_program_of_another_configuration_is_not_vouched_for() -> None:
    async def test(b: Bench) -> None:
        await b.sequencer.load(program(), mode="qa", operator="test")
        b.sequencer._procedure._facility_hash = "other"
        assert not b.sequencer.lines(True).plan_ok
        b.sequencer._procedure._facility_hash = program().facility_hash
        assert b.sequencer.lines(True).plan_ok

    on_bench(test)


def test_frames_come_each_period_and_at_once_when_a_line_changes() -> None:
    loop = VirtualLoop(limit_ns=60_000_000_000)
    lines = [GOOD]
    sent: list[tuple[float, Beat]] = []
    state = [KeepAliveState("control", KEY.public_key(), 10**10, 0, lines=True)]
    failing = [False]

    async def put(frame: bytes) -> None:
        if failing[0]:
            raise ChannelError("channel.timeout", "no answer")
        state[0], outcome = check(state[0], frame, loop.now_ns())
        assert isinstance(outcome, Beat)
        assert json.loads(frame)["bits"] == outcome.bits
        sent.append((loop.time(), outcome))

    async def main() -> None:
        maker = KeepAliveMaker("control", 1, KEY, loop)
        async with LineSender(put, maker, lambda whole: lines[0]) as sender:
            assert sent[0][1].bits == 0b1111
            await asyncio.sleep(3.2 * PERIOD_S)
            assert [round(t / PERIOD_S) for t, _ in sent] == [0, 1, 2, 3]
            sender.look_again()
            await asyncio.sleep(0.0)
            assert len(sent) == 4
            lines[0] = GOOD._replace(plan_ok=False)
            sender.look_again()
            await asyncio.sleep(0.001)
            assert sent[-1][1].bits == 0b1110
            assert sent[-1][0] == pytest.approx(3.2 * PERIOD_S)
            failing[0] = True
            await asyncio.sleep(2 * PERIOD_S)
            failing[0], sender.silent = False, True
            await asyncio.sleep(2 * PERIOD_S)
            assert len(sent) == 5
            sender.silent = False
            await asyncio.sleep(1.1 * PERIOD_S)
            assert len(sent) == 6

    run_virtual(main(), loop)
