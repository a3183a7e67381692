"""The spill that the plant makes, by truth: one long spot through the very kernel that delivers plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.config import Facility, change_facility
from facility.errors import InternalError
from facility.physics import beta, gamma
from facility.pv_catalogue import SPOT_COLUMNS
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import Fault
from ioc_sim.plant import Plant

FloatArray = npt.NDArray[np.float64]
BIN_TICKS = 10
"""100 us: a duty factor at 10 kHz."""
TICK_S = 1e-5
SETTLE_S = 0.2
EMPTY_S = 10.0
LONGEST_S = 5.0
EDGE_FULL = 1e3
"""So many times what the ring holds has left it."""
SPECTRUM_TICKS = 20_000
SHOWN_HZ = 10_000.0
LEAST_HZ = 40.0
NOISE_S = 3.0
LINE_S = 0.2
SMOOTH: dict[str, Any] = {"extraction.exciter_noise_rms": 0.0, "extraction.converter_noise": 0.0,
                          "extraction.start_overshoot_rel": 0.0, "extraction.loop_bandwidth_hz": 0.0}  # fmt: skip
TOKEN, FIELD = 1, 1
_SLICE_NS = 200_000_000


@dataclass(frozen=True, eq=False)
class LiveSpill:
    """Ions that crossed the isocentre in each tick of 10 us, once the spill had settled.

    `stored_ions`: in the ring in the middle of them.
    """

    energy_mev_u: float
    level_ions_per_s: float
    f_rev_hz: float
    stored_ions: float
    ions: FloatArray

    @property
    def duty_factor(self) -> float:
        """Mean squared over mean square of the rate in 100 us bins."""
        return duty_factor(self.ions)

    @property
    def poisson_limit(self) -> float:
        """What counting alone leaves of a duty factor of 1."""
        return 1.0 / (1.0 + 1.0 / (float(self.ions.mean()) * BIN_TICKS))

    def spectrum(self) -> tuple[FloatArray, FloatArray]:
        """Frequencies, Hz, and amplitude of a sinusoid over the mean rate there, mean of stretches of 0.2 s."""
        size = min(SPECTRUM_TICKS, self.ions.size)
        parts = self.ions[: self.ions.size // size * size].reshape(-1, size)
        window = np.hanning(size)
        power = np.abs(np.fft.rfft(parts * window)) ** 2
        amplitude = 2.0 * np.sqrt(power.mean(axis=0)) / (window.sum() * self.ions.mean())
        return np.asarray(np.fft.rfftfreq(size, TICK_S), np.float64), np.asarray(amplitude, np.float64)


@dataclass(frozen=True, eq=False)
class Waterbed:
    """Noise with the intensity loop over the same noise without, by third of an octave; no mains lines."""

    hz: FloatArray
    ratio: FloatArray

    @property
    def peak(self) -> tuple[float, float]:
        """Where the loop makes most of the noise, Hz, and by how much."""
        worst = int(np.argmax(self.ratio))
        return float(self.hz[worst]), float(self.ratio[worst])


@dataclass(frozen=True, eq=False)
class LivePair:
    """The same spill with the intensity loop and without."""

    loop: LiveSpill
    no_loop: LiveSpill
    waterbed: Waterbed

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        bed = {"frequency_hz": self.waterbed.hz.tolist(), "noise_ratio": self.waterbed.ratio.tolist()}
        return {"loop": live_figures(self.loop), "no_loop": live_figures(self.no_loop), "waterbed": bed}


def live_pair(facility: Facility, species: str, energy_mev_u: float, seconds: float = 0.4, seed: int = 1) -> LivePair:
    """At the level that comes nearest to emptying a full ring in `EMPTY_S`."""
    ion = facility.species_named(species)
    level = min(ion.intensity_levels_ions_per_s, key=lambda one: abs(one - ion.fill_ions / EMPTY_S))
    without = change_facility(facility, {"extraction.loop_bandwidth_hz": 0.0})
    loop, none = (live_spill(one, species, energy_mev_u, level, seconds, seed=seed) for one in (facility, without))
    return LivePair(loop, none, waterbed(facility, species, energy_mev_u, level, seed=seed))


def waterbed(facility: Facility, species: str, energy_mev_u: float, level_ions_per_s: float, *, seed: int) -> Waterbed:
    """The same noise twice, without mains lines: what the loop takes of it, and where it adds to it."""
    quiet = change_facility(facility, {"extraction.supply_ripple": []})
    both = (quiet, change_facility(quiet, {"extraction.loop_bandwidth_hz": 0.0}))
    spectra = [live_spill(one, species, energy_mev_u, level_ions_per_s, NOISE_S, seed=seed).spectrum() for one in both]
    (hz, loop), (_, none) = spectra
    centre = np.geomspace(LEAST_HZ, SHOWN_HZ / 2.0, int(3.0 * np.log2(SHOWN_HZ / 2.0 / LEAST_HZ)) + 1)
    bands = [np.abs(np.log2(np.maximum(hz, 1.0) / one)) < 1.0 / 6.0 for one in centre]
    ratio = [float(np.sqrt(np.sum(loop[band] ** 2) / np.sum(none[band] ** 2))) for band in bands]
    return Waterbed(np.asarray(centre, np.float64), np.asarray(ratio, np.float64))


def duty_factor(ions: FloatArray) -> float:
    """Mean squared over mean square of the ions in 100 us bins."""
    bins = ions[: ions.size // BIN_TICKS * BIN_TICKS].reshape(-1, BIN_TICKS).sum(axis=1)
    return float(bins.mean() ** 2 / np.mean(bins**2))


def beam_on(
    facility: Facility, species: str, energy_mev_u: float, level_ions_per_s: float, seed: int = 1,
    *, first_start: bool = False, faults: Sequence[Fault] = (),
) -> tuple[Plant, int]:  # fmt: skip
    """A plant at the beginning of a long spot from a full ring, and its energy code; more faults are allowed.

    The edge of its beam is full, as at an operating point of calibration; with `first_start` it has still to fill.
    """
    plant = Plant(facility, next(iter(facility.rooms)), species, seed=seed, allow_faults=True)
    for fault in faults:
        plant.inject(fault)
    plant.set_safety_lines(True, False, True, field=FIELD, personnel=True)
    plant.set_room_beam(True)
    plant.open_field(FIELD, 1e15, 1e9)
    plant.advance(1_000_000_000)
    code = int(np.argmin(np.abs(plant.table.energy_mev_u - energy_mev_u)))
    table = np.zeros((1, len(SPOT_COLUMNS)))
    table[0, SPOT_COLUMNS.index("target_ions")] = level_ions_per_s * LONGEST_S * 2.0
    table[0, SPOT_COLUMNS.index("limit_us")] = 1e9
    plant.request_cycle(TOKEN, code)
    plant.load_layer(TOKEN, code, level_ions_per_s, table)
    plant.arm(TOKEN, plant.status.permit_epoch)
    while not any(event.kind == "BEAM_ON" for event in plant.take_events()):
        if plant.t_ns > 60_000_000_000:
            raise InternalError("study.spill", "no beam within a minute", facility.id, "report this")
        plant.advance(plant.t_ns + _SLICE_NS)
    if not first_start:
        ring = plant._state[0]
        ring.begun_ions *= EDGE_FULL
        ring.sensitivity = ring.cycle_gain
    return plant, code


def live_spill(
    facility: Facility, species: str, energy_mev_u: float, level_ions_per_s: float, seconds: float, *, seed: int = 1,
    settle_s: float = SETTLE_S,
) -> LiveSpill:  # fmt: skip
    """Beam of one level from a full ring for some seconds, without interlocks; the nearest energy of the table."""
    plant, code = beam_on(facility, species, energy_mev_u, level_ions_per_s, seed)
    ions_of(plant, settle_s)
    before = plant.status.stored_ions
    ions = ions_of(plant, min(seconds, LONGEST_S))
    stored = 0.5 * (before + plant.status.stored_ions)
    f_rev = float(plant.table.f_rev_hz[code])
    return LiveSpill(float(plant.table.energy_mev_u[code]), level_ions_per_s, f_rev, stored, ions)


@dataclass(frozen=True)
class Response:
    """Modulation of the rate over ripple of the supplies: by truth and by the calibrated model at the same drive."""

    drive: float
    truth: float
    model: float


def line_response(
    facility: Facility, species: str, energy_mev_u: float, level_ions_per_s: float, hz: float, ripple: float
) -> Response:  # fmt: skip
    """Height of a line of this frequency, Hz, and amplitude over the current, without loop, noise or overshoot."""
    found = live_spill(
        change_facility(facility, SMOOTH | {"extraction.supply_ripple": [[hz, ripple]]}),
        species, energy_mev_u, level_ions_per_s, LINE_S,
    )  # fmt: skip
    per_tick = hz * TICK_S
    ions = found.ions[: round(int(found.ions.size * per_tick) / per_tick)]  # whole periods
    wave = ions @ np.exp(2j * np.pi * per_tick * np.arange(ions.size)) / ions.sum()
    drive, momentum, tune = _at(facility, species, found)
    answer = abs(load_spill_table(facility).ripple(np.array([hz / found.f_rev_hz]), drive, momentum)[0])
    return Response(drive, 2.0 * float(abs(wave)) / ripple, float(answer) * tune)


def converter_response(facility: Facility, species: str, energy_mev_u: float, level_ions_per_s: float) -> Response:
    """Rms of the rate by the file's converter noise alone, what counting adds and bins of 100 us take put right."""
    spill = facility.extraction
    changes = SMOOTH | {"extraction.converter_noise": spill.converter_noise, "extraction.supply_ripple": []}
    found = live_spill(
        change_facility(facility, changes), species, energy_mev_u, level_ions_per_s, NOISE_S
    )  # fmt: skip
    ratio = 1e6 * TICK_S * BIN_TICKS / spill.duty_noise_tau_us
    kept = 2.0 * (ratio - 1.0 + math.exp(-ratio)) / ratio**2
    variance = (1.0 / found.duty_factor - 1.0 / found.poisson_limit) / kept
    drive, momentum, tune = _at(facility, species, found)
    rms = load_spill_table(facility).converter_rms(found.f_rev_hz, momentum, spill.duty_noise_tau_us * 1e-6, drive)
    return Response(drive, math.sqrt(max(0.0, variance)) / spill.converter_noise, rms * tune)


