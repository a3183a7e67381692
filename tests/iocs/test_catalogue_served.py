"""Groups and catalogue say the same: every PV of the plant is served with its attributes, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from caproto import AccessRights, CaprotoError, CaprotoValueError, ChannelType

from channels.protocol import Severity
from channels.publish import run_sync, stamp_ns
from channels.pv_groups import CataloguedGroup, declared, declared_entry, group_of
from facility.errors import InternalError
from facility.pv_catalogue import BY_NAME, PvEntry, entries
from facility.timebase import ManualClock
from tests.iocs.fakes import PREFIX, Bench

TYPES = {
    "float": ChannelType.DOUBLE,
    "floats": ChannelType.DOUBLE,
    "int": ChannelType.LONG,
    "enum": ChannelType.ENUM,
    "string": ChannelType.STRING,
    "bytes": ChannelType.CHAR,
}
PLANT = tuple(entries("plant"))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_exactly_the_catalogue_is_served(bench: Bench) -> None:
    assert set(bench.iocs.pvdb) == {entry.full_name(PREFIX) for entry in PLANT}


@pytest.mark.parametrize("entry", PLANT, ids=lambda entry: entry.name)
def test_attributes(bench: Bench, entry: PvEntry) -> None:
    pv = bench.pv(entry.name)
    assert pv.data_type == TYPES[entry.kind]
    assert pv.max_length == entry.length
    assert pv.__doc__ == entry.description
    assert pv.get_field("DESC").value == entry.description
    rights = AccessRights.READ if entry.writer == "nobody" else AccessRights.READ | AccessRights.WRITE
    assert pv.check_access("anywhere", "anyone") == rights
    if entry.kind == "enum":
        assert pv.enum_strings == entry.states
    if entry.kind in ("float", "floats", "int"):
        assert pv.units == entry.unit
        control = (pv.lower_ctrl_limit, pv.upper_ctrl_limit)
        assert control == (entry.limits or (0, 0))
        assert (pv.lower_disp_limit, pv.upper_disp_limit) == (entry.limits or (0, 0))
        alarms = (pv.lower_alarm_limit, pv.lower_warning_limit, pv.upper_warning_limit, pv.upper_alarm_limit)
        assert alarms == (entry.alarms or (0, 0, 0, 0))
    if entry.kind in ("float", "floats"):
        assert pv.precision == entry.precision
    assert pv.length * pv.max_subscription_backlog <= 400_000


def test_packed_waveforms_have_their_fields(bench: Bench) -> None:
    for entry in PLANT:
        if entry.kind == "floats" and entry.length == len(entry.fields):
            assert len(bench.value(entry.name)) == len(entry.fields), entry.name


def test_alarms_are_not_shared(bench: Bench) -> None:
    assert len({id(pv.alarm) for pv in bench.iocs.pvdb.values()}) == len(PLANT)


def test_command_pvs_are_the_only_way_in(bench: Bench) -> None:
    writable = {name.removeprefix(f"{PREFIX}:") for name, pv in bench.iocs.pvdb.items()
                if AccessRights.WRITE in pv.check_access("host", "root")}  # fmt: skip
    assert writable == {"RING:Cmd", "FE:Cmd", "RS:Cmd", "ROOM:Cmd", "FE:Spots-SP"}


async def test_other_record_fields_are_not_there(bench: Bench) -> None:
    pv = bench.pv("DOSE:IC1:HV-RB")
    assert pv.get_field("VAL") is pv
    assert pv.get_field("RTYP").value == "ai"
    assert pv.get_field("DESC").check_access("", "") == AccessRights.READ
    with pytest.raises(KeyError):
        pv.get_field("HIHI")


def test_an_unknown_name_cannot_be_declared() -> None:
    with pytest.raises(InternalError, match="no PV GATE:Nonsense"):
        declared("GATE:Nonsense")


async def never(_group: object, _channel: object, value: object) -> object:
    return value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "furlongs"}, "longer than 7 bytes"),
        ({"kind": "enum"}, "0 states"),
        ({"kind": "enum", "states": tuple(f"S{i}" for i in range(17))}, "17 states"),
        ({"kind": "enum", "states": ("A" * 26,)}, "longer than 25"),
        ({"length": 4}, "float of length 4"),
    ],
)
def test_what_epics_cannot_hold_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InternalError, match=words):
        declared_entry(replace(BY_NAME["GATE:Amplitude-RB"], **change))  # type: ignore[arg-type]


def test_a_read_only_pv_takes_no_putter() -> None:
    with pytest.raises(InternalError, match="has no writer"):
        declared("GATE:Amplitude-RB", never)


class Writable(CataloguedGroup):
    number = declared_entry(PvEntry("T:Number-SP", "plant", "T", "float", "n", "A", writer="operator", limits=(-1, 1)))
    mode = declared_entry(PvEntry("T:Mode-SP", "plant", "T", "enum", "m", states=("A", "B"), writer="operator"))


async def test_refused_puts_leave_value_and_say_so_until_the_next_good_one() -> None:
    clock = ManualClock(77)
    group = Writable("P", clock)
    for name, good, bad in (("T:Number-SP", 0.5, [1.5, float("nan"), float("inf")]), ("T:Mode-SP", 1, [2, -1])):
        pv = group.channel(name)
        await pv.auth_write("", "", np.array([good]), pv.data_type, None)
        kept = pv.value
        assert stamp_ns(pv) == 77
        for value in bad:
            with pytest.raises(CaprotoError):
                await pv.auth_write("", "", np.array([value]), pv.data_type, None)
            assert pv.value == kept
            if pv.data_type == ChannelType.DOUBLE:  # a state that does not exist fails before it gets to the PV
                assert pv.alarm.severity == Severity.MAJOR
        await pv.auth_write("", "", np.array([good]), pv.data_type, None)
        assert pv.alarm.severity == Severity.NO_ALARM


async def test_an_unknown_state_by_name_is_refused() -> None:
    pv = Writable("P", ManualClock()).channel("T:Mode-SP")
    with pytest.raises(CaprotoValueError, match="none of A, B"):
        await pv.write("C")
    await pv.write("B")
    assert pv.value == "B"


def test_a_group_made_at_run_time() -> None:
    entry = PvEntry("SAFE:R1:Sts", "safety", "SAFE", "enum", "rule 1", states=("CLEAR", "LATCHED"))
    clock = ManualClock(5)
    group = group_of((entry,), "Rules", "P", clock)
    assert list(group.pvdb) == ["P:SAFE:R1:Sts"]
    run_sync(group.channel("SAFE:R1:Sts").write("LATCHED"))
    assert stamp_ns(group.channel("SAFE:R1:Sts")) == 5


def test_first_stamps_are_facility_time() -> None:
    group = group_of(tuple(entries("control")), "Control", "P", ManualClock(9))
    assert {stamp_ns(pv) for pv in group.pvdb.values()} == {0}
