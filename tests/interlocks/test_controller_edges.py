"""The safety controller with half a dozen rules: freshness, first faults, verbs, deadlines and thresholds exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from channels.command import CommandResult, Status
from facility.states import Action
from interlocks import controller, process_image
from interlocks.controller import SafetyController
from interlocks.outbox import MAX_EVENTS
from interlocks.process_image import N_IMAGE, PLACE, STEPS, FastFault
from interlocks.rules import RuleSet
from interlocks.second import complement_of
from interlocks.snapshot import Mode, SafetyEvent
from interlocks.verbs import VERBS
from tests.interlocks.support import MS, Safety, body, several

OPEN: dict[str, object] = {"low": None, "high": None}
RULES = several(
    body(id="fast-abort"),
    body(id="fast-pause", inputs=["ic2.hv_rel"], action="PAUSE", reset="operator", bypass="qa"),
    body(id="gate", inputs=["gate.open"], kind="digital", equals=1.0, unit="bool", action="HOLD", reset="none",
         max_holds=2, **OPEN),
    body(id="console", inputs=["console.age_ms"], unit="ms", tier="P", low=None, high=2000.0, action="PAUSE",
         reset="operator"),
    body(id="control", inputs=["control.age_ms"], unit="ms", tier="T", low=None, high=2000.0, action="PAUSE",
         reset="operator", when=None),
    body(id="slow-abort", inputs=["ic1.hv_rel"], tier="P", low=0.5, high=1.5),
    body(id="slow-pause", inputs=["gas.flow_rel"], tier="P", action="PAUSE", reset="operator", bypass="clinical",
         low=0.5, high=1.5),
    body(id="agree", inputs=["evaluators.agree"], kind="digital", equals=1.0, unit="bool", tier="P", **OPEN),
    body(id="standing", inputs=["intercom.ok"], kind="digital", equals=1.0, unit="bool", tier="P", action="PAUSE",
         reset="operator", standing=True, **OPEN),
    body(id="inhibit", inputs=["cooling.flow_rel"], tier="P", action="INHIBIT", reset="none", low=0.5, high=1.5),
)  # fmt: skip
WATCHDOG = round(RULES.link.watchdog_ms * MS)
S = 1_000_000_000


class Small(Safety):
    """A safety controller with few rules."""

    def __init__(self, rules: RuleSet = RULES) -> None:
        super().__init__(rules)

    def image(self, image_t_ns: int, now_ns: int, link_ok: bool = True) -> bool:
        """Scan an image of a time; whether it was believed."""
        codes = process_image.image_of(self.signals)
        copy = complement_of(process_image.pack(codes), N_IMAGE)
        self.out = self.controller.scan(codes, image_t_ns, now_ns, link_ok, self.fault, copy)
        return self.controller.snapshot().link_ok

    def fast(self, mask: int, first: int = 0, t_ns: int | None = None) -> None:
        """The rack reports latches."""
        self.fault = FastFault(first, 2.0, 1.0, self.t_ns if t_ns is None else t_ns) if mask else process_image.NO_FAULT
        self.run(1, h__latched=float(mask), h__present=float(mask), h__first=float(first if mask else -1))

    def events(self) -> list[SafetyEvent]:
        return self.controller.take_events()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events()]


@pytest.fixture
def it() -> Small:
    made = Small()
    made.release()
    made.events()
    return made


def test_a_dead_link_takes_the_personnel_line_though_nothing_of_that_chain_is_present(it: Small) -> None:
    assert it.run().personnel
    it.link_ok = False
    assert not it.run().personnel


@pytest.mark.parametrize(("age_ns", "fresh"), [(0, True), (WATCHDOG, True), (-WATCHDOG, True), (WATCHDOG + 1, False),
                                               (-WATCHDOG - 1, False)])  # fmt: skip
def test_an_image_is_believed_within_the_watchdog_either_way(it: Small, age_ns: int, fresh: bool) -> None:
    now_ns = it.t_ns + 20 * MS
    it.set(ic1__hv_rel=1.25)
    assert it.image(now_ns - age_ns, now_ns) is fresh
    assert it.controller._scanner.value("ic1.hv_rel") == (1.25 if fresh else 1.0)
    assert it.image(now_ns, now_ns)
    assert not it.image(now_ns, now_ns, link_ok=False)


def test_every_scan_and_every_command_that_is_carried_out_raises_the_revision(it: Small) -> None:
    before = it.controller.revision
    it.run(3)
    assert it.controller.revision == before + 3
    it.say("reset", "control")
    it.say("dance", "physicist")
    assert it.controller.revision == before + 3
    it.say("reset", "physicist")
    assert it.controller.revision == before + 4


@pytest.mark.parametrize("left", [None, 0, N_IMAGE - 1])
def test_the_image_and_its_complement_are_compared(it: Small, left: int | None) -> None:
    codes = process_image.image_of(it.signals)
    copy = None if left is None else tuple(complement_of(process_image.pack(codes), N_IMAGE))[:left]
    it.controller.scan(codes, it.t_ns, it.t_ns, True, it.fault, copy)
    disagreed, trip = [event for event in it.events() if event.kind in ("evaluators.disagree", "interlock.trip")]
    assert disagreed.data["same_image"] is False
    assert trip.data["id"] == "agree"
    assert it.latched() == ["agree"]


@pytest.mark.parametrize("change", [-1, 1])
def test_a_copy_that_differs_in_one_code_either_way_is_another_image(it: Small, change: int) -> None:
    codes = process_image.image_of(it.signals)
    copy = list(complement_of(process_image.pack(codes), N_IMAGE))
    copy[-1] += change
    it.controller.scan(codes, it.t_ns, it.t_ns, True, it.fault, copy)
    assert [event.data["same_image"] for event in it.events() if event.kind == "evaluators.disagree"] == [False]


def test_a_bypassed_fast_rule_that_appears_is_told_once_whatever_else_is_present() -> None:
    it = Small()
    it.controller = SafetyController(RULES, Mode.QA, it.console, 0)
    it.run(3, key__a=2.0, key__b=2.0)
    assert it.say("bypass", "physicist", rule="fast-pause", reason="phantom", seconds=60.0).status is Status.DONE
    for present, told in ((0, 0), (3, 1), (3, 0), (1, 0), (2, 1)):
        it.events()
        it.run(1, h__present=float(present))
        assert [event.data["id"] for event in it.events() if event.kind == "bypass.masked"] == ["fast-pause"] * told


def test_evaluators_that_agree_trip_nothing(it: Small) -> None:
    it.run(3, gas__flow_rel=2.0)
    assert it.latched() == ["slow-pause"]


@pytest.mark.parametrize(("cause", "trips"), [("gas__flow_rel", True), ("ic1__hv_rel", False)])
def test_what_stands_trips_under_a_permit_or_in_a_field_that_goes_on(it: Small, cause: str, trips: bool) -> None:
    it.run(1, **{cause: 2.0})  # a pause interrupts the field, an abort terminates it
    it.run(2)
    it.run(1, intercom__ok=0.0)
    assert ("standing" in it.latched()) is trips
    assert it.view("standing").present


@pytest.mark.parametrize(
    ("verb", "role", "arguments"),
    [("prove", "operator", {}), ("resolve", "physicist", {"session": "", "words": "a test"}),
     ("open_field", "operator", {"session": "S-1"}), ("close_field", "operator", {"session": "S-1"})],
)  # fmt: skip
def test_a_command_on_the_field_or_its_proofs_is_a_reason_to_scan(
    it: Small, verb: str, role: str, arguments: dict[str, str]
) -> None:
    quiet(it)
    it.say(verb, role, **arguments)
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns


@pytest.mark.parametrize(
    ("mask", "names"), [(1, ["fast-abort"]), (2, ["fast-pause"]), (3, ["fast-abort", "fast-pause"])]
)
def test_a_reset_names_the_fast_latches_that_go(it: Small, mask: int, names: list[str]) -> None:
    it.fast(mask, first=0 if mask & 1 else 1)
    it.run(1, h__present=0.0)
    it.resolve()
    result = it.say("reset", "physicist")
    assert (result.status, result.data["cleared"]) == (Status.ACCEPTED, names)
    assert it.run().reset_mask == mask


def test_a_latch_of_a_bypassed_rule_that_is_present_stays_and_is_not_told_as_gone(it: Small) -> None:
    it.run(1, gas__flow_rel=2.0, ic1__hv_rel=2.0)
    assert bypass(it, "slow-pause").status is Status.DONE
    it.run(1, ic1__hv_rel=1.0)
    it.resolve()
    result = it.say("reset", "physicist")
    assert (result.status, result.data["cleared"]) == (Status.DONE, ["slow-abort"])
    it.events()
    it.run(1, gas__flow_rel=1.0)
    assert "bypass.masked" not in it.kinds()  # it has gone


def test_the_first_fault_is_the_earliest_then_the_fast_tier_then_the_order_of_the_file(it: Small) -> None:
    at_ns = it.t_ns + MS
    it.run(1, gas__flow_rel=2.0, ic1__hv_rel=2.0)
    assert it.controller.first_fault == "slow-abort"
    assert [event.data["id"] for event in it.events() if event.kind == "interlock.trip"] == ["slow-abort", "slow-pause"]
    it.fast(0b11, first=1, t_ns=at_ns)
    (moved,) = [event for event in it.events() if event.kind == "first-fault"]
    assert moved.data["id"] == it.controller.first_fault == "fast-pause"
    assert (moved.data["instead_of"], moved.data["t_condition_ns"]) == ("slow-abort", at_ns)
    assert it.controller.snapshot().first_fault == "fast-pause"


def test_a_fault_that_comes_later_moves_nothing(it: Small) -> None:
    it.run(1, ic1__hv_rel=2.0)
    it.run(1, gas__flow_rel=2.0)
    it.fast(1)
    assert it.controller.first_fault == "slow-abort"
    assert "first-fault" not in it.kinds()


def test_a_trip_tells_itself_and_then_what_became_of_the_permit(it: Small) -> None:
    it.run(1, ic1__hv_rel=2.0)
    trip, dropped = it.events()[:2]
    assert (trip.kind, trip.t_ns, trip.data["id"], trip.data["value"], trip.data["limit"], trip.data["mode"]) == (
        "interlock.trip", it.t_ns, "slow-abort", 2.0, 1.5, "clinical")  # fmt: skip
    assert (dropped.kind, dropped.data["first"], dropped.data["action"]) == ("permit.dropped", "slow-abort", "ABORT")
    assert it.controller.snapshot().action is Action.ABORT
    assert it.latched() == ["slow-abort"]


def test_the_strongest_action_of_both_tiers_is_in_force(it: Small) -> None:
    assert it.controller.snapshot().action is Action.NONE
    it.run(1, gas__flow_rel=2.0)
    assert it.controller.snapshot().action is Action.PAUSE
    assert (it.out.permit, it.out.hold) == (False, True)
    it.fast(1)
    assert it.controller.snapshot().action is Action.ABORT
    assert (it.out.permit, it.out.hold) == (False, False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_roles_and_says_so(it: Small, verb: str) -> None:
    for role in ("none", "control", "operator", "physicist"):
        result = it.say(verb, role)
        words = f"{verb} is for {', '.join(sorted(VERBS[verb]))}, not {role}"
        assert (result.code == "safety.role" and result.words == words) is (role not in VERBS[verb])
    refused = it.say("dance", "physicist")
    assert (refused.code, refused.words) == ("safety.verb", f"no verb 'dance'; there are {', '.join(sorted(VERBS))}")


KEYS = ((1.0, 1.0, "safety.key"), (2.0, 1.0, "safety.key"), (1.0, 2.0, "safety.key"), (3.0, 2.0, "safety.key"),
        (2.0, 3.0, "safety.key"), (2.0, 2.0, ""))  # fmt: skip


def mode(it: Small, wanted: object) -> CommandResult:
    result: CommandResult = it.say("set_mode", "physicist", mode=wanted)
    return result


def test_a_mode_is_set_without_a_permit_after_the_key(it: Small) -> None:
    assert mode(it, "qa").code == "safety.permit"
    assert mode(it, "party").words == "no mode 'party'; there are clinical, qa, service"
    for wrong in ([], {}, ["qa"], None, 1, "x" * 61):
        assert mode(it, wrong).code == "safety.mode"
        assert mode(it, wrong).words == f"no mode {str(wrong)[:60]!r}; there are clinical, qa, service"
    it.run(1, gas__flow_rel=2.0)
    begun = mode(it, "clinical")  # a field that nobody has opened by name, interrupted
    assert (begun.code, begun.words) == ("safety.field", "field without a name is not closed")
    it.close()
    for a, b, code in KEYS:
        it.run(1, key__a=a, key__b=b)
        result = mode(it, "qa")
        assert result.code == code
        assert result.words == ("turn the key switch to qa first" if code else "")
    assert (it.controller.mode, result.data) == (Mode.QA, {"mode": "qa"})
    (event,) = [event for event in it.events() if event.kind == "mode"]
    assert (event.data["by"], event.data["mode"]) == ("somebody", "qa")
    assert it.controller.snapshot().key_agrees
    it.run(1, key__b=1.0)
    assert not it.controller.snapshot().key_agrees
    assert mode(it, "clinical").status is Status.DONE  # the strictest needs no key
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns


def bypass(it: Small, rule: str, seconds: float = 10.0) -> CommandResult:
    result: CommandResult = it.say("bypass", "physicist", rule=rule, reason="a test", seconds=seconds)
    return result


def quiet(it: Small) -> None:
    """Scan until none is due at once."""
    for _ in range(5):
        it.run()
        if it.controller.next_deadline_ns(it.t_ns) != it.t_ns:
            return
    raise AssertionError("a scan is always due")


def test_a_bypass_acts_on_both_tiers_until_its_end_and_is_a_deadline(it: Small) -> None:
    assert bypass(it, "slow-pause", 1.5).status is Status.DONE
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    end_ns = it.t_ns + 1_500 * MS
    it.run(1, gas__flow_rel=2.0)
    assert (it.out.permit, it.latched(), it.view("slow-pause").bypassed) == (True, [], True)
    (masked,) = [event for event in it.events() if event.kind == "bypass.masked"]
    assert (masked.data["id"], masked.data["value"], masked.data["limit"]) == ("slow-pause", 2.0, 1.5)
    it.controller.keep_alive(it.maker.make(), it.t_ns)
    it.controller.lines(it.control.make(0b1111), it.t_ns)
    quiet(it)
    assert it.controller.next_deadline_ns(it.t_ns) == end_ns
    while it.t_ns < end_ns - MS:
        it.run(10 if it.t_ns < end_ns - 20 * MS else 1)
    assert it.out.permit
    it.run()
    assert (it.t_ns, it.out.permit, it.latched()) == (end_ns, False, ["slow-pause"])


def test_a_bypass_of_a_fast_rule_is_told_to_the_rack_and_ends_with_its_mode(it: Small) -> None:
    it.run(1, gas__flow_rel=2.0)
    it.close()
    it.run(1, key__a=2.0, key__b=2.0, gas__flow_rel=1.0)
    assert mode(it, "qa").status is Status.DONE
    assert bypass(it, "fast-pause").status is Status.DONE
    assert it.run().bypass_mask == 0b010
    it.fast(0b010, first=1)
    assert [event.data["id"] for event in it.events() if event.kind == "bypass.masked"] == ["fast-pause"]
    it.fast(0b010, first=1)
    assert "bypass.masked" not in it.kinds()  # once
    it.fast(0)
    assert it.run(1, key__a=1.0).bypass_mask == 0
    assert "bypass.ended" in it.kinds()


def test_whoever_ends_a_bypass_has_both_tiers_told(it: Small) -> None:
    bypass(it, "slow-pause")
    it.run(1, gas__flow_rel=2.0)
    quiet(it)
    assert it.say("unbypass", "operator", rule="slow-pause").status is Status.DONE
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    assert not it.run().permit


def test_a_reset_lets_go_of_all_says_what_and_releases(it: Small) -> None:
    it.run(1, gas__flow_rel=2.0, ic1__hv_rel=2.0)
    it.run(1, gas__flow_rel=1.0, ic1__hv_rel=1.0)
    it.resolve()
    it.events()
    result = it.say("reset", "physicist")
    assert (result.status, result.words) == (Status.DONE, "")
    assert result.data == {"cleared": ["slow-abort", "slow-pause"], "latched": [], "inhibited": [], "permit": True}
    story = [(event.kind, event.data.get("id"), event.data.get("role")) for event in it.events()]
    assert story == [("interlock.cleared", "slow-abort", "physicist"), ("interlock.cleared", "slow-pause", "physicist"),
                     ("permit.released", None, None)]  # fmt: skip
    assert it.controller.first_fault == ""
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns


def test_a_reset_of_what_was_shown_leaves_everything_where_a_latch_came_since(it: Small) -> None:
    def shown() -> dict[str, int]:
        return {str(row["id"]): row["t_ns"] for row in (view.to_data() for view in it.controller.snapshot().latched)}

    it.run(1, gas__flow_rel=2.0)
    before = shown()
    it.run(1, gas__flow_rel=1.0, ic1__hv_rel=2.0)
    it.run(1, ic1__hv_rel=1.0)
    it.resolve()
    refused = it.say("reset", "physicist", latched=before)
    assert (refused.status, refused.code) == (Status.REFUSED, "safety.unseen")
    assert refused.data == {"latched": ["slow-abort"]}
    assert set(it.latched()) == {"slow-abort", "slow-pause"}
    assert it.say("reset", "physicist", latched=shown()).data["permit"]
    assert it.run().permit


def test_a_reset_with_an_inhibit_lets_go_and_releases_nothing(it: Small) -> None:
    it.run(1, gas__flow_rel=2.0, cooling__flow_rel=2.0)
    it.run(1, gas__flow_rel=1.0)
    result = it.say("reset", "operator")
    assert (result.status, result.data["cleared"], result.data["inhibited"], result.data["permit"]) == (
        Status.DONE, ["slow-pause"], ["inhibit"], False)  # fmt: skip
    assert result.words.startswith("the permit stays away: ")
    assert not it.run().permit


def test_a_reset_through_the_rack_is_accepted_then_done_or_failed(it: Small) -> None:
    for lets_go in (True, False):
        it.fast(0b010, first=1)
        it.run(1, h__present=0.0)
        seq = it.out.reset_seq
        accepted = it.say("reset", "physicist")
        assert (accepted.status, accepted.words) == (Status.ACCEPTED, "waits for the fast tier")
        assert accepted.data["cleared"] == ["fast-pause"]
        it.run()
        assert (it.out.reset_mask, it.out.reset_seq, it.out.permit) == (0b010, seq + 1, False)
        if lets_go:
            it.fast(0)
            result = it.controller.take_results()[0]
            assert (result.id, result.status, result.words) == (accepted.id, Status.DONE, "the permit is given")
            assert result.data == {"cleared": ["fast-pause"], "latched": [], "inhibited": [], "permit": True}
        else:
            it.run(201)
            assert (it.out.reset_mask, it.out.reset_seq) == (0, seq + 1)  # what has failed is not asked for later
            result = it.controller.take_results()[0]
            assert (result.id, result.status, result.code) == (accepted.id, Status.FAILED, "safety.reset-incomplete")
            assert result.data == {"cleared": [], "latched": ["fast-pause"], "inhibited": [], "permit": False}
        assert it.controller.take_results() == []


def test_a_reset_that_an_inhibit_overtakes_is_done_without_a_permit(it: Small) -> None:
    it.fast(0b010, first=1)
    it.run(1, h__present=0.0)
    accepted = it.say("reset", "physicist")
    it.run(1, cooling__flow_rel=2.0)
    it.fast(0)
    result = it.controller.take_results()[0]
    assert (result.id, result.status, result.data["inhibited"], result.data["permit"]) == (
        accepted.id, Status.DONE, ["inhibit"], False)  # fmt: skip


def test_a_field_is_counted_kept_and_shown(it: Small) -> None:
    shown = it.controller.snapshot()
    assert (shown.begun, shown.pauses, shown.holds, shown.unresolved) == (True, 0, {"gate": 0}, False)
    it.run(1, h__present=4.0)
    assert it.controller.snapshot().holds == {"gate": 1}
    it.run(1, h__present=0.0, gas__flow_rel=2.0)
    assert it.controller.snapshot().pauses == 1
    it.run(1, ic1__hv_rel=2.0)
    assert it.controller.snapshot().unresolved
    for value, active in ((1.0, True), (0.0, False), (math.nan, True), (-1.0, True)):
        it.run(1, fe__active=value)
        assert (it.say("open_field", "operator", session="S-9").code == "field.unresolved") is True
        assert it.controller._layer_active() is active


def test_a_field_opens_and_closes_between_layers_and_gives_its_permit_back(it: Small) -> None:
    assert it.say("open_field", "operator", session="S-1").code == "field.active"
    it.run(1, fe__active=0.0)
    quiet(it)
    assert it.say("open_field", "operator", session="S-1").status is Status.DONE
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    assert it.controller.snapshot().session == "S-1"
    assert it.run().handed_back is False
    quiet(it)
    it.events()
    assert it.say("close_field", "operator", session="S-2").code == "field.other"
    assert it.run().permit
    assert it.say("close_field", "operator", session="S-1").status is Status.DONE
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    assert "permit.handed-back" in it.kinds()
    out = it.run()
    assert (out.permit, out.hold, out.handed_back) == (False, True, True)
    it.release()
    assert it.out.handed_back is False


def test_deadlines_are_the_earliest_of_silences_and_never_before_now(it: Small) -> None:
    it.speaks = False
    it.vouches = None
    it.controller.keep_alive(it.maker.make(), it.t_ns)
    console_ns = it.t_ns
    it.run()
    it.controller.lines(it.control.make(0b1111), it.t_ns)
    quiet(it)
    due_ns = it.controller.next_deadline_ns(it.t_ns)
    assert due_ns == console_ns + 2 * S + 1
    assert it.controller.next_deadline_ns(due_ns + 5 * S) == due_ns + 5 * S
    it.controller.keep_alive(it.maker.make(), it.t_ns)
    assert it.controller.next_deadline_ns(it.t_ns) != it.t_ns  # no news while it was alive
    assert it.controller.next_deadline_ns(it.t_ns) == console_ns + MS + 2 * S + 1  # control's, which spoke before


def test_a_sign_of_life_is_news_only_of_one_that_was_silent(it: Small) -> None:
    it.speaks = False
    it.t_ns += 2 * S
    it.run(2)
    quiet(it)
    assert it.latched() == ["console"]
    assert it.controller.keep_alive(b"noise", it.t_ns) is False
    assert it.controller.next_deadline_ns(it.t_ns) != it.t_ns
    assert it.controller.keep_alive(it.maker.make(), it.t_ns) is True
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns


def test_lines_of_control_are_news_when_they_change(it: Small) -> None:
    quiet(it)
    assert it.controller.lines(it.control.make(0b1111), it.t_ns) is False
    assert it.controller.next_deadline_ns(it.t_ns) != it.t_ns
    assert it.controller.lines(it.control.make(0b0111), it.t_ns) is True
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns


def test_thresholds_are_the_limits_of_the_rules_and_whether_a_layer_is_active(it: Small) -> None:
    low, high = it.controller.thresholds()
    for name, ends in (("ic1.hv_rel", (0.5, 1.5)), ("gas.flow_rel", (0.5, 1.5)), ("fe.active", (1.0, 1.0)),
                       ("h.latched", (0.0, 0.0)), ("h.first", (-1.0, -1.0))):  # fmt: skip
        step = STEPS[PLACE[name]]
        assert (low[PLACE[name]], high[PLACE[name]]) == (round(ends[0] / step) - 0.49, round(ends[1] / step) + 0.49)
    assert np.isinf([low[PLACE["ring.ions"]], high[PLACE["ring.ions"]]]).all()
    assert len(low) == len(high) == N_IMAGE


def test_events_are_kept_up_to_a_number_and_taken_once(it: Small) -> None:
    for k in range(MAX_EVENTS + 3):
        it.controller._emit("mode", number=k)
    found = it.events()
    assert MAX_EVENTS == 10_000
    assert (len(found), found[0].data["number"], found[-1].data["number"]) == (MAX_EVENTS, 3, MAX_EVENTS + 2)
    assert it.events() == []
    assert controller.NS_PER_MS == MS


def test_a_controller_that_has_just_started_knows_nothing_and_is_due() -> None:
    it = Small()
    shown = it.controller.snapshot()
    assert (shown.permit, shown.hold, shown.released, shown.link_ok, shown.first_fault) == (
        False,
        False,
        False,
        False,
        "",
    )
    assert (it.controller.revision, it.controller.next_deadline_ns(7), it.controller.take_results()) == (0, 7, [])
    out = it.controller.command_to_rack()
    assert (out.permit, out.hold, out.reset_mask, out.reset_seq, out.bypass_mask, out.handed_back) == (
        False, False, 0, 0, 0, False)  # fmt: skip
    started: Any = SafetyController(RULES, Mode.QA, it.console, 0)
    assert started.mode is Mode.QA
    assert started.lines(it.control.make(0b1111), 0) is False  # without a control nobody vouches


def test_a_fast_latch_of_a_bypassed_rule_that_is_present_is_not_told_as_gone(it: Small) -> None:
    it.fast(0b010, first=1)
    it.close()
    it.run(1, key__a=2.0, key__b=2.0)
    assert mode(it, "qa").status is Status.DONE
    assert bypass(it, "fast-pause").status is Status.DONE
    it.run(1, gas__flow_rel=2.0)
    it.run(1, gas__flow_rel=1.0)
    result = it.say("reset", "physicist")
    assert (result.status, result.data["cleared"]) == (Status.DONE, ["slow-pause"])
    assert "fast-pause" in it.latched()
