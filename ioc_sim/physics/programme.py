"""Field and radio-frequency programme of the ring: rigidity and revolution frequency in every phase of a cycle.

Rigidity is that of the injected beam until the ramp, goes straight to the energy's and, with several energies in a flat
top, straight from one to the next; after the dump straight back. Standardisation takes the magnets up, as far as they
get at the speed of the ramp in half of its time, and down again, always alike, so that what they remember of a cycle is
gone before the next.
The cavity follows the field from capture to dump (f = beta c / circumference) and is off at other times.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.codes import (
    CAPTURE,
    DUMP,
    ENERGY_STEP,
    FLAT_TOP,
    RAMP,
    RAMP_DOWN,
    STABILISE,
    STANDARDISE,
)
from ioc_sim.layout import E_BRHO, E_RAMP_NS


@kernel
def between(s: Record, duration_ns: int, first: float, last: float) -> float:
    """Straight from ``first`` to ``last`` over a phase of this duration, now."""
    left = (s.phase_end_ns - s.t_ns) / duration_ns if duration_ns > 0 else 0.0
    return last + (first - last) * min(1.0, max(0.0, left))


@kernel
def programmed_tm(p: Record, s: Record, v: np.ndarray, etab: np.ndarray) -> float:
    """Rigidity that the programme asks for now, T m."""
    phase = s.phase
    low = p.injection_brho_tm
    if s.ring_code < 0:
        return low
    top = etab[s.ring_code, E_BRHO]
    if phase == RAMP:
        return between(s, int(etab[s.ring_code, E_RAMP_NS]), low, top)
    if phase == ENERGY_STEP:
        return between(s, p.energy_step_ns, v[at.RING_FROM_TM], top)
    if STABILISE <= phase <= DUMP:
        return top
    if phase == RAMP_DOWN:
        return between(s, p.ramp_down_ns, top, low)
    if phase == STANDARDISE:
        most = p.standardise_tm
        half = 0.5 * p.standardise_ns
        left = float(s.phase_end_ns - s.t_ns)
        share = (p.standardise_ns - left) / half if left > half else left / half
        return low + (most - low) * min(1.0, max(0.0, share))
    return low


@kernel
def programme_ms(p: Record, s: Record, v: np.ndarray, etab: np.ndarray) -> None:
    """Rigidity and frequency of this millisecond, where they are on their way or a phase has just begun."""
    if s.phase == v[at.RING_SEEN] and (s.phase == FLAT_TOP or s.phase == 0):
        return
    v[at.RING_SEEN] = s.phase
    brho = programmed_tm(p, s, v, etab)
    v[at.RING_TM] = brho
    on = CAPTURE <= s.phase <= DUMP
    beta_gamma = brho * p.beta_gamma_per_tm
    v[at.RING_HZ] = p.f_per_beta_hz * beta_gamma / math.sqrt(1.0 + beta_gamma * beta_gamma) if on else 0.0
