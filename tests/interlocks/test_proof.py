"""Proof tests: the step, the book, the controller that inhibits, the file."""

from __future__ import annotations

import math

import pytest

from channels.command import Command, CommandResult, Status
from channels.frames import Kind
from facility.config import list_facilities, load_facility
from facility.errors import ConfigError
from facility.signals import INDEX
from facility.states import ProofAction
from interlocks import process_image, proof, proof_book, proof_file
from interlocks.controller import SafetyController
from interlocks.link import PermitCommand, RackEnd, pack_permit, unpack_permit
from interlocks.proof import Begin, Blind, Effect, Loop, Outcome, Proof, ProofState, Seen, step
from interlocks.proof_book import ProofBook
from interlocks.proof_file import load_proofs, proofs_from_toml
from interlocks.snapshot import Mode
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


def test_without_an_image_each_of_the_four_values_of_an_action_is_none() -> None:
    tests = tuple(made(name, ProofAction.COUNTS, place) for place, name in enumerate("abcd"))
    state, _ = step(tests, LONGEST, ProofState((None,) * 4), Begin(frozenset(range(4))), 0)
    state, _ = step(tests, LONGEST, state, Blind(), 1)
    assert [outcome and outcome.passed for outcome in state.outcomes] == [False] * 4


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


def raised() -> Proving:
    """The loop's lines have been told to the rack."""
    it = Proving()
    it.run(3)
    it.prove()
    for _ in range(20):
        before = it.out.drops
        if it.run().permit:
            assert it.out[:2] == (True, True)
            assert it.out.drops == before, "lines that rise take nothing away"
            return it
    raise AssertionError(it.out)


@pytest.mark.parametrize(("bad", "lines"), [({}, (False, False)), ({"gas__flow_rel": 2.0}, (False, False))])
def test_the_lines_of_the_loop_that_fall_are_counted_as_a_permit_that_went(
    bad: dict[str, float], lines: tuple[bool, bool]
) -> None:
    it = raised()
    drops = it.out.drops
    for _ in range(10):
        if not it.run(1, **bad).permit:
            break
    assert (it.out[:2], it.out.drops) == (lines, drops + 1)
    assert it.run(3, **bad).drops == drops + 1


def test_a_permit_that_follows_the_loop_at_once_is_another_one() -> None:
    """In service mode, with the tests bypassed, somebody may reset while the loop is tried."""
    it = raised()
    it.controller._scanner.inhibited = False
    state, drops = it.controller._permit.state, it.out.drops
    it.controller._permit.state = state._replace(released=True)
    assert it.run()[:2] == (True, False)
    assert it.out.drops == drops + 1
    assert it.run().drops == drops + 1


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


@pytest.mark.parametrize("changes", [{"fe__active": 1.0}, {"ring__flat_top": 1.0}, {"ring__flat_top": math.nan}])
def test_not_with_a_layer_or_a_flat_top(changes: dict[str, float]) -> None:
    it = Proving()
    it.run(3, **changes)
    assert it.prove().code == "proof.not-now"  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [{"estop__a_ok": 0.0}, {"door__a_closed": 0.0}, {"gas__flow_rel": 0.0}])
def test_not_with_a_pause_or_an_abort_latched_or_present(bad: dict[str, float]) -> None:
    it = Proving()
    it.run(3)
    good = {name: it.signals[INDEX[name.replace("__", ".")]] for name in bad}
    it.run(3000, **bad)
    refused: CommandResult = it.prove()  # type: ignore[assignment]
    assert (refused.status, refused.code) == (Status.REFUSED, "proof.not-now")
    assert refused.words.startswith("proof tests run when nothing has tripped: ")
    lines = [(out.permit, out.hold) for out in (it.run() for _ in range(12))]
    assert (True, True) not in lines
    it.run(3, **good)
    latched = bool(it.latched())
    assert latched is ("door__a_closed" not in bad)  # a room that is opened without a permit is no trip
    assert (it.prove().status is Status.ACCEPTED) is not latched  # type: ignore[attr-defined]
    if latched:
        assert it.say("reset", "physicist").status is Status.DONE  # the tests, which are missing, inhibit alone
        assert it.prove().status is Status.ACCEPTED  # type: ignore[attr-defined]


