"""What the plant's spill makes of ripple of its drive and of the tune, and of a restart at another drive, by truth and
at drives at which tracking has been asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility.config import Facility, change_facility
from facility.constants import TICK_NS
from facility.physics.relativity import revolution_frequency_hz
from ioc_sim import faults as fp
from ioc_sim.extraction.rate_model import POWER
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from ioc_sim.studies.live_spill import SMOOTH, TICK_S, FloatArray, beam_on, ions_of

QUIET: dict[str, Any] = SMOOTH | {"extraction.supply_ripple": []}
SETTLE_S = 4e-3
LONGEST_S, PERIODS = 2e-2, 3
EMPTIED = 0.1
"""A line is looked at for `LONGEST_S`, or until a tenth of the ring is out, but for `PERIODS` periods at least."""
DRIVE_AMPLITUDE = 0.1
RATE_AMPLITUDE = 0.15
CORE_BEGINS = 0.3
"""What a core's drive gives of its level in the middle of the spill when a quarter of the ions has left, about."""
STEP_TICKS = 5
"""So long an amplitude stands while the ring empties."""


def level_of(facility: Facility, species: str, energy_mev_u: float, drive: float) -> float:
    """Level, ions/s, that a full ring gives with this drive (over that of the ring's file)."""
    ion, model = facility.species_named(species), load_spill_table(facility)
    f_rev = float(revolution_frequency_hz(energy_mev_u, ion, facility.ring.circumference_m))
    return float(model.share_per_turn * drive ** POWER[model.kind] * f_rev * ion.fill_ions * ion.transmission)


def drive_response(facility: Facility, species: str, energy_mev_u: float, drive: float, hz: float) -> complex:
    """Relative modulation of the rate over that of exciter or core, for a sine of the amplitude from time 0 on."""
    level = level_of(facility, species, energy_mev_u, drive)
    plant, _ = beam_on(change_facility(facility, QUIET), species, energy_mev_u, level)
    ions_of(plant, SETTLE_S)
    turn = 2.0 * math.pi * hz * TICK_S
    settle = np.arange(round(SETTLE_S / TICK_S))
    _play(plant, 1.0 + DRIVE_AMPLITUDE * np.sin(turn * settle))
    ticks = settle.size + np.arange(round(_seconds(facility, species, level, hz) / TICK_S))
    ions = _play(plant, 1.0 + DRIVE_AMPLITUDE * np.sin(turn * ticks))
    return 1j * _wave(ions, turn, settle.size) / DRIVE_AMPLITUDE


def tune_response(facility: Facility, species: str, energy_mev_u: float, drive: float, hz: float) -> float:
    """Relative modulation of the rate over ripple of the tune: a line of the supplies that is some tenths high.

    The drive rises as the ring empties; what is told is that of `drive`, for the response goes with one over it.
    """
    level, spill = level_of(facility, species, energy_mev_u, drive), facility.extraction
    per_turn = hz / float(revolution_frequency_hz(energy_mev_u, facility.species_named(species),
                                                  facility.ring.circumference_m))  # fmt: skip
    whole = load_spill_table(facility)
    dq = RATE_AMPLITUDE * drive / whole.ripple_gain / (2.0 * math.pi * per_turn) ** whole.rise
    ripple = dq * spill.channelling / spill.tune_per_supply
    changed = change_facility(facility, QUIET | {"extraction.supply_ripple": [[hz, ripple]]})
    plant, code = beam_on(changed, species, energy_mev_u, level)
    ions_of(plant, 2.0 * SETTLE_S)
    before = plant.status.stored_ions
    found = abs(_wave(ions_of(plant, _seconds(facility, species, level, hz)), 2.0 * math.pi * hz * TICK_S, 0)) / dq
    stored = 0.5 * (before + plant.status.stored_ions)
    ion, f_rev = facility.species_named(species), float(plant.table.f_rev_hz[code])
    return float(found * whole.drive_for(level / ion.transmission / stored / f_rev) / drive)


