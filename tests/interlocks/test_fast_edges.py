"""The fast evaluator against what each kind means, written down again in a line: grids, windows, staleness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from facility.signals import INDEX, N_FAST
from facility.states import Action
from interlocks import fast
from tests.interlocks.support import TICK, Rack, body, one_rule, several

FAST = {"inputs": ["strip.err_x_mm", "strip.err_y_mm"], "unit": "mm"}
QUIET = {"inputs": ["ic1.hv_rel", "ic2.hv_rel"], "unit": "1"}
GRID = [-3.0, -1.25, -1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 1.25, 2.0, 3.5, 8.0, math.nan, math.inf, -math.inf]
Meaning = Callable[[float, float], tuple[bool, float, float]]
"""Good, value, limit of two inputs."""


def keys(pair: dict[str, object], **changes: object) -> dict[str, object]:
    return {**pair, "low": None, "high": None, **changes}


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def excess(a: float, b: float) -> tuple[bool, float, float]:
    return finite(a, b) and a <= 1.5 * b + 0.5, a, 1.5 * b + 0.5


def mismatch(a: float, b: float) -> tuple[bool, float, float]:
    limit = 0.5 + 0.25 * max(abs(a), abs(b))
    return finite(a, b) and abs(a - b) <= limit, abs(a - b), limit


def equal(a: float, b: float) -> tuple[bool, float, float]:
    return finite(a, b) and a == b, a, b


def either(a: float, b: float) -> tuple[bool, float, float]:
    return finite(a, b) and (a == 1.0 or b == 1.0), a, 1.0


KINDS: dict[str, tuple[dict[str, object], Meaning]] = {
    "excess": ({"relative": 1.5, "high": 0.5}, excess),
    "mismatch": ({"relative": 0.25, "high": 0.5}, mismatch),
    "equal": ({}, equal),
    "either": ({"equals": 1.0}, either),
}


@pytest.mark.parametrize("pair", [FAST, QUIET], ids=["fast", "quiet"])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_mean_what_they_say(kind: str, pair: dict[str, object]) -> None:
    changes, meaning = KINDS[kind]
    it = Rack(one_rule(body(**keys(pair, kind=kind, action="HOLD", reset="none", **changes))).fast())
    first, second = (str(name).replace(".", "__") for name in pair["inputs"])  # type: ignore[attr-defined]
    for a, b in itertools.product(GRID, GRID):
        good, value, limit = meaning(a, b)
        assert it.tick(**{first: a, second: b}) == (Action.NONE if good else Action.HOLD), (a, b)
        if not good and finite(a, b):
            assert (it.row("some-rule")["value"], it.row("some-rule")["limit"]) == (value, limit), (a, b)


@pytest.mark.parametrize("pair", [FAST, QUIET], ids=["fast", "quiet"])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.25), (None, 1.0), (0.25, None), (2.0, 2.0)])
def test_limits_mean_what_they_say(pair: dict[str, object], low: float | None, high: float | None) -> None:
    name = str(pair["inputs"][0])  # type: ignore[index]
    changes = keys({"inputs": [name], "unit": pair["unit"]}, action="HOLD", reset="none", low=low, high=high)
    it = Rack(one_rule(body(**changes)).fast())
    for a in GRID:
        good = finite(a) and (low is None or low <= a) and (high is None or a <= high)
        assert it.tick(**{name.replace(".", "__"): a}) == (Action.NONE if good else Action.HOLD), a
        if not good and finite(a):
            limit = low if low is not None and a < low else high
            assert (it.row("some-rule")["value"], it.row("some-rule")["limit"]) == (a, limit)


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("kind", ["window", "mismatch"])
def test_windows_compare_increments_over_their_ticks(kind: str, window: int) -> None:
    own: dict[str, object] = {"low": -2.0, "high": 3.0} if kind == "window" else {"high": 2.0, "relative": 0.25}
    pair = {"inputs": ["ic1.ions", "ic2.ions"] if kind == "mismatch" else ["ic1.ions"], "unit": "ions"}
    hold = keys(pair, kind=kind, action="HOLD", reset="none", window_us=10.0 * window, **own)
    it = Rack(several(body(**hold), body(id="other", high=9.0)).fast())
    draw = np.random.default_rng(window)
    a, b, seen = 0, 0, []
    for _ in range(150):
        a, b = a + int(draw.integers(-1, 3)), b + int(draw.integers(-1, 2))
        seen.append((a, b))
        before = seen[max(0, len(seen) - 1 - window)]
        da, db = float(a - before[0]), float(b - before[1])
        limit = 2.0 + 0.25 * max(abs(da), abs(db))
        good = -2.0 <= da <= 3.0 if kind == "window" else abs(da - db) <= limit
        assert it.tick(ic1__ions=float(a), ic2__ions=float(b)) == (Action.NONE if good else Action.HOLD), len(seen)
        if not good:
            value = da if kind == "window" else abs(da - db)
            most = limit if kind == "mismatch" else -2.0 if da < -2.0 else 3.0
            assert (it.row("some-rule")["value"], it.row("some-rule")["limit"]) == (value, most)


@pytest.mark.parametrize("window", [1, 3, fast.HIST_LEN - 1])
@pytest.mark.parametrize("kind", ["window", "mismatch"])
def test_a_window_reaches_over_the_end_of_the_ring_as_far_as_the_ring_is_long(kind: str, window: int) -> None:
    own: dict[str, object] = {"low": 1.0 * window, "high": 1.0 * window} if kind == "window" else {"high": 0.0}
    pair = {"inputs": ["ic1.ions", "ic2.ions"] if kind == "mismatch" else ["ic1.ions"], "unit": "ions"}
    hold = keys(pair, kind=kind, action="HOLD", reset="none", window_us=10.0 * window, **own)
    it = Rack(one_rule(body(**hold)).fast())
    now = 5 * fast.HIST_LEN - 4  # one more each tick, for longer than the ring is
    for n in range(now - fast.HIST_LEN + 1, now + 1):
        it.hist[n % fast.HIST_LEN] = [n, n + 7.0][: it.hist.shape[1]]
    it.hist_state[:] = now % fast.HIST_LEN, fast.HIST_LEN
    for n in range(now + 1, now + 10):
        assert it.tick(ic1__ions=float(n), ic2__ions=n + 7.0) == Action.NONE, n
        assert it.hist_state.tolist() == [n % fast.HIST_LEN, fast.HIST_LEN]
        assert int(it.latch[fast.JUDGED]) == 1  # at the first
        assert it.hist[n % fast.HIST_LEN, 0] == n
    assert it.tick(ic1__ions=float(now + 11), ic2__ions=now + 18.5) == Action.HOLD


def test_a_value_that_is_no_number_is_told_with_the_limit_it_should_have_kept() -> None:
    for low, high, told in ((0.9, 1.1, 1.1), (None, 1.1, 1.1)):
        it = Rack(one_rule(body(low=low, high=high)).fast())
        it.tick(ring__brho_rel=math.nan)
        assert (math.isnan(it.row("some-rule")["value"]), it.row("some-rule")["limit"]) == (True, told)


@pytest.mark.parametrize("when", [0.0, 1.0, -1.0, math.nan])
@pytest.mark.parametrize("pair", [FAST, QUIET], ids=["fast", "quiet"])
@pytest.mark.parametrize("kind", ["limit", "mismatch", "window"])
def test_a_rule_applies_unless_its_when_is_zero(kind: str, pair: dict[str, object], when: float) -> None:
    inputs = list(pair["inputs"])[: 2 if kind == "mismatch" else 1]  # type: ignore[call-overload]
    changes = {"high": 1.0, **({"window_us": 20.0} if kind == "window" else {})}
    hold = keys({"inputs": inputs, "unit": pair["unit"]}, kind=kind, when="fe.active", action="HOLD", reset="none")
    it = Rack(one_rule(body(**hold | changes)).fast())
    names = [str(name).replace(".", "__") for name in inputs]
    it.tick(3, **dict.fromkeys(names, 0.0))
    assert it.action == Action.NONE
    assert it.tick(fe__active=when, **{names[0]: 5.0}) == (Action.NONE if when == 0.0 else Action.HOLD)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("gap", range(1, 8))
def test_a_value_may_stand_for_its_window_and_no_tick_longer(window: int, gap: int) -> None:
    hold = keys({"inputs": ["h.heartbeat"], "unit": "count"}, kind="stale", window_us=10.0 * window, action="HOLD",
                reset="none", when="fe.active")  # fmt: skip
    it = Rack(one_rule(body(**hold)).fast())
    for beat in (1.0, 2.0):
        assert it.tick(h__heartbeat=beat) == Action.NONE
    actions = [it.tick() for _ in range(gap)]
    assert actions == [Action.NONE if k <= window else Action.HOLD for k in range(1, gap + 1)]
    if gap > window:
        assert it.row("some-rule")["value"] == pytest.approx(10.0 * gap)
        assert it.row("some-rule")["limit"] == 10.0 * window
    assert it.tick(h__heartbeat=3.0) == Action.NONE
    assert it.tick(h__heartbeat=math.nan) == Action.HOLD
    assert it.tick(h__heartbeat=4.0) == Action.NONE
    it.tick(20, fe__active=0.0)  # while it does not apply nothing counts, and then from the tick before
    assert [it.tick(fe__active=1.0), *(it.tick() for _ in range(6))] == [
        Action.NONE if k <= window else Action.HOLD for k in range(1, 8)
    ]


@pytest.mark.parametrize("debounce", [0, 1, 2, 5])
def test_a_condition_is_present_after_its_debounce_in_one_piece(debounce: int) -> None:
    it = Rack(one_rule(body(debounce_us=10.0 * debounce, action="HOLD", reset="none")).fast())
    draw = np.random.default_rng(debounce)
    bad = 0
    for _ in range(120):
        value = draw.choice([1.0, 2.0, 2.0, 2.0])
        bad = bad + 1 if value > 1.1 else 0
        present = bad >= max(1, debounce)
        assert it.tick(ring__brho_rel=value) == (Action.HOLD if present else Action.NONE)
        assert it.present() == (["some-rule"] if present else [])
        assert int(it.latch[fast.PRESENT]) == int(present)
        assert it.row("some-rule")["present"] == int(present)


def test_a_trip_writes_down_what_it_was_and_another_value_later_changes_nothing_of_it() -> None:
    it = Rack(one_rule(body(debounce_us=20.0)).fast())
    it.tick(3)
    it.tick(2, ring__brho_rel=2.0)
    at_ns = it.t_ns
    it.tick(ring__brho_rel=0.5)
    row = it.row("some-rule")
    assert (row["bad_value"], row["bad_limit"], row["value"], row["limit"]) == (2.0, 1.1, 0.5, 0.9)
    assert (row["t_condition_ns"], row["t_decision_ns"], row["latched"], row["count"]) == (at_ns, at_ns, 1, 3)
    it.tick(ring__brho_rel=1.0)
    assert (row["latched"], row["present"], row["count"], it.action) == (1, 0, 0, Action.ABORT)
    it.tick(2, ring__brho_rel=3.0)
    assert (row["bad_value"], row["t_decision_ns"], row["value"]) == (2.0, at_ns, 3.0)
    assert fast.reset(it.rows, it.latch, 1) == 1
    it.tick(ring__brho_rel=1.0)
    assert fast.reset(it.rows, it.latch, 0) == 1
    assert fast.reset(it.rows, it.latch, 1) == 0
    assert (int(it.latch[fast.LATCHED]), int(it.latch[fast.FIRST]), int(it.latch[fast.IN_FORCE])) == (0, -1, 0)
    it.tick(2, ring__brho_rel=4.0)
    assert (row["bad_value"], row["t_decision_ns"]) == (4.0, it.t_ns)


FOUR = several(
    body(id="hold-a", inputs=["strip.err_x_mm"], unit="mm", low=-1.0, high=1.0, action="HOLD", reset="none"),
    body(id="pause-b", inputs=["ic1.hv_rel"], action="PAUSE", reset="operator"),
    body(id="abort-c", inputs=["strip.err_y_mm"], unit="mm", low=-1.0, high=1.0),
    body(id="pause-d", inputs=["ic2.hv_rel"], action="PAUSE", reset="operator"),
)
CAUSES = ({"strip__err_x_mm": 2.0}, {"ic1__hv_rel": 2.0}, {"strip__err_y_mm": 2.0}, {"ic2__hv_rel": 2.0})
CURES = {"strip__err_x_mm": 0.0, "ic1__hv_rel": 1.0, "strip__err_y_mm": 0.0, "ic2__hv_rel": 1.0}
STRENGTH = (Action.HOLD, Action.PAUSE, Action.ABORT, Action.PAUSE)


@pytest.mark.parametrize("mask", range(16))
def test_masks_first_fault_and_the_strongest_action_of_several_rules(mask: int) -> None:
    bits = [k for k in range(4) if mask >> k & 1]
    latching = [k for k in bits if k != 0]
    it = Rack(FOUR.fast())
    it.tick()
    it.tick(**{name: value for k in bits for name, value in CAUSES[k].items()})
    assert it.action == max((STRENGTH[k] for k in bits), default=0) == it.latch[fast.IN_FORCE]
    assert int(it.latch[fast.PRESENT]) == int(it.latch[fast.BUSY]) == mask
    assert int(it.latch[fast.LATCHED]) == mask & ~1
    assert int(it.latch[fast.FIRST]) == (latching[0] if latching else -1)
    it.tick(**CURES)
    assert it.action == max((STRENGTH[k] for k in latching), default=0)
    assert int(it.latch[fast.PRESENT]) == int(it.latch[fast.BUSY]) == 0
    for asked in range(16):
        rows, latch = it.rows.copy(), it.latch.copy()
        left = mask & ~1 & ~asked
        assert fast.reset(rows, latch, asked) == int(latch[fast.LATCHED]) == left
        assert int(latch[fast.IN_FORCE]) == max((STRENGTH[k] for k in range(4) if left >> k & 1), default=0)
        assert int(latch[fast.FIRST]) == (-1 if left == 0 else latching[0])
        assert rows["latched"].tolist() == [left >> k & 1 for k in range(4)]


@pytest.mark.parametrize("k", range(4))
def test_a_latch_that_is_present_does_not_go_and_acts(k: int) -> None:
    it = Rack(FOUR.fast())
    it.tick()
    it.tick(**CAUSES[k])
    assert fast.reset(it.rows, it.latch, 15) == (1 << k) & ~1
    assert int(it.latch[fast.IN_FORCE]) == STRENGTH[k]


def test_quiet_ticks_judge_nothing_and_whatever_changes_has_all_judged() -> None:
    it = Rack(FOUR.fast())
    assert fast.new_latch().tolist() == [0, 0, -1, 0, 0, 0, 0]
    it.tick(5)
    judged = int(it.latch[fast.JUDGED])
    it.tick(50, strip__err_x_mm=1.0, strip__err_y_mm=-1.0)
    assert int(it.latch[fast.JUDGED]) == judged
    it.tick(ic1__hv_rel=1.05)
    assert int(it.latch[fast.JUDGED]) == judged + 1
    it.tick(10)
    assert int(it.latch[fast.JUDGED]) == judged + 1
    it.tick(3, strip__err_x_mm=1.5)
    assert int(it.latch[fast.JUDGED]) == judged + 4
    it.tick(strip__err_x_mm=0.0)
    assert int(it.latch[fast.JUDGED]) == judged + 5
    it.tick(10)
    assert int(it.latch[fast.JUDGED]) == judged + 5
    it.coarse()
    assert int(it.latch[fast.JUDGED]) == judged + 6
    it.tick(vacuum__ring_mbar=2e-9)  # the last signal that changes counts like the first
    assert int(it.latch[fast.JUDGED]) == judged + 7


def test_a_signal_that_is_no_number_is_never_quiet_where_a_rule_looks_or_not() -> None:
    it = Rack(FOUR.fast())
    it.tick(3, vacuum__ring_mbar=math.nan)
    judged = int(it.latch[fast.JUDGED])
    it.coarse()
    assert int(it.latch[fast.JUDGED]) == judged + 1
    it.t_ns = (it.t_ns // 1_000_000 + 1) * 1_000_000 - TICK
    it.tick()
    assert int(it.latch[fast.JUDGED]) == judged + 2


def test_the_screen_holds_what_looks_at_fast_signals_and_at_windows_in_three_parts() -> None:
    stale = keys({"inputs": ["h.heartbeat"], "unit": "count"}, kind="stale", window_us=100.0)
    rules = several(
        body(id="quiet-only", inputs=["ic1.hv_rel"]),
        body(id="fast-limit", inputs=["strip.err_x_mm"], unit="mm"),
        body(id="fast-both", **keys(FAST, kind="mismatch", high=1.0)),
        body(id="quiet-both", **keys(QUIET, kind="mismatch", high=1.0)),
        body(id="window", **keys({"inputs": ["ic1.hv_rel"], "unit": "1"}, kind="window", window_us=30.0, high=2.0)),
        body(id="window-both", **keys(QUIET, kind="mismatch", window_us=30.0, high=1.0)),
        body(id="second-fast", **keys({"inputs": ["fe.spot_target_ions", "fe.spot_ic1_ions"], "unit": "ions"},
                                      kind="excess", relative=1.5, high=7.0)),
        body(id="fast-stale", **stale | {"inputs": ["ic1.ions"], "unit": "ions"}),
        body(id="quiet-stale", **stale),
        body(id="quiet-when", inputs=["ic1.hv_rel"], when="fe.active"),
        body(id="fast-when", inputs=["ic1.hv_rel"], when="strip.err_x_mm"),
        body(id="last-fast", inputs=["scan_y.probe_mm"], unit="mm"),
        body(id="first-quiet", inputs=["fe.heartbeat"], unit="count"),
    )  # fmt: skip
    assert INDEX["scan_y.probe_mm"] == N_FAST - 1
    assert INDEX["fe.heartbeat"] == N_FAST
    screen, parts = fast.new_screen(rules.fast().rows)
    rows = dict(zip(rules.fast().ids, rules.fast().rows, strict=True))
    names = ["fast-limit", "second-fast", "fast-stale", "fast-when", "last-fast", "window", "fast-both", "window-both"]
    assert parts.tolist() == [5, 1, 2]
    assert len(screen) == len(names)
    for entry, name in zip(screen, names, strict=True):
        for field in screen.dtype.names:
            if name != "fast-stale" or field not in ("lo", "hi"):
                assert entry[field] == rows[name][field], (name, field)
    assert screen[2]["lo"] > screen[2]["hi"]  # passes nothing


def test_a_history_has_a_column_for_each_windowed_signal_and_one_at_least() -> None:
    for signals, columns in ((0, 1), (1, 1), (2, 2), (6, 6)):
        hist, state = fast.new_history(signals)
        assert hist.shape == (fast.HIST_LEN, columns)
        assert not hist.any()
        assert state.tolist() == [0, 0]
    assert np.isnan(fast.new_seen(7)).tolist() == [True] * 7


def test_a_compiled_rule_remembers_nothing_and_has_what_the_file_says() -> None:
    rules = several(
        body(id="a-never"),
        body(id="b-qa", bypass="qa", **keys(QUIET, kind="mismatch", high=1.0, relative=0.25, window_us=30.0)),
        body(id="c-service", bypass="service", **keys(QUIET, kind="equal")),
        body(id="d-clinical", bypass="clinical", **keys(QUIET, kind="either", equals=2.0), when="fe.demand"),
        body(id="e-window", **keys({"inputs": ["ic2.hv_rel"], "unit": "1"}, kind="window", window_us=10.0, high=2.0)),
        body(id="f-stale", **keys({"inputs": ["h.heartbeat"], "unit": "count"}, kind="stale", window_us=70.0)),
    )
    compiled = rules.fast()
    rows = dict(zip(compiled.ids, compiled.rows, strict=True))
    assert compiled.bypassable == 0b001110
    assert compiled.hist_index.tolist() == [INDEX["ic1.hv_rel"], INDEX["ic2.hv_rel"]]
    for name, row in rows.items():
        assert [row[key] for key in ("count", "changed_ns", "present", "latched")] == [0, 0, 0, 0], name
        assert all(np.isnan(row[key]) for key in ("value", "limit", "bad_value", "bad_limit", "last")), name
        assert row["when"] == (INDEX["fe.demand"] if name == "d-clinical" else -1)
        assert (row["action"], row["latching"]) == (Action.ABORT, 1)
    assert [rows[name]["windowed"] for name in rows] == [0, 1, 0, 0, 1, 0]
    assert [rows[name]["window"] for name in rows] == [0, 3, 0, 0, 1, 7]
    assert [(rows[name]["hist_a"], rows[name]["hist_b"]) for name in ("b-qa", "e-window")] == [(0, 1), (1, 1)]
    limits = {name: tuple(float(row[key]) for key in ("lo", "hi", "rel")) for name, row in rows.items()}
    assert limits["a-never"] == (0.9, 1.1, 0.0)
    assert limits["b-qa"] == (-fast.NO_LIMIT, 1.0, 0.25)
    assert limits["c-service"] == (0.0, 0.0, 1.0)
    assert limits["d-clinical"] == (2.0, 2.0, 0.0)
    hold = one_rule(body(action="HOLD", reset="none")).fast()
    assert (hold.rows[0]["latching"], hold.rows[0]["action"]) == (0, Action.HOLD)
    assert hold.compiled["debounce"].tolist() == [0]


@pytest.mark.parametrize("when", ["fe.spot_ic1_ions", "fe.spot_ic2_ions", "strip.err_x_mm", "scan_y.probe_mm"])
def test_a_rule_that_begins_to_apply_by_a_fast_signal_is_judged_at_that_tick(when: str) -> None:
    it = Rack(one_rule(body(inputs=["ic1.hv_rel"], when=when)).fast())
    name = when.replace(".", "__")
    it.tick(5, **{name: 0.0}, ic1__hv_rel=0.0)
    assert it.action == Action.NONE
    assert it.tick(**{name: 0.25}) == Action.ABORT


@pytest.mark.parametrize("when", ["fe.active", "fe.spot_ic1_ions"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.5])
@pytest.mark.parametrize("kind", ["limit", "window", "mismatch", "mismatch over a window"])
def test_the_screen_asks_whether_a_rule_applies_and_leaves_those_alone_that_do_not(
    kind: str, value: float, when: str
) -> None:
    pair = FAST if kind.startswith("mismatch") else {"inputs": FAST["inputs"][:1], "unit": "mm"}  # type: ignore[index]
    changes: dict[str, object] = {"kind": kind.split()[0], "high": 1.0, "when": when, "action": "HOLD", "reset": "none"}
    if "window" in kind:
        changes["window_us"] = 50.0
    it = Rack(several(body(**keys(pair, **changes)), body(id="other", inputs=["ic1.ions"], unit="ions", high=1e9,
                                                            low=-1.0)).fast())  # fmt: skip
    it.tick(4, **{when.replace(".", "__"): value}, strip__err_x_mm=0.0, strip__err_y_mm=0.0)
    judged = int(it.latch[fast.JUDGED])
    it.tick(strip__err_x_mm=1.0)  # at its limit
    assert (it.action, int(it.latch[fast.JUDGED])) == (Action.NONE, judged)
    assert it.tick(strip__err_x_mm=2.5) == (Action.NONE if value == 0.0 else Action.HOLD)
    assert (int(it.latch[fast.JUDGED]) == judged) is (value == 0.0)


@pytest.mark.parametrize("plain", range(4))
@pytest.mark.parametrize("both", range(3))
def test_every_part_of_the_screen_is_looked_at_however_long_the_others_are(plain: int, both: int) -> None:
    limits = [body(id=f"limit-{k}", inputs=["scan_x.err_mm"], unit="mm", low=-5.0, high=5.0) for k in range(plain)]
    pairs = [body(id=f"pair-{k}", **keys(FAST, kind="mismatch", high=50.0)) for k in range(both)]
    windows = [
        body(id=f"window-{name[2]}", **keys({"inputs": [name], "unit": "ions"}, kind="window", high=9.0,
                                             window_us=20.0), action="HOLD", reset="none")
        for name in ("ic1.ions", "ic2.ions")
    ]  # fmt: skip
    last = body(id="last", **keys({"inputs": ["ic1.idle_ions", "ic2.idle_ions"], "unit": "ions"}, kind="mismatch",
                                  high=9.0, action="HOLD", reset="none"))  # fmt: skip
    for name in ("ic1__ions", "ic2__ions", "ic2__idle_ions"):
        it = Rack(several(*limits, *pairs, *windows, last).fast())
        it.tick(3)
        judged = int(it.latch[fast.JUDGED])
        it.tick(3)
        assert int(it.latch[fast.JUDGED]) == judged
        assert it.tick(**{name: 10.0}) == Action.HOLD


def test_the_first_tick_is_judged_whatever_was_published() -> None:
    it = Rack(one_rule(body()).fast())
    it.signals[INDEX["ring.brho_rel"]] = 2.0
    latch, rows = it.latch, it.rows
    action = fast.evaluate(rows, it.screen, it.parts, it.seen, it.signals, it.hist, it.hist_state, it.rules.hist_index,
                           latch, TICK, 1, False)  # fmt: skip
    assert (action, int(latch[fast.JUDGED])) == (Action.ABORT, 1)


def test_a_mismatch_without_a_window_does_not_look_into_the_ring() -> None:
    pair = body(**keys(FAST, kind="mismatch", high=0.5, relative=0.25, action="HOLD", reset="none"))
    window = body(id="window", **keys({"inputs": ["ic1.ions"], "unit": "ions"}, kind="window", high=9.0,
                                      window_us=20.0))  # fmt: skip
    it = Rack(several(pair, window).fast())
    it.tick(4, ic1__ions=1000.0)
    assert it.tick(strip__err_x_mm=3.0) == Action.HOLD


@pytest.mark.parametrize("window", range(1, 8))
def test_a_value_that_must_change_has_all_judged_when_it_changes_and_when_it_is_overdue(window: int) -> None:
    hold = keys({"inputs": ["h.heartbeat"], "unit": "count"}, kind="stale", window_us=10.0 * window, action="HOLD",
                reset="none")  # fmt: skip
    it = Rack(one_rule(body(**hold)).fast())
    it.tick(3, h__heartbeat=1.0)
    it.tick(h__heartbeat=2.0)
    judged = [int(it.latch[fast.JUDGED])]
    for _ in range(window + 2):
        it.tick()
        judged.append(int(it.latch[fast.JUDGED]))
    assert [b - a for a, b in itertools.pairwise(judged)] == [0] * window + [1, 1]


def test_the_first_fault_stays_the_first_whichever_it_is() -> None:
    names = ["strip.err_x_mm", "strip.err_y_mm", "scan_x.err_mm"]
    bodies = [body(id=f"abort-{k}", inputs=[name], unit="mm", low=-1.0, high=1.0) for k, name in enumerate(names)]
    for first, second in itertools.permutations(range(3), 2):
        it = Rack(several(*bodies).fast())
        it.tick()
        it.tick(**{names[first].replace(".", "__"): 2.0})
        it.tick(**{names[second].replace(".", "__"): 2.0})
        assert int(it.latch[fast.FIRST]) == first
        assert int(it.latch[fast.LATCHED]) == 1 << first | 1 << second
