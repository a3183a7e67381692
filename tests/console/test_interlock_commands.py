"""`ionctl interlocks list, show, matrix, reset, bypass`: words, files, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from channels.protocol import Sample, Severity
from console import tables
from console.commands.interlocks import common
from facility.config import load_facility
from facility.errors import CommandRefused
from interlocks.explain import bound
from interlocks.rules import RuleSet, load_rules
from rig import interlock_desk, remote_mode
from rig.interlock_desk import LiveInterlocks, LiveRule, reset_only
from rig.run_dir import NAMES
from rig.supervisor import ProcessStatus
from tests.console.conftest import Ionctl

FACILITY = load_facility("wuwei")


def rules() -> RuleSet:
    return load_rules(FACILITY, "1", "carbon")


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> dict[str, LiveRule]:
    """A facility that is up, as far as the commands can tell; its rules may be changed by the test."""
    states = {rule.id: LiveRule(False, False, math.nan, math.nan) for rule in rules().rules}

    def look(*_: object) -> LiveInterlocks:
        return LiveInterlocks(False, "ABORT", "position-x", "QA", 20_000_000_000, states)

    monkeypatch.setattr(interlock_desk, "look", look)
    monkeypatch.setattr("rig.supervisor.Supervisor.status", lambda self: (RUN, [RUN] * 3))
    return states


class RUN:
    room, species, alive, speed = "1", "carbon", True, 2.0


def test_list_shows_what_is_tripped(ionctl: Ionctl, live: dict[str, LiveRule]) -> None:
    live["position-x"] = LiveRule(False, True, 0.1, 2.0, {"value": 4.5, "limit": 2.0, "t_ns": 1_300_100_000})
    live["gate"] = LiveRule(True, False, 0.0, 1.0, bypassed=True)
    live["ring-rigidity"] = LiveRule(False, False, 1.0002, 1.001)
    live["spot-timeout"] = LiveRule(False, False, math.nan, math.nan, live=False)
    shown = ionctl("interlocks", "list")
    assert shown.code == 0, shown.err
    assert re.search(r"position-x .* LATCHED ", shown.out)
    assert re.search(r"gate .* PRESENT BYPASSED", shown.out)
    assert re.search(r"ring-rigidity .* 1.0002 ", shown.out)
    assert re.search(r"spot-timeout .* trip ", shown.out)
    assert "tells its value at a trip alone" in shown.out
    assert "no beam permit, action in force ABORT, mode qa, first fault position-x; 1 latched." in shown.out
    assert re.match(r"2 interlocks of", ionctl("interlocks", "list", "--tripped").out)
    few = json.loads(ionctl("interlocks", "list", "--tripped", "--json").out)
    assert [rule["id"] for rule in few["rules"]] == ["position-x", "gate"]
    data = json.loads(ionctl("interlocks", "list", "--json").out)
    now = {rule["id"]: rule["now"] for rule in data["rules"]}
    assert now["position-x"]["trip"] == {"value": 4.5, "limit": 2.0, "t_ns": 1_300_100_000}
    assert now["door"] == {"present": False, "latched": False, "bypassed": False, "value": None, "limit": None,
                           "live": True, "trip": None, "bypass": None}  # fmt: skip


def test_show_gives_the_limits_of_the_target_it_looks_at(ionctl: Ionctl, live: dict[str, LiveRule]) -> None:
    up = ionctl("interlocks", "show", "operator-heartbeat").out
    assert "silence of the operator's console is at most 4000 ms" in up
    assert "of facility time at speed 2" in up
    assert "201.50 observation" in ionctl("interlocks", "show", "link-safety").out, (
        "the watchdog is 100 ms of wall time"
    )


def test_show_says_what_is_different_over_channel_access(ionctl: Ionctl) -> None:
    shown = ionctl("interlocks", "show", "link-safety").out
    assert "11.50 observation" in shown
    assert "over CA " in shown
    assert "101.50 observation" in shown
    assert "over CA " not in ionctl("interlocks", "show", "position-x").out
    assert "ionctl status" in shown, "what to look at"


def test_show_explains_a_trip(ionctl: Ionctl, live: dict[str, LiveRule]) -> None:
    trip = {"value": 4.5, "limit": 2.0, "t_ns": 1_300_100_000}
    live["position-x"] = LiveRule(True, True, 4.4, 2.0, trip)
    shown = ionctl("interlocks", "show", "position-x").out
    for words in (
        "protects from  dose beside the target",
            "TRIPPED. Beam position, x: 4.5 mm, limit 2 mm, since 1.300100 s of facility time",
        "its cause is still there", "the cause must go first", "a physicist resets it", "observation +", "decision +",
        "with one device failed", "not bypassed; possible: never",
    ):  # fmt: skip
        assert words in shown
    live["position-x"] = LiveRule(False, True, 0.1, 2.0, trip)
    assert "its cause is gone" in ionctl("interlocks", "show", "position-x").out
    live["gate"] = replace(live["gate"], present=True, value=0.0, limit=1.0, bypassed=True,
                           bypass={"by": "physicist", "reason": "phantom", "until_ns": 80_000_000_000})  # fmt: skip
    shown = ionctl("interlocks", "show", "gate").out
    assert "PRESENT, now 0, must be 1, acts as long as it is" in shown
    assert "BYPASSED by physicist: phantom; ends by itself at 80.000000 s of facility time, in 60 s" in shown
    assert "good, no value has come yet" in ionctl("interlocks", "show", "door").out
    data = json.loads(ionctl("interlocks", "show", "position-x", "--json").out)
    assert data["now"]["trip"]["value"] == 4.5
    live["position-x"] = LiveRule(False, False, 4.5, 2.0, live=False)
    shown = ionctl("interlocks", "show", "position-x").out
    assert "told at a trip alone, at its last trip 4.5 mm, limit 2 mm" in shown
    assert "looks at       strip.err_x_mm: centroid minus plan at isocentre" in shown
    parts = data["bound_us"]
    assert parts["total"] == parts["observation"] + parts["decision"] + parts["actuator"]


def test_show_without_a_facility_that_is_up(ionctl: Ionctl) -> None:
    shown = ionctl("interlocks", "show", "gate")
    assert shown.code == 0
    assert "the facility is not up" in shown.out
    assert "wuwei is not up" in ionctl("interlocks", "list", "--tripped").err
    promised = bound(rules().rule("gate"), rules(), FACILITY)
    alone = "no second device does it" in shown.out
    assert alone == math.isinf(promised.degraded_us)
    assert alone != ("with one device failed" in shown.out)
    assert json.loads(ionctl("interlocks", "show", "gate", "--json").out)["now"] is None


class Page(HTMLParser):
    """Rows of the table, and whatever a page would have to fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.fetched: list[str] = []
        self.dots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        given = dict(attrs)
        self.dots += "dot" in (given.get("class") or "").split()
        self.fetched += [str(given[key]) for key in ("src", "href") if key in given]

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_matrix_as_table_page_and_csv(ionctl: Ionctl, tmp_path: Path) -> None:
    found = rules()
    printed = ionctl("interlocks", "matrix")
    assert printed.code == 0, printed.err
    assert all(rule.id in printed.out for rule in found.rules)
    data = json.loads(ionctl("interlocks", "matrix", "--json").out)
    assert [row["rule"] for row in data["rows"]] == [rule.id for rule in found.rules]

    sheet = tmp_path / "matrix.csv"
    assert ionctl("interlocks", "matrix", "--output", str(sheet)).code == 0
    lines = list(csv.DictReader(sheet.open(newline="")))
    for line, rule in zip(lines, found.rules, strict=True):
        promised = bound(rule, found, FACILITY)
        assert line["rule"] == rule.id
        assert float(line["bound_ms"]) == pytest.approx(promised.total_us / 1000.0, abs=0.006)
        assert (line["dump"] == "1") == (rule.action == "ABORT")
        assert (line["inhibit"] == "1") == (rule.action == "INHIBIT")
        assert (line["spill_off"] == "1") == (rule.action != "INHIBIT")
        assert (line["latches"] == "1") == rule.latches

    path = tmp_path / "matrix.html"
    assert ionctl("interlocks", "matrix", "--output", str(path)).code == 0
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.fetched == [], "the page needs nothing else"
    assert "url(" not in text
    causes = [row for row in page.rows if len(row) > 5]
    assert len(causes) == len(found.rules)
    assert page.dots == sum(sum(line[key] == "1" for key in ("inhibit", "spill_off", "fast_quad", "dump", "latches"))
                            for line in lines)  # fmt: skip
    assert "@media print" in text
    assert found.hash in text
    refused = ionctl("interlocks", "matrix", "--output", str(tmp_path / "matrix.doc"))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert ionctl("interlocks", "matrix", "--output", str(tmp_path / "away" / "m.csv")).code == 2


