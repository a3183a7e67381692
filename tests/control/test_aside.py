"""What takes long is done aside: the event loop turns meanwhile, and what has changed by then is looked at again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from control.bookkeeper import Bookkeeper
from control.layer_machine import State
from control.session_desk import KEPT_S, KNOWN_S, LONGEST_S, SessionDesk
from facility.errors import CommandRefused, IonctlError, JournalError
from journal import read
from journal.store import Journal
from rig.operator_client import OperatorLimits
from tests.control.fakes import FakeProgram, program
from tests.control.test_course import Desk, close, give_a_part, run
from tests.control.test_course import journal as journal


class Standing:
    """A sequencer that has nothing to do."""

    state, session, mode = State.STANDBY, None, "qa"

    def __init__(self) -> None:
        self.books = Bookkeeper()

    async def load(self, loaded: FakeProgram, **_: object) -> str:
        assert loaded.layers
        return "S-1"


def test_the_event_loop_turns_while_a_plan_is_compiled() -> None:
    turned = threading.Event()

    def compile_for_long(*_: object) -> FakeProgram:
        assert turned.wait(10.0), "the event loop stands still"
        return program()

    async def main() -> None:
        desk = SessionDesk(Standing(), compile_for_long, None, "", "", asyncio.to_thread)  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(0.01, turned.set)
        assert (await desk.verbs["load"]({"plan": "p", "room": "H"}, "operator"))["session"] == "S-1"

    asyncio.run(main())


class Slow:
    """Work is done at once, and its result known only when somebody says so."""

    def __init__(self) -> None:
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self.over.set()
        self.count = 0

    async def __call__(self, work: Callable[[], Any], /) -> Any:
        self.count += 1
        found = work()
        self.begun.set()
        await self.over.wait()
        return found

    def hold(self) -> None:
        """What is begun from now on waits."""
        self.begun.clear()
        self.over.clear()


def slow_desk(desk: Desk, journal: Journal) -> Slow:
    slow = Slow()
    desk.desk = SessionDesk(desk.bench.sequencer, lambda *_: desk.plan, journal, "energies", "", slow)
    return slow


async def deliver_and_let_go(desk: Desk) -> None:
    """What is loaded, by the console that has loaded it."""
    await desk.start()
    assert (await desk.bench.sequencer.recorded(300.0)).status == "completed"
    await close(desk)


def test_a_fraction_that_was_given_while_a_plan_was_compiled_is_not_given_again(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        slow = slow_desk(desk, journal)
        name = await desk.load()
        slow.hold()
        second = asyncio.create_task(desk.load())
        await slow.begun.wait()
        await deliver_and_let_go(desk)
        slow.over.set()
        with pytest.raises(CommandRefused, match=f"all 1 fractions of this plan were given, 1 by session {name}"):
            await second

    run(journal, test)


def test_a_session_that_was_delivered_while_its_journal_was_checked_is_not_gone_on_with(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        slow = slow_desk(desk, journal)
        name = await desk.stopped()
        await close(desk)
        await desk.recover(name)
        slow.hold()
        second = asyncio.create_task(desk.recover(name))
        await slow.begun.wait()
        await deliver_and_let_go(desk)
        slow.over.set()
        with pytest.raises(CommandRefused, match="is completed"):
            await second

    run(journal, test)


def test_sessions_are_opened_in_the_order_in_which_they_were_asked_for(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        slow, opened = slow_desk(desk, journal), []
        desk.bench.sequencer.listeners.append(
            lambda topic, data: opened.append(data["session"]) if topic == "session" and data["session"] else None
        )
        slow.hold()
        first = asyncio.create_task(desk.load())
        await slow.begun.wait()
        second = asyncio.create_task(desk.load())
        await asyncio.sleep(1.0)
        assert (slow.count, opened) == (1, [])  # the other one has not even begun
        slow.over.set()
        assert [await first, await second] == opened

    run(journal, test)


def test_nothing_is_read_for_a_session_that_cannot_be_opened_now(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        slow = slow_desk(desk, journal)
        name = await desk.load()
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
        before = slow.count
        for asked in (desk.load(), desk.recover(name)):
            with pytest.raises(CommandRefused, match="LOAD is not possible in IRRADIATING"):
                await asked
        assert slow.count == before

    run(journal, test)


def test_a_session_is_not_closed_beside_one_that_was_started_meanwhile(journal: Journal) -> None:
    names: list[str] = []

    async def leaves(desk: Desk) -> None:
        names.append(await desk.load())
        await desk.bench.sequencer.books.durable()

    async def test(desk: Desk) -> None:
        slow = slow_desk(desk, journal)
        name = await desk.load()
        await desk.bench.sequencer.prepare()
        await desk.bench.sequencer.until({State.READY}, 30.0)
        slow.hold()
        closing = asyncio.create_task(desk.close_partial(names[0]))
        await slow.begun.wait()
        await desk.bench.sequencer.start("another")
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
        slow.over.set()
        with pytest.raises(CommandRefused, match=f"session {name} is being delivered"):
            await closing
        assert read.session(journal, names[0]).status == "open"

    run(journal, leaves)
    run(journal, test)


def test_a_file_that_never_ends_keeps_nobody_else_waiting(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        name = await desk.stopped()
        await close(desk)
        slow = slow_desk(desk, journal)
        slow.hold()
        asked = [asyncio.create_task(one) for one in (desk.load(), desk.recover(name), desk.close_partial(name))]
        for one in asked:
            with pytest.raises(CommandRefused, match="plan and journal were not read within 25 s"):
                await one
        assert read.session(journal, name).status == "terminated"
        assert desk.bench.sequencer.state is State.STANDBY
        slow.over.set()
        await desk.close_partial(name)
        assert read.session(journal, name).status == "partial"

    run(journal, test)


@pytest.mark.parametrize(("later_s", "again"), [(KNOWN_S - 30.0, False), (KNOWN_S + 30.0, True)])
def test_who_gave_up_waiting_for_a_long_journal_asks_again_and_it_has_been_read(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, later_s: float, again: bool
) -> None:
    """Only what was written since is gone through then; what was found whole too long ago is no more known."""
    from journal import verify

    batches: list[int] = []
    broken = verify._broken
    monkeypatch.setattr(verify, "_broken", lambda tip, batch, *rest: batches.append(1) or broken(tip, batch, *rest))

    async def test(desk: Desk) -> None:
        name = await desk.stopped()
        await close(desk)
        slow = slow_desk(desk, journal)
        slow.hold()
        with pytest.raises(CommandRefused, match=r"not read within 25 s.*: it goes on: ask again in a minute"):
            await desk.recover(name)
        first, since = len(batches), journal.tip().batch
        assert first > 3
        await asyncio.sleep(later_s)
        slow.over.set()
        await desk.recover(name)
        more = journal.tip().batch - since
        assert (len(batches) - first >= first) is again
        assert again or len(batches) - first <= more
        await close(desk)
        before = len(batches)
        await asyncio.sleep(60.0)  # what was known and not read again is no younger for having been used
        await desk.recover(name)
        assert (len(batches) - before >= first) is not again

    run(journal, test)


@pytest.mark.parametrize(("took_s", "kept"), [(KEPT_S - 10.0, True), (KEPT_S + 10.0, False)])
def test_what_took_too_long_to_read_is_not_kept(journal: Journal, took_s: float, kept: bool) -> None:
    async def test(desk: Desk) -> None:
        name = await desk.stopped()
        await close(desk)
        now_s = asyncio.get_running_loop().time()
        times = iter([now_s, now_s + took_s, now_s + took_s])
        desk.desk._require_whole("recover", name, lambda: next(times))
        assert (desk.desk._whole is not None) is kept

    run(journal, test)


def test_an_unknown_session_does_not_take_away_what_is_known(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        name = await desk.stopped()
        await close(desk)
        await desk.recover(name)
        known = desk.desk._whole
        assert known is not None
        await close(desk)
        with pytest.raises(IonctlError, match="S-none"):
            await desk.recover("S-none")
        assert desk.desk._whole == known

    run(journal, test)


def test_the_rest_of_a_rest_is_taken_from_a_journal_that_is_whole_from_the_first_one_on(journal: Journal) -> None:
    names: list[str] = []

    async def closed_twice(desk: Desk) -> None:
        for _ in range(2):
            names.append(await desk.load(**({"continues": names[-1]} if names else {})))
            await give_a_part(desk, names[-1])

    async def third(desk: Desk) -> None:
        with pytest.raises(JournalError, match=r"layers, row .*: it is not what was written"):
            await desk.load(continues=names[1])

    run(journal, closed_twice)
    with journal.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER layers_no_update")
        changed = connection.exec_driver_sql("UPDATE layers SET ic2_ions = 1 WHERE session = ?", (names[0],))
        assert changed.rowcount > 0
    run(journal, third)


def test_a_journal_by_which_a_session_gives_its_own_rest_is_refused(journal: Journal) -> None:
    from control.continuation import chain_of

    names: list[str] = []

    async def test(desk: Desk) -> None:
        names.append(await desk.load())
        await desk.bench.sequencer.books.durable()

    run(journal, test)
    with journal.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER courses_no_update")
        connection.exec_driver_sql("UPDATE courses SET continues = session")
    with pytest.raises(JournalError, match=f"session {names[0]} would give its own rest"):
        chain_of(journal, names[0])


def test_a_console_waits_for_longer_than_control_reads() -> None:
    assert OperatorLimits().load_s > LONGEST_S


def test_control_in_its_own_process_does_it_in_threads() -> None:
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "rig" / "processes" / "control.py").read_text(encoding="utf-8")
    assert "aside=ThreadAside()" in text
