"""Real processes over Channel Access: a delivery, and what happens when one dies or hangs in the middle of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan
from facility.config import load_facility
from facility.errors import ChannelError, ConfigError
from rig.children import start, wait_ready
from rig.field_file import FieldFile
from rig.home import Home
from rig.post_mortem_file import read_recording
from rig.remote import resolve_termination
from rig.run_dir import RunFile, is_alive
from rig.safety_scans_file import read_scans
from rig.supervisor import RunOptions, Supervisor, _arguments
from rig.trip_history import read_events
from rig.truth_file import TruthNow, read_now, read_ticks
from tests.rig.stillness import Stillness

pytestmark = [pytest.mark.ca, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
FACILITY = load_facility("wuwei")
SPEED = 4.0


def wait_for(met: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Look every 10 ms, `timeout_s` at most."""
    deadline = time.monotonic() + timeout_s  # noqa: TID251 - real processes live in wall time
    look = threading.Event()
    while not met():
        if time.monotonic() > deadline:  # noqa: TID251 - as above
            pytest.fail(f"no {what} within {timeout_s} s")
        look.wait(0.01)


@dataclass
class Stack:
    supervisor: Supervisor
    run: RunFile
    plan: Path
    stillness: Stillness
    tried_again: bool = False
    noted: int = 0
    noted_scans: int = 0
    """Post-mortems, and scans of the safety controller, of a stop that the test is not about."""

    @property
    def folder(self) -> Path:
        return self.supervisor.folder

    def pid(self, name: str) -> int:
        return int(self.run.processes[name]["pid"])

    def truth(self) -> TruthNow:
        return read_now(self.folder)

    def deliver(self, plan: Path | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "console.main", "--home", str(self.supervisor.home.root), "deliver",
                   str(plan or self.plan), "--target", "ca", "--json"]  # fmt: skip
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def refused(self) -> str:
        """What a delivery says that is refused."""
        out, err = ended(child := self.deliver(), 60.0)
        assert child.returncode == 5, err
        return out + err

    def physicist_resets(self) -> None:
        """Until every cause is gone and the latches with it."""
        command = [
            sys.executable,
            "-m",
            "console.main",
            "--home",
            str(self.supervisor.home.root),
            "interlocks",
            "reset",
        ]
        wait_for(lambda: subprocess.run(command, cwd=ROOT, check=False).returncode == 0, 60.0, "a reset")

    def wait_beam(self, child: subprocess.Popen[str]) -> None:
        """Until the ions of this delivery come; it says why, if it ends without any."""
        start = self.truth().total_ions

        def given() -> bool:
            if (dark := self.truth().total_ions <= start + 1e6) and child.poll() is not None:
                out, err = child.communicate()
                pytest.fail(f"no beam, the delivery ended with {child.returncode}: {err}{out}")
            return not dark

        wait_for(given, 60.0, "beam")

    def beam(self) -> subprocess.Popen[str]:
        """A delivery with beam; once more, and once a test, where the machine stood still before and one of the safety
        link's own rules says so."""
        begun = time.monotonic()  # noqa: TID251 - as above
        child = self.deliver()
        try:
            self.wait_beam(child)
            return child
        except pytest.fail.Exception as problem:
            tripped = re.search(r"\blink-(plant|safety)\b|Link (from|to) the rack", str(problem))
            if self.tried_again or tripped is None or not self.stillness.since(begun):
                raise
            print(f"the machine stood still: {problem}", file=sys.stderr)
        self.tried_again = True
        self.physicist_resets()
        if (record := FieldFile(self.folder).load()) is not None and record["unresolved"]:
            resolve_termination(FACILITY, self.supervisor.home, "the machine stood still", resume=False)
            self.physicist_resets()
        self.wait_beam(child := self.deliver())
        self.noted = len(self.events("plant", "post-mortem"))
        self.noted_scans = len(self.events("safety", "post-mortem.safety"))
        return child

    def events(self, process: str, kind: str) -> list[dict[str, Any]]:
        """What a process has told of this kind."""
        return [event for event in read_events(self.folder / f"{process}.events.jsonl") if event["kind"] == kind]

    def wait_frozen(self) -> None:
        """Until a post-mortem is written: the same as what happened, of a run whose pace was not disturbed by it.

        It has an end of beam if the plant's own truth had beam at the decision: a layer may have ended just before.
        """
        found: list[dict[str, Any]] = []

        def frozen() -> bool:
            found[:] = self.events("plant", "post-mortem")[self.noted :]
            return bool(found)

        wait_for(frozen, 30.0, "post-mortem")
        said = found[0]["data"]
        about = read_recording(self.folder / "post-mortem" / said["file"], said["sha256"]).about
        assert about["identical"] is True
        assert about["event"]["seq"] == found[0]["cause_seq"]
        ticks = read_ticks(self.folder)
        before = (ticks["t_ns"] > about["t_decision_ns"] - 2_000_000) & (ticks["t_ns"] <= about["t_decision_ns"])
        assert (about["t_off_ns"] is not None) == (ticks["ions"][before].sum() > 0.0)

    def scans_frozen(self) -> None:
        """The safety controller has written its scans of that second, tied to its own event."""
        found: list[dict[str, Any]] = []

        def frozen() -> bool:
            found[:] = self.events("safety", "post-mortem.safety")[self.noted_scans :]
            return bool(found)

        wait_for(frozen, 30.0, "scans")
        said = found[0]["data"]
        scans = read_scans(self.folder / "post-mortem" / said["file"], said["sha256"])
        assert scans.about["event"]["seq"] == found[0]["cause_seq"]
        assert scans.about["scans"] > 10
        assert len(scans.about["signs_of_life"]["console.age_ms"]) >= 1

    def beam_stays_off(self, within_s: float, quiet_s: float = 5.0) -> None:
        """Within `within_s` (wall) no more ions come, and none for `quiet_s` of facility time after that."""
        last = [self.truth()]
        deadline = time.monotonic() + within_s  # noqa: TID251 - as above

        def quiet() -> bool:
            now = self.truth()
            if now.total_ions != last[0].total_ions:
                last[0] = now
                if time.monotonic() > deadline:  # noqa: TID251 - as above
                    pytest.fail(f"beam after {within_s} s")
            return now.t_ns - last[0].t_ns > quiet_s * 1e9

        wait_for(quiet, within_s + 60.0, f"{quiet_s} s without beam")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.dcm"
    for name, intent, dose_gy in (("plan.dcm", "", 4.0), ("treatment.dcm", "CURATIVE", 3.9)):  # two plans
        made = make_plan("cube", 20.0, 150.0, dose_gy, "carbon", FACILITY, layer_spacing_mm=4.0)
        write_dicom_plan(dataclasses.replace(made, intent=intent or made.intent), path.with_name(name))
    return path


