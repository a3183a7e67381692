"""What a layer takes: ions over intensity, moves without beam, machine cycles. Estimates, in facility time.

Between near spots the beam stays on and the ions of the move belong to a spot, so such moves cost nothing beyond the
ions; moves longer than the front end's `beam_off_move_mm` are made without beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from control.plan.model import FloatArray
from facility.config import Facility, ScanningAxis
from facility.constants import TICK_S


@dataclass(frozen=True)
class LayerTime:
    """Seconds of one layer: beam on, moves without beam, cycles before and during it; and how many cycles."""

    beam_s: float
    move_s: float
    cycle_s: float
    cycles: int

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.beam_s + self.move_s + self.cycle_s


def move_times_s(
    x_mm: FloatArray, y_mm: FloatArray, x_set_a: FloatArray, y_set_a: FloatArray, facility: Facility
) -> tuple[FloatArray, FloatArray]:
    """(time in s, distance in mm) of each move from a spot to the next; arrays of shape (n,), results (n - 1,).

    Per axis: latency, the current step at the supply's slew rate, the supply's second-order response settling from
    the step to the position tolerance; the slower axis governs. Then the front end's settling ticks.
    """
    distance = np.hypot(np.diff(x_mm), np.diff(y_mm))
    slow = np.maximum(
        _axis_time_s(x_set_a, distance, facility.scanning.x, facility),
        _axis_time_s(y_set_a, distance, facility.scanning.y, facility),
    )
    return np.asarray(slow + facility.front_end.settle_ticks * TICK_S, dtype=np.float64), distance


def _axis_time_s(set_a: FloatArray, distance: FloatArray, axis: ScanningAxis, facility: Facility) -> FloatArray:
    step_a = np.abs(np.diff(set_a))
    decay_per_s = 2.0 * math.pi * axis.bandwidth_hz * min(axis.damping, 1.0)
    ratio = np.maximum(distance / facility.front_end.position_tolerance_mm, 1.0)
    time = axis.latency_us * 1e-6 + step_a / axis.slew_a_per_s() + np.log(ratio) / decay_per_s
    return np.asarray(np.where(step_a > 0.0, time, 0.0), dtype=np.float64)


def typical_transit_s(times_s: FloatArray, distance_mm: FloatArray, facility: Facility) -> float:
    """Median time of the moves that are made with beam; 0 where there is none."""
    with_beam = times_s[distance_mm <= facility.beam_off_move_mm]
    return float(np.median(with_beam)) if with_beam.size else 0.0


def beam_off_moves_s(times_s: FloatArray, distance_mm: FloatArray, facility: Facility) -> float:
    """Sum of the moves that are made without beam."""
    if facility.gated:
        return float(distance_mm.size * facility.external_move_s)
    return float(times_s[distance_mm > facility.beam_off_move_mm].sum())


class CycleClock:
    """Counts machine cycles over the layers of a program, in order: what is stored, how often it is filled again.

    A layer starts a new cycle, except where the ring takes several energies per flat top (`energies_per_flat_top`),
    steps down, and still holds the ions that the layer needs.
    """

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._stored_ions = 0.0
        self._energies = 0
        self._before: tuple[str, float] | None = None

    def layer(
        self, species: str, energy_mev_u: float, ions: float, level_ions_per_s: float, move_s: float
    ) -> LayerTime:
        """Time of the next layer of the program."""
        phases = self._facility.ring.phases
        ion = self._facility.species_named(species)
        per_cycle = min(ion.fill_ions * ion.transmission, level_ions_per_s * phases.flat_top_max_ms * 1e-3)
        beam_s = ions / level_ions_per_s
        if self._goes_on(species, energy_mev_u, ions):
            self._stored_ions -= ions
            self._energies += 1
            self._before = (species, energy_mev_u)
            return LayerTime(beam_s, move_s, phases.energy_step_ms * 1e-3, 0)
        cycles = max(1, math.ceil(ions / per_cycle))
        self._stored_ions = cycles * per_cycle - ions
        self._energies = 1
        self._before = (species, energy_mev_u)
        return LayerTime(beam_s, move_s, cycles * self.cycle_s(species, energy_mev_u), cycles)

    def cycle_s(self, species: str, energy_mev_u: float) -> float:
        """A machine cycle without its flat top, s."""
        phases = self._facility.ring.phases
        fixed = phases.injection_ms + phases.capture_ms + phases.stabilise_ms + phases.resonance_ms
        after = phases.dump_ms + phases.ramp_down_ms + phases.standardise_ms
        return (fixed + self._facility.ramp_ms(species, energy_mev_u) + after) * 1e-3

    def _goes_on(self, species: str, energy_mev_u: float, ions: float) -> bool:
        if self._before is None or self._energies >= self._facility.ring.energies_per_flat_top:
            return False
        return self._before[0] == species and energy_mev_u <= self._before[1] and ions <= self._stored_ions