def restart_at(
    facility: Facility, species: str, energy_mev_u: float, drive: float, then: float, pause_s: float, seconds: float
) -> FloatArray:  # fmt: skip
    """Rate by tick from a restart on, over that before: a spill at one drive, a pause, the amplitude of another one."""
    level = level_of(facility, species, energy_mev_u, drive)
    plant, _ = beam_on(change_facility(facility, QUIET), species, energy_mev_u, level)
    ions_of(plant, 2.0 * SETTLE_S)
    _play(plant, np.zeros(round(pause_s / TICK_S)))
    return _play(plant, np.full(round(seconds / TICK_S), then / drive)) / (level * TICK_S)


def first_start_at(
    facility: Facility, species: str, energy_mev_u: float, drive: float, edges_s: FloatArray
) -> FloatArray:  # fmt: skip
    """Rate over the ions stored, 1/s, between these times from the first beam of a flat top on, without the loop.

    An exciter has this amplitude all the time, as in tracking, behind a filling by the full one, and its generator does
    not lead it. Of a core it is the rate over what its generator asks for, by the beam's density in momentum.
    """
    ion, kind = facility.species_named(species), load_spill_table(facility).kind
    full = 1.0 if kind == "rfko" else drive
    level = level_of(facility, species, energy_mev_u, full) * (1.0 if kind == "rfko" else CORE_BEGINS)
    first = Fault("rfko.on", FaultKind.SCALE, drive / full)
    plant, _ = beam_on(
        change_facility(facility, QUIET), species, energy_mev_u, level, first_start=True, faults=(first,)
    )
    time, share = [], []
    for start in range(0, round(float(edges_s[-1]) / TICK_S), STEP_TICKS):
        stored = plant.status.stored_ions
        asked = ion.fill_ions / stored if kind == "rfko" else 1.0  # the generator drives an emptying ring harder
        ions = _play(plant, np.full(STEP_TICKS, drive / full / math.sqrt(asked)))
        over = 0.5 * (stored + plant.status.stored_ions) if kind == "rfko" else level
        share.append(float(ions.mean()) / TICK_S / ion.transmission / over)
        time.append((start + 0.5 * STEP_TICKS) * TICK_S)
    sums, _ = np.histogram(time, edges_s, weights=share)
    return np.asarray(sums / np.histogram(time, edges_s)[0], np.float64)


def _seconds(facility: Facility, species: str, level: float, hz: float) -> float:
    """How long a line is looked at: whole periods, to a tick."""
    ion = facility.species_named(species)
    longest = min(LONGEST_S, EMPTIED * ion.fill_ions * ion.transmission / level)
    return round(max(PERIODS, round(longest * hz)) / hz / TICK_S) * TICK_S


def _wave(ions: FloatArray, turn: float, first: int) -> complex:
    """Amplitude of a wave of `turn` rad a tick, over a straight line through them."""
    ticks = np.arange(ions.size)
    fit = np.polynomial.polynomial
    return complex(2.0 * np.mean((ions / fit.polyval(ticks, fit.polyfit(ticks, ions, 1)) - 1.0)
                                 * np.exp(-1j * turn * (first + ticks))))  # fmt: skip


def _play(plant: Plant, amplitudes: FloatArray) -> FloatArray:
    """Let exciter or core have these amplitudes, one a tick, over what the generator asks for; ions by tick."""
    place = Fault("rfko.on", FaultKind.SCALE, 1.0)
    plant.inject(place)
    first = plant.truth_count
    for amplitude in amplitudes.tolist():
        plant._faults[place.index(), fp.F_VALUE] = amplitude
        end_ns = plant.t_ns + TICK_NS
        while plant.t_ns < end_ns:  # an event ends an advance before its time
            plant.advance(end_ns)
    return np.asarray(plant.trace["ions"][np.arange(first, plant.truth_count) % plant.trace.size], np.float64)
