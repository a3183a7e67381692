"""The wheel by itself: built, installed in an empty environment outside the tree, and the demo run from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from console.own_packages import OWN_PACKAGES as PACKAGES
from rig.broker import find_mosquitto

ROOT = Path(__file__).resolve().parents[2]
INSTALL_TIMEOUT_S = 280.0
DEMO_TIMEOUT_S = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(command: list[str], folder: Path, timeout_s: float, **env: str) -> subprocess.CompletedProcess[str]:
    """Run outside the tree, without this environment's variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EPICS", "VIRTUAL_ENV", "COV"))}
    return subprocess.run(
        command, cwd=folder, env=kept | env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = run(command, folder, 120.0)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("ionctl-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an environment that holds the wheel and its dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    made = run([sys.executable, "-m", "venv", str(folder / "env")], folder, 120.0)
    assert made.returncode == 0, made.stderr
    pip = [str(folder / "env/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    limits = ["--no-compile", "--only-binary", ":all:", "-c", str(ROOT / "constraints.txt")]
    done = run([*pip, *limits, str(wheel)], folder, INSTALL_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return folder


def test_wheel_holds_all_code_and_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith("ionctl-")}
        licences = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    assert licences, "the licence is in the wheel"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    wanted = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert wanted <= held, f"not in the wheel: {sorted(wanted - held)}"
    assert {name.split("/")[0] for name in held} == set(PACKAGES), "nothing else is in the wheel"


@pytest.mark.ca
def test_demo_runs_from_the_wheel(installed: Path) -> None:
    """The demo, as a stranger runs it: one command, real processes, real sockets, nothing of this tree."""
    env = {"IONCTL_HOME": str(installed / "home")}
    ionctl = str(installed / "env/bin/ionctl")
    listed = run([ionctl, "pvs", "--json"], installed, 60.0, **env)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) > 50
    done = run([ionctl, "demo"], installed, DEMO_TIMEOUT_S, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout
    assert "No interlock took the beam." in done.stdout
    assert ("telemetry by MQTT" if find_mosquitto() else "mosquitto is not installed") in done.stderr
    for words in ("spot log: ", "events: ", "summary: ", "plan: "):
        line = next(line for line in done.stdout.splitlines() if line.startswith(words))
        left_there = Path(line.removeprefix(words))
        assert left_there.is_relative_to(installed / "home")
        assert left_there.exists(), "the demo names the files it left"
    assert not (installed / "home/run/wuwei/run.json").exists()
    left = run([ionctl, "status", "--json"], installed, 60.0, **env)
    assert left.returncode == 6, "nothing runs on after the demo"
