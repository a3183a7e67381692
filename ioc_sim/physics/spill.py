"""Slow extraction, first order: a calibrated rate model, not a tracking code.

Model (each item named): the drive (RF-knock-out power or betatron-core voltage, as a share of the level) goes through
the transit of the ions, a dead time and a row of equal first-order lags calibrated with tracking
(`ioc_sim.extraction`), which give the start and the stop tail; the rate is multiplied by correlated noise
(first-order, Gaussian), mains lines and a start overshoot; ions leave as a Poisson process; the ring empties.
Mains lines are ripple of the quadrupoles' supplies through the calibrated response: a slow spill answers more.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from facility.rng import NORMAL_FROM, poisson
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.faults import faulted
from ioc_sim.physics.drive_answer import answer_of_drive, begin_answer, drive_share

STREAM_POISSON = 2
TICK_S = 1e-5
LINE_TICKS = 8
"""The mains lines move in steps of 80 us, a power of two, which takes 1 % of one of ``HELD_HZ``."""
HELD_HZ = 1000.0
"""With a line above this all move every tick; the front end sees them in steps of 80 us nevertheless."""
THIN_SHARE = 0.02
"""Below this share of a fill the extraction thins out in proportion to what is stored."""
TINY = 1e-12
"""Rates below this (ions/s, or of the level) are zero."""
DRIVE_STEP_LOG = math.log(at.LINE_DRIVE_STEP)
MOST_STAGES = 3
"""Lags of the transit."""


@kernel
def clear_transit(v: np.ndarray) -> None:
    """Nothing is on its way; no beam may have come for a transit."""
    for j in range(MOST_STAGES):
        v[at.STAGE + j] = 0.0
    for j in range(at.TRANSIT_RING):
        v[at.TRANSIT + j] = 0.0


@kernel
def enter_fine(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Mains lines at their phase of the present time, nothing on its way; called when 10 us steps begin."""
    clear_transit(v)
    s.answering = 0
    if p.exciter_lead == 0:
        begin_answer(s, v)
    t_s = s.t_ns * 1e-9
    for i in range(p.n_lines):
        angle = 2.0 * math.pi * q[at.LINE_HZ + i] * t_s
        v[at.LINE_C + i] = math.cos(angle)
        v[at.LINE_S + i] = math.sin(angle)
        for place in range(16):  # what the front end looks back to is no older than this
            v[at.MAINS + place * (2 * at.MAX_LINES) + i] = v[at.LINE_C + i]
            v[at.MAINS + place * (2 * at.MAX_LINES) + at.MAX_LINES + i] = v[at.LINE_S + i]


@kernel
def set_lines(p: Record, q: np.ndarray, s: Record, v: np.ndarray, etab: np.ndarray) -> None:
    """Height of the mains lines at the energy in the ring, and what the front end knows of them beforehand.

    Of a core also at the drive, by a straight line over its logarithm: its ions take longer the weaker it is.
    """
    s.converter_rise = 1.0 / (math.sqrt(s.f_rev_hz) if p.line_rise < 1.0 else s.f_rev_hz)
    column = at.E_LINE
    share = 0.0
    if p.line_log > 0.0:
        place = (p.line_log - math.log(s.line_scale)) / DRIVE_STEP_LOG
        place = min(max(place, 0.0), at.LINE_DRIVES - 1.0)
        first = min(int(place), at.LINE_DRIVES - 2)
        share = place - first
        column += first * at.MAX_LINES
    for i in range(p.n_lines):
        before = v[at.LINE_HEIGHT + i]
        shape = etab[s.ring_code, column + i]
        shape += share * (etab[s.ring_code, column + at.MAX_LINES + i] - shape)
        height = q[at.LINE_WEIGHT + i] * shape
        v[at.LINE_HEIGHT + i] = height
        if before > 0.0:
            v[at.LOOP_C + i] *= height / before
            v[at.LOOP_S + i] *= height / before
        else:
            late = 2.0 * math.pi * q[at.LINE_HZ + i] * p.loop_late_s
            v[at.LOOP_C + i] = -p.feed_forward * height * math.sin(late)
            v[at.LOOP_S + i] = p.feed_forward * height * math.cos(late)


