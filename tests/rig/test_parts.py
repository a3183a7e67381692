"""A session in parts: nothing of the earlier ones is lost, and what is not known is said, not left empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import load_facility
from facility.errors import ConfigError
from journal.store import Batch, Row, open_journal, sqlite_url
from rig.parts import Earlier, read_earlier
from rig.result import layer_s
from rig.truth_file import added
from rig.truth_log import TRUTH_LOG_FILE, write_truth_log

FACILITY = load_facility("wuwei")
S = 1_000_000_000
LAYER = {"beam": 0, "loads": 1, "spots": 2, "spots_done": 2, "prescribed_ions": 2.0, "ic1_ions": 2.0, "ic2_ions": 2.0,
         "uncertain_ions": 0.0, "beam_on_s": 1.0}  # fmt: skip


def person(t_s: int, what: str) -> Row:
    return Row("operators", t_s * S, "S-1", {"operator": "op", "role": "clinical", "what": what, "reason": ""})


def trip(t_s: int, rule: str, action: str) -> Row:
    values = {"rule": rule, "action": action, "layer": 1, "detail": json.dumps({"t_ns": t_s * S + 7})}
    return Row("trips", t_s * S, "S-1", values)


def booked(t_s: int, layer: int, status: str) -> Row:
    return Row("layers", t_s * S, "S-1", {**LAYER, "layer": layer, "token": layer + 1, "status": status})


def times(index: int, armed_s: float, done_s: float, verified: bool) -> dict[str, Any]:
    return {"index": index, "token": index + 1, "t_armed_ns": int(armed_s * S), "t_first_beam_ns": None,
            "t_done_ns": int(done_s * S), "verified": verified}  # fmt: skip


def summary(part: int, layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"part": part, "facility_s": 4.0, "truth": None, "record": {"layers": layers}, **more}


def begun(folder: Path, *rows: Row, left: dict[str, Any] | None = None) -> Earlier:
    """Earlier parts as journal and folder have them, kept."""
    folder.mkdir()
    if left is not None:
        (folder / "summary.json").write_text(json.dumps(left))
    (folder / "events.jsonl").write_text("first\n")
    journal = open_journal(sqlite_url(folder / "j.sqlite"), "wuwei")
    journal.append([Batch(rows, 1)])
    earlier = read_earlier(journal, "S-1", folder)
    journal.close()
    earlier.keep()
    return earlier


ROWS = (person(1, "open"), person(2, "start"), booked(3, 0, "verified"), booked(4, 1, "arming"),
        trip(5, "door", "PAUSE"), trip(5, "door", "ABORT"))  # fmt: skip


def test_trips_of_earlier_parts_stay_and_one_that_was_booked_twice_is_one(tmp_path: Path) -> None:
    dated = {"t_ns": 5 * S + 3, "rule": "door", "action": "ABORT", "layer": 1, "detail": {"t_ns": 4 * S}}
    left = summary(1, [], interlocks=[dated])
    earlier = begun(tmp_path / "s", *ROWS, person(6, "open"), person(7, "start"), trip(8, "door", "ABORT"), left=left)
    now = {"t_ns": 9 * S, "rule": "gate", "action": "PAUSE", "layer": 2, "detail": {}}
    joined = earlier.joined({"interlocks": [now], "layers": [], "t_opened_ns": 0}, earlier.parts + 1)
    assert [(one["part"], one["rule"], one["action"]) for one in joined["interlocks"]] == [
        (1, "door", "ABORT"), (2, "door", "ABORT"), (3, "gate", "PAUSE"),
    ]  # fmt: skip
    assert joined["interlocks"][0]["detail"]["t_ns"] == 4 * S, "facility time, where the earlier summary has it"


def test_times_are_of_all_parts_and_never_negative(tmp_path: Path) -> None:
    left = summary(1, [times(0, 2.0, 3.5, True), times(1, 4.0, 4.5, False)], session_facility_s=4.0)
    earlier = begun(tmp_path / "s", *ROWS, left=left)
    layers = [times(0, 3.6, 3.5, True), times(1, 100.0, 101.0, True), times(2, 102.0, 104.0, True)]
    joined = earlier.joined({"interlocks": [], "layers": layers, "t_opened_ns": 99 * S}, 2)
    assert [layer_s(one) for one in joined["layers"]] == [1.5, 1.5, 2.0]
    assert joined["layers"][0]["t_armed_ns"] == 2 * S
    assert earlier.session_s(6.0) == 10.0


def test_what_a_part_did_not_leave_is_not_known_and_says_why(tmp_path: Path) -> None:
    earlier = begun(tmp_path / "s", *ROWS)
    layers = [times(0, 3.6, 3.5, True), times(1, 100.0, 101.0, True), times(2, 102.0, 50.0, False)]
    joined = earlier.joined({"interlocks": [], "layers": layers, "t_opened_ns": 99 * S}, 2)
    assert [layer_s(one) for one in joined["layers"]] == [None, None, None]
    whys = [one["time_why"] for one in joined["layers"]]
    assert ["left no summary" in why for why in whys] == [True, True, False]
    assert "different runs" in whys[2]
    assert earlier.session_s(6.0) is None
    program = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)
    with pytest.raises(ConfigError, match="part 1 left no truth"):
        earlier.truth(program, "S-1")


def test_files_of_a_part_are_kept_under_its_number_and_only_once(tmp_path: Path) -> None:
    earlier = begun(tmp_path / "s", *ROWS, left=summary(1, []))
    (tmp_path / "s" / "events.jsonl").write_text("second\n")
    earlier.keep()
    assert (tmp_path / "s" / "parts" / "1" / "events.jsonl").read_text() == "first\n"
    assert (tmp_path / "s" / "parts" / "1" / "summary.json").exists()


def test_truth_of_parts_adds_up_in_ions_and_positions(tmp_path: Path) -> None:
    program = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)
    layer = program.layers[0]
    half, zeros = 0.5 * layer.target_ions, np.zeros(layer.n_spots)
    rows = np.column_stack([half, half * (layer.x_mm + 0.2), half * layer.y_mm, zeros, zeros])
    rows[-1] = 0.0
    folder = tmp_path / "s"
    folder.mkdir()
    write_truth_log(folder / TRUTH_LOG_FILE, "S-1", program, {layer.token: rows}, FACILITY)
    (folder / "summary.json").write_text(json.dumps(summary(1, [], truth={})))
    earlier = Earlier(folder, 1)
    earlier.keep()
    found = added(earlier.truth(program, "S-1"), {layer.token: rows})
    np.testing.assert_allclose(found[layer.token], 2.0 * rows, rtol=1e-12, atol=1e-6)
    assert set(found) == {one.token for one in program.layers}
    with pytest.raises(ConfigError, match="another plan"):
        earlier.truth(program, "S-2")
