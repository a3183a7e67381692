"""Sections [external.NAME] and [lines]: what is refused, and what follows from the timing contract."""

from __future__ import annotations

import pytest

from facility.config import Facility, change_facility, load_facility
from facility.errors import ConfigError
from facility.external import DEVICES, signals_of
from facility.signals import INDEX

WUWEI = load_facility("wuwei")
SUPPLY: dict[str, object] = {
    "prefix": "PS1:", "address": "127.0.0.1:5072", "readback": "Current-RB", "setpoint": "Current-SP", "unit": "A",
    "mode": "per_spot", "max_age_ms": 40.0,
}  # fmt: skip
LINES: dict[str, object] = {"driver": "fd", "input_path": "/dev/a", "output_path": "/dev/b", "max_age_ms": 20.0}


def with_supply(name: str = "scan_x", **changes: object) -> Facility:
    section = {key: value for key, value in {**SUPPLY, **changes}.items() if value is not None}
    return change_facility(WUWEI, {"external": {name: section}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "scan_z"}, "external.scan_z = 'scan_z': no device of that name"),
        ({"mode": "constant"}, "external.scan_x.mode = 'constant': must be per_spot or table"),
        ({"unit": "V"}, "external.scan_x.unit = 'V': must be one of A, mA, kA"),
        ({"setpoint": None}, "external.scan_x.setpoint = None: must name a PV in mode per_spot"),
        ({"trigger": "Trigger"}, "external.scan_x.trigger = 'Trigger': is not used in mode per_spot"),
        ({"mode": "table", "setpoint": None, "table": "Table"}, "external.scan_x.trigger = None: must name a PV"),
        ({"max_age_ms": 1.0}, "external.scan_x.max_age_ms = 1.0"),
        ({"settle_ms": 50.0}, "external.scan_x.settle_ms = 50.0: must be at least readbacks x max_age_ms = 80"),
        ({"address": "nowhere"}, "external.scan_x.address = 'nowhere'"),
        ({"fail_severity": "BAD"}, "external.scan_x.fail_severity = 'BAD'"),
        ({"max_age": 40.0}, "external.scan_x.max_age = 40.0: unknown key; did you mean 'max_age_ms'?"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_supply(**changes)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"listen": "127.0.0.1:7000"}, "lines.listen = '127.0.0.1:7000': belongs to driver udp"),
        ({"driver": "udp"}, "lines.listen = None: must be given with driver udp"),
        ({"inputs": ["door"]}, "lines.inputs"),
    ],
)
def test_lines_that_cannot_be_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change_facility(WUWEI, {"lines": {**LINES, **changes}})
    assert words in str(caught.value)


def test_what_follows_from_the_contract() -> None:
    plain, gated = WUWEI, with_supply()
    assert (plain.gated, plain.beam_off_move_mm, plain.min_spot_ticks, plain.fitted) == (False, 8.0, 30, ())
    assert (gated.gated, gated.min_spot_ticks, gated.fitted) == (True, 20_000, ("scan_x",))
    assert gated.beam_off_move_mm < 0.0
    slow = with_supply("vacuum_ring_mbar", unit="mbar", mode="none", setpoint=None, max_age_ms=900.0)
    assert (slow.gated, slow.min_spot_ticks) == (False, 30)
    assert plain.hash != gated.hash


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_has_signals(device: str) -> None:
    assert all(name in INDEX for name in signals_of(device))
