"""Proof tests of the rack: devices are really driven and really read, without beam, one action at a time.

On request of the safety controller, which judges what comes out.  An action is carried out in coarse steps alone, in
which the plant can have no beam; a flat top, ions in the ring, an active layer or a step with beam possible ends it
without a value.  The beam-off devices are timed in 10 us: the very function that moves them in beam is called tick by
tick within the millisecond.  No rule is masked meanwhile: what the tests inject stays below every limit.
"""

from __future__ import annotations

import math

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import (
    ACTION_ABORT,
    ARMED,
    FLAT_TOP,
    PAUSED,
    PROVE_BEAM_OFF,
    PROVE_CHARGE,
    PROVE_COUNTS,
    PROVE_LEAKAGE,
    PROVE_SCAN_STEP,
    PROVE_SCAN_ZERO,
    PROVE_STOPPER,
    PROVE_VOLTAGE,
)
from ioc_sim.faults import faulted
from ioc_sim.physics.beam_off import actuators_tick
from ioc_sim.physics.chambers import read_counts
from ioc_sim.physics.scanning import remember

MS_NS = 1_000_000
MS_TICKS = 100
CHARGE_MS = 100
QUANTA_PER_MS = 0.95
"""Charge injected into a chamber, counts a millisecond: 1000 ions in 10 ms without demand are a trip."""
LEAKAGE_MS = 100
PULSES = 5.0
VOLTAGE_STEP = 0.97
SETTLE_MS = 10
STEP_A = 10.0
BEAM_OFF_MS = 4
"""Longest time that is waited for a beam-off device."""
STOPPER_OUT_MS = 2000
"""Longest wait for a stopper that is on its way out, or for one that goes in."""
TICK_US = 10.0
NO_VALUE = 1e9
"""Beyond what the process image can carry, where it becomes no number; a NaN would keep the image watched."""


@kernel
def proof_ms(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray) -> bool:
    """A millisecond of the action under way; True if it has driven the beam-off devices itself."""
    if s.proof_action == 0:
        return False
    if s.proof_step == 0:
        s.proof_next_ns = s.t_ns
        for i in range(4):
            v[at.PROOF_VALUE + i] = math.nan
            v[at.PROOF_FROM + i] = 0.0
    active = ARMED <= s.fe_state <= PAUSED
    if s.phase == FLAT_TOP or s.stored > 0.0 or active or s.t_ns != s.proof_next_ns:
        for i in range(4):
            v[at.PROOF_VALUE + i] = math.nan
        proof_over(s, v)
        return False
    s.proof_next_ns = s.t_ns + MS_NS
    step = s.proof_step
    s.proof_step = step + 1
    action = s.proof_action
    if action == PROVE_BEAM_OFF:
        beam_off(p, q, s, v, faults, step)
        return True
    if action == PROVE_COUNTS:
        count_path(q, s, v, faults, step)
    elif action == PROVE_LEAKAGE:
        leakage(q, s, v, faults, step)
    elif action == PROVE_CHARGE:
        charge(q, s, v, faults, step)
    elif action == PROVE_VOLTAGE:
        voltage(p, s, v, step)
    elif PROVE_SCAN_STEP <= action <= PROVE_SCAN_ZERO:
        scanner(p, q, s, v, step, STEP_A if action == PROVE_SCAN_STEP else 0.0)
    elif action == PROVE_STOPPER:
        stopper(s, v, step)
    else:
        proof_over(s, v)
    return False


@kernel
def proof_over(s: Record, v: np.ndarray) -> None:
    """The action has ended: say which, and leave everything as it was."""
    s.proof_done = s.proof_want
    s.proof_action = 0
    s.proof_stopper = 0
    v[at.IC_VOLT_TEST] = 1.0
    v[at.IC_VOLT_TEST + 1] = 1.0


