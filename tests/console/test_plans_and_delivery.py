"""Plans and deliveries from the command line: what is printed, what is written, what is refused and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.summary import next_steps
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan, make_small_plan
from control.spot_log import read_spot_log
from facility.config import load_facility
from facility.errors import ChannelError
from rig.result import DeliveryResult

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"session", "status", "spots", "layers", "prescribed", "delivered", "worst_spot_error_pct",
        "p99_position_error_mm", "beam_on_s", "facility_s", "wall_s", "interlocks"}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "small.dcm"
    write_dicom_plan(make_small_plan(load_facility("wuwei"), "carbon"), path)
    return str(path)


@pytest.fixture(scope="module")
def protons(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "protons.dcm"
    plan = make_plan("cube", 20.0, 100.0, 1.0, "proton", load_facility("pimms"), lateral_spacing_mm=5.0,
                     layer_spacing_mm=5.0)  # fmt: skip
    write_dicom_plan(plan, path)
    return str(path)


def test_make_then_show_then_check(ionctl, tmp_path):
    path = str(tmp_path / "plan.dcm")
    made = ionctl("plan", "make", "--shape", "cube", "--size-mm", "20", "--dose-gy", "0.5", "--spacing-mm", "4",
                  "--layer-mm", "5", "--output", path)  # fmt: skip
    assert made.code == 0, made.err
    assert "spots" in made.out
    shown = json.loads(ionctl("plan", "show", path, "--json").out)
    checked = json.loads(ionctl("plan", "check", path, "--json").out)
    assert shown["spots"] == checked["spots"] > 0
    assert shown["plan_hash"] == checked["plan_hash"]
    assert checked["deliverable"] is True
    assert {layer["energy_mev_u"] for layer in checked["layers"]}
    assert "MeV/u" in ionctl("plan", "show", path).out
    assert "expected" in ionctl("plan", "check", path).out


def test_check_names_what_cannot_be_delivered(ionctl, protons):
    outcome = ionctl("plan", "check", protons)
    assert outcome.code == 4
    assert "proton" in outcome.err
    assert outcome.err.count("\n") == 1
    refused = ionctl("plan", "check", protons, "--json")
    assert refused.code == 4
    assert json.loads(refused.out)["deliverable"] is False


def test_deliver_prints_one_object_and_writes_the_files(ionctl, small):
    outcome = ionctl("deliver", small, "--qa", "--seed", "3", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert set(result) >= KEYS
    assert result["status"] == "completed"
    assert result["seed"] == 3
    assert result["qa"] is True
    assert result["truth"]["spots_within"] == result["spots"]
    log = read_spot_log(Path(result["files"]["spot log"]))
    assert log.num_rows == result["spots"]
    lines = Path(result["files"]["events"]).read_bytes().splitlines()
    assert all(json.loads(line)["schema"] == "ionctl.event/1" for line in lines)
    written = json.loads(Path(result["files"]["summary"]).read_text(encoding="utf-8"))
    assert written["session"] == result["session"]
    assert len(written["truth_layers"]) == result["layers"]


def test_same_seed_gives_the_same_files(ionctl, small):
    first, second = (json.loads(ionctl("deliver", small, "--qa", "--json").out) for _ in range(2))
    assert first["session"] == second["session"]
    assert {k: v for k, v in first.items() if k != "wall_s"} == {k: v for k, v in second.items() if k != "wall_s"}


def test_deliver_prints_tables(ionctl, small):
    outcome = ionctl("deliver", small, "--qa")
    assert outcome.code == 0, outcome.err
    for words in ("Layers", "delivered by truth", "spots within tolerance", "No interlock took the beam", "spot log"):
        assert words in outcome.out


@pytest.mark.parametrize("room", ["1", "2", "3", "4"])
def test_every_room(ionctl, small, room):
    result = json.loads(ionctl("deliver", small, "--qa", "--room", room, "--json").out)
    assert (result["status"], result["room"]) == ("completed", room)


def test_protons_where_there_are_protons(ionctl, protons):
    result = json.loads(ionctl("deliver", protons, "--facility", "pimms", "--qa", "--json").out)
    assert result["status"] == "completed"
    assert result["truth"]["spots_within"] == result["spots"]


@pytest.mark.parametrize("target", ["virtual", "ca"])
def test_what_cannot_be_delivered_is_refused_before_anything_moves(ionctl, protons, target, tmp_path):
    outcome = ionctl("deliver", protons, "--target", target)
    assert outcome.code == 4
    assert outcome.out == ""
    assert "beam 1" in outcome.err
    assert not (tmp_path / "home" / "sessions").exists()
    assert not (tmp_path / "home" / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--room", "9"], 2, "no room '9'"),
        (["--facility", "nowhere"], 3, "no facility 'nowhere'"),
        (["--target", "moon"], 2, "moon"),
        (["--seed", "x"], 2, "seed"),
    ],
)
def test_bad_arguments(ionctl, small, arguments, code, words):
    outcome = ionctl("deliver", small, *arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.out == ""


def test_the_rules_of_a_configuration_folder_are_those_in_force(ionctl, small, tmp_path):
    """And not those that come with the project, while `list` and `test` speak of the folder's."""
    rules = (ROOT / "configs/interlocks.toml").read_text(encoding="utf-8")
    (tmp_path / "interlocks.toml").write_text(rules.replace("low = -2.0\nhigh = 2.0", "low = -0.01\nhigh = 0.01", 1))
    deliver = ("deliver", small, "--qa", "--target", "virtual", "--json")
    moved = ionctl("--config-dir", str(tmp_path), *deliver)
    assert [one["rule"] for one in json.loads(moved.out)["interlocks"]] == ["position-x"], moved.err
    assert "IONCTL_CONFIG" not in os.environ, "for that one command"
    assert json.loads(ionctl(*deliver).out)["interlocks"] == []


