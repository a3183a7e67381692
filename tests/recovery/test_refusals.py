"""What is not gone on with, and what is not delivered because it could not be written down."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from control.recovery import require_same
from control.session import SessionSummary
from facility.errors import CommandRefused, JournalError
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.read import SessionEntry
from journal.store import Journal, open_journal, sqlite_url
from rig.control_stack import ControlParts
from rig.crashes import Crash, Crashes, Left
from rig.deliver_virtual import deliver_in
from rig.home import JOURNAL_FILE
from rig.virtual_world import World, WorldOptions, WorldParts
from tests.recovery.test_crashes import SEED, crashes, facility, program

TABLE = "energies"


def entry(**other: object) -> SessionEntry:
    plan = program()
    made = SessionEntry(
        session="S-1", t_opened_ns=0, facility=plan.facility_id, config_hash=plan.facility_hash, energy_table=TABLE,
        room=plan.room_id, mode="qa", qa=plan.qa, plan_label=plan.plan_label, plan_hash=plan.plan_hash, plan_path="p",
        patient=plan.patient_id, operator="o", layers=len(plan.layers), spots=plan.n_spots, prescribed_ions=1.0,
        status="open", reason="", ic1_ions=0.0,
    )  # fmt: skip
    return dataclasses.replace(made, **other)  # type: ignore[arg-type]


def test_the_same_program_goes_on() -> None:
    require_same(entry(), program(), TABLE)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"plan_hash": "0" * 64}, "plan hash"), ({"patient": "somebody else"}, "patient"), ({"room": "2"}, "room"),
        ({"energy_table": "another"}, "energy table"), ({"config_hash": "x"}, "configuration"),
        ({"facility": "lanzhou"}, "facility"), ({"qa": False}, "QA"), ({"status": "completed"}, "is completed"),
        ({"status": "partial"}, "is partial"), ({"intent": "CURATIVE"}, "intent MACHINE_QA, .* opened with CURATIVE"),
        ({"fraction": 1, "fractions_planned": 30}, "number of fractions 1, .* opened with 30"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(other: dict[str, object], words: str) -> None:
    with pytest.raises(CommandRefused, match=words):
        require_same(entry(**other), program(), TABLE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return crashes(tmp_path_factory.mktemp("whole")).deliver(SEED, None)


def beam_ns(left: Left, share: float = 0.5) -> int:
    assert left.summary is not None
    assert left.summary.t_started_ns is not None
    return round(left.summary.t_started_ns + share * (left.summary.t_ended_ns - left.summary.t_started_ns))


def test_what_is_completed_is_not_delivered_again(whole: Left) -> None:
    before = {token: ions.copy() for token, ions in whole.truth.items()}
    with pytest.raises(CommandRefused, match="is completed"):
        crashes(whole.folder).resume(whole, 5, None)
    assert all((whole.truth[token] == ions).all() for token, ions in before.items())


@dataclasses.dataclass(frozen=True)
class Watched(Crashes):
    """Lives whose worlds are kept."""

    worlds: list[World] = dataclasses.field(default_factory=list)
    mode: Mode | None = None

    def _world(self, left: Left, journal: Journal, seed: int) -> World:
        made = super()._world(left, journal, seed)
        if self.mode is not None:
            options = dataclasses.replace(made.options, mode=self.mode)
            made = World(self.facility, self.program.room_id, "carbon", seed, options)
        self.worlds.append(made)
        return made


def with_another_energy_table(*args: object, **named: object) -> ControlParts:
    return ControlParts(*args, **{**named, "energy_table": "another"})  # type: ignore[arg-type]


def test_a_facility_goes_on_with_no_other_plan_patient_room_energy_table_or_mode(
    tmp_path: Path, whole: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, plan = crashes(tmp_path), program()
    left = it.deliver(SEED, Crash(beam_ns(whole)))
    (room, *_) = [name for name in facility().rooms if name != plan.room_id]
    elsewhere = compile_program(make_small_plan(facility(), "carbon"), facility(), room, qa=True)
    others: list[tuple[str, MachineProgram, Mode | None]] = [
        ("plan hash 0000", dataclasses.replace(plan, plan_hash="0" * 64), None),
        ("patient somebody else", dataclasses.replace(plan, patient_id="somebody else"), None),
        (f"room {room}, .* with {plan.room_id}", elsewhere, None),
        ("intent CURATIVE", dataclasses.replace(plan, intent="CURATIVE"), None),
        ("mode service, .* in mode qa", plan, Mode.SERVICE),
        ("energy table another", plan, None),
    ]
    for seed, (words, other, mode) in enumerate(others, 10):
        if words.startswith("energy"):
            monkeypatch.setattr("rig.virtual_world.ControlParts", with_another_energy_table)
        them = Watched(facility(), other, tmp_path, mode=mode)
        with pytest.raises(CommandRefused, match=words):
            them.resume(left, seed, None)
        assert them.worlds[0].plant.truth_total_ions == 0.0
    monkeypatch.undo()
    left = it.resume(left, 2, None)
    assert left.completed
    assert it.objections(left) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE layers SET ic1_ions = 0 WHERE status = 'verified'", "layers, row .*: it is not what was written"),
        ("DELETE FROM layers WHERE status = 'verified'", "row .* is missing"),
    ],
)
def test_nobody_goes_on_from_a_journal_that_is_not_what_was_written(
    tmp_path: Path, whole: Left, change: str, words: str
) -> None:
    """Else a layer that the disk has lost, or somebody has taken out, would be given once more."""
    it = crashes(tmp_path)
    left = it.deliver(SEED, Crash(beam_ns(whole)))
    with contextlib.closing(sqlite3.connect(left.folder / JOURNAL_FILE)) as connection, connection:
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER layers_no_{verb}")
        assert connection.execute(change).rowcount > 0
    with pytest.raises(JournalError, match=words):
        it.resume(left, 2, None)


def test_without_its_register_an_armed_layer_counts_as_delivered(tmp_path: Path, whole: Left) -> None:
    """Never optimistic: somebody has taken the register away, nobody knows what the layer got."""
    it = crashes(tmp_path)
    left = it.deliver(SEED, Crash(beam_ns(whole)))
    left.store = MemoryStore()
    left = it.resume(left, 2, None)
    assert left.summary is not None
    assert left.summary.status == "completed"
    for layer in program().layers:
        truth = left.truth.get(layer.token, np.zeros(layer.n_spots))
        assert (truth <= 1.02 * layer.target_ions).all()
    assert sum(float(ions.sum()) for ions in left.truth.values()) < program().total_ions


def stopped(tmp_path: Path, fail) -> tuple[World, SessionSummary, Path]:
    path = tmp_path / "journal.sqlite"
    journal = open_journal(sqlite_url(path), "wuwei")
    options = WorldOptions(load_program=lambda *_: program(), mode=Mode.QA, journal=journal)
    world = World(facility(), program().room_id, "carbon", SEED, options)
    fail(world, journal)
    _, summary = deliver_in(world, program(), linger_s=3.0)
    journal.close()
    return world, summary, path


def test_a_journal_that_fails_ends_the_delivery_before_the_next_layer_and_loses_nothing(
    tmp_path: Path, whole: Left
) -> None:
    def fail(world: World, journal: object) -> None:
        def append(_batches: object) -> None:
            raise JournalError("journal.failed", "the journal cannot be written: database or disk is full")

        world.loop.call_at_rank(beam_ns(whole, 0.3), 0, lambda: setattr(journal, "append", append))

    world, summary, path = stopped(tmp_path, fail)
    assert summary.status in ("interrupted", "terminated")
    assert "disk is full" in " ".join(summary.messages)
    journal = open_journal(sqlite_url(path), "wuwei", read_only=True)
    booked = {one.layer for one in read.layers(journal, summary.session)}
    journal.close()
    truth = world.plant.truth_spots()
    begun = [k for k, layer in enumerate(program().layers) if layer.token in truth and truth[layer.token][:, 0].any()]
    assert set(begun) <= booked


def test_a_commit_that_hangs_takes_the_beam_within_the_layer(tmp_path: Path, whole: Left) -> None:
    def fail(world: World, _journal: object) -> None:
        original = World._alive

        def hang() -> None:
            found.control.sequencer.books.writer.fault = lambda: "a commit waits for 2.1 s"

        found: WorldParts

        @contextlib.asynccontextmanager
        async def alive():
            nonlocal found
            async with original(world) as parts:
                found = parts
                world.loop.call_at_rank(beam_ns(whole, 0.5), 0, hang)
                yield parts

        world._alive = alive  # type: ignore[method-assign]

    world, summary, _ = stopped(tmp_path, fail)
    assert summary.status in ("interrupted", "terminated")
    assert "waits for 2.1 s" in " ".join(summary.messages)
    assert summary.spots_done < summary.spots
    trips = [str(event.data["id"]) for event in world.events.events if event.kind == "interlock.trip"]
    assert set(trips) <= {"session-authority"}
