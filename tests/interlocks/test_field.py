"""The account of a field: holds and pauses that are counted, terminations that must be accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.command import Status
from facility.ids import field_number
from interlocks import field
from interlocks.controller import SafetyController
from interlocks.field import Closed, Effect, FieldSpec, FieldState, Observed, Opened, Resolved
from interlocks.field_book import FieldBook, MemoryStore
from interlocks.link import PermitCommand
from interlocks.model import PolicySettings
from interlocks.snapshot import Mode
from tests.interlocks.support import CONTROL, Safety, rule_set

SPEC = FieldSpec(("gate", "other"), (2, 0), 1)
QUIET = Observed(True, 0, True, False)
GATE = Observed(True, 1, True, False)
OTHER = Observed(True, 2, True, False)
PAUSED = Observed(True, 0, False, False)
ABORTED = Observed(False, 0, False, True)


def walk(*events: field.Event) -> tuple[FieldState, list[Effect]]:
    state, effects = field.fresh(SPEC), []
    for event in events:
        state, found = field.step(SPEC, state, event)
        effects += found
    return state, effects


def test_a_hold_is_counted_when_it_comes_and_its_allowance_ends() -> None:
    state, effects = walk(QUIET, GATE, GATE, QUIET, GATE)
    assert (state.holds, effects) == ((2, 0), [Effect.BEGUN, Effect.HELD, Effect.HELD])
    assert field.hold_ok(SPEC, state)
    state, _ = walk(QUIET, GATE, QUIET, GATE, QUIET, GATE)
    assert not field.hold_ok(SPEC, state)
    assert field.hold_ok(SPEC, walk(QUIET, GATE, QUIET, GATE, QUIET, GATE, QUIET)[0])
    assert not field.hold_ok(SPEC, walk(QUIET, OTHER)[0])


@pytest.mark.parametrize("idle", [Observed(False, 1, True, False), Observed(True, 1, False, False)])
def test_a_gate_that_holds_no_layer_up_is_not_counted(idle: Observed) -> None:
    assert walk(QUIET, idle, QUIET._replace(active=False), idle)[0].holds == (0, 0)


def test_pauses_are_counted_from_the_first_layer_on() -> None:
    assert walk(Observed(False, 0, True, False), PAUSED._replace(active=False))[0].pauses == 0
    state, effects = walk(QUIET, PAUSED, PAUSED, QUIET)
    assert (state.pauses, effects) == (1, [Effect.BEGUN, Effect.PAUSED])
    assert field.pause_ok(SPEC, state)
    assert not field.pause_ok(SPEC, walk(QUIET, PAUSED, QUIET, PAUSED)[0])


def test_an_abort_is_a_termination_of_a_field_that_has_begun_only() -> None:
    assert not walk(ABORTED)[0].unresolved
    assert not walk(QUIET._replace(active=False), ABORTED)[0].unresolved
    state, effects = walk(Opened("S-1", False), QUIET, ABORTED, ABORTED)
    assert (state.unresolved, state.pauses, effects[-1]) == (True, 0, Effect.TERMINATED)
    assert walk(QUIET, PAUSED, ABORTED)[0].unresolved  # the field has not been over
    assert not walk(Opened("S-1", False), QUIET, Closed("S-1", False), ABORTED)[0].unresolved


def test_only_its_own_session_resolves_it_and_counts_begin_anew() -> None:
    held = (Opened("S-1", False), QUIET, GATE, PAUSED, QUIET, ABORTED)
    assert walk(*held, Resolved("S-2", False))[1][-1] is Effect.REFUSED_OTHER
    assert walk(*held, Opened("S-2", False))[1][-1] is Effect.REFUSED_UNRESOLVED
    assert walk(*held, Closed("S-1", False))[1][-1] is Effect.REFUSED_UNRESOLVED
    state, effects = walk(*held, Resolved("S-1", False))
    assert (state, effects[-1]) == (field.fresh(SPEC), Effect.RESOLVED)
    state, _ = walk(*held, Resolved("S-1", True), ABORTED)
    assert (state.session, state.unresolved, state.begun, state.pauses) == ("S-1", False, False, 0)
    assert walk(QUIET, Resolved("", False))[1][-1] is Effect.REFUSED_NOTHING


def test_names_change_only_between_layers_and_to_another() -> None:
    assert walk(Opened("S-1", True))[1] == [Effect.REFUSED_ACTIVE]
    assert walk(Opened("S-1", False), Opened("S-1", False))[1][-1] is Effect.REFUSED_SAME
    assert walk(Opened("S-1", False), Closed("S-2", False))[1][-1] is Effect.REFUSED_OTHER
    assert walk(Opened("S-1", False), Closed("S-1", True))[1][-1] is Effect.REFUSED_ACTIVE
    state, _ = walk(Opened("S-1", False), QUIET, GATE, Opened("S-2", False))
    assert (state.session, state.holds, state.begun, state.holding) == ("S-2", (0, 0), False, 1)


observations = st.builds(
    lambda active, holding, lines: Observed(active, holding, *lines),
    st.booleans(), st.integers(0, 3), st.sampled_from([(True, False), (False, False), (False, True)]),
)  # fmt: skip
names = st.sampled_from(["S-1", "S-2"])
events = st.one_of(
    observations, observations, st.builds(Opened, names, st.booleans()), st.builds(Closed, names, st.booleans()),
    st.builds(Resolved, names, st.booleans()),
)  # fmt: skip


@given(st.lists(events, max_size=40))
def test_properties_of_the_account(history: list[field.Event]) -> None:
    state = field.fresh(SPEC)
    for event in history:
        before = state
        state, effects = field.step(SPEC, state, event)
        assert hash(state) is not None
        if isinstance(event, Observed):  # no scan clears a count, changes the name or resolves anything
            assert state.session == before.session
            assert all(a >= b for a, b in zip(state.holds, before.holds, strict=True))
            assert state.pauses >= before.pauses
            assert state.unresolved or not before.unresolved
        if before.unresolved and not state.unresolved:
            assert isinstance(event, Resolved)
        if state.unresolved and not before.unresolved:
            assert before.begun
            assert effects[-1] is Effect.TERMINATED


# --- in the controller --------------------------------------------------------------------------------------------


def with_hold(max_holds: int | None = 2):
    """Rules of which `gate-stale` is a HOLD of tier P."""
    rules = rule_set()
    changes = {"action": "HOLD", "reset": "none", "max_holds": max_holds}
    gate = rules.rule("gate-stale").model_copy(update=changes)
    policy = PolicySettings(max_holds=3, max_pauses=1)
    changed = tuple(gate if rule.id == "gate-stale" else rule for rule in rules.rules)
    return type(rules)(rules.facility, changed, rules.link, policy)


def hold_once(it: Safety) -> None:
    it.run(3, gate__age_ms=200.0)
    it.run(3, gate__age_ms=0.0)


@pytest.mark.parametrize(("own", "most"), [(2, 2), (None, 3), (0, 0)])
def test_a_hold_beyond_its_allowance_is_a_pause_that_a_person_resets(own: int | None, most: int) -> None:
    it = Safety(with_hold(own))
    it.release()
    for _ in range(most):
        hold_once(it)
        assert it.out == PermitCommand(True, False, 0, 0, personnel=True)
    it.run(2, gate__age_ms=200.0)
    assert it.latched() == ["holds-spent"]
    assert it.out == PermitCommand(False, True, 0, 0, personnel=True, drops=1)
    assert it.controller.snapshot().holds["gate-stale"] == most + 1
    assert it.say("reset", "operator").code == "safety.present"
    it.run(3, gate__age_ms=0.0)
    assert not it.out.permit
    assert it.say("reset", "operator").status is Status.DONE
    assert it.run(5).permit
    it.run(2, gate__age_ms=200.0)  # the allowance of this field is spent: the next one is a PAUSE at once
    assert it.latched()[0] == "holds-spent"


def test_the_gate_of_the_rack_is_counted_and_the_echo_of_a_hold_is_not() -> None:
    it = Safety()
    it.release()
    places = {rule.id: place for place, rule in enumerate(it.rules.h)}
    for name in ("gate", "gate", "safety-hold"):
        it.run(2, h__present=float(1 << places[name]))
        it.run(2, h__present=0.0)
    assert it.controller.snapshot().holds == {"gate": 2}
    assert it.rules.rule("gate").max_holds == 1000


def pause_once(it: Safety) -> None:
    it.run(10, pacing__late_ms=900.0)
    assert not it.out.permit
    it.run(3, pacing__late_ms=0.0)


def test_a_pause_too_many_terminates_the_field() -> None:
    it = Safety(with_hold())
    it.release()
    pause_once(it)
    assert it.out.hold
    assert it.say("reset", "operator").data["permit"]
    assert it.run(5).permit
    pause_once(it)
    assert it.latched() == ["plant-late", "pauses-spent"]
    assert it.controller.snapshot().first_fault == "plant-late"
    assert it.out == PermitCommand(False, False, 0, 0, personnel=True, drops=2)
    assert it.controller.snapshot().unresolved
    assert it.say("reset", "physicist").code == "safety.present"  # the count stands until somebody accounts for it
    it.resolve()
    assert it.say("reset", "operator").code == "safety.role"
    assert it.say("reset", "physicist").data["permit"]
    assert it.run(3).permit


def test_control_and_a_new_name_in_mid_field_clear_no_count() -> None:
    it = Safety(with_hold())
    it.release()
    pause_once(it)
    for verb in ("open_field", "close_field", "resolve", "reset", "bypass", "unbypass", "set_mode"):
        assert it.say(verb, "control", session="S-9", words="x", rule="door").code == "safety.role"
    assert it.say("open_field", "operator", session="S-9").code == "field.active"
    assert it.controller.snapshot().pauses == 1
    it.run(1, fe__active=0.0)
    assert it.say("open_field", "operator", session="S-9").status is Status.DONE
    assert (it.controller.snapshot().pauses, it.controller.snapshot().session) == (0, "S-9")


def test_a_front_end_that_counts_for_another_field_is_an_abort_in_a_layer_alone() -> None:
    it = Safety()
    it.release()
    it.run(2, fe__active=0.0)
    assert it.say("open_field", "operator", session="S-1").status is Status.DONE
    number = field_number("S-1")
    assert it.run(2).field == number
    for wrong in (0.0, number + 1.0, float("nan")):
        assert it.run(2, fe__active=0.0, fe__field=wrong).permit
        it.run(1, fe__field=float(number))
    assert it.run(2, fe__active=1.0).permit
    it.run(1, fe__field=number + 1.0)
    assert (it.out.permit, it.latched()) == (False, ["field-number"])
    view = it.view("field-number")
    assert (view.value, view.limit) == (number + 1.0, number)


def test_a_termination_inhibits_until_a_physicist_has_accounted_for_it() -> None:
    it = Safety()
    it.release()
    it.set(fe__active=0.0)
    it.run()
    it.say("open_field", "operator", session="S-1")
    it.run(2, fe__active=1.0)
    it.run(2, door__a_closed=0.0, fe__active=0.0)
    it.run(2, door__a_closed=1.0)
    result = it.say("reset", "physicist")
    assert (result.status, result.data["cleared"], result.data["permit"]) == (Status.DONE, ["door"], False)
    assert result.data["inhibited"] == ["termination-unresolved"]
    assert "Previous termination not accounted for" in result.words
    assert it.run(5).permit is False
    again = it.say("reset", "physicist")
    assert (again.code, again.data["latched"]) == ("safety.present", ["termination-unresolved"])
    assert it.say("open_field", "operator", session="S-2").code == "field.unresolved"
    assert it.say("resolve", "operator", session="S-1", words="all well").code == "safety.role"
    assert it.say("resolve", "physicist", session="S-1", words=" ").code == "field.words"
    assert it.say("resolve", "physicist", session="S-1", words="x", resume=1).code == "field.resume"
    assert it.say("resolve", "physicist", session="S-2", words="x").code == "field.other"
    assert it.say("resolve", "physicist", session=7, words="x").code == "field.other"
    done = it.say("resolve", "physicist", session="S-1", words="door opened by a nurse", resume=True)
    assert (done.status, done.data) == (Status.DONE, {"session": "S-1"})
    assert not it.run(5).permit  # that alone gives no permit
    assert it.say("reset", "operator").data["permit"]
    kinds = {event.kind: event for event in it.controller.take_events()}
    assert kinds["field.resolved"].data["words"] == "door opened by a nurse"
    assert kinds["field.resolved"].data["by"] == "somebody"


def test_a_field_that_is_over_is_closed_and_what_comes_then_is_no_termination_of_it() -> None:
    it = Safety()
    it.release()
    it.run(2, fe__active=0.0)
    it.say("open_field", "operator", session="S-1")
    it.run(2, fe__active=1.0)
    assert it.say("close_field", "operator", session="S-1").code == "field.active"
    it.run(2, fe__active=0.0)
    assert it.say("close_field", "operator", session="S-2").code == "field.other"
    assert it.say("close_field", "operator", session="S-1").status is Status.DONE
    it.run(2, estop__a_ok=0.0)
    assert it.latched() == ["emergency-stop"]
    assert not it.controller.snapshot().unresolved


def test_latches_of_the_rack_go_and_the_command_ends_although_the_permit_stays_away() -> None:
    it = Safety()
    it.release()
    it.run(2, h__latched=1.0)
    result = it.say("reset", "physicist")
    assert result.status is Status.ACCEPTED
    it.run(2, h__latched=0.0)
    (answer,) = it.controller.take_results()
    assert (answer.id, answer.status, answer.data["permit"]) == (result.id, Status.DONE, False)
    assert "not accounted for" in answer.words


@pytest.mark.parametrize("session", ["", 7, "x" * 65])
def test_a_field_needs_a_name(session: object) -> None:
    it = Safety()
    it.run(2, fe__active=0.0)
    assert it.say("open_field", "operator", session=session).code == "field.session"


def restarted(it: Safety, store: MemoryStore) -> Safety:
    again = Safety()
    again.controller = SafetyController(again.rules, Mode.CLINICAL, it.console, 0, store, control=CONTROL)
    return again


def test_the_account_survives_a_restart() -> None:
    store = MemoryStore()
    it = restarted(Safety(), store)
    it.release()
    it.run(2, door__a_closed=0.0)
    again = restarted(it, store)
    again.run(5)
    assert again.controller.snapshot().unresolved
    assert again.say("reset", "physicist").code == "safety.present"
    again.resolve()
    assert again.say("reset", "operator").data["permit"]
    assert not restarted(again, store).controller.snapshot().unresolved


def test_a_safety_controller_that_dies_in_mid_field_leaves_a_termination() -> None:
    store = MemoryStore()
    it = restarted(Safety(), store)
    it.release()
    it.run(5)
    again = restarted(it, store)
    assert again.controller.snapshot().unresolved
    assert again.controller.take_events()[0].data["why"] == "the safety controller has restarted"
    it.run(2, fe__active=0.0)
    third = restarted(it, MemoryStore())
    assert not third.controller.snapshot().unresolved


@pytest.mark.parametrize(
    "broken",
    [{"schema": "x"}, {"session": 1}, {"holds": []}, {"holds": {"gate": -1}}, {"pauses": True}, {"begun": 1},
     {"unresolved": None}],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_a_termination(broken: dict[str, object]) -> None:
    store = MemoryStore()
    book = FieldBook(rule_set().rules, PolicySettings(), store, lambda *_, **__: None)
    book.observe(True, frozenset(), True, False)
    assert store.record is not None
    sound = {**store.record, "begun": False}
    store.save(sound)
    assert not FieldBook(rule_set().rules, PolicySettings(), store, lambda *_, **__: None).state.unresolved
    store.save({**sound, **broken})
    assert FieldBook(rule_set().rules, PolicySettings(), store, lambda *_, **__: None).state.unresolved


def test_a_fresh_account_has_seen_no_permit() -> None:
    assert field.fresh(SPEC) == FieldState((0,) * len(SPEC.rules), "", False, 0, False, 0, False)
