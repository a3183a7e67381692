"""The synchrotron's cycle, first order: phases with fixed durations, one energy a cycle (or several, descending).

Judged at 1 ms boundaries.  Without anybody's help the ring repeats a cycle whose layer is not finished, and goes on to
the queued request when the front end reports its layer done.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import Record, kernel
from facility.rng import bell, draw
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import (
    ARMED,
    CAPTURE,
    DUMP,
    ENERGY_STEP,
    FLAT_TOP,
    HELD,
    HOLD_EMPTY,
    INJECTION,
    RAMP,
    RAMP_DOWN,
    RESONANCE,
    RING_FAULT,
    STABILISE,
    STANDARDISE,
    STANDBY,
)
from ioc_sim.faults import faulted
from ioc_sim.layout import (
    E_ANSWER_TICKS,
    E_ANSWER_TURNS,
    E_BRHO,
    E_ENERGY,
    E_FREV,
    E_RAMP_NS,
    E_SET,
    E_SIGMA,
    E_TICKS_PER_TURN,
    EV_PHASE,
    EV_SPILL_END,
)
from ioc_sim.physics.chambers import free_charge, spot_constants
from ioc_sim.physics.scanning import standardise
from ioc_sim.physics.spill import set_lines

STREAM_FILL = 30
STREAM_JITTER = 31
MOST_SET = float(2**31 - 1)
MOST_FILLS = 1e3
"""More than that of the mean fill no ring holds, whatever a fault says."""


@kernel
def enter(s: Record, v: np.ndarray, phase: int, duration_ns: int) -> None:
    """Begin ``phase`` now."""
    s.phase = phase
    s.phase_end_ns = s.t_ns + duration_ns
    s.events |= EV_PHASE


@kernel
def take_request(s: Record, v: np.ndarray) -> None:
    """Make the queued request the running one."""
    s.ring_token = s.queued_token
    s.ring_code = s.queued_code
    s.ring_set = s.queued_set
    s.queued = 0


@kernel
def leave_transport(s: Record) -> None:
    """The line holds no set points for what is in the ring."""
    s.hebt_token = 0
    s.hebt_set = 0


@kernel
def take_up(s: Record, faults: np.ndarray, etab: np.ndarray) -> None:
    """The devices of the transport line take up the set points of the ring's energy in their room, and say which.

    The layer's token is theirs only if these are the set points that the cycle was asked for with.
    """
    taken = faulted(s, faults, fp.HEBT_SET, etab[s.ring_code, E_SET], s.t_ns)
    s.hebt_set = int(taken) if 0.0 <= taken <= MOST_SET else 0
    s.hebt_token = s.ring_token if s.hebt_set == s.ring_set else 0


@kernel
def start_cycle(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Begin a cycle for ``ring_token`` and ``ring_code``."""
    s.cycle += 1
    s.steps_done = 0
    s.end_cycle = 0
    leave_transport(s)
    enter(s, v, INJECTION, p.injection_ns)


@kernel
def kept(p: Record, s: Record, faults: np.ndarray, ions: float) -> float:
    """What a fault leaves of a fill: none of one that is no number, and ``MOST_FILLS`` at most."""
    found = faulted(s, faults, fp.RING_IONS, 1.0, s.t_ns) * ions
    return min(found, MOST_FILLS * p.fill_ions) if found > 0.0 else 0.0


@kernel
def accumulate(p: Record, s: Record, faults: np.ndarray) -> None:
    """Ions in the ring while they are injected and captured.

    Stripping injection brings turn upon turn to the same phase space; each passage of the foil loses some, so that what
    is stored goes towards a balance, 1 - exp(-t / tau).  Capture loses what does not fit into the bucket.
    """
    if s.source_inhibited == 1 or s.dump_cmd == 1:
        return
    ions = kept(p, s, faults, p.fill_ions * (1.0 + p.fill_jitter * bell(draw(p.seed, STREAM_FILL, s.cycle))))
    ions /= 1.0 - p.capture_loss
    if s.phase == INJECTION:
        past = 1.0 - (s.phase_end_ns - s.t_ns) / p.injection_ns
        s.stored = ions * (1.0 - math.exp(-p.accumulation * past)) / (1.0 - math.exp(-p.accumulation))
    else:
        past = 1.0 - (s.phase_end_ns - s.t_ns) / p.capture_ns
        s.stored = ions * (1.0 - p.capture_loss * past)


