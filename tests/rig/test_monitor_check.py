"""The daily check of the monitors: a drift of 1 % is found and named, and good ones pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from facility.config import Facility, change_facility, load_facility
from facility.errors import ExitCode
from rig.home import Home
from rig.monitor_check import CHECK_FILE, MONITORS, CheckResult, judge, read, run_check


def checked(facility: Facility, species: str, home: Path) -> CheckResult:
    return run_check(facility, species, next(iter(facility.rooms)), Home(home), "virtual", None, None)


@pytest.mark.parametrize(("name", "species"), [("wuwei", "carbon"), ("pimms", "proton")])
def test_good_monitors_pass(name: str, species: str, tmp_path: Path) -> None:
    found = checked(load_facility(name), species, tmp_path)
    assert found.exit_code is ExitCode.OK
    assert found.check is not None
    assert (found.check.passed, found.check.drifted) == (True, "")
    assert len(found.check.readings) == 3
    assert max(abs(rel) for rel in found.check.mean_rel) < 0.004
    folder = tmp_path / "sessions" / found.delivery.summary["session"]
    told = json.loads((folder / CHECK_FILE).read_text(encoding="utf-8"))
    assert (told["schema"], told["check"]["passed"]) == ("ionctl.monitor-check/1", True)


@pytest.mark.parametrize(("monitor", "drift"), [("ic1", 0.01), ("ic1", -0.01), ("ic2", -0.01), ("backup", 0.01)])
def test_a_drift_of_one_percent_is_found_and_named(monitor: str, drift: float, tmp_path: Path) -> None:
    facility = load_facility("wuwei")
    gain = getattr(facility.chambers, monitor).gain_true
    found = checked(
        change_facility(facility, {f"chambers.{monitor}.gain_true": gain * (1.0 + drift)}), "carbon", tmp_path
    )
    assert found.exit_code is ExitCode.VERIFICATION_FAILED
    assert found.check is not None
    assert found.check.drifted == monitor
    assert found.check.drift_rel == pytest.approx(drift, abs=0.004)


def test_what_the_readings_say() -> None:
    def said(*rows: tuple[float, float, float]) -> tuple[bool, str, str]:
        check = judge([read(100.0 * (k + 1), *row) for k, row in enumerate(rows)])
        return check.passed, check.drifted, check.words

    assert said((1.0, 1.001, 1.003)) == (True, "", "the three agree")
    assert said((1.0, 1.0, 0.99), (2.0, 2.0, 1.98)) == (False, "backup", "backup has drifted by -1.00%")
    assert "no two monitors agree" in said((1.0, 1.01, 0.98))[2]
    one_energy = said((1.0, 1.0, 1.0), (1.0, 1.012, 1.0))
    assert one_energy[:2] == (False, "")
    assert "calibration by energy does not hold: ic2 at 200 MeV/u by +1.20%" in one_energy[2]
    with pytest.raises(ValueError, match="the monitors say"):
        read(100.0, 1.0, math.nan, 1.0)
    assert MONITORS == ("ic1", "ic2", "backup")
