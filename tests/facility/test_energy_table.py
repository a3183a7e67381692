"""Frozen energy tables: complete, true to physics, refused when touched."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.energy_table import RING_COLUMNS, load_energy_table, parse_energy_table, render_energy_table
from facility.errors import ConfigError, UsageError
from facility.physics import charge_per_ion_fc, range_water_mm, revolution_frequency_hz, rigidity_tm
from facility.room_constants import ROOM_COLUMNS

PAIRS = [
    ("wuwei", "carbon"), ("lanzhou", "carbon"), ("himm-mee", "carbon"), ("pimms", "carbon"), ("pimms", "proton"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "species"), PAIRS)
def test_table_is_fine_enough_and_true(name: str, species: str) -> None:
    facility = load_facility(name)
    ion = facility.species[species]
    table = load_energy_table(facility, species)
    assert len(table) >= 200
    steps = np.diff(table.range_mm)
    assert steps.min() >= 0.999
    assert steps.max() <= 2.0
    assert (table.energy_mev_u[0], table.energy_mev_u[-1]) == (ion.energy_min_mev_u, ion.energy_max_mev_u)
    assert table.range_mm == pytest.approx(range_water_mm(table.energy_mev_u, ion), abs=1e-3)
    assert table.rigidity_tm == pytest.approx(rigidity_tm(table.energy_mev_u, ion), abs=1e-6)
    turns = revolution_frequency_hz(table.energy_mev_u, ion, facility.ring.circumference_m)
    assert table.f_rev_hz == pytest.approx(turns, rel=1e-7)
    assert not table.energy_mev_u.flags.writeable


@pytest.mark.parametrize(("name", "species"), PAIRS)
def test_generator_gives_the_committed_table(name: str, species: str) -> None:
    facility = load_facility(name)
    table = load_energy_table(facility, species)
    again = parse_energy_table(render_energy_table(facility, species, table.version), facility, species)
    assert again.version == table.version == 3
    pairs = [(again, table, RING_COLUMNS), *((again.room(r), table.room(r), ROOM_COLUMNS) for r in facility.rooms)]
    for left, right, columns in pairs:
        for column in columns:
            # one unit in the last printed place, should another processor round differently
            assert getattr(left, column) == pytest.approx(getattr(right, column), rel=1e-6, abs=2e-4), column


def test_codes() -> None:
    table = load_energy_table(load_facility("wuwei"), "carbon")
    assert table.code_for(120.0) == 0
    assert table.code_for(400.0) == len(table) - 1
    for code in range(len(table)):
        assert table.code_for(float(table.energy_mev_u[code]), 1e-6) == code
    # any energy inside has a code within half a step of range
    for energy in np.linspace(120.0, 400.0, 777):
        code = table.code_for(float(energy))
        assert abs(np.interp(energy, table.energy_mev_u, table.range_mm) - table.range_mm[code]) <= 0.51
    assert table.nearest(10.0) == 0
    assert table.nearest(1000.0) == len(table) - 1
    assert table.nearest_range(150.0) == int(np.argmin(np.abs(table.range_mm - 150.0)))


@pytest.mark.parametrize("bad", [119.0, 100.0, 401.0, 430.0])
def test_energies_outside_are_refused(bad: float) -> None:
    table = load_energy_table(load_facility("wuwei"), "carbon")
    with pytest.raises(ConfigError, match=r"allowed: 120\.00 to 400\.00 MeV/u"):
        table.code_for(bad, 0.4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -5.0])
def test_no_energies_are_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="no energy"):
        load_energy_table(load_facility("wuwei"), "carbon").code_for(bad)


def test_energy_between_rows_needs_tolerance() -> None:
    table = load_energy_table(load_facility("wuwei"), "carbon")
    between = float(table.energy_mev_u[100] + table.energy_mev_u[101]) / 2.0
    assert table.code_for(between, 0.6) in (100, 101)
    with pytest.raises(ConfigError, match="nearest"):
        table.code_for(between, 0.1)


def test_touched_tables_are_refused(tmp_path: Path) -> None:
    facility = load_facility("wuwei")
    text = resources.files("configs").joinpath("tables/wuwei-carbon.csv").read_text(encoding="utf-8")
    folder = tmp_path / "tables"
    folder.mkdir()
    path = folder / "wuwei-carbon.csv"
    changes = {
        "hash": ("\n100,", "\n100,1"),
        "schema": ("energy-table/3", "energy-table/9"),
        "version = 'two'": ("version: 3", "version: two"),
        "facility = 'lanzhou'": ("facility: wuwei", "facility: lanzhou"),
        "own hash": ("code,energy", "energy,code"),
    }
    for words, (old, new) in changes.items():
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ConfigError, match=words) as caught:
            load_energy_table(facility, "carbon", tmp_path, {})
        assert str(path) in str(caught.value)
    path.write_text(text, encoding="utf-8")
    assert len(load_energy_table(facility, "carbon", tmp_path, {})) == 240


def test_table_of_other_figures_is_refused() -> None:
    facility = change_facility(load_facility("wuwei"), {"ring.circumference_m": 60.0})
    with pytest.raises(ConfigError, match="other figures.*ionctl table make --facility wuwei"):  # noqa: RUF043
        load_energy_table(facility, "carbon")


@pytest.mark.parametrize("key", ["rooms.2.sad_x_mm", "rooms.2.spot_scale", "scanning.x.tesla_metre_per_a"])
def test_figures_of_a_room_are_among_those_of_the_table(key: str) -> None:
    wuwei = load_facility("wuwei")
    value: Any = wuwei
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    with pytest.raises(ConfigError, match="other figures"):
        load_energy_table(change_facility(wuwei, {key: value * 1.01}), "carbon")


def test_charges_have_the_calibrations_of_monitor_and_room_in_them() -> None:
    facility = load_facility("wuwei")
    table = load_energy_table(facility, "carbon")
    own = table.room("1")
    for name, believed in (("ic1", own.charge_per_ion_ic1_fc), ("ic2", own.charge_per_ion_ic2_fc)):
        for code in (0, 120, 239):
            energy = float(table.energy_mev_u[code])
            assert believed[code] == pytest.approx(facility.charge_per_ion_fc("carbon", energy, name), rel=1e-6)  # type: ignore[arg-type]
    computed = charge_per_ion_fc(table.energy_mev_u, facility.species["carbon"], facility.chambers.ic1)
    assert own.charge_per_ion_ic1_fc / computed == pytest.approx(
        np.interp(table.energy_mev_u, *np.array(facility.chambers.ic1.calibration).T), rel=1e-6
    )
    for room_id, room in facility.rooms.items():
        there = table.room(room_id)
        for k, name in enumerate(("charge_per_ion_ic1_fc", "charge_per_ion_ic2_fc", "charge_per_ion_backup_fc")):
            assert getattr(there, name) / getattr(own, name) == pytest.approx(room.monitor_scale[k], rel=2e-6)


@pytest.mark.parametrize(("name", "species"), PAIRS)
def test_constants_of_a_room_are_those_of_its_magnets_and_distances(name: str, species: str) -> None:
    facility = load_facility(name)
    table = load_energy_table(facility, species)
    brho = rigidity_tm(table.energy_mev_u, facility.species[species])
    for room_id, room in facility.rooms.items():
        own = table.room(room_id)
        upstream, downstream = facility.scanning.x.tesla_metre_per_a, facility.scanning.y.tesla_metre_per_a
        x_per_a, y_per_a = (downstream, upstream) if room.swap_xy else (upstream, downstream)
        assert own.x_mm_per_a == pytest.approx(room.x_polarity * room.sad_x_mm * x_per_a / brho, rel=1e-7)
        assert own.y_mm_per_a == pytest.approx(room.y_polarity * room.sad_y_mm * y_per_a / brho, rel=1e-7)
        assert set(own.x_source_mm) == {room.sad_x_mm}
        assert set(own.y_source_mm) == {room.sad_y_mm}
        sigma = np.interp(table.energy_mev_u, *np.array(facility.species[species].spot_sigma).T)
        assert own.spot_sigma_mm == pytest.approx(sigma * room.spot_scale, abs=1e-4)
    assert table.dipole_t * facility.ring.bending_radius_m == pytest.approx(table.rigidity_tm, abs=1e-6)
    assert table.ramp_ms[-1] == pytest.approx(facility.ramp_ms(species, float(table.energy_mev_u[-1])), abs=1e-3)


@pytest.mark.parametrize(("name", "species"), PAIRS)
def test_no_two_sets_of_the_transport_have_one_number(name: str, species: str) -> None:
    table = load_energy_table(load_facility(name), species)
    numbers = np.concatenate([room.transport_set for room in table.rooms.values()])
    assert np.unique(numbers).size == numbers.size == len(table) * len(table.rooms)
    assert numbers.min() >= 1
    assert numbers.max() < 2**31


def test_a_room_that_is_not_in_the_table() -> None:
    with pytest.raises(UsageError, match="no room '9'"):
        load_energy_table(load_facility("wuwei"), "carbon").room("9")


def test_missing_table_and_species() -> None:
    with pytest.raises(UsageError, match="no species 'proton'"):
        load_energy_table(load_facility("wuwei"), "proton")
    other = change_facility(load_facility("wuwei"), {"facility.id": "somewhere"})
    with pytest.raises(ConfigError, match="no energy table 'tables/somewhere-carbon.csv'"):  # noqa: RUF043
        load_energy_table(other, "carbon")
