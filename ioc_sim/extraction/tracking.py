"""Track a beam through slow extraction, turn by turn: what left the ring, when, and where.

A run is a function of optics, beam, drive, ripple and seed: random numbers are counter-based, and how many turns are
taken at a time changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from facility.errors import ConfigError
from ioc_sim.extraction import kernel as k
from ioc_sim.extraction.kobayashi import strength
from ioc_sim.extraction.optics import KnockOut, Optics

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)
BLOCK_TURNS = 1024
"""Turns between two returns to Python; their tables fit the second-level cache."""
STREAM_PLACE, STREAM_MOMENTUM, STREAM_SWEEP = 301, 302, 303
MOST_PARTICLES, MOST_TURNS = 10_000_000, 1_000_000_000


@dataclass(frozen=True)
class Line:
    """A sinusoid: amplitude (dQ of the tune, or relative of the drive), frequency per turn, phase in rad at turn 0."""

    amplitude: float
    per_turn: float
    phase: float = 0.0


@dataclass(frozen=True)
class Programme:
    """What the ring does by turn.

    Attributes:
        drive_on, drive_off: turns between which exciter or core works, [on, off).
        ramp_turns: the sextupoles rise linearly over so many turns from turn 0; 0: on from the beginning.
        ripple: modulation of the tune by the quadrupoles.
        drive_ripple: modulation of the exciter's amplitude, or of the core's voltage; relative.
    """

    drive_on: int = 0
    drive_off: int = MOST_TURNS
    ramp_turns: int = 0
    ripple: Sequence[Line] = ()
    drive_ripple: Sequence[Line] = ()


@dataclass
class Particles:
    """A beam at the septum, in normalised phase space (sqrt(m)); dp/p; what became of each.

    `status` is one of `kernel.STORED`, `EXTRACTED`, `WIRE`, `CATHODE`, `APERTURE`; `end_turn` and `end` (X, P, dp/p)
    hold for those that left, `x` and `p` are then the same; `inside_turn` is the last turn at which one was
    seen inside its triangle.
    """

    x: FloatArray
    p: FloatArray
    delta: FloatArray
    status: IntArray = field(init=False)
    end_turn: IntArray = field(init=False)
    inside_turn: IntArray = field(init=False)
    end: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Nobody has left."""
        n = self.x.size
        if not 0 < n <= MOST_PARTICLES or self.p.size != n or self.delta.size != n:
            raise ConfigError("tracking.particles", f"{n} particles", "", f"1 to {MOST_PARTICLES}")
        self.status = np.full(n, k.STORED, np.int64)
        self.end_turn = np.full(n, -1, np.int64)
        self.inside_turn = np.full(n, -1, np.int64)
        self.end = np.zeros((3, n))

    def count(self, status: int) -> int:
        """How many ended so."""
        return int(np.count_nonzero(self.status == status))


def gaussian_beam(optics: Optics, particles: int, beta_gamma: float, seed: int) -> Particles:
    """A Gaussian beam matched to the linear optics; `beta_gamma` turns the normalised emittance into the geometric."""
    if not 0 < particles <= MOST_PARTICLES:
        raise ConfigError("tracking.particles", f"{particles} particles", "", f"1 to {MOST_PARTICLES}")
    place, momentum = np.empty((2, particles)), np.empty((2, particles))
    k.fill_normals(place, np.uint64(seed), STREAM_PLACE)
    k.fill_normals(momentum, np.uint64(seed), STREAM_MOMENTUM)
    sigma = np.sqrt(optics.beam.emittance_um * 1e-6 / beta_gamma)
    delta = optics.beam.momentum_offset + optics.beam.momentum_spread * momentum[0]
    return Particles(sigma * place[0], sigma * place[1], delta)


