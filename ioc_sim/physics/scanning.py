"""Scanning magnets, their supplies and fields, and where the beam goes.

Supply: second order, d2I/dt2 = w^2 (I_set - I) - 2 z w dI/dt, with the voltage limit |L dI/dt + R I| <= V_max,
integrated semi-implicitly in steps of 10 us.

Field, as the current that would hold it: B = I + h - tau dI/dt, eddy currents to first order in their time constant,
which is short against the supply's.  Hysteresis h is that of a play: a remembered current r is dragged along by the set
point, which moves freely within r +- span, and h = a (r - I_set) / span lies within +-a: rising currents find the field
low, falling ones high.  The readback is of the current, the probe of the field.  Deflection:
position = polarity * SAD * tan(k B / (B rho)).
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.faults import faulted

TICK_S = 1e-5


@kernel
def supply_step(p: Record, q: np.ndarray, s: Record, v: np.ndarray, k: int, dt_s: float) -> None:
    """Move supply ``k`` (0 upstream, 1 downstream) by ``dt_s`` towards its set point."""
    current = v[at.CURRENT_A + k]
    speed = v[at.SPEED_A + k]
    speed += (q[at.SUPPLY_OMEGA2 + k] * (v[at.SET_A + k] - current) - q[at.SUPPLY_DAMP + k] * speed) * dt_s
    top = q[at.SUPPLY_VOLT_PER_L + k] - q[at.SUPPLY_R_PER_L + k] * current
    low = -q[at.SUPPLY_VOLT_PER_L + k] - q[at.SUPPLY_R_PER_L + k] * current
    if speed > top:
        speed = top
    elif speed < low:
        speed = low
    current += speed * dt_s
    if current > q[at.SUPPLY_MAX_A + k]:
        current = q[at.SUPPLY_MAX_A + k]
        speed = 0.0
    elif current < -q[at.SUPPLY_MAX_A + k]:
        current = -q[at.SUPPLY_MAX_A + k]
        speed = 0.0
    v[at.CURRENT_A + k] = current
    v[at.SPEED_A + k] = speed


@kernel
def supplies_coarse(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Both supplies over 1 ms, in 10 us steps as long as they move."""
    for k in range(2):
        if abs(v[at.SET_A + k] - v[at.CURRENT_A + k]) < 1e-9 and abs(v[at.SPEED_A + k]) < 1e-3:
            v[at.CURRENT_A + k] = v[at.SET_A + k]
            v[at.SPEED_A + k] = 0.0
            continue
        for _ in range(100):
            supply_step(p, q, s, v, k, TICK_S)


@kernel
def true_current(s: Record, v: np.ndarray, faults: np.ndarray, k: int, i: int) -> float:
    """Current that flows in magnet ``k`` in tick ``i`` of the millisecond: the supply's, as it may have failed."""
    noise = v[at.NOISE_CURRENT + at.NOISE_BLOCK * k + i]
    return faulted(s, faults, fp.SCAN_X_CURRENT + k, v[at.CURRENT_A + k] + noise, s.t_ns)


@kernel
def field_a(q: np.ndarray, v: np.ndarray, k: int, current_a: float) -> float:
    """Field of magnet ``k`` at a true current, as the current that would hold it, A."""
    return current_a + (v[at.REMANENCE_A + k] - q[at.EDDY_S + k] * v[at.SPEED_A + k])


@kernel
def remember(q: np.ndarray, v: np.ndarray, k: int) -> None:
    """The set point of supply ``k`` has moved: drag the remembered current along."""
    aim = v[at.SET_A + k]
    span = q[at.HYSTERESIS_SPAN_A + k]
    kept = v[at.PLAY_A + k]
    if kept > aim + span:
        kept = aim + span
    elif kept < aim - span:
        kept = aim - span
    v[at.PLAY_A + k] = kept
    v[at.REMANENCE_A + k] = q[at.HYSTERESIS_A + k] * (kept - aim) / span


@kernel
def standardise(q: np.ndarray, v: np.ndarray) -> None:
    """Both magnets have been run through their cycle: they remember nothing but the present set points."""
    for k in range(2):
        v[at.PLAY_A + k] = v[at.SET_A + k]
        v[at.REMANENCE_A + k] = 0.0


@kernel
def read_supplies(
    q: np.ndarray,
    s: Record,
    v: np.ndarray,
    faults: np.ndarray,
    current0: float,
    current1: float,
    field0: float,
    field1: float,
    i: int,
) -> None:
    """Readback (quantised) and independent field probe of both magnets in tick ``i`` of the millisecond."""
    for k in range(2):
        current = current0 if k == 0 else current1
        field = field0 if k == 0 else field1
        read = current + v[at.NOISE_READ + at.NOISE_BLOCK * k + i]
        step = q[at.SUPPLY_STEP_A + k]
        v[at.READ_A + k] = faulted(
            s, faults, fp.SCAN_X_READBACK + k, math.floor(read * q[at.SUPPLY_STEPS_PER_A + k] + 0.5) * step, s.t_ns
        )
        probe = field + v[at.NOISE_PROBE + at.NOISE_BLOCK * k + i]
        v[at.PROBE_TM + k] = faulted(s, faults, fp.SCAN_X_PROBE + k, probe * q[at.SUPPLY_TM_PER_A + k], s.t_ns)


@kernel
def position_mm(q: np.ndarray, v: np.ndarray, axis: int, field_a: float, brho_rel: float) -> float:
    """Position along ``axis`` at the isocentre plane, mm, by the room's wiring and distances.

    ``brho_rel`` is the rigidity over that of the energy table.

    tan by its series: the angle is below 0.03, the error below 1e-12 of it.
    """
    angle = v[at.ANGLE_PER_A + axis] * field_a
    if brho_rel != 1.0:
        angle /= brho_rel
    sq = angle * angle
    tan = angle * (1.0 + sq * (1.0 / 3.0 + sq * (2.0 / 15.0 + sq * (17.0 / 315.0))))
    return q[at.AXIS_POLARITY + axis] * q[at.AXIS_SAD_MM + axis] * tan
