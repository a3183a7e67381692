"""A facility of one's own: from an empty folder to its scenarios as tests of pytest, as the how-to tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from console.main import run
from facility.errors import UsageError
from rig.scenario.loader import load_all
from rig.scenario.run_virtual import run_one
from tests.scenario.test_reports import FILE

ROOT = Path(__file__).resolve().parents[2]
BY = ("--by", "A. Physicist", "--reason", "first tables")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    assert run(["facility", "copy", "wuwei", "here", "--to", str(folder)]) == 0
    (folder / "scenarios").mkdir()
    own = FILE.replace("[defaults]", '[defaults]\nfacility = "here"')
    (folder / "scenarios" / "mine.toml").write_text(own, encoding="utf-8")
    return folder


def test_each_refusal_names_the_next_step_and_the_last_one_runs(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--config-dir", str(site)]
    steps: list[tuple[str, list[str]]] = [
        ("ionctl table make --facility here", ["table", "make", "--facility", "here"]),
        ("ionctl table approve --facility here", ["table", "approve", "--facility", "here", *BY]),
        ("ionctl machine calibrate --facility here", ["machine", "calibrate", "--facility", "here", "--like", "wuwei"]),
        ("--species spill", ["table", "approve", "--facility", "here", "--species", "spill", *BY]),
    ]
    for told, command in steps:
        assert run([*at, "scenario", "run", "chamber-dies", "--jobs", "1"]) != 0
        said = capsys.readouterr()
        assert told in said.out + said.err
        assert run([*at, *command]) == 0
    done = _pytest(site, "--strict-markers", "-m", "tier_t or rule_chamber_disagreement")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 skipped" in done.stdout
    assert "beam off" in done.stdout  # it was expected off sooner than it can be
    assert "there are no processes" in done.stdout


def _pytest(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    known = any(point.value == "rig.scenario.pytest_plugin" for point in entry_points(group="pytest11"))
    plugin = [] if known else ["-p", "rig.scenario.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-rs", "-q", "-p", "no:cacheprovider", f"--rootdir={site}",
         "--ionctl-target=virtual", "--ionctl-config-dir=site", *options, "site/scenarios"],
        cwd=site.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip


def test_scenarios_of_the_project_are_found_by_id_beside_those_of_the_site(site: Path) -> None:
    assert {one.scenario.id for one in load_all((), site)} == {"chamber-dies", "control-dies"}
    found = load_all(("door-opened", "chamber-dies"), site)
    assert [one.scenario.id for one in found] == ["door-opened", "chamber-dies"]
    with pytest.raises(UsageError, match=r"no scenario 'door-opend'.*did you mean 'door-opened'"):
        load_all(("door-opend",), site)


def test_the_projects_scenarios_move_to_a_facility_without_their_species(site: Path) -> None:
    (moved,) = load_all(("protons-at-pimms",), site, "here")
    assert (moved.scenario.facility, moved.scenario.species) == ("here", None)
    (kept,) = load_all(("protons-at-pimms",), site, "pimms")
    assert kept.scenario.species == "proton"


def test_a_facility_with_hardware_is_skipped_in_virtual_time_and_says_why(site: Path) -> None:
    fitted = """
[external.ic1_hv]
prefix = "HV1:"
address = "127.0.0.1:5074"
setpoint = "Voltage-SP"
readback = "Voltage-RB"
unit = "V"
mode = "constant"
max_age_ms = 40.0
settle_ms = 400.0
"""
    own = (site / "here.toml").read_text(encoding="utf-8").replace('id = "here"', 'id = "wuwei"')
    (site / "fitted.toml").write_text(own + fitted, encoding="utf-8")
    (one,) = load_all((str(site / "scenarios") + "/mine.toml::chamber-dies",), None, str(site / "fitted.toml"))
    result = run_one(one)
    assert (result.verdict, result.reason) == ("skipped", "wuwei gives ic1_hv to hardware: give --target hil")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    from rig.scenario.pytest_plugin import pytest_configure

    class Config:
        def getoption(self, _name: str, default: object = None) -> Path:
            return tmp_path / "sight"

    with pytest.raises(pytest.UsageError, match=r"--ionctl-config-dir: there is no folder .*sight"):
        pytest_configure(Config())  # type: ignore[arg-type]


def test_a_copy_stays_as_it_is_and_lacks_only_what_is_missing(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = ["facility", "copy", "wuwei", "here", "--to", str(site)]
    assert run(copy) == 2
    assert "there already" in capsys.readouterr().err
    (site / "optics" / "here.toml").unlink()
    own = (site / "here.toml").read_text(encoding="utf-8") + "# mine\n"
    (site / "here.toml").write_text(own, encoding="utf-8")
    assert run(copy) == 0
    assert f"wrote {site / 'optics' / 'here.toml'}" in capsys.readouterr().out
    assert (site / "here.toml").read_text(encoding="utf-8") == own
    assert not (site / "interlocks.toml").exists()  # wuwei has no limits of its own


def test_limits_that_are_for_one_facility_alone_go_with_its_copy(site: Path) -> None:
    assert run(["facility", "copy", "pimms", "lab", "--to", str(site)]) == 0
    limits = tomllib.loads((site / "interlocks.toml").read_text(encoding="utf-8"))["override"]
    assert limits["lab-proton"] == limits["pimms-proton"] != {}
    assert run(["facility", "copy", "pimms", "labor", "--to", str(site)]) == 0
    limits = tomllib.loads((site / "interlocks.toml").read_text(encoding="utf-8"))["override"]
    assert limits["labor-proton"] == limits["lab-proton"]


def test_a_facility_under_its_own_name_is_a_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["facility", "copy", "pimms", "pimms", "--to", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pimms.toml"]
    assert "IONCTL_CONFIG" in capsys.readouterr().out
