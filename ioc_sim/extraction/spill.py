"""What the live rate model has to be calibrated with: transit times, stop tail, start, response to ripple.

Each function tracks one beam and returns arrays in SI units (the suffix says which); rates are relative to the beam or
to the steady rate, because a run of some 1e4 particles stands for a fill of 1e9 ions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facility.config import Facility
from facility.errors import ConfigError
from facility.physics import beta, gamma, revolution_frequency_hz
from ioc_sim.extraction.kernel import APERTURE, CATHODE, EXTRACTED, STORED, WIRE
from ioc_sim.extraction.kobayashi import FloatArray
from ioc_sim.extraction.optics import KnockOut, Optics, load_optics
from ioc_sim.extraction.tracking import Line, Particles, Programme, Tracker, gaussian_beam

FATES = {"stored": STORED, "extracted": EXTRACTED, "lost on wires": WIRE, "lost on cathode": CATHODE,
         "lost on aperture": APERTURE}  # fmt: skip
WATCH_TURNS = 3
LEAST_IONS = 200
"""Extracted particles below which a figure is not worth giving."""


@dataclass(frozen=True)
class Setting:
    """Ring, energy and size of a run.

    Attributes:
        optics: the ring.
        f_rev_hz: revolution frequency.
        beta_gamma: of the ions: their momentum over rest mass.
        particles, turns, seed: how many, how long, which random numbers.
    """

    optics: Optics
    f_rev_hz: float
    beta_gamma: float
    particles: int
    turns: int
    seed: int


@dataclass(frozen=True)
class Spill:
    """A spill: when each extracted particle reached the septum, and how long it had been on its way.

    Attributes:
        setting, programme: what was tracked.
        time_s: arrival of the extracted particles, from turn 0, in order.
        transit_s: of the same particles, from the last time they were seen inside their triangle (every third
            turn) to their arrival; NaN for one that never was.
        counts: particles by what became of them.
        beam: the particles themselves.
    """

    setting: Setting
    programme: Programme
    time_s: FloatArray
    transit_s: FloatArray
    counts: dict[str, int]
    beam: Particles

    def rate(self, bin_s: float) -> tuple[FloatArray, FloatArray]:
        """Middle of the bins (s), and the share of the whole beam extracted per second."""
        edges = np.arange(0.0, self.setting.turns / self.setting.f_rev_hz + 0.5 * bin_s, bin_s)
        counts, _ = np.histogram(self.time_s, edges)
        return 0.5 * (edges[1:] + edges[:-1]), counts / (bin_s * self.setting.particles)

    def efficiency(self) -> float:
        """Extracted over all that left the ring."""
        gone = self.setting.particles - self.counts["stored"]
        return self.counts["extracted"] / gone if gone else float("nan")


def run_spill(setting: Setting, programme: Programme | None = None) -> Spill:
    """Track a Gaussian beam through the programme (default: drive on from turn 0)."""
    plan = programme or Programme()
    beam = gaussian_beam(setting.optics, setting.particles, setting.beta_gamma, setting.seed)
    Tracker(setting.optics, beam, plan, setting.seed, watch=WATCH_TURNS).advance(setting.turns)
    out = np.flatnonzero(beam.status == EXTRACTED)
    out = out[np.argsort(beam.end_turn[out], kind="stable")]
    inside = beam.inside_turn[out]
    transit = np.where(inside >= 0, (beam.end_turn[out] - inside) / setting.f_rev_hz, np.nan)
    counts = {name: beam.count(status) for name, status in FATES.items()}
    return Spill(setting, plan, beam.end_turn[out] / setting.f_rev_hz, transit, counts, beam)


def transit_distribution(spill: Spill, bin_s: float = 5e-6) -> tuple[FloatArray, FloatArray]:
    """Middle of the bins (s) and density (1/s) of the transit times; the integral is 1."""
    known = spill.transit_s[np.isfinite(spill.transit_s)]
    _enough(known.size, "transit times")
    edges = np.arange(0.0, float(known.max()) + bin_s, bin_s)
    counts, _ = np.histogram(known, edges)
    return 0.5 * (edges[1:] + edges[:-1]), counts / (bin_s * known.size)


@dataclass(frozen=True)
class Interruption:
    """What still comes when the drive stops, and how the spill begins again; the mean over many stops of one spill.

    Attributes:
        time_s: middle of the bins, from the stop.
        tail_rel: rate after the stop, over the mean rate of the spill in all the time of the stops.
        tail_s: ions that still come, in seconds of that mean rate.
        left_s: (share, time): when the ions still to come have fallen to this share of all that came after the stop.
        restart_time_s: middle of the bins, from the moment the drive is on again.
        restart_rel: rate after that, over the mean rate that the spill without a stop has from the stop on.
        overshoot_rel: largest of `restart_rel`, less 1.
        delay_s: until `restart_rel` first reaches one half; NaN if never.
        counts: ions that came after the stops, after the restarts, and in that time without a stop.
    """

    time_s: FloatArray
    tail_rel: FloatArray
    tail_s: float
    left_s: dict[float, float]
    restart_time_s: FloatArray
    restart_rel: FloatArray
    overshoot_rel: float
    delay_s: float
    counts: tuple[int, int, int]

    @property
    def overshoot_error(self) -> float:
        """One sigma of the overshoot by counting."""
        bins = max(1, self.restart_rel.size)
        return float(np.sqrt(max(self.restart_rel.max(), 0.0) * bins / max(1, self.counts[1])))


@dataclass(frozen=True)
class Stops:
    """When the drive is stopped: `count` times from `first_turn`, `every_turns` apart, for `pause_turns` each;
    what follows a stop is watched for `tail_turns`, what follows the restart for `restart_turns`."""

    first_turn: int
    count: int
    every_turns: int
    pause_turns: int
    tail_turns: int
    restart_turns: int


def default_stops(setting: Setting, count: int = 16) -> Stops:
    """Stops spread evenly over the last two thirds of the run; pause and tail 1.2 ms, watched for 2 ms after it."""
    first = setting.turns // 3
    ms = setting.f_rev_hz * 1e-3
    every = max(1, (setting.turns - first) // count)
    return Stops(first, count, every, round(1.2 * ms), round(1.2 * ms), round(2.0 * ms))


def interrupt(setting: Setting, stops: Stops, tail_bin_s: float = 1e-5, restart_bin_s: float = 2e-4) -> Interruption:
    """Track one spill, and from each stop a branch of it with the drive off, then on again."""
    beam = gaussian_beam(setting.optics, setting.particles, setting.beta_gamma, setting.seed)
    main = Tracker(setting.optics, beam, Programme(), setting.seed)
    main.advance(stops.first_turn)
    tails: list[FloatArray] = []
    restarts: list[FloatArray] = []
    for _ in range(stops.count):
        pause = main.branch(Programme(drive_off=main.turn))
        tails.append(_arrivals(pause, max(stops.tail_turns, stops.pause_turns)))
        again = pause.branch(Programme(drive_on=pause.turn))
        restarts.append(_arrivals(again, stops.restart_turns))
        main.advance(stops.every_turns)
    main.advance(stops.restart_turns)
    f, span = setting.f_rev_hz, stops.count * stops.every_turns
    steady = _between(main.beam, stops.first_turn, stops.first_turn + span)
    moments = [stops.first_turn + i * stops.every_turns for i in range(stops.count)]
    going_on = sum(_between(main.beam, turn, turn + stops.restart_turns) for turn in moments)
    _enough(min(steady, going_on), "ions while the drive is on")
    rate = steady / span * f * stops.count
    late, back = np.concatenate(tails) / f, np.concatenate(restarts) / f
    time_s, tail_rel = _relative(late, stops.tail_turns / f, tail_bin_s, rate)
    again_s, restart_rel = _relative(back, stops.restart_turns / f, restart_bin_s, going_on / stops.restart_turns * f)
    left = {q: float(np.quantile(late, 1.0 - q)) if late.size else 0.0 for q in (0.5, 0.1, 0.01)}
    reached = np.flatnonzero(restart_rel >= 0.5)
    return Interruption(
        time_s, tail_rel, late.size / rate, left, again_s, restart_rel,
        float(restart_rel.max()) - 1.0, float(again_s[reached[0]]) if reached.size else float("nan"),
        (late.size, back.size, steady),
    )  # fmt: skip


def _arrivals(tracker: Tracker, turns: int) -> FloatArray:
    """Turns from now at which particles reach the septum."""
    start = tracker.turn
    beam = tracker.advance(turns)
    return np.asarray(beam.end_turn[beam.status == EXTRACTED] - start, dtype=np.float64)


def _between(beam: Particles, first: int, last: int) -> int:
    """How many were extracted in the turns [first, last)."""
    return int(np.count_nonzero((beam.status == EXTRACTED) & (beam.end_turn >= first) & (beam.end_turn < last)))


def _relative(times_s: FloatArray, span_s: float, bin_s: float, rate: float) -> tuple[FloatArray, FloatArray]:
    """Middle of the bins, and the rate in them over `rate` (1/s)."""
    edges = np.arange(0.0, span_s + 0.5 * bin_s, bin_s)
    counts, _ = np.histogram(times_s, edges)
    return 0.5 * (edges[1:] + edges[:-1]), counts / (bin_s * rate)


@dataclass(frozen=True)
class Start:
    """The first start of a spill with a drive of constant strength, the mean over several seeds.

    Attributes:
        time_s: middle of the bins, from the moment the drive is on.
        rate_rel: rate over its mean in the second half of that time.
        overshoot_rel: largest rate of the first half over that mean, less 1; negative where the spill only grows.
        overshoot_error: one sigma of it: the scatter of that bin from seed to seed over the root of their number.
        delay_s: until the rate first reaches half of that mean.
    """

    time_s: FloatArray
    rate_rel: FloatArray
    overshoot_rel: float
    overshoot_error: float
    delay_s: float


def start_response(setting: Setting, bin_s: float, ramp_turns: int = 2000, repeats: int = 4) -> Start:
    """Sextupoles rise over `ramp_turns`, the beam settles for as long again, then the drive is switched on."""
    on = 2 * ramp_turns
    bins = int((setting.turns - on) / setting.f_rev_hz / bin_s)
    if bins < 4:
        raise ConfigError("tracking.turns", f"turns = {setting.turns}", "",
                          f"at least four bins of {bin_s:g} s after turn {on}, where the drive begins")  # fmt: skip
    edges = on / setting.f_rev_hz + bin_s * np.arange(bins + 1)
    plan = Programme(drive_on=on, ramp_turns=ramp_turns)
    spills = [run_spill(replace(setting, seed=setting.seed + i), plan) for i in range(repeats)]
    counts = np.array([np.histogram(spill.time_s, edges)[0] for spill in spills], np.float64)
    _enough(int(counts[:, bins // 2 :].sum()), "ions in the second half")
    each = counts / counts[:, bins // 2 :].mean()
    rate = np.asarray(each.mean(axis=0), np.float64)
    peak = int(np.argmax(rate[: bins // 2]))
    error = float(each[:, peak].std(ddof=1) / np.sqrt(repeats)) if repeats > 1 else float("nan")
    delay = bin_s * (0.5 + float(np.argmax(rate >= 0.5)))
    middle = np.asarray(bin_s * (0.5 + np.arange(bins)), dtype=np.float64)
    return Start(middle, rate, float(rate[peak]) - 1.0, error, delay)


@dataclass(frozen=True)
class Response:
    """Relative modulation of the rate by ripple of the tune.

    Attributes:
        frequency_hz: of each line.
        tune_amplitude: dQ of each line.
        modulation_rel: amplitude of the rate over its mean at this frequency.
        gain: modulation over tune amplitude, 1 / dQ.
        phase_rad: of the rate against the tune's sine.
        floor_rel: the same at frequencies between the lines, root mean square: what is not response.
    """

    frequency_hz: FloatArray
    tune_amplitude: FloatArray
    modulation_rel: FloatArray
    gain: FloatArray
    phase_rad: FloatArray
    floor_rel: float


def ripple_response(
    setting: Setting, frequencies_hz: Sequence[float], tune_amplitude: float, skip_turns: int, repeats: int = 4
) -> Response:
    """All lines at once, each with `tune_amplitude`, against a run without; the mean over `repeats` seeds.

    Frequencies move to the nearest whole number of periods in the turns after `skip_turns`. With the same seed both
    runs have the same beam and exciter, so that the exciter's own lines drop out as far as the response is linear.
    """
    span = setting.turns - skip_turns
    if span <= 0:
        raise ConfigError("tracking.skip", f"skip_turns = {skip_turns}", "", f"below {setting.turns} turns")
    periods = np.maximum(1.0, np.round(np.asarray(frequencies_hz, np.float64) / setting.f_rev_hz * span))
    per_turn = periods / span
    between = (periods + np.where(periods > 3.0, 2.0, 1.0)) / span
    between = between[~np.isin(between, per_turn)]
    phases = 2.0 * np.pi * (np.arange(per_turn.size) * 0.618034 % 1.0)
    lines = tuple(Line(tune_amplitude, float(f), float(a)) for f, a in zip(per_turn, phases, strict=True))
    at = np.concatenate([per_turn, between])
    z = np.zeros(at.size, np.complex128)
    for repeat in range(repeats):
        one = replace(setting, seed=setting.seed + repeat)
        with_lines, without = run_spill(one, Programme(ripple=lines)), run_spill(one)
        z += (_lines_of(with_lines, at, skip_turns) - _lines_of(without, at, skip_turns)) / repeats
    response, other = z[: per_turn.size], z[per_turn.size :]
    amplitude = np.abs(response)
    floor = float(np.sqrt(np.mean(np.abs(other) ** 2))) if other.size else float("nan")
    phase = np.angle(np.conj(response) * np.exp(-1j * phases) * 1j)
    return Response(per_turn * setting.f_rev_hz, np.full(per_turn.size, tune_amplitude), amplitude,
                    amplitude / tune_amplitude, phase, floor)  # fmt: skip


def _lines_of(spill: Spill, per_turn: FloatArray, skip_turns: int) -> np.ndarray:
    """Complex amplitude A exp(-i phase) of each line A cos(2 pi f t + phase) of the rate, relative to its mean."""
    turns = spill.time_s * spill.setting.f_rev_hz
    turns = turns[turns >= skip_turns]
    _enough(turns.size, "ions after the skipped turns")
    return np.asarray(2.0 * np.exp(2j * np.pi * np.outer(per_turn, turns)).mean(axis=1))


def setting_of(
    facility: Facility, species: str, energy_mev_u: float, particles: int, turns: int, seed: int,
    config_dir: Path | None = None,
) -> Setting:  # fmt: skip
    """The setting of a facility's ring at an energy; ConfigError where it has no optics or no such energy."""
    ion = facility.species_named(species)
    low, high = ion.energy_min_mev_u, ion.energy_max_mev_u
    if not low <= energy_mev_u <= high:
        raise ConfigError("tracking.energy", f"energy = {energy_mev_u:g} MeV/u", f"{facility.id}, {species}",
                          f"{low:g} to {high:g} MeV/u")  # fmt: skip
    f_rev = float(revolution_frequency_hz(energy_mev_u, ion, facility.ring.circumference_m))
    beta_gamma = float(beta(energy_mev_u, ion) * gamma(energy_mev_u, ion))
    return Setting(load_optics(facility.id, config_dir), f_rev, beta_gamma, particles, turns, seed)


def with_drive(setting: Setting, scale: float) -> Setting:
    """The same with another exciter amplitude or core voltage."""
    drive = setting.optics.drive
    key = "kick_urad" if isinstance(drive, KnockOut) else "delta_per_turn"
    changed = drive.model_copy(update={key: scale * getattr(drive, key)})
    return replace(setting, optics=setting.optics.model_copy(update={"drive": changed}))


def _enough(count: int, what: str) -> None:
    if count < LEAST_IONS:
        raise ConfigError("tracking.few", f"{count} {what}", "",
                          f"at least {LEAST_IONS}: more particles, more turns or a stronger drive")  # fmt: skip
