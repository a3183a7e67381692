"""A C soft IOC as scanning supply and one as high-voltage supply, in a delivery over real processes: one is stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ca, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def test_a_supply_that_is_stopped_takes_the_beam_and_the_field_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rig.external.trial", "--home", str(tmp_path / "home"), "--per-side", "3",
               "--mode", "table", "--deeds", "supply stopped"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["problem"] == "", said
    assert (said["status"], said["spots_within"]) == ("completed", 9)
    assert [one["rule"] for one in said["outcomes"]] == ["external-device"]
    assert said["outcomes"][0]["off_ms"] <= said["outcomes"][0]["bound_ms"]
    assert sum(said["pacing"]["slices_by_lateness"].values()) > 0
