"""What stands against a permit day by day, an open room, a console that was left, is no trip; under a permit it is."""

from __future__ import annotations

import pytest

from channels.command import Status
from facility.errors import ConfigError
from facility.states import Action
from interlocks import latch, permit
from interlocks.latch import LatchSpec, LatchState, Observed
from interlocks.link import PermitCommand, RackEnd, pack_permit, unpack_permit
from interlocks.permit import Effect, HandedBack, Lines, PermitState
from tests.interlocks.support import Safety, body, one_rule, rule_set

OPEN = {"door__a_closed": 0.0, "door__b_closed": 0.0, "search__a_done": 0.0, "search__b_done": 0.0}
CLOSED = dict.fromkeys(OPEN, 1.0)
NO_LAYER = {"fe__active": 0.0, "fe__demand": 0.0}


def tripped(it: Safety) -> list[str]:
    return [str(event.data["id"]) for event in it.controller.take_events() if event.kind == "interlock.trip"]


def in_a_field() -> Safety:
    """A layer has been active under a permit, and is over."""
    it = Safety()
    it.set(**NO_LAYER)
    it.release()
    assert it.say("open_field", "operator", session="S-1").status is Status.DONE
    it.run(2, fe__active=1.0)
    it.run(2, **NO_LAYER)
    it.controller.take_events()
    return it


def test_a_standing_latch_trips_under_a_permit_alone() -> None:
    spec = LatchSpec(Action.ABORT, True, "physicist", 0, standing=True)
    armed = latch.step(spec, LatchState(), Observed(True, 1.0, 1.0, False), 0)[0]
    assert armed.armed
    stands, effects = latch.step(spec, armed, Observed(False, 0.0, 1.0, False), 1)
    assert (stands.present, stands.latched, effects) == (True, False, (latch.Effect.APPEARED,))
    assert latch.in_force(spec, stands) is Action.ABORT
    assert latch.step(spec, armed, Observed(False, 0.0, 1.0, True), 1)[0].latched
    assert latch.step(spec._replace(standing=False), armed, Observed(False, 0.0, 1.0, False), 1)[0].latched
    latched = latch.step(spec, armed, Observed(False, 0.0, 1.0), 1)[0]
    assert latch.step(spec, latched, Observed(True, 1.0, 1.0, False), 2)[0].latched  # what has latched stays so


def test_a_room_that_is_opened_and_closed_without_a_permit_leaves_no_trip() -> None:
    it = Safety()
    it.set(**NO_LAYER)
    it.run(3)
    it.controller.take_events()
    out = it.run(3, **OPEN)
    assert not out.personnel
    assert (it.view("door").present, it.latched()) == (True, [])
    refused = it.say("reset", "physicist")
    assert (refused.status, refused.code) == (Status.REFUSED, "safety.present")
    it.run(3, **CLOSED)
    assert tripped(it) == []
    assert it.out.personnel
    assert not it.out.permit  # it comes by a person's reset
    assert it.say("reset", "operator").status is Status.DONE
    assert it.run(2).permit


def test_the_same_under_a_permit_is_a_trip() -> None:
    it = Safety()
    it.set(**NO_LAYER)
    it.release()
    it.controller.take_events()
    out = it.run(1, **OPEN)
    assert (out.permit, out.hold, out.personnel, out.handed_back) == (False, False, False, False)
    it.run(3, **CLOSED)
    assert tripped(it) == ["door", "search"]
    assert it.latched() == ["door", "search"]
    assert it.say("reset", "operator").code == "safety.role"
    assert not it.out.personnel


@pytest.mark.parametrize(("name", "changes"), [("room-keys", {"room__tokens": 0.0}), ("operator-heartbeat", {})])
def test_a_console_that_leaves_and_a_token_that_moves_without_a_permit_are_no_trips(
    name: str, changes: dict[str, float]
) -> None:
    it = Safety()
    it.set(**NO_LAYER)
    it.run(3)
    it.controller.take_events()
    it.speaks = name != "operator-heartbeat"
    it.run(2100, **changes)
    assert (it.view(name).present, it.latched(), tripped(it)) == (True, [], [])


