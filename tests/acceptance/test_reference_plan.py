"""The reference plan, from `ionctl plan make` to the last spot: 2 Gy of carbon in a sphere of 60 mm at 150 mm."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from console.main import run
from control.plan.load import load_plan
from facility.config import load_facility
from tests.acceptance.deliveries import Delivery, assert_within_the_design, deliver_file, ionctl_json

KEYS = {
    "session", "status", "spots", "layers", "prescribed", "delivered", "worst_spot_error_pct",
    "p99_position_error_mm", "beam_on_s", "facility_s", "wall_s", "interlocks",
}  # fmt: skip
SPOTS = 13_000


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "sphere.dcm"
    made = ("--shape", "sphere", "--size-mm", "60", "--depth-mm", "150", "--dose-gy", "2", "--species", "carbon")
    assert run(("plan", "make", *made, "--output", str(path))) == 0
    return path


@pytest.fixture(scope="module")
def delivery(plan_file: Path) -> Delivery:
    return deliver_file(plan_file, load_facility("wuwei"), "1")


def test_every_spot_by_truth(delivery: Delivery) -> None:
    assert_within_the_design(delivery)
    assert delivery.judged.spots >= SPOTS


def test_the_report_agrees_with_the_ticks(delivery: Delivery) -> None:
    truth = delivery.world.plant.truth_spots()
    for layer in delivery.program.layers:
        ions, x, y = delivery.counter.layer(layer).T
        rows = truth[layer.token]
        assert ions == pytest.approx(rows[:, 0], abs=0.0)
        assert x == pytest.approx(rows[:, 1] / rows[:, 0], abs=1e-3)
        assert y == pytest.approx(rows[:, 2] / rows[:, 0], abs=1e-3)


def test_json_is_one_object_with_the_documented_keys(
    plan_file: Path, delivery: Delivery, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = ionctl_json(capsys, "--home", str(tmp_path), "deliver", str(plan_file), "--facility", "wuwei", "--json")
    assert set(found) >= KEYS
    judged = delivery.judged
    assert (found["status"], found["interlocks"]) == ("completed", [])
    assert found["spots"] == judged.spots == load_plan(plan_file).n_spots
    assert found["layers"] == len(delivery.program.layers)
    assert found["prescribed"] == pytest.approx(delivery.program.total_ions, rel=1e-12)
    assert found["delivered"] == pytest.approx(delivery.counter.total, rel=1e-12)
    assert found["p99_position_error_mm"] == pytest.approx(judged.p99_position_mm, abs=1e-3)
    assert 0.0 < found["worst_spot_error_pct"] <= 5.0
    assert 0.0 < found["beam_on_s"] < found["facility_s"]
    assert found["wall_s"] > 0.0
    folder = tmp_path / "sessions" / found["session"]
    log = pq.read_table(folder / "spots.parquet")
    assert log.num_rows == judged.spots
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["session"] == found["session"]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["seq"] for event in events] == list(range(len(events)))
