"""Checks that span sections of a facility file. Each yields (key, value, what would be right)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from facility.constants import TICK_NS
from facility.external import DEVICES, SCANNERS, VOLTAGES, units
from facility.physics.relativity import rigidity_tm

if TYPE_CHECKING:
    from facility.config.models import Facility


class Problem(NamedTuple):
    """One contradiction: dotted key, offending value, what is allowed."""

    key: str
    value: object
    allowed: str


class CrossCheckError(ValueError):
    """Carries the problems through the validator."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.key} = {p.value!r}: {p.allowed}" for p in problems))
        self.problems = problems


def _species(f: Facility) -> Iterator[Problem]:
    for name, s in f.species.items():
        key = f"species.{name}"
        if s.energy_min_mev_u >= s.energy_max_mev_u:
            yield Problem(f"{key}.energy_min_mev_u", s.energy_min_mev_u, "must lie below energy_max_mev_u")
        if f.ring.injection_energy_mev_u >= s.energy_min_mev_u:
            yield Problem(
                "ring.injection_energy_mev_u",
                f.ring.injection_energy_mev_u,
                f"must lie below {key}.energy_min_mev_u = {s.energy_min_mev_u}",
            )
        levels = s.intensity_levels_ions_per_s
        if any(a >= b for a, b in itertools.pairwise(levels)):
            yield Problem(f"{key}.intensity_levels_ions_per_s", levels, "must rise from each level to the next")
        energies = [row[0] for row in s.spot_sigma]
        if any(a >= b for a, b in itertools.pairwise(energies)):
            yield Problem(f"{key}.spot_sigma", energies, "energies must rise")
        if energies[0] > s.energy_min_mev_u or energies[-1] < s.energy_max_mev_u:
            yield Problem(
                f"{key}.spot_sigma", energies, f"must cover {s.energy_min_mev_u} to {s.energy_max_mev_u} MeV/u"
            )
        if s.charge > s.mass_number or abs(s.mass_u - s.mass_number) > 0.1 * s.mass_number:
            yield Problem(f"{key}.mass_u", s.mass_u, "must be the mass of the bare ion in u, near mass_number")


def _responses(f: Facility) -> Iterator[Problem]:
    for name, monitor in (("ic1", f.chambers.ic1), ("ic2", f.chambers.ic2), ("backup", f.chambers.backup)):
        for curve in ("calibration", "response_true"):
            energies = [row[0] for row in getattr(monitor, curve)]
            if any(a >= b for a, b in itertools.pairwise(energies)):
                yield Problem(f"chambers.{name}.{curve}", energies, "energies must rise")


def _beam(f: Facility) -> Iterator[Problem]:
    fastest_hz = 0.5e9 / TICK_NS
    for place, (hz, _) in enumerate(f.extraction.supply_ripple):
        if hz >= fastest_hz:
            what = f"Hz must lie below {fastest_hz:g}, half the rate of the plant's ticks of {TICK_NS / 1000:g} us"
            yield Problem(f"extraction.supply_ripple.{place}", hz, what)
    total = sum(fraction for fraction, _ in f.extraction.tail)
    if abs(total - 1.0) > 1e-9:
        yield Problem("extraction.tail", f.extraction.tail, f"fractions must add up to 1, they give {total:g}")
    off = f.beam_off
    if f.ring.extraction == "rfko" and not off.rfko.present:
        yield Problem("beam_off.rfko.present", False, "must be true where ring.extraction is 'rfko'")
    if f.ring.extraction == "betatron" and off.rfko.present:
        yield Problem("beam_off.rfko.present", True, "must be false where ring.extraction is 'betatron'")
    gate = off.rfko if off.spill_gate == "rfko" else off.chopper
    if not gate.present:
        yield Problem("beam_off.spill_gate", off.spill_gate, "must name a device that is present")
    if not (off.fast_quad.present or (off.chopper.present and off.spill_gate != "chopper")):
        yield Problem(
            "beam_off.fast_quad.present",
            off.fast_quad.present,
            "a second fast device beside the spill gate must be present",
        )
    for name in ("ring_dump", "source_inhibit", "stopper"):
        if not getattr(off, name).present:
            yield Problem(f"beam_off.{name}.present", False, "must be true: every facility needs it")


