"""Devices that an external IOC may stand for: their places in the rack, their units, the signals that come from them.

Three kinds: scanning supplies (set for each spot), high voltages of the chambers (set once, read all the time), and the
slow devices around the beam (read only; one for each signal of `facility.signals`, with an underscore for the point).
"""

from __future__ import annotations

from collections.abc import Iterable

from facility.signals import FIRST_SLOW, LAST_SLOW, SIGNALS

SCANNERS = ("scan_x", "scan_y")
VOLTAGES = ("ic1_hv", "ic2_hv")
LINES = "lines"
"""Not a device of its own: the digital lines of an I/O card, whose age is judged like a reading."""
SLOW: tuple[str, ...] = tuple(signal.name.replace(".", "_") for signal in SIGNALS[FIRST_SLOW : LAST_SLOW + 1])
SLOTS: tuple[str, ...] = (*SCANNERS, *VOLTAGES, LINES, *SLOW)
"""Places in the rack, in the order of its vectors."""
SLOT: dict[str, int] = {name: i for i, name in enumerate(SLOTS)}
DEVICES: tuple[str, ...] = (*SCANNERS, *VOLTAGES, *SLOW)
"""What `[external.NAME]` of a facility file can name."""
SPOT_AGES = 5
"""A spot lasts at least this many times the maximum age of a reading."""
BOUND_AGES = 2
"""A rule that reads an external device sees the cause within so many maximum ages."""

_CURRENT = {"A": 1.0, "mA": 1e-3, "kA": 1e3}
_VOLTAGE = {"V": 1.0, "kV": 1e3}
OK_SIGNAL = "external.ok"


def units(device: str) -> dict[str, float]:
    """Units that the PVs of a device may be in, with the factor to the rack's own."""
    if device in SCANNERS:
        return _CURRENT
    if device in VOLTAGES:
        return _VOLTAGE
    return {SIGNALS[FIRST_SLOW + SLOW.index(device)].unit: 1.0}


def signals_of(device: str) -> tuple[str, ...]:
    """Names of the signals that are read from a device."""
    if device in SCANNERS:
        return (f"{device}.err_mm", f"{device}.probe_mm", "scan.settle_ms", OK_SIGNAL)
    if device in VOLTAGES:
        return (f"{device.removesuffix('_hv')}.hv_rel", OK_SIGNAL)
    if device == LINES:
        return ("gate.open", OK_SIGNAL)
    return (SIGNALS[FIRST_SLOW + SLOW.index(device)].name, OK_SIGNAL)


def devices_read(inputs: Iterable[str], fitted: Iterable[str]) -> tuple[str, ...]:
    """Those of the `fitted` devices that a rule with these inputs reads."""
    wanted = set(inputs)
    return tuple(name for name in fitted if not wanted.isdisjoint(signals_of(name)))