@pytest.mark.parametrize("scans", [1, 2])
@pytest.mark.parametrize("bad", [{"estop__a_ok": 0.0, "estop__b_ok": 0.0}, {"ups__ok": 0.0}])
def test_a_trip_takes_the_lines_of_the_loop_with_its_scan_and_fails_it(scans: int, bad: dict[str, float]) -> None:
    it = Proving()
    it.run(3)
    it.prove(tests=["loop"])
    it.run(1)
    assert (it.out.permit, it.out.hold) == (True, True)
    it.set(p__permit=0.0, p__hold=0.0)  # the rack's echo does not come
    out = it.run(1, **bad)
    assert not out.permit
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns
    it.run(scans)
    result = it.controller.take_results()[-1]
    assert (result.status, result.words) == (Status.FAILED, "Loop (loop): no value, limit 0 to 10")
    assert not it.controller.snapshot().proofs_running
    assert not it.out.permit


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
    assert unpack_permit(pack_permit(command)[:-15] + b"\x02" + pack_permit(command)[-14:]) is None
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


def test_who_asks_about_later_changes_nothing_of_what_is_believed_now() -> None:
    it = Proving()
    it.run(3)
    it.prove()
    it.run(12)
    book = it.controller._proofs
    ends_ns = min(row["t_ns"] for row in it.controller.snapshot().proofs) + HOUR
    for _ in range(2):
        assert book.deadline_ns(ends_ns - 1) == ends_ns
        book.deadline_ns(ends_ns)
        book.deadline_ns(ends_ns + 2 * HOUR)
        assert book.missing(ends_ns - 1) == 0.0
    assert book.missing(ends_ns) > 0.0
    assert book.deadline_ns(ends_ns - 1) == ends_ns


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
    assert book.deadline_ns(it.t_ns) == it.t_ns  # it begins with the next image
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
    assert it.controller.next_deadline_ns(it.t_ns) == it.t_ns, "another image is wanted, whatever this scan has done"


def test_the_personnel_chain_is_of_tier_p_and_never_bypassed() -> None:
    for changes in ({"chain": "personnel"}, {"chain": "personnel", "tier": "P", "bypass": "qa"}):
        with pytest.raises(ConfigError, match="chain"):
            one_rule(body(**changes))


# --- edges -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("value", "passes"), [(-0.1, False), (0.0, True), (1.0, True), (1.1, False),
                                               (math.nan, False), (math.inf, False), (-math.inf, False)])  # fmt: skip
def test_a_value_passes_within_its_limits_both_included(value: float, passes: bool) -> None:
    assert TWO[0].passes(value) is passes


@pytest.mark.parametrize(("took_ns", "over"), [(LONGEST, False), (LONGEST + 1, True)])
@pytest.mark.parametrize("start_ns", [0, 3, 60 * MS + 1, 7 * LONGEST])
def test_an_action_has_as_long_as_it_may_take(start_ns: int, took_ns: int, over: bool) -> None:
    state, _ = run((Begin(frozenset({0, 1})), start_ns))
    assert proof.deadline_ns(TWO, LONGEST, state, start_ns) == start_ns + LONGEST + 1
    after, effects = step(TWO, LONGEST, state, seen(0.0), start_ns + took_ns)
    assert (after.action is None) is over
    assert (Effect.JUDGED in effects) is over


@pytest.mark.parametrize("seq", [0.0, 2.0, math.nan])
def test_an_answer_to_another_request_is_none(seq: float) -> None:
    state, _ = run((Begin(frozenset({0})), 0))
    assert run((seen(seq, 0.5), 1), state=state) == (state, [])
    assert run((seen(1.0, 0.5), 1), state=state)[1] == [Effect.JUDGED, Effect.FINISHED]


