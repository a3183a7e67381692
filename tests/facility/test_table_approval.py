"""A table is used in the version that is on record, with the rows that are on record, and in no other."""

from __future__ import annotations

import dataclasses
import datetime
from importlib import resources
from pathlib import Path

import pytest

from facility.config import change_facility, load_facility
from facility.energy_table import EnergyTable, load_energy_table, parse_energy_table, render_energy_table
from facility.errors import ConfigError, UsageError
from facility.table_approval import FILE, approve, of_table, read_approvals, require_approved

WUWEI = load_facility("wuwei")
DAY = datetime.date(2026, 11, 30)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A configuration folder with a changed table of version 4 that nobody has approved."""
    other = change_facility(WUWEI, {"chambers.ic1.calibration": ((120.0, 1.01), (400.0, 1.0))})
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "wuwei-carbon.csv").write_text(render_energy_table(other, "carbon", 4), encoding="utf-8")
    (tmp_path / "wuwei.toml").write_text(
        resources.files("configs")
        .joinpath("wuwei.toml")
        .read_text(encoding="utf-8")
        .replace(
            "calibration = [[120.0, 1.004], [250.0, 1.0], [400.0, 0.997]]",
            "calibration = [[120.0, 1.01], [400.0, 1.0]]",
        ),
        encoding="utf-8",
    )
    return tmp_path


def load(folder: Path) -> EnergyTable:
    return load_energy_table(load_facility("wuwei", folder, {}), "carbon", folder, {})


def test_every_table_that_is_shipped_is_on_record() -> None:
    record = read_approvals(env={})
    for name in ("wuwei", "lanzhou", "himm-mee", "pimms"):
        facility = load_facility(name)
        for species in facility.species:
            table = load_energy_table(facility, species)
            entry = require_approved(table, record, "")
            assert (entry.version, entry.sha256) == (table.version, table.hash)
            assert [one.version for one in of_table(name, species, record)] == [1, 2, 3]


def test_a_new_version_is_refused_until_somebody_answers_for_it(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"version 4 \(rows [0-9a-f]{12}\) is not approved.*table approve"):
        load(own)
    facility = load_facility("wuwei", own, {})
    table = parse_energy_table((own / "tables" / "wuwei-carbon.csv").read_text(), facility, "carbon")
    entry = approve(own, table, read_approvals(own, {}), "A. Physicist", DAY, "chamber 1 calibrated anew")
    assert load(own).version == 4
    assert read_approvals(own, {})[0] == entry
    assert [one.version for one in of_table("wuwei", "carbon", read_approvals(own, {}))] == [1, 2, 3, 4]
    # the shipped table, version 3, is good where version 4 is not known, and superseded where it is
    shipped = load_energy_table(WUWEI, "carbon", None, {})
    with pytest.raises(ConfigError, match="version 3 has been followed by version 4"):
        require_approved(shipped, read_approvals(own, {}), "")
    with pytest.raises(ConfigError, match="version 4 is on record with these rows"):
        approve(own, table, read_approvals(own, {}), "B", DAY, "again")


def test_a_changed_table_of_an_approved_version_is_refused(own: Path) -> None:
    path = own / "tables" / "wuwei-carbon.csv"
    path.write_text(path.read_text().replace("# version: 4", "# version: 3"))
    with pytest.raises(
        ConfigError, match=r"version 3 was approved with rows .* needs a new version: .*ionctl table make"
    ):
        load(own)
    facility = load_facility("wuwei", own, {})
    table = parse_energy_table(path.read_text(), facility, "carbon")
    with pytest.raises(ConfigError, match="a changed table is version 4"):
        approve(own, table, read_approvals(own, {}), "A", DAY, "changed on the quiet")


def test_what_is_no_record_is_refused(own: Path) -> None:
    shipped = load_energy_table(WUWEI, "carbon", None, {})
    table = dataclasses.replace(shipped, version=3)
    for by, reason in (("", "why"), ("A", " "), ('A"', "why"), ("A", "one\ntwo"), ("A", "x" * 201)):
        with pytest.raises(UsageError, match="1 to 200 characters"):
            approve(own, table, (), by, DAY, reason)
    assert not (own / FILE).exists()
    good = 'schema = "ionctl.table-approvals/1"\n' + approve(own, table, (), "A", DAY, "why").to_toml()
    for words, text in {
        "not TOML": "schema = ",
        "must be 'ionctl.table-approvals/1'": good.replace("approvals/1", "approvals/2"),
        "version of entry 0": good.replace("version = 3", 'version = "3"'),
        "on of entry 0": good.replace("on = 2026-11-30", "on = 2026-11-30T10:00:00"),
        "is approved with rows": good
        + approve(own, dataclasses.replace(table, version=4), (), "A", DAY, "w")
        .to_toml()
        .replace("version = 4", "version = 3")
        .replace(table.hash, "0" * 64),
    }.items():
        (own / FILE).write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_approvals(own, {})
