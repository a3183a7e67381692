"""Facility files: the good ones load and agree with themselves, bad ones are refused in words."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

import pytest

from facility.config import (
    Facility,
    change_facility,
    facility_from_json,
    list_facilities,
    load_facility,
)
from facility.config.loader import config_roots, searched_first
from facility.errors import ConfigError, UsageError

NAMES = ["himm-mee", "lanzhou", "pimms", "wuwei"]
WUWEI = resources.files("configs").joinpath("wuwei.toml").read_text(encoding="utf-8")


def edited(tmp_path: Path, pattern: str, replacement: str) -> Path:
    text, count = re.subn(pattern, replacement, WUWEI, count=1, flags=re.MULTILINE)
    assert count == 1, pattern
    path = tmp_path / "wuwei.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_facility(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_facility_loads_and_round_trips(name: str) -> None:
    facility = load_facility(name)
    assert facility.id == name
    assert len(facility.hash) == 64
    again = facility_from_json(facility.canonical_json())
    assert again == facility
    assert again.hash == facility.hash


def test_all_are_listed_and_have_prefixes_of_their_own() -> None:
    assert list_facilities(env={}) == NAMES
    assert len({load_facility(name).pv_prefix for name in NAMES}) == len(NAMES)
    assert len({load_facility(name).hash for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rooms_can_show_a_mirrored_and_a_swapped_field(name: str) -> None:
    rooms = load_facility(name).rooms.values()
    wiring = {(room.x_polarity, room.y_polarity) for room in rooms}
    assert len(wiring) >= 2
    assert {room.swap_xy for room in rooms} == {False, True}


@pytest.mark.parametrize("name", NAMES)
def test_field_edge_at_highest_energy_uses_most_of_the_supply(name: str) -> None:
    """Written out anew: i = x B rho / (D k), rigidity of 400 MeV/u carbon = 6.346 T m."""
    facility = load_facility(name)
    for room in facility.rooms.values():
        upstream_sad, downstream_sad = room.sad_x_mm, room.sad_y_mm
        if room.swap_xy:
            upstream_sad, downstream_sad = downstream_sad, upstream_sad
        for supply, sad in ((facility.scanning.x, upstream_sad), (facility.scanning.y, downstream_sad)):
            current = 100.0 * 6.346 / (sad * supply.tesla_metre_per_a)
            assert 0.84 < current / supply.max_current_a < 0.90
            assert supply.slew_a_per_s() >= 100e3


@pytest.mark.parametrize("name", NAMES)
def test_spill_has_the_published_duty_factor(name: str) -> None:
    assert load_facility(name).extraction.expected_duty_factor() == pytest.approx(0.90, abs=0.01)


def test_monitor_units() -> None:
    pimms = load_facility("pimms")

    def ions_per_mu(species: str, energy_mev_u: float) -> float:
        return pimms.species[species].mu_reference_fc / pimms.charge_per_ion_fc(species, energy_mev_u)

    assert ions_per_mu("proton", 150.0) == pytest.approx(2.5e6, rel=0.1)
    assert 1e5 < ions_per_mu("carbon", 250.0) < 1e6
    # lower energy, more charge per ion, fewer ions in a MU
    assert ions_per_mu("proton", 80.0) < ions_per_mu("proton", 200.0)
    # 66 pF x 10 V / 2^16 is the quantum; a count is tens of carbon ions
    assert pimms.chambers.ic1.count_quantum_fc == pytest.approx(66e-12 * 10 / 2**16 * 1e15, rel=0.01)
    assert pimms.ions_per_count("carbon", 400.0) == pytest.approx(40.0, rel=0.03)


def test_ramp_time_goes_with_the_field() -> None:
    wuwei = load_facility("wuwei")
    assert wuwei.bending_field_t("carbon", 400.0) == pytest.approx(6.346 / 4.0, rel=1e-3)
    assert 600.0 < wuwei.ramp_ms("carbon", 400.0) < 1200.0
    assert wuwei.ramp_ms("carbon", 120.0) < 0.5 * wuwei.ramp_ms("carbon", 400.0)


def test_search_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, name in ((first, "from argument"), (second, "from environment")):
        folder.mkdir()
        text = WUWEI.replace("Wuwei (HIMM type)", name)
        (folder / "wuwei.toml").write_text(text, encoding="utf-8")
    env = {"IONCTL_CONFIG": str(second)}
    assert load_facility("wuwei", first, env).facility.name == "from argument"
    assert load_facility("wuwei", None, env).facility.name == "from environment"
    assert load_facility("wuwei", None, {}).facility.name == "Wuwei (HIMM type)"
    assert load_facility("pimms", first, env).id == "pimms"  # falls through to the packaged copy
    both = {"IONCTL_CONFIG": f"{first}:{second}"}
    assert load_facility("wuwei", None, both).facility.name == "from argument"


def test_a_folder_is_searched_first_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for before in (str(tmp_path / "elsewhere"), ""):
        monkeypatch.setenv("IONCTL_CONFIG", before)
        if not before:
            monkeypatch.delenv("IONCTL_CONFIG")
        with searched_first(tmp_path):
            assert config_roots()[:-1] == [tmp_path.resolve(), *([Path(before)] if before else [])]
        assert os.environ.get("IONCTL_CONFIG", "") == before


@pytest.mark.parametrize(("folder", "env"), [(Path("away"), {}), (None, {"IONCTL_CONFIG": "away"})])
def test_a_folder_that_is_not_there_is_refused(folder: Path | None, env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"names no folder \(away\)"):
        load_facility("wuwei", folder, env)


def test_unknown_facility_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'wuwei'.*lanzhou"):
        load_facility("wuwe", env={})
    with pytest.raises(ConfigError, match="no facility file"):
        load_facility("./nowhere.toml")


def test_file_name_and_id_must_agree(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(WUWEI, encoding="utf-8")
    with pytest.raises(ConfigError, match="must be 'other'"):
        load_facility("other", tmp_path, {})


@pytest.mark.parametrize(
    ("pattern", "replacement", "code", "words"),
    [
        (r"^circumference_m = .*", "circumfrence_m = 56.2", "config.unknown-key",
         ["ring.circumfrence_m", "56.2", "did you mean 'circumference_m'", "bending_radius_m"]),
        (r"^pitch_mm = .*", 'pitch_mm = "1.65"', "config.bad-value", ["strip.pitch_mm", "'1.65'", "number"]),
        (r"^pitch_mm = .*", "pitch_mm = nan", "config.bad-value", ["strip.pitch_mm", "nan", "finite"]),
        (r"^pitch_mm = .*", "pitch_mm = inf", "config.bad-value", ["strip.pitch_mm", "inf", "finite"]),
        (r"^pitch_mm = .*", "pitch_mm = true", "config.bad-value", ["strip.pitch_mm", "True", "number"]),
        (r"^pitch_mm = .*", "pitch_mm = 0.0", "config.bad-value", ["strip.pitch_mm", "0.0", "greater than 0"]),
        (r"^pitch_mm = .*", "", "config.missing-key", ["strip.pitch_mm", "missing"]),
        (r"^\[ripple_filter\]\nsigma_mm = .*", "", "config.missing-key", ["ripple_filter", "missing"]),
        (r'^extraction = "rfko"', 'extraction = "kicker"', "config.bad-value",
         ["ring.extraction", "'kicker'", "'rfko' or 'betatron'"]),
        (r'^schema = .*', 'schema = "ionctl.facility/2"', "config.bad-value", ["schema", "ionctl.facility/1"]),
        (r"^x_polarity = 1", "x_polarity = 0", "config.bad-value", ["rooms.1.x_polarity", "-1 or 1"]),
        (r"^\[species.carbon\]", "[species.carbon]\nfoo = 1", "config.unknown-key",
         ["species.carbon.foo", "fill_ions"]),
        (r"^\[\[range_shifters\]\]\nid = ", "[[range_shifters]]\nbar = 1\nid = ", "config.unknown-key",
         ["range_shifters.0.bar", "water_equivalent_mm"]),
        (r"= \[1e6, 1.5e6, ", "= [1.5e6, 1e6, ", "config.contradiction", ["intensity_levels_ions_per_s", "rise"]),
        (r"\[\[0.8, 80.0\]", "[[0.9, 80.0]", "config.contradiction", ["extraction.tail", "1.1"]),
        (r"^supply_ripple = \[\[50.0, ", "supply_ripple = [[5e4, ", "config.contradiction",
         ["extraction.supply_ripple.0", "50000.0", "below 50000, half the rate of the plant's ticks of 10 us"]),
        (r'^spill_gate = "rfko"([\s\S]*?\[beam_off\.chopper\]\n)present = true',
         r'spill_gate = "chopper"\1present = false', "config.contradiction", ["spill_gate", "present"]),
        (r"^max_current_a = 550.0", "max_current_a = 450.0", "config.contradiction",
         ["rooms.1.field_half_mm", "scanning.x reaches 94", "400.0 MeV/u"]),
        (r"^swap_xy = true", "swap_xy = false", "config.contradiction", ["rooms.4.swap_xy", "sad_y_mm"]),
        (r"^voltage_v = 1500.0", "voltage_v = 1700.0", "config.contradiction", ["chambers.ic1.voltage_v", "1600"]),
        (r"^energy_max_mev_u = 400.0", "energy_max_mev_u = 110.0", "config.contradiction",
         ["species.carbon.energy_min_mev_u", "120.0"]),
        (r"^window_low_mm = .*", "window_low_mm = 5.0", "config.contradiction", ["gate.window_low_mm"]),
        (r"^schema", "schema = = ", "config.not-toml", ["TOML", "line 7"]),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_words(
    tmp_path: Path, pattern: str, replacement: str, code: str, words: list[str]
) -> None:
    error = refusal(edited(tmp_path, pattern, replacement))
    for word in words:
        assert word in str(error), str(error)
    assert error.code == code
    assert error.exit_code == 3


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    path = edited(tmp_path, r"^pitch_mm = .*", "pitch_mm = nan\nfoo = 1")
    path.write_text(path.read_text(encoding="utf-8").replace("gap_mm = 5.0", "gap_mm = -5.0", 1), encoding="utf-8")
    text = str(refusal(path))
    assert "3 problems" in text
    assert all(key in text for key in ("strip.pitch_mm", "strip.foo", "chambers.ic1.gap_mm"))


def test_empty_file_and_binary_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("", encoding="utf-8")
    assert "missing" in str(refusal(path))
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(path).code == "config.unreadable"


def test_models_cannot_be_changed_but_copied_with_changes() -> None:
    wuwei = load_facility("wuwei")
    with pytest.raises(ValueError, match="frozen"):
        wuwei.strip.pitch_mm = 2.0
    other = change_facility(wuwei, {"chambers.ic1.voltage_v": 400.0})
    assert (wuwei.chambers.ic1.voltage_v, other.chambers.ic1.voltage_v) == (1500.0, 400.0)
    assert wuwei.hash != other.hash
    with pytest.raises(ConfigError, match=r"chambers\.ic1\.voltage_v = 399\.0"):
        change_facility(wuwei, {"chambers.ic1.voltage_v": 399.0})
    with pytest.raises(ConfigError, match="no section 'nope'"):
        change_facility(wuwei, {"chambers.nope.voltage_v": 400.0})
    with pytest.raises(ConfigError, match="leads into a value"):
        change_facility(wuwei, {"strip.pitch_mm.a": 400.0})


def test_unknown_species_and_room() -> None:
    wuwei = load_facility("wuwei")
    with pytest.raises(UsageError, match=r"no species 'proton' .wuwei.*carbon"):
        wuwei.species_named("proton")
    with pytest.raises(UsageError, match=r"no room '9' .wuwei.*1, 2, 3, 4"):
        wuwei.room_named("9")
    assert isinstance(wuwei, Facility)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_where_it_comes_from(name: str) -> None:
    text = resources.files("configs").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    figures = [line for line in text.splitlines() if re.match(r"[a-z0-9_]+ = [\[\-0-9]", line)]
    assert len(figures) > 120
    bare = [line for line in figures if not re.search(r"#.*(\[(F|M|C|D)\b|\b[MD]\])", line)]
    assert bare == []
