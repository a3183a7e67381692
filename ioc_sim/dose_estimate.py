"""What the front end makes of its counts: the ions of this tick, and the ions still to come after a stop.

Late charge: counts of a tick hold charge of ions that came up to a drift time before; the drift is known from the
voltage readback, and the causal response is solved for the ions of this tick.
"""

from __future__ import annotations

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.layout import DRIFT_RING, TRANSIT_RING
from ioc_sim.physics.chambers import drift_ticks
from ioc_sim.physics.spill import MOST_STAGES

LEAST_ANSWER, MOST_ANSWER = 0.25, 4.0
"""Of a spill with the worst structure permitted, four times the mean is as rare as nothing at all."""


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
def forget_way(s: Record, v: np.ndarray) -> None:
    """The model has nothing on its way: it did not run between two layers."""
    s.answer = 1.0
    for j in range(MOST_STAGES):
        v[at.MODEL_STAGE + j] = 0.0
    for j in range(TRANSIT_RING):
        v[at.MODEL_TRANSIT + j] = 0.0


@kernel
def reset_estimate(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Empty the memory of both estimates and of the model of the transit; no beam may have come for a drift time."""
    forget_way(s, v)
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
def advance_model(p: Record, q: np.ndarray, s: Record, v: np.ndarray, ions: float) -> None:
    """Advance the front end's own model of the extraction (rate as a share of the level) by a tick with ``ions``.

    ``answer``: ions that come for one of the model, followed as fast as counts allow (least mean squares): the
    structure of a spill outruns the smoothed rate, and what is on its way cannot be called back.
    """
    drive = s.drive * s.scale if s.spill_cmd == 1 else 0.0
    v[at.MODEL_TRANSIT + s.ring_pos] = drive
    stage0 = v[at.MODEL_STAGE]
    stage1 = v[at.MODEL_STAGE + 1]
    first = v[at.MODEL_TRANSIT + ((s.ring_pos - s.dead_ticks) & (TRANSIT_RING - 1))]
    v[at.MODEL_STAGE] = stage0 + (first - stage0) * s.stage_share
    v[at.MODEL_STAGE + 1] = stage1 + (stage0 - stage1) * s.stage_share
    v[at.MODEL_STAGE + 2] += (stage1 - v[at.MODEL_STAGE + 2]) * s.stage_share
    model = v[p.last_stage + (at.MODEL_STAGE - at.STAGE)]
    smooth = s.rate_model + (model - s.rate_model) * p.rate_alpha
    s.rate_model = smooth if smooth > 1e-18 else 0.0
    answer = s.answer + s.answer_gain * (ions * 1e5 * s.level_inverse - s.answer * model)
    if not answer > LEAST_ANSWER:  # no number is no answer
        answer = LEAST_ANSWER
    elif answer > MOST_ANSWER:
        answer = MOST_ANSWER
    s.answer = answer


@kernel
def on_the_way(p: Record, s: Record, v: np.ndarray) -> float:
    """All that the model has on its way, in ticks of the level."""
    ahead = 0.0
    for i in range(s.dead_ticks):
        ahead += v[at.MODEL_TRANSIT + ((s.ring_pos - i) & (TRANSIT_RING - 1))]
    for i in range(p.n_stages):
        # a lag hands on what it had before this tick, too
        ahead += v[at.MODEL_STAGE + i] * (s.stage_ticks + (1.0 if i < p.n_stages - 1 else 0.0))
    return ahead


@kernel
def before_gate(p: Record, s: Record, v: np.ndarray) -> float:
    """What the model brings in the next ``gate_ticks`` with the drive off, in ticks of the level."""
    stage0 = v[at.MODEL_STAGE]
    stage1 = v[at.MODEL_STAGE + 1]
    stage2 = v[at.MODEL_STAGE + 2]
    ahead = 0.0
    left = p.gate_ticks
    i = 1
    while left > 0.0:
        first = (
            v[at.MODEL_TRANSIT + ((s.ring_pos + i - s.dead_ticks) & (TRANSIT_RING - 1))] if i <= s.dead_ticks else 0.0
        )
        stage2 += (stage1 - stage2) * s.stage_share
        stage1 += (stage0 - stage1) * s.stage_share
        stage0 += (first - stage0) * s.stage_share
        rate = stage2 if p.n_stages == MOST_STAGES else (stage1 if p.n_stages == 2 else stage0)
        ahead += rate * (left if left < 1.0 else 1.0)
        left -= 1.0
        i += 1
    return ahead


@kernel
def ions_to_come(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> float:
    """Ions that will still come if the beam is stopped now: those on their way by the model, scaled by the rate seen.

    A chopper lets pass what comes before it has closed.
    """
    ahead = on_the_way(p, s, v) if p.gate_ticks <= 0.0 else before_gate(p, s, v)
    return ahead * s.answer * s.level * 1e-5
