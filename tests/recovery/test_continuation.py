"""A fraction that was closed as partial, and the session that carries its rest, by truth."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from control.continuation import continued
from control.layer_machine import State
from control.plan.program import MachineProgram
from facility.errors import CommandRefused
from facility.intensity import spot_tolerance_ions
from interlocks.rules import load_rules
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.course import read_course
from journal.store import Journal, open_journal, sqlite_url
from journal.verify import verify
from records.account import read_account
from rig.virtual_world import World, WorldOptions, WorldParts
from tests.recovery.test_crashes import SEED, facility
from tests.recovery.test_crashes import program as qa_program
from tests.recovery.test_virtual_resume import other_limits


@functools.cache
def program() -> MachineProgram:
    """A patient's plan."""
    return dataclasses.replace(qa_program(), qa=False, intent="CURATIVE", fractions=5)


def world(journal: Journal, store: MemoryStore, seed: int) -> World:
    options = WorldOptions(load_program=lambda *_: program(), register_store=store, journal=journal)
    return World(facility(), program().room_id, "carbon", seed, options)


async def begun(parts: WorldParts, **course: object) -> str:
    await parts.operator.reset()
    session = await parts.operator.load("plan", program().room_id, False, program().plan_hash, **course)
    await parts.operator.prepare()
    await parts.operator.start()
    return session


async def half(parts: WorldParts) -> str:
    """Dies a while after the third layer got beam: the register knows, the journal does not."""
    sequencer = parts.control.sequencer
    session = await begun(parts)
    third = asyncio.Event()
    sequencer.listeners.append(
        lambda topic, data: third.set() if (data.get("to"), data.get("layer")) == (State.IRRADIATING.name, 2) else None
    )
    await third.wait()
    await asyncio.sleep(0.03)
    return session


def test_the_rest_of_a_fraction_is_given_once(tmp_path: Path) -> None:
    journal, store = open_journal(sqlite_url(tmp_path / "j.sqlite"), facility().id), MemoryStore()
    first = world(journal, store, SEED)
    name = first.run(half)

    async def rest(parts: WorldParts) -> str:
        await parts.operator.ask("TCS", "close_partial", {"session": name, "reason": "the patient had to go"})
        session = await begun(parts, continues=name)
        await parts.operator.ended(session, 3000.0)
        return session

    second = world(journal, store, SEED + 1)
    again = second.run(rest)
    whole = read_course(journal, program().patient_id, program().plan_hash)
    assert [(one.number, one.status) for one in whole.fractions] == [(1, "completed")]
    entries = {one.session: one for one in read.sessions(journal)}
    assert (entries[name].status, entries[again].status) == ("partial", "completed")
    assert (entries[again].delivery, entries[again].continues) == ("CONTINUATION", name)
    assert verify(journal).broken == ""

    left = continued(journal, program(), name)
    assert isinstance(left, MachineProgram)
    assert read_account(journal, again, left).earlier == (read_account(journal, name, program()).uid,)
    assert 0 < left.n_spots < program().n_spots
    truth, later = first.plant.truth_spots(), second.plant.truth_spots()
    uncertain = {one.layer: one.uncertain for one in read.layers(journal, name)}
    for index, layer in enumerate(program().layers):
        given = truth[layer.token][:, 0].copy() if layer.token in truth else np.zeros(layer.n_spots)
        for rest_layer in left.layers:
            if (rest_layer.beam_index, rest_layer.layer_index) == (layer.beam_index, layer.layer_index):
                given[np.searchsorted(layer.spot_index, rest_layer.spot_index)] += later[rest_layer.token][:, 0]
        count = facility().ions_per_count(layer.species, layer.energy_mev_u)
        allowed, _ = spot_tolerance_ions(
            layer.target_ions, layer.intensity_ions_per_s, count, float(layer.target_ions.max())
        )
        error, unmeasured = given - layer.target_ions, uncertain.get(index, np.zeros(0))
        assert (error <= allowed).all()
        assert (-error <= allowed + 2.0 * count + (unmeasured if unmeasured.size else 0.0)).all()
    journal.close()


def test_the_rest_is_given_under_other_interlock_limits_only_where_a_physicist_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, store = open_journal(sqlite_url(tmp_path / "j.sqlite"), facility().id), MemoryStore()
    name = world(journal, store, SEED).run(half)
    other_limits(tmp_path / "site", monkeypatch)

    async def rest(parts: WorldParts) -> str:
        await parts.operator.ask("TCS", "close_partial", {"session": name, "reason": "the patient had to go"})
        with pytest.raises(CommandRefused, match=r"interlock rules .* opened with .* no limits") as refused:
            await begun(parts, continues=name)
        assert refused.value.code == "recovery.limits"
        args = {"plan": "plan", "room": program().room_id, "qa": False, "continues": name, "reason": "I may not"}
        with pytest.raises(CommandRefused, match="is for physicist, not operator"):
            await parts.operator.ask("TCS", "load_new_limits", args)
        return await begun(parts, continues=name, new_limits="limits were reviewed")

    again = world(journal, store, SEED + 1).run(rest)
    entries = {one.session: one for one in read.sessions(journal)}
    assert list(entries) == [name, again]
    assert entries[again].rules_hash == load_rules(facility(), program().room_id, "carbon").hash
    assert entries[again].rules_hash != entries[name].rules_hash
    said = [row for row in read.rows_of(journal, "operators", again) if row["what"] == read.NEW_LIMITS]
    assert [(row["operator"], row["reason"]) for row in said] == [("physicist", "limits were reviewed")]
    journal.close()


def test_bypasses_are_written_down_when_they_are_set_and_when_they_end(tmp_path: Path) -> None:
    journal = open_journal(sqlite_url(tmp_path / "j.sqlite"), facility().id)
    options = WorldOptions(mode=Mode.QA, load_program=lambda *_: qa_program(), journal=journal)
    here = World(facility(), qa_program().room_id, "carbon", SEED, options)

    async def work(parts: WorldParts) -> str:
        await parts.operator.reset()
        args = {"rule": "gate", "reason": "phantom", "seconds": 60.0}
        await parts.operator.ask("SAFE", "bypass", args, role="physicist")
        await asyncio.sleep(1.0)
        session = await parts.operator.load("plan", qa_program().room_id, True)
        await parts.operator.ask("SAFE", "unbypass", {"rule": "gate"}, role="physicist")
        await asyncio.sleep(1.0)
        return session

    session = here.run(work)
    with journal.reading() as connection:
        rows = connection.exec_driver_sql("SELECT session, data FROM bypasses ORDER BY seq").all()
    assert [row[0] for row in rows] == ["", session]
    on, off = (json.loads(row[1]) for row in rows)
    assert (on["set"], on["ended"], on["in_force"][0]["reason"]) == (["gate"], [], "phantom")
    assert (off["set"], off["ended"], off["in_force"]) == ([], ["gate"], [])
    journal.close()
