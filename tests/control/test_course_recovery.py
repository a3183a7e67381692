"""Sessions of a course that were left, and what is gone on with: nothing is given that another session has given."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import pytest

from control.bookkeeper import Bookkeeper
from control.layer_machine import State
from control.machine_link import LinkLimits, MachineLink
from control.sequencer import Sequencer
from control.session_desk import SessionDesk
from facility.errors import CommandRefused
from facility.events import EventLog
from facility.ids import IdSource, field_number
from facility.states import Action, FrontEndState
from journal import read
from journal.store import Journal
from journal.writer import InlineWriter
from tests.control.fakes import PREFIX, FakeProgram
from tests.control.test_course import QA, Desk, close, run
from tests.control.test_course import journal as journal


def opened_and_left(journal: Journal, names: list[str]) -> None:
    """A session that was opened and of which nothing was delivered when its control died."""

    async def dies(desk: Desk) -> None:
        names.append(await desk.load())
        await desk.bench.sequencer.books.durable()

    run(journal, dies)


def test_a_fraction_that_another_session_has_given_is_not_gone_on_with(journal: Journal) -> None:
    names: list[str] = []

    async def gives(desk: Desk) -> None:
        names.append(await desk.deliver())

    async def goes_on(desk: Desk) -> None:
        with pytest.raises(CommandRefused, match=f"fraction 1 was given by session {names[1]}"):
            await desk.recover(names[0])

    opened_and_left(journal, names)
    run(journal, gives)
    run(journal, goes_on)


def test_nobody_goes_on_with_a_session_while_another_one_of_the_course_is_unfinished(journal: Journal) -> None:
    names: list[str] = []

    async def stops(desk: Desk) -> None:
        names.append(await desk.stopped())

    async def goes_on(desk: Desk) -> None:
        with pytest.raises(CommandRefused, match=f"session {names[1]} .* of this plan"):
            await desk.recover(names[0])
        await desk.recover(names[1])

    opened_and_left(journal, names)
    run(journal, stops)
    run(journal, goes_on)


def test_what_is_closed_while_nobody_could_look_has_no_rest_to_give(journal: Journal) -> None:
    """The register may hold more of it than the journal does."""

    async def test(desk: Desk) -> None:
        first = await desk.stopped()
        await close(desk)
        plan, desk.plan = desk.plan, dataclasses.replace(desk.plan, plan_hash="cd" * 32)  # its file is another one now
        await desk.close_partial(first)
        desk.plan = plan
        with pytest.raises(CommandRefused, match=f"what session {first} got is not known"):
            await desk.load(continues=first)
        assert "not brought together" in read.session(journal, first).reason

    run(journal, test)


def test_an_interrupted_session_is_closed_at_the_control_that_holds_it(journal: Journal) -> None:
    """Its beam is off, the layer under way is held for a RESUME: closing stops it for good, and counts it."""

    async def test(desk: Desk) -> None:
        name, sequencer = await desk.load(), desk.bench.sequencer
        await desk.start()
        await sequencer.until({State.IRRADIATING}, 30.0)
        await asyncio.sleep(0.05)
        await sequencer.pause()
        await sequencer.recorded(30.0)
        await desk.close_partial(name)
        assert sequencer.state is State.STANDBY
        entry = read.session(journal, name)
        given = sum(float(ions.sum()) for ions in desk.bench.machine.given_by_token.values())
        assert given > 0.0
        assert (entry.status, entry.ic1_ions) == ("partial", pytest.approx(given, rel=1e-3))

    run(journal, test)


def test_a_session_that_was_gone_on_with_is_open_until_it_ends_again(journal: Journal) -> None:
    """Its control has died since: how it was stopped before is not how it ended."""

    async def dies(desk: Desk) -> None:
        name = await desk.stopped()
        entry = read.session(journal, name)
        assert (entry.status, entry.reason) == ("terminated", "stopped by the operator")
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
        entry = read.session(journal, name)
        assert (entry.status, entry.reason) == ("open", "")

    run(journal, dies)


def test_a_session_whose_end_is_not_on_the_disk_yet_is_not_closed_as_partial(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        name = await desk.load()
        await desk.start()
        desk.bench.sequencer.books.writer.settle = lambda: None  # the last commit is on its way
        await desk.bench.sequencer.recorded(300.0)
        with pytest.raises(CommandRefused, match="is completed"):
            await desk.close_partial(name)

    run(journal, test)


@contextlib.asynccontextmanager
async def heir(desk: Desk, journal: Journal) -> AsyncIterator[Desk]:
    """Control dies, another one comes to the same machine."""
    await desk.bench.sequencer._task.stop()
    desk.bench.link.close()
    loop, machine = desk.bench.loop, desk.bench.machine
    link = await MachineLink.connect(machine, PREFIX, machine.caller, LinkLimits(command_s=0.5))
    books = Bookkeeper(InlineWriter(journal, loop))
    async with Sequencer(link, loop, IdSource(7), EventLog("R-heir", loop), books=books) as sequencer:
        bench = dataclasses.replace(desk.bench, link=link, sequencer=sequencer)
        yield Desk(bench, SessionDesk(sequencer, lambda *_: desk.plan, journal, "energies"), desk.plan)


@pytest.mark.parametrize("left", [FrontEndState.ARMED, FrontEndState.HELD, FrontEndState.PAUSED])
def test_closing_a_session_disarms_what_a_dead_control_has_left(journal: Journal, left: FrontEndState) -> None:
    """Nobody goes on with its layer any more; and what the register says is final once no beam can come."""

    async def test(desk: Desk) -> None:
        name, machine = await desk.load(), desk.bench.machine
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
        async with heir(desk, journal) as next_desk:
            machine.trip("session-authority", Action.PAUSE, left)
            before = len(machine.log)
            await next_desk.close_partial(name)
            assert machine.state is FrontEndState.LOADED
            done = machine.log[before:]
            assert done.index("disarm") < done.index("read_dose")
            assert read.session(journal, name).status == "partial"

    run(journal, test)


def test_a_front_end_that_does_not_disarm_is_told_and_the_session_has_no_rest(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        name, machine = await desk.load(), desk.bench.machine
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
        async with heir(desk, journal) as next_desk:
            machine.refuse["disarm"] = "the front end does not listen"
            await next_desk.close_partial(name)
            assert "not brought together: the front end does not listen" in read.session(journal, name).reason
            with pytest.raises(CommandRefused, match=f"what session {name} got is not known"):
                await next_desk.load(continues=name)

    run(journal, test)


def test_closing_another_session_waits_for_the_beam_and_leaves_an_interrupted_one_alone(journal: Journal) -> None:
    """Control reads no plan while it delivers; and what the front end holds is the open session's, to go on with."""

    async def test(desk: Desk) -> None:
        old = await desk.stopped()
        await close(desk)
        plans = {"p": desk.plan, "q": dataclasses.replace(desk.plan, plan_hash="cd" * 32, fractions=3)}
        desk.desk._load_program = lambda plan, *_: plans[plan]
        new, sequencer = await desk.load(plan="q"), desk.bench.sequencer
        await desk.start()
        await sequencer.until({State.IRRADIATING}, 30.0)
        with pytest.raises(CommandRefused, match=f"session {new} is being delivered"):
            await desk.close_partial(old)
        await sequencer.pause()
        await sequencer.recorded(30.0)
        before = len(desk.bench.machine.log)
        await desk.close_partial(old)
        assert desk.bench.machine.log[before:] == ["read_dose", "read_dose"]
        await sequencer.resume("test")
        assert (await sequencer.recorded(300.0)).status == "completed"
        assert "not brought together" not in read.session(journal, old).reason

    run(journal, test)


