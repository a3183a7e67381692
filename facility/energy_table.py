"""The frozen energy table: which energies exist, by code, and what each one means.

One CSV per facility and species in `configs/tables/<facility>-<species>.csv`. The header carries the
schema, a version, the hash of the inputs it was computed from and the hash of its own rows; a table that
was edited, or that no longer belongs to its facility file, is refused. Treatment uses codes, never free
energies: code 0 is the lowest energy.

Regenerate with `python -m facility.energy_table wuwei` (writes into the configuration folder in use).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facility.config import Facility, config_roots, find_config, load_facility
from facility.constants import ENERGY_TABLE_SCHEMA
from facility.errors import ConfigError, IonctlError
from facility.physics.chamber import charge_per_ion_fc
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import FloatArray, revolution_frequency_hz, rigidity_tm
from facility.physics.transport import spot_sigma_mm

COLUMNS = (
    "code", "energy_mev_u", "range_mm", "rigidity_tm", "f_rev_hz",
    "charge_per_ion_ic1_fc", "charge_per_ion_ic2_fc", "spot_sigma_mm",
)  # fmt: skip
TABLE_VERSION = 1


@dataclass(frozen=True, eq=False)
class EnergyTable:
    """Columns of the table as read-only float64 arrays of one length; index = code.

    `hash` is the SHA-256 of the rows. Energies rise with the code.
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
        "version": TABLE_VERSION,
        "ion": [ion.mass_number, ion.charge, ion.mass_u],
        "energies": [ion.energy_min_mev_u, ion.energy_max_mev_u, ion.range_step_mm],
        "spot_sigma": ion.spot_sigma,
        "circumference_m": facility.ring.circumference_m,
        "chambers": [
            [ic.gas, ic.gap_mm, ic.w_ev, ic.density_g_cm3] for ic in (facility.chambers.ic1, facility.chambers.ic2)
        ],
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def render_energy_table(facility: Facility, species: str) -> str:
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
        charge_per_ion_fc(energy, ion, facility.chambers.ic1),
        charge_per_ion_fc(energy, ion, facility.chambers.ic2),
        spot_sigma_mm(energy, ion),
    )
    formats = ("{:.4f}", "{:.7f}", "{:.2f}", "{:.7f}", "{:.7f}", "{:.4f}")
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
        f"# version: {TABLE_VERSION}",
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

    Raises ConfigError: missing, edited (hash), of another facility, or computed from other figures than
    those of this facility file.
    """
    facility.species_named(species)
    relative = f"tables/{facility.id}-{species}.csv"
    fix = f"regenerate it with: python -m facility.energy_table {facility.id}"
    source = find_config(relative, config_dir, env)
    if source is None:
        raise ConfigError("energy-table.missing", f"no energy table '{relative}'", "", fix)
    return parse_energy_table(source.read_text(encoding="utf-8"), facility, species, str(source))


def parse_energy_table(text: str, facility: Facility, species: str, where: str = "energy table") -> EnergyTable:
    """Verify and parse the text of a table; errors as `load_energy_table`."""
    fix = f"restore it, or regenerate it with: python -m facility.energy_table {facility.id}"
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
        "version": str(TABLE_VERSION),
    }
    for key, value in expected.items():
        if header.get(key) != value:
            raise ConfigError("energy-table.header", f"{key} = {header.get(key)!r}", where, f"must be '{value}'; {fix}")
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
    return EnergyTable(facility.id, species, int(header["version"]), digest, *columns)


def main(arguments: list[str]) -> int:
    """Write the tables of the named facilities into the first configuration folder; exit code."""
    try:
        for name in arguments:
            facility = load_facility(name)
            root = config_roots()[0]
            for species in facility.species:
                path = Path(str(root)) / "tables" / f"{facility.id}-{species}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(render_energy_table(facility, species), encoding="utf-8")
                sys.stdout.write(f"{path}\n")
    except IonctlError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
