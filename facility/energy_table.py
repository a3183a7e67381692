"""The frozen energy table: which energies exist, by code, and what each one means.

One CSV per facility and species in `configs/tables/<facility>-<species>.csv`. The header carries the
schema, a version, the hash of the inputs it was computed from and the hash of its own rows; a table that
was edited, that no longer belongs to its facility file, or whose version nobody has approved with this hash
(`facility.table_approval`) is refused. Treatment uses codes, never free energies: code 0 is the lowest energy.

A new one is made by `ionctl table make`, which gives it the next version, and used once `ionctl table approve`
has put it on record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facility.config import Facility, find_config
from facility.constants import ENERGY_TABLE_SCHEMA
from facility.errors import ConfigError, no_such
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import FloatArray, revolution_frequency_hz, rigidity_tm
from facility.room_constants import FORMATS, ROOM_COLUMNS, RoomConstants, column_name, room_columns, rooms_inputs
from facility.table_approval import read_approvals, require_approved

RING_COLUMNS = ("energy_mev_u", "range_mm", "rigidity_tm", "f_rev_hz", "dipole_t", "ramp_ms")
_RING_FORMATS = ("{:.4f}", "{:.4f}", "{:.7f}", "{:.2f}", "{:.7f}", "{:.3f}")


def columns_of(facility: Facility) -> tuple[str, ...]:
    """Head of the table: code, the ring's columns, and those of each room as `name@room`."""
    rooms = (column_name(name, room_id) for room_id in facility.rooms for name in ROOM_COLUMNS)
    return ("code", *RING_COLUMNS, *rooms)


@dataclass(frozen=True, eq=False)
class EnergyTable:
    """Columns of the table as read-only float64 arrays of one length; index = code.

    `hash` is the SHA-256 of the rows. Energies rise with the code. `dipole_t` is the field of the ring's dipoles,
    `ramp_ms` the time of the ramp from injection to the flat top. `rooms` holds what the energy means in each room.
    """

    facility_id: str
    species: str
    version: int
    hash: str
    energy_mev_u: FloatArray
    range_mm: FloatArray
    rigidity_tm: FloatArray
    f_rev_hz: FloatArray
    dipole_t: FloatArray
    ramp_ms: FloatArray
    rooms: Mapping[str, RoomConstants]

    def room(self, room_id: str) -> RoomConstants:
        """The constants of a room, or UsageError with the rooms this table has."""
        try:
            return self.rooms[room_id]
        except KeyError:
            raise no_such("config.no-room", "room", room_id, self.rooms, self.facility_id) from None

    def __len__(self) -> int:
        return int(self.energy_mev_u.size)

    @property
    def range_step_mm(self) -> float:
        """Even step of the ranges, mm."""
        return float(self.range_mm[-1] - self.range_mm[0]) / (len(self) - 1)

    def nearest(self, energy_mev_u: float) -> int:
        """Code whose range is nearest to that of this energy (no limit on the distance)."""
        low, high = float(self.energy_mev_u[0]), float(self.energy_mev_u[-1])
        clipped = min(max(energy_mev_u, low), high)
        wanted = np.interp(clipped, self.energy_mev_u, self.range_mm)
        return int(np.argmin(np.abs(self.range_mm - wanted)))

    def nearest_range(self, range_mm: float) -> int:
        """Code whose range in water is nearest to this one."""
        return int(np.argmin(np.abs(self.range_mm - range_mm)))

    def code_for(self, energy_mev_u: float, tolerance_mm: float | None = None) -> int:
        """Code of a demanded energy.

        Args:
            energy_mev_u: the demand.
            tolerance_mm: greatest difference in range between demand and table; default half a step.

        Raises:
            ConfigError: nothing in the table is that near; the message names the ends and the nearest.
        """
        allowed = 0.5 * self.range_step_mm * (1.0 + 1e-6) if tolerance_mm is None else tolerance_mm
        low, high = float(self.energy_mev_u[0]), float(self.energy_mev_u[-1])
        where = f"energy table {self.facility_id}-{self.species}"
        if not np.isfinite(energy_mev_u) or energy_mev_u <= 0.0:
            raise ConfigError("energy.invalid", f"energy {energy_mev_u!r} MeV/u is no energy", where)
        code = self.nearest(energy_mev_u)
        if low <= energy_mev_u <= high:
            off = abs(float(np.interp(energy_mev_u, self.energy_mev_u, self.range_mm) - self.range_mm[code]))
        else:  # beyond the ends: local slope of the range
            inner = 1 if code == 0 else len(self) - 2
            slope = (self.range_mm[inner] - self.range_mm[code]) / (self.energy_mev_u[inner] - self.energy_mev_u[code])
            off = abs(float((energy_mev_u - self.energy_mev_u[code]) * slope))
        if off > allowed:
            raise ConfigError(
                "energy.not-in-table",
                f"energy {energy_mev_u:g} MeV/u is {off:.2f} mm of range away from the nearest"
                f" ({self.energy_mev_u[code]:.2f} MeV/u, code {code})",
                where,
                f"allowed: {low:.2f} to {high:.2f} MeV/u within {allowed:.2f} mm of range",
            )
        return code