def test_what_needs_a_running_facility_says_so(ionctl: Ionctl) -> None:
    for arguments in (("reset",), ("reset", "--rule", "gate"), ("bypass", "gate", "--reason", "try", "--for", "10m"),
                      ("unbypass", "gate"), ("mode", "qa")):  # fmt: skip
        outcome = ionctl("interlocks", *arguments)
        assert outcome.code == 6, arguments
        assert "ionctl up" in outcome.err
        assert outcome.err.count("\n") == 1


def test_what_is_asked_of_the_safety_controller(ionctl: Ionctl, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Mapping[str, Any], str]] = []

    def ask(_facility: object, _home: object, verb: str, args: Mapping[str, Any], role: str) -> Mapping[str, Any]:
        asked.append((verb, dict(args), role))
        if verb == "unbypass":
            raise CommandRefused("bypass.none", "gate is not bypassed", "unbypass")
        return {"reset": {"cleared": ["gate-stale"], "permit": True}, "bypass": {"until_ns": 90_000_000_000}}.get(
            verb, {}
        )

    monkeypatch.setattr(interlock_desk, "ask_safety", ask)
    monkeypatch.setattr(remote_mode, "change_mode", lambda *args: ask(*args[:2], "set_mode", {"mode": args[2]}, ""))
    assert "let go: gate-stale\nbeam is permitted again" in ionctl("interlocks", "reset", "--role", "operator").out
    done = ionctl("interlocks", "bypass", "gate", "--reason", "phantom on the couch", "--for", "1.5m")
    assert done.out == "gate is bypassed until 90.000000 s of facility time: phantom on the couch\n"
    refused = ionctl("interlocks", "unbypass", "gate")
    assert (refused.code, "not bypassed" in refused.err) == (5, True)
    assert ionctl("interlocks", "mode", "qa").code == 0
    assert asked == [
        ("reset", {}, "operator"),
        ("bypass", {"rule": "gate", "reason": "phantom on the couch", "seconds": 90.0}, "physicist"),
        ("unbypass", {"rule": "gate"}, "physicist"),
        ("set_mode", {"mode": "qa"}, ""),
    ]
    for time in ("10", "0m", "-1s", "soon"):
        assert ionctl("interlocks", "bypass", "gate", "--reason", "r", f"--for={time}").code == 2
    assert ionctl("interlocks", "bypass", "nonsense", "--reason", "r", "--for", "1m").code == 2
    assert len(asked) == 4