@pytest.fixture
def stack(tmp_path: Path, plan: Path) -> Iterator[Stack]:
    supervisor = Supervisor(Home(tmp_path / "home"), FACILITY.id)
    run = supervisor.up(FACILITY, RunOptions("1", "carbon", speed=SPEED))
    try:
        with Stillness() as stillness:
            yield Stack(supervisor, run, plan, stillness)
    finally:
        for name in ("safety", "control"):
            if is_alive(supervisor.folder, name):
                os.kill(int(run.processes[name]["pid"]), signal.SIGCONT)
        supervisor.down()


def ended(child: subprocess.Popen[str], timeout_s: float) -> tuple[str, str]:
    """What a console said before it ended."""
    out, err = child.communicate(timeout=timeout_s)
    assert "Traceback" not in err
    assert err.count("\n") <= 2, err
    return out, err


_CLIENT = """
import json, sys
import epics
names = sys.argv[1:]
pvs = [epics.PV(name, form='ctrl', auto_monitor=False) for name in names]
for pv in pvs:
    assert pv.wait_for_connection(10.0), pv.pvname
    pv.get_ctrlvars(timeout=10.0)
print(json.dumps([{'value': pv.get(timeout=10.0), 'severity': pv.severity, 'units': pv.units, 'precision': pv.precision,
                   'enum_strs': pv.enum_strs} for pv in pvs], default=lambda raw: raw.decode()))
"""


