"""Whoever dies and when: the treatment goes on at the exact spot, gives nothing twice, and the record says so."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from control.plan.maker import make_small_plan
from control.plan.program import LayerProgram, MachineProgram, compile_program
from facility.config import load_facility
from journal import read
from journal.store import open_journal
from rig.crashes import Crash, Crashes, Left
from rig.virtual_deaths import Victim

SEED = 1
LAST_COMMIT = 4
"""Of a delivery that nobody interrupts: the last layer, and the record."""


@functools.cache
def facility():
    return load_facility("wuwei")


@functools.cache
def program() -> MachineProgram:
    found = facility()
    return compile_program(make_small_plan(found, "carbon"), found, next(iter(found.rooms)), qa=True)


def crashes(folder: Path) -> Crashes:
    return Crashes(facility(), program(), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """The delivery that nobody interrupts."""
    return crashes(tmp_path_factory.mktemp("whole")).deliver(SEED, None)


def test_a_delivery_that_nobody_interrupts_is_in_the_journal(whole: Left) -> None:
    assert whole.summary is not None
    assert whole.summary.status == "completed"
    assert crashes(whole.folder).objections(whole) == []


def test_the_checker_sees_a_spot_that_was_given_twice(whole: Left) -> None:
    token = program().layers[0].token
    twice = Left(whole.store, whole.folder, {**whole.truth, token: whole.truth[token] * np.where(
        np.arange(len(whole.truth[token])) == 3, 2.0, 1.0)})  # fmt: skip
    assert "layer 0, spot 3: over by" in crashes(whole.folder).objections(twice)[0]


def beam_ns(whole: Left, layer: int) -> tuple[int, int]:
    """When a layer of the delivery that nobody interrupts has beam."""
    assert whole.summary is not None
    found = whole.summary.layers[layer]
    assert found.t_first_beam_ns is not None
    return found.t_first_beam_ns, found.t_done_ns


def delivered(left: Left) -> list[tuple[np.ndarray, LayerProgram]]:
    """Ions by spot, by truth, of each layer."""
    return [(left.truth.get(layer.token, np.zeros(1)), layer) for layer in program().layers]


@pytest.mark.parametrize("case", range(6))
def test_all_die_at_any_instant_and_the_session_is_finished_to_the_spot(case: int, whole: Left, tmp_path: Path) -> None:
    assert whole.summary is not None
    rng = np.random.default_rng(106 + case)
    end = whole.summary.t_ended_ns
    it = crashes(tmp_path)
    left = it.deliver(SEED, Crash(int(rng.integers(*beam_ns(whole, case % len(program().layers))))))
    assert any(0.0 < got.sum() < 0.99 * layer.total_ions for got, layer in delivered(left))
    for life in range(2, 6):
        if left.completed:
            break
        left = it.resume(left, life, Crash(int(rng.integers(0, end))) if life < 4 else None)
    assert left.completed
    assert it.objections(left) == []


@pytest.mark.parametrize(
    "crash",
    [
        Crash(0, Victim.PLANT, lives_on_s=2.5, orderly=True), Crash(0, Victim.SAFETY, lives_on_s=1.0),
        Crash(0, Victim.CONTROL, lives_on_s=2.5, orderly=True), Crash(0, Victim.CONSOLE, lives_on_s=2.5),
        Crash(0, Victim.ALL, commit=2), Crash(0, Victim.CONTROL, commit=3, written=True, lives_on_s=1.0),
    ],
    ids=lambda crash: f"{crash.victim.value}{'' if crash.commit is None else '-in-a-commit'}",
)  # fmt: skip
def test_whoever_dies_alone_or_in_a_commit_the_session_is_finished_to_the_spot(
    crash: Crash, whole: Left, tmp_path: Path
) -> None:
    assert whole.summary is not None
    it = crashes(tmp_path)
    left = it.deliver(SEED, dataclasses.replace(crash, at_ns=sum(beam_ns(whole, 1)) // 2))
    assert left.crashed
    assert not left.completed
    with closing(open_journal(left.url, facility().id, read_only=True)) as journal:
        (entry,) = read.sessions(journal)
    least = (
        0.0 if crash.commit == 2 else 0.99 * program().layers[0].total_ions
    )  # booked, whoever died before the record
    assert least <= entry.ic1_ions <= 1.01 * sum(float(ions.sum()) for ions in left.truth.values())
    left = it.resume(left, 2, None)
    assert left.completed
    assert it.objections(left) == []


def test_who_dies_after_the_last_layer_and_before_the_record_is_completed_without_beam(
    whole: Left, tmp_path: Path
) -> None:
    """Every layer is verified in the journal, and no record says that the session is complete."""
    it = crashes(tmp_path)
    left = it.deliver(SEED, Crash(victim=Victim.ALL, commit=LAST_COMMIT))
    assert left.crashed
    assert not left.completed
    before = {token: ions.copy() for token, ions in left.truth.items()}
    left = it.resume(left, 2, None)
    assert left.completed
    assert all((left.truth[token] == ions).all() for token, ions in before.items())
    assert it.objections(left) == []
