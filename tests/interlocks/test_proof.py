"""Proof tests: the step, the book, the controller that inhibits, the file."""

from __future__ import annotations

import math

import pytest

from channels.command import Status
from channels.frames import Kind
from facility.config import list_facilities, load_facility
from facility.errors import ConfigError
from facility.states import ProofAction
from interlocks import process_image, proof, proof_file
from interlocks.link import PermitCommand, RackEnd, pack_permit, unpack_permit
from interlocks.proof import Begin, Blind, Effect, Loop, Outcome, Proof, ProofState, Seen, step
from interlocks.proof_file import load_proofs, proofs_from_toml
from tests.interlocks.support import CONTROL, FILE, MS, Safety, body, one_rule, rule_set, wuwei

TEXT = FILE.with_name("proof_tests.toml").read_text(encoding="utf-8")
HOUR = 3600 * 1_000_000_000
LONGEST = 100 * MS


def made(name: str, action: ProofAction, place: int = 0, low: float = 0.0, high: float = 1.0) -> Proof:
    return Proof(name, name.title(), "hazard", action, place, low, high, "1", HOUR)


TWO = (
    made("a", ProofAction.COUNTS),
    made("b", ProofAction.COUNTS, 1),
    made("loop", ProofAction.PERMIT_LOOP, 1, high=10.0),
)
NONE = ProofState((None,) * len(TWO))


def seen(seq: float, *values: float, permit: float = 0.0, hold: float = 0.0, quiet: bool = True) -> Seen:
    return Seen(seq, (*values, *(math.nan,) * (4 - len(values))), permit, hold, quiet)


def run(*events: tuple[proof.Event, int], state: ProofState = NONE) -> tuple[ProofState, list[Effect]]:
    found: list[Effect] = []
    for event, t_ns in events:
        state, effects = step(TWO, LONGEST, state, event, t_ns)
        found += effects
    return state, found


def test_one_action_judges_all_its_tests_and_the_next_follows() -> None:
    state, effects = run((seen(7.0), 0), (Begin(frozenset({0, 1, 2})), 1))
    assert (state.action, state.seq, effects) == (ProofAction.COUNTS, 8, [Effect.ASKED])
    state, effects = run((seen(7.0, 9.0), 2), (seen(8.0, 0.5, 1.5), 3), state=state)
    assert state.outcomes[:2] == (Outcome(0.5, True, 3), Outcome(1.5, False, 3))
    assert (state.action, effects) == (ProofAction.PERMIT_LOOP, [Effect.JUDGED, Effect.ASKED])


def test_the_loop_is_raised_with_hold_seen_dropped_and_seen() -> None:
    state, _ = run((Begin(frozenset({2})), 0))
    assert proof.raises(state)
    state, _ = run((seen(0.0), 1 * MS), (seen(0.0, permit=1.0), 2 * MS), state=state)
    assert state.loop is Loop.RAISED  # permit without hold is not what was asked
    state, _ = run((seen(0.0, permit=1.0, hold=1.0), 3 * MS), state=state)
    assert not proof.raises(state)
    state, effects = run((seen(0.0, permit=1.0), 4 * MS), (seen(0.0), 8 * MS), state=state)
    assert state.outcomes[2] == Outcome(5.0, True, 8 * MS)
    assert effects == [Effect.JUDGED, Effect.FINISHED]
    state, _ = run((Begin(frozenset({2})), 0), (seen(0.0, quiet=False), 1), state=state)
    assert state.outcomes[2] is not None
    assert not state.outcomes[2].passed


@pytest.mark.parametrize("event", [(Blind(), 5), (seen(0.0), LONGEST + 1)])
def test_without_an_image_or_in_time_it_has_failed(event: tuple[proof.Event, int]) -> None:
    state, effects = run((Begin(frozenset({0})), 0), event)
    assert state.outcomes[0] is not None
    assert not state.outcomes[0].passed
    assert effects[-1] is Effect.FINISHED


def test_what_is_missing_failed_or_expired_counts_and_a_run_takes_the_old_outcome_away() -> None:
    good = ProofState(tuple(Outcome(0.5, True, 0) for _ in TWO))
    assert proof.missing(TWO, good, HOUR - 1) == 0
    assert proof.missing(TWO, good, HOUR) == 3
    assert proof.deadline_ns(TWO, LONGEST, good, 0) == HOUR
    assert proof.missing(TWO, NONE, 0) == 3
    assert proof.deadline_ns(TWO, LONGEST, NONE, 0) is None
    state, _ = run((Begin(frozenset({1})), 5), state=good)
    assert proof.missing(TWO, state, 5) == 1
    assert proof.deadline_ns(TWO, LONGEST, state, 5) == 5 + LONGEST + 1
    assert run((seen(math.nan), 0), (Blind(), 0))[0] == NONE


