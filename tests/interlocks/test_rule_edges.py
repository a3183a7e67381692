"""What makes a rule consistent, kind by kind: how many inputs, which keys, limits met exactly; and the defaults."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from facility.errors import ConfigError
from facility.states import Action
from interlocks import model, rules
from interlocks.fast import HIST_LEN, MAX_RULES
from interlocks.model import MODE_CODES, MODES, PolicySettings, Rule
from tests.interlocks.support import TEXT, body, one_rule, several

NAMES = ["ic1.hv_rel", "ic2.hv_rel", "ring.brho_rel", "gas.flow_rel", "cooling.flow_rel"]
SOUND: dict[str, dict[str, object]] = {
    "digital": {"equals": 1.0},
    "limit": {"low": 0.9},
    "window": {"high": 1.0, "window_us": 20.0},
    "excess": {"high": 1.0, "relative": 1.5},
    "equal": {},
    "mismatch": {"high": 1.0},
    "either": {"equals": 1.0},
    "stale": {"window_us": 20.0},
    "beat": {"high": 20.0, "unit": "ms"},
}
COUNTS = {"excess": (2, 2), "equal": (2, 2), "mismatch": (2, 2), "either": (2, 2)}
LONGEST_US = (HIST_LEN - 1) * 10.0


def keys(kind: str, **changes: object) -> dict[str, object]:
    least = COUNTS.get(kind, (1, 1))[0]
    tier = "P" if kind == "beat" else "H"
    return {"kind": kind, "inputs": NAMES[:least], "low": None, "high": None, "tier": tier, **SOUND[kind], **changes}


def made(kind: str, **changes: object) -> Rule:
    return one_rule(body(**keys(kind, **changes))).rules[0]


def refused(kind: str, **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        made(kind, **changes)
    return f"{caught.value.what} ({caught.value.where})"


@pytest.mark.parametrize("kind", SOUND)
def test_every_kind_takes_its_number_of_inputs(kind: str) -> None:
    least, most = COUNTS.get(kind, (1, 1))
    for count in range(1, 6):
        if least <= count <= most:
            assert len(made(kind, inputs=NAMES[:count]).inputs) == count
        else:
            assert "key inputs" in refused(kind, inputs=NAMES[:count])
    if least > 1:
        assert f"kind '{kind}' in tier H takes 2 to 2 inputs" in refused(kind, inputs=NAMES[:1])


@pytest.mark.parametrize(
    ("kind", "changes", "key"),
    [
        ("digital", {"tier": "P", "inputs": ["link.plant_ok", "ring.nothing"], "unit": "bool"}, "inputs"),
        ("beat", {"unit": "bool"}, "unit"), ("beat", {"unit": "s"}, "unit"),
        ("limit", {"unit": "0"}, "unit"), ("limit", {"unit": "mm"}, "unit"),
        ("limit", {"tier": "P", "window_us": 0.5}, "window_us"),
        ("mismatch", {"tier": "P", "window_us": 0.5}, "window_us"),
        ("limit", {"tier": "P", "chain": "personnel", "bypass": "clinical"}, "chain"),
        ("limit", {"tier": "P", "chain": "personnel", "bypass": "qa"}, "chain"),
        ("limit", {"tier": "T", "chain": "personnel", "inputs": ["control.age_ms"], "unit": "ms"}, "chain"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_in_either_direction_is_refused(
    kind: str, changes: dict[str, object], key: str
) -> None:
    assert f"key {key}" in refused(kind, **changes)


def test_only_a_fast_rule_on_the_lines_of_the_safety_controller_is_an_echo() -> None:
    lines: dict[str, object] = {"inputs": ["p.permit"], "unit": "bool"}
    assert made("digital", **lines).is_echo is True
    assert made("digital", tier="P", **lines).is_echo is False
    assert made("limit").is_echo is False


def test_what_was_made_of_a_file_never_changes() -> None:
    found = one_rule(body())
    for thing, name in ((found, "facility"), (found.fast(), "bypassable")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, 1)


def test_contacts_are_up_to_four_in_tier_p_and_one_in_tier_h() -> None:
    for count in range(1, 5):
        assert len(made("digital", tier="P", inputs=NAMES[:count]).inputs) == count
    assert "key inputs" in refused("digital", tier="P", inputs=NAMES[:5])
    assert "kind 'digital' in tier H takes 1 to 1 inputs" in refused("digital", inputs=NAMES[:2])


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize(("key", "value"), [("low", 0.5), ("high", 5.0), ("relative", 0.5), ("equals", 1.0),
                                            ("window_us", 30.0)])  # fmt: skip
def test_every_kind_takes_its_keys_and_no_others(kind: str, key: str, value: float) -> None:
    takes = {
        "digital": {"equals"}, "either": {"equals"}, "limit": {"low", "high"}, "window": {"low", "high", "window_us"},
        "excess": {"relative", "high"}, "equal": set(), "mismatch": {"relative", "high", "window_us"},
        "stale": {"window_us"}, "beat": {"high"},
    }[kind]  # fmt: skip
    if key in takes:
        assert getattr(made(kind, **{key: value}), key) == value
    else:
        assert f"kind '{kind}' does not take it" in refused(kind, **{key: value})
        assert f"key {key}" in refused(kind, **{key: value})


@pytest.mark.parametrize(
    ("kind", "key"),
    [("digital", "equals"), ("either", "equals"), ("window", "window_us"), ("excess", "relative"), ("excess", "high"),
     ("mismatch", "high"), ("stale", "window_us"), ("beat", "high")],
)  # fmt: skip
def test_every_kind_needs_its_keys(kind: str, key: str) -> None:
    assert f"kind '{kind}' needs it" in refused(kind, **{key: None})
    assert f"key {key}" in refused(kind, **{key: None})


@pytest.mark.parametrize("kind", ["limit", "window"])
def test_limits_may_meet_and_not_cross(kind: str) -> None:
    made(kind, low=1.0, high=1.0)
    made(kind, low=None, high=1.0)
    assert "must not lie above high" in refused(kind, low=1.0, high=0.5)
    assert "needs low, high or both" in refused(kind, low=None, high=None)


def test_limits_of_differences_may_be_zero_and_not_below() -> None:
    for kind, least in (("mismatch", 0.0), ("beat", 0.0)):
        assert made(kind, high=least).high == 0.0
        assert "must not be negative" in refused(kind, high=-0.5)
    for kind in ("mismatch", "excess"):
        assert made(kind, relative=0.0).relative == 0.0
        assert "key relative" in refused(kind, relative=-0.5)
    assert made("excess", high=-0.5).high == -0.5


def test_windows_reach_as_far_as_the_history_and_those_of_standing_values_further() -> None:
    for kind in ("window", "mismatch"):
        assert made(kind, window_us=LONGEST_US).window_us == LONGEST_US
        assert f"the history reaches back {LONGEST_US:g} us" in refused(kind, window_us=LONGEST_US + 10.0)
    assert made("stale", window_us=LONGEST_US + 10.0)
    for window in (5.0, 10.5):
        assert "must be a multiple of the tick, 10 us" in refused("window", window_us=window)
        assert "key debounce_us" in refused("limit", debounce_us=window)
    assert made("limit", tier="P", debounce_us=10.5).debounce_us == 10.5


def test_kinds_that_one_tier_alone_has() -> None:
    for kind, tier, only in (("window", "P", "H"), ("stale", "P", "H"), ("beat", "H", "P")):
        assert f"'{kind}' exists in tier {only} only" in refused(kind, tier=tier)
    assert "tier P has no history" in refused("mismatch", tier="P", window_us=20.0)
    assert made("mismatch", tier="P")


def test_a_tier_sees_what_it_can_see() -> None:
    own = {"inputs": ["link.plant_ok"], "unit": "bool"}
    assert made("digital", tier="P", **own)
    assert "no signal 'link.plant_ok'" in refused("digital", tier="H", **own)
    assert made("digital", tier="H", when="strip.valid")
    assert "is not in the process image, so tier P cannot see it" in refused("digital", tier="P", when="strip.valid")
    line = {"inputs": ["t.plan_ok"], "unit": "bool"}
    assert made("digital", tier="T", **line)
    assert made("digital", tier="T", inputs=["t.plan_ok", "t.authorised"], unit="bool")
    assert made("limit", tier="T", inputs=["control.age_ms"], unit="ms", low=None, high=5.0)
    assert "tier T judges what control vouches for" in refused("digital", tier="T", **own)
    mixed = {"inputs": ["t.plan_ok", "link.plant_ok"], "unit": "bool"}
    assert "tier T judges" in refused("digital", tier="T", **mixed)


def test_units_are_those_of_the_inputs() -> None:
    assert "'ic1.hv_rel' is in '1'" in refused("limit", unit="mm")
    assert "'ic2.hv_rel' is in '1'" in refused("equal", unit="mm", inputs=["strip.err_x_mm", "ic2.hv_rel"])
    assert "'link.plant_ok' is in 'bool'" in refused("digital", tier="P", inputs=["link.plant_ok"], unit="1")
    assert "a beat is compared in ms" in refused("beat", unit="count")
    for name in ("a" * 7, "a"):
        assert "key unit" in refused("limit", unit=name)
    assert "at most 7" in refused("limit", unit="a" * 8)
    assert "at least 1" in refused("limit", unit="")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"action": "HOLD", "reset": "operator"}, "reset"), ({"action": "INHIBIT", "reset": "physicist"}, "reset"),
        ({"action": "PAUSE", "reset": "none"}, "reset"), ({"action": "ABORT", "reset": "operator"}, "reset"),
        ({"action": "PAUSE", "reset": "operator", "latching": False}, "reset"),
        ({"action": "PAUSE", "reset": "operator", "max_holds": 3}, "max_holds"),
        ({"action": "INHIBIT", "reset": "none", "max_holds": 3}, "max_holds"),
        ({"critical": True, "bypass": "clinical"}, "bypass"), ({"chain": "personnel"}, "chain"),
        ({"action": "HOLD", "reset": "none", "max_holds": -1}, "max_holds"),
    ],
)  # fmt: skip
def test_consequences_that_contradict_each_other(changes: dict[str, object], key: str) -> None:
    assert f"key {key}" in refused("limit", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "HOLD", "reset": "none", "max_holds": 0}, {"action": "PAUSE", "reset": "operator"},
        {"action": "PAUSE", "reset": "physicist"}, {"action": "PAUSE", "reset": "none", "latching": False},
        {"critical": True, "bypass": "qa"}, {"critical": False, "bypass": "clinical"},
        {"chain": "personnel", "tier": "P"}, {"chain": "machine", "bypass": "qa"},
        {"action": "INHIBIT", "reset": "none"},
    ],
)  # fmt: skip
def test_consequences_that_go_together(changes: dict[str, object]) -> None:
    rule = made("limit", **changes)
    assert rule.strength is Action[rule.action]
    assert rule.latches == (rule.action in ("PAUSE", "ABORT") and changes.get("latching", True))


def test_defaults_are_what_the_reference_says() -> None:
    rule = made("limit")
    assert (rule.window_us, rule.debounce_us, rule.input_delay_us, rule.latching, rule.critical) == (
        0,
        0,
        0,
        True,
        False,
    )
    assert (rule.max_holds, rule.when, rule.remedy, rule.chain, rule.expected) == (None, None, None, "patient", 0.0)
    assert made("digital", equals=2.5).expected == 2.5
    policy = PolicySettings()
    assert (policy.max_holds, policy.max_pauses, policy.max_bypass_s, policy.max_bypasses) == (20, 5, 3600.0, 3)
    for name in ("max_holds", "max_pauses", "max_bypasses"):
        assert getattr(PolicySettings(**{name: 0}), name) == 0
        with pytest.raises(ValueError, match="greater than or equal to 0"):
            PolicySettings(**{name: -1})
    assert MODE_CODES == {"clinical": 1, "qa": 2, "service": 3}
    assert MODES[0] == "clinical"
    assert (model.BEAT_MS, model.BEAT_MODULUS) == (1.0, 1 << 20)


@pytest.mark.parametrize(("name", "good"), [("ab", True), ("a" * 31, True), ("a" * 32, False), ("a", False),
                                            ("1a", False), ("a_b", False), ("a-1", True)])  # fmt: skip
def test_an_id_has_2_to_31_small_letters_digits_and_dashes(name: str, good: bool) -> None:
    if good:
        assert one_rule(body(id=name)).rules[0].id == name
    else:
        with pytest.raises(ConfigError, match="key id"):
            one_rule(body(id=name))


def test_a_file_holds_up_to_200_rules_of_which_60_are_fast() -> None:
    def many(count: int, **changes: object) -> int:
        return len(several(*(body(id=f"rule-{k}", **changes) for k in range(count))).rules)

    assert (many(MAX_RULES), many(rules.MAX_RULES, tier="P")) == (60, 200)
    for count, tier in ((MAX_RULES + 1, "H"), (rules.MAX_RULES + 1, "P"), (0, "H")):
        with pytest.raises(ConfigError) as caught:
            many(count, tier=tier)
        assert caught.value.code == ("interlocks.too-many" if count == 61 else "interlocks.no-rules")


def test_how_many_rules_a_file_may_hold_to_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (0, 1, rules.MAX_RULES, rules.MAX_RULES + 1):
        rows = [{"id": f"rule-{k}"} for k in range(count)]
        if 0 < count <= rules.MAX_RULES:
            assert len(rules._entries(rows, "a file")) == count
        else:
            with pytest.raises(ConfigError, match="1 to 200"):
                rules._entries(rows, "a file")
    monkeypatch.setattr("interlocks.fast.MAX_RULES", 2)
    fast = [body(id=f"one-of-{k}") for k in range(3)]
    slow = [body(id=f"slow-{k}", tier="P") for k in range(3)]
    assert len(several(*fast[:2], *slow).rules) == 5
    with pytest.raises(ConfigError, match="3 rules of tier H"):
        several(*fast, *slow)


def test_a_set_of_rules_knows_them_by_tier_and_the_one_of_the_comparison() -> None:
    comparison = body(id="agree", inputs=["evaluators.agree"], kind="digital", equals=1.0, unit="bool", low=None,
                      high=None, tier="P")  # fmt: skip
    line = body(id="line", inputs=["t.plan_ok"], kind="digital", equals=1.0, unit="bool", low=None, high=None, tier="T")
    found = several(body(id="fast"), body(id="slow", tier="P"), comparison, line)
    assert [rule.id for rule in found.h] == ["fast"]
    assert [rule.id for rule in found.p] == ["slow", "agree"]
    assert [rule.id for rule in found.t] == ["line"]
    assert [rule.id for rule in found.scanned] == ["slow", "line"]
    assert found.comparison is found.by_id["agree"]
    assert several(body()).comparison is None
    assert found.by_id["slow"] is found.rule("slow") is found.rules[1]
    assert len(found.hash) == 64
    assert found.hash != several(body()).hash


def test_a_room_is_its_place_and_overrides_come_by_facility_and_species() -> None:
    text = TEXT.split("[[rule]]")[0] + "[[rule]]\n" + body(
        inputs=["ring.token"], kind="digital", equals="room", unit="token", low=None, high=None)  # fmt: skip
    for room in range(3):
        assert rules.rules_from_toml(text, "wuwei", "carbon", room).rules[0].expected == float(room)
    limits = TEXT.split("[[rule]]")[0] + "[[rule]]\n" + body()
    both = f"{limits}\n[override.wuwei.some-rule]\nhigh = 1.5\n[override.wuwei-proton.some-rule]\nhigh = 1.75\n"
    for facility, species, high in (("wuwei", "carbon", 1.5), ("wuwei", "proton", 1.75), ("pimms", "proton", 1.1)):
        assert rules.rules_from_toml(both, facility, species, 0).rules[0].high == high
