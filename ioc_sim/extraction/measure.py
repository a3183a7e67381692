"""Operating points of a spill for calibration: stop, restart and ripple at one drive, with their errors.

An operating point is a beam whose edge has been filled by the full drive and has come to rest with the drive of the
point: what a spill is in its middle. Times are in turns, for one turn is like another at every energy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facility.errors import ConfigError
from ioc_sim.extraction.core_transit import triangle_distance
from ioc_sim.extraction.kernel import EXTRACTED, STORED
from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray
from ioc_sim.extraction.optics import KnockOut
from ioc_sim.extraction.points import Effort
from ioc_sim.extraction.spill import LEAST_IONS, Setting, with_drive
from ioc_sim.extraction.tracking import Line, Particles, Programme, Tracker, gaussian_beam

STEP_TURNS = 1024
FILL_SHARE = 0.25
"""Share of the beam that the full drive extracts before the drive of the point takes over."""
SETTLE_TURNS = 4000
"""Over the drive: the edge of the beam has then taken the shape of the new drive."""
MOST_FILL_TURNS = 2_000_000
SLOW_DRIVE = 0.01
"""A core slower than that is slowed down by steps, and only those ions are tracked that leave while it is looked at."""
SLOWER = 10.0
"""A step; what a core's speed has done to the edge is undone after `SETTLE_TURNS` of the speed before."""
RESTART_EVERY = 2
"""Every so many stops the drive comes on again."""
PAUSE, RESTART = 10, (4, 12)
"""In transit times: how long a stop lasts, and when its level is looked at once the drive is on again (of a core's ions
some hundredths are slower still)."""
FIRST_SEED = 1
DRIVE_AMPLITUDE = 0.2
"""Relative amplitude of each line of ripple of exciter or core."""
BIN_TURNS = 25
MOST_BINS = 400
WINDOWS = (300, 1000)
"""Bins, turns, in which the roughness of the spill is told: some 110 and 360 us."""


@dataclass(frozen=True)
class StopPoint:
    """After a stop, the mean over all stops and seeds; turns.

    Attributes:
        mean_turns, sd_turns: of the time that an ion is on its way: ions that still come over the rate before, and its
            spread from the second moment of their arrivals.
        mean_error: one sigma of the mean, by the scatter of the seeds.
        survival: rate over the rate before, in bins of `BIN_TURNS` turns: the share of ions that take longer.
        restart_rel, restart_error: mean rate once the transit has filled again after the drive is on again, over that
            of a spill without a stop with as many ions in the ring.
        share_per_turn: rate over the ions stored.
        roughness: variance over squared mean of the rate in bins of `WINDOWS` turns, without counting noise.
        ions: how many came after all stops.
    """

    mean_turns: float
    mean_error: float
    sd_turns: float
    survival: FloatArray
    restart_rel: float
    restart_error: float
    share_per_turn: float
    roughness: tuple[float, ...]
    ions: int


@dataclass(frozen=True)
class RipplePoint:
    """Response of the relative rate to lines of the tune (1 / dQ) or of the drive (1): complex, with one sigma."""

    per_turn: FloatArray
    gain: ComplexArray
    error: FloatArray


def filled(setting: Setting, share: float, seed: int, step: int = STEP_TURNS) -> Tracker:
    """A beam of which the full drive has extracted this share."""
    one = replace(setting, seed=seed)
    beam = gaussian_beam(one.optics, one.particles, one.beta_gamma, seed)
    filling = Tracker(one.optics, beam, Programme(), seed)
    while beam.count(EXTRACTED) < share * beam.x.size:
        if filling.turn >= MOST_FILL_TURNS or not np.any(beam.status == STORED):
            raise ConfigError("tracking.fill", f"{beam.count(EXTRACTED)} of {beam.x.size} extracted after"
                              f" {filling.turn} turns", "", "a drive that extracts the beam")  # fmt: skip
        filling.advance(step)
    return filling


def operating_point(setting: Setting, drive: float, seed: int, turns: int = 0) -> Tracker:
    """A tracker in the middle of a spill at `drive` times the drive of the ring's file, to be looked at for so many
    turns (of a core below `SLOW_DRIVE` it has no other ions)."""
    point = filled(setting, FILL_SHARE, seed)
    if isinstance(setting.optics.drive, KnockOut) or drive >= SLOW_DRIVE:
        point = point.branch(Programme(), with_drive(setting, drive).optics)
        point.advance(round(SETTLE_TURNS / drive))
        return point
    before, speeds = 1.0, _speeds(drive)
    for number, speed in enumerate(speeds):
        if number > 0:
            ahead = SETTLE_TURNS * sum([before, *speeds[number:-1]]) + turns * drive
            point = _leaving_within(point, round((ahead + 2.0 * SETTLE_TURNS * before) / before))
        point = point.branch(Programme(), with_drive(setting, speed).optics)
        point.advance(round(SETTLE_TURNS * before / speed))
        before = speed
    return point