def epics_client(addresses: list[str], names: list[str]) -> list[dict[str, Any]]:
    """What plain pyepics sees of these PVs."""
    env = os.environ | {"EPICS_CA_AUTO_ADDR_LIST": "NO", "EPICS_CA_ADDR_LIST": " ".join(addresses)}
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, *names], capture_output=True, text=True, timeout=60.0, env=env
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def the_desk_answers(stack: Stack) -> None:
    """The console's interlock commands at a facility that runs; the last console has gone, so its heartbeat has too."""

    def desk(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "console.main", "--home", str(stack.supervisor.home.root), "interlocks"]
        return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60.0)

    def missed() -> bool:  # 2 s after its last sign of life, however fast this command is
        rules = json.loads(desk("list", "--json").stdout)["rules"]
        return any(rule["id"] == "operator-heartbeat" and rule["now"]["latched"] for rule in rules)

    wait_for(missed, 10.0, "trip of operator-heartbeat")
    listed = json.loads(desk("list", "--json").stdout)
    now = {rule["id"]: rule["now"] for rule in listed["rules"]}
    assert listed["now"]["permit"] is False
    assert now["operator-heartbeat"]["latched"] is True
    assert now["operator-heartbeat"]["trip"]["value"] > now["operator-heartbeat"]["trip"]["limit"]
    stop = now["emergency-stop"]
    assert (stop["present"], stop["latched"], stop["bypassed"], stop["value"]) == (False, False, False, 1.0)
    shown = desk("show", "operator-heartbeat")
    assert "TRIPPED" in shown.stdout, shown.stderr
    prefix = f"{FACILITY.pv_prefix}:SAFE"
    names = [f"{prefix}:OPERATOR-HEARTBEAT:{signal}" for signal in
             ("Present-Sts", "Latched-Sts", "Bypassed-Sts", "Value-RB", "Limit-RB")]  # fmt: skip
    names += [f"{prefix}:Permit-Sts", f"{prefix}:FirstFault-RB", f"{prefix}:SCAN-FIELD-X:Value-RB"]
    seen = epics_client(stack.run.ca_addresses, names)
    assert [pv["severity"] for pv in seen] == [2, 2, 0, 2, 0, 0, 2, 3], "a latch, a present fault, an unknown value"
    assert [pv["value"] for pv in seen[:3]] == [1, 1, 0]
    assert [pv["enum_strs"] for pv in seen[:3]] == [["ABSENT", "PRESENT"], ["CLEAR", "LATCHED"], ["ACTS", "BYPASSED"]]
    assert [(pv["units"], pv["precision"]) for pv in seen[3:5]] == [("ms", 6), ("ms", 6)]
    assert seen[3]["value"] > seen[4]["value"]
    assert seen[6]["value"] == "operator-heartbeat"
    refused = desk("bypass", "gate", "--reason", "try", "--for", "1m")
    assert refused.returncode == 5
    assert "clinical" in refused.stderr
    for _ in range(3):  # a machine that stands still for the watchdog trips the link in between: that is shown, too
        rules = json.loads(desk("list", "--json").stdout)["rules"]
        latched = [rule["id"] for rule in rules if rule["now"]["latched"]]
        done = desk("reset", *(word for name in latched for word in ("--rule", name)), "--json")
        if "latched since" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["cleared"]) >= set(latched), "a busy machine may trip more in between"
    stack.wait_frozen()
    stack.scans_frozen()
    trips = json.loads(desk("history", "--json").stdout)["trips"]
    assert [trip["identical"] for trip in trips if trip["rule"] == "operator-heartbeat"][:1] == [True]


def the_room_is_opened_without_a_trip(stack: Stack) -> None:
    """The field is over and its console has gone: the permit went back, and people go in, as every day."""

    def ionctl(*arguments: str) -> str:
        command = [sys.executable, "-m", "console.main", "--home", str(stack.supervisor.home.root), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60.0)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ionctl("room", "door", "open")
    now = {rule["id"]: rule["now"] for rule in json.loads(ionctl("interlocks", "list", "--json"))["rules"]}
    assert [now[name]["present"] for name in ("door", "search")] == [True, True]
    standing = ("door", "search", "operator-heartbeat")
    assert [now[name]["latched"] for name in standing] == [False, False, False]
    for mode in ("qa", "clinical"):
        assert json.loads(ionctl("interlocks", "mode", mode, "--json")) == {"mode": mode}
    trips = json.loads(ionctl("interlocks", "history", "--json"))["trips"]
    assert {trip["rule"] for trip in trips}.isdisjoint({*standing, "permit-lost"}), trips


