"""Journal and register that do not belong to the same moment: somebody has put an older copy of one of them back."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from facility.errors import ChannelError
from ioc_sim.field_table import FieldTable
from ioc_sim.register_store import LAYERS, ROWS, Banks, read_records
from rig.crashes import Crash, Crashes, Left
from tests.recovery.test_crashes import SEED, beam_ns, crashes, program


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> list[Left]:
    """One delivery that died in the middle of its first, its second, and its third layer."""
    folder = tmp_path_factory.mktemp("deaths")
    whole = crashes(new(folder / "whole")).deliver(SEED, None)
    middles = [sum(beam_ns(whole, layer)) // 2 for layer in range(3)]
    return [crashes(new(folder / str(k))).deliver(SEED, Crash(at)) for k, at in enumerate(middles)]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def mixed(journal: Left, register: Left, folder: Path) -> tuple[Crashes, Left]:
    """The journal of one moment, register and truth of another."""
    there = folder / "mixed"
    shutil.copytree(journal.folder, there)
    truth = {token: ions.copy() for token, ions in register.truth.items()}
    return crashes(folder), dataclasses.replace(register, folder=there, store=register.store.copy(), truth=truth)


@pytest.mark.parametrize(("journal", "register"), [(0, 1), (0, 2), (1, 2)])
def test_nobody_goes_on_with_a_journal_that_is_older_than_the_register(
    journal: int, register: int, deaths: list[Left], tmp_path: Path
) -> None:
    """What the journal has forgotten would be given once more."""
    it, left = mixed(deaths[journal], deaths[register], tmp_path)
    with pytest.raises(ChannelError, match=f"the register holds layer {register}, .* ends in layer {journal}"):
        it.resume(left, 2, None)


def test_the_backup_counter_knows_of_what_journal_and_register_have_forgotten(
    deaths: list[Left], tmp_path: Path
) -> None:
    """Later fields have taken both loads of the register; what each field has had stands there for good."""
    it, left = mixed(deaths[0], deaths[2], tmp_path)
    record, words = read_records(left.store)[0], left.store.words
    table = FieldTable(Banks(left.store).fields)
    table.write(record.field, dataclasses.replace(table.counts[record.field], ions=record.field_ions))
    words[LAYERS:ROWS] = 0
    with pytest.raises(ChannelError, match=r"the backup counter has .* ions of this field, journal and register tell"):
        it.resume(left, 2, None)


@pytest.mark.parametrize(("journal", "register"), [(1, 0), (2, 0), (2, 1)])
def test_a_register_that_is_older_than_the_journal_is_not_believed(
    journal: int, register: int, deaths: list[Left], tmp_path: Path
) -> None:
    """The layer under way counts as delivered whole: it was armed, and this register does not know of it."""
    it, left = mixed(deaths[journal], deaths[register], tmp_path)
    left.truth = {token: ions.copy() for token, ions in deaths[journal].truth.items()}
    left = it.resume(left, 2, None)
    assert left.completed
    for layer in program().layers:
        given = left.truth.get(layer.token, np.zeros(layer.n_spots))
        assert (given <= 1.02 * layer.target_ions).all()
