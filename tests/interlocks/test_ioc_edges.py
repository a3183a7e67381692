"""What the safety IOC publishes and when, of snapshots that are handed to it: values, severities, instants."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from channels.command import Command, CommandResult, Status
from channels.command_server import Refusal, Repeated, Verified
from channels.protocol import Severity
from facility.states import Action
from interlocks import ioc
from interlocks.ioc import SafetyIoc, bypassed_json, latched_json
from interlocks.snapshot import Mode, RuleView, SafetySnapshot
from tests.interlocks.support import body, several

RULES = several(
    body(id="abort-a"),
    body(id="pause-b", action="PAUSE", reset="operator"),
    body(id="hold-c", action="HOLD", reset="none"),
    body(id="inhibit-d", action="INHIBIT", reset="none"),
)
NO, MINOR, MAJOR, INVALID = 0, 1, 2, 3


def snapshot(**changes: Any) -> SafetySnapshot:
    views = tuple(RuleView(rule) for rule in RULES.rules)
    return replace(SafetySnapshot(0, True, False, True, Action.NONE, "", Mode.CLINICAL, True, views), **changes)


class Shown:
    """An IOC over a controller that is what it is told to be; it is also clock and verifier."""

    def __init__(self) -> None:
        self.rules = RULES
        self.revision = 1
        self.now = snapshot()
        self.t_ns = 0
        self.results: list[CommandResult] = []
        self.recorded: list[CommandResult] = []
        self.verdict: Any = None
        self.asked: list[bool] = []
        self.heard: list[tuple[str, bytes, int]] = []
        self.ioc = SafetyIoc("X", self, self, self)  # type: ignore[arg-type]
        self.put: dict[str, tuple[Any, int]] = {}
        self.ioc._put = lambda name, value, severity: self.put.__setitem__(name, (value, severity))  # type: ignore[method-assign]

    @property
    def first_fault(self) -> str:
        return self.now.first_fault

    def now_ns(self) -> int:
        return self.t_ns

    def snapshot(self, *, live: bool = True) -> SafetySnapshot:
        self.asked.append(live)
        return self.now

    def take_results(self) -> list[CommandResult]:
        found, self.results = self.results, []
        return found

    def keep_alive(self, frame: bytes, now_ns: int) -> None:
        self.heard.append(("console", frame, now_ns))

    def lines(self, frame: bytes, now_ns: int) -> bool:
        self.heard.append(("control", frame, now_ns))
        return frame == b"news"

    def command(self, command: Any, now_ns: int) -> CommandResult:
        self.heard.append(("command", command, now_ns))
        return CommandResult("C-1", Status.DONE)

    def verify(self, frame: bytes) -> Any:
        return self.verdict

    def record(self, result: CommandResult) -> None:
        self.recorded.append(result)

    def refresh(self, t_ns: int, **changes: Any) -> dict[str, tuple[Any, int]]:
        """What is published at an instant, with a snapshot that has changed."""
        self.t_ns = t_ns
        if changes:
            self.revision += 1
            self.now = replace(self.now, **changes)
        self.put.clear()
        self.due_ns = self.ioc.refresh()
        return dict(self.put)

    def view(self, place: int, **changes: Any) -> dict[str, Any]:
        """Changes of a snapshot: one of its rules."""
        rules = list(self.now.rules)
        rules[place] = replace(rules[place], **changes)
        return {"rules": tuple(rules)}


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_the_first_time_everything_is_published(shown: Shown) -> None:
    put = shown.refresh(5)
    assert {name: put[f"SAFE:{name}"] for name in ("Permit-Sts", "Action-Sts", "FirstFault-RB", "Mode-Sts", "Key-Sts",
            "Field-RB", "Field-Sts", "Pauses-RB", "Heartbeat-RB")} == {
        "Permit-Sts": (1, NO), "Action-Sts": (0, NO), "FirstFault-RB": ("", NO), "Mode-Sts": (0, NO),
        "Key-Sts": (1, NO), "Field-RB": ("", NO), "Field-Sts": (0, NO), "Pauses-RB": (0, NO), "Heartbeat-RB": (1, NO),
    }  # fmt: skip
    assert put["SAFE:Latched-RB"] == put["SAFE:Bypassed-RB"] == (b"[]", NO)
    for rule in ("ABORT-A", "PAUSE-B", "HOLD-C", "INHIBIT-D"):
        for kind in ("Present", "Latched", "Bypassed"):
            assert put[f"SAFE:{rule}:{kind}-Sts"] == (0, NO)
        assert put[f"SAFE:{rule}:Value-RB"] == put[f"SAFE:{rule}:Limit-RB"] == (0.0, INVALID)
    assert shown.due_ns == 5 + ioc.HEARTBEAT_NS


@pytest.mark.parametrize("start", [0, 7, 3 * ioc.PUBLISH_NS + 1])
def test_updates_are_a_tenth_of_a_second_apart(shown: Shown, start: int) -> None:
    assert shown.refresh(start)
    assert shown.refresh(start + ioc.PUBLISH_NS - 1, permit=False) == {}
    assert shown.due_ns == start + ioc.PUBLISH_NS
    assert shown.refresh(start + ioc.PUBLISH_NS) == {"SAFE:Permit-Sts": (0, NO)}
    assert shown.due_ns == start + ioc.HEARTBEAT_NS
    assert shown.refresh(start + ioc.PUBLISH_NS + 1, permit=True) == {}
    assert shown.due_ns == start + 2 * ioc.PUBLISH_NS


def test_what_has_not_changed_is_not_published_and_does_not_make_others_wait(shown: Shown) -> None:
    shown.refresh(0)
    assert shown.refresh(ioc.PUBLISH_NS, permit=True) == {}
    assert shown.refresh(ioc.PUBLISH_NS + 1, pauses=1) == {"SAFE:Pauses-RB": (1, NO)}


def test_where_nothing_was_scanned_nothing_is_asked_of_the_controller(shown: Shown) -> None:
    shown.refresh(0)
    shown.now = replace(shown.now, permit=False)  # the revision has not risen
    assert shown.refresh(ioc.PUBLISH_NS) == {}
    shown.revision -= 5
    assert shown.refresh(2 * ioc.PUBLISH_NS) == {"SAFE:Permit-Sts": (0, NO)}


def test_another_first_fault_is_published_at_once_and_only_once(shown: Shown) -> None:
    shown.refresh(0)
    put = shown.refresh(1, first_fault="abort-a", permit=False)
    assert put == {"SAFE:FirstFault-RB": ("abort-a", MAJOR), "SAFE:Permit-Sts": (0, NO)}
    assert shown.refresh(2, permit=True) == {}
    assert shown.due_ns == 1 + ioc.PUBLISH_NS
    for k, first in enumerate(("pause-b", "abort-a"), start=3):
        assert shown.refresh(k, first_fault=first)["SAFE:FirstFault-RB"] == (first, MAJOR)


def test_a_controller_that_has_scanned_nothing_is_published_too(shown: Shown) -> None:
    shown.revision = 0
    assert shown.refresh(0)["SAFE:Permit-Sts"] == (1, NO)


def test_proof_tests_are_published_when_there_is_another_list_of_them(shown: Shown) -> None:
    assert shown.refresh(0)["SAFE:Proof-RB"] == (b"[]", NO)
    rows = ({"id": "a", "valid": True},)
    assert shown.refresh(ioc.PUBLISH_NS, proofs=rows)["SAFE:Proof-RB"] == (b'[{"id":"a","valid":true}]', NO)
    assert "SAFE:Proof-RB" not in shown.refresh(2 * ioc.PUBLISH_NS, permit=False, proofs=rows)


@pytest.mark.parametrize("start", [3, ioc.HEARTBEAT_NS * 4])
def test_the_heartbeat_rises_by_one_each_quarter_of_a_second_and_begins_anew_at_its_end(start: int) -> None:
    shown = Shown()
    assert shown.refresh(start)["SAFE:Heartbeat-RB"] == (1, NO)
    assert "SAFE:Heartbeat-RB" not in shown.refresh(start + ioc.HEARTBEAT_NS - 1)
    assert shown.refresh(start + ioc.HEARTBEAT_NS) == {"SAFE:Heartbeat-RB": (2, NO)}
    assert shown.due_ns == start + 2 * ioc.HEARTBEAT_NS
    late = start + 9 * ioc.HEARTBEAT_NS + 5
    assert shown.refresh(late) == {"SAFE:Heartbeat-RB": (3, NO)}
    assert shown.due_ns == late + ioc.HEARTBEAT_NS
    shown.ioc._beats = 2**31 - 1
    assert shown.refresh(late + ioc.HEARTBEAT_NS) == {"SAFE:Heartbeat-RB": (0, NO)}


@pytest.mark.parametrize(("action", "severity"), [(Action.NONE, NO), (Action.INHIBIT, MINOR), (Action.HOLD, MINOR),
                                                  (Action.PAUSE, MAJOR), (Action.ABORT, MAJOR)])  # fmt: skip
def test_an_action_has_its_severity(shown: Shown, action: Action, severity: int) -> None:
    assert shown.refresh(0, action=action)["SAFE:Action-Sts"] == (int(action), severity)


@pytest.mark.parametrize(
    ("changes", "name", "value", "severity"),
    [
        ({"permit": False}, "Permit-Sts", 0, NO),
        ({"first_fault": "abort-a"}, "FirstFault-RB", "abort-a", MAJOR),
        ({"mode": Mode.QA}, "Mode-Sts", 1, NO),
        ({"mode": Mode.SERVICE}, "Mode-Sts", 2, NO),
        ({"key_agrees": False}, "Key-Sts", 0, MAJOR),
        ({"session": "S-1"}, "Field-RB", "S-1", NO),
        ({"begun": True}, "Field-Sts", 1, NO),
        ({"begun": True, "unresolved": True}, "Field-Sts", 2, MAJOR),
        ({"unresolved": True}, "Field-Sts", 2, MAJOR),
        ({"pauses": 3}, "Pauses-RB", 3, NO),
        ({"proofs_running": True}, "Proof-Sts", 1, NO),
        ({"proofs": ({"id": "a", "valid": False},)}, "Proof-Sts", 0, NO),
        ({"proofs": ({"id": "a", "valid": True},)}, "Proof-Sts", 2, NO),
        ({"proofs": ({"id": "a", "valid": True}, {"id": "b", "valid": False})}, "Proof-Sts", 0, NO),
    ],
)
def test_what_a_snapshot_says_is_shown(changes: dict[str, Any], name: str, value: Any, severity: int) -> None:
    shown = Shown()
    assert shown.refresh(0, **changes)[f"SAFE:{name}"] == (value, severity)


@pytest.mark.parametrize(("place", "severity"), [(0, MAJOR), (1, MAJOR), (2, MINOR), (3, MINOR)])
def test_a_rule_shows_state_value_and_limit_with_severities_of_its_own(shown: Shown, place: int, severity: int) -> None:
    base = f"SAFE:{RULES.rules[place].id.upper()}"
    shown.refresh(0)
    put = shown.refresh(ioc.PUBLISH_NS, **shown.view(place, present=True, value=2.5, limit=1.1))
    assert put == {f"{base}:Present-Sts": (1, severity), f"{base}:Value-RB": (2.5, severity),
                   f"{base}:Limit-RB": (1.1, NO)}  # fmt: skip
    put = shown.refresh(2 * ioc.PUBLISH_NS, **shown.view(place, present=False, latched=True, value=1.0))
    assert put == {f"{base}:Present-Sts": (0, NO), f"{base}:Latched-Sts": (1, severity),
                   f"{base}:Value-RB": (1.0, NO), "SAFE:Latched-RB": (put["SAFE:Latched-RB"][0], NO)}  # fmt: skip
    put = shown.refresh(3 * ioc.PUBLISH_NS, **shown.view(place, latched=False, bypassed=True, value=math.nan))
    del put["SAFE:Heartbeat-RB"], put["SAFE:Latched-RB"]
    assert put.pop("SAFE:Bypassed-RB")[1] == MINOR
    assert put == {f"{base}:Latched-Sts": (0, NO), f"{base}:Bypassed-Sts": (1, MINOR),
                   f"{base}:Value-RB": (0.0, INVALID)}  # fmt: skip


@pytest.mark.parametrize("state", ["present", "latched", "bypassed"])
def test_each_state_of_a_rule_is_shown_as_it_comes_and_goes_whatever_the_others_do(shown: Shown, state: str) -> None:
    name = f"SAFE:ABORT-A:{state.title()}-Sts"
    shown.refresh(0)
    for number, stands in enumerate((True, False, True), start=1):
        put = shown.refresh(number * ioc.PUBLISH_NS, **shown.view(0, **{state: stands}))
        assert put[name][0] == stands


@pytest.mark.parametrize("start", [0, 11])
def test_values_that_move_without_a_change_of_mind_are_shown_once_a_second(shown: Shown, start: int) -> None:
    shown.refresh(start, **shown.view(0, value=1.0, limit=1.1))
    name = "SAFE:ABORT-A:Value-RB"
    assert name not in shown.refresh(start + ioc.VALUES_NS - 1, **shown.view(0, value=1.01))
    assert shown.refresh(start + 2 * ioc.VALUES_NS, **shown.view(0, value=1.02))[name] == (1.02, NO)
    assert name not in shown.refresh(start + 3 * ioc.VALUES_NS - 1, **shown.view(0, value=1.03))
    assert shown.refresh(start + 3 * ioc.VALUES_NS + ioc.PUBLISH_NS, **shown.view(0, value=1.04))[name] == (1.04, NO)
    at_ns = start + 4 * ioc.VALUES_NS + ioc.PUBLISH_NS
    assert shown.refresh(at_ns, **shown.view(0, limit=1.2))["SAFE:ABORT-A:Limit-RB"] == (1.2, NO)
    assert name not in shown.refresh(at_ns + ioc.VALUES_NS, **shown.view(1, value=5.0))


def test_live_values_are_found_when_they_are_shown(shown: Shown) -> None:
    for t_ns in (0, ioc.VALUES_NS - ioc.PUBLISH_NS, ioc.VALUES_NS, ioc.VALUES_NS + ioc.PUBLISH_NS):
        shown.refresh(t_ns, **shown.view(0, value=1.0 + t_ns * 1e-12))
    assert shown.asked == [True, False, True, False]


def test_values_fall_due_to_the_nanosecond(shown: Shown) -> None:
    shown.refresh(0, **shown.view(0, value=1.0))
    name = "SAFE:ABORT-A:Value-RB"
    assert shown.refresh(ioc.VALUES_NS, **shown.view(0, value=1.01))[name] == (1.01, NO)
    assert name not in shown.refresh(2 * ioc.VALUES_NS - 1, **shown.view(0, value=1.02))
    assert shown.refresh(3 * ioc.VALUES_NS, **shown.view(0, value=0.95))[name] == (0.95, NO)


def rows(count: int, **changes: Any) -> tuple[RuleView, ...]:
    """Rules with long names."""
    rule = RULES.rules[0]
    return tuple(
        RuleView(rule.model_copy(update={"id": f"r-{k}-{'x' * 200}"}), since_ns=k, **changes) for k in range(count)
    )


def test_lists_are_cut_to_what_the_pv_holds_and_no_shorter() -> None:
    for text, key in ((latched_json, {"latched": True}), (bypassed_json, {"bypassed": True, "bypass_reason": "why"})):
        views = rows(30, **key)
        each = len(text(snapshot(rules=views[:1]))) - 2  # without the brackets; with digits and commas a little more
        found = text(snapshot(rules=views))
        assert len(json.loads(found)) in (ioc.RESULT_MAX // (each + 3), ioc.RESULT_MAX // (each + 1))
        assert len(found) <= ioc.RESULT_MAX
    exact = rows(1, latched=True)[0]
    size = len(latched_json(snapshot(rules=(exact,))))
    for more, kept in ((ioc.RESULT_MAX - size, 1), (ioc.RESULT_MAX - size + 1, 0)):
        longer = replace(exact, rule=exact.rule.model_copy(update={"id": exact.rule.id + "x" * more}))
        assert len(json.loads(latched_json(snapshot(rules=(longer,))))) == kept


def test_a_bypass_is_told_with_rule_person_reason_and_end() -> None:
    view = RuleView(RULES.rules[1], bypassed=True, bypass_until_ns=7, bypass_reason="phantom", bypass_by="ph")
    assert json.loads(bypassed_json(snapshot(rules=(RuleView(RULES.rules[0]), view)))) == [
        {"id": "pause-b", "reason": "phantom", "by": "ph", "until_ns": 7}
    ]


def test_frames_reach_the_controller_without_the_zeros_behind_them(shown: Shown) -> None:
    shown.t_ns = 9
    shown.ioc.on_keep_alive(b"abc\0\0")
    assert shown.ioc.on_lines(b"news\0") is True
    assert shown.ioc.on_lines(b"old") is False
    assert shown.heard == [("console", b"abc", 9), ("control", b"news", 9), ("control", b"old", 9)]


def test_a_command_is_judged_carried_out_recorded_and_answered(shown: Shown) -> None:
    command = Command("C-1", "ph", "physicist", 0, 1, "reset", {})
    shown.verdict = Verified(command)
    shown.ioc.on_command(b"signed")
    done = CommandResult("C-1", Status.DONE)
    assert (shown.recorded, shown.put) == ([done], {"SAFE:Cmd-Result": (done.encode(), NO)})
    assert shown.heard == [("command", command, 0)]
    shown.verdict = Repeated(CommandResult("C-0", Status.DONE, words="before"))
    shown.ioc.on_command(b"signed")
    assert shown.put["SAFE:Cmd-Result"][0] == CommandResult("C-0", Status.DONE, words="before").encode()
    assert (len(shown.recorded), len(shown.heard)) == (1, 1)


def test_a_command_that_is_refused_reaches_nobody(shown: Shown) -> None:
    shown.verdict = Refusal("C-1", "command.malformed", "noise")
    shown.ioc.on_command(b"noise")
    assert (shown.recorded, shown.heard) == ([], [])
    assert shown.put == {"SAFE:Cmd-Result": (shown.verdict.result().encode(), NO)}


def test_late_answers_are_recorded_and_shown_at_once(shown: Shown) -> None:
    shown.refresh(0)
    late = [CommandResult("C-7", Status.DONE), CommandResult("C-8", Status.FAILED)]
    shown.results = list(late)
    assert shown.refresh(1) == {"SAFE:Cmd-Result": (late[1].encode(), NO)}
    assert shown.recorded == late


def test_the_link_is_numbered_from_one_whenever_it_has_changed(shown: Shown) -> None:
    for values, count in (((0.0, 1.0), 1), ((0.0, 1.0), 1), ((1.0, 0.0), 2), ((0.0, 1.0), 3)):
        shown.put.clear()
        shown.ioc.show_link(values)
        assert shown.ioc._linked == (float(count), *values)
        if shown.put:
            value, severity = shown.put["SAFE:Link-RB"]
            assert (value.tolist(), severity) == ([float(count), *values], int(Severity.NO_ALARM))