@kernel
def line_scale(p: Record, s: Record) -> float:
    """One over the drive: the answer to ripple by that of the full drive.

    Of a fill that the level could not use in a flat top the rest counts for nothing.
    """
    stored = min(s.stored, s.level * p.full_fill_s)
    if stored <= 0.0 or s.level <= 0.0 or s.f_rev_hz <= 0.0:
        return s.line_scale
    over = stored * s.f_rev_hz / (s.level * p.share_inverse)
    if over < TINY:
        over = TINY  # its logarithm is taken, and it is divided by
    return math.sqrt(over) if p.line_rise < 1.0 else over


@kernel
def lines(p: Record, q: np.ndarray, s: Record, v: np.ndarray, tick: int) -> float:
    """Advance the mains lines by a step, ``line_mask`` + 1 ticks, and return their sum (relative)."""
    total = 0.0
    here = at.MAINS + ((tick // LINE_TICKS) & 15) * (2 * at.MAX_LINES)
    told = tick & (LINE_TICKS - 1) == 0
    for i in range(p.n_lines):
        c = v[at.LINE_C + i] * q[at.LINE_COS + i] - v[at.LINE_S + i] * q[at.LINE_SIN + i]
        v[at.LINE_S + i] = v[at.LINE_S + i] * q[at.LINE_COS + i] + v[at.LINE_C + i] * q[at.LINE_SIN + i]
        v[at.LINE_C + i] = c
        if told:
            v[here + i] = c
            v[here + at.MAX_LINES + i] = v[at.LINE_S + i]
        total += v[at.LINE_HEIGHT + i] * v[at.LINE_S + i]
    return total * s.line_scale


@kernel
def follow_drive(p: Record, q: np.ndarray, s: Record, v: np.ndarray, etab: np.ndarray) -> None:
    """What depends on the drive, by the level and what is stored; once a millisecond without demand."""
    set_transit(p, s)
    if p.line_log > 0.0:
        set_lines(p, q, s, v, etab)


@kernel
def set_transit(p: Record, s: Record) -> None:
    """Dead time and lags at the energy in the ring, the level and what is stored.

    A weaker drive takes longer (`ioc_sim.extraction.rate_model`); its share a turn is level over stored ions.
    """
    if s.f_rev_hz <= 0.0:
        return  # nothing has been accelerated
    share = drive_share(p, s)
    turns = p.transit_turns - p.transit_per_log * p.drive_root * math.log(share) if share > 0.0 else p.transit_turns
    stage = p.stage_turns if p.stage_turns * p.n_stages < turns else turns / p.n_stages
    # a tick of each lag but the first passes before the next one sees it
    mean = turns * s.ticks_per_turn - (p.n_stages - 1)
    dead = math.floor(mean - p.n_stages * stage * s.ticks_per_turn + 0.5)
    if dead < 0:
        dead = 0
    elif dead > at.TRANSIT_RING - 1:
        dead = at.TRANSIT_RING - 1
    s.dead_ticks = dead
    s.stage_ticks = max(mean - dead, 0.0) / p.n_stages
    s.stage_share = 1.0 / (1.0 + s.stage_ticks)


@kernel
def round_off(v: np.ndarray) -> None:
    """What is next to nothing is nothing, in the ring and in the front end's model: denormal numbers are slow.

    Called once a millisecond, in which no lag falls from ``TINY`` to them.
    """
    for j in range(MOST_STAGES):
        if v[at.STAGE + j] < TINY:
            v[at.STAGE + j] = 0.0
        if v[at.MODEL_STAGE + j] < TINY:
            v[at.MODEL_STAGE + j] = 0.0


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
        drive = s.level * s.drive * s.scale * s.sensitivity * (supply if supply < 1.0 else 1.0)
        drive *= 1.0 + s.overshoot
        s.overshoot *= p.overshoot_decay
    v[at.TRANSIT + s.ring_pos] = drive
    # each lag takes what the one before had a tick ago, so that none waits for another
    stage0 = v[at.STAGE]
    stage1 = v[at.STAGE + 1]
    first = v[at.TRANSIT + ((s.ring_pos - s.dead_ticks) & (at.TRANSIT_RING - 1))]
    v[at.STAGE] = stage0 + (first - stage0) * s.stage_share
    v[at.STAGE + 1] = stage1 + (stage0 - stage1) * s.stage_share
    v[at.STAGE + 2] += (stage1 - v[at.STAGE + 2]) * s.stage_share
    rate = v[p.last_stage]
    if s.answering != 0 or (on != 1.0 and on > 0.0):
        rate *= answer_of_drive(p, q, s, v, on)
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