class Tracker:
    """Tracks one beam; it keeps the coordinates, so that a run can be taken in pieces.

    `watch`: every so many turns it is noted who is still inside his triangle; 0 never (a tenth faster).
    """

    def __init__(self, optics: Optics, beam: Particles, programme: Programme, seed: int, watch: int = 0) -> None:
        self.optics, self.beam, self.programme, self.seed, self.watch = optics, beam, programme, seed, watch
        self.turn = 0
        elements = [(s.phase_turns, strength(s.beta_m, s.k2l_per_m2), 0.0) for s in optics.sextupoles]
        if isinstance(optics.drive, KnockOut):
            elements.append((optics.drive.phase_turns, 0.0, np.sqrt(optics.drive.beta_m)))
        elements = [*sorted(elements), (optics.lattice.tune, 0.0, 0.0)]
        places = np.array([e[0] for e in elements])
        self._advance = np.diff(places, prepend=0.0)
        self._share = self._advance / optics.lattice.tune
        self._sextupole = np.array([e[1] for e in elements])
        self._exciter = np.array([e[2] for e in elements])
        self._septum, self._axes = _septum(optics)
        self._kept: tuple[int, tuple[FloatArray, ...]] = (-1, ())
        self._arrange()

    def _arrange(self) -> None:
        """Working copies, in groups: full ones, and the rest."""
        beam, n = self.beam, self.beam.x.size
        groups = -(-n // k.GROUP)
        self._x, self._p, self._delta = (_grouped(a, groups) for a in (beam.x, beam.p, beam.delta))
        self._ident = _grouped(np.arange(n, dtype=np.int64), groups)
        self._inside = _grouped(beam.inside_turn, groups)
        self._live = np.full(groups, k.GROUP, np.int64)
        self._live[-1] = n - (groups - 1) * k.GROUP
        own = 2.0 * np.pi * self.optics.lattice.chromaticity * self._share[:, None, None] * self._delta
        self._own_cos, self._own_sin = np.cos(own), np.sin(own)

    def branch(
        self, programme: Programme, optics: Optics | None = None, only: npt.NDArray[np.bool_] | None = None
    ) -> Tracker:  # fmt: skip
        """A tracker of its own for those that are stored now, at this turn, with another programme for the drive.

        The same random numbers. What the core has given so far is theirs; it gives more from here on only. With
        `optics` the ring is another one from here on: the same but for its drive, or the beam would not fit it; with
        `only` those of the stored ones alone.
        """
        on, off = max(programme.drive_on, self.turn), max(programme.drive_off, self.turn)
        here = np.flatnonzero(self.beam.status == k.STORED)
        here = here if only is None else here[only]
        if not here.size:
            raise ConfigError(
                "tracking.empty", f"the ring is empty at turn {self.turn}", "", "a weaker drive or fewer turns"
            )
        given = self._drive(np.array([self.turn - 1], np.int64))[0][0] if self.turn else 0.0
        beam = Particles(self.beam.x[here], self.beam.p[here], self.beam.delta[here] + given)
        own = replace(programme, drive_on=on, drive_off=off)
        other = Tracker(optics or self.optics, beam, own, self.seed, self.watch)
        other.turn = self.turn
        return other

    def advance(self, turns: int) -> Particles:
        """Track so many turns more; the beam, with what has become of it."""
        if not 0 <= turns <= MOST_TURNS:
            raise ConfigError("tracking.turns", f"{turns} turns", "", f"0 to {MOST_TURNS}")
        last = self.turn + turns
        while self.turn < last and int(self._live.sum()):
            number, start = divmod(self.turn, BLOCK_TURNS)
            stop = min(BLOCK_TURNS, start + last - self.turn)
            cos, sin, scale, kick, core, tune = (table[start:stop] for table in self._tables(number))
            k.track_block(
                self.turn, self._live, self._x, self._p, self._delta, self._ident, self._inside, self._own_cos,
                self._own_sin, cos, sin, scale, kick, core, tune, self._sextupole, self._exciter, self._axes,
                self._septum, self.optics.lattice.chromaticity, self.watch, self.beam.status, self.beam.end_turn,
                self.beam.end,
            )  # fmt: skip
            self.turn += stop - start
        self.turn = last
        self._give_back()
        return self.beam

    def _tables(self, number: int) -> tuple[FloatArray, ...]:
        """What the ring does in each turn of a block; of whole blocks only, for numpy's sine of an array may differ
        in its last bit with the place in the array, and a run must not depend on how it is sliced."""
        if self._kept[0] != number:
            turns = number * BLOCK_TURNS + np.arange(BLOCK_TURNS, dtype=np.int64)
            core, kick = self._drive(turns)
            tune = _sum_of(self.programme.ripple, turns)
            ramp = self.programme.ramp_turns
            scale = np.minimum(1.0, (turns + 1) / ramp) if ramp else np.ones(turns.size)
            moved = tune + self.optics.lattice.chromaticity * core
            angle = 2.0 * np.pi * (self._advance + self._share * moved[:, None])
            self._kept = (number, (np.cos(angle), np.sin(angle), scale, kick, core, tune))
        return self._kept[1]

    def _drive(self, turns: IntArray) -> tuple[FloatArray, FloatArray]:
        """dp/p given by the core so far, and the exciter's kick (rad) of each turn."""
        on, off = self.programme.drive_on, self.programme.drive_off
        drive, lines = self.optics.drive, self.programme.drive_ripple
        if not isinstance(drive, KnockOut):
            until = np.clip(turns + 1, on, off)
            worked = until - on + _integral_of(lines, until) - _integral_of(lines, np.array([on], np.int64))
            return np.asarray(drive.delta_per_turn * worked, np.float64), np.zeros(turns.size)
        active = (turns >= on) & (turns < off)
        strength = drive.kick_urad * 1e-6 * (1.0 + _sum_of(lines, turns)) if lines else drive.kick_urad * 1e-6
        kick = active * strength * np.sin(self._sweep(drive, turns))
        return np.zeros(turns.size), np.asarray(kick, np.float64)

    def _sweep(self, drive: KnockOut, turns: IntArray) -> FloatArray:
        """Phase of the exciter, rad."""
        sweep, within = np.divmod(turns, drive.sweep_turns)
        start = np.empty(int(sweep[-1] - sweep[0]) + 1)
        k.fill_uniforms(start, np.uint64(self.seed), STREAM_SWEEP, int(sweep[0]))
        slope = (drive.tune_high - drive.tune_low) / drive.sweep_turns
        cycles = start[sweep - sweep[0]] + drive.tune_low * within + 0.5 * slope * within**2
        return np.asarray(2.0 * np.pi * cycles, dtype=np.float64)

    def _give_back(self) -> None:
        """Coordinates in their own places, of those that left where they left; who was inside."""
        left = self.beam.status != k.STORED
        self.beam.x[left], self.beam.p[left] = self.beam.end[k.R_X, left], self.beam.end[k.R_P, left]
        for group, live in enumerate(self._live):
            own = self._ident[group, :live]
            self.beam.x[own], self.beam.p[own] = self._x[group, :live], self._p[group, :live]
        n = self.beam.x.size
        self.beam.inside_turn[self._ident.ravel()[:n]] = self._inside.ravel()[:n]


def _sum_of(lines: Sequence[Line], turns: IntArray) -> FloatArray:
    """All lines at these turns."""
    total = np.zeros(turns.size)
    for line in lines:
        total += line.amplitude * np.sin(2.0 * np.pi * line.per_turn * turns + line.phase)
    return total


def _integral_of(lines: Sequence[Line], turns: IntArray) -> FloatArray:
    """All lines, integrated over the turns from 0 on."""
    total = np.zeros(turns.size)
    for line in lines:
        omega = 2.0 * np.pi * line.per_turn
        total += line.amplitude / omega * (np.cos(line.phase) - np.cos(omega * turns + line.phase))
    return total


def _grouped(values: npt.NDArray[Number], groups: int) -> npt.NDArray[Number]:
    """A copy in rows of one group each; the last row is filled up with zeros."""
    rows = np.zeros(groups * k.GROUP, values.dtype)
    rows[: values.size] = values
    return rows.reshape(groups, k.GROUP)


def _septum(optics: Optics) -> tuple[FloatArray, FloatArray]:
    """Septum vector and the triangle's three axes, as the kernel reads them."""
    septum, lattice, resonance = optics.septum, optics.lattice, optics.resonance()
    vector = np.zeros(k.N_SEPTUM)
    vector[k.S_POSITION], vector[k.S_WIRE] = septum.position_mm * 1e-3, septum.wire_mm * 1e-3
    vector[k.S_GAP], vector[k.S_APERTURE] = septum.gap_mm * 1e-3, septum.aperture_mm * 1e-3
    vector[k.S_ROOT_BETA], vector[k.S_DISPERSION] = np.sqrt(lattice.beta_m), lattice.dispersion_m
    vector[k.S_SIDE] = septum.side
    vector[k.S_HALF_PER_EPSILON] = 0.5 * resonance.radius(1.0)
    vector[k.S_EPSILON] = lattice.distance
    angles = resonance.psi + 2.0 * np.pi * np.arange(3) / 3.0
    return vector, np.stack([np.cos(angles), np.sin(angles)], axis=1)
