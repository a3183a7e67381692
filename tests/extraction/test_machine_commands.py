"""`ionctl machine spill`, `separatrix` and `calibrate`, with numbers and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.main import run
from ioc_sim.extraction.points import Effort, Point


def test_spill_gives_numbers_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "spill.png"
    words = [
        "machine",
        "spill",
        "--particles",
        "1500",
        "--turns",
        "24000",
        "--drive",
        "2",
        "--plot",
        str(plot),
        "--json",
    ]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ionctl.spill-study/1"
    assert sum(found["counts"].values()) == 1500
    assert found["facility"] == "wuwei"
    assert len(found["stop"]["time_s"]) == len(found["stop"]["rate_rel"]) > 50
    assert 2e-5 < found["transit"]["quantiles_s"]["0.5"] < 5e-4
    assert found["live"]["no_loop"]["duty_factor_10khz"] < 0.75 < 0.88 < found["live"]["loop"]["duty_factor_10khz"]
    lines = found["live"]["no_loop"]["spectrum"]
    assert 295.0 < lines["frequency_hz"][lines["amplitude_rel"][4:].index(max(lines["amplitude_rel"][4:])) + 4] < 305.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_separatrix_gives_numbers_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "separatrix.png"
    assert run(["machine", "separatrix", "--facility", "pimms", "--plot", str(plot), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tune_distance"] == pytest.approx(0.001)
    assert abs(found["area_error_rel"]) < 0.05
    assert found["step_mm"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_septum_inside_the_triangle_has_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "separatrix", "--distance", "0.008", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step_error_rel"] is None
    assert not found["step_mm"]


def test_separatrix_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "separatrix"]) == 0
    out = capsys.readouterr().out
    assert "stable area" in out
    assert "Kobayashi" in out


def test_too_few_ions_are_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "spill", "--particles", "1000", "--turns", "20000", "--drive", "0.1"]) == 3
    assert "more particles, more turns or a stronger drive" in capsys.readouterr().err


def test_calibrate_stores_what_it_has_found_and_check_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command around a calibration that is made of one small point."""
    few = Effort(2000, 1, 4000, 12)
    monkeypatch.setattr("console.calibration.POINTS", {"betatron": (Point(0.5, 1.0, few, few),)})
    stored = tmp_path / "pimms-spill.csv"
    assert run(["machine", "calibrate", "--facility", "pimms", "--output", str(stored)]) == 0
    out, err = capsys.readouterr()
    assert "mean_turns" in out
    assert "Operating points" in out
    assert "version 5, refused: not approved yet: ionctl table approve --facility pimms --species spill" in out
    assert "pimms, carbon of 258 MeV/u, drive 1" in err
    assert stored.read_text().startswith("# schema: ionctl.spill-table/3\n# facility: pimms\n")
    assert run(["machine", "calibrate", "--facility", "pimms", "--check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "ionctl.spill-calibration/1"
    assert found["model"]["kind"] == "betatron"
    assert (found["version"], found["refused"]) == (4, "")
    folder = tmp_path / "configuration"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "wuwei-spill.csv").write_text(stored.read_text())
    assert run(["--config-dir", str(folder), "machine", "calibrate", "--check"]) == 3
    assert "facility = 'pimms'" in capsys.readouterr().err
