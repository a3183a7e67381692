"""The dose register: what it says is what was delivered, whoever died and at whatever instruction."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from facility.errors import CommandRefused, ConfigError
from facility.pv_catalogue import REGISTER_COLUMNS
from facility.states import FrontEndState, HoldReason
from ioc_sim import dose_register as reg
from ioc_sim import layout as at
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from ioc_sim.register_file import MappedStore
from ioc_sim.register_store import (
    FIELDS,
    H_CHECK,
    H_VERSION,
    IMAGE_WORDS,
    PAGE_WORDS,
    ROWS,
    SLOTS,
    DoseRecord,
    MemoryStore,
    SyncPoint,
    read_records,
)
from rig.register_sync import RegisterSync
from tests.plant.disk import Disk
from tests.plant.layers import MS, S, go, grid, new_plant, open_field, run_until, start

IC1, IC2, DONE = (REGISTER_COLUMNS.index(name) for name in ("ic1_ions", "ic2_ions", "done"))
PLAN = "0123456789abcdef" * 4
LEVEL = 1e7


def under_way(seconds: float = 0.1, **kwargs: object) -> Plant:
    """A plant in the middle of a layer."""
    plant = new_plant(**{"register_store": MemoryStore(), **kwargs})
    open_field(plant, 9, 1e15, 1e9, PLAN)
    start(plant, grid(half_mm=9.0), level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + round(seconds * S) + 12_345)
    return plant


def now(plant: Plant) -> DoseRecord:
    return read_records(plant.dose.store)[0]


def delivered(plant: Plant) -> float:
    return float(plant.truth_spots()[77][:, 0].sum())


def test_the_kernel_is_given_no_two_arrays_that_share_memory(tmp_path: Path) -> None:
    """It is compiled under that promise (`facility.jit`)."""
    mapped = MappedStore(tmp_path / "register")
    for plant in (under_way(), under_way(register_store=mapped)):
        arrays = [array for array in plant._arguments if isinstance(array, np.ndarray)]
        assert len(arrays) > 20
        for one, other in combinations(arrays, 2):
            assert not np.may_share_memory(one, other)


def test_it_says_what_the_front_end_knows_at_every_moment() -> None:
    plant = under_way()
    for _ in range(200):
        go(plant, plant._now_ns + 170_000)
        record, register = now(plant), plant.register()
        assert record.t_ns == plant.t_ns
        assert np.abs(record.ions - register[:, [IC1, IC2]]).max() <= 0.002
        assert (record.done == (register[:, DONE] > 0.5)).all()
        assert (record.spot, record.state) == (plant.status.spot, plant.status.state)
    assert record.layer.plan_hash == PLAN
    assert (record.layer.token, record.layer.field, record.layer.spots) == (77, 9, len(register))
    assert record.counts == (plant.read("IC_READ"), plant.read("IC_READ", 1))
    assert record.backup_counts == plant.read("BACKUP_COUNTS") > 0
    assert record.timer_s == pytest.approx(plant.read("FIELD_TIMER_MS") * 1e-3)
    assert (record.field, record.field_ions) == (9, pytest.approx(plant.read("FIELD_IONS"), abs=0.001))


def test_sequence_numbers_rise_by_one_a_tick_and_go_on_in_the_next_process() -> None:
    plant = under_way()
    before, ticks = now(plant).seq, plant.truth_count
    go(plant, plant._now_ns + 2 * MS)
    assert now(plant).seq - before == plant.truth_count - ticks == 200
    left = plant.dose.store.copy()
    seq, load = now(plant).seq, now(plant).load
    words = left.words.copy()
    again = new_plant(register_store=left)
    go(again, again._now_ns + S)
    assert (left.words[:FIELDS] == words[:FIELDS]).all()  # nobody writes before there is something to write
    start(again, grid(half_mm=9.0), token=78)
    go(again, again._now_ns + MS)
    assert (now(again).load, again.dose_records()[1].load) == (load + 1, load)
    assert now(again).seq > seq


def test_a_word_of_a_slot_that_is_torn_gives_the_tick_before() -> None:
    plant = under_way()
    whole = now(plant)
    for word in range(reg.CHECK + 1):
        torn = plant.dose.store.copy()
        slot = torn.words[SLOTS + PAGE_WORDS * (whole.seq & 1) :]
        slot[word] ^= 1 << (7 * word % 63)
        (record, *_) = read_records(torn)
        assert record.seq == whole.seq - 1
        # leakage is taken off tick by tick, so that a tick without a count has a little less
        assert float(record.ions[:, 0].sum()) <= float(whole.ions[:, 0].sum()) + plant.ions_per_count


def test_whatever_instruction_it_dies_at_truth_lies_within_the_stated_uncertainty() -> None:
    """Each write of a tick is cut off: what had been written of the image by then, over the image before."""
    plant = under_way()
    rng = np.random.default_rng(5)
    for _ in range(60):
        go(plant, plant._now_ns + int(rng.integers(1, 30)) * 10_000)
        before = plant.dose.store.words.copy()
        go(plant, plant._now_ns + 10_000)
        after, truth = plant.dose.store.words, plant.truth_spots()[77][:, 0]
        changed = np.flatnonzero(before != after)
        rows_first = np.concatenate([changed[changed >= ROWS], changed[changed < ROWS]])
        for cut in range(len(rows_first) + 1):
            image = before.copy()
            image[rows_first[:cut]] = after[rows_first[:cut]]
            (record, *_) = read_records(MemoryStore(image))
            assert not record.unknown[np.arange(len(truth)) != record.spot].any()
            missing = float(truth.sum() - record.ions[:, 0].sum())
            assert missing <= record.uncertain_ions
            assert missing >= -0.01 * float(truth.sum()) - 2 * plant.ions_per_count


def test_the_uncertainty_is_intensity_times_stop_and_late_charge_and_ends_with_the_beam() -> None:
    plant = under_way()
    least = LEVEL * (2e-5 + plant.facility.stop_us() * 1e-6)
    assert least <= now(plant).uncertain_ions <= 1.5 * least + LEVEL * 640e-6
    plant.pause()
    go(plant, plant._now_ns + 50 * MS)
    assert now(plant).state == FrontEndState.PAUSED
    assert now(plant).uncertain_ions == 0.0
    assert abs(delivered(plant) - now(plant).ions[:, 0].sum()) < 0.01 * delivered(plant)


def test_what_comes_while_the_front_end_hangs_is_in_it() -> None:
    plant = under_way()
    before, came_before = now(plant).ions[:, 0].sum(), plant.truth_total_ions
    plant.inject(Fault("fe.freeze", FaultKind.SET, 1.0, at_ns=plant._now_ns))
    go(plant, plant._now_ns + 5 * MS)
    record, came = now(plant), plant.truth_total_ions - came_before
    assert came > 0.5 * LEVEL * 5e-3, "beam went on"
    assert record.ions[:, 0].sum() - before == pytest.approx(came, rel=0.02)
    assert delivered(plant) - record.ions[:, 0].sum() <= record.uncertain_ions


def test_a_layer_that_was_cut_stays_readable_behind_the_next_one() -> None:
    plant = under_way()
    plant.disarm()
    go(plant, plant._now_ns + 50 * MS)
    cut = now(plant)
    start(plant, grid(half_mm=6.0), token=78)
    go(plant, plant._now_ns + 20 * MS)
    present, before = plant.dose_records()
    assert (present.layer.token, before.layer.token, before.previous) == (78, 77, True)
    assert before.ions == pytest.approx(cut.ions, abs=1e-9)


def test_a_register_whose_slots_are_both_damaged_is_not_believed() -> None:
    plant = under_way()
    store = plant.dose.store.copy()
    store.words[SLOTS + 1] ^= 1
    store.words[SLOTS + PAGE_WORDS + 1] ^= 1
    with pytest.raises(ConfigError, match="both slots"):
        read_records(store)


def test_rows_that_are_torn_are_called_unknown() -> None:
    plant = under_way()
    store = plant.dose.store.copy()
    load = now(plant).load
    bank = store.words[ROWS:FIELDS].reshape(2, -1, reg.ROW_WORDS)[load & 1]
    bank[3, reg.ROW_IC1] += 1
    (record, *_) = read_records(store)
    assert record.unknown[3]
    assert record.unknown.sum() == 1


def test_a_plan_hash_is_64_hex_digits() -> None:
    with pytest.raises(CommandRefused, match="64 hex digits"):
        new_plant().open_field(2, 1e9, 1e4, "sha256:1234")


# --- the mapped file ------------------------------------------------------------------------------------------
def test_a_file_survives_the_process_and_knows_a_loss_of_power(tmp_path: Path) -> None:
    path = tmp_path / "dose.register"
    store = MappedStore(path, boot=1)
    assert not store.power_lost
    store.words[ROWS] = 7
    assert not MappedStore(path, boot=1).power_lost  # nobody closed the first one
    again = MappedStore(path, boot=2)
    assert (again.power_lost, int(again.words[ROWS])) == (True, 7)
    again.close()
    assert MappedStore(path, boot=2).power_lost  # who died before a layer was loaded has used nothing of it up
    again = MappedStore(path, boot=2)
    again.sync(SyncPoint.LOADED)
    again.close()
    assert not MappedStore(path, boot=2).power_lost


def test_a_register_of_another_version_is_refused(tmp_path: Path) -> None:
    store = MappedStore(tmp_path / "dose.register")
    head = store.words[:PAGE_WORDS].reshape(1, PAGE_WORDS)
    head[0, H_VERSION] -= 1
    head[0, H_CHECK] = reg.checksum(head, 0, H_CHECK)
    with pytest.raises(ConfigError, match="of another version"):
        MappedStore(tmp_path / "dose.register")


@pytest.mark.parametrize("data", [b"x", b"\1" * (8 * IMAGE_WORDS)])
def test_a_file_that_is_no_register_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "dose.register"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="no dose register"):
        MappedStore(path)
    assert path.read_bytes() == data


def counted(record: DoseRecord, target: np.ndarray) -> float:
    """Ions that count as delivered."""
    return float(np.where(record.unknown, target, record.ions[:, 0]).sum()) + record.uncertain_ions


def leased(disk: Disk) -> tuple[Plant, RegisterSync]:
    plant = new_plant(register_store=disk)
    return plant, RegisterSync(plant, disk)


def test_a_loss_of_power_never_leaves_more_delivered_than_the_register_and_its_lease_say() -> None:
    disk = Disk()
    plant, sync = leased(disk)
    spots, rng, worst = grid(half_mm=9.0), np.random.default_rng(2), 0.0
    start(plant, spots, level=LEVEL)
    while plant.status.state != FrontEndState.DONE:
        go(plant, plant._now_ns + 20 * MS)
        if plant.status.token == 77:
            for chance in (None, rng, rng, rng):
                (record, *_) = read_records(disk.after_power_loss(chance)) or (None,)
                assert record is not None or delivered(plant) == 0.0
                known = 0.0 if record is None else counted(record, spots.ions)
                assert delivered(plant) <= known * 1.001 + 2 * plant.ions_per_count
                worst = max(worst, known - delivered(plant))
        sync.look()
    assert worst > 0.0
    assert {SyncPoint.ARMED, SyncPoint.LEASE, SyncPoint.STOPPED} <= set(disk.points)


def with_row(plant: Plant, spot: int, row: np.ndarray | int, *, lost: bool) -> DoseRecord:
    """What is read where the row of a spot is another than the last slot stands for."""
    store = plant.dose.store.copy()
    store.power_lost = lost
    rows_of(store, now(plant).load)[spot] = row
    (record, *_) = read_records(store)
    return record


def rows_of(store: MemoryStore, load: int) -> np.ndarray:
    return store.words[ROWS:FIELDS].reshape(2, -1, reg.ROW_WORDS)[load & 1]


def test_a_row_that_the_last_slot_went_ahead_of_counts_whole() -> None:
    """The system wrote the sector of the slot, and not yet that of the row, when the power was lost."""
    plant = under_way()
    go(plant, plant._now_ns + 30 * S)
    assert now(plant).state == FrontEndState.DONE
    last = len(now(plant).done) - 1
    assert np.flatnonzero(with_row(plant, last, 0, lost=True).unknown).tolist() == [last]
    assert not with_row(plant, last, 0, lost=False).unknown.any()


@pytest.mark.parametrize("age", ["none", "as at the stop"])
def test_what_a_stop_let_through_is_known_without_the_row_of_the_spot(age: str) -> None:
    """The slot has it, so that a row that reached the disk before the last ions came takes nothing away."""
    plant = under_way()
    plant.disarm()
    go(plant, plant._now_ns + 10_000)
    cut, stopped = now(plant).spot, now(plant)
    row = rows_of(plant.dose.store, stopped.load)[cut].copy() if age != "none" else 0
    go(plant, plant._now_ns + 50 * MS)
    assert now(plant).state == FrontEndState.ABORTED
    assert now(plant).ions[cut, 0] > stopped.ions[cut, 0] + 300.0  # the beam takes its time
    for lost in (True, False):
        record = with_row(plant, cut, row, lost=lost)
        assert record.ions[cut] == pytest.approx(now(plant).ions[cut])
        assert not record.unknown[cut]


def test_a_disk_that_fails_holds_the_beam_and_one_that_recovers_lets_it_go_on() -> None:
    disk = Disk()
    plant, sync = leased(disk)
    spots = grid(half_mm=9.0)
    start(plant, spots, level=LEVEL)
    while plant.status.state != FrontEndState.IRRADIATING:
        go(plant, plant._now_ns + 20 * MS)
        sync.look()
    disk.broken = True
    for _ in range(40):
        go(plant, plant._now_ns + 20 * MS)
        sync.look()
    assert (plant.status.state, plant.status.hold_reason) == (FrontEndState.HELD, HoldReason.REGISTER)
    (record, *_) = read_records(disk.after_power_loss())
    assert delivered(plant) <= record.ions[:, 0].sum() + record.uncertain_ions
    assert sync.failures > 1
    disk.broken = False
    while plant.status.state != FrontEndState.DONE:
        go(plant, plant._now_ns + 20 * MS)
        sync.look()
        (record, *_) = read_records(disk.after_power_loss())
        assert delivered(plant) <= counted(record, spots.ions) * 1.001 + 2 * plant.ions_per_count


def test_what_the_system_failed_to_write_on_its_own_is_written_before_anything_is_leased() -> None:
    """It says so once, at the next synchronisation, and takes those pages for written: the layer record."""
    disk = Disk()
    plant, sync = leased(disk)
    spots = grid(half_mm=9.0)
    start(plant, spots, level=LEVEL)
    while plant.status.state != FrontEndState.ARMED:
        go(plant, plant._now_ns + MS)
    disk.fail_unheard()
    granted = float(plant._v[at.LEASE_IONS])
    sync.look()
    assert (sync.failures, float(plant._v[at.LEASE_IONS])) == (1, granted)
    while plant.status.state != FrontEndState.DONE:
        go(plant, plant._now_ns + 20 * MS)
        sync.look()
        (record, *_) = read_records(disk.after_power_loss())
        assert delivered(plant) <= counted(record, spots.ions) * 1.001 + 2 * plant.ions_per_count
    sync.look()
    (record, *_) = read_records(disk.after_power_loss())
    assert record.done.all()
    assert (disk.safe == disk.words).all()
    assert sync.failures == 1


def test_a_file_takes_its_room_at_once_and_touching_it_changes_nothing(tmp_path: Path) -> None:
    store = MappedStore(tmp_path / "dose.register", boot=1)
    assert store.path.stat().st_blocks * 512 >= store.words.nbytes
    store.words[:] = np.arange(store.words.size)
    store.touch()
    assert (store.words == np.arange(store.words.size)).all()


def test_who_opens_a_file_that_its_disk_did_not_take_counts_as_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is dead and the machine is not: the system may have dropped what it could not write."""
    path = tmp_path / "dose.register"
    store = MappedStore(path, boot=1)
    store.sync(SyncPoint.LOADED)

    def fails(_file: int) -> None:
        raise OSError(5, "Input/output error")

    def fail(point: SyncPoint) -> None:
        with monkeypatch.context() as disk:
            disk.setattr("os.fsync", fails)
            with pytest.raises(OSError, match="Input/output"):
                store.sync(point)

    fail(SyncPoint.LEASE)
    assert MappedStore(path, boot=1).power_lost
    store.sync(SyncPoint.STOPPED)
    assert not MappedStore(path, boot=1).power_lost
    store = MappedStore(path, boot=2)
    assert store.power_lost
    fail(SyncPoint.STOPPED)
    store.sync(SyncPoint.STOPPED)
    assert MappedStore(path, boot=2).power_lost, "that stands until a layer is loaded"
    store.sync(SyncPoint.LOADED)
    assert not MappedStore(path, boot=2).power_lost


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"cannot be reserved: No space left on device .*: make room on this disk"):
        MappedStore(tmp_path / "dose.register", boot=1)
