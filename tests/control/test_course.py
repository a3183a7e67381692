"""What may be loaded: nothing is delivered twice, whoever forgets what was delivered before."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from control.bookkeeper import Bookkeeper
from control.layer_machine import State
from control.session_desk import SessionDesk
from facility.errors import CommandRefused
from facility.ids import IdSource
from journal import read
from journal.course import read_course
from journal.store import Journal, open_journal, sqlite_url
from journal.writer import InlineWriter
from rig.virtual_time import VirtualLoop, run_virtual
from tests.control.fakes import Bench, FakeProgram, bench, program

PLAN = dataclasses.replace(program(layers=3), qa=False)
CLINICAL, QA = 0, 1


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = open_journal(sqlite_url(tmp_path / "journal.sqlite"), PLAN.facility_id)
    yield found
    found.close()


@dataclasses.dataclass
class Desk:
    """A facility's control, and what people ask it for."""

    bench: Bench
    desk: SessionDesk
    plan: FakeProgram = PLAN

    async def load(self, **args: object) -> str:
        return str((await self.desk.verbs["load"]({"plan": "p", "room": "H", **args}, "operator"))["session"])

    async def recover(self, session: str) -> None:
        args = {"session": session, "plan": "p", "room": "H", "qa": self.plan.qa, "reason": "test"}
        await self.desk.verbs["recover"](args, "operator")

    async def close_partial(self, session: str) -> None:
        await self.desk.verbs["close_partial"]({"session": session, "reason": "test"}, "operator")

    async def start(self) -> None:
        await self.bench.sequencer.prepare()
        await self.bench.sequencer.until({State.READY}, 30.0)
        await self.bench.sequencer.start("test")

    async def deliver(self, **args: object) -> str:
        session = await self.load(**args)
        await self.start()
        assert (await self.bench.sequencer.recorded(300.0)).status == "completed"
        await self.bench.sequencer.close()
        return session

    async def stopped(self) -> str:
        """A session that was terminated in its first layer and is held open."""
        session = await self.load()
        await self.start()
        await self.bench.sequencer.until({State.IRRADIATING}, 30.0)
        await self.bench.sequencer.stop()
        await self.bench.sequencer.recorded(30.0)
        return session


def run(
    journal: Journal | None, test: Callable[[Desk], Awaitable[None]], mode: int = CLINICAL, plan: FakeProgram = PLAN
) -> None:
    """`test` at a facility that begins with this journal."""
    loop = VirtualLoop(limit_ns=3_600_000_000_000)

    async def main() -> None:
        books = None if journal is None else Bookkeeper(InlineWriter(journal, loop))
        made = await bench(loop, books=books)
        set_mode(made, mode)
        made.sequencer._ids = IdSource(100 + (0 if journal is None else len(read.sessions(journal))))
        async with made.sequencer:
            desk = Desk(made, SessionDesk(made.sequencer, lambda *_: desk.plan, journal, "energies"), plan)
            await test(desk)

    run_virtual(main(), loop)


@pytest.mark.parametrize("mode", [CLINICAL, QA])
def test_a_session_that_has_delivered_is_not_replaced_by_loading_its_plan_again(journal: Journal, mode: int) -> None:
    """TERMINATED, PREPARE, LOADED: LOAD would begin the whole plan anew."""

    async def test(desk: Desk) -> None:
        session = await desk.stopped()
        await desk.bench.sequencer.prepare()
        await desk.bench.sequencer.until({State.LOADED, State.PREPARED, State.READY}, 30.0)
        desk.bench.sequencer.state = State.LOADED
        with pytest.raises(CommandRefused, match=f"session {session} is open and has delivered part") as refusal:
            await desk.load()
        assert f"ionctl session close {session}" in str(refusal.value)
        assert desk.bench.sequencer.session is not None
        assert desk.bench.sequencer.session.id == session

    run(journal, test, mode)