@kernel
def trip(s: Record, v: np.ndarray) -> None:
    """A supply of the ring has tripped: the beam is lost in the ring, the cycle is over."""
    if s.phase == FLAT_TOP:
        s.events |= EV_SPILL_END
    s.stored = 0.0
    s.end_cycle = 0
    leave_transport(s)
    enter(s, v, RING_FAULT, 0)


@kernel
def fill(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray) -> None:
    """Ions stored after capture, with jitter from cycle to cycle; extraction sensitivity and upstream jitter too."""
    ions = p.fill_ions * (1.0 + p.fill_jitter * bell(draw(p.seed, STREAM_FILL, s.cycle)))
    s.drive = 1.0
    s.ring_gain = 1.0
    s.rest_drive = 1.0
    if s.source_inhibited == 1:
        ions = 0.0
    s.stored = kept(p, s, faults, ions)
    s.cycle_gain = 1.0 + p.sensitivity_spread * bell(draw(p.seed, STREAM_FILL + 7, s.cycle))
    for axis in range(2):
        jitter = bell(draw(p.seed, STREAM_JITTER + axis, s.cycle))
        v[at.OFFSET_MM + axis] = q[at.UPSTREAM_MM + axis] + p.upstream_jitter_mm * jitter


@kernel
def follow_edge(p: Record, s: Record) -> None:
    """What the spill gives for a drive by how much has left the ring since its first start, once a millisecond.

    An exciter has filled the edge of the beam with some of the ions before; it goes on filling with those that it
    extracts, and the generator does not know of it.
    """
    s.sensitivity = s.cycle_gain
    if p.edge_inverse > 0.0 and s.begun_ions > 0.0:
        s.sensitivity *= 1.0 - math.exp((p.begun_left * s.stored / s.begun_ions - 1.0) * p.edge_inverse)


@kernel
def layer_unfinished(s: Record, v: np.ndarray) -> bool:
    """The front end holds a layer of this token that waits for more beam and may have it."""
    return ARMED <= s.fe_state <= HELD and s.fe_token == s.ring_token and s.permit_line == 1


@kernel
def beam_constants(p: Record, q: np.ndarray, s: Record, v: np.ndarray, etab: np.ndarray) -> None:
    """At the energy in the ring: charge that an ion frees in the monitors, how well the strips see it, deflection by a
    magnet's current, turns."""
    for axis in range(2):
        k = int(q[at.AXIS_SUPPLY + axis])
        v[at.ANGLE_PER_A + axis] = q[at.SUPPLY_TM_PER_A + k] / etab[s.ring_code, E_BRHO]
    s.f_rev_hz = etab[s.ring_code, E_FREV]
    s.ticks_per_turn = etab[s.ring_code, E_TICKS_PER_TURN]
    s.answer_ticks = etab[s.ring_code, E_ANSWER_TICKS]
    s.answer_turns = etab[s.ring_code, E_ANSWER_TURNS]
    set_lines(p, q, s, v, etab)
    free_charge(q, s, v, etab)
    spot_constants(p, q, v, etab[s.ring_code, E_SIGMA])