def test_actions_come_one_after_another_and_each_judges_only_its_own() -> None:
    late = made("late", ProofAction.STOPPER, 1)
    tests = (TWO[2], late, TWO[0], TWO[1])
    state = ProofState((None,) * 4)
    state, _ = step(tests, LONGEST, state, Begin(frozenset({0, 1, 2})), 0)
    assert (state.action, state.queue) == (ProofAction.COUNTS, (ProofAction.STOPPER, ProofAction.PERMIT_LOOP))
    assert (state.loop, proof.raises(state)) == (Loop.REST, False)
    state, _ = step(tests, LONGEST, state, seen(1.0, 0.25, 0.75), 1)
    assert state.outcomes == (None, None, Outcome(0.25, True, 1), None)
    assert (state.action, state.wanted, state.loop) == (ProofAction.STOPPER, frozenset({0, 1}), Loop.REST)
    state, _ = step(tests, LONGEST, state, seen(2.0, 0.25, 0.75), 2)
    assert state.outcomes == (None, Outcome(0.75, True, 2), Outcome(0.25, True, 1), None)
    assert (state.action, state.wanted, state.loop) == (ProofAction.PERMIT_LOOP, frozenset({0}), Loop.RAISED)
    assert proof.missing(tests, state, 2) == 2


@pytest.mark.parametrize("permit", [0.0, 1.0, 2.0, -1.0, math.nan])
@pytest.mark.parametrize("hold", [0.0, 1.0, 2.0, math.nan])
def test_the_loop_is_seen_raised_only_with_both_lines_at_one(permit: float, hold: float) -> None:
    state, _ = run((Begin(frozenset({2})), 0))
    after, _ = run((seen(0.0, permit=permit, hold=hold), 2 * MS + 1), state=state)
    assert (after.loop is Loop.DROPPED) is (permit == hold == 1.0)


@pytest.mark.parametrize("permit", [0.0, 1.0, -1.0, math.nan])
def test_the_loop_is_seen_dropped_only_at_zero_and_its_times_have_fractions(permit: float) -> None:
    state, _ = run((Begin(frozenset({2})), 0), (seen(0.0, permit=1.0, hold=1.0), 2_500_000))
    assert (state.loop, state.raise_ms, state.loop_ns) == (Loop.DROPPED, 2.5, 2_500_000)
    after, _ = run((seen(0.0, permit=permit), 6_750_000), state=state)
    assert after.outcomes[2] == (Outcome(4.25, True, 6_750_000) if permit == 0.0 else None)


