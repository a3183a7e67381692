"""The power fails, or everything is killed, at every write and synchronisation of a whole session: of the journal's
files, of the register, and between them. What is left is always gone on with, and never counts less than truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from control.layer_table import LayerRules, counted_ions
from control.machine_status import Dose
from control.recovery import go_on_from, restore
from control.session import Session
from facility.intensity import spot_tolerance_ions
from facility.timebase import Rank
from interlocks.snapshot import Mode
from ioc_sim.iocs.front_end import dose_rows
from ioc_sim.register_store import MemoryStore, SyncPoint, read_records
from journal import read
from journal.store import open_journal, sqlite_url
from journal.verify import verify
from rig.crashes import Crashes, Left
from rig.deliver_virtual import deliver_in
from rig.home import JOURNAL_FILE
from rig.virtual_world import World, WorldOptions
from tests.journal.sqlite_files import Deed, after_power_loss, faulty_files, why_not
from tests.plant.disk import Disk
from tests.recovery.test_crashes import facility, program

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")
SECTOR_WORDS = 64
BETWEEN = 60
"""Instants besides, at random."""


@dataclass(frozen=True)
class Cut:
    """Where everything ends."""

    deeds: int
    """Of the journal's files that had been done."""
    safe: np.ndarray
    """The register as it had been synchronised."""
    words: np.ndarray
    """The register as it was; only sectors that are not zero: (numbers, contents)."""
    truth: dict[int, np.ndarray]


class Watched(list[Deed]):
    """What is done to files, and what is called after each deed."""

    def __init__(self, after: Callable[[], None]) -> None:
        super().__init__()
        self._after = after

    def append(self, deed: Deed) -> None:
        """See list."""
        super().append(deed)
        self._after()


class WatchedDisk(Disk):
    """A register that is looked at before and after each synchronisation."""

    def __init__(self) -> None:
        super().__init__()
        self.look: Callable[[], None] = lambda: None

    def sync(self, point: SyncPoint) -> None:
        """See Disk."""
        self.look()
        super().sync(point)
        self.look()


@dataclass
class WholeSession:
    """One whole session, and every place where it may be cut."""

    before: dict[str, bytes]
    deeds: Watched
    cuts: list[Cut] = field(default_factory=list)


def sectors(words: np.ndarray) -> np.ndarray:
    """A register is nearly all zeros: (n, 1 + SECTOR_WORDS) of the others, their numbers first."""
    table = words.reshape(-1, SECTOR_WORDS)
    used = np.flatnonzero(table.any(axis=1))
    return np.column_stack([used, table[used]])


