"""Bypasses and the account of a field as commands and events, without a controller: answers word by word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from channels.command import Command, CommandResult, Status
from facility.states import Action
from interlocks import field_book
from interlocks.bypass_desk import REASON_MAX, BypassDesk
from interlocks.field_book import FieldBook, MemoryStore
from interlocks.model import PolicySettings, Rule
from interlocks.permit import Event, Granted, HandedBack, Observed
from interlocks.permit_desk import PermitDesk
from interlocks.snapshot import RuleView
from tests.interlocks.support import Safety, body, one_rule

S = 1_000_000_000
P_LIMIT: Mapping[str, object] = {"tier": "P", "inputs": ["ic1.hv_rel"]}
HOLD: Mapping[str, object] = {"action": "HOLD", "reset": "none"}


def rule(rule_id: str, **changes: object) -> Rule:
    return one_rule(body(id=rule_id, **changes)).rules[0]


RULES = (
    rule("first-h", bypass="qa"),
    rule("only-p", bypass="clinical", **P_LIMIT),
    rule("second-h", bypass="service"),
    rule("never-h"),
    rule("critical", bypass="qa", critical=True, **P_LIMIT),
    rule("third-h", bypass="clinical"),
)
POLICY = PolicySettings(max_bypass_s=100.0, max_bypasses=2, max_holds=1, max_pauses=1)


class Heard:
    """Events that were told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, **data: object) -> None:
        self.events.append((kind, data))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        found, self.events = self.events, []
        return found


def command(verb: str, **args: object) -> Command:
    return Command("C-1", "ph", "physicist", 0, 1, verb, args)


def desk() -> tuple[BypassDesk, Heard]:
    heard = Heard()
    return BypassDesk(RULES, POLICY, heard), heard


def wish(it: BypassDesk, name: object, seconds: object = 10.0, *, reason: object = "phantom", mode: str = "service",
         now_ns: int = 0) -> CommandResult:  # fmt: skip
    return it.bypass(command("bypass", rule=name, reason=reason, seconds=seconds), mode, now_ns)


def test_a_bypass_begins_is_told_and_ends_by_a_person() -> None:
    it, heard = desk()
    result = wish(it, "first-h", now_ns=5)
    assert (result.id, result.status, result.data) == ("C-1", Status.DONE, {"rule": "first-h", "until_ns": 10 * S + 5})
    entry = {"id": "first-h", "by": "ph", "reason": "phantom", "until_ns": 10 * S + 5}
    assert heard.take() == [("bypass.begun", entry)]
    assert it.rules == {"first-h"}
    assert it.deadline_ns() == 10 * S + 5
    ended = it.unbypass(command("unbypass", rule="first-h"), 6)
    assert (ended.id, ended.status, ended.data) == ("C-1", Status.DONE, {"rule": "first-h"})
    assert heard.take() == [("bypass.ended", {**entry, "why": "ended", "ended_by": "ph"})]
    assert (it.rules, it.deadline_ns()) == (frozenset(), None)
    none = it.unbypass(command("unbypass", rule="first-h"), 7)
    assert (none.status, none.code, none.words) == (Status.REFUSED, "bypass.none", "first-h is not bypassed")
    assert heard.take() == []


def test_a_bypass_that_has_expired_is_told_once_also_with_a_refusal() -> None:
    it, heard = desk()
    wish(it, "first-h")
    heard.take()
    assert it.pass_time("service", 10 * S - 1) is False
    assert it.pass_time("service", 10 * S) is True
    ((kind, data),) = heard.take()
    assert (kind, data["why"], "ended_by" in data) == ("bypass.ended", "expired", False)
    assert it.pass_time("service", 11 * S) is False
    wish(it, "first-h")
    heard.take()
    assert wish(it, "nobody", now_ns=10 * S).code == "bypass.no-rule"
    assert [kind for kind, _ in heard.take()] == ["bypass.ended"]


