"""How late the ions of a betatron core are, by their amplitude, and which amplitudes leave when.

An ion leaves when the triangle of its own tune has shrunk to its size, and then follows the arm. In turns:

- it grows by e in 1 / (2 sqrt(3) pi dQ), and its triangle's dQ goes with its amplitude. What it starts with is the
  way that the side has moved in such a time, over the size: the drive over the amplitude squared, so that it is late
  by y (d - t ln(k y^2)), y being one over the amplitude in units of the beam's rms amplitude where beta gamma is 1;
- ions of one amplitude meet the side where they happen to be: that spreads them, again in units of y;
- the core goes through the beam's momenta. At one moment it takes large amplitudes and, from what is nearer to the
  resonance, small ones: they leave a triangle of their own at another momentum. The first ions to come have large
  amplitudes, the last ones small ones, which are slow.
"""

from __future__ import annotations

import math

import numpy as np

from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray
from ioc_sim.extraction.optics import KnockOut, Optics

AMPLITUDES = 200
AMPLITUDE = np.sqrt(-np.log((np.arange(AMPLITUDES) + 0.5) / AMPLITUDES))
"""Of a Gaussian beam, in as many equal parts; 1 is the rms."""
LAGS = 3
"""In which ions of one amplitude spread."""
SPAN = 21
"""Places of the core at which a span of its way is looked at."""
MIDDLE = 0.5 * math.sqrt(math.pi)
"""Mean amplitude."""


def triangle_distance(optics: Optics, beta_gamma: float) -> float:
    """Tune distance at which a triangle holds the beam's rms amplitude."""
    area = 2.0 * np.pi * optics.beam.emittance_um * 1e-6 / beta_gamma
    return float(np.sqrt(area / optics.resonance().area(1.0)))


def turns_per_e(optics: Optics) -> float:
    """Turns in which an ion of the rms amplitude grows by e along the arm, where beta gamma is 1."""
    return 1.0 / optics.resonance().growth_per_turn(triangle_distance(optics, 1.0))


def stack_step(optics: Optics) -> float:
    """Momentum between ions of no and of the rms amplitude that leave at one moment, over the beam's momentum spread,
    where beta gamma is 1; 0: no core."""
    if isinstance(optics.drive, KnockOut):
        return 0.0
    return triangle_distance(optics, 1.0) / abs(optics.lattice.chromaticity) / optics.beam.momentum_spread


def place_of(left: float, step: float) -> float:
    """Where the core stands when this share of the beam is left: momentum of the ion without amplitude that leaves now,
    over the spread, from the beam's mean; `step`: at the beam's momentum."""
    low, high = -8.0, 8.0 + 4.0 * step
    for _ in range(60):
        middle = 0.5 * (low + high)
        stay = np.mean([0.5 * math.erfc((step * r - middle) / math.sqrt(2.0)) for r in AMPLITUDE.tolist()])
        low, high = (low, middle) if stay > left else (middle, high)
    return 0.5 * (low + high)


def parts_of(step: float, stack: tuple[float, float] | None = None) -> FloatArray:
    """Share of each amplitude in what leaves while the core goes from one place of the stack to another; None: in the
    middle of the spill."""
    first, last = stack or (step * MIDDLE, step * MIDDLE)
    away = np.linspace(first, last, SPAN)[:, None] - step * AMPLITUDE
    parts = np.exp(-0.5 * away**2).sum(axis=0)
    return np.asarray(parts / parts.sum(), np.float64)


def late_turns(delay: float, per_log: float, drive: float, beta_gamma: float) -> tuple[FloatArray, FloatArray]:
    """Delay of each amplitude, and y."""
    y = math.sqrt(beta_gamma) / AMPLITUDE
    return np.asarray(y * np.maximum(0.0, delay - per_log * np.log(drive * y**2)), np.float64), y


def core_answer(per_turn: FloatArray, late: FloatArray, lag: FloatArray, parts: FloatArray) -> ComplexArray:
    """Mean over the ions of what a delay and `LAGS` lags leave of a sinusoid; turns by amplitude."""
    omega = 2.0 * np.pi * np.asarray(per_turn, np.float64)[..., None]
    one = 1.0 + 1j * omega * (lag / LAGS)
    return np.asarray((np.exp(-1j * omega * late) / (one * one * one)) @ parts, np.complex128)