def test_deliver_interrupt_and_end(stack):
    """A whole delivery; then one that Ctrl-C ends; then SIGTERM for all. In one go, since processes start slowly."""
    treatment = stack.plan.with_name("treatment.dcm")
    out, err = ended(child := stack.deliver(treatment), 200.0)
    assert child.returncode == 0, err
    result = json.loads(out)
    assert result["status"] == "completed"
    assert result["interlocks"] == []
    assert result["truth"]["spots_within"] == result["truth"]["spots"] == result["spots"]
    assert abs(result["truth"]["total_error_pct"]) < 0.5
    assert result["p99_position_error_mm"] < 0.3
    assert set(result["files"]) == {"summary", "events", "spot log", "sample log", "record", "truth"}
    assert all(Path(path).exists() for path in result["files"].values())
    with pytest.raises(ChannelError, match="already run"):
        stack.supervisor.up(FACILITY, RunOptions("1", "carbon"))
    the_room_is_opened_without_a_trip(stack)

    before = stack.truth().total_ions
    _, err = ended(child := stack.deliver(treatment), 60.0)
    assert child.returncode == 5
    assert f"all 1 fractions of this plan were given, 1 by session {result['session']}" in err
    assert stack.truth().total_ions == before

    child = stack.beam()
    child.send_signal(signal.SIGINT)
    stack.beam_stays_off(10.0)  # a console, control and a command: no watchdog, so no bound but patience
    out, err = ended(child, 60.0)
    assert child.returncode == 5, err
    assert json.loads(out)["status"] == "interrupted"
    the_desk_answers(stack)
    ticks = read_ticks(stack.folder)["t_ns"]
    assert len(ticks) > 1000
    assert (np.diff(ticks) >= 10_000).all(), "no tick is lost or written twice"

    names = ("control", "plant", "safety")
    children = dict(stack.supervisor._children)
    assert stack.supervisor.down() == dict.fromkeys(names, "stopped")
    assert {name: child.returncode for name, child in children.items()} == dict.fromkeys(names, 0)
    assert stack.supervisor.running() is None
    assert not (stack.folder / "run.json").exists()


@pytest.mark.parametrize(("name", "within_s"), [("safety", 1.0), ("control", 3.5)])
def test_beam_goes_when_a_process_hangs_or_dies(stack, name, within_s):
    """Stopped, it takes the beam away; woken when its silence has been noticed, it gives no beam by itself; after a
    person's reset the next delivery has beam; killed, it takes it away again."""
    child = stack.beam()
    os.kill(stack.pid(name), signal.SIGSTOP)
    stack.beam_stays_off(within_s)
    stack.wait_frozen()
    _, err = ended(child, 100.0)  # the console notices by itself
    assert child.returncode in (5, 6), err
    stack.beam_stays_off(0.5, quiet_s=3.0 * SPEED)  # 3 s on the wall: nobody sends keep-alives any more
    os.kill(stack.pid(name), signal.SIGCONT)
    stack.beam_stays_off(0.5)

    if name == "safety":  # the rack has aborted the field: the next one waits until a physicist has accounted for it
        assert "a physicist must reset it" in stack.refused()  # a delivery resets as an operator
        stack.physicist_resets()
        assert "a physicist says what became of the field" in stack.refused()
        record = FieldFile(stack.folder).load()
        assert record is not None
        assert record["unresolved"] is True
        resolve_termination(FACILITY, stack.supervisor.home, "safety controller was stopped", resume=False)
        assert not FieldFile(stack.folder).load()["unresolved"]
        stack.physicist_resets()
    child = stack.beam()
    os.kill(stack.pid(name), signal.SIGKILL)
    stack.beam_stays_off(within_s)
    _, err = ended(child, 100.0)  # the console notices by itself
    assert child.returncode in (5, 6), err


def test_a_process_with_another_configuration_is_refused(tmp_path):
    supervisor = Supervisor(Home(tmp_path), FACILITY.id)
    other = load_facility("lanzhou")
    run = RunFile("wuwei", "0" * 64, "1", "carbon", 1, 1.0, 0.0)
    (supervisor.folder / "facility.json").write_text(other.canonical_json(), encoding="utf-8")
    arguments = _arguments("plant", supervisor.folder, run, RunOptions("1", "carbon"), None)
    child = start("plant", arguments, supervisor.folder, supervisor.folder / "plant.log")
    with pytest.raises(ConfigError, match="hash"):
        wait_ready(child, "plant", supervisor.folder / "plant.log", 60.0)
    assert child.wait(30) == 3
    for pipe in (child.stdin, child.stdout):
        pipe.close()
