"""Scanning magnets and their supplies, and where the beam goes.

Supply: second order, d2I/dt2 = w^2 (I_set - I) - 2 z w dI/dt, with the voltage limit |L dI/dt + R I| <= V_max,
integrated semi-implicitly in steps of 10 us.  Deflection: position = polarity * SAD * tan(k I / (B rho)).
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import kernel
from facility.rng import bell, draw
from ioc_sim import faults as fp
from ioc_sim.faults import faulted

STREAM_CURRENT = 10
STREAM_READ = 12
STREAM_PROBE = 14
TICK_S = 1e-5


@kernel
def supply_step(p: np.record, s: np.record, k: int, dt_s: float) -> None:
    """Move supply ``k`` (0 upstream, 1 downstream) by ``dt_s`` towards its set point."""
    current = s.current_a[k]
    speed = s.speed_a[k]
    speed += (p.supply_omega2[k] * (s.set_a[k] - current) - p.supply_damp[k] * speed) * dt_s
    top = p.supply_volt_per_l[k] - p.supply_r_per_l[k] * current
    low = -p.supply_volt_per_l[k] - p.supply_r_per_l[k] * current
    if speed > top:
        speed = top
    elif speed < low:
        speed = low
    current += speed * dt_s
    if current > p.supply_max_a[k]:
        current = p.supply_max_a[k]
        speed = 0.0
    elif current < -p.supply_max_a[k]:
        current = -p.supply_max_a[k]
        speed = 0.0
    s.current_a[k] = current
    s.speed_a[k] = speed


@kernel
def supplies_coarse(p: np.record, s: np.record) -> None:
    """Both supplies over 1 ms, in 10 us steps as long as they move."""
    for k in range(2):
        if abs(s.set_a[k] - s.current_a[k]) < 1e-9 and abs(s.speed_a[k]) < 1e-3:
            s.current_a[k] = s.set_a[k]
            s.speed_a[k] = 0.0
            continue
        for _ in range(100):
            supply_step(p, s, k, TICK_S)


@kernel
def true_current(p: np.record, s: np.record, faults: np.record, k: int) -> float:
    """Current that flows in magnet ``k``: the supply's, with noise, as it may have failed."""
    noise = p.supply_noise_a[k] * bell(draw(p.seed, STREAM_CURRENT + k, s.tick))
    return faulted(faults, fp.SCAN_X_CURRENT + k, s.current_a[k] + noise, s.t_ns)


@kernel
def read_supplies(p: np.record, s: np.record, faults: np.record, current0: float, current1: float) -> None:
    """Readback (quantised) and independent field probe of both magnets."""
    for k in range(2):
        current = current0 if k == 0 else current1
        read = current + p.supply_read_noise_a[k] * bell(draw(p.seed, STREAM_READ + k, s.tick))
        step = p.supply_step_a[k]
        s.read_a[k] = faulted(faults, fp.SCAN_X_READBACK + k, math.floor(read / step + 0.5) * step, s.t_ns)
        probe = current + p.supply_probe_noise_a[k] * bell(draw(p.seed, STREAM_PROBE + k, s.tick))
        s.probe_tm[k] = faulted(faults, fp.SCAN_X_PROBE + k, probe * p.supply_tm_per_a[k], s.t_ns)


@kernel
def position_mm(p: np.record, axis: int, current_a: float, brho_tm: float) -> float:
    """Position along ``axis`` at the isocentre plane, mm, by the room's wiring and distances.

    tan by its series: the angle is below 0.03, the error below 1e-12 of it.
    """
    k = p.axis_supply[axis]
    angle = p.supply_tm_per_a[k] * current_a / brho_tm
    sq = angle * angle
    tan = angle * (1.0 + sq * (1.0 / 3.0 + sq * (2.0 / 15.0 + sq * (17.0 / 315.0))))
    return p.axis_polarity[axis] * p.axis_sad_mm[axis] * tan