def test_without_dose_a_plan_is_loaded_again_as_often_as_one_likes(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        assert await desk.load() != await desk.load()
        assert read_course(journal, PLAN.patient_id, PLAN.plan_hash).fractions == ()
        await desk.deliver()

    run(journal, test)


def test_what_another_process_left_unfinished_is_named_by_the_journal(journal: Journal) -> None:
    left: list[str] = []

    async def before(desk: Desk) -> None:
        left.append(await desk.stopped())

    async def after(desk: Desk) -> None:
        with pytest.raises(CommandRefused, match=rf"session {left[0]} \(terminated\) has delivered .* ions") as refusal:
            await desk.load()
        assert f"ionctl resume {left[0]}" in str(refusal.value)
        desk.plan = dataclasses.replace(PLAN, patient_id="P-2")  # somebody else's is another matter
        await desk.load()

    run(journal, before)
    run(journal, after)


def test_a_layer_that_was_armed_counts_though_nobody_knows_what_it_got(journal: Journal) -> None:
    left: list[str] = []

    async def dies(desk: Desk) -> None:
        left.append(await desk.load())
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)

    async def after(desk: Desk) -> None:
        with pytest.raises(CommandRefused, match=rf"session {left[0]} \(open\) may have delivered"):
            await desk.load()
        beams = read_course(journal, PLAN.patient_id, PLAN.plan_hash).beams
        assert beams == {0: float(PLAN.layers[0].target_ions.sum())}

    run(journal, dies)
    run(journal, after)


@pytest.mark.parametrize(
    ("mode", "plan"),
    [
        (QA, PLAN), (CLINICAL, dataclasses.replace(PLAN, intent="MACHINE_QA")),
        (CLINICAL, dataclasses.replace(PLAN, qa=True)),
    ],
)  # fmt: skip
def test_quality_assurance_delivers_a_plan_as_often_as_it_likes(journal: Journal, mode: int, plan: FakeProgram) -> None:
    async def test(desk: Desk) -> None:
        await desk.stopped()
        await desk.bench.sequencer.close()
        for _ in range(2):
            await desk.deliver()
        assert read_course(journal, PLAN.patient_id, PLAN.plan_hash).fractions == ()

    run(journal, test, mode, plan)


async def give_a_part(desk: Desk, name: str) -> None:
    """Some beam of the session that is loaded; then it is stopped and closed as partial."""
    await desk.start()
    await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)
    await asyncio.sleep(0.05)
    await desk.bench.sequencer.stop()
    await desk.bench.sequencer.recorded(30.0)
    await close(desk)
    await desk.close_partial(name)


async def close(desk: Desk) -> None:
    await desk.bench.sequencer.close()


def course(journal: Journal, plan: FakeProgram = PLAN) -> dict[str, object]:
    return read_course(journal, plan.patient_id, plan.plan_hash).to_data()


def test_fractions_are_counted_and_none_is_given_twice(journal: Journal) -> None:
    plan = dataclasses.replace(PLAN, fractions=2)

    async def test(desk: Desk) -> None:
        first = await desk.deliver(fraction=1)
        with pytest.raises(
            CommandRefused, match=f"fraction 1 of 2 was given by session {first} .completed. .*: next is 2"
        ):
            await desk.load(fraction=1)
        with pytest.raises(CommandRefused, match=r"fraction 3 of 2 is not the next one .*: next is 2"):
            await desk.load(fraction=3)
        second = await desk.deliver()
        with pytest.raises(CommandRefused, match=f"all 2 fractions of this plan were given, 2 by session {second}"):
            await desk.load()
        found = course(journal)
        assert (found["fractions_planned"], found["fractions_completed"]) == (2, 2)
        total = 2 * sum(float(layer.target_ions.sum()) for layer in plan.layers)
        assert found["beams"] == [{"beam": 0, "ions": pytest.approx(total)}]

    run(journal, test, CLINICAL, plan)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"intent": "RESEARCH"}, "intent RESEARCH, session S-.* with CURATIVE"),
        ({"intent": "PALLIATIVE"}, "intent PALLIATIVE, session S-.* with CURATIVE"),
        ({"fractions": 30}, "number of fractions 30, session S-.* with 2"),
    ],
)
def test_a_course_is_not_prescribed_anew_by_its_plan_file(
    journal: Journal, other: dict[str, object], words: str
) -> None:
    """The plan's hash covers neither intent nor fractions: with another one, more would be given than planned."""
    plan = dataclasses.replace(PLAN, fractions=2, intent="CURATIVE")

    async def test(desk: Desk) -> None:
        first = await desk.deliver()
        desk.plan = dataclasses.replace(plan, **other)  # type: ignore[arg-type]
        with pytest.raises(CommandRefused, match=words) as refusal:
            await desk.load()
        assert refusal.value.code == "course.other"
        assert first in str(refusal.value)
        set_mode(desk.bench, QA)
        await desk.deliver()  # for quality assurance it is what it is
        set_mode(desk.bench, CLINICAL)
        desk.plan = plan
        await desk.deliver(fraction=2)

    run(journal, test, CLINICAL, plan)


