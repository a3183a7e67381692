"""The console and control as the safety controller hears them, one frame at a time: limits to the nanosecond."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channels.keepalive import KeepAliveMaker
from facility.errors import ConfigError
from interlocks import procedure_lines
from interlocks.console_watch import ConsoleWatch, silence_ns
from interlocks.procedure_lines import LineState, LineWatch
from interlocks.process_image import INVALID
from interlocks.rules import RuleSet
from tests.interlocks.support import CONTROL, CONTROL_KEY, KEY, MS, Console, body, one_rule

LIMIT = 2000 * MS
HALF = LIMIT // 2


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, t_ns: int = 0) -> None:
        self.t_ns = t_ns

    def now_ns(self) -> int:
        return self.t_ns


def rules(name: str = "console.age_ms", **changes: object) -> RuleSet:
    keys = {"inputs": [name], "unit": "ms", "low": None, "high": 2000.0, "tier": "P"} | changes
    return one_rule(body(**keys))


def console(boot: int = 1, t_ns: int = 0) -> tuple[ConsoleWatch, KeepAliveMaker, Clock]:
    clock = Clock(t_ns)
    return (
        ConsoleWatch(Console("console", KEY.public_key()), rules(), t_ns),
        KeepAliveMaker("console", boot, KEY, clock),
        clock,
    )


def test_a_console_is_unknown_before_its_first_sign_of_life() -> None:
    watch, maker, _ = console(t_ns=5)
    assert (watch.alive, watch.age_ns(7)) == (False, INVALID)
    assert watch.heard(maker.make(), 7) is True
    assert (watch.alive, watch.age_ns(10)) == (True, 3)
    assert watch.deadline_ns() == 7 + LIMIT + 1


def test_what_is_no_sign_of_life_changes_nothing() -> None:
    watch, maker, _ = console()
    frame = maker.make()
    assert watch.heard(b"{}", 1) is False
    assert watch.alive is False
    assert watch.heard(frame, 2)
    assert watch.heard(frame, 9) is False
    assert (watch.alive, watch.age_ns(9)) == (True, 7)


def test_a_reset_is_a_sign_of_life_of_a_console_that_was_never_heard() -> None:
    watch, _, _ = console(t_ns=3)
    watch.admit(11)
    assert (watch.alive, watch.age_ns(15), watch.deadline_ns()) == (True, 4, 11 + LIMIT + 1)


@pytest.mark.parametrize(("silent_ns", "admitted"), [(0, False), (HALF, False), (HALF + 1, True), (LIMIT + 5, True)])
@pytest.mark.parametrize("start", [LIMIT // 4, 7 * LIMIT])
def test_a_reset_admits_another_console_only_if_the_first_is_silent(silent_ns: int, admitted: bool, start: int) -> None:
    watch, maker, clock = console(t_ns=start)
    newer = KeepAliveMaker("console", 2, KEY, clock)
    assert watch.heard(maker.make(), start)
    now = clock.t_ns = start + silent_ns
    assert watch.heard(newer.make(), now) is False
    watch.admit(now)
    assert watch.age_ns(now + 4) == 4
    assert watch.heard(newer.make(), now) is admitted
    assert watch.heard(maker.make(), now) is not admitted


def test_a_reset_admits_the_first_console_even_right_at_the_start() -> None:
    watch, _, clock = console(t_ns=1)
    watch.admit(1)
    clock.t_ns = 2
    assert watch.heard(KeepAliveMaker("console", 5, KEY, clock).make(), 2)


@pytest.mark.parametrize("spoke", [False, True])
@pytest.mark.parametrize("resets", [1, 2])
@pytest.mark.parametrize("silent_ns", [1, HALF, HALF + 1, LIMIT + 5])
def test_the_first_sign_of_life_after_a_reset_counts(spoke: bool, resets: int, silent_ns: int) -> None:
    watch, maker, clock = console()
    if spoke:
        assert watch.heard(maker.make(), 0)
    for _ in range(resets):
        watch.admit(silent_ns)
    now = clock.t_ns = silent_ns + 700 * MS
    assert watch.heard(maker.make(), now)
    assert watch.age_ns(now + 5) == 5
    assert watch.deadline_ns() == now + LIMIT + 1


def test_the_rule_says_how_long_silence_may_be() -> None:
    assert silence_ns(rules(), "console.age_ms") == LIMIT
    assert silence_ns(rules(high=1.0000006), "console.age_ms") == 1_000_001
    low = rules().rules[0].model_copy(update={"id": "low", "low": 0.0, "high": None})
    both = replace(rules(), rules=(low, *rules().rules))
    assert silence_ns(both, "console.age_ms") == LIMIT
    for found in (rules(), rules("control.age_ms")):
        with pytest.raises(ConfigError) as refused:
            silence_ns(found, "ring.brho_rel")
        assert refused.value.code == "interlocks.no-watch"
    with pytest.raises(ConfigError):
        silence_ns(replace(rules(), rules=(low,)), "console.age_ms")


def lines(t_ns: int = 0) -> tuple[LineWatch, KeepAliveMaker, Clock]:
    clock = Clock(t_ns)
    return LineWatch(CONTROL, rules("control.age_ms"), t_ns), KeepAliveMaker("control", 1, CONTROL_KEY, clock), clock


def test_control_is_unknown_before_its_first_sign_of_life() -> None:
    watch, maker, _ = lines(5)
    assert watch.codes(5) == (INVALID, 0, 0, 0, 0)
    assert watch.deadline_ns(5) is None
    assert watch.heard(maker.make(0b0101), 6) is True
    assert watch.codes(9) == (3, 1, 0, 1, 0)
    assert watch.deadline_ns(9) == 6 + LIMIT + 1


def test_without_a_control_the_lines_stay_down() -> None:
    watch = LineWatch(None, rules("control.age_ms"), 0)
    _, maker, _ = lines()
    assert watch.heard(maker.make(0b1111), 1) is False
    watch.scanned(1)
    assert watch.codes(1) == procedure_lines.NOT_HEARD == (INVALID, 0, 0, 0, 0)
    assert watch.deadline_ns(1) is None


def test_lines_fall_to_the_nanosecond_and_their_age_goes_on() -> None:
    watch, maker, clock = lines()
    watch.heard(maker.make(0b1111), 0)
    assert watch.codes(LIMIT) == (LIMIT, 1, 1, 1, 1)
    assert watch.deadline_ns(LIMIT) == LIMIT + 1
    assert watch.codes(LIMIT + 1) == (LIMIT + 1, 0, 0, 0, 0)
    assert watch.deadline_ns(LIMIT + 1) is None
    clock.t_ns = LIMIT + 1
    assert watch.heard(maker.make(0), LIMIT + 1) is True  # control is heard again, whatever it says


def test_a_frame_is_news_only_if_a_line_changes() -> None:
    watch, maker, _ = lines()
    assert watch.heard(maker.make(0), 0) is True
    assert [watch.heard(maker.make(bits), k) for k, bits in enumerate((0, 1, 1, 3, 2))] == [
        False, True, False, True, True,
    ]  # fmt: skip
    assert watch.heard(b"", 6) is False
    assert watch.codes(6) == (2, 0, 1, 0, 0)


def test_a_control_that_has_restarted_is_heard_after_a_scan_without_lines() -> None:
    watch, maker, clock = lines()
    newer = KeepAliveMaker("control", 2, CONTROL_KEY, clock)
    watch.heard(maker.make(0b1111), 0)
    watch.scanned(0)
    assert watch.codes(1) == (1, 1, 1, 1, 1)
    assert watch.heard(newer.make(0b1111), 2) is True
    assert watch.codes(3) == (INVALID, 0, 0, 0, 0)
    assert watch.heard(newer.make(0b1111), 3) is False
    assert watch.heard(maker.make(0b1111), 3) is False
    assert watch.codes(3) == (INVALID, 0, 0, 0, 0)
    watch.scanned(4)
    assert watch.codes(4) == (INVALID, 0, 0, 0, 0)
    assert watch.heard(maker.make(0b1111), 4) is False
    assert watch.heard(newer.make(0b0011), 5) is True
    assert watch.codes(6) == (1, 1, 1, 0, 0)


def test_a_scan_changes_nothing_of_a_control_that_lives() -> None:
    state = LineState(procedure_lines.KeepAliveState("control", CONTROL.key, LIMIT, 0, lines=True), 1, True)
    assert procedure_lines.scanned(state, 5) is state
    assert LineState(state.watch) == (state.watch, 0, False, False)


@pytest.mark.parametrize("at_ns", [0, 1, 6, 7])
def test_the_deadline_of_the_lines_is_a_nanosecond_after_the_longest_silence(at_ns: int) -> None:
    watch, maker, clock = lines()
    clock.t_ns = at_ns
    watch.heard(maker.make(1), at_ns)
    due_ns = watch.deadline_ns(at_ns)
    assert due_ns == at_ns + LIMIT + 1
    assert watch.codes(due_ns - 1)[1:] == (1, 0, 0, 0)
    assert watch.codes(due_ns)[1:] == (0, 0, 0, 0)