def test_an_emergency_stop_is_a_trip_with_and_without_a_permit() -> None:
    it = Safety()
    it.set(**NO_LAYER)
    it.run(3)
    it.run(1, estop__a_ok=0.0)
    assert it.latched() == ["emergency-stop"]


def test_a_closed_field_gives_its_permit_back_and_the_room_may_be_opened() -> None:
    it = in_a_field()
    assert it.run().permit
    assert it.say("close_field", "operator", session="S-2").status is Status.REFUSED
    assert it.run().permit
    assert it.say("close_field", "operator", session="S-1").status is Status.DONE
    out = it.run()
    assert (out.permit, out.hold, out.personnel, out.handed_back) == (False, True, True, True)
    it.run(3, **OPEN)
    it.run(3, **CLOSED)
    kinds = [event.kind for event in it.controller.take_events()]
    assert "permit.handed-back" in kinds
    assert not {"interlock.trip", "permit.dropped"} & set(kinds)
    assert it.say("reset", "operator").status is Status.DONE
    out = it.run(2)
    assert (out.permit, out.handed_back) == (True, False)


def test_closing_twice_or_without_a_permit_hands_nothing_back() -> None:
    it = in_a_field()
    it.say("close_field", "operator", session="S-1")
    it.run()
    it.controller.take_events()
    it.say("close_field", "operator", session="S-1")
    it.run()
    assert "permit.handed-back" not in [event.kind for event in it.controller.take_events()]


def test_a_door_that_opens_in_a_field_that_is_interrupted_ends_it() -> None:
    it = in_a_field()
    it.run(1, intercom__ok=0.0)  # a PAUSE takes the permit
    it.run(3, intercom__ok=1.0)
    assert not it.out.permit
    it.run(1, **OPEN)
    assert {"door", "search"} <= set(it.latched())
    assert it.controller.snapshot().unresolved
    it.run(3, **CLOSED)
    assert it.say("reset", "physicist").status is Status.DONE
    it.run(3, **OPEN)  # it is terminated: people go in
    assert it.latched() == []


def test_handing_back_is_a_pause_on_the_lines_and_no_trip() -> None:
    released = PermitState(released=True, dropped=Action.ABORT)
    state, effects = permit.step(released, HandedBack(), 0)
    assert (permit.lines(state), effects) == (Lines(False, True), (Effect.HANDED_BACK,))
    assert permit.step(PermitState(), HandedBack(), 0) == (PermitState(), ())


def test_the_rack_knows_a_permit_that_was_handed_back() -> None:
    command = PermitCommand(False, True, 0, 0, handed_back=True)
    assert unpack_permit(pack_permit(command)) == command
    assert unpack_permit(pack_permit(command)[:-9] + b"\x02" + bytes(8)) is None
    end = RackEnd("key", 1, rule_set().link, 0)
    assert end.lost_by_trip  # nothing is heard
    for back in (False, True):
        end._command = command._replace(handed_back=back)
        assert end.lost_by_trip is not back


@pytest.mark.parametrize("changes", [{"tier": "H"}, {"tier": "P", "action": "HOLD", "reset": "none"}])
def test_only_what_latches_beside_the_rack_can_stand(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="standing"):
        one_rule(body(standing=True, **changes))


def test_the_mode_changes_between_fields_alone() -> None:
    it = in_a_field()
    it.run(1, intercom__ok=0.0, key__a=2.0, key__b=2.0)  # a PAUSE takes the permit
    it.run(2, intercom__ok=1.0)
    refused = it.say("set_mode", "physicist", mode="qa")
    assert (refused.status, refused.code, refused.words) == (
        Status.REFUSED, "safety.field", "field S-1 is not closed")  # fmt: skip
    it.say("close_field", "operator", session="S-1")
    assert it.say("set_mode", "physicist", mode="qa").status is Status.DONE


def test_the_mode_does_not_change_before_a_termination_is_accounted_for() -> None:
    it = Safety()
    it.release()
    it.run(1, estop__a_ok=0.0)
    assert it.controller.snapshot().unresolved
    refused = it.say("set_mode", "physicist", mode="clinical")
    assert (refused.code, refused.words) == ("safety.field", "field without a name is not closed")
    it.resolve()
    assert it.say("set_mode", "physicist", mode="clinical").status is Status.DONE
