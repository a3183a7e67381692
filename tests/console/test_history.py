"""`ionctl interlocks history`: trips of virtual deliveries and of processes, one in full, and its picture."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import load_facility
from interlocks.own_inputs import AGREE_INPUT
from interlocks.rules import load_rules
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from rig.deliver_virtual import deliver_in
from rig.home import Home
from rig.post_mortem import write_post_mortems
from rig.post_mortem_file import read_recording
from rig.post_mortem_story import times_of
from rig.post_mortem_value import compared, compared_in_scans
from rig.safety_scans_file import every_tick, held, read_scans
from rig.trip_history import KEEP_RUNS, put_aside, trips
from rig.virtual_world import World, WorldOptions
from tests.bring_up import up_ns
from tests.console.conftest import Ionctl

FACILITY = load_facility("wuwei")
AT_NS = up_ns() + 2_314_704_321


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a virtual delivery leaves whose beam was moved by 5 mm."""
    plan = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)
    options = WorldOptions(load_program=lambda *_: plan, allow_faults=True, mode=Mode.QA, post_mortem=True)
    world = World(FACILITY, "1", "carbon", 1, options)
    world.plant.inject(Fault("beam.x", FaultKind.OFFSET, 5.0, at_ns=AT_NS))
    deliver_in(world, plan)
    folder = tmp_path_factory.mktemp("session")
    (folder / "events.jsonl").write_bytes(world.events.to_bytes())
    (folder / "summary.json").write_text('{"facility": "wuwei"}')
    write_post_mortems(folder, (*world.post_mortems, *world.safety_scans))
    return folder


@pytest.fixture
def home(tmp_path: Path, session: Path) -> Path:
    """The home that `ionctl` of the same test sees, with that session in it."""
    root = tmp_path / "home"
    (root / "sessions").mkdir(parents=True)
    (root / "sessions" / "S-1").symlink_to(session)
    return root


def test_a_trip_is_listed_explained_and_drawn(ionctl: Ionctl, home: Path, tmp_path: Path) -> None:
    listed = ionctl("interlocks", "history")
    assert listed.code == 0, listed.err
    assert "position-x" in listed.out
    (trip,) = json.loads(ionctl("interlocks", "history", "--facility", "wuwei", "--json").out)["trips"]
    assert (trip["rule"], trip["target"], trip["run"], trip["limit"]) == ("position-x", "virtual", "S-1", 2.0)
    assert trip["identical"] is True
    picture = tmp_path / "trip.svg"
    shown = ionctl("interlocks", "history", trip["id"][:6], "--plot", str(picture))
    assert shown.code == 0, shown.err
    for words in (
        "Beam position, x",
        "dose beside the target",
        "fault injected",
        "beam off",
        "bit for bit",
        "console.age_ms",
    ):
        assert words in shown.out
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")
    assert len(drawn) > 50_000
    data = json.loads(ionctl("interlocks", "history", trip["id"], "--json").out)
    assert data["post_mortem"]["event"]["t_ns"] <= data["t_ns"]
    scans = data["safety_scans"]
    assert scans["event"]["data"]["id"] == "position-x"
    assert data["t_ns"] == data["post_mortem"]["t_decision_ns"], "one trip has one time"
    assert scans["story"]["permit"]["changes"][-1] == [scans["event"]["t_ns"], 0.0]
    assert "heard by the safety controller" in shown.out
    told = f"{data['t_ns'] * 1e-9:.6f}"
    assert told in listed.out
    assert f"tripped at {told} s" in " ".join(shown.out.split())
    lines = {line.split()[0]: line for line in shown.out.splitlines() if line.split()}
    after = float(lines["safety-permit"].split()[-1])
    assert 0.0 < after < 5.0, "it follows, and did not come before"
    assert "follows" in lines["safety-permit"]
    silence = scans["story"]["console.age_ms"]
    recorded = read_scans(Path(data["scans_file"]))
    ages = held(recorded, "console.age_ms", every_tick(recorded))
    assert (silence["least"], silence["most"]) == (ages.min(), ages.max()), "of all samples, not of the scans alone"
    assert "field.number" not in lines
    assert "position-x" in next(line for line in shown.out.splitlines() if "fast rules that are latched" in line)
    assert {"console.age_ms", "t.plan_ok", "door.value", "door.limit", "door.state"} <= set(scans["columns"])
    assert data["scans_file"].endswith(".parquet")
    marks = times_of(data["post_mortem"])
    assert marks["t_cause"] == AT_NS
    assert AT_NS < marks["t_condition"] <= marks["t_decision"] < marks["t_off"] < AT_NS + 1_000_000


