"""The compiled part of the tracking: one turn after the other, in normalised phase space at the electrostatic septum.

X = x / sqrt(beta), P = (alpha x + beta x') / sqrt(beta), both in sqrt(m). A turn is a row of sectors: rotate by the
sector's phase advance, then the thin element at its end, dP = S X^2 + kick. The rotation of a particle is that of the
turn (tune, ripple, core) followed by its own (chromaticity times its dp/p), so no sine is taken within a turn.

Particles are tracked in groups: within a group the innermost loop runs over particles and has no branch, so that the
compiler makes vector instructions of it. One that leaves changes place with the last of its group.
Compiled and plain runs agree bit for bit.
"""

from __future__ import annotations

import numpy as np

from facility.jit import kernel
from facility.rng import draw, normal_high, normal_low, uniform

GROUP = 256
"""Particles that are tracked together: their coordinates fit the first-level cache."""
STORED, EXTRACTED, WIRE, CATHODE, APERTURE = range(5)
"""What became of a particle: lost on the septum's wires, on its cathode, or on the far side of the ring's aperture."""
S_POSITION, S_WIRE, S_GAP, S_APERTURE, S_ROOT_BETA, S_DISPERSION, S_SIDE, S_HALF_PER_EPSILON, S_EPSILON = range(9)
"""Places of the septum vector: metres, sqrt(m), side +1 or -1; half radius of the triangle per tune distance
(sqrt(m), full sextupoles), tune distance at dp/p = 0."""
N_SEPTUM = 9
R_X, R_P, R_DELTA = range(3)


@kernel
def track_block(
    first_turn: int, live: np.ndarray, x: np.ndarray, p: np.ndarray, delta: np.ndarray, ident: np.ndarray,
    inside: np.ndarray, own_cos: np.ndarray, own_sin: np.ndarray, turn_cos: np.ndarray, turn_sin: np.ndarray,
    strength: np.ndarray, kick: np.ndarray, core: np.ndarray, tune: np.ndarray, sextupole: np.ndarray,
    exciter: np.ndarray, axes: np.ndarray, septum: np.ndarray, chroma: float, watch: int,
    status: np.ndarray, end_turn: np.ndarray, end: np.ndarray,
) -> int:  # fmt: skip
    """Track all groups through one block of turns; the number of particles that have left.

    Particles are addressed by group and place; `live` counts those of each group. Rows of `turn_cos`, `turn_sin` and
    entries of `strength` (of all sextupoles, relative), `kick` (exciter, rad), `core` (dp/p given by the betatron
    core) and `tune` (all that moves the tune at dp/p = 0) belong to the turns of the block. `sextupole` (1/sqrt(m))
    and `exciter` (sqrt(m) per rad) belong to the ends of the sectors. `watch`: every so many turns it is noted which
    particles are inside the triangle of their own tune; 0 never.
    """
    left = 0
    turns, sectors = turn_cos.shape
    for g in range(live.size):
        n = live[g]
        for t in range(turns):
            if n == 0:
                break
            for k in range(sectors):
                ct, st = turn_cos[t, k], turn_sin[t, k]
                sx, kk = sextupole[k] * strength[t], exciter[k] * kick[t]
                for i in range(n):
                    c = ct * own_cos[k, g, i] - st * own_sin[k, g, i]
                    s = st * own_cos[k, g, i] + ct * own_sin[k, g, i]
                    xn = c * x[g, i] + s * p[g, i]
                    p[g, i] = c * p[g, i] - s * x[g, i] + (sx * xn * xn + kk)
                    x[g, i] = xn
            if watch > 0 and (first_turn + t) % watch == 0:
                note_inside(g, n, first_turn + t, x, p, delta, inside, axes, septum, chroma, core[t], tune[t],
                            strength[t])  # fmt: skip
            gone = 0
            limit, far = septum[S_POSITION], -septum[S_APERTURE]
            root, dispersion, side = septum[S_ROOT_BETA], septum[S_DISPERSION], septum[S_SIDE]
            for i in range(n):
                at = side * (root * x[g, i] + dispersion * (delta[g, i] + core[t]))
                gone += 1 if (at >= limit) | (at < far) else 0
            if gone > 0:
                n = take_out(g, n, first_turn + t, x, p, delta, ident, inside, own_cos, own_sin, septum,
                             core[t], status, end_turn, end)  # fmt: skip
                left += gone
        live[g] = n
    return left


