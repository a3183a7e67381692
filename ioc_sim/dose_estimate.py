"""What the front end makes of its counts: the ions of this tick, and the ions still to come after a stop.

Late charge: counts of a tick hold charge of ions that came up to a drift time before; the drift is known from the
voltage readback, and the causal response is solved for the ions of this tick.
"""

from __future__ import annotations

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.layout import DRIFT_RING
from ioc_sim.physics.chambers import drift_ticks


@kernel
def estimate_ions(p: Record, q: np.ndarray, s: Record, v: np.ndarray, k: int, observed: float) -> float:
    """Ions of this tick from chamber ``k``: solves observed = w0 n + sum of the late charge of earlier ticks."""
    ticks = int(v[at.EST_DRIFT + k])
    late = (v[at.EST_RAMP + k] - v[at.EST_BOX + k]) * v[at.EST_LATE_SHARE + k]
    ions = (observed - late) * v[at.EST_GAIN + k]
    pos = s.ring_pos
    oldest = v[at.EST_RING + at.DRIFT_RING * k + ((pos - ticks) & (DRIFT_RING - 1))]
    v[at.EST_RAMP + k] = v[at.EST_RAMP + k] - v[at.EST_BOX + k] + ticks * ions
    v[at.EST_BOX + k] += ions - oldest
    v[at.EST_RING + at.DRIFT_RING * k + (pos)] = ions
    return ions


@kernel
def reset_estimate(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Empty the drift memory of both estimates; no beam may have come for a drift time."""
    for k in range(2):
        for j in range(DRIFT_RING):
            v[at.EST_RING + at.DRIFT_RING * k + (j)] = 0.0
        v[at.EST_BOX + k] = 0.0
        v[at.EST_RAMP + k] = 0.0
        ticks = drift_ticks(p, q, k, v[at.IC_VOLT + k])
        v[at.EST_DRIFT + k] = ticks
        v[at.EST_LATE_SHARE + k] = 1.0 / (ticks * (ticks + 1.0))
        v[at.EST_GAIN + k] = 1.0 / (0.5 + 1.0 / (ticks + 1.0))


@kernel
def advance_model(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Advance the front end's own model of the extraction (rate as a share of the level) by a tick."""
    drive = s.drive * s.scale if s.spill_cmd == 1 else 0.0
    model = 0.0
    for i in range(p.n_tails):
        m = drive + (v[at.MODEL_TAIL + i] - drive) * q[at.TAIL_DECAY + i]
        v[at.MODEL_TAIL + i] = m if m > 1e-18 else 0.0
        model += q[at.TAIL_W + i] * m
    smooth = s.rate_model + (model - s.rate_model) * p.rate_alpha
    s.rate_model = smooth if smooth > 1e-18 else 0.0


@kernel
def ions_to_come(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> float:
    """Ions that will still come if the beam is stopped now: the model's tail, scaled by the measured rate."""
    ahead = 0.0
    for i in range(p.n_tails):
        ahead += q[at.TAIL_W + i] * v[at.MODEL_TAIL + i] * q[at.TAIL_TICKS + i]
    ratio = 1.0
    if s.rate_model > 0.02:
        ratio = s.rate_meas * s.level_inverse / s.rate_model
        if ratio > 2.0:
            ratio = 2.0
        elif ratio < 0.5:
            ratio = 0.5
    return ahead * ratio * s.level * 1e-5