@kernel
def count_path(q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, step: int) -> None:
    """Pulses into the counters; values: counts more than before, chamber 1 and 2."""
    for k in range(2):
        if step == 0:
            v[at.PROOF_FROM + k] = read_counts(s, v, faults, k)
            v[at.IC_COUNTS + k] += PULSES
            v[at.IC_CHARGE_FC + k] += PULSES * q[at.IC_QUANTUM_FC + k]
        else:
            v[at.PROOF_VALUE + k] = read_counts(s, v, faults, k) - v[at.PROOF_FROM + k]
    if step == 1:
        proof_over(s, v)


@kernel
def leakage(q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, step: int) -> None:
    """Counts without anything; values: current of chamber 1 and 2, pA."""
    for k in range(2):
        counts = read_counts(s, v, faults, k)
        if step == 0:
            v[at.PROOF_FROM + k] = counts
        elif step == LEAKAGE_MS:
            # 1 fC in 1 ms is 1 pA
            v[at.PROOF_VALUE + k] = (counts - v[at.PROOF_FROM + k]) * q[at.IC_QUANTUM_FC + k] / LEAKAGE_MS
    if step == LEAKAGE_MS:
        proof_over(s, v)


@kernel
def charge(q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, step: int) -> None:
    """A known charge into the electronics; values: charge counted over charge injected, chamber 1 and 2."""
    for k in range(2):
        counts = read_counts(s, v, faults, k)
        nominal = QUANTA_PER_MS * q[at.IC_QUANTUM_FC + k]
        if step == 0:
            v[at.PROOF_FROM + k] = counts
        if step == CHARGE_MS:
            leak = q[at.IC_LEAK_FC_PER_TICK + k] * MS_TICKS * CHARGE_MS
            counted = (counts - v[at.PROOF_FROM + k]) * q[at.IC_QUANTUM_FC + k] - leak
            v[at.PROOF_VALUE + k] = counted / (nominal * CHARGE_MS)
        else:
            gain = faulted(s, faults, fp.IC1_GAIN + k, q[at.IC_GAIN + k], s.t_ns)
            v[at.IC_CHARGE_FC + k] += faulted(s, faults, fp.IC1_INJECTOR + k, 1.0, s.t_ns) * nominal * gain
    if step == CHARGE_MS:
        proof_over(s, v)


@kernel
def voltage(p: Record, s: Record, v: np.ndarray, step: int) -> None:
    """Set values moved and moved back; values: readbacks over the set values, moved (1, 2) and nominal (1, 2)."""
    settle_ms = 2 + p.ext_proof_ms
    for k in range(2):
        if step == 0:
            v[at.IC_VOLT_TEST + k] = VOLTAGE_STEP
        elif step == settle_ms:
            v[at.PROOF_VALUE + k] = v[at.IC_VOLT_REL + k]
            v[at.IC_VOLT_TEST + k] = 1.0
        elif step == 2 * settle_ms:
            v[at.PROOF_VALUE + 2 + k] = v[at.IC_VOLT_REL + k]
    if step == 2 * settle_ms:
        proof_over(s, v)


@kernel
def scanner(p: Record, q: np.ndarray, s: Record, v: np.ndarray, step: int, current_a: float) -> None:
    """Both supplies at a current; values: readbacks, then field probes as current, supply x and y, A."""
    settle_ms = SETTLE_MS + p.ext_proof_ms
    for k in range(2):
        if step == 0:
            v[at.SET_A + k] = current_a
            remember(q, v, k)
        elif step == settle_ms:
            v[at.PROOF_VALUE + k] = v[at.READ_A + k]
            v[at.PROOF_VALUE + 2 + k] = v[at.PROBE_TM + k] * q[at.SUPPLY_A_PER_TM + k]
            v[at.SET_A + k] = 0.0
            remember(q, v, k)
    if step == settle_ms:
        proof_over(s, v)


