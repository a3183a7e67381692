"""Delivery front end: advances spots by dose, splits the tick, corrects position, holds, and keeps the register.

It sees what its electronics see: counts of both chambers, the strip chamber, readbacks, the lines.  It never sees
truth; the truth arrays in the calls below are only booked here, because only the set point says which spot ions
belong to.

- **Late charge**: counts of a tick hold charge of ions that came up to a drift time before.  The front end knows the
  drift from the voltage readback and solves the causal response for the ions of this tick, so that a spot ends when its
  ions have come, not when their charge has been counted.
- **Tracking**: where a tick brings less than a count the crossing is judged on the estimate smoothed along the rate.
- **Booking**: an ion belongs to the spot whose set point stands when it crosses; ions that come while the magnets move
  belong to the spot they move to.
- **Landing**: before a stop (last spot, long move) the drive falls with what remains, and beam is taken off when the
  ions still to come (the tail of the extraction, as modelled and scaled by the measured rate) fill the prescription.
- **Hold**: closed gate, empty ring or end of the flat top take the beam off; ions of the tail still advance spots; the
  delivery goes on by itself at the exact remainder.  An empty ring is left alone until its flat top has ended.  PAUSE
  waits for a command, ABORT for a new load.
- **External supply**: each move is without beam, and beam waits for readings (`ioc_sim.external`).
- **Hang**: the chambers go on counting while the front end does not run.  One that has missed a tick of an active layer
  ends the layer: what came meanwhile is booked, and nothing goes on from what it remembers.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.codes import (
    ABORTED,
    ACTION_ABORT,
    ACTION_INHIBIT,
    ARMED,
    DONE,
    FLAT_TOP,
    HELD,
    HOLD_EMPTY,
    HOLD_GATE,
    HOLD_HANG,
    HOLD_NONE,
    HOLD_OPERATOR,
    HOLD_PERMIT,
    HOLD_REGISTER,
    HOLD_RING,
    HOLD_SETTLING,
    IRRADIATING,
    PAUSED,
)
from ioc_sim.dose_estimate import advance_model, forget_way, ions_to_come
from ioc_sim.external import external_settled
from ioc_sim.intensity_loop import LOOP_TICKS, LOW_FILL, regulate
from ioc_sim.layout import (
    EV_ABORTED,
    EV_BEAM_ON,
    EV_HELD,
    EV_LAYER_DONE,
    EV_PAUSED,
)
from ioc_sim.spot_book import (
    C_LIMIT_US,
    C_X,
    C_Y,
    begin_spot,
    book_partial,
    book_tail,
    finish_spot,
    next_spot,
    set_point,
)

DRY_TICKS = 3000
"""Beam below a fifth of the level for 30 ms while the ring holds little: the ring is empty."""
SPARSE_SHARE = 0.5
"""Beam below half of the level while the ring holds little, half the spot's time gone: better a new cycle."""


