"""The spot table and the register: which spot is next, where the magnets go, what each spot has got.

An ion belongs to the spot whose set point stands when it crosses; ions that come while the magnets move belong to the
spot they move to.  The truth is booked here too, because only the set point says which spot ions belong to; nothing in
the front end reads it.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.layout import T_FIRST_NS, T_IONS, T_LAST_NS, T_SUM_X, T_SUM_Y
from ioc_sim.physics.scanning import remember

# layer table
C_X, C_Y, C_XSET, C_YSET, C_TARGET, C_START, C_OFF_MOVE, C_LIMIT_US = 0, 1, 2, 3, 4, 5, 6, 7
# register
R_IC1, R_IC2, R_X, R_Y, R_BEAM_US, R_END, R_DONE = 3, 4, 5, 6, 7, 8, 9


@kernel
def next_spot(s: Record, v: np.ndarray, spots: np.ndarray, after: int) -> int:
    """First spot after ``after`` with something left to deliver, -1 if none."""
    for i in range(after + 1, s.n_spots):
        if spots[i, C_TARGET] - spots[i, C_START] > 0.0:
            return i
    return -1


@kernel
def set_point(q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray) -> None:
    """Set points of the present spot with the position correction, in whole steps of the supplies' converters; what the
    magnets keep of it is the plant's alone."""
    steps0 = (spots[s.spot, C_XSET] - v[at.TRIM_MM] * v[at.A_PER_MM]) * q[at.SUPPLY_STEPS_PER_A]
    steps1 = (spots[s.spot, C_YSET] - v[at.TRIM_MM + 1] * v[at.A_PER_MM + 1]) * q[at.SUPPLY_STEPS_PER_A + 1]
    v[at.SET_A] = np.floor(steps0 + 0.5) * q[at.SUPPLY_STEP_A]
    v[at.SET_A + 1] = np.floor(steps1 + 0.5) * q[at.SUPPLY_STEP_A + 1]
    remember(q, v, 0)
    remember(q, v, 1)


@kernel
def begin_spot(p: Record, q: np.ndarray, s: Record, v: np.ndarray, spots: np.ndarray, spot: int) -> None:
    """Make ``spot`` the present one and send the magnets there."""
    old0 = v[at.SET_A]
    old1 = v[at.SET_A + 1]
    s.spot = spot
    v[at.SPOT_CUM0] = s.target_cum
    v[at.SPOT_CUM0 + 1] = v[at.EST_IONS + 1]
    s.target_cum += spots[spot, C_TARGET] - spots[spot, C_START]
    set_point(q, s, v, spots)
    s.spot_beam_ticks = 0
    s.spot_x = 0.0
    s.spot_y = 0.0
    s.spot_w = 0.0
    s.move_ticks = 0
    s.settled_ticks = 0
    move0 = abs(v[at.SET_A] - old0) / (q[at.SUPPLY_VOLT_PER_L] * 1e-5)
    move1 = abs(v[at.SET_A + 1] - old1) / (q[at.SUPPLY_VOLT_PER_L + 1] * 1e-5)
    s.move_allow_ticks = p.settle_extra_ticks + math.floor(1.3 * max(move0, move1))
    s.strip_clean = 0
    following = next_spot(s, v, spots, spot)
    # the table's word is for the move from the spot before: one that leaves spots out is made without beam
    gated = q[at.EXT_AGE_NS] > 0.0 or q[at.EXT_AGE_NS + 1] > 0.0
    s.stop_spot = 1 if (following != spot + 1 or gated or spots[following, C_OFF_MOVE] > 0.5) else 0
    v[at.EXT_COUNT] = 0.0
    v[at.EXT_COUNT + 1] = 0.0


@kernel
def booked(s: Record, i: int) -> None:
    """The register of spot ``i`` has changed: its row is written with the next commit."""
    if s.book_from < 0:
        s.book_from = i
    s.book_to = i


@kernel
def finish_spot(s: Record, v: np.ndarray, spots: np.ndarray, reg: np.ndarray, last: bool) -> None:
    """Write the register of the present spot; ``last``: all ions up to now are its own."""
    i = s.spot
    ions1 = v[at.EST_IONS] if last else s.target_cum
    reg[i, R_IC1] += ions1 - v[at.SPOT_CUM0]
    reg[i, R_IC2] += v[at.EST_IONS + 1] - v[at.SPOT_CUM0 + 1]
    if s.spot_w > 0.0:
        reg[i, R_X] = s.spot_x / s.spot_w
        reg[i, R_Y] = s.spot_y / s.spot_w
    reg[i, R_BEAM_US] += s.spot_beam_ticks * 10.0
    reg[i, R_END] = float(s.t_ns)
    reg[i, R_DONE] = 1.0
    s.done_spots += 1
    booked(s, i)


@kernel
def book_partial(s: Record, v: np.ndarray, reg: np.ndarray) -> None:
    """Write what the present, unfinished spot has got so far; called when the delivery stops for good."""
    if s.spot < 0:
        return
    i = s.spot
    reg[i, R_IC1] += v[at.EST_IONS] - v[at.SPOT_CUM0]
    reg[i, R_IC2] += v[at.EST_IONS + 1] - v[at.SPOT_CUM0 + 1]
    if s.spot_w > 0.0:
        reg[i, R_X] = s.spot_x / s.spot_w
        reg[i, R_Y] = s.spot_y / s.spot_w
    reg[i, R_BEAM_US] += s.spot_beam_ticks * 10.0
    reg[i, R_END] = float(s.t_ns)
    v[at.SPOT_CUM0] = v[at.EST_IONS]
    v[at.SPOT_CUM0 + 1] = v[at.EST_IONS + 1]
    s.spot_beam_ticks = 0
    booked(s, i)


@kernel
def book_tail(s: Record, v: np.ndarray, reg: np.ndarray, ions0: float, ions1: float) -> None:
    """Ions that still come after an ABORT or a disarm belong to the spot that was cut; the register follows them."""
    v[at.EST_IONS] += ions0
    v[at.EST_IONS + 1] += ions1
    s.stop_ticks += 1
    book_partial(s, v, reg)


@kernel
def book_truth(s: Record, v: np.ndarray, truth: np.ndarray, spot: int, ions: float, x_mm: float, y_mm: float) -> None:
    """Add true ions to a spot (simulation only; nothing in the front end reads this)."""
    if ions <= 0.0:
        return
    if spot < 0:
        s.unbooked_ions += ions
        return
    if truth[spot, T_IONS] == 0.0:
        truth[spot, T_FIRST_NS] = float(s.t_ns)
    truth[spot, T_IONS] += ions
    truth[spot, T_SUM_X] += ions * x_mm
    truth[spot, T_SUM_Y] += ions * y_mm
    truth[spot, T_LAST_NS] = float(s.t_ns)
