"""What the amplitude of exciter or core does to the rate where it is not what its generator means it to be.

The generator leads: it knows the calibrated response and sets the amplitude so that the rate asked for comes through
the transit, as at a stop.  All else that the amplitude does (a fault's ripple, noise or step, or what a generator
without that knowledge leaves out) is a factor on the rate that goes its own way, that of ripple of the drive
(`ioc_sim.extraction.rate_model`):

- an exciter's ions leave the layer at the triangle's side in proportion to the amplitude, at once, and the layer
  follows by diffusion, 1 / (1 + (i omega tau)^1/2): lags of equal weight, whose rates are those of the relaxation of a
  half-order.  With the exciter off the layer stands still;
- a core's come with its voltage, by their own amplitude earlier or later.

Where the amplitude is what it is meant to be, lead and answer are each other's inverse and nothing of this is computed.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at

EMPTY = 0.01
"""Rate, of the level, at which nothing is on its way any more."""
SETTLED = 1e-6
"""A factor that is no further from 1 for as long as ions are on their way is 1."""


@kernel
def drive_share(p: Record, s: Record) -> float:
    """Share of the stored ions that the level takes in a turn; 0: nothing has been accelerated."""
    if s.f_rev_hz <= 0.0:
        return 0.0
    stored = s.stored if s.stored * p.thin_inverse > 1.0 else 1.0 / p.thin_inverse
    return float(s.level * p.share_inverse / (stored * s.f_rev_hz))


@kernel
def begin_answer(s: Record, v: np.ndarray) -> None:
    """So far the amplitude was what it was meant to be."""
    s.answering = 1
    for j in range(at.LAYER_LAGS):
        v[at.LAYER + j] = 1.0
    all_came_by(s, v, 1.0)


@kernel
def all_came_by(s: Record, v: np.ndarray, factor: float) -> None:
    """Whatever is on its way, and so the answer, has this factor."""
    s.drive_factor = factor
    s.drive_answer = factor
    for j in range(at.ANSWER_RING):
        v[at.ANSWER + j] = factor


@kernel
def begins_empty(p: Record, s: Record, v: np.ndarray) -> bool:
    """The first tick of a drive behind a pause in which all ions have come."""
    before = v[at.TRANSIT + ((s.ring_pos - 1) & (at.TRANSIT_RING - 1))]
    return bool(before == 0.0 and v[p.last_stage] < EMPTY * s.level)


@kernel
def follow_layer(p: Record, s: Record, v: np.ndarray, q: np.ndarray, amplitude: float) -> float:
    """Ions at the triangle's side after a tick with this amplitude, over those at rest with amplitude 1."""
    total = 0.0
    for j in range(at.LAYER_LAGS):
        lag = q[at.LAYER_TURNS + j] * s.ticks_per_turn
        v[at.LAYER + j] += (amplitude - v[at.LAYER + j]) / (1.0 + lag)
        total += v[at.LAYER + j]
    return total * (1.0 / at.LAYER_LAGS)


@kernel
def answer_of_drive(p: Record, q: np.ndarray, s: Record, v: np.ndarray, on: float) -> float:
    """Factor on the rate in this tick; ``on``: amplitude over the one that the generator asks for, 0 is off."""
    if s.answering == 0:
        begin_answer(s, v)
    if on > 0.0:
        factor = on
        if p.is_exciter == 1:
            asked = 1.0 if p.exciter_lead == 1 else s.drive * s.scale
            amplitude = on if p.exciter_lead == 1 else on * math.sqrt(asked)
            factor = amplitude * follow_layer(p, s, v, q, amplitude) / asked if asked > 0.0 else 1.0
        if begins_empty(p, s, v):
            all_came_by(s, v, factor)  # nobody has left by what the amplitude was before
        s.drive_factor = factor
        settled = abs(factor - 1.0) < SETTLED and p.exciter_lead == 1
        s.answering = s.answering + 1 if settled else 1
    v[at.ANSWER + (s.tick & (at.ANSWER_RING - 1))] = s.drive_factor
    share = drive_share(p, s)
    turns = s.answer_turns - p.answer_per_log * p.drive_root * math.log(share) if share > 0.0 else s.answer_turns
    turns = max(turns, 0.0)
    rounds = 0.5 if p.answer_lag_turns <= 0.0 else 1.0  # such a lag's mean is half a tick short
    came = 0.0
    for j in range(p.answer_taps):
        ticks = s.answer_ticks * (turns * q[at.ANSWER_SLOWNESS + j] + q[at.ANSWER_EXTRA + j])
        late = int(min(max(ticks, 0.0) + rounds, at.ANSWER_RING - 1.0))
        came += v[at.ANSWER + ((s.tick - late) & (at.ANSWER_RING - 1))]
    came /= p.answer_taps
    lag = p.answer_lag_turns * s.ticks_per_turn
    s.drive_answer += (came - s.drive_answer) * (1.0 - math.exp(-1.0 / lag) if lag > 0.0 else 1.0)
    if s.answering > 2 * at.ANSWER_RING:
        s.answering = 0
    return float(s.drive_answer)
