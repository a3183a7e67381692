"""Bypasses: one rule, one reason, one person, one end; and the key that lets a mode be left."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.command import Status
from facility.errors import ConfigError
from facility.states import Action
from interlocks import bypass, explain, latch
from interlocks.bypass import BypassSpec, BypassState, Kind, ModeChanged, Passed, RulePolicy, Unwanted, Wanted
from interlocks.latch import LatchSpec, LatchState, Observed
from interlocks.link import PermitCommand
from interlocks.model import MODE_CODES, MODES
from interlocks.process_image import FastFault
from ioc_sim.commands import bypass_rules
from tests.interlocks.support import MS, Rack, Safety, body, one_rule, rule_set
from tests.interlocks.test_controller import Sparse

S = 1_000_000_000
SPEC = BypassSpec(
    (
        RulePolicy("never", "never", False),
        RulePolicy("clinical", "clinical", False),
        RulePolicy("critical", "clinical", True),
        RulePolicy("qa", "qa", True),
        RulePolicy("service", "service", False),
    ),
    100 * S,
    2,
)


def want(rule: str = "qa", mode: str = "qa", seconds: float = 10.0, reason: str = "phantom") -> Wanted:
    return Wanted(rule, "ph", reason, round(seconds * S), mode)


def walk(*events: bypass.Event) -> tuple[BypassState, list[Kind]]:
    """Events a second apart from 0."""
    state, kinds = BypassState(), []
    for k, event in enumerate(events):
        state, effects = bypass.step(SPEC, state, event, k * S)
        kinds += [effect.kind for effect in effects]
    return state, kinds


@pytest.mark.parametrize(
    ("rule", "modes"),
    [("never", ()), ("clinical", MODES), ("critical", ("qa", "service")), ("qa", ("qa", "service")),
     ("service", ("service",))],
)  # fmt: skip
def test_a_rule_is_bypassed_in_its_mode_and_laxer_ones_only(rule: str, modes: tuple[str, ...]) -> None:
    for mode in (*MODES, "", "party"):
        state, kinds = walk(want(rule, mode))
        assert (kinds == [Kind.BEGUN]) == (mode in modes)
        assert (state.of(rule) is not None) == (mode in modes)
    assert bypass.CLINICAL == "clinical"
    assert walk(want("never", "service"))[1] == [Kind.REFUSED_NEVER]
    assert walk(want("critical", "clinical"))[1] == [Kind.REFUSED_CRITICAL]
    assert walk(want("service", "qa"))[1] == [Kind.REFUSED_MODE]


@pytest.mark.parametrize(
    ("event", "kind"),
    [(want("nobody"), Kind.REFUSED_UNKNOWN), (want(reason=" "), Kind.REFUSED_REASON),
     (want(seconds=0.0), Kind.REFUSED_TIME), (want(seconds=-1.0), Kind.REFUSED_TIME),
     (want(seconds=100.001), Kind.REFUSED_TIME), (Unwanted("qa"), Kind.REFUSED_NONE)],
)  # fmt: skip
def test_what_is_refused(event: bypass.Event, kind: Kind) -> None:
    assert walk(event) == (BypassState(), [kind])


def test_one_bypass_of_a_rule_and_not_too_many() -> None:
    first = want("qa", "service")
    assert walk(first, first)[1] == [Kind.BEGUN, Kind.REFUSED_TWICE]
    state, kinds = walk(first, want("service", "service"), want("critical", "service"))
    assert kinds == [Kind.BEGUN, Kind.BEGUN, Kind.REFUSED_MANY]
    assert [entry.rule for entry in state.entries] == ["qa", "service"]
    assert walk(first, Unwanted("qa"), first)[1] == [Kind.BEGUN, Kind.ENDED, Kind.BEGUN]


def test_it_ends_at_its_time_whatever_happens_then() -> None:
    state, _ = walk(want(seconds=2.0))
    assert bypass.deadline_ns(state) == 2 * S
    assert bypass.step(SPEC, state, Passed("qa"), 2 * S - 1)[0] == state
    for event in (Passed("qa"), want("nobody"), Unwanted("nobody"), want("service", "service")):
        after, effects = bypass.step(SPEC, state, event, 2 * S)
        assert after.of("qa") is None
        assert effects[0] == (Kind.EXPIRED, "qa")
    assert bypass.deadline_ns(BypassState()) is None


def test_it_ends_with_its_mode() -> None:
    both = (want("qa", "service"), want("service", "service"))
    state, kinds = walk(*both, Passed("qa"))
    assert ([entry.rule for entry in state.entries], kinds[2:]) == (["qa"], [Kind.MODE_LEFT])
    assert walk(*both, Passed("service"))[1][2:] == []
    assert walk(*both, Passed(""))[0] == BypassState()
    assert walk(*both, ModeChanged())[0] == BypassState()


modes = st.sampled_from(["", *MODES])
events = st.one_of(
    st.builds(want, st.sampled_from([p.rule for p in SPEC.policies]), modes, st.integers(-1, 101)),
    st.builds(Unwanted, st.sampled_from(["qa", "service"])), st.builds(Passed, modes), st.just(ModeChanged()),
)  # fmt: skip


@given(st.lists(st.tuples(events, st.integers(0, 60)), max_size=40))
def test_properties_of_the_bypass(history: list[tuple[bypass.Event, int]]) -> None:
    state, t_ns = BypassState(), 0
    for event, seconds in history:
        t_ns += seconds * S
        before = state
        state, _ = bypass.step(SPEC, state, event, t_ns)
        assert len(state.entries) <= SPEC.most
        assert len({entry.rule for entry in state.entries}) == len(state.entries)
        for entry in state.entries:
            assert entry.since_ns <= t_ns < entry.until_ns <= entry.since_ns + SPEC.max_ns
            assert entry.rule != "never"
            assert entry in before.entries or isinstance(event, Wanted)
            if isinstance(event, Passed):
                assert event.mode != ""
    assert bypass.step(SPEC, state, Passed("service"), t_ns + SPEC.max_ns)[0] == BypassState()


def test_a_masked_rule_is_present_and_neither_acts_nor_latches() -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 0)
    good, bad = Observed(True, 1.0, 2.0), Observed(False, 3.0, 2.0)
    state, _ = latch.step(spec, LatchState(), good, 0)
    state, effects = latch.step(latch.masked(spec), state, bad, MS)
    assert (state.present, state.latched, effects) == (True, False, (latch.Effect.APPEARED,))
    assert latch.in_force(latch.masked(spec), state) is Action.NONE
    state, effects = latch.step(spec, state, bad, 2 * MS)
    assert (state.latched, effects) == (True, (latch.Effect.TRIPPED,))  # it trips when its bypass ends


# --- the file -----------------------------------------------------------------------------------------------------


def test_critical_rules_are_those_of_the_standard() -> None:
    for rule in rule_set().rules:
        if {1, 2, 3, 4, 5, 6, 8, 9, 22, 25} & set(explain.canonical(rule)):
            assert rule.critical, rule.id
        assert not (rule.critical and rule.bypass == "clinical")


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"critical": True, "bypass": "clinical"}, "bypass"), ({"max_holds": 3}, "max_holds"),
     ({"max_holds": -1, "action": "HOLD", "reset": "none"}, "max_holds"), ({"bypass": "always"}, "bypass")],
)  # fmt: skip
def test_a_wrong_rule_is_refused_by_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"key {key}"):
        one_rule(body(**changes))


# --- in the controller --------------------------------------------------------------------------------------------


def in_mode(mode: str) -> Safety:
    """Released in this mode, the key where it belongs."""
    it = Safety()
    code = float(MODE_CODES[mode])
    it.run(3, key__a=code, key__b=code)
    if it.say("set_mode", "physicist", mode=mode).status is not Status.DONE:
        raise AssertionError(mode)
    it.release()
    return it


def place_of(it: Safety, rule_id: str) -> int:
    return [rule.id for rule in it.rules.h].index(rule_id)


def test_a_p_rule_is_shown_and_does_not_act_until_the_bypass_ends() -> None:
    it = in_mode("qa")
    result = it.say("bypass", "physicist", rule="gate-stale", reason="no camera today", seconds=0.2)
    assert (result.status, result.data["until_ns"]) == (Status.DONE, it.t_ns + S // 5)
    it.run(5, gate__age_ms=500.0)
    assert it.out.permit
    view = it.view("gate-stale")
    assert (view.present, view.latched, view.bypassed) == (True, False, True)
    assert (view.bypass_by, view.bypass_reason, view.bypass_until_ns) == (
        "somebody", "no camera today", result.data["until_ns"],
    )  # fmt: skip
    assert it.controller.snapshot().action is Action.NONE
    assert [v.rule.id for v in it.controller.snapshot().bypassed] == ["gate-stale"]
    it.run(200)
    assert it.latched() == ["gate-stale"]
    assert not it.out.permit
    assert not it.view("gate-stale").bypassed
    found = [(e.kind, e.data["id"], e.data["mode"]) for e in it.controller.take_events() if "bypass" in e.kind]
    assert found == [(f"bypass.{what}", "gate-stale", "qa") for what in ("begun", "masked", "ended")]


def test_an_h_rule_is_masked_by_the_frame_and_mirrored_without_acting() -> None:
    it = in_mode("qa")
    bit = 1 << place_of(it, "chamber-drift")
    assert it.say("bypass", "physicist", rule="chamber-drift", reason="gain study", seconds=60.5).status is Status.DONE
    assert it.run() == PermitCommand(True, False, 0, 0, bit, personnel=True)
    it.controller.take_events()
    assert it.run(2, h__present=float(bit)).permit
    assert [event.kind for event in it.controller.take_events()] == ["bypass.masked"]
    assert it.run(2, h__latched=float(bit)).permit  # it had latched before: that is shown, and does not act
    assert it.view("chamber-drift").latched
    assert it.say("unbypass", "operator", rule="chamber-drift").status is Status.DONE
    out = it.run()
    assert (out.permit, out.hold, out.bypass_mask) == (False, True, 0)


def test_scans_are_left_out_no_longer_than_a_bypass_lasts() -> None:
    it = in_mode("qa")
    assert it.say("bypass", "physicist", rule="chamber-drift", reason="gain study", seconds=0.2).status is Status.DONE
    ends_ns = it.t_ns + S // 5
    it.run()
    assert it.controller.next_deadline_ns(it.t_ns, beats_watched=True) == ends_ns
    it.say("unbypass", "operator", rule="chamber-drift")
    it.run()
    later_ns = it.controller.next_deadline_ns(it.t_ns, beats_watched=True)
    assert later_ns is not None
    assert later_ns > ends_ns


def test_a_reset_passes_over_what_is_bypassed_and_present() -> None:
    it = in_mode("qa")
    drift, other = (1 << place_of(it, name) for name in ("chamber-drift", "position-x"))
    it.say("bypass", "physicist", rule="chamber-drift", reason="gain study", seconds=60)
    it.say("bypass", "physicist", rule="gate-stale", reason="no camera", seconds=60)
    it.run(2, gate__age_ms=500.0, h__present=float(drift), h__latched=float(drift | other))
    assert not it.out.permit
    it.resolve()
    result = it.say("reset", "physicist")
    assert (result.status, result.data["cleared"]) == (Status.ACCEPTED, ["position-x"])
    assert it.run(2).reset_mask == other
    assert it.run(1, h__latched=float(drift)).permit


def test_nothing_is_bypassed_in_clinical_mode() -> None:
    it = Safety()
    it.run(3)
    for rule in it.rules.by_id:
        result = it.say("bypass", "physicist", rule=rule, reason="hurry", seconds=10)
        assert result.status is Status.REFUSED
    assert it.run().bypass_mask == 0
    assert it.controller.snapshot().bypassed == ()


def test_some_rules_are_never_bypassed() -> None:
    it = Safety()
    it.run(3, key__a=3.0, key__b=3.0)
    assert it.say("set_mode", "physicist", mode="service").status is Status.DONE
    never = [rule.id for rule in it.rules.rules if rule.bypass == "never"]
    assert {"door", "emergency-stop", "position-x", "mode-key", "termination-unresolved"} <= set(never)
    for rule in never:
        result = it.say("bypass", "physicist", rule=rule, reason="hurry", seconds=10)
        assert (result.code, result.words) == ("bypass.never", f"{rule} is never bypassed")


def test_who_may_and_what_is_asked_for() -> None:
    it = in_mode("service")
    good = {"rule": "gate-stale", "reason": "no camera", "seconds": 10}
    for role in ("operator", "control", ""):
        assert it.say("bypass", role, **good).code == "safety.role"
    for changes, code in (
        ({"rule": 7}, "safety.no-rule"), ({"rule": "nobody"}, "bypass.no-rule"), ({"reason": None}, "bypass.reason"),
        ({"reason": "x" * 301}, "bypass.reason"), ({"reason": " "}, "bypass.reason"), ({"seconds": "9"}, "bypass.time"),
        ({"seconds": True}, "bypass.time"), ({"seconds": math.nan}, "bypass.time"), ({"seconds": 0}, "bypass.time"),
        ({"seconds": 3601}, "bypass.time"),
    ):  # fmt: skip
        assert it.say("bypass", "physicist", **{**good, **changes}).code == code
    assert it.say("unbypass", "operator", rule="gate-stale").code == "bypass.none"
    assert it.say("bypass", "physicist", **good).status is Status.DONE
    assert it.say("bypass", "physicist", **good).code == "bypass.twice"
    for rule in ("plant-late", "chamber-drift"):
        assert it.say("bypass", "physicist", **{**good, "rule": rule}).status is Status.DONE
    assert it.say("bypass", "physicist", **{**good, "rule": "gate"}).code == "bypass.many"
    assert in_mode("qa").say("bypass", "physicist", **{**good, "rule": "plant-late"}).code == "bypass.mode"


def test_the_key_ends_bypasses_and_inhibits() -> None:
    it = in_mode("qa")
    it.say("bypass", "physicist", rule="gate-stale", reason="no camera", seconds=1000)
    assert it.controller.snapshot().key_agrees
    it.run(2, key__a=1.0, key__b=1.0)
    snapshot = it.controller.snapshot()
    assert (snapshot.key_agrees, snapshot.bypassed) == (False, ())
    assert it.out.permit  # it inhibits: what is there stays, nothing new is released
    assert it.say("bypass", "physicist", rule="gate-stale", reason="again", seconds=9).code == "bypass.mode"
    it.run(2, pacing__late_ms=900.0)
    it.run(8)
    it.run(2, pacing__late_ms=0.0)
    assert not it.say("reset", "physicist").data["permit"]
    it.close()
    assert it.say("set_mode", "physicist", mode="service").code == "safety.key"
    assert it.say("set_mode", "physicist", mode="clinical").status is Status.DONE
    it.run()
    assert it.say("reset", "operator").data["permit"]


def test_a_new_mode_ends_all_bypasses() -> None:
    it = Safety()
    it.run(3, key__a=2.0, key__b=2.0)
    it.say("set_mode", "physicist", mode="qa")
    it.say("bypass", "physicist", rule="gate-stale", reason="no camera", seconds=1000)
    assert it.view("gate-stale").bypassed
    assert it.say("set_mode", "physicist", mode="qa").status is Status.DONE
    assert not it.view("gate-stale").bypassed


def test_banks_of_the_key_that_contradict_each_other_are_a_trip_and_no_mode() -> None:
    it = in_mode("qa")
    it.say("bypass", "physicist", rule="gate-stale", reason="no camera", seconds=1000)
    it.run(1, key__b=3.0)
    assert not it.view("gate-stale").bypassed
    assert it.out.permit
    it.run(100)
    assert it.latched() == ["mode-key-contacts"]
    assert it.out == PermitCommand(False, True, 0, 0, personnel=True, drops=1)


@pytest.mark.parametrize("seconds", [0.1234, 0.5])
def test_leaving_scans_out_changes_no_end_of_a_bypass(seconds: float) -> None:
    always, sparse = pack = (Safety(), Sparse(beats_watched=True))
    for it in pack:
        it.run(3, key__a=2.0, key__b=2.0)
        it.say("set_mode", "physicist", mode="qa")
        it.release()
        it.say("bypass", "physicist", rule="gate-stale", reason="no camera", seconds=seconds)
    for _ in range(600):
        for it in pack:
            it.run(1, gate__age_ms=500.0)
        assert sparse.out == always.out
    assert not always.out.permit
    found = [[(e.t_ns, e.kind, e.data) for e in it.controller.take_events()] for it in pack]
    assert found[0] == found[1]
    assert sparse.scans < 50


# --- first fault ---------------------------------------------------------------------------------------------------


def test_the_first_fault_is_the_earliest_condition_whoever_was_heard_first() -> None:
    it = Safety()
    it.release()
    it.run(1, door__a_closed=0.0)
    seen_ns = it.t_ns
    assert it.controller.snapshot().first_fault == "door"
    it.controller.take_events()
    place = place_of(it, "position-x")
    it.fault = FastFault(place, 2.5, 2.0, seen_ns - 300_000)
    it.run(1, h__latched=float(1 << place))
    assert it.controller.snapshot().first_fault == "position-x"
    assert it.latched() == ["position-x", "door"]
    change = next(event for event in it.controller.take_events() if event.kind == "first-fault")
    assert (change.data["id"], change.data["instead_of"]) == ("position-x", "door")
    assert change.data["t_condition_ns"] == seen_ns - 300_000


@pytest.mark.parametrize(("offset_ns", "first"), [(0, "position-x"), (10_000, "door")])
def test_at_equal_times_the_fast_tier_is_first(offset_ns: int, first: str) -> None:
    it = Safety()
    it.release()
    it.run(1, door__a_closed=0.0)
    place = place_of(it, "position-x")
    it.fault = FastFault(place, 2.5, 2.0, it.t_ns + offset_ns)
    it.run(1, h__latched=float(1 << place))
    assert it.controller.snapshot().first_fault == first


# --- the rack -------------------------------------------------------------------------------------------------------


def test_rows_that_are_bypassed_are_present_and_neither_act_nor_latch() -> None:
    rules = rule_set().fast()
    rack = Rack(rules)
    compiled = rules.rows
    place = rules.ids.index("chamber-drift")
    assert rules.bypassable >> place & 1
    assert not rules.bypassable >> rules.ids.index("position-x") & 1
    rack.tick(10)
    bypass_rules(rack.rows, compiled["action"], compiled["latching"], 1 << place)
    rack.tick(1000, ic2__layer_ions=2e8)
    assert (rack.present(), rack.latched(), rack.action) == (["chamber-drift"], [], 0)
    bypass_rules(rack.rows, compiled["action"], compiled["latching"], 0)
    rack.tick(1)
    assert (rack.latched(), rack.action) == (["chamber-drift"], int(Action.PAUSE))