# --- the controller ----------------------------------------------------------------------------------------------
class Proving(Safety):
    """A safety controller with two tests and a rack that measures `gives`."""

    def __init__(self, tests: tuple[Proof, ...] = TWO) -> None:
        super().__init__()
        self.controller = type(self.controller)(
            self.rules, self.controller.mode, self.console, 0, control=CONTROL, proofs=tests
        )
        self.gives = (0.5, 0.5)
        self.set(fe__active=0.0, ring__flat_top=0.0, fe__demand=0.0, p__permit=0.0)
        self.rack = True

    def scan(self) -> PermitCommand:
        out = super().scan()
        self.set(p__permit=float(out.permit), p__hold=float(out.hold))
        if self.rack and out.proof_action:
            self.set(proof__seq=float(out.proof_seq), proof__a=self.gives[0], proof__b=self.gives[1])
        return out

    def prove(self, role: str = "operator", **arguments: object) -> object:
        return self.say("prove", role, **arguments)


def inhibits(it: Safety) -> bool:
    return bool(it.view("proof-tests").present)


def test_no_permit_before_the_tests_and_none_after_they_expire() -> None:
    it = Proving()
    it.run(3)
    refused = it.say("reset", "physicist")
    assert refused.code == "safety.present"
    assert "Proof tests" in refused.words
    assert it.prove().status is Status.ACCEPTED  # type: ignore[attr-defined]
    assert it.prove().code == "proof.running"  # type: ignore[attr-defined]
    lines = [(out.permit, out.hold) for out in (it.run() for _ in range(12))]
    assert (True, True) in lines  # the loop was tried
    assert (True, False) not in lines
    result = it.controller.take_results()[-1]
    assert (result.status, result.data["passed"]) == (Status.DONE, 3)
    assert not inhibits(it)
    it.release()
    assert it.prove().code == "proof.not-now"  # type: ignore[attr-defined]
    assert it.controller.next_deadline_ns(it.t_ns) is not None
    it.controller._proofs._state = ProofState(tuple(Outcome(0.5, True, it.t_ns - HOUR) for _ in TWO))
    it.run(2)
    assert inhibits(it)
    assert it.out.permit  # what is there stays
    assert "expired" in it.controller._proofs.words(it.t_ns)


def test_scans_are_left_out_no_longer_than_a_proof_counts() -> None:
    it = Proving()
    it.run(3)
    it.prove()
    it.run(12)
    it.release()
    it.speaks = False
    it.run(2100)  # the console has gone: nothing else is due
    ends_ns = min(row["t_ns"] for row in it.controller.snapshot().proofs) + HOUR
    assert it.controller.next_deadline_ns(ends_ns - 1, beats_watched=True) == ends_ns
    assert it.controller.snapshot().proofs is it.controller.snapshot().proofs
    it.controller._now_ns = ends_ns
    assert not all(row["valid"] for row in it.controller.snapshot().proofs)


def test_a_failed_test_is_named_with_value_and_limit() -> None:
    it = Proving()
    it.gives = (2.0, math.nan)
    it.run(3)
    it.prove("physicist", tests=["a", "b"])
    it.run(6)
    result = it.controller.take_results()[-1]
    assert (result.status, result.code) == (Status.FAILED, "safety.proof-failed")
    assert result.words == "A (a): 2, limit 0 to 1; B (b): no value, limit 0 to 1"
    assert result.data == {"passed": 0, "failed": ["a", "b"]}
    assert inhibits(it)
    assert "not run" in it.controller._proofs.words(it.t_ns)
    rows = it.controller.snapshot().proofs
    assert [row["valid"] for row in rows] == [False, False, False]
    assert rows[0]["value"] == 2.0
    assert rows[1]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"tests": []}, "proof.tests"),
        ({"tests": "a"}, "proof.tests"),
        ({"tests": [1]}, "proof.no-test"),
        ({"tests": ["c"]}, "proof.no-test"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], code: str) -> None:
    it = Proving()
    it.run(3)
    assert it.prove(**arguments).code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("changes", [{"fe__active": 1.0}, {"ring__flat_top": 1.0}])
def test_not_with_a_layer_or_a_flat_top(changes: dict[str, float]) -> None:
    it = Proving()
    it.run(3, **changes)
    assert it.prove().code == "proof.not-now"  # type: ignore[attr-defined]


def test_control_may_not_prove() -> None:
    it = Proving()
    it.run(3)
    assert it.prove("control").code == "safety.role"  # type: ignore[attr-defined]


def test_a_link_that_is_lost_fails_what_is_being_run() -> None:
    it = Proving()
    it.rack = False
    it.run(3)
    it.prove()
    it.run(2)
    assert it.controller.thresholds()[0].max() > -math.inf
    it.link_ok = False
    it.run(4)
    assert it.controller.take_results()[-1].status is Status.FAILED