def words_of(kept: np.ndarray, size: int) -> np.ndarray:
    table = np.zeros((size // SECTOR_WORDS, SECTOR_WORDS), dtype=np.int64)
    table[kept[:, 0]] = kept[:, 1:]
    return table.ravel()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> WholeSession:
    path = tmp_path_factory.mktemp("power") / JOURNAL_FILE
    open_journal(sqlite_url(path), "wuwei").close()
    before = {path.name: path.read_bytes()}
    disk = WatchedDisk()
    rng = np.random.default_rng(4)
    with faulty_files() as files, closing(open_journal(sqlite_url(path), "wuwei")) as journal:
        options = WorldOptions(load_program=lambda *_: program(), mode=Mode.QA, journal=journal, register_store=disk)
        world = World(facility(), program().room_id, "carbon", 1, options)

        def look() -> None:
            truth = {token: rows[:, 0].copy() for token, rows in world.plant.truth_spots().items()}
            found.cuts.append(Cut(len(found.deeds), sectors(disk.safe), sectors(disk.words), truth))

        files.deeds = Watched(look)
        found = WholeSession(before, files.deeds)
        disk.look = look
        for t_ns in rng.integers(0, round(program().expected_s * 1e9), BETWEEN):
            world.loop.call_at_rank(int(t_ns), Rank.PLANT, look)
        _, summary = deliver_in(world, program())
    assert summary.status == "completed"
    return found


def left_after(session: WholeSession, cut: Cut, folder: Path, rng: np.random.Generator | None) -> Left:
    """What is there afterwards: with `rng` the power was lost, otherwise everything was killed."""
    size = MemoryStore().words.size
    disk = Disk()
    disk.safe, disk.words = words_of(cut.safe, size), words_of(cut.words, size)
    if rng is None:
        store, files = MemoryStore(disk.words), applied(session.deeds[: cut.deeds], session.before)
    else:
        store = disk.after_power_loss(rng if rng.random() < 0.8 else None)
        files = after_power_loss(session.deeds, cut.deeds, rng, session.before)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return Left(store, folder, {token: ions.copy() for token, ions in cut.truth.items()})


def applied(deeds: list[Deed], before: dict[str, bytes]) -> dict[str, bytes]:
    """The operating system keeps every write of a process that was killed."""
    synced = [Deed("sync", name) for name in dict.fromkeys(deed.name for deed in deeds)]
    return after_power_loss([*deeds, *synced], len(deeds) + len(synced), np.random.default_rng(0), before)


def objection(left: Left) -> str:
    """What is wrong with what recovery makes of it; empty if nothing is."""
    given = sum(float(ions.sum()) for ions in left.truth.values())
    with closing(open_journal(left.url, "wuwei")) as journal:
        if broken := verify(journal).broken:
            return broken
        names = [entry.session for entry in read.sessions(journal)]
        if not names:
            return f"{given:.0f} ions of a session that the journal does not know" if given else ""
        entries = read.layers(journal, names[0])
    found = Session(names[0], program(), mode="qa", operator="operator", t_ns=0, approved_hash=program().plan_hash)
    restore(found, entries)
    doses = [
        Dose(one.layer.token, one.layer.field, one.layer.plan_hash, one.layer.table_crc32, one.spot,
             one.uncertain_ions, dose_rows(one), one.seq, one.power_lost)
        for one in read_records(left.store)
    ]  # fmt: skip
    go_on_from(found, doses, LayerRules.of(facility()), 0)
    return next((words for book in found.books if (words := _less(book, left.truth))), "")


def _less(book: object, truth: dict[int, np.ndarray]) -> str:
    """Spots of a layer that got more than is counted."""
    layer = book.layer
    ions = truth.get(layer.token, np.zeros(layer.n_spots))
    counted = np.zeros(layer.n_spots) if book.rows is None else counted_ions(layer, book.rows, book.uncertain)
    per_count = facility().ions_per_count(layer.species, layer.energy_mev_u)
    allowed, _ = spot_tolerance_ions(
        layer.target_ions, layer.intensity_ions_per_s, per_count, float(layer.target_ions.max())
    )
    less = ions - counted - allowed
    if (less <= 0.0).all():
        return ""
    spot = int(less.argmax())
    return f"token {layer.token}, spot {spot}: {ions[spot]:.0f} ions came, {counted[spot]:.0f} are counted"


def test_there_is_a_cut_at_every_write_and_every_synchronisation(session: WholeSession) -> None:
    assert {cut.deeds for cut in session.cuts} == set(range(len(session.deeds) + 1))
    assert sum(deed.kind == "sync" for deed in session.deeds) >= 5
    safe = [cut.safe.tobytes() for cut in session.cuts]
    assert sum(one != other for one, other in itertools.pairwise(safe)) > 15


@pytest.mark.parametrize("power", [True, False], ids=["power", "kill"])
def test_wherever_it_is_cut_it_is_recovered_and_no_spot_counts_less_than_came(
    session: WholeSession, tmp_path: Path, power: bool
) -> None:
    rng = np.random.default_rng(9)
    for number, cut in enumerate(session.cuts[:: 1 if power else 3]):
        left = left_after(session, cut, tmp_path / f"cut{number}", rng if power else None)
        assert objection(left) == "", f"cut {number} after {cut.deeds} deeds"


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_after_a_loss_of_power_the_session_is_finished(session: WholeSession, tmp_path: Path, share: float) -> None:
    wanted = share * program().total_ions
    cut = next(one for one in session.cuts if sum(float(ions.sum()) for ions in one.truth.values()) > wanted)
    left = left_after(session, cut, tmp_path / "left", np.random.default_rng(3))
    it = Crashes(facility(), program(), tmp_path)
    left = it.resume(left, 2, None)
    assert left.completed
    assert it.objections(left) == []
