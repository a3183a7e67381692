"""What fields have had stands in the dose register, whichever is open when a process dies or the power fails."""

from __future__ import annotations

import numpy as np
import pytest

from facility.errors import CommandRefused, ConfigError
from facility.states import FrontEndState, HoldReason
from ioc_sim import dose_register as reg
from ioc_sim import field_table
from ioc_sim import layout as at
from ioc_sim.field_table import F_CHECK, F_IONS, MOST_FIELDS, PLACE_WORDS, FieldCount, FieldTable
from ioc_sim.plant import Plant
from ioc_sim.register_store import FIELDS, PAGE_WORDS, ROWS, SLOTS, MemoryStore, read_records
from rig.register_sync import RegisterSync
from tests.plant.disk import Disk
from tests.plant.layers import MS, go, open_field, run_until, start
from tests.trips.test_field_presets import LEVEL, one_layer, spots, tripped, with_rules


def had(plant: Plant) -> tuple[float, float]:
    return float(plant._v[at.FIELD_IONS]), float(plant._v[at.FIELD_TIMER_MS])


def opened(plant: Plant, field: int, preset_ions: float, expected_ms: float) -> tuple[float, float]:
    """What a field has had, opened at this plant."""
    open_field(plant, field, preset_ions, expected_ms)
    plant.advance(plant._now_ns + MS)
    assert plant._state[0].field == field
    return had(plant)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_field_that_was_prepared_only_takes_nothing_from_the_one_before(loaded: bool) -> None:
    """Whichever field was open when a process died, counters are given to the field that had them."""
    store = MemoryStore()
    plant = with_rules(register_store=store)
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    one_layer(plant, 78)
    given = had(plant)
    opened(plant, 6, total, 1e5)
    if loaded:
        plant.load_layer(90, 150, LEVEL, spots().table(plant, 150))
    go(plant, plant._now_ns + 5 * MS)
    for _ in range(2):
        plant = with_rules(register_store=plant.dose.store.copy())
        assert opened(plant, 6, total, 1e5) == (0.0, 0.0)
    assert opened(plant, 5, total, 1e5) == pytest.approx(given, abs=0.001)
    one_layer(plant, 91)
    assert tripped(plant) == ["backup-field"]
    assert plant.truth_total_ions < 0.05 * total + 20_000 + LEVEL * 2e-3


def test_what_a_layer_gives_that_was_loaded_under_another_field_is_of_the_one_that_is_open() -> None:
    plant = with_rules(register_store=MemoryStore())
    open_field(plant, 5, 1e9, 1e5)
    plant.request_cycle(78, 150)
    plant.load_layer(78, 150, LEVEL, spots().table(plant, 150))
    go(plant, plant._now_ns + 5 * MS)
    opened(plant, 6, 1e9, 1e5)
    plant.arm(78, plant.status.permit_epoch)
    run_until(plant, "LAYER_DONE")
    go(plant, plant._now_ns + 50 * MS)
    given = had(plant)
    assert given[0] > 1e7
    again = with_rules(register_store=plant.dose.store.copy())
    assert opened(again, 6, 1e9, 1e5) == pytest.approx(given, abs=0.001)
    assert opened(again, 5, 1e9, 1e5) == (0.0, 0.0)


def test_what_a_field_should_get_is_fixed_when_it_is_first_opened() -> None:
    """In the same process and in the next, also after another field."""
    store = MemoryStore()
    plant = with_rules(register_store=store)
    open_field(plant, 5, 1e9, 1e5)
    one_layer(plant, 78)
    opened(plant, 6, 1e9, 1e5)
    for one in (plant, with_rules(register_store=store.copy())):
        for wrong in ((5, 1e10, 1e5), (5, 1e9, 1e6)):
            with pytest.raises(CommandRefused, match=r"field 5 was opened with 1000000000.0 ions in 100000.0 ms"):
                open_field(one, *wrong)


def test_no_field_is_forgotten_and_one_too_many_is_refused() -> None:
    plant = with_rules(register_store=MemoryStore())
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    one_layer(plant, 78)
    given = had(plant)
    for field in range(1000, 1000 + MOST_FIELDS - 2):
        assert plant.dose.opens(field, 1e9, 1e5, (0.0, 0.0))
    again = with_rules(register_store=plant.dose.store.copy())
    with pytest.raises(CommandRefused, match=r"holds 2048 fields, and not 6"):
        open_field(again, 6, 1e9, 1e5)
    assert opened(again, 5, total, 1e5) == pytest.approx(given, abs=0.001)


