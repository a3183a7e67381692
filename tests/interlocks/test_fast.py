"""The fast evaluator: kinds, debounce, latch, history, and compiled against plain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from facility.signals import INDEX
from facility.states import Action
from interlocks import fast
from interlocks.rules import RuleSet, compile_fast
from tests.interlocks.support import TICK, Rack, body, good_signals, one_rule, rule_set


def rack(rules: RuleSet) -> Rack:
    return Rack(rules.fast())


# what makes each rule of the file bad, at 1 or at a share of its limit: signals as functions of the share
def _constant(**signals: float) -> Any:
    return lambda share, _tick: {name: value * share for name, value in signals.items()}


def _ramp(name: str, per_tick: float) -> Any:
    return lambda share, tick: {name: share * per_tick * tick}


def _share_of(name: str, from_: float, to: float) -> Any:
    return lambda share, _tick: {name: from_ + share * (to - from_)}


def _chambers(share: float, tick: int) -> dict[str, float]:
    first = 1000.0 * tick
    most = 40_000.0 + 0.05 * 1000.0 * (tick - 1) if tick > 1 else 0.0  # of the larger increment, chamber 1's
    return {"ic1__ions": first, "ic2__ions": first - share * most}


ANALOG: dict[str, tuple[Any, int]] = {
    # rule: (signals by share of the limit and tick, ticks until it must have tripped)
    "chamber-disagreement": (_chambers, 10_050),
    "chamber-drift": (lambda share, _t: {"ic1__layer_ions": 1e8, "ic2__layer_ions": 1e8 - share * (5e4 + 2e6)}, 501),
    "spot-overdose-ic1": (_constant(fe__spot_ic1_ions=1.1e6 + 2e4), 1),
    "spot-overdose-ic2": (_constant(fe__spot_ic2_ions=1.12e6 + 2.5e4), 1),
    "dose-rate-high": (_ramp("ic1__nominal_us", 20.0), 1_001),
    "dose-rate-peak": (_ramp("ic2__nominal_us", 50.0), 101),
    "beam-without-demand-ic1": (_ramp("ic1__idle_ions", 1.0), 1_001),
    "beam-without-demand-ic2": (_ramp("ic2__idle_ions", 1.2), 1_001),
    "spot-timeout": (_constant(fe__spot_beam_us=5e4), 1),
    "position-x": (_constant(strip__err_x_mm=2.0), 1),
    "position-y": (_constant(strip__err_y_mm=-2.0), 1),
    "scan-readback-x": (_constant(scan_x__err_mm=-1.0), 1),
    "scan-readback-y": (_constant(scan_y__err_mm=1.0), 1),
    "scan-field-x": (_constant(scan_x__probe_mm=1.0), 1),
    "scan-field-y": (_constant(scan_y__probe_mm=-1.0), 1),
    "layer-overdose-ic2": (
        lambda share, _t: {"layer__preset_ions": (1e8 / share - 2.5e4) / 1.05, "backup__layer_ions": 5e7},
        1,
    ),
    "backup-layer": (_constant(backup__layer_ions=2.04e8 + 2e4), 1),
    "backup-field": (_constant(backup__field_ions=2.1e9 + 2e4), 1),
    "field-overdose-ic2": (_constant(ic2__field_ions=2.14e9 + 2.5e4), 1),
    "field-timer": (_constant(timer__field_ms=2.4e4 + 500.0), 1),
    "ring-rigidity": (_share_of("ring__brho_rel", 1.0, 1.001), 1),
}
DIGITAL: dict[str, dict[str, float]] = {
    "chamber-electronics-ic1": {"ic1__ok": 0.0},
    "chamber-electronics-ic2": {"ic2__ok": 0.0},
    "scan-supplies": {"scan__ok": 0.0},
    "external-device": {"external__ok": 0.0},
    "backup-electronics": {"backup__ok": 0.0},
    "energy-token-ring": {"ring__token": 8.0},
    "energy-token-transport": {"hebt__token": 6.0},
    "range-shifter": {"rs__code": 1.0},
    "link-safety": {"link__p_ok": 0.0},
    "safety-permit": {"p__permit": 0.0},
    "safety-abort": {"p__permit": 0.0, "p__hold": 0.0},
    "safety-hold": {"p__hold": 1.0},
    "gate": {"gate__open": 0.0},
    "beam-off-confirmation": {"off__confirmed": 0.0},
}
SHARED = {"safety-abort": {"safety-permit"}, "safety-permit": {"safety-abort"}}


def test_every_h_rule_of_the_file_has_a_case() -> None:
    assert {rule.id for rule in rule_set().h} == set(ANALOG) | set(DIGITAL) | {"front-end-beats"}


def test_a_front_end_that_misses_three_beats_is_missed() -> None:
    it = rack(rule_set())
    it.tick(1000)
    assert it.latched() == []
    it.beating = False
    it.tick(300)
    assert it.latched() == []
    it.tick(200)
    assert it.latched() == ["front-end-beats"]


@pytest.mark.parametrize("rule_id", ANALOG)
@pytest.mark.parametrize("share", [0.98, 1.02])
def test_trips_beyond_its_limit_and_not_short_of_it(rule_id: str, share: float) -> None:
    signals, ticks = ANALOG[rule_id]
    rules = rule_set()
    it = Rack(rules.fast() if ticks < 2_000 else compile_fast((rules.rule(rule_id),)))
    for tick in range(1, ticks + 200):
        it.tick(**signals(share, tick))
        if it.latched():
            break
    if share < 1.0:
        assert it.latched() == []
        assert it.action == Action.NONE
    else:
        assert it.latched() == [rule_id]
        assert it.t_ns <= ticks * TICK
        assert it.action == rule_set().rule(rule_id).strength
        row = it.row(rule_id)
        assert row["t_condition_ns"] == row["t_decision_ns"] == it.t_ns
        assert abs(row["bad_value"]) > abs(row["bad_limit"])


@pytest.mark.parametrize("rule_id", DIGITAL)
def test_digital_rules_trip_at_once_or_with_the_last_tick_of_their_debounce(rule_id: str) -> None:
    rule = rule_set().rule(rule_id)
    it = rack(rule_set())
    it.tick(5)
    assert it.present() == []
    early = round(rule.debounce_us * 1000.0) // TICK - 1
    if early > 0:
        it.tick(early, **DIGITAL[rule_id])
        assert rule_id not in it.present()
    it.tick(**DIGITAL[rule_id])
    assert set(it.present()) == {rule_id} | SHARED.get(rule_id, set())
    assert bool(rule.latches) == (rule_id in it.latched())
    assert it.action >= rule.strength


def test_the_rule_that_gates_lets_go_by_itself_and_abort_does_not() -> None:
    it = rack(rule_set())
    it.tick(gate__open=0.0)
    assert it.action == Action.HOLD
    assert it.tick(gate__open=1.0) == Action.NONE
    it.tick(scan__ok=0.0)
    assert it.tick(10, scan__ok=1.0) == Action.ABORT


def test_permit_lines_without_power_are_abort_with_hold_alone_pause() -> None:
    it = rack(rule_set())
    assert it.tick(p__permit=0.0, p__hold=0.0) == Action.ABORT
    assert it.tick(p__hold=1.0) == Action.PAUSE
    assert it.tick(p__permit=1.0) == Action.HOLD
    assert it.tick(p__hold=0.0) == Action.NONE
    assert it.latched() == []


@pytest.mark.compiled
@pytest.mark.parametrize("name", sorted({n for rule in rule_set().h for n in rule.inputs}))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_trips_fine_and_coarse(name: str, value: float) -> None:
    wants = [rule for rule in rule_set().h if name in rule.inputs]
    for coarse in (False, True):
        it = rack(rule_set())
        it.tick(3)
        it.set(**{name.replace(".", "__"): value})
        it.coarse(6) if coarse else it.tick(510)
        bad = set(it.present())
        assert {rule.id for rule in wants} <= bad


def test_a_rule_that_does_not_apply_forgets_presence_but_no_latch() -> None:
    it = rack(rule_set())
    it.tick(strip__err_x_mm=5.0, strip__valid=0.0)
    assert it.present() == []
    it.tick(strip__valid=1.0)
    assert it.present() == ["position-x"]
    it.tick(strip__valid=0.0)
    assert it.present() == []
    assert it.latched() == ["position-x"]
    it.tick(strip__valid=math.nan)
    assert it.present() == ["position-x"]


def test_debounce_counts_in_one_piece_and_coarse_ticks_count_a_hundred() -> None:
    rules = one_rule(body(debounce_us=100.0))
    it = rack(rules)
    it.tick(9, ring__brho_rel=2.0)
    assert it.present() == []
    it.tick(1, ring__brho_rel=1.0)
    it.tick(9, ring__brho_rel=2.0)
    assert it.present() == []
    it.tick()
    assert it.latched() == ["some-rule"]
    it = rack(rules)
    it.set(ring__brho_rel=2.0)
    it.coarse()
    assert it.latched() == ["some-rule"]


def test_presence_ends_within_debounce_after_good() -> None:
    it = rack(one_rule(body(debounce_us=100.0)))
    it.tick(10, ring__brho_rel=2.0)
    it.tick(1, ring__brho_rel=1.0)
    assert it.present() == []
    it.tick(1, ring__brho_rel=2.0)
    assert it.present() == []


def test_low_limit_is_named() -> None:
    it = rack(one_rule(body()))
    it.tick(ring__brho_rel=0.5)
    assert (it.row("some-rule")["bad_value"], it.row("some-rule")["bad_limit"]) == (0.5, 0.9)


def stale_rule(**changes: object) -> RuleSet:
    keys: dict[str, object] = {"kind": "stale", "inputs": ["h.heartbeat"], "unit": "count", "low": None, "high": None,
                               "window_us": 50.0}  # fmt: skip
    return one_rule(body(**(keys | changes)))


def test_stale_trips_after_its_window_and_at_once_on_nan() -> None:
    assert fast.TICK_NS == round(1000 * fast.TICK_US) == TICK
    it = rack(stale_rule())
    it.tick(6)
    assert it.present() == []
    it.tick()
    assert it.latched() == ["some-rule"]
    assert it.row("some-rule")["bad_value"] == 60.0
    assert it.row("some-rule")["bad_limit"] == 50.0
    it.tick(h__heartbeat=1.0)
    assert it.present() == []
    it.tick(h__heartbeat=math.nan)
    assert it.present() == ["some-rule"]


def test_stale_starts_anew_when_it_applies_again() -> None:
    it = rack(stale_rule(when="fe.active"))
    it.tick(5)
    it.tick(fe__active=0.0)
    it.tick(5, fe__active=1.0)
    assert it.present() == []
    it.tick()
    assert it.present() == ["some-rule"]


def test_history_reaches_back_to_what_there_is_and_starts_anew() -> None:
    it = rack(rule_set())
    it.signals[INDEX["ic1.nominal_us"]] = 1e9  # a large count before the ring has anything
    it.tick(10)
    assert it.present() == []
    it.hist_state[1] = 0  # the rack empties the ring
    it.tick(ic1__nominal_us=2e9)
    assert it.present() == []
    it.tick(ic1__nominal_us=2e9 + 20_001.0)
    assert it.latched() == ["dose-rate-high"]


def test_history_wraps() -> None:
    it = Rack(compile_fast((rule_set().rule("dose-rate-high"),)))
    for tick in range(fast.HIST_LEN + 2_000):
        it.tick(ic1__nominal_us=10.0 * tick)
    assert it.present() == []
    assert it.hist_state[1] == fast.HIST_LEN


def test_coarse_ticks_neither_push_nor_see_increments() -> None:
    it = rack(rule_set())
    it.tick(5)
    before = it.hist_state.copy()
    it.set(ic1__nominal_us=1e9)
    it.coarse(20)
    assert it.present() == []
    assert (it.hist_state == before).all()


def test_first_fault_is_the_first_and_stays_until_all_is_clear() -> None:
    it = rack(rule_set())
    it.tick(scan__ok=0.0)
    it.tick(ic1__ok=0.0)
    first = it.rules.ids.index("scan-supplies")
    assert it.latch[fast.FIRST] == first
    it.tick(scan__ok=1.0)
    left = fast.reset(it.rows, it.latch, -1)
    assert left == 1 << it.rules.ids.index("chamber-electronics-ic1")
    assert it.latch[fast.FIRST] == first
    assert it.latch[fast.IN_FORCE] == Action.ABORT
    it.tick(ic1__ok=1.0)
    assert fast.reset(it.rows, it.latch, left) == 0
    assert it.latch[fast.FIRST] == -1
    assert it.latch[fast.IN_FORCE] == Action.NONE


def test_reset_takes_only_what_it_is_asked_to() -> None:
    it = rack(rule_set())
    it.tick(scan__ok=0.0, ic1__ok=0.0)
    it.tick(scan__ok=1.0, ic1__ok=1.0)
    mask = 1 << it.rules.ids.index("scan-supplies")
    fast.reset(it.rows, it.latch, mask)
    assert it.latched() == ["chamber-electronics-ic1"]


def _plain(function: Any) -> Any:
    return getattr(function, "py_func", function)


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    """The evaluator in plain Python, and compiled."""
    helpers = ("_inside", "_agrees", "_either", "_alive", "_describe", "_bad", "_stronger")
    plain_source = {name: _plain(getattr(fast, name)) for name in (*helpers, "evaluate")}
    namespace = dict(vars(fast))
    plain: dict[str, Any] = {}
    for name, function in plain_source.items():
        plain[name] = type(function)(function.__code__, namespace, name)
        namespace[name] = plain[name]
    compiled_space = dict(vars(fast))
    for name in helpers:
        compiled_space[name] = njit(type(plain_source[name])(plain_source[name].__code__, compiled_space, name))
    function = plain_source["evaluate"]
    return plain["evaluate"], njit(error_model="numpy")(type(function)(function.__code__, compiled_space, "evaluate"))


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(4))
def test_the_screen_finds_what_judging_every_tick_finds(both: tuple[Any, Any], seed: int) -> None:
    """One rack has its memory of quiet signals blanked before each tick, so that it judges all rules always."""
    extra = [stale_rule(when=when).rules[0] for when in (None, "fe.active")]
    compiled = compile_fast((*rule_set().h, *extra))
    screened, always = Rack(compiled, both[1]), Rack(compiled, both[1])
    rng = np.random.default_rng(seed)
    for step in range(3_000):
        if step % 50 == 0:
            screened.signals = _random_signals(rng, screened) if step % 400 else good_signals()
            always.signals = screened.signals.copy()
        always.seen[:] = math.nan
        for it in (screened, always):
            it.coarse() if step % 97 == 0 else it.tick()
        assert screened.action == always.action
        assert screened.latch[: fast.DUE_NS].tobytes() == always.latch[: fast.DUE_NS].tobytes()
        if step % 300 == 299:
            for it in (screened, always):
                fast.reset(it.rows, it.latch, -1)
    told = ("present", "latched", "count", "bad_value", "bad_limit", "t_condition_ns", "t_decision_ns")
    for name in told:
        assert screened.rows[name].tobytes() == always.rows[name].tobytes(), name
    assert screened.latch[fast.JUDGED] < always.latch[fast.JUDGED] == 3_000


def test_a_rule_of_a_kind_that_no_screen_knows_has_all_judged_each_tick() -> None:
    it = rack(
        one_rule(body(kind="either", inputs=["ic1.ions", "ic2.ions"], equals=0.0, low=None, high=None, unit="ions"))
    )
    it.tick(10)
    assert it.latch[fast.JUDGED] == 10
    assert it.tick(ic1__ions=3.0, ic2__ions=3.0) == Action.ABORT


def test_quiet_ticks_are_not_judged() -> None:
    it = rack(rule_set())
    it.beating = False
    it.tick(200)
    assert it.latch[fast.JUDGED] == 1
    it.tick(scan__ok=0.0)
    assert it.latched() == ["scan-supplies"]


def _random_signals(rng: np.random.Generator, rack_: Rack) -> NDArray[np.float64]:
    signals = rack_.signals
    for name in rng.choice(list(INDEX), size=3):
        pick = rng.integers(0, 6)
        value = signals[INDEX[name]]
        signals[INDEX[name]] = (0.0, 1.0, value + 1.0, value * 1.3, rng.normal() * 3.0, math.nan)[pick]
    for name in ("ic1.ions", "ic2.ions", "ic1.nominal_us", "ic2.nominal_us", "ic1.idle_ions", "ic2.idle_ions"):
        if not math.isfinite(signals[INDEX[name]]):
            signals[INDEX[name]] = 0.0
        signals[INDEX[name]] += rng.random() * 30.0
    return signals


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(4))
def test_compiled_and_plain_are_the_same_bit_for_bit(both: tuple[Any, Any], seed: int) -> None:
    extra = [stale_rule(when=when).rules[0] for when in (None, "fe.active")]
    compiled = compile_fast((*rule_set().h, *extra))
    racks = [Rack(compiled, evaluate) for evaluate in both]
    rng = np.random.default_rng(seed)
    for step in range(1_500):
        if step % 20 == 0:
            racks[0].signals = _random_signals(rng, racks[0])
            racks[1].signals = racks[0].signals.copy()
        for it in racks:
            it.coarse() if step % 97 == 0 else it.tick()
        assert racks[0].action == racks[1].action
        assert racks[0].latch.tobytes() == racks[1].latch.tobytes()
        if step % 300 == 299:
            for it in racks:
                fast.reset(it.rows, it.latch, -1)
    assert racks[0].rows.tobytes() == racks[1].rows.tobytes()
