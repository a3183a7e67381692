"""The intensity loop of the front end: from the first chamber to the extraction drive.

What is driven now arrives a transit later, and the loop acts every 160 us, so that noise above some 250 Hz stays and
part of it grows (the waterbed).  Three parts:

- what the ring gives for a drive of one, slowly (``SLOW_HZ``); it outlives a spot;
- the same fast (``loop_bandwidth_hz``), forgotten when beam stops;
- each line of the mains, whose phase the front end has from the mains: its amplitude is learned by least mean squares
  in a third of a second, and the drive is divided by what the lines will be when it arrives.  Their height over the
  drive is calibrated, so that a line learned at one level is known at another.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.physics.spill import LINE_TICKS, TICK_S

LOOP_TICKS = 2 * LINE_TICKS
"""The loop acts every 160 us."""
SLOW_HZ = 10.0
DRY_SHARE = 0.2
"""Beam below a fifth of the level while the ring holds little: the ring is running dry."""
LOW_FILL = 0.05
"""Share of a fill below which the ring cannot keep the level."""
LEAST_GAIN, MOST_GAIN = 1.0 / 3.0, 1.0 / 0.3
LEAST_FAST, MOST_FAST = -0.25, 0.5
"""Share of the ring's gain.  The fast part raises the drive by a third at most, for behind a dip of the noise there may
be a peak, and lowers it by a third at most: a burst is for interlocks, and must not be hidden from them."""
MOST_IMAGE = 10
"""Steps come with 6.25 kHz, and no line reaches eight times that; what lies beyond its images adds next to nothing."""
MOST_DRIVE = 4.0
"""More than that is not driven: no trough is followed further down."""


@kernel
def regulate(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Judge the last ``LOOP_TICKS`` ticks and set the drive of the next ones."""
    ions = (v[at.EST_IONS] - s.loop_ions) * s.level_inverse * (1e5 / LOOP_TICKS)
    present = v[p.last_stage + (at.MODEL_STAGE - at.STAGE)]
    model = 0.5 * (present + s.loop_model)
    s.loop_ions = v[at.EST_IONS]
    s.loop_model = present
    low = s.stored <= LOW_FILL * p.fill_ions
    steady = s.spill_cmd == 1 and s.spill_on_ticks > 300 and s.scale >= 1.0
    s.dry_ticks = s.dry_ticks + LOOP_TICKS if (steady and low and s.rate_meas < DRY_SHARE * s.level) else 0
    if p.loop_gain <= 0.0:
        return
    if s.lead_stage != s.stage_ticks or s.lead_dead != s.dead_ticks:
        set_leads(p, q, s, v)
    here = at.MAINS + ((s.tick // LINE_TICKS - 1) & 15) * (2 * at.MAX_LINES)
    now = 0.0
    ahead = 0.0
    for i in range(p.n_lines):
        cos = v[here + i]
        sin = v[here + at.MAX_LINES + i]
        along = v[at.LOOP_C + i] * cos + v[at.LOOP_S + i] * sin
        now += along
        ahead += v[at.LEAD_C + i] * along + v[at.LEAD_S + i] * (v[at.LOOP_S + i] * cos - v[at.LOOP_C + i] * sin)
    now = 1.0 + now * s.line_scale
    ahead = 1.0 + ahead * s.line_scale
    risen = model * s.ring_gain
    s.loop_fast -= p.loop_leak * s.loop_fast
    if not steady:
        s.loop_fast = 0.0
    elif not low and risen > 0.3:
        missed = ions - risen * (now if now > 0.0 else 0.0)
        if missed == missed:
            learn(p, s, v, ions - 1.0, missed, here)
    given = s.ring_gain * (1.0 + s.loop_fast) * (ahead if ahead > 0.0 else 0.0)
    s.drive = 1.0 / given if given * MOST_DRIVE > 1.0 else MOST_DRIVE


@kernel
def learn(p: Record, s: Record, v: np.ndarray, over: float, missed: float, here: int) -> None:
    """Correct the ring's gain by what is ``over`` the level, the lines by what the model has left unexplained."""
    gain = s.ring_gain + p.loop_gain * over
    s.ring_gain = min(MOST_GAIN, max(LEAST_GAIN, gain))
    s.rest_drive = 1.0 / s.ring_gain
    fast = s.loop_fast + p.loop_fast * over
    s.loop_fast = min(MOST_FAST, max(LEAST_FAST, fast))
    step = p.line_learn * missed / s.line_scale
    for i in range(p.n_lines):
        v[at.LOOP_C + i] += step * v[here + i]
        v[at.LOOP_S + i] += step * v[here + at.MAX_LINES + i]


@kernel
def set_leads(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Phase of each line when what is driven now arrives, and what the lags of the transit take of its amplitude.

    None of it for a line that the loop would make worse: it is left as it is.
    """
    s.lead_stage = s.stage_ticks
    s.lead_dead = s.dead_ticks
    for i in range(p.n_lines):
        per_tick = 2.0 * math.pi * q[at.LINE_HZ + i] * TICK_S
        lag = per_tick * s.stage_ticks
        lead = per_tick * (s.dead_ticks + p.loop_lead_ticks) + p.n_stages * math.atan(lag)
        rise = 1.0
        for _ in range(p.n_stages):
            rise *= math.sqrt(1.0 + lag * lag)
        if left_over(q[at.LINE_HZ + i], s.stage_ticks, p.n_stages) >= 1.0:
            rise = 0.0
        v[at.LEAD_C + i] = math.cos(lead) * rise
        v[at.LEAD_S + i] = math.sin(lead) * rise


@kernel
def left_over(hz: float, stage_ticks: float, stages: int) -> float:
    """Mean square of what the loop leaves of a line that it knows in full and is small, over that of the line.

    A drive in steps follows a line the less the higher its frequency is, and has images of it around that of the steps;
    those below the line come through the transit with more than the line itself does.
    """
    periods = hz * TICK_S * LOOP_TICKS
    sine = math.sin(math.pi * periods) / math.pi
    lag = 2.0 * math.pi * stage_ticks / LOOP_TICKS
    left = 0.0
    for image in range(-MOST_IMAGE, 3):
        place = periods + image
        share = sine / place if abs(place) > 1e-9 else 1.0
        if image == 0:
            left += (1.0 - share) * (1.0 - share)
            continue
        own, other = lag * periods, lag * place
        through = share * share
        for _ in range(stages):
            through *= (1.0 + own * own) / (1.0 + other * other)
        left += through
    return left
