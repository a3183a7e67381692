"""Run directory: a process id is believed only while its process holds the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from facility.config import load_facility
from facility.errors import ChannelError, ConfigError
from rig.children import error_from_dict, stop, wait_ready
from rig.hang_watch import is_stopped
from rig.home import find_home
from rig.run_dir import CONFIG_FILE, Lock, RunFile, is_alive, read_run_file

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import signal, sys
from pathlib import Path
from rig.run_dir import CONFIG_FILE, Lock
lock = Lock(Path(sys.argv[1]), "plant")
def orderly(number, frame):
    lock.note_end()
    lock.release()
    sys.exit(0)
if sys.argv[2] != "careless":
    signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else orderly)
if sys.argv[2] == "failing":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(70))
print("READY {}", flush=True)
while True:
    signal.pause()
"""


def holder(folder: Path, manner: str = "polite") -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), manner], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    wait_ready(child, "plant", folder / "log", 30.0)
    return child


@pytest.fixture
def run_file() -> RunFile:
    return RunFile("wuwei", "abc", "1", "carbon", 1, 5.0, 1e9, {"plant": {"pid": 7, "ca_port": 5070}})


def test_lock_is_exclusive_and_released(tmp_path):
    assert not is_alive(tmp_path, "plant")
    lock = Lock(tmp_path, "plant")
    assert is_alive(tmp_path, "plant")
    with pytest.raises(ChannelError, match="already runs"):
        Lock(tmp_path, "plant")
    lock.release()
    assert not is_alive(tmp_path, "plant")


def test_a_killed_process_is_not_alive_though_its_pid_file_remains(tmp_path):
    child = holder(tmp_path)
    assert is_alive(tmp_path, "plant")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    assert not is_alive(tmp_path, "plant")
    log = f"see {tmp_path}/plant.log"
    assert stop(tmp_path, "plant", child.pid) == f"was gone, not by an orderly end: {log}"
    assert stop(tmp_path, "plant", child.pid, child) == f"was gone, ended by SIGKILL: {log}"
    child.stdout.close()


def test_stop_asks_first(tmp_path):
    child = holder(tmp_path)
    assert stop(tmp_path, "plant", child.pid, child) == "stopped"
    assert child.returncode == 0
    assert stop(tmp_path, "plant", child.pid) == "was gone"
    child.stdout.close()


@pytest.mark.parametrize(("manner", "how"), [("careless", "ended by SIGTERM"), ("failing", "exit code 70")])
def test_stop_says_how_a_child_ended_that_had_no_orderly_end(tmp_path, manner, how):
    child = holder(tmp_path, manner)
    assert stop(tmp_path, "plant", child.pid, child) == f"stopped, {how}: see {tmp_path}/plant.log"
    child.stdout.close()


def test_stop_says_of_a_process_of_another_console_that_it_had_no_orderly_end(tmp_path):
    child = holder(tmp_path, "careless")
    assert stop(tmp_path, "plant", child.pid) == f"stopped, not by an orderly end: see {tmp_path}/plant.log"
    child.wait(30)
    child.stdout.close()


def test_a_stopped_process_is_ended_too(tmp_path):
    child = holder(tmp_path)
    os.kill(child.pid, signal.SIGSTOP)
    assert stop(tmp_path, "plant", child.pid, child) == "stopped"
    child.stdout.close()


def test_stop_kills_what_does_not_listen(tmp_path, monkeypatch):
    monkeypatch.setattr("rig.children.STOP_TIMEOUT_S", 0.2)
    child = holder(tmp_path, "stubborn")
    assert stop(tmp_path, "plant", child.pid, child).startswith("killed, for it did not listen: see ")
    child.stdout.close()


HANGING = """
import asyncio, signal, sys, threading
from types import SimpleNamespace
from rig.processes import common

async def main(launch):
    common.HANG_S, common._TURN_S = (2 if launch.seed == 3 else 1), 0.01
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lock = threading.Lock()
    if launch.seed != 3:
        common.say_ready(launch)
    if launch.seed == 1:
        hang(lock)

    async def work():
        if launch.seed == 3:
            await asyncio.sleep(0.1)  # the loop is watched by now
            common.say_ready(launch)
            await asyncio.Event().wait()
        await asyncio.sleep(1.5)  # longer than a loop may hang: this one turns
        hang(lock)

    server = SimpleNamespace(task=asyncio.create_task(asyncio.Event().wait()))
    async with common.stop_signal() as stop:
        if launch.seed != 3:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await common.until_one_ends(stop, server, asyncio.create_task(work()))

def hang(lock):
    lock.acquire()
    lock.acquire()

sys.exit(common.run_process("plant", lambda parser: None, main, sys.argv[1:]))
"""


