"""The random numbers of a millisecond, drawn at its beginning.

Every number is a function of seed, stream and tick, so it does not matter when it is drawn; drawn a hundred at a time
they cost a third.  The tick that begins ``i`` ticks after the millisecond finds its own at place ``i`` of each column.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from facility.rng import draw, flat, normal_high, normal_low, triangle
from ioc_sim import layout as at
from ioc_sim.physics.spill import line_scale, lines, round_off

STREAM_SPILL = 1
"""The low half is the structure of the spill, the high half the Poisson variate."""
STREAM_SUPPLY = 10
"""One draw a supply: the high half is current noise, the low quarters are those of readback and probe."""
STREAM_IC = 20
"""One draw for both chambers, a half each."""
BLOCK = at.NOISE_BLOCK


@kernel
def device_noise(p: Record, q: np.ndarray, v: np.ndarray, first_tick: int, ticks: int) -> None:
    """Noise of supplies (A) and chambers (1), columns of ``ticks`` places from ``first_tick`` on."""
    for k in range(2):
        current_a = q[at.SUPPLY_NOISE_A + k]
        read_a = q[at.SUPPLY_READ_NOISE_A + k]
        probe_a = q[at.SUPPLY_PROBE_NOISE_A + k]
        for i in range(ticks):
            bits = draw(p.seed, STREAM_SUPPLY + k, first_tick + i)
            v[at.NOISE_CURRENT + BLOCK * k + i] = current_a * triangle(bits, True)
            v[at.NOISE_READ + BLOCK * k + i] = read_a * flat(bits, False)
            v[at.NOISE_PROBE + BLOCK * k + i] = probe_a * flat(bits, True)
    for i in range(ticks):
        bits = draw(p.seed, STREAM_IC, first_tick + i)
        v[at.NOISE_IC + i] = triangle(bits, False)
        v[at.NOISE_IC + BLOCK + i] = triangle(bits, True)


@kernel
def spill_noise(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Structure of the spill (1 is none, never below 0) and Poisson variates of the coming millisecond."""
    round_off(v)
    s.line_scale = line_scale(p, s)
    converter = p.converter_kick * s.converter_rise * s.line_scale
    kick = math.sqrt(p.noise_kick * p.noise_kick + converter * converter)
    noise = s.noise
    ripple = s.ripple
    for i in range(BLOCK):
        bits = draw(p.seed, STREAM_SPILL, s.tick + i)
        noise = noise * p.noise_decay + kick * normal_low(bits)
        if (s.tick + i) & p.line_mask == 0:
            ripple = max(0.0, 1.0 + lines(p, q, s, v, s.tick + i))
        structure = (1.0 + noise) * ripple
        v[at.NOISE_SPILL + i] = structure if noise > -1.0 else 0.0
        v[at.NOISE_POISSON + i] = normal_high(bits)
    s.noise = noise
    s.ripple = ripple
