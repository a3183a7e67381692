"""The rule file: what is in it, what is refused and how, what a facility may override."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.errors import ConfigError, UsageError
from facility.signals import INDEX
from facility.states import Action
from interlocks import fast
from interlocks.model import Rule
from interlocks.rules import RuleSet, load_rules, rules_from_toml
from tests.interlocks.support import TEXT, body, one_rule, rule_set


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        rules_from_toml(text, "wuwei", "carbon", 0)
    return f"{caught.value.code}: {caught.value}"


def refused_rule(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        one_rule(body(**changes))
    return str(caught.value)


@pytest.mark.parametrize("facility", ["wuwei", "lanzhou", "pimms", "himm-mee"])
def test_the_file_serves_every_facility_species_and_room(facility: str) -> None:
    loaded = load_facility(facility)
    for species in loaded.species:
        for k, room in enumerate(loaded.rooms):
            rules = load_rules(loaded, room, species)
            assert rules.rule("room-token").expected == k
            assert len(rules.h) + len(rules.p) + len(rules.t) == len(rules.rules)
            assert len(rules.fast().rows) <= fast.MAX_RULES


def test_what_must_be_there_is_there() -> None:
    ids = set(rule_set().by_id)
    assert {"chamber-disagreement", "chamber-drift", "spot-overdose-ic1", "spot-overdose-ic2", "dose-rate-high",
            "position-x", "position-y", "scan-readback-x", "scan-field-x", "spot-timeout", "beam-without-demand-ic1",
            "chamber-voltage-ic1", "chamber-voltage-ic2", "energy-token-ring", "energy-token-transport",
            "ring-rigidity", "range-shifter", "room-token", "door", "emergency-stop", "link-safety", "link-plant",
            "link-return", "front-end-alive", "fast-tier-alive", "safety-permit", "operator-heartbeat", "gate",
            "gate-stale", "plant-late"} <= ids  # fmt: skip


@pytest.mark.parametrize("rule", rule_set().rules, ids=lambda rule: rule.id)
def test_every_rule_says_where_it_comes_from(rule: Rule) -> None:
    assert rule.citation.startswith(("domain 2.", "default"))
    assert rule.sigma
    if rule.strength == Action.ABORT and rule.latches:
        assert rule.reset == "physicist"
    assert rule.latches == (rule.reset != "none")


def test_protons_at_pimms_have_limits_of_their_own() -> None:
    assert rule_set("pimms", "proton").rule("spot-overdose-ic1").high == 800_000.0
    assert rule_set("pimms", "carbon").rule("spot-overdose-ic1").high == 20_000.0
    assert rule_set("pimms", "proton").hash != rule_set("pimms", "carbon").hash


def test_override_by_facility() -> None:
    text = TEXT + "\n[override.wuwei.position-x]\nhigh = 1.5\n"
    assert rules_from_toml(text, "wuwei", "carbon", 0).rule("position-x").high == 1.5
    assert rules_from_toml(text, "lanzhou", "carbon", 0).rule("position-x").high == 2.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema = ", "interlocks.syntax"),
        ('schema = "ionctl.interlocks/2"', "key schema"),
        ('schema = "ionctl.interlocks/0"', "key schema"),
        ('schema = "ionctl.interlocks/1"\nextra = 1', "'extra'"),
        ('schema = "ionctl.interlocks/1"\nmore = 1\nextra = 1', "'extra'"),
        ('schema = "ionctl.interlocks/1"\nlink = 1', "interlocks.toml, link"),
        ('schema = "ionctl.interlocks/1"\n[link]\nperiod_ms = 1.0', "link, key scan_ms"),
        (TEXT + "\n[override.wuwei.nothing]\nhigh = 1.0\n", "'nothing'"),
        (TEXT + "\n[override.wuwei.door]\naction = 'HOLD'\n", "override.wuwei.door.action"),
        (TEXT + "\n[override.wuwei]\ndoor = 1\n", "not a table (interlocks.toml, override.wuwei.door)"),
        (TEXT + "\n[override.wuwei.position-x]\nhigh = -3.0\n", "rule position-x, key low"),
        (TEXT.replace("watchdog_ms = 10.0", "watchdog_ms = 0.0"), "watchdog_ms"),
        (TEXT.replace('id = "door"', 'id = "gate"'), "rule gate, key id"),
        (TEXT.replace('id = "door"', "id = 7"), "key id"),
        (TEXT.replace('id = "door"', 'id = "Door"'), "rule Door, key id"),
        (TEXT.split("[[rule]]")[0], "key rule"),
        (TEXT.split("[[rule]]")[0] + "rule = [1]", "policy"),
        ('schema = "ionctl.interlocks/1"\nrule = [1]\n' + "[link]" + TEXT.split("[link]")[1].split("# ---")[0],
         "rule number 0"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_name(text: str, words: str) -> None:
    assert words in refused(text)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"low": math.nan}, "low"),
        ({"low": None, "high": None}, "high"),
        ({"low": 2.0}, "low"),
        ({"low": "1"}, "low"),
        ({"surprise": 1}, "surprise"),
        ({"title": None}, "title"),
        ({"inputs": ["ring.nothing"]}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["ring.brho_rel", "ic1.hv_rel"]}, "inputs"),
        ({"inputs": ["link.plant_ok"], "unit": "bool"}, "inputs"),
        ({"when": "nothing"}, "when"),
        ({"tier": "P", "when": "scan.due"}, "when"),
        ({"tier": "P", "when": "strip.err_x_mm"}, "when"),
        ({"tier": "P", "inputs": ["strip.err_x_mm"], "unit": "mm"}, "inputs"),
        ({"unit": "mm"}, "unit"),
        ({"unit": ""}, "unit"),
        ({"kind": "guess"}, "kind"),
        ({"kind": "window"}, "window_us"),
        ({"kind": "window", "window_us": 15.0}, "window_us"),
        ({"kind": "window", "window_us": 1e6}, "window_us"),
        ({"kind": "window", "window_us": 100.0, "low": None, "high": None}, "high"),
        ({"kind": "window", "window_us": 100.0, "tier": "P"}, "kind"),
        ({"window_us": 100.0}, "window_us"),
        ({"relative": 0.1}, "relative"),
        ({"equals": 0.1}, "equals"),
        ({"kind": "digital"}, "low"),
        ({"kind": "digital", "low": None, "high": None}, "equals"),
        ({"kind": "digital", "low": None, "high": None, "equals": "door"}, "equals"),
        ({"kind": "digital", "low": None, "high": None, "equals": 1.0,
          "inputs": ["ic1.hv_rel", "ic2.hv_rel"]}, "inputs"),
        ({"kind": "equal"}, "inputs"),
        ({"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": None}, "high"),
        ({"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "high": -1.0}, "high"),
        ({"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "relative": -1.0}, "relative"),
        ({"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic2.hv_rel"], "low": None, "window_us": 100.0,
          "tier": "P"}, "window_us"),
        ({"kind": "beat", "inputs": ["fe.heartbeat"], "low": None, "tier": "P"}, "unit"),
        ({"kind": "stale", "inputs": ["fe.heartbeat"], "low": None, "high": None, "unit": "count"}, "window_us"),
        ({"kind": "mismatch", "inputs": ["ic1.hv_rel", "ic1.hv_rel"], "low": None}, "inputs"),
        ({"debounce_us": 10_000_010.0}, "debounce_us"),
        ({"tier": "P", "debounce_us": 10_000_000.5}, "debounce_us"),
        ({"debounce_us": 5.0}, "debounce_us"),
        ({"debounce_us": -5.0}, "debounce_us"),
        ({"action": "STOP"}, "action"),
        ({"reset": "operator"}, "reset"),
        ({"reset": "none"}, "reset"),
        ({"action": "HOLD"}, "reset"),
        ({"latching": False}, "reset"),
        ({"bypass": "always"}, "bypass"),
        ({"citation": ""}, "citation"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_with_id_and_key(changes: dict[str, object], key: str) -> None:
    words = refused_rule(**changes)
    assert "rule some-rule" in words
    assert f"key {key}" in words


def test_how_long_a_rule_may_wait() -> None:
    assert one_rule(body(debounce_us=10_000_000.0)).rules[0].debounce_us == 1e7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wuwei", ""),
        ("wuwei-carbon", ""),
        ("pimms", ""),
        ("himm-mee", ""),
        ("pimms-proton", ""),
        ("here", ""),
        ("here-carbon", ""),
        ("wuwie", "there is no facility 'wuwie'"),
        ("wuwie-carbon", "there is no facility 'wuwie-carbon'"),
        ("himm-nee", "there is no facility 'himm-nee'"),
        ("wuwei-proton", "wuwei has no species 'proton'"),
    ],
)
def test_limits_of_a_facility_that_there_is_not_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "here.toml").write_text("", encoding="utf-8")
    (tmp_path / "interlocks.toml").write_text(f"{TEXT}\n[override.{name}.position-x]\nhigh = 1.5\n", encoding="utf-8")
    if not words:
        assert load_rules(load_facility("wuwei"), "1", "carbon", tmp_path).rule("position-y")
        return
    with pytest.raises(ConfigError) as caught:
        load_rules(load_facility("wuwei"), "1", "carbon", tmp_path)
    assert words in str(caught.value)
    assert f"interlocks.toml, override.{name}" in str(caught.value)
    assert ("known: carbon" if "species" in words else "wuwei") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("elsewhere", ""),
        ("elsewhere-carbon", ""),
        ("elsewhere-proton", "elsewhere has no species 'proton'"),
        ("aaa", "there is no facility 'aaa'"),
        ("zzz", "there is no facility 'zzz'"),
        ("aaa-carbon", "there is no facility 'aaa-carbon'"),
        ("zzz-carbon", "there is no facility 'zzz-carbon'"),
    ],
)
def test_a_facility_of_no_file_may_have_limits_of_its_own(tmp_path: Path, name: str, words: str) -> None:
    """One that was read from a path, or from what a run has written down."""
    here = change_facility(load_facility("wuwei"), {"facility.id": "elsewhere"})
    (tmp_path / "interlocks.toml").write_text(f"{TEXT}\n[override.{name}.position-x]\nhigh = 1.5\n", encoding="utf-8")
    if not words:
        assert load_rules(here, "1", "carbon", tmp_path).rule("position-x").high == 1.5
        return
    with pytest.raises(ConfigError, match=words):
        load_rules(here, "1", "carbon", tmp_path)


def test_too_many_fast_rules() -> None:
    rules = "".join(f"[[rule]]\n{body(id=f'rule-{i}')}\n" for i in range(fast.MAX_RULES + 1))
    assert f"{fast.MAX_RULES + 1} rules of tier H" in refused(TEXT.split("[[rule]]")[0] + rules)


def test_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlocks.rules.find_config", lambda *_: None)
    with pytest.raises(ConfigError, match=r"interlocks\.toml"):
        rule_set()


def test_a_configuration_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "interlocks.toml").write_text(TEXT.replace("high = 2.0", "high = 1.75"))
    rules = load_rules(load_facility("wuwei"), "1", "carbon", tmp_path)
    assert rules.rule("position-x").high == 1.75


def test_unknown_room_species_and_rule() -> None:
    wuwei = load_facility("wuwei")
    for room, species in (("9", "carbon"), ("1", "proton")):
        with pytest.raises(UsageError):
            load_rules(wuwei, room, species)
    with pytest.raises(UsageError, match="position-x"):
        rule_set().rule("position-z")


def _row(rules: RuleSet) -> np.void:
    row: np.void = rules.fast().rows[0]
    return row


def test_rows_say_what_the_file_says() -> None:
    row = _row(one_rule(body(when="fe.demand", debounce_us=50.0)))
    assert (row["kind"], row["when"], row["a"], row["b"]) == (
        fast.LIMIT, INDEX["fe.demand"], INDEX["ring.brho_rel"], INDEX["ring.brho_rel"])  # fmt: skip
    assert (row["lo"], row["hi"], row["rel"], row["debounce"], row["action"]) == (0.9, 1.1, 0.0, 5, 4)
    open_ended = _row(one_rule(body(low=None)))
    assert open_ended["lo"] == -fast.NO_LIMIT
    assert _row(one_rule(body(high=None)))["hi"] == fast.NO_LIMIT


def test_windowed_rules_share_columns_of_the_history() -> None:
    compiled = rule_set().fast()
    names = [list(INDEX)[i] for i in compiled.hist_index]
    assert names == ["ic1.ions", "ic2.ions", "ic1.nominal_us", "ic2.nominal_us", "ic1.idle_ions", "ic2.idle_ions"]


def test_every_evaluator_has_rows_of_its_own() -> None:
    compiled = rule_set().fast()
    compiled.rows["latched"] = 1
    assert not compiled.rows["latched"].any()


def test_rows_without_a_word_on_bypasses_can_be_bypassed_by_none() -> None:
    compiled = rule_set().fast()
    assert type(compiled)(compiled.compiled, compiled.hist_index, compiled.ids).bypassable == 0