@kernel
def blocks(p: Record, s: Record, v: np.ndarray, faults: np.ndarray, device: int) -> bool:
    """Whether a beam-off device reads back that it blocks: extraction drive, fast quadrupole, chopper, ring dump."""
    if device == 0:
        return faulted(s, faults, fp.RFKO, float(s.rfko_on), s.t_ns) == 0.0
    if device == 1:
        return faulted(s, faults, fp.QUAD, s.quad_open, s.t_ns) <= 0.0
    if device == 2:
        return faulted(s, faults, fp.CHOPPER, s.chopper_open, s.t_ns) <= 0.0
    return s.dump_cmd == 1 and s.dump_ticks > p.dump_delay_ticks


@kernel
def beam_off(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, step: int) -> None:
    """Let all devices open, then take them away; values: time until each reads back, us, NaN for one that does not.

    A device that never opened is not timed.  The lines are those of the test drive, here and nowhere else; they are put
    back before the step ends.
    """
    demand = s.demand
    action = s.action
    permit = s.permit_line
    hold = s.hold_line
    away = s.no_permit_ticks
    quiet = s.spill_off_ticks
    aborted = s.abort_ticks
    unconfirmed = s.unconfirmed
    escalated = s.escalated
    let = step == 0
    s.demand = 1 if let else 0
    s.permit_line = 1 if let else 0
    s.hold_line = 0
    s.action = 0 if let else ACTION_ABORT
    for tick in range(MS_TICKS):
        actuators_tick(p, q, s, v, faults, 1)
        if not let:
            for i in range(4):
                timed = v[at.PROOF_FROM + i] == 1.0 and math.isnan(v[at.PROOF_VALUE + i])
                if timed and blocks(p, s, v, faults, i):
                    v[at.PROOF_VALUE + i] = ((step - 1) * MS_TICKS + tick + 1) * TICK_US
    if let:
        for i in range(4):
            v[at.PROOF_FROM + i] = 0.0 if blocks(p, s, v, faults, i) else 1.0
        v[at.PROOF_KEPT] = quiet
        v[at.PROOF_KEPT + 1] = away
    s.demand = demand
    s.action = action
    s.permit_line = permit
    s.hold_line = hold
    s.abort_ticks = aborted
    s.unconfirmed = unconfirmed
    s.escalated = escalated
    if step == BEAM_OFF_MS:
        s.spill_off_ticks = int(v[at.PROOF_KEPT]) + (BEAM_OFF_MS + 1) * MS_TICKS
        s.no_permit_ticks = int(v[at.PROOF_KEPT + 1]) + (BEAM_OFF_MS + 1) * MS_TICKS
        proof_over(s, v)


@kernel
def stopper(s: Record, v: np.ndarray, step: int) -> None:
    """The stopper goes in and the source is inhibited; values: time until either reads back, ms.

    Waits for a stopper that is on its way out.  One that the personnel chain keeps in is not timed.
    """
    if s.proof_stopper == 0:
        if s.stopper_in == 0 and s.source_inhibited == 0:
            s.proof_stopper = 1
            v[at.PROOF_FROM] = step
        elif s.personnel == 0 or s.stopper_asked == 1 or step > STOPPER_OUT_MS:
            proof_over(s, v)
        return
    elapsed = step - v[at.PROOF_FROM]
    if s.stopper_in == 1 and math.isnan(v[at.PROOF_VALUE]):
        v[at.PROOF_VALUE] = elapsed
    if s.source_inhibited == 1 and math.isnan(v[at.PROOF_VALUE + 1]):
        v[at.PROOF_VALUE + 1] = elapsed
    both = not math.isnan(v[at.PROOF_VALUE]) and not math.isnan(v[at.PROOF_VALUE + 1])
    if both or elapsed > STOPPER_OUT_MS:
        proof_over(s, v)


@kernel
def publish_proof(s: Record, v: np.ndarray, sig: np.ndarray) -> None:
    """What the last action gave."""
    sig[g.PROOF_SEQ] = s.proof_done
    for i in range(4):
        value = v[at.PROOF_VALUE + i]
        sig[g.PROOF_A + i] = NO_VALUE if math.isnan(value) else value