def test_without_qa_an_angle_that_the_room_does_not_have_is_refused(ionctl, small):
    outcome = ionctl("deliver", small, "--room", "2")
    assert outcome.code == 4
    assert "degrees" in outcome.err


def test_a_file_that_is_no_plan(ionctl, tmp_path, small):
    whole = Path(small).read_bytes()
    for name, data in {"empty": b"", "text": b"hello", "cut.dcm": whole[: len(whole) // 2]}.items():
        path = tmp_path / name
        path.write_bytes(data)
        outcome = ionctl("deliver", str(path))
        assert outcome.code == 4, name
        assert outcome.err.count("\n") == 1
        assert name in outcome.err
    assert ionctl("deliver", str(tmp_path / "missing")).code == 4


def test_ctrl_c_in_virtual_time_ends_the_session_as_interrupted(tmp_path):
    plan = tmp_path / "long.dcm"
    write_dicom_plan(make_plan("sphere", 50.0, 150.0, 2.0, "carbon", load_facility("wuwei")), plan)
    code = (
        "import os, signal, sys\n"
        "from rig.virtual_world import World\n"
        "show = World._on_plant\n"
        "def kill(self, events):\n"
        "    if any(event.kind == 'BEAM_ON' for event in events):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    show(self, events)\n"
        "World._on_plant = kill\n"
        "from console.main import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "--home", str(tmp_path / "home"), "deliver", str(plan), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 5, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "interrupted"
    assert 0 < result["delivered"] < result["prescribed"]
    assert Path(result["files"]["spot log"]).exists()


def test_status_and_down_where_nothing_runs(ionctl):
    status = ionctl("status", "--json")
    assert status.code == 6
    assert json.loads(status.out)["up"] is False
    assert ionctl("status").code == 6
    down = ionctl("down")
    assert down.code == 0
    assert down.out == "nothing is running of wuwei\n"


def test_interlocks_are_listed_and_shown(ionctl):
    listed = json.loads(ionctl("interlocks", "list", "--json").out)
    ids = [rule["id"] for rule in listed["rules"]]
    assert "emergency-stop" in ids
    assert listed["now"] is None
    assert all(rule in ionctl("interlocks", "list").out for rule in ids)
    assert "ABORT" in ionctl("interlocks", "show", "emergency-stop").out
    assert ionctl("interlocks", "show", "nonsense").code == 2


def test_reset_needs_a_facility_that_is_up(ionctl):
    outcome = ionctl("interlocks", "reset")
    assert outcome.code == 6
    assert "ionctl up" in outcome.err


def test_up_refuses_a_room_that_does_not_exist(ionctl):
    assert ionctl("up", "--room", "9").code == 2
    assert ionctl("up", "--species", "proton").code == 2


def test_a_defect_is_one_line_and_a_traceback_on_request(ionctl, monkeypatch, small):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the roof leaks")

    monkeypatch.setattr("rig.deliver.deliver_plan", broken)
    outcome = ionctl("deliver", small)
    assert outcome.code == 70
    assert "the roof leaks" in outcome.err
    with pytest.raises(RuntimeError):
        ionctl("--debug", "deliver", small)


def test_an_error_of_a_target_ends_with_its_code(ionctl, monkeypatch, small):
    def gone(*_: object, **__: object) -> None:
        raise ChannelError("target.lost", "nobody answers", "WW", "look")

    monkeypatch.setattr("rig.deliver.deliver_plan", gone)
    outcome = ionctl("deliver", small)
    assert (outcome.code, outcome.err) == (6, "ionctl: nobody answers (WW): look\n")


def test_a_field_that_is_not_completed_says_how_it_stands_and_what_comes_next():
    def ended(status: str, *interlocks: tuple[str, str], target: str = "ca") -> str:
        trips = [{"rule": rule, "action": action} for rule, action in interlocks]
        summary = {"session": "S-1", "status": status, "reason": "paused by the operator", "interlocks": trips,
                   "spots_done": 9, "spots": 20, "layers_total": 4,
                   "layers": [{"verified": True}, {"verified": False}]}  # fmt: skip
        return "\n".join(next_steps(DeliveryResult(target, "wuwei", "1", 1, 1.0, summary, None, 1.0)))

    assert ended("completed") == ""
    paused = ended("interrupted")
    for words in ("The beam is off", "interrupted (paused by the operator)", "9 of 20 spots", "1 of 4 layers",
                  "begins the plan anew", "ionctl resume S-1 --reason TEXT",
                  "ionctl down --facility wuwei"):  # fmt: skip
        assert words in paused
    aborted = ended("terminated", ("door", "ABORT"), ("door", "ABORT"))
    assert aborted.count("ionctl interlocks show door --facility wuwei") == 1
    assert aborted.index("interlocks reset") < aborted.index("interlocks resolve --words")
    assert "resolve" not in ended("interrupted", ("gate-stale", "PAUSE"))
    virtual = ended("interrupted", target="virtual")
    assert "virtual time and is gone. Next: ionctl resume S-1 --reason TEXT --facility wuwei goes on" in virtual