@kernel
def settled(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> bool:
    """Both readbacks stand within the settling tolerance of the set points."""
    return (abs((v[at.READ_A] - v[at.SET_A]) * v[at.MM_PER_A]) <= p.settle_mm
            and abs((v[at.READ_A + 1] - v[at.SET_A + 1]) * v[at.MM_PER_A + 1]) <= p.settle_mm)  # fmt: skip


@kernel
def position_feedback(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray) -> None:
    """Use a valid strip window: error against the plan, register centroid, trim of the set points."""
    axis_x = int(q[at.AXIS_SUPPLY])
    axis_y = int(q[at.AXIS_SUPPLY + 1])
    v[at.STRIP_ERR_MM] = v[at.STRIP_MM] - spots[s.spot, C_X]
    v[at.STRIP_ERR_MM + 1] = v[at.STRIP_MM + 1] - spots[s.spot, C_Y]
    s.spot_x += v[at.STRIP_MM]
    s.spot_y += v[at.STRIP_MM + 1]
    s.spot_w += 1.0
    for axis in range(2):
        k = axis_x if axis == 0 else axis_y
        trim = v[at.TRIM_MM + k] + p.feedback_gain * v[at.STRIP_ERR_MM + axis]
        if trim > p.feedback_max_mm:
            trim = p.feedback_max_mm
        elif trim < -p.feedback_max_mm:
            trim = -p.feedback_max_mm
        if not math.isnan(trim):
            v[at.TRIM_MM + k] = trim
    set_point(q, s, v, spots)


@kernel
def may_beam(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> int:
    """HOLD_NONE if nothing but settling keeps the beam away, else the reason."""
    if s.phase != FLAT_TOP or s.ring_token != s.fe_token or s.hebt_token != s.fe_token:
        return HOLD_RING
    if s.stored < 1e-4 * p.fill_ions:
        return HOLD_EMPTY
    if s.permit_line == 0 or s.action == ACTION_INHIBIT or s.rs_code != s.rs_plan or s.stopper_in == 1:
        return HOLD_PERMIT
    if s.hold_line == 1 or (s.gating == 1 and s.gate_open == 0):
        return HOLD_GATE
    if not v[at.EST_IONS] < v[at.LEASE_IONS]:  # no number is no lease
        return HOLD_REGISTER
    return HOLD_NONE


@kernel
def take_demand(s: Record) -> None:
    """No more beam is asked for; what comes all the same, and the next beam, has no drive for a trough of the mains."""
    s.demand = 0
    s.drive = s.rest_drive


@kernel
def stop_for(s: Record, v: np.ndarray, state: int, reason: int, event: int) -> None:
    """Take the demand away and change to ``state``."""
    take_demand(s)
    s.fe_state = state
    s.hold_reason = reason
    s.stop_ticks = 0
    s.dry_ticks = 0
    s.events |= event


@kernel
def try_start(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """From ARMED, HELD or between spots: beam on when everything is ready and the magnets stand.

    Nowhere else is beam demanded.  A permit that was lost and is back is not the one that the layer was armed or
    resumed for, however short it was away and whatever the front end was doing meanwhile.
    """
    if s.permit_epoch != s.armed_epoch:
        stop_for(s, v, PAUSED, HOLD_PERMIT, EV_PAUSED)
        return
    reason = may_beam(p, q, s, v)
    if reason == HOLD_NONE:
        s.settled_ticks = s.settled_ticks + 1 if settled(p, q, s, v) else 0
        if s.settled_ticks < p.settle_ticks or (p.external != 0 and not external_settled(p, q, s, v)):
            reason = HOLD_SETTLING
    s.hold_reason = reason
    if reason == HOLD_NONE:
        if s.fe_state != IRRADIATING:
            s.events |= EV_BEAM_ON
        s.fe_state = IRRADIATING
        s.demand = 1
        s.moving = 0
        s.stopping = 0
        s.scale = 1.0
        if p.external != 0:
            s.move_allow_ticks = 0  # it stands: from here on the readback is judged
        s.dry_ticks = 0


@kernel
def after_stop(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray, reg: np.ndarray) -> None:
    """A stop spot has been stopped: wait for the tail, then finish it and go on or be done."""
    s.stop_ticks += 1
    flowing = s.stop_ticks < 50 or ions_to_come(p, q, s, v) > 0.5 * v[at.IC_IONS_PER_COUNT]
    if s.stop_ticks < p.quiet_ticks and flowing:
        return
    finish_spot(s, v, spots, reg, True)
    s.target_cum = v[at.EST_IONS]
    s.track = s.target_cum
    following = next_spot(s, v, spots, s.spot)
    s.stopping = 0
    if following < 0:
        s.fe_state = DONE
        s.done_token = s.fe_token
        s.hold_reason = HOLD_NONE
        s.events |= EV_LAYER_DONE
        return
    begin_spot(p, q, s, v, spots, following)
    s.moving = 1


@kernel
def after_hang(s: Record, v: np.ndarray, reg: np.ndarray, ions0: float, ions1: float) -> float:
    """The first tick after a hang: an active layer ends here, with what came in the meantime booked to its spot."""
    s.missed_ticks = 0
    if s.fe_state < ARMED or s.fe_state == DONE:
        return 1.0
    v[at.EST_IONS] += ions0
    v[at.EST_IONS + 1] += ions1
    book_partial(s, v, reg)
    if s.fe_state != ABORTED:
        stop_for(s, v, ABORTED, HOLD_HANG, EV_ABORTED)
    return 1.0


@kernel
def front_end_tick(
    p: Record,
    q: np.ndarray,
    s: Record,
    v: np.ndarray,
    spots: np.ndarray,
    reg: np.ndarray,
    ions0: float,
    ions1: float,
) -> float:
    """One 10 us tick, with the ions since the last one by either chamber.

    Returns the share of the tick that belongs to the spot before a change (1.0: no change).
    """
    if s.missed_ticks > 0:
        return after_hang(s, v, reg, ions0, ions1)
    before = s.track
    s.rate_meas += (ions0 * 1e5 - s.rate_meas) * p.rate_alpha
    share = 1.0
    if s.fe_state == ABORTED and s.stop_ticks < p.quiet_ticks:
        book_tail(s, v, reg, ions0, ions1)
    if s.fe_state < ARMED or s.fe_state >= DONE:
        return share
    v[at.EST_IONS] += ions0
    v[at.EST_IONS + 1] += ions1
    ahead = before + s.rate_meas * 1e-5
    s.track = ahead + s.track_gain * (v[at.EST_IONS] - ahead)
    advance_model(p, q, s, v, ions0)
    s.move_ticks += 1
    if s.fe_state == IRRADIATING or s.stop_ticks < p.quiet_ticks:
        remaining = s.target_cum - s.track
        if remaining <= 0.0 and s.stop_spot == 0 and s.stopping == 0:
            step = s.track - before
            share = (s.target_cum - before) / step if step > 0.0 else 1.0
            share = min(1.0, max(0.0, share))
            finish_spot(s, v, spots, reg, False)
            begin_spot(p, q, s, v, spots, next_spot(s, v, spots, s.spot))
    if s.action == ACTION_ABORT:
        book_partial(s, v, reg)
        stop_for(s, v, ABORTED, HOLD_PERMIT, EV_ABORTED)
        return share
    if s.fe_state == IRRADIATING:
        irradiate(p, q, s, v, spots, reg)
    elif s.fe_state == HELD:
        s.stop_ticks += 1
        if s.stop_ticks > 100:
            if s.permit_line == 0:
                stop_for(s, v, PAUSED, HOLD_PERMIT, EV_PAUSED)
            else:
                resume_held(p, q, s, v)
    elif s.fe_state == PAUSED:
        s.stop_ticks += 1
    elif s.permit_line == 0:
        stop_for(s, v, PAUSED, HOLD_PERMIT, EV_PAUSED)
    else:
        try_start(p, q, s, v)
    return share


@kernel
def resume_held(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Go on after a hold; a stop spot that the tail has already filled is finished without beam."""
    if s.stop_spot == 1 and s.target_cum - s.track <= v[at.IC_IONS_PER_COUNT]:
        s.fe_state = IRRADIATING
        s.stopping = 1
        s.stop_ticks = 0
        return
    if s.hold_reason == HOLD_EMPTY and s.phase == FLAT_TOP:
        return
    try_start(p, q, s, v)


@kernel
def running_dry(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray) -> bool:
    """The ring can no longer give the present spot its ions in time, because it holds too few.

    A ring that is full and gives no beam is none of this: that is for the time-out of the spot.
    """
    if s.dry_ticks > DRY_TICKS:
        return True
    if s.spot_beam_ticks * 20.0 < spots[s.spot, C_LIMIT_US] or s.spill_on_ticks < 300:
        return False
    return s.stored < LOW_FILL * p.fill_ions and s.rate_meas < SPARSE_SHARE * s.level


@kernel
def irradiate(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray, reg: np.ndarray) -> None:
    """The IRRADIATING state: stops, landings, moves without beam, and everything that takes the beam away."""
    if s.stopping == 1:
        after_stop(p, q, s, v, spots, reg)
        return
    reason = may_beam(p, q, s, v)
    if reason != HOLD_NONE:
        if reason == HOLD_PERMIT:
            stop_for(s, v, PAUSED, reason, EV_PAUSED)
        else:
            stop_for(s, v, HELD, reason, EV_HELD)
        return
    if s.moving == 1:
        try_start(p, q, s, v)
        return
    s.spot_beam_ticks += 1
    s.layer_beam_ticks += 1
    s.beam_on_ticks += 1
    if s.tick & (LOOP_TICKS - 1) == 0:
        regulate(p, q, s, v)
    if running_dry(p, q, s, v, spots):
        stop_for(s, v, HELD, HOLD_EMPTY, EV_HELD)
        return
    s.scale = 1.0
    if s.stop_spot == 1:
        remaining = s.target_cum - s.track
        more = s.answer * s.drive
        land = s.level * 1e-5 * p.land_ticks * (more if more > 1.0 else 1.0)
        if remaining >= land:
            return
        s.scale = max(remaining / land, p.land_floor)
        if remaining <= ions_to_come(p, q, s, v) + s.level * s.scale * 5e-6:
            take_demand(s)
            s.stopping = 1
            s.stop_ticks = 0


@kernel
def front_end_coarse(s: Record, v: np.ndarray, reg: np.ndarray) -> None:
    """A 1 ms step without beam: an ABORT ends the layer, a lost permit pauses it, a lost flat top holds it."""
    if s.missed_ticks > 0:
        after_hang(s, v, reg, v[at.EST_UNREAD], v[at.EST_UNREAD + 1])
        v[at.EST_UNREAD] = 0.0
        v[at.EST_UNREAD + 1] = 0.0
    if s.fe_state < ARMED or s.fe_state >= DONE:
        return
    if s.action == ACTION_ABORT:
        book_partial(s, v, reg)
        stop_for(s, v, ABORTED, HOLD_PERMIT, EV_ABORTED)
    elif s.permit_line == 0 and s.fe_state != PAUSED:
        stop_for(s, v, PAUSED, HOLD_PERMIT, EV_PAUSED)
    elif s.fe_state == IRRADIATING:
        stop_for(s, v, HELD, HOLD_RING, EV_HELD)
    elif s.fe_state != PAUSED and s.hold_reason == HOLD_SETTLING:
        s.hold_reason = HOLD_RING  # the magnets are not what is waited for: nobody looks at them without a flat top


@kernel
def arm(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray, permit_epoch: int) -> None:
    """From LOADED: send the magnets to the first spot with something left and wait for beam to be possible, under the
    permit of ``permit_epoch`` alone."""
    s.armed_epoch = permit_epoch
    v[at.EST_IONS] = 0.0
    v[at.EST_IONS + 1] = 0.0
    s.track = 0.0
    forget_way(s, v)
    s.target_cum = 0.0
    s.stopping = 0
    s.moving = 0
    s.stop_ticks = p.quiet_ticks
    first = next_spot(s, v, spots, -1)
    if first < 0:
        s.fe_state = DONE
        s.done_token = s.fe_token
        s.events |= EV_LAYER_DONE
        return
    begin_spot(p, q, s, v, spots, first)
    s.fe_state = ARMED
    s.hold_reason = HOLD_RING


@kernel
def disarm(s: Record, v: np.ndarray, reg: np.ndarray) -> None:
    """Take an active layer out of action; the register keeps what was delivered."""
    book_partial(s, v, reg)
    s.demand = 0
    s.fe_state = ABORTED
    s.hold_reason = HOLD_OPERATOR
    s.stop_ticks = 0