def _rooms(f: Facility) -> Iterator[Problem]:
    for name, room in f.rooms.items():
        key = f"rooms.{name}"
        if room.swap_xy != (room.sad_y_mm > room.sad_x_mm):
            yield Problem(
                f"{key}.swap_xy",
                room.swap_xy,
                "true exactly where sad_y_mm > sad_x_mm: supply x feeds the upstream magnet",
            )
        if room.strip_distance_mm >= min(room.sad_x_mm, room.sad_y_mm):
            yield Problem(
                f"{key}.strip_distance_mm", room.strip_distance_mm, "must be shorter than both source-axis distances"
            )
        for axis, half, sad in (
            ("x", room.field_half_mm[0], room.sad_x_mm),
            ("y", room.field_half_mm[1], room.sad_y_mm),
        ):
            supply_name = axis if not room.swap_xy else {"x": "y", "y": "x"}[axis]
            supply = f.scanning.x if supply_name == "x" else f.scanning.y
            for species_name, s in f.species.items():
                rigidity = float(rigidity_tm(s.energy_max_mev_u, s))
                reach = supply.max_current_a * supply.tesla_metre_per_a / rigidity * sad
                if half > reach:
                    yield Problem(
                        f"{key}.field_half_mm",
                        half,
                        f"scanning.{supply_name} reaches {reach:.1f} mm in {axis} with {species_name}"
                        f" at {s.energy_max_mev_u} MeV/u",
                    )


def _monitors(f: Facility) -> Iterator[Problem]:
    for name, ic in (("ic1", f.chambers.ic1), ("ic2", f.chambers.ic2)):
        if not ic.voltage_min_v <= ic.voltage_v <= ic.voltage_max_v:
            yield Problem(
                f"chambers.{name}.voltage_v",
                ic.voltage_v,
                f"must lie between {ic.voltage_min_v} and {ic.voltage_max_v} V",
            )
    for name, axis in (("x", f.scanning.x), ("y", f.scanning.y)):
        if axis.resistance_ohm * axis.max_current_a >= axis.max_voltage_v:
            yield Problem(
                f"scanning.{name}.max_voltage_v", axis.max_voltage_v, "must exceed resistance_ohm x max_current_a"
            )
    yield from _strips(f)
    if f.gate.window_low_mm >= f.gate.window_high_mm:
        yield Problem("gate.window_low_mm", f.gate.window_low_mm, "must lie below gate.window_high_mm")
    ids = [shifter.id for shifter in f.range_shifters]
    if len(set(ids)) != len(ids):
        yield Problem("range_shifters", ids, "ids must differ")


def _strips(f: Facility) -> Iterator[Problem]:
    for axis, dead in (("x", f.strip.dead_x), ("y", f.strip.dead_y)):
        if len(set(dead)) != len(dead) or any(k >= f.strip.strips for k in dead) or 2 * len(dead) > f.strip.strips:
            yield Problem(
                f"strip.dead_{axis}", dead, f"must be different strips of 0 to {f.strip.strips - 1}, at most half"
            )


_NEEDS = {"per_spot": ("setpoint",), "table": ("table", "trigger"), "constant": ("setpoint",), "none": ()}
"""PVs by set-point mode."""


def _external(f: Facility) -> Iterator[Problem]:
    for name, device in f.external.items():
        key = f"external.{name}"
        if name not in DEVICES:
            yield Problem(key, name, f"no device of that name can be external; known: {', '.join(DEVICES)}")
            continue
        modes = ("per_spot", "table") if name in SCANNERS else ("constant",) if name in VOLTAGES else ("none",)
        if device.mode not in modes:
            yield Problem(f"{key}.mode", device.mode, f"must be {' or '.join(modes)} for this device")
        known = units(name)
        if device.unit not in known:
            yield Problem(f"{key}.unit", device.unit, f"must be one of {', '.join(known)}")
        for pv in ("setpoint", "table", "trigger"):
            given, needed = getattr(device, pv), pv in _NEEDS[device.mode]
            if needed and given is None:
                yield Problem(f"{key}.{pv}", given, f"must name a PV in mode {device.mode}")
            if given is not None and not needed:
                yield Problem(f"{key}.{pv}", given, f"is not used in mode {device.mode}: leave it out")
        if device.mode != "none" and device.settle_ms < device.readbacks * device.max_age_ms:
            least = device.readbacks * device.max_age_ms
            yield Problem(f"{key}.settle_ms", device.settle_ms, f"must be at least readbacks x max_age_ms = {least:g}")


def _lines(f: Facility) -> Iterator[Problem]:
    lines = f.lines
    if lines is None:
        return
    wanted = {"udp": ("listen", "peer"), "fd": ("input_path", "output_path")}
    for driver, names in wanted.items():
        for name in names:
            given = getattr(lines, name)
            if driver == lines.driver and given is None:
                yield Problem(f"lines.{name}", given, f"must be given with driver {driver}")
            if driver != lines.driver and given is not None:
                yield Problem(f"lines.{name}", given, f"belongs to driver {driver}: leave it out")


def find_contradictions(f: Facility) -> list[Problem]:
    """All contradictions of a facility whose sections are valid one by one."""
    return [*_species(f), *_responses(f), *_beam(f), *_rooms(f), *_monitors(f), *_external(f), *_lines(f)]
