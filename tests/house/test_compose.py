"""docker-compose.yml and Dockerfile, judged without an engine; what the services start is started for real."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from facility.config import load_facility
from rig.run_dir import NAMES, is_alive, read_run_file

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "docker/service.py"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def test_services(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {*NAMES, "mosquitto"}
    for name in NAMES:
        service = services[name]
        assert service["command"] == [name]
        assert service["restart"] == "no", "nothing that can arm beam is restarted by itself"
        assert service["volumes"] == ["home:/data"], "they share the home"
        assert service["healthcheck"]["test"][-2:] == ["--ready", name]
        assert "privileged" not in service
    assert services["safety"]["network_mode"] == services["control"]["network_mode"] == "service:plant"
    assert "network_mode" not in services["mosquitto"], "telemetry has no part in the link between the three"
    assert "volumes" not in services["mosquitto"]


def test_each_waits_for_the_one_before_it(compose: dict[str, Any]) -> None:
    for before, name in itertools.pairwise(NAMES):
        assert compose["services"][name]["depends_on"][before]["condition"] == "service_healthy"


def test_settings_are_those_that_the_entry_point_reads(compose: dict[str, Any]) -> None:
    read = set(re.findall(r"IONCTL_[A-Z]+", SERVICE.read_text(encoding="utf-8")))
    settings = compose["services"]["plant"]["environment"]
    assert set(settings) <= read
    facility = load_facility(settings["IONCTL_FACILITY"])
    assert settings["IONCTL_ROOM"] in facility.rooms
    assert settings["IONCTL_SPECIES"] in facility.species


def test_dockerfile_copies_what_there_is() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    sources = [
        word
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in shlex.split(line)[1:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists(), f"COPY {source}"
        assert f"!{source.split('/')[0]}" in ignored, f"{source} does not reach the build"
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= set(sources), "every package of the wheel"
    assert 'ENTRYPOINT ["python", "/opt/ionctl/service.py"]' in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE), "not root"


@pytest.mark.ca
@pytest.mark.slow
def test_the_entry_points_bring_a_facility_up_and_down(tmp_path: Path, compose: dict[str, Any]) -> None:
    env = os.environ | compose["services"]["plant"]["environment"] | {"IONCTL_HOME": str(tmp_path), "IONCTL_MQTT": ""}
    folder = tmp_path / "run" / env["IONCTL_FACILITY"]
    children: dict[str, subprocess.Popen[bytes]] = {}
    logs = {name: (tmp_path / f"{name}.log").open("wb") for name in NAMES}
    try:
        for name in reversed(NAMES):  # in any order: each waits for the one before it
            command = [sys.executable, str(SERVICE), name]
            children[name] = subprocess.Popen(command, env=env, cwd=ROOT, stdout=logs[name], stderr=logs[name])
        health = subprocess.run(
            [sys.executable, "-c", WAIT, str(SERVICE), NAMES[-1]],
            env=env,
            cwd=ROOT,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        said = "\n".join((tmp_path / f"{name}.log").read_text(encoding="utf-8")[-2000:] for name in NAMES)
        assert health.returncode == 0, said
        run = read_run_file(folder)
        assert run is not None
        assert len(set(run.ca_addresses)) == len(NAMES), "each Channel Access server has a port of its own"
        for name in reversed(NAMES):
            children[name].send_signal(signal.SIGTERM)
            assert children[name].wait(STOP_TIMEOUT_S) == 0, (tmp_path / f"{name}.log").read_text(encoding="utf-8")[
                -2000:
            ]
            assert not is_alive(folder, name)
    finally:
        end(children, folder)
        for log in logs.values():
            log.close()


def end(children: dict[str, subprocess.Popen[bytes]], folder: Path) -> None:
    """Leave nothing behind, whatever went wrong."""
    for child in children.values():
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    for process in Path("/proc").glob("[0-9]*"):  # also what has not come so far that the run file names it
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


WAIT = """
import subprocess, sys, time
for _ in range(300):
    if subprocess.run([sys.executable, sys.argv[1], "--ready", sys.argv[2]]).returncode == 0:
        sys.exit(0)
    time.sleep(0.2)
sys.exit(1)
"""