def hanging(folder: Path, seed: int) -> subprocess.Popen[bytes]:
    wuwei = load_facility("wuwei")
    (folder / CONFIG_FILE).write_text(wuwei.canonical_json(), encoding="utf-8")
    said = ["--run-dir", str(folder), "--config-hash", wuwei.hash, "--room", "1", "--species", "carbon",
            "--seed", str(seed), "--speed", "1"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", HANGING, *said], stdout=subprocess.PIPE, stderr=log, cwd=ROOT, start_new_session=True
        )
    wait_ready(child, "plant", folder / "log", 30.0)
    return child


def test_a_process_that_does_not_listen_says_in_its_log_where_it_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("rig.children.STOP_TIMEOUT_S", 0.2)
    child = hanging(tmp_path, seed=1)
    assert stop(tmp_path, "plant", child.pid, child).startswith("killed")
    assert child.returncode == -signal.SIGABRT
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Fatal Python error: Aborted" in told
    assert "in hang" in told
    child.stdout.close()


def test_a_process_whose_loop_hangs_ends_and_says_where(tmp_path):
    child = hanging(tmp_path, seed=2)
    assert child.wait(30.0) == -signal.SIGABRT
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "has not turned for 1 s" in told
    assert "in hang" in told
    assert not is_alive(tmp_path, "plant")
    child.stdout.close()


def test_a_process_that_was_stopped_for_longer_has_its_orderly_end(tmp_path):
    child = hanging(tmp_path, seed=3)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(3.0)
    os.kill(child.pid, signal.SIGCONT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)  # an alarm that went off meanwhile would end it now
    assert stop(tmp_path, "plant", child.pid, child) == "stopped"
    assert child.returncode == 0
    child.stdout.close()


def test_a_stopped_process_is_seen_to_be(tmp_path):
    child = holder(tmp_path)
    assert not is_stopped(child.pid)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert is_stopped(child.pid)
    assert stop(tmp_path, "plant", child.pid, child) == "stopped"
    assert not is_stopped(child.pid)
    child.stdout.close()


def test_run_file_comes_back(tmp_path, run_file):
    assert read_run_file(tmp_path) is None
    run_file.write(tmp_path)
    assert read_run_file(tmp_path) == run_file
    assert run_file.ca_addresses == ["127.0.0.1:5070"]
    with pytest.raises(ChannelError, match="link_port"):
        run_file.port("plant", "link_port")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}', '{"schema": "ionctl.run/1", "odd": 1}'])
def test_bad_run_file(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.json"):
        read_run_file(tmp_path)


def test_child_that_dies_is_reported_with_the_end_of_its_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("first\nno such room\n", encoding="utf-8")
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE)
    with pytest.raises(ChannelError, match="exit code 3: no such room"):
        wait_ready(child, "plant", log, 30.0)
    child.stdout.close()


def test_child_that_says_nothing_is_not_waited_for_for_ever(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=subprocess.PIPE)
    with pytest.raises(ChannelError, match="not ready"):
        wait_ready(child, "plant", tmp_path / "log", 0.1)
    child.kill()
    child.wait(30)
    child.stdout.close()


def test_errors_cross_the_process_boundary():
    error = ConfigError("a.b", "what", "where", "fix")
    again = error_from_dict(error.to_dict())
    assert type(again) is ConfigError
    assert str(again) == str(error)


def test_home_order(tmp_path):
    assert find_home(tmp_path / "a", {"IONCTL_HOME": str(tmp_path / "b")}).root == (tmp_path / "a").resolve()
    assert find_home(None, {"IONCTL_HOME": str(tmp_path / "b")}).root == (tmp_path / "b").resolve()
    assert "ionctl" in str(find_home(None, {}).root)
