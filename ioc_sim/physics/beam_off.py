"""Beam-off devices: each with dead time, linear fall and failures of its own.

Hard-wired: the permit line (fast tier, safety controller, link) acts on extraction drive, fast quadrupole, chopper and,
after an ABORT or when the permit stays away, on the ring dump.  No software of front end or control lies between.
"""

from __future__ import annotations

import numpy as np

from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim.codes import ACTION_ABORT, ACTION_HOLD, ACTION_PAUSE
from ioc_sim.faults import faulted
from ioc_sim.layout import EV_STATE
from ioc_sim.physics.confirmation import confirm_off

DUMP_AFTER_TICKS = 5000
"""The ring is dumped when the permit has been away for 50 ms."""


@kernel
def permit_lines(s: Record, v: np.ndarray) -> None:
    """The AND of everything that may stop the beam, from the lines as they stand at the start of the tick.

    Each change of the permit, away or back, begins another epoch: what was meant for one permit is not taken under
    the next (`ioc_sim.commands.same_permit`).
    """
    permit = s.action < ACTION_PAUSE and s.p_permit == 1 and s.link_ok == 1
    if permit != (s.permit_line == 1):
        s.permit_line = 1 if permit else 0
        s.permit_epoch += 1
        s.events |= EV_STATE
    s.hold_line = 1 if (s.action == ACTION_HOLD or s.p_hold == 1) else 0


@kernel
def actuators_tick(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, ticks: int) -> None:
    """Commands to the devices and their motion over ``ticks`` ticks of 10 us."""
    cmd = 1 if (s.demand == 1 and s.permit_line == 1 and s.hold_line == 0) else 0
    if cmd == 1:
        if s.spill_cmd == 0:
            if s.spill_off_ticks > 100:
                s.overshoot = p.overshoot
            s.spill_on_ticks = 0
        s.spill_on_ticks += ticks
        s.spill_off_ticks = 0
    else:
        if s.spill_cmd == 1:
            s.spill_off_ticks = 0
        s.spill_off_ticks += ticks
    s.spill_cmd = cmd
    if cmd == 1:
        s.rfko_on = 1
    elif s.spill_off_ticks > p.rfko_delay_ticks:
        s.rfko_on = 0

    block = 1 - s.permit_line
    s.quad_ticks = 0 if block != s.quad_cmd else s.quad_ticks + ticks
    s.quad_cmd = block
    if p.quad_present == 1 and block == 1:
        if s.quad_ticks >= p.quad_delay_ticks:
            s.quad_open = 0.0 if ticks > 1 else max(0.0, s.quad_open - p.quad_step)
    else:
        s.quad_open = 1.0

    block = 1 - cmd
    s.chopper_ticks = 0 if block != s.chopper_cmd else s.chopper_ticks + ticks
    s.chopper_cmd = block
    if p.chopper_present == 1 and block == 1:
        if s.chopper_ticks >= p.chopper_delay_ticks:
            s.chopper_open = 0.0 if ticks > 1 else max(0.0, s.chopper_open - p.chopper_step)
    else:
        s.chopper_open = 1.0

    s.no_permit_ticks = 0 if s.permit_line == 1 else s.no_permit_ticks + ticks
    if s.no_permit_ticks > 0:
        confirm_off(p, s, v, faults, ticks)
    else:
        s.unconfirmed = 0
    wanted = s.action == ACTION_ABORT or s.no_permit_ticks > DUMP_AFTER_TICKS or s.escalated == 1
    dump = faulted(s, faults, fp.DUMP, 1.0 if wanted else 0.0, s.t_ns) > 0.5
    s.dump_ticks = s.dump_ticks + ticks if dump else 0
    s.dump_wanted = 1 if wanted else 0
    s.dump_cmd = 1 if dump else 0
    if dump and s.dump_ticks > p.dump_delay_ticks:
        if s.dump_ticks - ticks <= p.dump_delay_ticks:
            s.dump_step = s.stored / p.dump_fall_ticks
        s.stored = 0.0 if ticks > 1 else max(0.0, s.stored - s.dump_step)