def test_a_reset_of_named_rules_is_of_those_alone() -> None:
    good, latched = LiveRule(False, False, 0.0, 0.0), LiveRule(False, True, 0.0, 0.0)
    dated = replace(latched, tripped_ns=7)
    seen = LiveInterlocks(False, "ABORT", "a", "QA", 0, {"a": dated, "b": latched, "c": good})
    assert reset_only(seen, ["a", "b"]) == {"a": 7, "b": None}
    with pytest.raises(CommandRefused, match="also latched: b"):
        reset_only(seen, ["a"])
    with pytest.raises(CommandRefused, match="not latched: c"):
        reset_only(seen, ["a", "b", "c"])


def test_list_fits_a_screen_of_eighty_columns(
    ionctl: Ionctl, live: dict[str, LiveRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule, action, value, state and title, whole words, and what was left out."""
    monkeypatch.setattr(tables, "PLAIN_WIDTH", 80)
    live["backup-layer"] = LiveRule(True, True, 1.234e7, 1.2e7)
    live["beam-without-demand-ic1"] = LiveRule(True, True, math.nan, 1.2e7, bypassed=True)
    for arguments in ((), ("--tripped",)):
        shown = ionctl("interlocks", "list", *arguments).out
        assert max(map(len, shown.splitlines())) <= 80
        for words in (r"backup-layer +(H +)?ABORT +1.234e\+07 +LATCHED", "beam-without-demand-ic1", "Left out on 80",
                      r"the permit is\s+withheld by backup-layer"):  # fmt: skip
            assert re.search(words, shown), words


def test_a_reset_of_named_rules_tells_the_safety_controller_which_trips_were_seen(
    ionctl: Ionctl, live: dict[str, LiveRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it lets go of nothing that comes on the way there."""
    asked: list[object] = []
    monkeypatch.setattr(interlock_desk, "ask_safety", lambda *given: asked.append(given[2:]) or {"cleared": ["door"]})
    live["door"] = LiveRule(False, True, 0.0, 1.0, tripped_ns=1_300_100_000)
    assert ionctl("interlocks", "reset", "--rule", "door").code == 0
    assert ionctl("interlocks", "reset").code == 0
    assert asked == [("reset", {"latched": {"door": 1_300_100_000}}, "physicist"), ("reset", {}, "physicist")]


def test_the_time_of_a_trip_is_kept_as_it_was_told() -> None:
    shown = b'[{"id": "door", "t_ns": 7}, {"id": "gate"}, {"id": "ups", "t_ns": "now"}, 8]'
    assert interlock_desk.trip_times(Sample(shown, 0, Severity.MAJOR)) == {"door": 7}
    assert interlock_desk.trip_times(None) == {}


def test_list_says_what_to_do_where_there_is_no_permit(ionctl: Ionctl, live: dict[str, LiveRule]) -> None:
    live["safety-permit"] = LiveRule(True, False, 0.0, 1.0)  # an echo of the missing permit is no reason for it
    assert "nothing stands against a permit; a person releases it" in ionctl("interlocks", "list").out
    live["gate"] = LiveRule(True, False, 0.0, 1.0)  # a HOLD withholds nothing
    live["position-x"] = LiveRule(False, True, 4.5, 2.0)
    assert "see: ionctl interlocks show position-x; then: ionctl interlocks reset" in ionctl("interlocks", "list").out
    live["door"] = LiveRule(True, False, 0.0, 1.0)
    live["mode-key"] = LiveRule(True, False, 0.0, 1.0)
    live["search"] = LiveRule(True, False, 0.0, 1.0, bypassed=True)
    shown = ionctl("interlocks", "list").out
    assert "the permit is withheld by door, mode-key; see: ionctl interlocks show door" in shown


def test_an_inhibit_is_not_said_to_take_beam_off(ionctl: Ionctl) -> None:
    assert "it takes no beam off; a permit is withheld 5.02 ms after" in ionctl("interlocks", "show", "mode-key").out


@pytest.mark.parametrize(
    ("alive", "words"),
    [
        ((), "the facility is not up"),
        (("plant", "control"), "the facility is up without safety: there is no beam permit"),
        (("plant", "safety"), "the facility is up without control; ionctl down"),
        (NAMES, "of another room or species"),
    ],
)
def test_it_is_said_why_nothing_is_live(alive: tuple[str, ...], words: str) -> None:
    lines = [ProcessStatus(name, name in alive, None, {}) for name in NAMES]
    assert words in common._absent(True, lines)