def test_what_cannot_be_shown_is_said_in_one_line(ionctl: Ionctl, home: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (trip,) = json.loads(ionctl("interlocks", "history", "--json").out)["trips"]

    def refused(*arguments: str, code: int = 2) -> str:
        outcome = ionctl("interlocks", "history", *arguments)
        assert outcome.code == code
        assert outcome.err.count("\n") == 1
        return outcome.err

    assert "no trip 'T-nope'" in refused("T-nope")
    assert "--plot draws one trip" in refused("--plot", "a.png")
    assert ".png, .svg, .pdf" in refused(trip["id"], "--plot", str(tmp_path / "a.jpg"))
    assert "there is no folder" in refused(trip["id"], "--plot", str(tmp_path / "away" / "a.png"))
    assert "no facility" in refused("--facility", "nowhere", code=3)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'ionctl[plot]'" in refused(trip["id"], "--plot", str(tmp_path / "a.png"), code=3)


def test_a_file_that_was_changed_is_refused(ionctl: Ionctl, home: Path, session: Path) -> None:
    (home / "sessions" / "S-1").unlink()
    there = home / "sessions" / "S-1"
    (there / "post-mortem").mkdir(parents=True)
    for name in ("events.jsonl", "summary.json"):
        (there / name).write_bytes((session / name).read_bytes())
    files = sorted((session / "post-mortem").iterdir())
    (trip,) = json.loads(ionctl("interlocks", "history", "--json").out)["trips"]
    for changed in files:
        for file in files:
            raw = bytearray(file.read_bytes())
            raw[5000] ^= file is changed
            (there / "post-mortem" / file.name).write_bytes(raw)
        outcome = ionctl("interlocks", "history", trip["id"])
        assert outcome.code == 3
        assert "SHA-256" in outcome.err
        assert changed.name in outcome.err


def test_what_tripped_before_a_session_was_gone_on_with_is_still_told(
    ionctl: Ionctl, home: Path, session: Path
) -> None:
    (home / "sessions" / "S-1").unlink()
    (home / "sessions" / "S-1" / "parts").mkdir(parents=True)
    (home / "sessions" / "S-1" / "events.jsonl").write_bytes(b"")
    (home / "sessions" / "S-1" / "parts" / "1").symlink_to(session)
    (trip,) = json.loads(ionctl("interlocks", "history", "--json").out)["trips"]
    assert (trip["rule"], trip["run"]) == ("position-x", "S-1, part 1")
    assert ionctl("interlocks", "history", trip["id"]).code == 0


def test_deliveries_of_one_name_that_went_otherwise_are_listed_apart(ionctl: Ionctl, home: Path, session: Path) -> None:
    (home / "sessions" / "S-1").unlink()
    there = home / "sessions" / "S-1"
    (there / "earlier").mkdir(parents=True)
    for name in ("events.jsonl", "summary.json"):
        (there / name).write_bytes((session / name).read_bytes())
    (there / "post-mortem").symlink_to(session / "post-mortem")
    (there / "earlier" / "1").symlink_to(session)
    found = json.loads(ionctl("interlocks", "history", "--json").out)["trips"]
    assert {trip["run"] for trip in found} == {"S-1", "S-1, earlier delivery 1"}
    first, second = sorted(trip["id"] for trip in found)
    assert second == f"{first}-2", "they tripped alike"
    assert ionctl("interlocks", "history", first).code == ionctl("interlocks", "history", second).code == 0


@pytest.mark.parametrize(("line", "words"), [
    (b"{,\n", "line 2: Expecting property name"), (b"[1]\n", "line 2: not an object with"),
    (b'{"kind": "interlock.trip"}\n', "line 2: not an object with"),
])  # fmt: skip
def test_a_damaged_log_is_named_and_hides_no_other(ionctl: Ionctl, home: Path, line: bytes, words: str) -> None:
    (home / "sessions" / "S-0").mkdir()
    first = event(0, 5, "state").encode()
    (home / "sessions" / "S-0" / "events.jsonl").write_bytes(first + line)
    listed = ionctl("interlocks", "history", "--json")
    (trip,) = json.loads(listed.out)["trips"]
    assert trip["rule"] == "position-x"
    assert words in listed.err
    assert "S-0/events.jsonl" in listed.err


def event(seq: int, at_ns: int, kind: str, cause: int | None = None, **data: object) -> str:
    return json.dumps({"seq": seq, "t_ns": at_ns, "kind": kind, "cause_seq": cause, "data": data}) + "\n"


def test_the_value_of_a_rule_on_silence_is_said_to_be_a_time_before_the_trip(ionctl: Ionctl, home: Path) -> None:
    told = "not since: of operator-heartbeat, how long the console had been silent"
    assert told not in ionctl("interlocks", "history").out, "none of its kind is listed"
    (home / "sessions" / "S-2").mkdir()
    silent = event(0, 5, "interlock.trip", id="operator-heartbeat", tier="P", action="PAUSE", value=2000.8,
                   limit=2000.0, unit="ms")  # fmt: skip
    (home / "sessions" / "S-2" / "events.jsonl").write_text(silent)
    assert told in " ".join(ionctl("interlocks", "history").out.split())


def test_trips_of_processes_are_joined_by_nominal_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = home.run_dir("wuwei")
    said = {"file": "trip-001-7.parquet", "sha256": "0", "trips": [3], "rules": []}
    lost = event(3, 7_000_000_000, "permit-lost", nominal_ns=9_000_000_000)
    behind = event(2, 15_000_000_000, "phase", nominal_ns=18_000_000_000)
    alone = event(5, 30_000_000_000, "trip", nominal_ns=40_000_000_000, first="position-x")
    (folder / "plant.events.jsonl").write_text(
        behind + lost + event(4, 7_050_000_000, "post-mortem", 3, **said) + alone
        + event(6, 30_050_000_000, "post-mortem", 5, **{**said, "file": "trip-002.parquet", "trips": [5]}) + '{"half'
    )  # fmt: skip
    (folder / "safety.events.jsonl").write_text(
        event(0, 8_999_000_000, "interlock.trip", id="door", tier="P", action="ABORT", value=0.0, limit=1.0)
        + event(2, 19_000_000_000, "interlock.trip", id="position-y", tier="H", action="ABORT", t_ns=10_500_000_000)
        + event(1, 20_000_000_000, "interlock.trip", id="plant-late", tier="P", action="PAUSE", t_ns=17_500_000_000,
                value=1.0, limit=0.5)
        + event(3, 20_500_000_000, "post-mortem.safety", 0, file="safety-001-8.parquet", sha256="1", trips=[0])
    )  # fmt: skip
    found = {trip.rule: trip for trip in trips(home)}
    assert set(found) == {"door", "plant-late", "position-x", "position-y"}
    assert found["door"].file == folder / "post-mortem" / "trip-001-7.parquet"
    assert found["plant-late"].file is None
    assert found["door"].scans_file == folder / "post-mortem" / "safety-001-8.parquet"
    assert found["door"].ahead_ns == 2_000_000_000, "the safety controller's time"
    assert found["plant-late"].scanned() is None
    assert found["position-x"].file is not None
    assert {trip.run for trip in found.values()} == {"latest"}, "nothing runs there"
    assert found["door"].t_ns == 6_999_000_000, "as the plant counts: it is 2 s behind"
    assert found["plant-late"].t_ns == 15_500_000_000, "by the controller's clock: the plant was 2 s behind then"
    assert found["position-y"].t_ns == 7_500_000_000, "told by the plant, 3 s behind by then"
    ids = {trip.id for trip in found.values()}
    (folder / "post-mortem").mkdir()
    put_aside(folder)
    moved = trips(home)
    assert {trip.run for trip in moved} == {"0001"}
    assert {trip.id for trip in moved} == ids, "an id is for good"
    assert (folder / "earlier" / "0001" / "post-mortem").is_dir()
    put_aside(folder)  # nothing new: nothing happens
    for _ in range(KEEP_RUNS + 3):
        (folder / "plant.events.jsonl").write_text(lost)
        put_aside(folder)
    assert len(list((folder / "earlier").iterdir())) == KEEP_RUNS


def test_every_rule_has_a_quantity_to_draw(session: Path) -> None:
    scans_file, file = sorted((session / "post-mortem").iterdir())
    found, scans = read_recording(file), read_scans(scans_file)
    for rule in load_rules(FACILITY, "1", "carbon").rules:
        in_scans = compared_in_scans(rule, scans, found.column("t_ns"))
        assert (in_scans is None) == (rule.tier == "H" or rule.inputs == (AGREE_INPUT,))
        seen = compared(rule, found) or in_scans
        if seen is None:
            assert rule.inputs == (AGREE_INPUT,)
            continue
        assert len(seen.value) == found.table.num_rows == 100_000
        if rule.kind not in ("stale", "beat"):
            assert seen.low is not None or seen.high is not None, rule.id