def _speeds(drive: float) -> list[float]:
    """By which a slow core slows down."""
    return [max(drive, SLOWER**-step) for step in range(1, 1 + math.ceil(-math.log(drive, SLOWER) - 1e-9))]


def settle_moves(drive: float) -> float:
    """How far a core goes while it comes to rest at this drive, as turns of the full drive."""
    speeds = [1.0, *_speeds(drive)] if drive < SLOW_DRIVE else [1.0]
    return SETTLE_TURNS * sum(speeds[:-1] or speeds)


def _leaving_within(point: Tracker, turns: int) -> Tracker:
    """The same with those ions only that leave within so many turns of the present speed."""
    probe = point.branch(Programme())
    gone = probe.advance(turns).status != STORED
    return point.branch(Programme(), only=gone)


def restart_rate(
    setting: Setting, drive: float, then: float, edges: FloatArray, effort: Effort
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Rate over the ions stored in bins of these turns from a restart on, over that before, and one sigma by the
    scatter of the seeds: a spill at `drive` that has come to rest, a pause of ten transits, the drive `then`."""
    one, rows, before = replace(setting, particles=effort.particles), [], []
    for seed in range(FIRST_SEED, FIRST_SEED + effort.seeds):
        point = operating_point(one, drive, seed)
        pause = point.branch(Programme(drive_off=point.turn))
        pause.advance(PAUSE * transit_guess(one))
        spill = pause.branch(Programme(), with_drive(one, then).optics)
        rows.append(rate_over_stored(spill, edges)[0])
        before.append(float(rate_over_stored(point, np.array([0.0, effort.turns]))[0][0]))
    each = np.array(rows) / np.mean(before)
    error = np.hypot(each.std(axis=0, ddof=1) / np.mean(each, axis=0), np.std(before, ddof=1) / np.mean(before))
    return each.mean(axis=0), each.mean(axis=0) * error / np.sqrt(effort.seeds)


def rate_over_stored(point: Tracker, edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Extracted per turn over the ions stored, and how many those are, in bins of these turns from now on."""
    start = point.turn
    beam = point.advance(int(edges[-1]))
    left = np.sort(beam.end_turn[beam.status != STORED]) - start
    stored = beam.x.size - np.searchsorted(left, 0.5 * (edges[1:] + edges[:-1]))
    counts, _ = np.histogram(_arrivals(beam, start), edges)
    return np.asarray(counts / np.diff(edges) / stored, np.float64), np.asarray(stored, np.float64)


def stop_point(setting: Setting, drive: float, effort: Effort) -> StopPoint:
    """Stop the drive again and again, each time in a branch of its own, and begin again in every second."""
    one = replace(setting, particles=effort.particles)
    seeds = [_stops_of(one, drive, effort, FIRST_SEED + i) for i in range(effort.seeds)]
    late = np.concatenate([one.late for one in seeds])
    steady = np.concatenate([one.steady for one in seeds])
    again, going_on = sum(one.again for one in seeds), sum(one.going_on for one in seeds)
    ratios = np.array([one.again / one.going_on if one.going_on else np.nan for one in seeds])
    if min(late.size, going_on) < LEAST_IONS:
        raise ConfigError("tracking.few", f"{min(late.size, going_on)} ions after the stops", "",
                          f"at least {LEAST_IONS}: more particles or a stronger drive")  # fmt: skip
    rate = steady.size / effort.seeds / effort.turns
    mean = late.size / effort.seeds / effort.stops / rate
    each = np.array([one.late.size / effort.stops / (one.steady.size / effort.turns) for one in seeds])
    # arrivals after a stop have the density of those that take longer: their mean is E[T^2] / (2 E[T])
    variance = 2.0 * float(late.mean()) * mean - mean**2
    counts, _ = np.histogram(late, BIN_TURNS * np.arange(MOST_BINS + 1))
    survival = counts / (effort.seeds * effort.stops * rate * BIN_TURNS)
    share = float(np.mean([one.share for one in seeds]))
    rough = tuple(float(np.mean([_roughness(one.steady, effort.turns, w) for one in seeds])) for w in WINDOWS)
    return StopPoint(mean, _error(each), float(np.sqrt(max(variance, 0.0))), np.asarray(survival, np.float64),
                     again / going_on, _error(ratios), share, rough, late.size)  # fmt: skip


@dataclass(frozen=True)
class _Stops:
    """One seed: arrivals after stops, arrivals of the spill that was not stopped (turns), its share per turn, ions
    after restarts, and in the same time without a stop from a ring that has kept what the pause has."""

    late: FloatArray
    steady: FloatArray
    share: float
    again: int
    going_on: float


def _stops_of(setting: Setting, drive: float, effort: Effort, seed: int) -> _Stops:
    reference = transit_guess(setting)
    pause_turns, window = PAUSE * reference, (RESTART[0] * reference, RESTART[1] * reference)
    point = operating_point(setting, drive, seed, effort.turns + pause_turns + window[1])
    start, every = point.turn, effort.turns // effort.stops
    before = point.beam.count(STORED)
    late: list[FloatArray] = []
    stopped: list[int] = []
    again = 0
    for number in range(effort.stops):
        pause = point.branch(Programme(drive_off=point.turn))
        late.append(_arrivals(pause.advance(pause_turns), point.turn))
        if number % RESTART_EVERY == 0:
            came = _arrivals(pause.branch(Programme(drive_on=pause.turn)).advance(window[1]), pause.turn)
            again += int(np.count_nonzero(came >= window[0]))
            stopped.append(point.turn - start)
        point.advance(every)
    point.advance(pause_turns + window[1])
    out = _arrivals(point.beam, start)
    out = out[out >= 0]
    steady = out[out < every * effort.stops]
    share = np.log(before / max(1, before - steady.size)) / (every * effort.stops)
    # the exciter is that of the moment, and has taken ions that the pause has kept; a core goes on from where it stood
    shift = pause_turns if isinstance(setting.optics.drive, KnockOut) else 0
    going_on = 0.0
    for turn in stopped:
        again_at = turn + shift
        out_then = np.searchsorted(out, [turn, again_at, again_at + window[0], again_at + window[1]])
        kept = float(before - out_then[0]) / max(1.0, float(before - out_then[1]))
        going_on += float(out_then[3] - out_then[2]) * kept
    return _Stops(np.concatenate(late), steady, float(share), again, going_on)


def transit_guess(setting: Setting) -> int:
    """Turns from a hundredth of the triangle's size outside its corner to the septum: what times are scaled by."""
    optics = setting.optics
    resonance, distance = optics.resonance(), _distance(setting)
    _, _, rho0 = resonance.arm(distance)
    size = optics.septum.position_mm * 1e-3 / np.sqrt(optics.lattice.beta_m)
    w = (size - rho0) / (size + rho0) if size > rho0 else 1.0
    return max(100, round(float(np.log(w / 0.005) / resonance.growth_per_turn(distance))))


def _distance(setting: Setting) -> float:
    """Tune distance at which ions leave: the ring's, or that at which a triangle holds the beam's own emittance."""
    optics = setting.optics
    if isinstance(optics.drive, KnockOut):
        return abs(optics.lattice.distance)
    return triangle_distance(optics, setting.beta_gamma)


def ripple_points(
    setting: Setting, drive: float, per_turn: Sequence[float], amplitude: float | FloatArray, effort: Effort
) -> tuple[RipplePoint, RipplePoint]:  # fmt: skip
    """Of the tune, lines with `amplitude` (or each its own), and of the drive, with `DRIVE_AMPLITUDE`; same beams.

    All lines at once, and once more upside down: which of the two an ion belongs to is what answers, so that the
    exciter's own noise is no error. Least squares over all arrivals of all seeds, in which the gain may grow in
    proportion to time (where the rate falls, a late ion is one of many); that of the middle counts. What goes with an
    even power of the lines comes in both: an exciter's rate goes with its square, so that arrivals of a third run,
    without lines, stand for what both have in common there, or that part (a tenth) would lower the gain by a quarter.
    Frequencies move to the nearest whole number of periods in the turns at the operating point. Phases differ from
    seed to seed. The error is that of leaving out one seed after the other.
    """
    lines_per_turn = np.maximum(1.0, np.round(np.asarray(per_turn, np.float64) * effort.turns)) / effort.turns
    one, heights = replace(setting, particles=effort.particles), np.broadcast_to(amplitude, lines_per_turn.shape)
    both: tuple[list[_Squares], list[_Squares]] = ([], [])
    for seed in range(FIRST_SEED, FIRST_SEED + effort.seeds):
        point = operating_point(one, drive, seed, effort.turns)
        common = _arrived(point.branch(Programme()), effort.turns) if isinstance(one.optics.drive, KnockOut) else None
        for found, height in zip(both, (heights, np.full_like(lines_per_turn, DRIVE_AMPLITUDE)), strict=True):
            found.append(_squares(point, lines_per_turn, height, effort.turns, seed, common, found is both[1]))
    return _response(both[0], lines_per_turn, heights), _response(both[1], lines_per_turn, DRIVE_AMPLITUDE)


_Squares = tuple[FloatArray, FloatArray]


def _response(sums: Sequence[_Squares], per_turn: FloatArray, amplitude: float | FloatArray) -> RipplePoint:
    """Gain of all seeds, and the spread of it when one is left out."""
    left, right = np.sum([a for a, _ in sums], axis=0), np.sum([b for _, b in sums], axis=0)
    gain = _gain(left, right) / amplitude
    without = [_gain(left - a, right - b) / amplitude for a, b in sums] if len(sums) > 1 else []
    spread = np.var(without, axis=0) if without else np.full(per_turn.size, np.nan)
    return RipplePoint(per_turn, gain, np.sqrt((len(sums) - 1) * spread))


def _arrived(spill: Tracker, turns: int) -> FloatArray:
    """When those came that are extracted within so many turns."""
    beam = spill.advance(turns)
    return np.asarray(beam.end_turn[beam.status == EXTRACTED], np.float64)


def _squares(
    point: Tracker, per_turn: FloatArray, heights: FloatArray, turns: int, seed: int, common: FloatArray | None,
    on_drive: bool,
) -> _Squares:  # fmt: skip
    """One seed's least squares of +1 (upright) and -1 (upside down) on the lines at the arrivals, and on 1; `common`:
    arrivals without lines, None: those of both."""
    phases = 2.0 * np.pi * ((np.arange(per_turn.size) * 0.618034 + seed * 0.37) % 1.0)

    def rows(arrived: FloatArray) -> FloatArray:
        wave = -1j * np.exp(1j * (2.0 * np.pi * np.outer(per_turn, arrived) + phases[:, None]))
        along = 2.0 * (arrived - point.turn) / turns - 1.0
        parts = [wave.real, -wave.imag, along * wave.real, -along * wave.imag, np.ones((1, arrived.size))]
        return np.asarray(np.concatenate(parts), np.float64)

    left, right = np.zeros((4 * per_turn.size + 1,) * 2), np.zeros(4 * per_turn.size + 1)
    for sign in (1.0, -1.0):
        lines = tuple(Line(sign * float(height), float(f), float(a))
                      for height, f, a in zip(heights, per_turn, phases, strict=True))  # fmt: skip
        spill = point.branch(Programme(drive_ripple=lines) if on_drive else Programme(ripple=lines))
        came = rows(_arrived(spill, turns))
        base = came if common is None else rows(common)
        left += base @ base.T
        right += sign * came.sum(axis=1)
    return left, right


def _gain(left: FloatArray, right: FloatArray) -> ComplexArray:
    """Complex amplitude of each line."""
    found = np.linalg.solve(left, right)[:-1].reshape(4, -1)
    return np.asarray(found[0] + 1j * found[1], np.complex128)


def ripple_amplitude(setting: Setting, drive: float, per_turn: Sequence[float]) -> float | FloatArray:
    """dQ of a line that modulates the rate by some tenths; it goes with the drive, for a slow spill answers more.

    Of a slow core each line moves the tune with a fifth of the core's speed at most, so that no ion turns back.
    """
    ring = setting.optics.drive
    if not isinstance(ring, KnockOut) and drive < SLOW_DRIVE:
        speed = abs(setting.optics.lattice.chromaticity) * ring.delta_per_turn * drive
        return DRIVE_AMPLITUDE * speed / (2.0 * np.pi * np.asarray(per_turn, np.float64))
    return 1e-5 * drive * (1.0 if isinstance(ring, KnockOut) else 0.5)


def _arrivals(beam: Particles, since: int) -> FloatArray:
    return np.asarray(np.sort(beam.end_turn[beam.status == EXTRACTED]) - since, np.float64)


def _roughness(arrivals: FloatArray, turns: int, window: int) -> float:
    """Relative variance in bins of `window` turns around a slow trend, less that of counting."""
    counts, _ = np.histogram(arrivals, np.arange(0, turns + 1, window))
    x = np.linspace(-1.0, 1.0, counts.size)
    trend = np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, counts, 2))
    mean = float(counts.mean())
    return float((((counts - trend) ** 2).mean() - mean) / mean**2) if mean > 0.0 else float("nan")


def _error(values: FloatArray) -> float:
    return float(np.nanstd(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
