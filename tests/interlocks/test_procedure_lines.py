"""Tier T at the safety controller: what control vouches for counts while it is genuine, new and kept alive."""

from __future__ import annotations

import pytest

from channels.command import Status
from channels.keepalive import KeepAliveMaker
from channels.keys import derived_private_key
from facility.errors import ConfigError
from facility.states import Action
from interlocks.controller import Console, SafetyController
from interlocks.own_inputs import LINE_INPUTS
from interlocks.snapshot import Mode
from tests.interlocks.support import CONTROL_KEY, KEY, MS, Safety, body, one_rule, rule_set

BY_LINE = {
    "t.plan_ok": "plan-integrity",
    "t.setpoints_ok": "set-points",
    "t.session_ok": "session-authority",
    "t.authorised": "session-authority",
}
IN_FIELD = {"control-heartbeat", "plan-integrity", "set-points", "session-authority"}


def released() -> Safety:
    it = Safety()
    it.release()
    return it


def test_every_line_has_a_rule() -> None:
    assert set(BY_LINE) == set(LINE_INPUTS)
    assert {rule.id for rule in rule_set().t} == IN_FIELD | {"procedure-checks"}


@pytest.mark.parametrize("place", range(len(LINE_INPUTS)))
def test_a_line_that_falls_pauses_a_field(place: int) -> None:
    it = released()
    assert it.controller.lines(it.control.make(0b1111 & ~(1 << place)), it.t_ns)
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    out = it.scan()
    assert (out.permit, out.hold) == (False, True)
    rule_id = BY_LINE[LINE_INPUTS[place]]
    assert it.latched() == [rule_id]
    assert it.view("procedure-checks").present
    assert it.say("reset", "physicist").code == "safety.present"
    it.controller.lines(it.control.make(0b1111), it.t_ns)
    it.run(2)
    assert not it.out.permit
    assert it.say("reset", "physicist").status is Status.DONE
    assert it.run().permit


def test_without_a_field_it_takes_no_permit_and_lets_none_be_given() -> None:
    it = Safety()
    it.set(fe__active=0.0)
    it.release()
    it.controller.lines(it.control.make(0), it.t_ns)
    assert it.run(3).permit
    assert it.controller.snapshot().action is Action.INHIBIT
    it.run(1, door__a_closed=0.0)
    it.vouches = None
    it.run(3, door__a_closed=1.0)
    assert it.say("reset", "physicist").data.get("permit", False) is False
    assert not it.run(3).permit
    it.vouches = 0b1111
    it.run(600)
    it.say("reset", "physicist")
    assert it.run(3).permit


def test_silence_takes_every_line() -> None:
    it = released()
    since = it._vouched_ns
    it.vouches = None
    while it.t_ns + MS <= since + 2000 * MS:
        assert it.run().permit
    assert not it.run().permit
    assert it.controller.snapshot().first_fault == "control-heartbeat"
    assert set(it.latched()) == IN_FIELD
    assert it.view("control-heartbeat").trip_value == pytest.approx(2001.0)


def test_scans_left_out_end_when_silence_does() -> None:
    it = released()
    deadline_ns = it._vouched_ns + 2000 * MS + 1
    while it.controller.next_deadline_ns(it.t_ns, beats_watched=True) <= it.t_ns:
        it.run()
    it.controller.keep_alive(it.maker.make(), it.t_ns)
    assert it.controller.next_deadline_ns(it.t_ns, beats_watched=True) == deadline_ns
    it.controller.lines(it.control.make(0b1111), it.t_ns)
    assert it.controller.next_deadline_ns(it.t_ns, beats_watched=True) == it.t_ns + 2000 * MS + 1


def test_a_captured_frame_keeps_nothing_alive() -> None:
    it = released()
    captured = it.control.make(0b1111)
    assert not it.controller.lines(captured, it.t_ns)
    since = it.t_ns
    it.vouches = None
    while it.t_ns < since + 2000 * MS:
        assert not it.controller.lines(captured, it.t_ns)
        assert it.run().permit
    assert not it.controller.lines(captured, it.t_ns)
    assert not it.run().permit
    assert "control-heartbeat" in it.latched()
    it.controller.lines(captured, it.t_ns)
    it.run(3)
    assert it.view("control-heartbeat").present


def test_an_old_frame_cannot_lift_a_line_again() -> None:
    it = released()
    held_back = it.control.make(0b1111)
    it.controller.lines(it.control.make(0b1110), it.t_ns)
    it.run()
    assert not it.controller.lines(held_back, it.t_ns)
    it.run()
    assert it.view("plan-integrity").present


@pytest.mark.parametrize(
    "frame",
    [
        b"noise",
        KeepAliveMaker("control", 1, derived_private_key(9, "stranger"), Safety()).make(0b1111),
        KeepAliveMaker("console", 1, CONTROL_KEY, Safety()).make(0b1111),
        KeepAliveMaker("control", 1, CONTROL_KEY, Safety()).make(),
    ],
)
def test_what_is_not_controls_own_frame_is_no_sign_of_life(frame: bytes) -> None:
    it = Safety()
    it.vouches = None
    assert not it.controller.lines(frame, it.t_ns)
    it.run(3)
    assert it.view("procedure-checks").present
    assert it.say("reset", "physicist").status is Status.REFUSED


def test_lines_are_no_sign_of_life_of_the_console() -> None:
    it = Safety()
    assert not it.controller.keep_alive(it.control.make(0b1111), 0)
    assert not it.controller.keep_alive(KeepAliveMaker("console", 1, KEY, it).make(0b1111), 0)


def test_a_restarted_control_ends_the_field_and_is_heard_afterwards() -> None:
    it = released()
    it.control = KeepAliveMaker("control", 2, CONTROL_KEY, it)
    old = KeepAliveMaker("control", 1, CONTROL_KEY, it)
    for _ in range(20):
        old.make()
    assert it.controller.lines(it.control.make(0b1111), it.t_ns)
    assert not it.controller.lines(old.make(0b1111), it.t_ns)
    assert not it.run().permit
    assert it.controller.snapshot().first_fault == "control-heartbeat"
    assert not it.controller.lines(KeepAliveMaker("control", 1, CONTROL_KEY, it).make(0b1111), it.t_ns)
    it.controller.lines(it.control.make(0b1111), it.t_ns)
    it.run(3)
    assert not it.out.permit
    assert it.say("reset", "physicist").status is Status.DONE
    assert it.run().permit


def test_without_control_nothing_is_vouched_for() -> None:
    rules = rule_set()
    alone = SafetyController(rules, Mode.QA, Console("console", KEY.public_key()), 0)
    assert not alone.lines(b"", 0)
    alone.scan(None, 0, 0, False)
    assert next(view for view in alone.snapshot().rules if view.rule.id == "procedure-checks").present


def test_lines_that_nobody_lets_fall_are_refused() -> None:
    console = body(id="console", inputs=["console.age_ms"], unit="ms", low=None, high=2000.0, tier="P")
    with pytest.raises(ConfigError, match="watches control"):
        SafetyController(
            one_rule(console), Mode.QA, Console("console", KEY.public_key()), 0,
            control=Console("control", CONTROL_KEY.public_key()),
        )  # fmt: skip


def test_tier_t_sees_nothing_else() -> None:
    with pytest.raises(ConfigError, match="tier T judges"):
        one_rule(body(inputs=["door.a_closed"], kind="digital", low=None, high=None, equals=1.0, unit="bool", tier="T"))