@kernel
def note_inside(
    g: int, n: int, turn: int, x: np.ndarray, p: np.ndarray, delta: np.ndarray, inside: np.ndarray,
    axes: np.ndarray, septum: np.ndarray, chroma: float, core: float, tune: float, strength: float,
) -> None:  # fmt: skip
    """Note the turn for all particles inside their triangle: Re(Z exp(-i axis)) r + r^2 >= 0 for its three axes."""
    half = septum[S_HALF_PER_EPSILON] / strength if strength > 0.0 else 1e30
    base = septum[S_EPSILON] + tune
    for i in range(n):
        r = half * (base + chroma * (delta[g, i] + core))
        a = axes[0, 0] * x[g, i] + axes[0, 1] * p[g, i] + r
        b = axes[1, 0] * x[g, i] + axes[1, 1] * p[g, i] + r
        c = axes[2, 0] * x[g, i] + axes[2, 1] * p[g, i] + r
        within = (a * r >= 0.0) & (b * r >= 0.0) & (c * r >= 0.0)
        inside[g, i] = turn if within else inside[g, i]


@kernel
def take_out(
    g: int, n: int, turn: int, x: np.ndarray, p: np.ndarray, delta: np.ndarray, ident: np.ndarray,
    inside: np.ndarray, own_cos: np.ndarray, own_sin: np.ndarray, septum: np.ndarray, core: float,
    status: np.ndarray, end_turn: np.ndarray, end: np.ndarray,
) -> int:  # fmt: skip
    """Book what has reached the septum or the far aperture, and close the gaps; how many are left in the group."""
    i = 0
    while i < n:
        d = septum[S_DISPERSION] * (delta[g, i] + core)
        at = septum[S_SIDE] * (septum[S_ROOT_BETA] * x[g, i] + d)
        behind = at - septum[S_POSITION]
        if behind < 0.0 and at >= -septum[S_APERTURE]:
            i += 1
            continue
        fate = EXTRACTED
        if behind < 0.0:
            fate = APERTURE
        elif behind < septum[S_WIRE]:
            fate = WIRE
        elif behind >= septum[S_WIRE] + septum[S_GAP]:
            fate = CATHODE
        j = ident[g, i]
        status[j] = fate
        end_turn[j] = turn
        end[R_X, j], end[R_P, j], end[R_DELTA, j] = x[g, i], p[g, i], delta[g, i] + core
        n -= 1
        swap(x, g, i, n)
        swap(p, g, i, n)
        swap(delta, g, i, n)
        swap(ident, g, i, n)
        swap(inside, g, i, n)
        for k in range(own_cos.shape[0]):
            own_cos[k, g, i], own_cos[k, g, n] = own_cos[k, g, n], own_cos[k, g, i]
            own_sin[k, g, i], own_sin[k, g, n] = own_sin[k, g, n], own_sin[k, g, i]
    return n


@kernel
def swap(a: np.ndarray, g: int, i: int, j: int) -> None:
    """Let two particles of a group change places."""
    kept = a[g, i]
    a[g, i] = a[g, j]
    a[g, j] = kept


@kernel
def fill_normals(out: np.ndarray, seed: np.uint64, stream: int) -> None:
    """Two independent standard normals for each column of `out`, by its index."""
    for i in range(out.shape[1]):
        bits = draw(seed, stream, i)
        out[0, i] = normal_low(bits)
        out[1, i] = normal_high(bits)


@kernel
def fill_uniforms(out: np.ndarray, seed: np.uint64, stream: int, first: int) -> None:
    """A uniform number in [0, 1) for each entry of `out`; entry i is draw number `first` + i."""
    for i in range(out.size):
        out[i] = uniform(draw(seed, stream, first + i))
