"""The PV catalogue holds only what Channel Access can carry, each name once."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from facility.config import list_facilities, load_facility
from facility.pv_catalogue import CATALOGUE, PvEntry
from facility.signals import SIGNALS

NAME = re.compile(r"[A-Z]+(:[A-Z0-9]+)?:[A-Za-z0-9]+(-(SP|RB|Sts|Cmd|Result))?")
SUFFIX_OF_KIND = {"enum": ("-Sts", "-SP", "-Cmd"), "bytes": ("Cmd", "-Result", "-RB", "KeepAlive")}
STATES_MAX, STATE_CHARS_MAX, UNIT_BYTES_MAX, NAME_CHARS_MAX = 16, 25, 8, 60


def test_names_are_unique() -> None:
    twice = [name for name, n in Counter(entry.name.upper() for entry in CATALOGUE).items() if n > 1]
    assert not twice


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_entry(entry: PvEntry) -> None:
    assert NAME.fullmatch(entry.name), "facility:system:device:signal"
    assert entry.name.startswith(f"{entry.group}:")
    assert entry.description
    assert entry.description[0] == entry.description[0].lower() or entry.description[:2].isupper()
    assert len(entry.unit.encode()) <= UNIT_BYTES_MAX, "a unit is 8 bytes on the wire"
    assert (entry.kind == "enum") == bool(entry.states)
    assert len(entry.states) <= STATES_MAX
    assert all(0 < len(state) <= STATE_CHARS_MAX for state in entry.states)
    assert len(set(entry.states)) == len(entry.states)
    if entry.kind in SUFFIX_OF_KIND:
        assert entry.name.endswith(SUFFIX_OF_KIND[entry.kind])
    if entry.kind in ("bytes", "floats"):
        assert entry.length > 1
    else:
        assert entry.length == 1
    if entry.fields:
        assert entry.kind == "floats"
        assert entry.length % len(entry.fields) == 0
        assert len(set(entry.fields)) == len(entry.fields)
    if entry.name.endswith(("-RB", "-Sts", "-Result")):
        assert entry.writer == "nobody", "read-backs are read-only"
    if entry.limits is not None:
        assert entry.limits[0] < entry.limits[1]
    if entry.alarms is not None:
        assert list(entry.alarms) == sorted(entry.alarms)
        assert len(set(entry.alarms)) == len(entry.alarms)


def test_full_names_fit_every_facility() -> None:
    prefixes = {name: load_facility(name).facility.pv_prefix for name in list_facilities()}
    assert len(set(prefixes.values())) == len(prefixes), "two facilities may run on one network"
    for prefix in prefixes.values():
        for entry in CATALOGUE:
            assert len(entry.full_name(prefix)) <= NAME_CHARS_MAX


def test_signal_names_are_unique_and_described() -> None:
    assert len({signal.name for signal in SIGNALS}) == len(SIGNALS)
    for signal in SIGNALS:
        assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", signal.name)
        assert signal.description
        assert signal.resolution >= 0.0
