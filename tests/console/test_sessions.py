"""`ionctl session` of journals that are not there, of virtual deliveries, and on narrow screens."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from console.summary import print_result
from journal.store import Batch, Row, open_journal, sqlite_url
from rig.result import DeliveryResult
from tests.console.conftest import Ionctl

TEXTS = ("facility", "config_hash", "energy_table", "room", "plan_hash", "plan_path", "operator")


def journal_with(path: Path, session: str, facility: str = "wuwei") -> None:
    values: dict[str, Any] = dict.fromkeys(TEXTS, "x") | {
        "mode": "clinical", "qa": 0, "plan_label": "sphere 60", "patient": "QA", "layers": 33, "spots": 14373,
        "prescribed_ions": 1.969e9,
    }  # fmt: skip
    journal = open_journal(sqlite_url(path), facility)
    journal.append([Batch((Row("sessions", 1, session, values),), 1)])
    journal.close()


@pytest.mark.parametrize("command", ["session list", "session show S-1", "journal verify"])
def test_a_journal_that_is_not_there_is_refused_and_not_made(ionctl: Ionctl, command: str, tmp_path: Path) -> None:
    path = tmp_path / "nothing.sqlite"
    outcome = ionctl(*command.split(), "--journal", str(path))
    assert outcome.code != 0
    assert outcome.err.count("\n") == 1
    assert f"there is no such file ({path})" in outcome.err
    assert not path.exists()


@pytest.mark.parametrize("with_other", [False, True])
def test_a_virtual_session_is_listed_and_shown_from_the_journal_in_its_folder(
    ionctl: Ionctl, with_other: bool, tmp_path: Path
) -> None:
    sessions = tmp_path / "home" / "sessions"
    for name, facility in (("S-0123456789ab", "wuwei"), ("S-elsewhere", "pimms")):
        (sessions / name).mkdir(parents=True)
        journal_with(sessions / name / "journal.sqlite", name, facility)
    (sessions / "S-broken").mkdir()
    (sessions / "S-broken" / "journal.sqlite").write_bytes(b"no journal" * 1000)
    if with_other:
        (tmp_path / "home" / "journal").mkdir()
        journal_with(tmp_path / "home" / "journal" / "wuwei.sqlite", "S-other")
    outcome = ionctl("session", "list", "--json")
    assert outcome.code == 0, outcome.err
    listed = [(one["session"], one["virtual"]) for one in json.loads(outcome.out)["sessions"]]
    assert listed == [*([("S-other", False)] if with_other else []), ("S-0123456789ab", True)]
    assert ionctl("session", "show", "S-0123456789ab").code == 0
    assert ionctl("session", "export", "S-0123456789ab", "--output", str(tmp_path / "export.json")).code == 0
    assert ionctl("journal", "verify", "S-0123456789ab").code == 0


@pytest.mark.parametrize("command", ["session show", "session close --reason x", "resume --reason x", "journal verify"])
@pytest.mark.parametrize("with_other", [False, True])
def test_a_session_that_nobody_knows_is_told_as_such_and_where_they_are_listed(
    ionctl: Ionctl, command: str, with_other: bool, tmp_path: Path
) -> None:
    """Not that the facility is down, or that there is no journal: neither would help."""
    own = tmp_path / "home" / "sessions" / "S-0123456789ab"
    own.mkdir(parents=True)
    journal_with(own / "journal.sqlite", own.name)
    if with_other:
        (tmp_path / "home" / "journal").mkdir()
        journal_with(tmp_path / "home" / "journal" / "wuwei.sqlite", "S-other")
    outcome = ionctl(*command.split(), "S-0123456789xx")
    assert outcome.code == 2
    assert "no session 'S-0123456789xx'" in outcome.err
    assert "did you mean 'S-0123456789ab'?" in outcome.err
    assert "ionctl session list --facility wuwei" in outcome.err
    assert ("S-other" in outcome.err) is with_other


def test_a_layer_that_was_armed_and_not_booked_has_got_nobody_knows_how_much(ionctl: Ionctl, tmp_path: Path) -> None:
    """The dose register has it: what is shown as left is the most that can be."""
    path = tmp_path / "j.sqlite"
    journal_with(path, "S-1")
    armed: dict[str, Any] = {
        "layer": 0, "beam": 0, "token": 1, "status": "arming", "loads": 1, "spots": 9, "spots_done": 0,
        "prescribed_ions": 5e6, "ic1_ions": 0.0, "ic2_ions": 0.0, "uncertain_ions": 0.0, "beam_on_s": 0.0,
    }  # fmt: skip
    journal = open_journal(sqlite_url(path), "wuwei")
    journal.append([Batch((Row("layers", 2, "S-1", armed),), 2)])
    shown = ionctl("session", "show", "S-1", "--journal", str(path)).out
    assert "at least 0" in shown
    assert "at most 5000000" in shown
    assert "Layer 0 was armed: what it got since is in the dose register" in shown
    (line,) = json.loads(ionctl("session", "show", "S-1", "--journal", str(path), "--json").out)["layers_begun"]
    assert (line["status"], line["unsure"]) == ("armed", True)
    for known, unsure in ((False, True), (True, False)):
        heard = {"source": "control", "kind": "session.reconciled", "data": json.dumps({"words": "", "known": known})}
        journal.append([Batch((Row("events", 3, "S-1", heard),), 3)])
        (line,) = json.loads(ionctl("session", "show", "S-1", "--journal", str(path), "--json").out)["layers_begun"]
        assert line["unsure"] is unsure
    journal.close()


def test_the_list_is_whole_words_on_eighty_columns(
    ionctl: Ionctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.sqlite"
    journal_with(path, "S-0123456789ab")
    out = io.StringIO()
    monkeypatch.setattr("console.tables.screen", lambda **_: Console(file=out, width=80))
    assert ionctl("session", "list", "--journal", str(path)).code == 0
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "S-0123456789ab" in out.getvalue()
    assert lines[-1].startswith("Left out on 80 columns: room")


def test_a_resumed_session_says_what_is_of_which_part(capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"index": 0, "token": 1, "energy_mev_u": 300.0, "spots": 2, "spots_done": 2, "prescribed_ions": 2.0,
             "ic1_ions": 2.0, "ic2_ions": 2.0, "worst_spot_error_ions": 0.0, "heaviest_spot_ions": 1.0, "verified": 1,
             "worst_position_mm": None, "time_s": None, "time_why": "part 1 left no summary"}  # fmt: skip
    trip = {"t_ns": 7, "rule": "door", "action": "ABORT", "layer": 0, "detail": {}, "part": 1}
    summary = {"session": "S-1", "status": "interrupted", "reason": "paused", "qa": False, "spots": 2, "spots_done": 2,
               "layers": [layer], "layers_total": 2, "interlocks": [trip], "prescribed_ions": 4.0, "ic1_ions": 2.0,
               "ic2_ions": 2.0, "facility_s": 9.8, "beam_on_s": 4.7}  # fmt: skip
    words_and_notes: dict[str, Any] = {"truth_words": "not known: gone", "notes": ("made for X",)}
    print_result(DeliveryResult("ca", "wuwei", "1", 1, 1.0, summary, None, 10.0, part=2, **words_and_notes))
    out = capsys.readouterr().out
    for words in ("door", "not known: gone", "time of part 2", "time of all parts", "a part left no summary",
                  "Time of layer 0 is not known: part 1 left no summary.", "Note: made for X."):  # fmt: skip
        assert words in out
    assert "No interlock took the beam" not in out
    assert "interlocks resolve" not in out, "the ABORT is the earlier part's, and accounted for"
    print_result(DeliveryResult("ca", "wuwei", "1", 1, 1.0, summary | {"interlocks": []}, None, 10.0))
    out = capsys.readouterr().out
    assert "No trip is on record" in out
    assert "No interlock took the beam." not in out
