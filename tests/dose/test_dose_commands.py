"""`ionctl machine range`, `bragg` and `ionctl dose`, with numbers and pictures; the truth that a session leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from console.main import run
from control.plan.dicom_writer import write_dicom_plan
from control.plan.load import load_plan
from control.plan.maker import make_small_plan
from dose import reference
from dose.reference import matrad_curves, own_curves
from facility.config import load_facility
from facility.errors import ConfigError
from rig.truth_log import read_truth_log

TABLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "tables"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert run(list(words)) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IONCTL_HOME", str(tmp_path / "home"))
    path = tmp_path / "small.dcm"
    write_dicom_plan(make_small_plan(load_facility("wuwei"), "carbon"), path)
    return path


def test_a_session_leaves_its_truth_and_its_dose_passes(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = said(capsys, "deliver", str(small), "--qa", "--target", "virtual", "--json")
    files = result["files"]
    assert isinstance(files, dict)
    log = read_truth_log(Path(files["truth"]))
    plan = load_plan(small)
    assert log.columns["ions"].size == plan.n_spots
    assert log.columns["ions"].sum() == pytest.approx(result["delivered"], rel=1e-9)
    assert np.abs(log.columns["ions"] / log.columns["target_ions"] - 1.0).max() < 0.05
    assert (
        np.hypot(log.columns["x_true_mm"] - log.columns["x_mm"], log.columns["y_true_mm"] - log.columns["y_mm"]).max()
        < 1
    )
    plot = small.parent / "dose.png"
    session = str(result["session"])
    found = said(capsys, "dose", session, "--step-mm", "3", "--plot", str(plot), "--json")
    planned, delivered, index = (found[key] for key in ("planned", "delivered", "gamma"))
    assert isinstance(planned, dict) and isinstance(delivered, dict) and isinstance(index, dict)  # noqa: PT018
    assert delivered["ions"] == pytest.approx(planned["ions"], rel=0.005)
    assert delivered["highest_gy"] == pytest.approx(planned["highest_gy"], rel=0.02)
    assert index["pass_pct"] == 100.0
    assert index["voxels"] > 100
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run(["dose", session, "--facility", "pimms"]) == 3
    assert "--facility wuwei" in capsys.readouterr().err
    assert run(["dose", session, "--beam", "7"]) == 2
    assert "known: 1" in capsys.readouterr().err


def test_a_shifted_session_does_not_pass(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Truth alone decides: spots that lie 3 mm aside fail, whatever the monitors have said."""
    from dose.field import Grid, dose_on_grid
    from dose.gamma import gamma
    from rig.dose_desk import fields_of_log

    result = said(capsys, "deliver", str(small), "--qa", "--target", "virtual", "--json")
    files = result["files"]
    assert isinstance(files, dict)
    log = read_truth_log(Path(files["truth"]))
    log.columns["x_true_mm"] = log.columns["x_true_mm"] + 3.0
    planned, delivered = fields_of_log(log, load_facility("wuwei"), 1)
    grid = Grid.around(planned, 3.0)
    found = gamma(dose_on_grid(planned, grid), dose_on_grid(delivered, grid), (3.0, 3.0, 3.0))
    assert found.pass_pct < 90.0


def test_dose_of_a_plan(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "dose", str(small), "--step-mm", "2", "--json")
    planned = found["planned"]
    assert isinstance(planned, dict)
    assert found["schema"] == "ionctl.dose/1"
    assert planned["highest_gy"] == pytest.approx(0.5, rel=0.15)
    assert found["delivered"] is None
    assert run(["dose", str(small)]) == 0
    assert "highest dose, Gy" in capsys.readouterr().out


def test_a_file_that_is_no_truth_log(tmp_path: Path) -> None:
    (tmp_path / "truth.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="no truth"):
        read_truth_log(tmp_path / "truth.parquet")


@pytest.mark.parametrize(("facility", "species"), [("wuwei", "carbon"), ("pimms", "proton")])
def test_ranges_and_curves(facility: str, species: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--facility", facility, "--species", species)
    ranges = said(capsys, "machine", "range", *common, "--plot", str(tmp_path / "r.png"), "--json")
    reach = ranges["range_mm"]
    assert isinstance(reach, list)
    assert reach == sorted(reach)
    curve = said(capsys, "machine", "bragg", *common, "--energy", "150", "--plot", str(tmp_path / "b.png"), "--json")
    peak, parts = curve["peak"], curve["dose_mev_cm2_g"]
    assert isinstance(peak, dict) and isinstance(parts, dict)  # noqa: PT018
    total = np.sum([parts[name] for name in ("primary", "heavy", "light", "local")], axis=0)
    assert total.max() == pytest.approx(peak["height"], rel=0.02)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("r.png", "b.png"))
    assert run(["machine", "bragg", *common, "--energy", "150"]) == 0
    assert run(["machine", "range", *common]) == 0
    told = capsys.readouterr().out
    assert "range mm" in told
    assert "from ICRU 90 (I = 78 eV) at 2 energies" in told  # some rows of it stand beside without any file


def test_a_published_curve_stands_beside_ours_without_any_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Of those that come with the product, which are matRad's, one of nearly this energy."""
    beside = said(capsys, "machine", "bragg", "--energy", "250", "--json")["reference"]
    assert isinstance(beside, dict)
    assert beside["energy_mev_u"] == pytest.approx(250.0, abs=3.0)
    assert beside["peak"]["depth_mm"] == pytest.approx(125.0, abs=3.0)
    common = ("machine", "bragg", "--facility", "pimms", "--species", "proton", "--energy", "150", "--json")
    assert said(capsys, *common)["reference"] is None
    if (TABLES / "carbon_Generic.mat").is_file():
        for own, whole in zip(own_curves(), matrad_curves(TABLES)[::2], strict=True):
            assert own.energy_mev_u == pytest.approx(whole.energy_mev_u, rel=1e-5)
            assert own.dose == pytest.approx(whole.dose, rel=1e-4)


def test_curves_that_were_edited_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = tmp_path / "curves.csv"
    edited.write_text(reference.OWN_CURVES.read_text(encoding="utf-8").replace("9", "8", 100), encoding="utf-8")
    monkeypatch.setattr(reference, "OWN_CURVES", edited)
    with pytest.raises(ConfigError, match="own hash"):
        own_curves()


def test_published_tables_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (TABLES / "carbon_Generic.mat").is_file():
        pytest.skip("reference table carbon_Generic.mat is not on this machine")
    found = said(capsys, "machine", "bragg", "--energy", "280", "--reference", str(TABLES), "--json")
    beside = found["reference"]
    assert isinstance(beside, dict)
    assert beside["energy_mev_u"] == pytest.approx(279.97)
    assert run(["machine", "range", "--reference", str(TABLES)]) == 0
    assert "from ICRU 90" in capsys.readouterr().out
    assert run(["machine", "bragg", "--energy", "420", "--reference", str(TABLES)]) == 2
    assert "nearest published curve" in capsys.readouterr().err
