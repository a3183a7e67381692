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
from facility.config.delivery import BackupCounter, Chamber
from facility.constants import ENERGY_TABLE_SCHEMA
from facility.errors import ConfigError
from facility.physics.chamber import charge_per_ion_fc
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import FloatArray, revolution_frequency_hz, rigidity_tm
from facility.physics.transport import spot_sigma_mm
from facility.table_approval import read_approvals, require_approved

COLUMNS = (
    "code", "energy_mev_u", "range_mm", "rigidity_tm", "f_rev_hz",
    "charge_per_ion_ic1_fc", "charge_per_ion_ic2_fc", "charge_per_ion_backup_fc", "spot_sigma_mm",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class EnergyTable:
    """Columns of the table as read-only float64 arrays of one length; index = code.

    `hash` is the SHA-256 of the rows. Energies rise with the code. Charges per ion are at reference conditions, with
    the monitors' calibration by energy in them.
    """

    facility_id: str
    species: str
    version: int
    hash: str
    energy_mev_u: FloatArray
    range_mm: FloatArray
    rigidity_tm: FloatArray
    f_rev_hz: FloatArray
    charge_per_ion_ic1_fc: FloatArray
    charge_per_ion_ic2_fc: FloatArray
    charge_per_ion_backup_fc: FloatArray
    spot_sigma_mm: FloatArray

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
    ion = facility.species_named(species)
    data = {
        "schema": ENERGY_TABLE_SCHEMA,
        "ion": [ion.mass_number, ion.charge, ion.mass_u],
        "energies": [ion.energy_min_mev_u, ion.energy_max_mev_u, ion.range_step_mm],
        "spot_sigma": ion.spot_sigma,
        "circumference_m": facility.ring.circumference_m,
        "monitors": [
            [monitor.gas, monitor.gap_mm, monitor.w_ev, monitor.density_g_cm3, monitor.calibration]
            for monitor in _monitors(facility)
        ],
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _monitors(facility: Facility) -> tuple[Chamber, Chamber, BackupCounter]:
    return facility.chambers.ic1, facility.chambers.ic2, facility.chambers.backup


def render_energy_table(facility: Facility, species: str, version: int) -> str:
    """Text of the table: ranges in even steps, at least `range_step_mm`, from the lowest to the highest energy."""
    ion = facility.species_named(species)
    first = float(range_water_mm(ion.energy_min_mev_u, ion))
    last = float(range_water_mm(ion.energy_max_mev_u, ion))
    count = int((last - first) / ion.range_step_mm) + 1
    ranges = np.linspace(first, last, count)
    energy = energy_for_range_mev_u(ranges, ion)
    energy[0], energy[-1] = ion.energy_min_mev_u, ion.energy_max_mev_u
    energy = np.round(energy, 4)
    columns = (
        range_water_mm(energy, ion),
        rigidity_tm(energy, ion),
        revolution_frequency_hz(energy, ion, facility.ring.circumference_m),
        *(charge_per_ion_fc(energy, ion, monitor) * monitor.calibrated(energy) for monitor in _monitors(facility)),
        spot_sigma_mm(energy, ion),
    )
    formats = ("{:.4f}", "{:.7f}", "{:.2f}", "{:.7f}", "{:.7f}", "{:.7f}", "{:.4f}")
    rows = [
        ",".join(
            [str(code), f"{energy[code]:.4f}"]
            + [form.format(float(column[code])) for form, column in zip(formats, columns, strict=True)]
        )
        for code in range(count)
    ]
    body = "\n".join([",".join(COLUMNS), *rows]) + "\n"
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
    rows = body.splitlines()
    if not rows or rows[0] != ",".join(COLUMNS):
        raise ConfigError("energy-table.columns", "unexpected columns", where, f"must be {','.join(COLUMNS)}")
    try:
        data = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]], dtype=np.float64)
    except ValueError as error:
        raise ConfigError("energy-table.cell", f"not a table of numbers: {error}", where, fix) from None
    shape_ok = data.ndim == 2 and data.shape[1] == len(COLUMNS) and data.shape[0] >= 2
    if not shape_ok or not np.array_equal(data[:, 0], np.arange(data.shape[0])):
        raise ConfigError("energy-table.codes", "codes are not 0, 1, 2, ...", where, fix)
    columns = [np.ascontiguousarray(data[:, k]) for k in range(1, len(COLUMNS))]
    for column in columns:
        column.flags.writeable = False
    return EnergyTable(facility.id, species, int(version), digest, *columns)
