"""Slow extraction, first order: a calibrated rate model, not a tracking code.

Model (each item named): the drive (RF-knock-out amplitude or betatron-core voltage, as a share of the level) feeds a
sum of first-order lags, which give the start and the stop tail; the rate is multiplied by correlated noise
(first-order, Gaussian), mains lines and a start overshoot; ions leave as a Poisson process; the ring empties.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from facility.rng import NORMAL_FROM, poisson
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.faults import faulted

STREAM_POISSON = 2
TICK_S = 1e-5
LINE_TICKS = 8
"""The mains lines, 600 Hz and below, move in steps of 80 us; a power of two."""
THIN_SHARE = 0.02
"""Below this share of a fill the extraction thins out in proportion to what is stored."""
TINY = 1e-12
"""Rates below this (ions/s) are zero: no denormal numbers, which are slow."""


@kernel
def enter_fine(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Set the mains lines to their phase at the present time; called when 10 us steps begin."""
    t_s = s.t_ns * 1e-9
    for i in range(p.n_lines):
        angle = 2.0 * math.pi * q[at.LINE_HZ + i] * t_s
        v[at.LINE_C + i] = math.cos(angle)
        v[at.LINE_S + i] = math.sin(angle)


@kernel
def lines(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> float:
    """Advance the mains lines by ``LINE_TICKS`` ticks and return their sum (relative)."""
    total = 0.0
    for i in range(p.n_lines):
        c = v[at.LINE_C + i] * q[at.LINE_COS + i] - v[at.LINE_S + i] * q[at.LINE_SIN + i]
        v[at.LINE_S + i] = v[at.LINE_S + i] * q[at.LINE_COS + i] + v[at.LINE_C + i] * q[at.LINE_SIN + i]
        v[at.LINE_C + i] = c
        total += q[at.LINE_AMPLITUDE + i] * v[at.LINE_S + i]
    return total


@kernel
def open_share(transmission: float) -> float:
    """What a beam-off device lets through; one of which nothing is known takes no beam off."""
    return transmission if transmission == transmission else 1.0


@kernel
def spill_tick(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, i: int) -> float:
    """Ions that cross the isocentre plane in this tick, ``i`` of its millisecond; the ring loses what was extracted."""
    on = faulted(s, faults, fp.RFKO, float(s.rfko_on), s.t_ns)
    drive = 0.0
    if on > 0.0 and s.stored > 0.0:
        supply = s.stored * p.thin_inverse
        drive = s.level * s.drive * s.scale * s.sensitivity * on * (supply if supply < 1.0 else 1.0)
        drive *= 1.0 + s.overshoot
        s.overshoot *= p.overshoot_decay
    rate = 0.0
    for j in range(p.n_tails):
        state = v[at.TAIL_STATE + j] * q[at.TAIL_DECAY + j] + drive * (1.0 - q[at.TAIL_DECAY + j])
        v[at.TAIL_STATE + j] = state if state > TINY else 0.0
        rate += q[at.TAIL_W + j] * state
    extracted_open = open_share(faulted(s, faults, fp.QUAD, s.quad_open, s.t_ns))
    rate = faulted(s, faults, fp.SPILL, rate * v[at.NOISE_SPILL + i], s.t_ns) * extracted_open
    if rate != rate:
        rate = 0.0  # beam that is no number is none, and leaves the ring as it is
    s.rate = rate
    mean = rate * p.ring_loss_per_rate
    if mean > s.stored:
        mean = s.stored if s.stored > 0.0 else 0.0
    s.stored -= mean
    mean *= p.transmission * open_share(faulted(s, faults, fp.CHOPPER, s.chopper_open, s.t_ns))
    if mean <= 0.0 or s.stopper_in == 1:
        s.ion_root = 0.0
        return 0.0
    ions = poisson(mean, v[at.NOISE_POISSON + i], p.seed, STREAM_POISSON, s.tick)
    # what chambers take as the spread of many ions: the root of their mean, which need not wait for their number
    s.ion_root = math.sqrt(mean if mean > NORMAL_FROM else ions)
    return ions