def test_who_goes_on_or_closes_says_why_and_may_say_where_the_plan_lies_now(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        name, verbs = await desk.stopped(), desk.desk.verbs
        await close(desk)
        again = {"session": name, "plan": "p", "room": "H", "qa": False, "reason": " "}
        for verb, args in (("recover", again), ("close_partial", {"session": name, "reason": ""})):
            with pytest.raises(CommandRefused, match=f"{verb} wants a reason"):
                await verbs[verb](args, "operator")
        read_from: list[str] = []

        def load(plan: str, *_: object) -> FakeProgram:
            read_from.append(plan)
            return desk.plan

        desk.desk._load_program = load
        answer = await verbs["close_partial"]({"session": name, "reason": "x", "plan": "moved"}, "operator")
        assert read_from == ["moved"]
        assert answer["known"] is True
        assert "nothing was delivered since" in answer["account"]

    run(journal, test)


@pytest.mark.parametrize(
    ("of", "given", "spot"), [("forgotten", False, 3), ("forgotten", True, -1), ("first", True, 3)]
)
def test_dose_of_which_the_journal_has_nothing_lets_no_fraction_begin(
    journal: Journal, of: str, given: bool, spot: int
) -> None:
    """An older copy of the journal was put back; what it has forgotten would be given once more."""

    async def test(desk: Desk) -> None:
        desk.plan = dataclasses.replace(desk.plan, fractions=3)
        first = await desk.deliver()
        field = field_number(first if of == "first" else "S-forgotten")
        desk.bench.machine.dose = {"token": 1001, "field": field, "plan_hash": desk.plan.plan_hash, "table_crc32": 0,
                                   "spot": spot, "uncertain_ions": 0.0, "seq": 1, "n": 20}  # fmt: skip
        session, sequencer = await desk.load(), desk.bench.sequencer
        await sequencer.prepare()
        await asyncio.sleep(2.0)
        assert sequencer.state is (State.READY if given else State.LOADED)
        assert sequencer.session is not None
        words = " ".join(sequencer.session.messages)
        assert (f"field {field}, of which the journal has nothing ({session})" in words) is not given

    run(journal, test)


def test_quality_assurance_asks_for_no_dose_of_others(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        await desk.deliver()
        assert "read_dose" not in desk.bench.machine.log

    run(journal, test, QA)