def _inputs_hash(facility: Facility, species: str) -> str:
    """Hash of the figures of the facility file that the table depends on."""
    ion, ring = facility.species_named(species), facility.ring
    data = {
        "schema": ENERGY_TABLE_SCHEMA,
        "ion": [ion.mass_number, ion.charge, ion.mass_u],
        "energies": [ion.energy_min_mev_u, ion.energy_max_mev_u, ion.range_step_mm],
        "spot_sigma": ion.spot_sigma,
        "ring": [
            ring.circumference_m, ring.bending_radius_m, ring.injection_energy_mev_u, ring.phases.ramp_t_per_s
        ],
        **rooms_inputs(facility),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _energies_mev_u(facility: Facility, species: str) -> FloatArray:
    """Ranges in even steps, at least `range_step_mm`, from the lowest to the highest energy."""
    ion = facility.species_named(species)
    first = float(range_water_mm(ion.energy_min_mev_u, ion))
    last = float(range_water_mm(ion.energy_max_mev_u, ion))
    energy = energy_for_range_mev_u(np.linspace(first, last, int((last - first) / ion.range_step_mm) + 1), ion)
    energy[0], energy[-1] = ion.energy_min_mev_u, ion.energy_max_mev_u
    return np.asarray(np.round(energy, 4), dtype=np.float64)


def render_energy_table(facility: Facility, species: str, version: int) -> str:
    """Text of the table, computed from the facility's file."""
    ion = facility.species_named(species)
    energy = _energies_mev_u(facility, species)
    rigidity = rigidity_tm(energy, ion)
    columns: list[tuple[str, FloatArray]] = list(
        zip(
            _RING_FORMATS,
            (
                energy, range_water_mm(energy, ion), rigidity,
                revolution_frequency_hz(energy, ion, facility.ring.circumference_m),
                np.asarray(rigidity / facility.ring.bending_radius_m, dtype=np.float64),
                np.array([facility.ramp_ms(species, float(one)) for one in energy]),
            ),
            strict=True,
        )
    )  # fmt: skip
    for room_id in facility.rooms:
        found = room_columns(facility, species, version, room_id, energy, rigidity)
        columns += [(FORMATS[name], found[name]) for name in ROOM_COLUMNS]
    rows = [
        ",".join([str(code), *(form.format(float(column[code])) for form, column in columns)])
        for code in range(len(energy))
    ]
    body = "\n".join([",".join(columns_of(facility)), *rows]) + "\n"
    header = [
        f"# schema: {ENERGY_TABLE_SCHEMA}",
        f"# facility: {facility.id}",
        f"# species: {species}",
        f"# version: {version}",
        f"# inputs_sha256: {_inputs_hash(facility, species)}",
        f"# sha256: {hashlib.sha256(body.encode()).hexdigest()}",
    ]
    return "\n".join(header) + "\n" + body


def load_energy_table(
    facility: Facility,
    species: str,
    config_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> EnergyTable:
    """Read and verify the table of one species.

    Raises ConfigError: missing, edited (hash), of another facility, computed from other figures than those of this
    facility file, or not approved in this version with these rows.
    """
    facility.species_named(species)
    relative = table_file(facility.id, species)
    source = find_config(relative, config_dir, env)
    if source is None:
        raise ConfigError("energy-table.missing", f"no energy table '{relative}'", "", _how_to_make(facility, species))
    table = parse_energy_table(source.read_text(encoding="utf-8"), facility, species, str(source))
    require_approved(table, read_approvals(config_dir, env), str(source))
    return table


def table_file(facility_id: str, species: str) -> str:
    """Its path within a configuration folder."""
    return f"tables/{facility_id}-{species}.csv"


def _how_to_make(facility: Facility, species: str) -> str:
    options = f"--facility {facility.id} --species {species}"
    return f"make the next version with: ionctl table make {options}, then have it approved (ionctl table approve)"


def parse_energy_table(text: str, facility: Facility, species: str, where: str = "energy table") -> EnergyTable:
    """Verify and parse the text of a table; errors as `load_energy_table`. Who approved it is not asked here."""
    fix = f"restore it, or {_how_to_make(facility, species)}"
    header: dict[str, str] = {}
    lines = text.splitlines(keepends=True)
    position = 0
    while position < len(lines) and lines[position].startswith("# "):
        key, _, value = lines[position][2:].partition(":")
        header[key.strip()] = value.strip()
        position += 1
    expected = {
        "schema": ENERGY_TABLE_SCHEMA,
        "facility": facility.id,
        "species": species,
    }
    for key, value in expected.items():
        if header.get(key) != value:
            raise ConfigError("energy-table.header", f"{key} = {header.get(key)!r}", where, f"must be '{value}'; {fix}")
    version = header.get("version", "")
    if not version.isdecimal() or int(version) < 1:
        raise ConfigError("energy-table.header", f"version = {version!r}", where, f"must be a number from 1 on; {fix}")
    body = "".join(lines[position:])
    digest = hashlib.sha256(body.encode()).hexdigest()
    if header.get("sha256") != digest:
        raise ConfigError("energy-table.edited", "the rows do not match the table's own hash", where, fix)
    if header.get("inputs_sha256") != _inputs_hash(facility, species):
        raise ConfigError("energy-table.stale", "computed from other figures than the facility file holds", where, fix)
    columns = _columns(body, facility, where, fix)
    ring = {name: columns[name] for name in RING_COLUMNS}
    rooms = {
        room_id: RoomConstants(room_id, room.swap_xy, *(columns[column_name(name, room_id)] for name in ROOM_COLUMNS))
        for room_id, room in facility.rooms.items()
    }
    return EnergyTable(facility.id, species, int(version), digest, rooms=rooms, **ring)


def _columns(body: str, facility: Facility, where: str, fix: str) -> dict[str, FloatArray]:
    """The rows as read-only columns by name."""
    rows, heads = body.splitlines(), columns_of(facility)
    if not rows or rows[0] != ",".join(heads):
        raise ConfigError("energy-table.columns", "unexpected columns", where, f"must be {','.join(heads)}")
    try:
        data = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]], dtype=np.float64)
    except ValueError as error:
        raise ConfigError("energy-table.cell", f"not a table of numbers: {error}", where, fix) from None
    shape_ok = data.ndim == 2 and data.shape[1] == len(heads) and data.shape[0] >= 2
    if not shape_ok or not np.array_equal(data[:, 0], np.arange(data.shape[0])):
        raise ConfigError("energy-table.codes", "codes are not 0, 1, 2, ...", where, fix)
    by_column = np.ascontiguousarray(data.T)
    by_column.flags.writeable = False
    return dict(zip(heads, by_column, strict=True))