@pytest.mark.parametrize("t_ns", [0, 5, HOUR // 2 + 1])
def test_an_outcome_counts_for_its_time_and_the_earliest_end_is_told(t_ns: int) -> None:
    first, later = Outcome(0.5, True, t_ns), Outcome(0.5, True, t_ns + 7)
    state = ProofState((later, first, Outcome(5.0, False, t_ns - 9)))
    assert proof.missing(TWO, state, t_ns + HOUR - 1) == 1
    assert proof.deadline_ns(TWO, LONGEST, state, t_ns) == t_ns + HOUR
    assert proof.missing(TWO, state, t_ns + HOUR) == 2
    assert proof.deadline_ns(TWO, LONGEST, state, t_ns + HOUR) == t_ns + 7 + HOUR
    for call in (lambda: proof.missing(TWO[:2], state, 0), lambda: proof.deadline_ns(TWO[:2], LONGEST, state, 0)):
        with pytest.raises(ValueError, match="zip"):
            call()


class Bench:
    """A book of proof tests with an image of its own."""

    def __init__(self, tests: tuple[Proof, ...] = TWO) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.book = ProofBook(tests, 10.0, lambda kind, **data: self.events.append((kind, data)))
        self.signals = dict.fromkeys(("ring.flat_top", "fe.active", "p.permit", "p.hold", "proof.seq"), 0.0)
        self.signals |= dict.fromkeys(("proof.a", "proof.b", "proof.c", "proof.d"), math.nan)
        self.tripped = False

    def begin(self, t_ns: int = 0, objection: str = "", **args: object) -> CommandResult:
        return self.book.begin(Command("C-1", "op", "operator", 0, 1, "prove", args), objection, t_ns)

    def see(self, t_ns: int, *, fresh: bool = True, **changes: float) -> CommandResult | None:
        self.signals |= {name.replace("__", "."): value for name, value in changes.items()}
        return self.book.observe(self.signals.__getitem__, t_ns, fresh, t_ns, tripped=self.tripped)

    def kinds(self) -> list[str]:
        found = [kind for kind, _ in self.events]
        self.events.clear()
        return found


def test_a_run_is_told_from_its_beginning_to_its_end() -> None:
    it = Bench()
    assert (it.book.running, it.book.request, it.book.raises, it.book.missing(0)) == (False, (0, 0), False, 3.0)
    accepted = it.begin(5, tests=["b", "a"])
    assert (accepted.id, accepted.status, accepted.words) == ("C-1", Status.ACCEPTED, "2 proof tests")
    assert it.events == [("proof.begun", {"tests": ["a", "b"], "by": "op", "role": "operator"})]
    assert it.book.running
    assert it.see(4) is None  # an older image
    assert it.book.request == (0, 0)
    assert it.see(5) is None
    assert it.book.request == (int(ProofAction.COUNTS), 1)
    assert it.see(6, proof__a=0.5, proof__b=1.5) is None
    assert it.kinds() == ["proof.begun"]
    result = it.see(7, proof__seq=1.0)
    assert result is not None
    assert (result.id, result.status, result.code) == ("C-1", Status.FAILED, "safety.proof-failed")
    assert (result.words, result.data) == ("B (b): 1.5, limit 0 to 1", {"passed": 1, "failed": ["b"]})
    assert [(kind, data.get("id"), data.get("pass")) for kind, data in it.events] == [
        ("proof.judged", "a", True), ("proof.judged", "b", False), ("proof.ended", None, None),
    ]  # fmt: skip
    assert it.events[0][1] == {"id": "a", "value": 0.5, "low": 0.0, "high": 1.0, "unit": "1", "pass": True, "t_ns": 7}
    assert (it.book.missing(8), it.book.running, it.book.request[0]) == (2.0, False, 0)
    assert it.book.words(8) == "B (b): 1.5, limit 0 to 1; Loop (loop): not run"
    assert [row["valid"] for row in it.book.rows(8)] == [True, False, False]
    assert it.book.words(7 + HOUR).startswith("A (a): expired; ")


def test_what_has_passed_is_counted_beside_what_has_failed() -> None:
    it = Bench(tuple(made(name, ProofAction.COUNTS, place) for place, name in enumerate("abcd")))
    it.begin(0)
    it.see(0)
    result = it.see(1, proof__seq=1.0, proof__a=0.5, proof__b=1.5, proof__c=0.5, proof__d=0.5)
    assert result is not None
    assert result.data == {"passed": 3, "failed": ["b"]}


def test_what_is_about_to_be_run_is_missing_already_and_another_run_leaves_the_rest() -> None:
    it = Bench(TWO[:2])
    it.begin(0)
    it.see(0)
    done = it.see(1, proof__seq=1.0, proof__a=0.5, proof__b=0.5)
    assert done is not None
    assert (done.status, done.data, it.book.missing(1)) == (Status.DONE, {"passed": 2, "failed": []}, 0.0)
    it.kinds()
    it.begin(2, tests=["a"])
    assert it.book.missing(2) == 1.0
    it.see(2)
    assert it.book.missing(2) == 1.0
    again = it.see(3, proof__seq=2.0, proof__a=0.75)
    assert again is not None
    assert again.data == {"passed": 1, "failed": []}
    assert it.kinds() == ["proof.begun", "proof.judged", "proof.ended"]
    assert it.book.missing(3) == 0.0


def test_without_an_image_tests_begin_and_fail() -> None:
    it = Bench()
    it.begin(5, tests=["a"])
    assert it.see(0, fresh=False) is None
    assert it.book.request[0] == int(ProofAction.COUNTS)
    failed = it.see(0, fresh=False)
    assert failed is not None
    assert (failed.status, failed.words) == (Status.FAILED, "A (a): no value, limit 0 to 1")
    assert it.book.rows(1)[0]["value"] is None


@pytest.mark.parametrize("flat_top", [0.0, 1.0, -1.0, math.nan])
@pytest.mark.parametrize("active", [0.0, 1.0, -1.0, math.nan])
def test_the_loop_is_tried_only_without_flat_top_and_layer(flat_top: float, active: float) -> None:
    it = Bench()
    it.begin(0, tests=["loop"])
    it.see(0)
    assert it.book.raises
    result = it.see(1, ring__flat_top=flat_top, fe__active=active)
    assert (result is None) is (flat_top == active == 0.0)


def test_what_trips_fails_the_loop_and_leaves_other_tests_their_values() -> None:
    it = Bench()
    it.begin(0)
    it.see(0)
    it.tripped = True
    it.see(1, proof__seq=1.0, proof__a=0.5, proof__b=0.5)
    result = it.see(2)
    assert result is not None
    assert result.data == {"passed": 2, "failed": ["loop"]}


def test_why_no_tests_begin() -> None:
    it = Bench()
    long = "x" * 100
    assert it.begin(tests=long).words == f"tests is {'x' * 60!r}: give a list of ids, or leave it out"
    assert it.begin(tests=[long]).words == f"no test {'x' * 60!r}; there are a, b, loop"
    refused = it.begin(objection="the beam is permitted")
    assert (refused.code, refused.words) == ("proof.not-now", "the beam is permitted")
    assert it.events == []
    assert it.begin().status is Status.ACCEPTED
    assert (it.begin().code, it.begin().words) == ("proof.running", "proof tests are being run")


def test_words_are_cut_and_units_and_open_limits_are_shown() -> None:
    many = tuple(made(f"t{k}", ProofAction.COUNTS)._replace(title="x" * 100) for k in range(20))
    assert len(Bench(many).book.words(0)) == 1000
    timed = TWO[0]._replace(unit="us", low=-math.inf)
    assert proof_book.words_of(timed, Outcome(2.5, False, 0)) == "A (a): 2.5 us, limit at most 1 us"
    assert proof_book.words_of(TWO[0]._replace(unit="%"), Outcome(2.5, False, 0)) == "A (a): 2.5 %, limit 0 to 1 %"
    it = Bench((timed,))
    it.begin(0)
    it.see(0)
    it.see(1, proof__seq=1.0, proof__a=0.5)
    row = it.book.rows(2)[0]
    assert (row["low"], row["high"], row["unit"], row["value"]) == (None, 1.0, "us", 0.5)


def test_an_action_may_take_five_seconds_and_twenty_watchdogs() -> None:
    it = Bench()
    it.begin(0)
    it.see(0)
    assert it.book.deadline_ns(0) == (5000 + 20 * 10) * MS + 1


HEAD = 'schema = "ionctl.proofs/1"\n'
ENTRY = {
    "id": '"some-test"', "title": '"Some test"', "hazard": '"h"', "action": '"beam_off"', "value": '"c"',
    "high": "1000.0", "unit": '"us"', "valid_s": "2.5", "citation": '"default"',
}  # fmt: skip


def entry(**changes: object) -> str:
    keys = ENTRY | {name: str(value) for name, value in changes.items()}
    return "[[proof]]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items())


def one_proof(**changes: object) -> Proof:
    (found,) = proofs_from_toml(HEAD + entry(**changes), wuwei(), 10.0)
    return found


def test_a_test_with_limits_of_its_own_is_as_the_file_says() -> None:
    assert one_proof(low=2.0) == Proof(
        "some-test", "Some test", "h", ProofAction.BEAM_OFF, 2, 2.0, 1000.0, "us", 2_500_000_000
    )
    assert one_proof().low == -math.inf
    assert one_proof(high='"watchdog"').high == 10.0
    assert one_proof(low=1000.0).low == 1000.0


@pytest.mark.parametrize(("unit", "scale"), [("us", 1.0), ("ms", 1e-3)])
@pytest.mark.parametrize("to", ["start", "end"])
def test_a_device_is_timed_against_the_figure_of_the_facility(unit: str, scale: float, to: str) -> None:
    device = wuwei().beam_off.chopper
    figure = (device.delay_us + (device.fall_us if to == "end" else 0.0)) * scale
    found = one_proof(device='"chopper"', to=f'"{to}"', unit=f'"{unit}"', tolerance=3.0 * scale)
    assert device.fall_us > 0.0
    assert (found.low, found.high) == pytest.approx((figure - 3.0 * scale, figure + 3.0 * scale), rel=1e-12)
    assert one_proof(device='"chopper"', to=f'"{to}"', unit=f'"{unit}"', tolerance=1e6, high=figure).high == figure
    assert one_proof(device='"chopper"').high == pytest.approx(device.delay_us + device.fall_us)


@pytest.mark.parametrize(
    "text", ['schema = "ionctl.proofs/0"\n' + entry(), 'schema = "ionctl.proofs/9"\n' + entry(), HEAD,
             HEAD + "extra = 1\n" + entry(), entry()],
)  # fmt: skip
def test_a_file_has_a_schema_and_tests_and_nothing_else(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        proofs_from_toml(text, wuwei(), 10.0)
    assert refused.value.code == "proofs.schema"


def test_the_first_of_several_problems_is_named() -> None:
    with pytest.raises(ConfigError, match="key action"):
        one_proof(action='"guess"', value='"z"', valid_s=-1.0)


@pytest.mark.parametrize("ended_ns", [1, 6])
def test_a_book_knows_to_the_nanosecond_when_an_outcome_ceases_to_count(ended_ns: int) -> None:
    it = Bench(TWO[:2])
    it.begin(0)
    it.see(0)
    it.see(ended_ns, proof__seq=1.0, proof__a=0.5, proof__b=0.5)
    for t_ns, missing in (
        (ended_ns, 0.0),
        (ended_ns + HOUR - 1, 0.0),
        (ended_ns + HOUR, 2.0),
        (ended_ns + 2 * HOUR, 2.0),
    ):
        assert it.book.missing(t_ns) == missing
        assert [row["valid"] for row in it.book.rows(t_ns)] == [missing == 0.0] * 2
    fresh = Bench(TWO[:2])
    fresh.begin(0)
    fresh.see(0)
    fresh.see(ended_ns, proof__seq=1.0, proof__a=0.5, proof__b=0.5)
    assert fresh.book.missing(ended_ns) == 0.0
    assert fresh.book.missing(ended_ns + 3 * HOUR) == 2.0


@pytest.mark.parametrize("action", [0, 1, int(ProofAction.PERMIT_LOOP), int(ProofAction.PERMIT_LOOP) + 1])
@pytest.mark.parametrize("back", [False, True])
def test_a_permit_that_went_was_lost_by_a_trip_unless_it_was_handed_back_or_proven(action: int, back: bool) -> None:
    end = RackEnd("key", 1, rule_set().link, 0)
    assert end.lost_by_trip
    end._command = PermitCommand(False, False, 0, 0, proof_action=action, handed_back=back)
    assert end.lost_by_trip is (action != ProofAction.PERMIT_LOOP and not back)


def test_another_start_of_the_rack_has_passed_nothing() -> None:
    it = Bench(TWO[:2])
    for rack in (None, 7, 7, None, 7):
        it.book.measured_by(rack)
    it.begin(0)
    it.see(0)
    it.see(1, proof__seq=1.0, proof__a=0.5, proof__b=0.5)
    it.kinds()
    for rack in (7, None, 7):
        it.book.measured_by(rack)
    assert (it.book.missing(2), it.kinds()) == (0.0, [])
    it.book.measured_by(8)
    assert it.events == [("proof.forgotten", {"why": "the rack has been started anew"})]
    assert it.book.missing(2) == 2.0
    it.book.measured_by(8)
    assert it.kinds() == ["proof.forgotten"]


def test_a_controller_forgets_what_the_rack_before_has_passed() -> None:
    proofs = load_proofs(wuwei(), rule_set().link.watchdog_ms)
    it = Safety()
    it.controller = SafetyController(it.rules, Mode.CLINICAL, it.console, 0, control=CONTROL, proofs=proofs)
    it.rack_boot = 1
    it.run(3)
    book = it.controller._proofs
    passed = tuple(Outcome(0.0, True, it.t_ns) for _ in proofs)
    book._state = book._state._replace(outcomes=passed)
    it.run(2)
    assert book.missing(it.t_ns) == 0.0
    it.rack_boot = 2
    it.run(1)
    assert book.missing(it.t_ns) == len(proofs)
    assert "proof-tests" in it.controller._scanner.present_ids()