def _at(facility: Facility, species: str, found: LiveSpill) -> tuple[float, float, float]:
    """Drive over that of the ring's file, beta gamma, and tune over ripple of the supplies, of this spill."""
    ion, spill = facility.species_named(species), facility.extraction
    share = found.level_ions_per_s / ion.transmission / found.stored_ions / found.f_rev_hz
    momentum = float(beta(found.energy_mev_u, ion) * gamma(found.energy_mev_u, ion))
    return load_spill_table(facility).drive_for(share), momentum, spill.tune_per_supply / spill.channelling


def ions_of(plant: Plant, seconds: float) -> FloatArray:
    """The truth of so many seconds from now on."""
    end_ns, parts = plant.t_ns + round(seconds * 1e9), [np.zeros(0)]
    while plant.t_ns < end_ns:
        first = plant.truth_count
        plant.advance(min(end_ns, plant.t_ns + _SLICE_NS))
        parts.append(np.asarray(plant.trace["ions"][np.arange(first, plant.truth_count) % plant.trace.size], float))
    return np.concatenate(parts)


def live_figures(found: LiveSpill) -> dict[str, Any]:
    """Numbers and the spectrum as plain data."""
    hz, amplitude = found.spectrum()
    shown = hz <= SHOWN_HZ
    return {
        "energy_mev_u": found.energy_mev_u, "level_ions_per_s": found.level_ions_per_s,
        "stored_ions": found.stored_ions, "duty_factor_10khz": found.duty_factor, "poisson_limit": found.poisson_limit,
        "spectrum": {"frequency_hz": hz[shown].tolist(), "amplitude_rel": amplitude[shown].tolist()},
    }  # fmt: skip