def test_the_rest_of_a_fraction_is_carried_by_a_later_session(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        first = await desk.stopped()
        await close(desk)
        await desk.close_partial(first)
        delivered = {k: v.copy() for k, v in desk.bench.machine.given_by_token.items()}
        with pytest.raises(CommandRefused, match=f"the rest of fraction 1: --continues {first}"):
            await desk.load()
        second = await desk.deliver(continues=first)
        given = desk.bench.machine.given_by_token
        for layer in PLAN.layers:
            before = delivered.get(layer.token, np.zeros(layer.target_ions.size))
            left = layer.target_ions - before
            np.testing.assert_allclose(given[layer.token + 100], left[left > 2000.0])
        found = course(journal)
        assert found["fractions"] == [
            {"fraction": 1, "status": "completed", "sessions": [first, second],
             "ions": pytest.approx(sum(float(layer.target_ions.sum()) for layer in PLAN.layers), rel=1e-3)}
        ]  # fmt: skip
        with pytest.raises(CommandRefused, match="fraction 1 is completed"):
            await desk.load(continues=first)

    run(journal, test)


def test_a_rest_that_was_closed_as_partial_is_carried_on_from_there(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        names, carried = [], ""
        for _ in range(2):
            names.append(await desk.load(continues=carried) if carried else await desk.load())
            await give_a_part(desk, names[-1])
            carried = names[-1]
        with pytest.raises(CommandRefused, match=f"its last session is {names[1]}"):
            await desk.load(continues=names[0])
        await desk.deliver(continues=names[1])
        total = sum(float(given.sum()) for given in desk.bench.machine.given_by_token.values())
        assert total == pytest.approx(sum(float(layer.target_ions.sum()) for layer in PLAN.layers), rel=1e-3)

    run(journal, test)


def test_what_was_armed_and_never_heard_of_is_not_in_the_rest(journal: Journal) -> None:
    left: list[str] = []

    async def dies(desk: Desk) -> None:
        left.append(await desk.load())
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)

    async def after(desk: Desk) -> None:
        await desk.close_partial(left[0])  # this machine's register knows nothing of it
        await desk.deliver(continues=left[0])
        assert sorted(desk.bench.machine.given_by_token) == [layer.token + 100 for layer in PLAN.layers[1:]]

    run(journal, dies)
    run(journal, after)


def test_only_a_course_has_fractions(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(CommandRefused, match="mode qa, plan for treatment: no fraction"):
            await desk.load(fraction=1)

    run(journal, test, QA)


def set_mode(b: Bench, mode: int) -> None:
    channel = b.machine.channels["SAFE:Mode-Sts"]
    channel._sample = dataclasses.replace(channel._sample, value=mode)


def test_what_was_loaded_for_quality_assurance_is_not_given_to_a_patient(journal: Journal) -> None:
    """A mode that changes after LOAD would make a treatment of what no course knows."""

    async def test(desk: Desk) -> None:
        await desk.load()
        set_mode(desk.bench, CLINICAL)
        await desk.bench.sequencer.prepare()
        await asyncio.sleep(1.0)
        assert desk.bench.sequencer.state is State.LOADED
        assert "in mode clinical, the session was loaded in mode qa" in str(desk.bench.told)

    run(journal, test, QA)


def test_a_continuation_that_died_goes_on_with_the_same_rest(journal: Journal) -> None:
    names: list[str] = []

    async def first(desk: Desk) -> None:
        names.append(await desk.stopped())
        await close(desk)
        await desk.close_partial(names[0])

    async def dies(desk: Desk) -> None:
        names.append(await desk.load(continues=names[0]))
        await desk.start()
        await desk.bench.sequencer.until({State.IRRADIATING}, 30.0)

    async def goes_on(desk: Desk) -> None:
        await desk.recover(names[1])
        await desk.start()
        assert (await desk.bench.sequencer.recorded(300.0)).status == "completed"
        tokens = {layer.token + 100 for layer in PLAN.layers[1:]}  # nobody knows of the first one: it counts whole
        assert set(desk.bench.machine.given_by_token) == tokens
        assert course(journal)["fractions_completed"] == 1

    for life in (first, dies, goes_on):
        run(journal, life)