# --- the link ------------------------------------------------------------------------------------------------------
def test_a_request_travels_and_is_carried_out_once_when_its_number_rises() -> None:
    command = PermitCommand(False, False, 0, 0, 0, True, 7, 3)
    assert unpack_permit(pack_permit(command)) == command
    assert unpack_permit(pack_permit(command)[:-7] + b"\x02" + pack_permit(command)[-6:]) is None
    end = RackEnd("key", 1, rule_set().link, 0)
    for boot, seq, asked in ((1, 3, None), (1, 3, None), (1, 4, (7, 4)), (1, 4, None), (2, 9, None), (2, 10, (7, 10))):
        end._note_proof(command._replace(proof_seq=seq), boot)
        assert end.take_proof() == asked
    for action in (0, ProofAction.PERMIT_LOOP, 200):
        end._note_proof(command._replace(proof_seq=end._proof_of[1] + 1, proof_action=int(action)), 2)  # type: ignore[index]
        assert end.take_proof() is None
    assert end.lost_by_trip
    end._command = command._replace(proof_action=int(ProofAction.PERMIT_LOOP))
    assert not end.lost_by_trip
    assert Kind.PERMIT in Kind


# --- the file ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_facilities())
def test_every_device_that_a_facility_has_is_proven(name: str) -> None:
    facility = load_facility(name)
    by_id = {known.id: known for known in proofs_from_toml(TEXT, facility, 10.0)}
    off = facility.beam_off
    for test, device in (("beam-off-drive", off.rfko), ("beam-off-quadrupole", off.fast_quad),
                         ("beam-off-chopper", off.chopper), ("beam-off-dump", off.ring_dump), ("stopper", off.stopper),
                         ("source-inhibit", off.source_inhibit)):  # fmt: skip
        assert (test in by_id) == device.present
    assert by_id["permit-loop-drop"].high == 10.0
    assert all(known.high <= 220.0 for known in by_id.values() if known.id in ("beam-off-drive", "beam-off-quadrupole"))
    assert all(known.valid_ns == 8 * HOUR for known in by_id.values())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ionctl.proofs/1", "ionctl.proofs/2", "schema"),
        ('schema = "ionctl.proofs/1"', "schema = ", "syntax"),
        ('action = "counts"', 'action = "count"', "proof count-path-ic1, key action"),
        ('id = "count-path-ic2"', 'id = "count-path-ic1"', "two tests"),
        ("low = 4.5", "low = 7.5", "no value lies"),
        (
            'device = "rfko"\nhigh = 220.0\ntolerance = 30.0\nunit = "us"',
            'device = "rfko"\nhigh = 220.0\nunit = "A"',
            "key unit",
        ),
    ],
)
def test_a_wrong_file_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        proofs_from_toml(TEXT.replace(old, new, 1), wuwei(), 10.0)
    assert said in f"{refused.value.code} {refused.value}"


def test_the_file_is_looked_for_and_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_proofs(wuwei(), 10.0) == proofs_from_toml(TEXT, wuwei(), 10.0)
    monkeypatch.setattr(proof_file, "find_config", lambda *_: None)
    with pytest.raises(ConfigError, match=r"proof_tests\.toml"):
        load_proofs(wuwei(), 10.0)


def test_limits_in_words() -> None:
    assert TWO[0].limits() == "0 to 1"
    assert TWO[0]._replace(low=-math.inf, unit="ms").limits() == "at most 1 ms"


def test_what_is_watched_while_tests_are_run_and_not_otherwise() -> None:
    it = Proving()
    it.run(3)
    book = it.controller._proofs
    assert list(book.boxes(lambda _name: 0.0)) == []
    it.prove()
    assert len(list(book.boxes(lambda _name: 0.0))) == 3
    assert list(book.boxes(lambda _name: math.nan)) == []
    assert book.deadline_ns(it.t_ns) is None  # it begins with the next image
    it.run(2)
    assert book.deadline_ns(it.t_ns) is not None


def test_a_command_waits_for_an_image_that_is_not_older() -> None:
    it = Proving()
    it.run(3)
    it.t_ns += 1
    it.prove()
    image = process_image.image_of(it.signals)
    out = it.controller.scan(image, it.t_ns - 1, it.t_ns, True)
    assert out.proof_action == 0
    assert it.controller.snapshot().proofs_running


def test_the_personnel_chain_is_of_tier_p_and_never_bypassed() -> None:
    for changes in ({"chain": "personnel"}, {"chain": "personnel", "tier": "P", "bypass": "qa"}):
        with pytest.raises(ConfigError, match="chain"):
            one_rule(body(**changes))