def test_a_row_of_a_field_is_whole_whatever_write_it_ends_at_and_damage_is_not_believed() -> None:
    words = np.zeros((4, 2, PLACE_WORDS), dtype=np.int64)
    counts = [FieldCount(1e9, 1e5, 1e8 * n, 1e3 * n, n) for n in range(4)]
    for before, after in zip([None, *counts], counts, strict=False):
        old = words.copy()
        FieldTable(words).write(7, after)
        for cut in range(PLACE_WORDS + 1):  # checksum away, the other words, checksum
            image = old.copy()
            changed = (old != words).any(axis=2)
            image[changed, F_CHECK] = 0
            image[changed, :cut] = words[changed, :cut]
            assert FieldTable(image).counts.get(7) == (after if cut == PLACE_WORDS else before)
    table = FieldTable(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field_table, "_check", lambda place: 1 // 0)  # it dies before it has written the checksum
        with pytest.raises(ZeroDivisionError):
            table.write(7, FieldCount(1e9, 1e5, 9e8, 9e3))
    assert FieldTable(words).counts == {7: counts[-1]}
    FieldTable(words).write(7, counts[-1])
    words[0, 1, F_IONS] -= 1
    with pytest.raises(ConfigError, match="row 0 of the fields is damaged"):
        FieldTable(words)


@pytest.mark.parametrize(
    ("place", "kept", "had", "rule"),
    [(at.FIELD_IONS, "field_ions", 0, "backup-field"), (at.FIELD_TIMER_MS, "timer_s", 1, "field-timer")],
)
def test_a_field_of_which_nobody_knows_what_it_has_had_gets_no_beam(place: int, kept: str, had: int, rule: str) -> None:
    store = MemoryStore()
    plant = with_rules(register_store=store)
    open_field(plant, 5, 1e9, 1e5)
    one_layer(plant, 78)
    plant._v[place] = np.nan
    go(plant, plant._now_ns + 5 * MS)
    assert np.isnan(getattr(plant.dose_records()[0], kept))
    again = with_rules(register_store=store.copy())
    assert np.isnan(opened(again, 5, 1e9, 1e5)[had])
    one_layer(again, 79)
    assert rule in tripped(again)
    assert again.truth_total_ions == 0.0


def held_without_a_disk() -> tuple[Plant, Disk]:
    """A disk that has fallen asleep in a layer: what the last lease covers comes, then the beam is held."""
    disk = Disk()
    plant = with_rules(register_store=disk)
    sync = RegisterSync(plant, disk)
    open_field(plant, 5, float(spots().ions.sum()), 1e5)
    start(plant, spots(), level=LEVEL)
    for _ in range(400):
        disk.broken = plant.truth_total_ions > 2e6
        sync.look()
        go(plant, plant._now_ns + 20 * MS)
        if plant.status.hold_reason is HoldReason.REGISTER and disk.broken:
            return plant, disk
    raise AssertionError("the beam was never held")


def test_after_a_loss_of_power_the_field_has_had_its_lease_and_what_is_left_ends_at_the_preset() -> None:
    plant, disk = held_without_a_disk()
    given, total = had(plant), float(spots().ions.sum())
    left = disk.after_power_loss()
    (record, *_) = read_records(left)
    assert given[0] > record.field_ions + 0.2 * LEVEL
    again = with_rules(register_store=left)
    begins = opened(again, 5, total, 1e5)
    assert given[0] <= begins[0] <= given[0] + 0.02 * LEVEL
    assert given[1] - 1.0 <= begins[1] <= given[1] + 20.0
    assert begins[0] <= record.layer.field_end_ions


def test_a_lease_that_covers_more_than_the_layer_counts_no_more_than_the_layer() -> None:
    _, disk = held_without_a_disk()
    total = float(spots().ions.sum())
    left = disk.after_power_loss()
    k = int(read_records(left)[0].seq) & 1
    slot = left.words[SLOTS:ROWS].reshape(2, PAGE_WORDS)
    slot[k, reg.LEASE] = round(5e3 * total)
    slot[k, reg.CHECK] = reg.checksum(slot, k, reg.CHECK)
    assert read_records(left)[0].uncertain_ions > 5 * total
    assert opened(with_rules(register_store=left), 5, total, 1e5)[0] == pytest.approx(total, abs=1.0)


def test_a_row_that_a_loss_of_power_has_left_behind_its_field_is_not_believed() -> None:
    """The system wrote the slot that names the next field, and not yet the row of the one before."""
    disk = Disk()
    plant = with_rules(register_store=disk)
    sync = RegisterSync(plant, disk)
    total = float(spots().ions.sum())
    opened(plant, 5, total, 1e5)
    sync.look()
    start(plant, spots(), level=LEVEL)
    while plant.status.state is not FrontEndState.DONE:
        sync.look()
        go(plant, plant._now_ns + 20 * MS)
    sync.look()
    before = disk.words.copy()
    opened(plant, 6, total, 1e5)
    torn = Disk()
    torn.safe = np.concatenate([plant.dose.store.words[:FIELDS], before[FIELDS:]])
    assert np.isnan(opened(with_rules(register_store=torn.after_power_loss()), 5, total, 1e5)).all()
    syncs = sync.syncs
    sync.look()
    assert sync.syncs == syncs + 1  # a field that is opened is synchronised
    kept = with_rules(register_store=disk.after_power_loss())
    assert opened(kept, 5, total, 1e5) == pytest.approx((total, 1e3 * total / LEVEL), rel=0.2)


def test_what_comes_after_a_stop_is_of_the_layer_and_the_field_that_were_stopped() -> None:
    plant = with_rules()
    open_field(plant, 5, 1e9, 1e5)
    start(plant, spots(), level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + 100 * MS)
    plant.disarm()
    go(plant, plant._now_ns + 10_000)
    with pytest.raises(CommandRefused, match=r"beam may still come, . ticks after the stop"):
        plant.load_layer(79, 150, LEVEL, spots().table(plant, 150))
    with pytest.raises(CommandRefused, match="beam may still come"):
        open_field(plant, 6, 1e9, 1e5)
    go(plant, plant._now_ns + 5 * MS)
    given = plant.truth_total_ions
    plant.load_layer(79, 150, LEVEL, spots().table(plant, 150))
    go(plant, plant._now_ns + 20 * MS)
    assert plant.truth_total_ions == given
