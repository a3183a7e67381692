"""A session that is gone on with under other interlock rules: what a physicist allows is for one opening, and is on
record from the moment it is started, before beam may come."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control.layer_machine import State
from control.session_desk import SessionDesk
from facility.errors import CommandRefused
from journal import read
from journal.schema import SESSIONS
from journal.store import Batch, Journal, Row
from rig.session_desk import rules_unknown
from tests.control.test_course import PLAN, Desk, close, run
from tests.control.test_course import journal as journal

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
WHY = "limits were reviewed"


def at(rules: str, test: Callable[[Desk], Awaitable[None]]) -> Callable[[Desk], Awaitable[None]]:
    """At a control that was started with these interlock rules."""

    async def there(desk: Desk) -> None:
        await desk.bench.sequencer.books.durable()
        desk.desk = SessionDesk(desk.bench.sequencer, lambda *_: desk.plan, desk.desk._journal, "energies", rules)
        await test(desk)

    return there


async def open_again(desk: Desk, session: str, *, new_limits: bool = False) -> None:
    args = {"session": session, "plan": "p", "room": "H", "qa": desk.plan.qa, "reason": WHY}
    verb, who = ("recover_new_limits", "physicist") if new_limits else ("recover", "operator")
    await desk.desk.verbs[verb](args, who)


async def load_rest(desk: Desk, session: str) -> str:
    args = {"plan": "p", "room": "H", "continues": session, "reason": WHY}
    return str((await desk.desk.verbs["load_new_limits"](args, "physicist"))["session"])


async def refused(asked: Awaitable[Any], *words: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        await asked
    assert refusal.value.code == "recovery.limits"
    for word in (NEW[:16], OLD[:16], "no limits", *words):
        assert word in str(refusal.value)


async def declined(desk: Desk) -> None:
    """The operator is asked, and says no."""
    await desk.bench.sequencer.prepare()
    await desk.bench.sequencer.until({State.READY}, 30.0)
    await close(desk)
    await desk.bench.sequencer.books.durable()


def rules_of(journal: Journal, session: str) -> list[tuple[str, str]]:
    rows = [row for row in read.rows_of(journal, "events", session) if row["kind"] == read.RULES_KIND]
    return [(told["rules_hash"], told["before"]) for told in (json.loads(row["data"]) for row in rows)]


def allowed(journal: Journal, session: str) -> list[tuple[str, str]]:
    rows = read.rows_of(journal, "operators", session)
    return [(row["operator"], row["reason"]) for row in rows if row["what"] == read.NEW_LIMITS]


def told(desk: Desk) -> list[dict[str, Any]]:
    return [dict(event.data) for event in desk.bench.events.events if event.kind == "session.new-limits"]


def left_by_old_rules(journal: Journal, *, partial: bool = False) -> str:
    """A session of which something was delivered, under the old rules."""
    names: list[str] = []

    async def begins(desk: Desk) -> None:
        names.append(await desk.stopped())
        await close(desk)
        if partial:
            await desk.close_partial(names[0])

    run(journal, at(OLD, begins))
    return names[0]


def test_what_was_allowed_and_then_declined_has_changed_nothing_and_is_asked_for_again(journal: Journal) -> None:
    name = left_by_old_rules(journal)

    async def declines(desk: Desk) -> None:
        await refused(open_again(desk, name), "resume --new-limits")
        await open_again(desk, name, new_limits=True)
        await declined(desk)
        assert told(desk) == []

    async def again(desk: Desk) -> None:
        await refused(open_again(desk, name))

    run(journal, at(NEW, declines))
    assert {hash_ for hash_, _ in rules_of(journal, name)} == {OLD}
    assert allowed(journal, name) == []
    assert read.session(journal, name).rules_hash == OLD
    run(journal, at(NEW, again))


def test_the_first_start_puts_them_on_record_and_later_ones_do_not(journal: Journal) -> None:
    name = left_by_old_rules(journal)

    async def goes_on(desk: Desk) -> None:
        await open_again(desk, name, new_limits=True)
        await desk.start()
        sequencer = desk.bench.sequencer
        await sequencer.until({State.IRRADIATING}, 30.0)
        await sequencer.pause()
        await sequencer.recorded(30.0)
        await sequencer.resume("test")
        await sequencer.until({State.IRRADIATING}, 30.0)
        await sequencer.stop()
        await sequencer.recorded(30.0)
        (event,) = told(desk)
        assert (event["before"], event["rules_hash"], event["by"], event["reason"]) == (OLD, NEW, "physicist", WHY)

    async def by_the_same(desk: Desk) -> None:
        await open_again(desk, name)
        await close(desk)

    run(journal, at(NEW, goes_on))
    assert [one for one in rules_of(journal, name) if one[1]] == [(NEW, OLD)]
    assert allowed(journal, name) == [("physicist", WHY)]
    assert read.session(journal, name).rules_hash == NEW
    run(journal, at(NEW, by_the_same))
    assert allowed(journal, name) == [("physicist", WHY)]


def test_they_are_on_the_disk_before_the_front_end_is_armed(journal: Journal) -> None:
    """Whoever dies between START and the first spot leaves a session that goes by the new rules."""
    name = left_by_old_rules(journal)
    armed: list[tuple[str | None, list[tuple[str, str]]]] = []

    async def dies(desk: Desk) -> None:
        await open_again(desk, name, new_limits=True)
        link = desk.bench.sequencer._link
        command = link.command

        async def watched(server: str, verb: str, *args: Any, **more: Any) -> Any:
            if verb == "arm":
                armed.append((read.session(journal, name).rules_hash, allowed(journal, name)))
            return await command(server, verb, *args, **more)

        link.command = watched  # type: ignore[method-assign]
        await desk.start()
        await desk.bench.sequencer.until({State.ARMED}, 30.0)
        await asyncio.sleep(0.1)

    async def heir(desk: Desk) -> None:
        await open_again(desk, name)

    run(journal, at(NEW, dies))
    assert armed == [(NEW, [("physicist", WHY)])]
    run(journal, at(NEW, heir))


def test_a_start_that_is_not_on_the_disk_has_given_no_beam_and_is_asked_for_again(journal: Journal) -> None:
    name = left_by_old_rules(journal)

    async def dies(desk: Desk) -> None:
        await open_again(desk, name, new_limits=True)
        sequencer = desk.bench.sequencer
        await sequencer.prepare()
        await sequencer.until({State.READY}, 30.0)
        await sequencer.books.durable()
        sequencer.books.writer.flush = lambda: None  # type: ignore[attr-defined]
        sequencer.books.writer.fault = lambda: "the disk is away"  # type: ignore[method-assign]
        await sequencer.start("test")
        await sequencer.recorded(30.0)
        assert sum(float(ions.sum()) for ions in desk.bench.machine.given_by_token.values()) == 0.0
        assert not any(line.startswith("arm ") for line in desk.bench.machine.log)
        sequencer.books.writer._gathered.waiting.clear()  # type: ignore[attr-defined]

    async def heir(desk: Desk) -> None:
        await refused(open_again(desk, name))

    run(journal, at(NEW, dies))
    run(journal, at(NEW, heir))


def test_the_rest_of_a_session_is_compared_with_it_and_goes_on_as_the_physicist_says(journal: Journal) -> None:
    first = left_by_old_rules(journal, partial=True)
    names: list[str] = []

    async def declines(desk: Desk) -> None:
        await refused(desk.load(continues=first), "deliver --continues --new-limits --reason", "plan of its own")
        assert desk.bench.sequencer.session is None
        names.append(await load_rest(desk, first))
        await declined(desk)

    async def again(desk: Desk) -> None:
        await refused(desk.load(continues=first))
        await refused(open_again(desk, names[0]), "resume --new-limits")  # nobody has started it
        names.append(await load_rest(desk, first))
        await desk.start()
        assert (await desk.bench.sequencer.recorded(300.0)).status == "completed"

    run(journal, at(NEW, declines))
    assert (rules_of(journal, names[0]), allowed(journal, names[0])) == ([(OLD, "")], [])
    run(journal, at(NEW, again))
    assert rules_of(journal, names[1]) == [(OLD, ""), (NEW, OLD)]
    assert allowed(journal, names[1]) == [("physicist", WHY)]
    assert rules_of(journal, first) == [(OLD, "")]


def test_the_rest_goes_on_by_the_same_rules_as_ever(journal: Journal) -> None:
    first = left_by_old_rules(journal, partial=True)

    async def gives(desk: Desk) -> None:
        second = await desk.deliver(continues=first)
        assert rules_of(journal, second) == [(OLD, "")]

    run(journal, at(OLD, gives))


def test_only_the_rest_of_a_session_is_loaded_under_new_limits_and_with_a_reason(journal: Journal) -> None:
    async def test(desk: Desk) -> None:
        load, args = desk.desk.verbs["load_new_limits"], {"plan": "p", "room": "H"}
        for more, words in (
            ({"continues": "", "reason": WHY}, "wants a session in continues"),
            ({"continues": "S-1", "reason": " "}, "wants a reason"),
            ({"continues": "S-1"}, r"wants reason \(str\)"),
            ({"reason": WHY}, r"wants continues \(str\)"),
        ):
            with pytest.raises(CommandRefused, match=words):
                await load(args | more, "physicist")

    run(journal, at(NEW, test))


def written_before_there_was_a_hash(journal: Journal, name: str) -> None:
    """A session of an older journal: all but `session.rules`."""
    values = {"facility": PLAN.facility_id, "config_hash": PLAN.facility_hash, "energy_table": "energies", "room": "H",
              "mode": "clinical", "qa": 0, "plan_label": PLAN.plan_label, "plan_hash": PLAN.plan_hash, "plan_path": "p",
              "patient": PLAN.patient_id, "operator": "operator", "layers": len(PLAN.layers), "spots": 60,
              "prescribed_ions": 6e6}  # fmt: skip
    journal.append([Batch((Row(SESSIONS.name, 0, name, values),), 0)])


def test_of_an_older_journal_it_is_on_record_that_nobody_knows_what_was_before(journal: Journal) -> None:
    written_before_there_was_a_hash(journal, "S-old")

    async def test(desk: Desk) -> None:
        desk.plan = dataclasses.replace(desk.plan, qa=False)
        await open_again(desk, "S-old")
        await close(desk)
        assert rules_of(journal, "S-old") == []
        assert not rules_unknown(journal, read.session(journal, "S-old"))
        await open_again(desk, "S-old")
        await desk.start()
        assert (await desk.bench.sequencer.recorded(300.0)).status == "completed"
        assert told(desk) == []

    run(journal, at(NEW, test))
    assert rules_of(journal, "S-old") == [(NEW, read.UNKNOWN_RULES)]
    assert allowed(journal, "S-old") == []
    assert rules_unknown(journal, read.session(journal, "S-old"))
    assert read.session(journal, "S-old").rules_hash == NEW