@kernel
def leave_flat_top(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, etab: np.ndarray) -> None:
    """End this flat top: the same energy again, the next lower energy, or dump and a new cycle."""
    s.end_cycle = 0
    if s.queued == 1 and s.stored > 0.05 * p.fill_ions and s.phase_end_ns - s.t_ns > 200_000_000:
        if s.queued_code == s.ring_code:
            take_request(s, v)
            take_up(s, faults, etab)
            s.events |= EV_PHASE
            return
        lower = etab[s.queued_code, E_ENERGY] < etab[s.ring_code, E_ENERGY]
        if lower and s.steps_done + 1 < p.energies_per_flat_top:
            take_request(s, v)
            s.steps_done += 1
            s.stored *= 1.0 - p.step_loss
            s.begun_ions *= 1.0 - p.step_loss
            v[at.RING_FROM_TM] = v[at.RING_TM]
            leave_transport(s)
            enter(s, v, ENERGY_STEP, p.energy_step_ns)
            return
    s.events |= EV_SPILL_END
    enter(s, v, DUMP, p.dump_ns)


@kernel
def flat_top_over(s: Record, v: np.ndarray) -> bool:
    """Whether the flat top ends now."""
    if s.t_ns >= s.phase_end_ns or s.end_cycle == 1 or s.stored <= 0.0:
        return True
    if s.done_token == s.ring_token and s.queued == 1:
        return True
    return s.fe_state == HELD and s.hold_reason == HOLD_EMPTY and s.fe_token == s.ring_token and s.spill_off_ticks > 500


@kernel
def standby(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> None:
    """Start the next cycle if one is wanted: the same again for an unfinished layer, else the queued request."""
    if s.permit_line == 0 or s.source_inhibited == 1:
        return
    if s.ring_token != 0 and layer_unfinished(s, v):
        start_cycle(p, q, s, v)
    elif s.queued == 1:
        take_request(s, v)
        start_cycle(p, q, s, v)


@kernel
def ring_ms(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, etab: np.ndarray) -> None:
    """Judge the cycle; called once each 1 ms of facility time."""
    phase = s.phase
    if faulted(s, faults, fp.RING_SUPPLY, 1.0, s.t_ns) != 1.0:
        if phase != RING_FAULT:
            trip(s, v)
        return
    if phase == RING_FAULT:
        enter(s, v, STANDARDISE, p.standardise_ns)
        return
    if phase == STANDBY:
        standby(p, q, s, v)
        return
    if phase == FLAT_TOP:
        take_up(s, faults, etab)
        follow_edge(p, s)
        if flat_top_over(s, v):
            leave_flat_top(p, q, s, v, faults, etab)
        return
    if s.t_ns < s.phase_end_ns:
        if phase <= CAPTURE:
            accumulate(p, s, faults)
        return
    if phase == INJECTION:
        enter(s, v, CAPTURE, p.capture_ns)
        accumulate(p, s, faults)
    elif phase == CAPTURE:
        fill(p, q, s, v, faults)
        enter(s, v, RAMP, int(etab[s.ring_code, E_RAMP_NS]))
    elif phase == RAMP:
        take_up(s, faults, etab)
        enter(s, v, STABILISE, p.stabilise_ns)
    elif phase == STABILISE:
        enter(s, v, RESONANCE, p.resonance_ns)
    elif phase == RESONANCE:
        s.spill_start_ns = s.t_ns
        s.begun_ions = s.stored
        follow_edge(p, s)
        beam_constants(p, q, s, v, etab)
        enter(s, v, FLAT_TOP, p.flat_top_ns)
    elif phase == ENERGY_STEP:
        take_up(s, faults, etab)
        beam_constants(p, q, s, v, etab)
        enter(s, v, FLAT_TOP, p.flat_top_ns)
    elif phase == DUMP:
        s.stored = 0.0
        leave_transport(s)
        enter(s, v, RAMP_DOWN, p.ramp_down_ns)
    elif phase == RAMP_DOWN:
        enter(s, v, STANDARDISE, p.standardise_ns)
    else:
        standardise(q, v)
        enter(s, v, STANDBY, 0)
        standby(p, q, s, v)