def test_bypasses_end_with_their_mode() -> None:
    it, heard = desk()
    wish(it, "second-h")
    wish(it, "first-h")
    heard.take()
    assert it.pass_time("qa", 1) is True
    assert [(kind, data["id"], data["why"]) for kind, data in heard.take()] == [
        ("bypass.ended", "second-h", "mode-left")
    ]
    it.end_all(2)
    assert [data["id"] for _, data in heard.take()] == ["first-h"]
    assert it.rules == frozenset()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ({"name": None}, "safety.no-rule", "give the id of a rule as rule"),
        ({"name": "first-h", "reason": 7}, "bypass.reason", "give a reason of at most 300 characters"),
        ({"name": "first-h", "reason": "x" * 301}, "bypass.reason", "give a reason of at most 300 characters"),
        ({"name": "first-h", "reason": "  "}, "bypass.reason", "give a reason"),
        ({"name": "first-h", "seconds": True}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": "10"}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": math.nan}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": math.inf}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": 1e300}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": -(10**400)}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "first-h", "seconds": 1_000_001}, "bypass.time", "give seconds as a number, at most 100"),
        ({"name": "nobody", "seconds": 1_000_000}, "bypass.no-rule", "no rule 'nobody'; see: ionctl interlocks list"),
        ({"name": "first-h", "seconds": -1_000_000}, "bypass.time", "give more than 0 and at most 100 seconds"),
        ({"name": "first-h", "seconds": 0}, "bypass.time", "give more than 0 and at most 100 seconds"),
        ({"name": "first-h", "seconds": 100.1}, "bypass.time", "give more than 0 and at most 100 seconds"),
        ({"name": "nobody"}, "bypass.no-rule", "no rule 'nobody'; see: ionctl interlocks list"),
        ({"name": "never-h"}, "bypass.never", "never-h is never bypassed"),
        ({"name": "second-h", "mode": "qa"}, "bypass.mode",
         "second-h is bypassed only in mode service or after it; the mode is qa"),
        ({"name": "second-h", "mode": ""}, "bypass.mode",
         "second-h is bypassed only in mode service or after it; key switch and mode do not agree"),
    ],
)  # fmt: skip
def test_why_a_bypass_is_refused(args: dict[str, Any], code: str, words: str) -> None:
    it, heard = desk()
    result = wish(it, args.pop("name"), **args)
    assert (result.id, result.status, result.code, result.words) == ("C-1", Status.REFUSED, code, words)
    assert (heard.take(), it.rules) == ([], frozenset())


def test_a_critical_rule_is_refused_by_name() -> None:
    critical = RULES[4].model_copy(update={"bypass": "clinical"})
    it = BypassDesk([critical], POLICY, Heard())
    assert wish(it, "critical", mode="clinical").words == "critical is never bypassed in clinical mode"
    assert wish(it, "critical", mode="qa").status is Status.DONE


def test_the_longest_reason_and_time_and_whole_seconds_are_taken() -> None:
    it, _ = desk()
    assert wish(it, "first-h", reason="x" * REASON_MAX).status is Status.DONE
    assert wish(it, "third-h", 100).data["until_ns"] == 100 * S


def test_no_second_bypass_of_a_rule_and_no_third_of_any() -> None:
    it, heard = desk()
    wish(it, "first-h")
    assert wish(it, "first-h").words == "first-h is bypassed already; end that one first"
    wish(it, "third-h")
    heard.take()
    assert wish(it, "second-h").words == "2 rules are bypassed, no more can be at once"
    assert heard.take() == []
    assert it.rules == {"first-h", "third-h"}


def test_the_mask_counts_fast_rules_only_and_views_show_their_bypass() -> None:
    it, _ = desk()
    assert it.fast_mask == 0
    wish(it, "only-p")
    assert it.fast_mask == 0
    wish(it, "third-h", now_ns=3)
    assert it.fast_mask == 0b1000
    shown = it.shown(RuleView(RULES[5], present=True))
    assert (shown.present, shown.bypassed, shown.bypass_until_ns) == (True, True, 10 * S + 3)
    assert (shown.bypass_reason, shown.bypass_by) == ("phantom", "ph")
    plain = RuleView(RULES[0])
    assert it.shown(plain) is plain


# --- the account of a field ---------------------------------------------------------------------------------------


def test_lines_that_a_trial_of_the_loop_has_raised_are_counted_when_they_fall() -> None:
    desk = Safety().controller._permit
    counted = []
    for raised in (False, False, True, True, False, False, True, False):
        desk.tells(raised)
        counted.append(desk.drops)
    assert counted == [0, 0, 0, 0, 1, 1, 1, 2]


