"""Same seed, same bytes, from processes that share nothing but the code; another seed, another run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_small_plan
from facility.config import load_facility

ROOT = Path(__file__).resolve().parents[2]
WALL = {"wall_s", "files"}
"""What may differ between two runs of one seed: wall time, and folders."""


@dataclass(frozen=True)
class Left:
    """What a process printed and left behind."""

    said: dict[str, object]
    spots: bytes
    events: bytes


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "small.dcm"
    write_dicom_plan(make_small_plan(load_facility("wuwei"), "carbon"), path)
    return path


@pytest.fixture(scope="module")
def runs(plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Left]:
    wanted = {"first": ("7", "0"), "again": ("7", "4242"), "other": ("8", "0")}
    return {
        name: _in_a_process(plan_file, tmp_path_factory.mktemp(name), seed, hash_seed)
        for name, (seed, hash_seed) in wanted.items()
    }


def _in_a_process(plan: Path, home: Path, seed: str, hash_seed: str) -> Left:
    command = [sys.executable, "-m", "console.main", "deliver", str(plan), "--qa", "--seed", seed, "--json"]
    environment = os.environ | {"IONCTL_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    folder = home / "sessions" / said["session"]
    return Left(said, (folder / "spots.parquet").read_bytes(), (folder / "events.jsonl").read_bytes())


def test_same_seed_same_bytes_in_another_process(runs: dict[str, Left]) -> None:
    first, again = runs["first"], runs["again"]
    assert first.spots == again.spots
    assert first.events == again.events
    assert {k: v for k, v in first.said.items() if k not in WALL} == {
        k: v for k, v in again.said.items() if k not in WALL
    }


def test_another_seed_is_another_run_within_tolerance(runs: dict[str, Left]) -> None:
    first, other = runs["first"], runs["other"]
    assert first.spots != other.spots
    assert first.events != other.events
    for left in (first, other):
        truth = left.said["truth"]
        assert isinstance(truth, dict)
        assert truth["spots_within"] == truth["spots"] == left.said["spots"]
        assert left.said["status"] == "completed"
