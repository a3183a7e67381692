"""The demo, as a stranger runs it: one command, real processes, real sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rig.broker import find_mosquitto

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ca
@pytest.mark.slow
def test_demo(tmp_path):
    env = {**os.environ, "IONCTL_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "console.main", "demo"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    assert "No interlock took the beam." in done.stdout
    expected = "telemetry by MQTT" if find_mosquitto() else "mosquitto is not installed"
    assert expected in done.stderr
    for words in ("spot log: ", "events: ", "summary: ", "plan: "):
        line = next(line for line in done.stdout.splitlines() if line.startswith(words))
        assert Path(line.removeprefix(words)).exists()
    assert not (tmp_path / "home" / "run" / "wuwei" / "run.json").exists()