class Store(MemoryStore):
    """Counts what is written; may refuse to be read."""

    def __init__(self, record: Mapping[str, Any] | None = None, *, broken: bool = False) -> None:
        super().__init__()
        self.record = record
        self.broken = broken
        self.full = False
        self.writes = 0

    def load(self) -> Mapping[str, Any] | None:
        if self.broken:
            raise ValueError("no JSON")
        return super().load()

    def save(self, record: Mapping[str, Any]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.writes += 1
        super().save(record)


GATES = (rule("gate-h", **HOLD, max_holds=2), rule("gate-p", **HOLD, **P_LIMIT), rule("abort"),
         rule("gate-q", **HOLD))  # fmt: skip
GOOD: Mapping[str, Any] = {"schema": "ionctl.field/1", "session": "S-1", "begun": False,
                           "holds": {"gate-p": 1, "gate-q": 2}, "pauses": 3, "unresolved": False}  # fmt: skip


def book(store: Store | None = None) -> tuple[FieldBook, Heard, Store]:
    heard, store = Heard(), store or Store()
    return FieldBook(GATES, POLICY, store, heard), heard, store


def test_a_book_without_a_record_is_empty_and_writes_nothing() -> None:
    it, heard, store = book()
    assert (it.state.session, it.state.holds, it.state.pauses, it.state.begun) == ("", (0, 0, 0), 0, False)
    assert (heard.take(), store.writes, it.inputs) == ([], 0, (1, 1, 1, 0))
    assert it.spec.max_holds == (2, 1, 1)


def test_a_record_of_a_field_that_had_not_begun_goes_on() -> None:
    it, heard, store = book(Store(GOOD))
    assert (it.state.session, it.state.holds, it.state.pauses) == ("S-1", (0, 1, 2), 3)
    assert (it.state.begun, it.state.unresolved, heard.take(), store.writes) == (False, False, [], 0)


def test_a_field_that_was_under_way_is_an_unresolved_termination_and_is_written_down() -> None:
    it, heard, store = book(Store({**GOOD, "begun": True}))
    assert (it.state.unresolved, it.state.begun, store.writes) == (True, True, 1)
    assert heard.take() == [("field.terminated", {"session": "S-1", "why": "the safety controller has restarted"})]
    assert store.record == {**GOOD, "begun": True, "unresolved": True, "holds": {"gate-h": 0, "gate-p": 1, "gate-q": 2}}
    again, heard, _ = book(Store(store.record))
    assert (again.state, heard.take()) == (it.state, [])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": "ionctl.field/0"}, "schema is not ionctl.field/1"),
        ({"schema": "ionctl.field/2"}, "schema is not ionctl.field/1"),
        ({"session": 7}, "session must be a string, holds an object"),
        ({"holds": [1]}, "session must be a string, holds an object"),
        ({"holds": {"gate-h": -1}}, "holds and pauses must be counts"),
        ({"holds": {"gate-h": 1.0}}, "holds and pauses must be counts"),
        ({"holds": {"gate-h": True}}, "holds and pauses must be counts"),
        ({"pauses": -1}, "holds and pauses must be counts"),
        ({"pauses": None}, "holds and pauses must be counts"),
        ({"begun": 1}, "begun and unresolved must be true or false"),
        ({"unresolved": 0}, "begun and unresolved must be true or false"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_unresolved_termination(change: Mapping[str, Any], why: str) -> None:
    it, heard, store = book(Store({**GOOD, **change}))
    ((kind, data),) = heard.take()
    assert (kind, data) == ("field.terminated", {"session": "", "why": f"the record cannot be read: {why}"})
    assert (it.state.begun, it.state.unresolved, it.state.session, it.state.pauses) == (True, True, "", 0)
    assert (it.inputs, store.writes) == ((1, 1, 0, 0), 1)


def test_a_store_that_cannot_be_read_is_one_too() -> None:
    it, heard, _ = book(Store(broken=True))
    assert heard.take()[0][1]["why"] == "the record cannot be read: no JSON"
    assert it.state.unresolved


def observed(it: FieldBook, *present: str, active: bool = True, released: bool = True, aborted: bool = False) -> bool:
    return it.observe(active, frozenset(present), released, aborted)


def test_holds_and_pauses_are_counted_told_and_written_when_they_change_what_rules_see() -> None:
    it, heard, store = book()
    assert observed(it, "abort") is False
    assert heard.take() == [("field.begun", {"session": "", "pauses": 0})]
    assert (store.writes, store.record and store.record["begun"]) == (1, True)
    assert observed(it) is False
    assert store.writes == 1
    assert observed(it, "gate-p") is False  # the first of one
    assert (it.state.holds, store.writes) == ((0, 1, 0), 2)
    assert heard.take() == []
    observed(it)
    assert observed(it, "gate-p") is True
    assert it.inputs == (0, 1, 1, 0)
    assert observed(it, "gate-h") is True
    assert it.inputs == (1, 1, 1, 0)
    assert (it.state.holds, it.state.holding) == ((1, 2, 0), 1)
    assert observed(it, released=False) is False
    assert heard.take() == [("field.paused", {"session": "", "pauses": 1})]
    observed(it)
    assert observed(it, released=False) is True
    assert it.inputs == (1, 0, 1, 0)
    assert observed(it, released=False, aborted=True) is True
    assert it.inputs == (1, 0, 0, 0)
    assert [kind for kind, _ in heard.take()] == ["field.paused", "field.terminated"]
    assert store.record is not None
    assert store.record["unresolved"] is True


def done(result: CommandResult, session: str) -> bool:
    return (result.id, result.status, result.data) == ("C-1", Status.DONE, {"session": session})


def test_fields_are_opened_closed_and_resolved_by_name() -> None:
    it, heard, store = book()
    assert done(it.open(command("open_field", session="S-1"), False), "S-1")
    assert heard.take() == [("field.opened", {"session": "S-1", "pauses": 0, "by": "ph"})]
    assert store.writes == 1
    same = it.open(command("open_field", session="S-1"), False)
    assert (same.code, same.words) == ("field.same", "field S-1 is open already")
    active = it.open(command("open_field", session="S-2"), True)
    assert (active.code, active.words) == ("field.active", "a layer is active: wait until it is done, or stop it")
    assert it.close(command("close_field", session="S-1"), True).code == "field.active"
    other = it.close(command("close_field", session="S-2"), False)
    assert (other.code, other.words) == ("field.other", "the field is S-1, not 'S-2'")
    assert (heard.take(), store.writes) == ([], 1)
    assert done(it.close(command("close_field", session="S-1"), False), "")
    assert heard.take() == [("field.closed", {"session": "S-1", "pauses": 0, "by": "ph"})]
    assert (store.writes, store.record and store.record["session"]) == (2, "")
    nameless = it.close(command("close_field", session="S-1"), False)
    assert nameless.words == "the field is without a name, not 'S-1'"


@pytest.mark.parametrize("session", ["", None, 7, "x" * 65])
def test_a_session_has_a_name_of_1_to_64_characters(session: object) -> None:
    it, _, _ = book()
    result = it.open(command("open_field", session=session), False)
    assert (result.code, result.words) == ("field.session", "give a session of 1 to 64 characters")
    assert it.open(command("open_field"), False).code == "field.session"
    assert it.open(command("open_field", session="x" * 64), False).status is Status.DONE


def resolve(it: FieldBook, **args: object) -> CommandResult:
    return it.resolve(command("resolve", **{"session": "S-1", "words": "a test", **args}))


def test_a_termination_is_resolved_in_words() -> None:
    it, heard, _ = book(Store({**GOOD, "begun": True}))
    heard.take()
    unresolved = it.open(command("open_field", session="S-2"), False)
    words = "the termination of field S-1 is unresolved: a physicist must resolve it"
    assert (unresolved.code, unresolved.words) == ("field.unresolved", words)
    for bad in ("", "  ", None, 7, "x" * 1001):
        assert resolve(it, words=bad).code == "field.words"
    assert resolve(it, words="").words == "say in 1 to 1000 characters what became of the field"
    assert (resolve(it, resume=1).code, resolve(it, resume=1).words) == ("field.resume", "resume is true or false")
    assert resolve(it, session="S-2").code == "field.other"
    assert heard.take() == []
    assert done(resolve(it, words="x" * 1000, resume=True), "S-1")
    assert [(kind, data["session"], data["resume"], data["by"], len(data["words"])) for kind, data in heard.take()] == [
        ("field.resolved", "S-1", True, "ph", 1000)
    ]
    assert (it.state.pauses, it.state.begun, it.state.unresolved) == (0, False, False)
    nothing = resolve(it)
    assert (nothing.code, nothing.words) == ("field.nothing", "no termination is unresolved")


def test_a_command_whose_record_cannot_be_written_is_refused_and_changes_nothing() -> None:
    it, heard, store = book()
    it.open(command("open_field", session="S-1"), False)
    before, record = it.state, store.record
    heard.take()
    store.full = True
    words = "the record of the field cannot be written: [Errno 28] No space left on device; all is as before"
    for result in (
        it.open(command("open_field", session="S-2"), False),
        it.close(command("close_field", session="S-1"), False),
    ):
        assert (result.status, result.code, result.words) == (Status.REFUSED, "field.record", words)
    with pytest.raises(OSError, match="No space"):  # nobody has asked for a scan: the controller ends
        observed(it)
    assert (it.state, store.record, heard.take()) == (before, record, [])
    store.full = False
    observed(it)
    observed(it, released=False, aborted=True)
    store.full = True
    assert resolve(it, resume=True).code == "field.record"
    assert (it.state.unresolved, store.record and store.record["unresolved"]) == (True, True)


def test_a_field_that_does_not_go_on_is_closed_by_its_resolution() -> None:
    it, heard, _ = book(Store({**GOOD, "begun": True}))
    heard.take()
    assert done(resolve(it), "")
    assert heard.take()[0][1]["session"] == "S-1"


@pytest.mark.parametrize("dropped", list(Action))
def test_only_an_abort_without_a_permit_is_an_abort(dropped: Action) -> None:
    assert field_book.aborted(False, dropped) == (dropped is Action.ABORT)
    assert not field_book.aborted(True, dropped)


@pytest.mark.parametrize("present", [(), ("gate-h",), ("gate-p",), ("gate-q",), ("gate-h", "gate-q"), ("abort",)])
def test_each_hold_has_a_place_of_its_own(present: tuple[str, ...]) -> None:
    it, _, _ = book()
    observed(it, *present)
    places = {"gate-h": 0, "gate-p": 1, "gate-q": 2}
    assert it.state.holding == sum(1 << places[name] for name in present if name in places)
    assert it.state.holds == tuple(int(name in present) for name in places)


@pytest.mark.parametrize(("first", "second"), [("first-h", "second-h"), ("second-h", "first-h")])
def test_one_of_two_that_expires_is_noticed(first: str, second: str) -> None:
    it, _ = desk()
    wish(it, first, 1)
    wish(it, second, 2)
    assert it.pass_time("service", S) is True
    assert it.rules == {second}


def permit_desk() -> PermitDesk:
    views = SimpleNamespace(all=lambda **_: (), latched_ids=lambda: ())
    first = SimpleNamespace(forget=lambda: None, id="")
    return PermitDesk(first, views, Heard(), lambda _result: None)  # type: ignore[arg-type]


def test_every_way_in_which_a_permit_goes_is_counted() -> None:
    quiet, trip = Observed(Action.NONE, False, 0, Action.NONE), Observed(Action.PAUSE, False, 0, Action.NONE)
    steps: tuple[tuple[Event, int], ...] = (
        (trip, 0), (quiet, 0), (Granted(0), 0), (quiet, 0),  # released
        (trip, 1), (trip, 1), (quiet, 1), (HandedBack(), 1), (Granted(0), 1),
        (HandedBack(), 2), (HandedBack(), 2), (Granted(0), 2),
        (Granted(4), 3), (quiet, 3),  # a reset that waits for the fast tier, and is through
        (Observed(Action.NONE, False, 1, Action.ABORT), 4),
    )  # fmt: skip
    desk = permit_desk()
    for event, drops in steps:
        desk.step(event, 0)
        assert desk.drops == drops, (event, desk.state)
