"""Is the beam off?  Judged by the rack after every ABORT and PAUSE, with no software of control or safety in between.

- Chambers: once the permit has been away for the tail of the extraction and the longest ion drift the rack can follow,
  neither chamber may gain more than IDLE_COUNTS counts in 10 ms.  A chamber without a number confirms nothing.
- Devices: an ABORT needs a device beside the extraction that reads back blocking: quadrupole, chopper or ring dump.  An
  extraction that has stopped is none: it fails together with what drives it.

What is not confirmed *escalates*: the ring is dumped and the source inhibited until the latch of the rule
``beam-off-confirmation`` is reset.
"""

from __future__ import annotations

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import ACTION_ABORT
from ioc_sim.faults import faulted

IDLE_COUNTS = 20.0
"""Leakage is 1 count of either chamber in 10 ms and taken off, noise 1, what is left of a tail of 5e8/s at most 8."""
WINDOW_TICKS = 1000
OBEY_TICKS = 5


@kernel
def confirm_off(p: Record, s: Record, v: np.ndarray, faults: np.ndarray, ticks: int) -> None:
    """Judge a tick (or a millisecond of them) without a permit; sets ``unconfirmed`` and ``escalated``."""
    unconfirmed = 0
    if s.no_permit_ticks <= ticks:  # the first step: the devices begin to move
        s.abort_ticks = s.off_since_ticks = s.unconfirmed = 0
        return
    s.abort_ticks = s.abort_ticks + ticks if s.action == ACTION_ABORT else 0
    if s.abort_ticks > p.block_ticks and s.dump_ticks <= p.dump_delay_ticks:
        quad = p.quad_present == 1 and faulted(s, faults, fp.QUAD, s.quad_open, s.t_ns) < 0.5
        chopper = p.chopper_present == 1 and faulted(s, faults, fp.CHOPPER, s.chopper_open, s.t_ns) < 0.5
        if not (quad or chopper):
            unconfirmed = 1
    if s.no_permit_ticks > p.confirm_ticks:
        if s.off_since_ticks == 0 or s.no_permit_ticks - s.off_since_ticks >= WINDOW_TICKS:
            s.off_since_ticks = s.no_permit_ticks
            v[at.OFF_IONS] = v[at.IC_IDLE_IONS]
            v[at.OFF_IONS + 1] = v[at.IC_IDLE_IONS + 1]
        for k in range(2):
            gained = v[at.IC_IDLE_IONS + k] - v[at.OFF_IONS + k]
            if not gained <= IDLE_COUNTS * v[at.IC_IONS_PER_COUNT + k] or v[at.IC_BAD + k] != 0.0:
                unconfirmed = 1
    s.unconfirmed = unconfirmed
    if unconfirmed == 1:
        s.escalated = 1


@kernel
def source_asked(s: Record) -> bool:
    """Whether the source is to be inhibited."""
    return s.escalated == 1 or s.personnel == 0 or s.proof_stopper == 1


@kernel
def source_tick(p: Record, s: Record, faults: np.ndarray, ticks: int) -> float:
    """The source inhibit follows escalation, personnel chain and proof; once a millisecond, or each coarse step.

    Returns its readback, which may be no number."""
    s.source_ticks = s.source_ticks + ticks if source_asked(s) else 0
    inhibited = faulted(s, faults, fp.SOURCE, 1.0 if s.source_ticks > p.source_delay_ticks else 0.0, s.t_ns)
    s.source_inhibited = 1 if inhibited > 0.5 else 0
    return inhibited if inhibited != inhibited else float(s.source_inhibited)


@kernel
def obeys(told: bool, does: bool, readback: float, ticks: int, allowed: float) -> float:
    """1 while a device does what it was told ``ticks`` ago, or may still be on its way; one that tells no number never
    does."""
    return 1.0 if readback == readback and (told == does or ticks <= allowed + OBEY_TICKS) else 0.0


@kernel
def actuator_signals(p: Record, s: Record, sig: np.ndarray, faults: np.ndarray) -> None:
    """Readbacks of the beam-off devices, each against its command; once a millisecond."""
    t_ns = s.t_ns
    source = source_tick(p, s, faults, 100)
    rfko_on = faulted(s, faults, fp.RFKO, float(s.rfko_on), t_ns)
    quad_open = faulted(s, faults, fp.QUAD, s.quad_open, t_ns)
    chopper_open = faulted(s, faults, fp.CHOPPER, s.chopper_open, t_ns)
    dump = faulted(s, faults, fp.DUMP, float(s.dump_wanted), t_ns)
    on, quad, chopper = rfko_on > 0.0, quad_open < 0.5, chopper_open < 0.5
    sig[g.RFKO_ON] = 1.0 if on else 0.0
    sig[g.QUAD_BLOCK] = 1.0 if quad else 0.0
    sig[g.CHOPPER_BLOCK] = 1.0 if chopper else 0.0
    since = s.spill_on_ticks if s.spill_cmd == 1 else s.spill_off_ticks
    sig[g.EXTRACTION_OBEYS] = obeys(s.spill_cmd == 1, on, rfko_on, since, p.rfko_delay_ticks)
    takes = p.quad_delay_ticks + 1.0 / p.quad_step
    sig[g.QUAD_OBEYS] = obeys(s.quad_cmd == 1, quad, quad_open, s.quad_ticks, takes) if p.quad_present == 1 else 1.0
    takes = p.chopper_delay_ticks + 1.0 / p.chopper_step
    sig[g.CHOPPER_OBEYS] = 1.0
    if p.chopper_present == 1:
        sig[g.CHOPPER_OBEYS] = obeys(s.chopper_cmd == 1, chopper, chopper_open, s.chopper_ticks, takes)
    sig[g.DUMP_OBEYS] = 1.0 if dump == dump and s.dump_wanted == s.dump_cmd else 0.0
    sig[g.ESCALATED] = s.escalated
    sig[g.SOURCE_ASKED] = 1.0 if source_asked(s) else 0.0
    sig[g.SOURCE_INHIBITED] = source
