"""Who approved which energy or spill table: the record without which none is used.

`tables/approvals.toml` of each configuration folder holds one entry for each version of each table, with the hash of
its rows; entries are added, never changed. A table is used if the newest version on record, in all folders together, is
its own and has its hash. So a changed table needs a new version, and a new version somebody who answers for it.
Spill tables are on the same record, under the species `spill`.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from facility.config.loader import config_roots
from facility.errors import ConfigError, UsageError

SCHEMA = "ionctl.table-approvals/1"
FILE = "tables/approvals.toml"
_KEYS = {"facility": str, "species": str, "version": int, "sha256": str, "by": str, "on": datetime.date, "reason": str}
_LINE = re.compile(r"[^\x00-\x1f\x7f\"\\\\]{1,200}")


SPILL = "spill"
"""Stands in the place of the species for the ring's calibration of the spill."""


class TableLike(Protocol):
    """What is approved of a table (`facility.energy_table.EnergyTable`, `ioc_sim.extraction.table.SpillTable`)."""

    @property
    def facility_id(self) -> str: ...
    @property
    def species(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class Approval:
    """One entry: this version of this table, with rows of this SHA-256, may be used, says `by`, because of `reason`."""

    facility: str
    species: str
    version: int
    sha256: str
    by: str
    on: datetime.date
    reason: str

    def to_toml(self) -> str:
        """The entry as the file holds it."""
        return (
            f'\n[[approval]]\nfacility = "{self.facility}"\nspecies = "{self.species}"\nversion = {self.version}\n'
            f'sha256 = "{self.sha256}"\nby = "{self.by}"\non = {self.on.isoformat()}\nreason = "{self.reason}"\n'
        )


def read_approvals(config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> tuple[Approval, ...]:
    """Entries of all configuration folders, in the order of the files.

    Raises ConfigError for a file that is no record, or two entries of one version that differ in their hash.
    """
    found: dict[tuple[str, str, int], Approval] = {}
    for root in config_roots(config_dir, env):
        source = root.joinpath(*FILE.split("/"))
        if not source.is_file():
            continue
        for entry in _read(source):
            known = found.setdefault((entry.facility, entry.species, entry.version), entry)
            if known.sha256 != entry.sha256:
                raise ConfigError(
                    "table-approval.contradiction",
                    f"{entry.facility}-{entry.species} version {entry.version} is approved with rows "
                    f"{known.sha256[:12]} and with {entry.sha256[:12]}", str(source),
                    "a version stands for one table: take one entry away",
                )  # fmt: skip
    return tuple(found.values())


def _read(source: Traversable) -> tuple[Approval, ...]:
    try:
        return _parsed(source.read_text(encoding="utf-8"), str(source))
    except UnicodeDecodeError as problem:
        raise _not_toml(problem, str(source)) from None


@lru_cache(maxsize=8)
def _parsed(text: str, where: str) -> tuple[Approval, ...]:
    """The entries of a file; every table of every facility asks for the same ones."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _not_toml(problem, where) from None
    entries = data.get("approval", [])
    if data.get("schema") != SCHEMA or not isinstance(entries, list):
        raise ConfigError("table-approval.file", f"schema = {data.get('schema')!r}", where, f"must be '{SCHEMA}'")
    for number, entry in enumerate(entries):
        for key, kind in _KEYS.items():
            if not isinstance(entry, dict) or type(entry.get(key)) is not kind:
                raise ConfigError("table-approval.file", f"{key} of entry {number} is missing or of another kind",
                                  where, f"an entry has {', '.join(_KEYS)}")  # fmt: skip
    return tuple(Approval(**{key: entry[key] for key in _KEYS}) for entry in entries)


def _not_toml(problem: Exception, where: str) -> ConfigError:
    return ConfigError("table-approval.file", f"not TOML: {problem}", where, "restore it")


def of_table(facility_id: str, species: str, approvals: Sequence[Approval]) -> list[Approval]:
    """Entries of one table, oldest version first."""
    mine = [entry for entry in approvals if (entry.facility, entry.species) == (facility_id, species)]
    return sorted(mine, key=lambda entry: entry.version)


def next_version(facility_id: str, species: str, approvals: Sequence[Approval]) -> int:
    """The version that a table made now gets: one after the last on record."""
    mine = of_table(facility_id, species, approvals)
    return mine[-1].version + 1 if mine else 1


def require_approved(table: TableLike, approvals: Sequence[Approval], where: str) -> Approval:
    """The entry that lets a table be used; ConfigError where there is none."""
    mine = of_table(table.facility_id, table.species, approvals)
    options = f"--facility {table.facility_id} --species {table.species}"
    kind, anew = "energy-table", f"ionctl table make {options}"
    if table.species == SPILL:
        kind, anew = "spill-table", f"ionctl machine calibrate --facility {table.facility_id}"
    entry = next((one for one in mine if one.version == table.version), None)
    if entry is None:
        raise ConfigError(
            f"{kind}.unapproved", f"version {table.version} (rows {table.hash[:12]}) is not approved", where,
            f"look at it with: ionctl table show {options}, then: ionctl table approve {options} --by WHO --reason WHY",
        )  # fmt: skip
    if entry.sha256 != table.hash:
        raise ConfigError(
            f"{kind}.changed",
            f"version {table.version} was approved with rows {entry.sha256[:12]}, this table has {table.hash[:12]}",
            where,
            f"a changed table needs a new version: restore it, or: {anew}",
        )  # fmt: skip
    if mine[-1].version > table.version:
        raise ConfigError(
            f"{kind}.superseded", f"version {table.version} has been followed by version {mine[-1].version}",
            where,
            f"use that one, or make the old figures a new version: {anew}",
        )  # fmt: skip
    return entry


def refusal(table: TableLike, approvals: Sequence[Approval], where: str) -> str:
    """Why a table may not be used, in words; empty if it may."""
    try:
        require_approved(table, approvals, where)
    except ConfigError as problem:
        return str(problem)
    return ""


def approve(
    folder: Path, table: TableLike, known: Sequence[Approval], by: str, on: datetime.date, reason: str
) -> Approval:
    """Put a table on the record of a configuration folder.

    Raises:
        UsageError: nobody's name, no reason, or characters that do not fit on the record's one line.
        ConfigError: the version is on record already, or a later one is.
    """
    for name, words in (("by", by), ("reason", reason)):
        if not words.strip() or not _LINE.fullmatch(words):
            raise UsageError(f"table-approval.{name}", f"{name} is {words!r}", "table approve",
                             "give 1 to 200 characters without quotes or line breaks")  # fmt: skip
    mine = of_table(table.facility_id, table.species, known)
    if mine and mine[-1].version >= table.version:
        last = mine[-1]
        same = " with these rows" if last.sha256 == table.hash else f", with rows {last.sha256[:12]}"
        raise ConfigError(
            "table-approval.version",
            f"version {last.version} is on record{same}; this table is version {table.version}",
            f"{table.facility_id}-{table.species}", f"a changed table is version {last.version + 1}: make it anew",
        )  # fmt: skip
    entry = Approval(table.facility_id, table.species, table.version, table.hash, by.strip(), on, reason.strip())
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else f'schema = "{SCHEMA}"\n'
    path.write_text(text + entry.to_toml(), encoding="utf-8")
    return entry
