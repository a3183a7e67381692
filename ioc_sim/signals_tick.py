"""Fills the signal vector from the state, as the electronics of the rack would publish it."""

from __future__ import annotations

import math

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import ARMED, FLAT_TOP, PAUSED
from ioc_sim.external import external_ok, external_slow
from ioc_sim.faults import FIRST_SLOW, faulted
from ioc_sim.layout import E_BRHO
from ioc_sim.physics.confirmation import actuator_signals
from ioc_sim.physics.proof import publish_proof
from ioc_sim.physics.room import publish_room
from ioc_sim.physics.second_line import second_line_ms
from ioc_sim.physics.utilities import utilities_ms


@kernel
def _is_good_again(s: Record, v: np.ndarray, k: int, counts: float) -> bool:
    """Whether a register of chamber ``k`` that was bad, or has just fallen, may count from here on.

    Within a layer it must stand where it had been. Without one no dose is measured: it is read anew, and good once it
    counts, which leakage alone lets it do; else a single wrong reading too high would stand for ever.
    """
    if ARMED <= s.fe_state <= PAUSED:
        return counts >= v[at.IC_READ + k]
    counts_on = counts > v[at.IC_READ + k]
    if not math.isnan(counts):
        v[at.IC_READ + k] = counts
    return counts_on


@kernel
def count_chamber(p: Record, q: np.ndarray, s: Record, v: np.ndarray, k: int, counts: float, ticks: int) -> float:
    """Book new counts of chamber ``k``; returns the ions they stand for, the known leakage taken off.

    A register that is not a number, or has fallen, which none does that works, counts nothing: as long as that lasts it
    shows as NaN in the sums of the chamber and on the status line of its electronics (`_is_good_again`).
    """
    if (v[at.IC_BAD + k] != 0.0 or not counts >= v[at.IC_READ + k]) and not _is_good_again(s, v, k, counts):
        v[at.IC_BAD + k] = math.nan
        return 0.0
    v[at.IC_BAD + k] = 0.0
    ions = (counts - v[at.IC_READ + k]) * v[at.IC_IONS_PER_COUNT + k] - v[at.EST_LEAK + k] * ticks
    v[at.IC_READ + k] = counts
    v[at.IC_IONS + k] += ions
    v[at.IC_LAYER_IONS + k] += ions
    v[at.IC_NOMINAL_US + k] += ions * s.level_inverse * 1e6
    if s.spill_off_ticks > p.idle_grace_ticks + v[at.EST_DRIFT + k]:
        v[at.IC_IDLE_IONS + k] += ions
    return ions


@kernel
def no_layer(sig: np.ndarray) -> None:
    """Signals of a spot and a layer are zero while none is active: what was wrong with the last one is in the latch."""
    sig[g.FE_SPOT_IC1_IONS] = 0.0
    sig[g.FE_SPOT_IC2_IONS] = 0.0
    sig[g.FE_SPOT_BEAM_US] = 0.0
    sig[g.IC1_LAYER_IONS] = 0.0
    sig[g.IC2_LAYER_IONS] = 0.0


@kernel
def publish_tick(p: Record, q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray) -> None:
    """The fast signals: those that change from tick to tick."""
    if ARMED <= s.fe_state <= PAUSED:
        sig[g.FE_SPOT_IC1_IONS] = v[at.EST_IONS] - v[at.SPOT_CUM0]
        sig[g.FE_SPOT_IC2_IONS] = v[at.EST_IONS + 1] - v[at.SPOT_CUM0 + 1]
        sig[g.FE_SPOT_BEAM_US] = s.spot_beam_ticks * 10.0
        sig[g.IC1_LAYER_IONS] = v[at.IC_LAYER_IONS]
        sig[g.IC2_LAYER_IONS] = v[at.IC_LAYER_IONS + 1]
    else:
        no_layer(sig)
    sig[g.IC1_IONS] = v[at.IC_IONS] + v[at.IC_BAD]
    sig[g.IC2_IONS] = v[at.IC_IONS + 1] + v[at.IC_BAD + 1]
    sig[g.IC1_NOMINAL_US] = v[at.IC_NOMINAL_US] + v[at.IC_BAD]
    sig[g.IC2_NOMINAL_US] = v[at.IC_NOMINAL_US + 1] + v[at.IC_BAD + 1]
    sig[g.IC1_IDLE_IONS] = v[at.IC_IDLE_IONS]
    sig[g.IC2_IDLE_IONS] = v[at.IC_IDLE_IONS + 1]
    sig[g.STRIP_ERR_X_MM] = v[at.STRIP_ERR_MM]
    sig[g.STRIP_ERR_Y_MM] = v[at.STRIP_ERR_MM + 1]
    sig[g.SCAN_X_ERR_MM] = (v[at.READ_A] - v[at.SET_A]) * v[at.MM_PER_A]
    sig[g.SCAN_Y_ERR_MM] = (v[at.READ_A + 1] - v[at.SET_A + 1]) * v[at.MM_PER_A + 1]
    sig[g.SCAN_X_PROBE_MM] = (v[at.PROBE_TM] * q[at.SUPPLY_A_PER_TM] - v[at.READ_A]) * v[at.MM_PER_A]
    sig[g.SCAN_Y_PROBE_MM] = (v[at.PROBE_TM + 1] * q[at.SUPPLY_A_PER_TM + 1] - v[at.READ_A + 1]) * v[at.MM_PER_A + 1]


@kernel
def scan_due(s: Record) -> bool:
    """Beam is asked for, and the settling window of the last move has passed."""
    return s.spill_cmd == 1 and s.move_ticks > s.move_allow_ticks


@kernel
def lines_changed(s: Record) -> bool:
    """Whether a quiet signal can have changed within this tick; a failed device may change at any time."""
    key = (
        s.demand | (s.spill_cmd << 1) | (s.strip_valid << 2) | ((1 if scan_due(s) else 0) << 3) | (s.fe_state << 4)
        | (s.unconfirmed << 7) | (s.spot << 8)
    )  # fmt: skip
    changed = key != s.line_key or s.faults != 0
    s.line_key = key
    return changed


@kernel
def publish_lines(s: Record, v: np.ndarray, sig: np.ndarray, spots: np.ndarray, faults: np.ndarray) -> None:
    """Quiet signals that follow a tick, a command or a line: published when one of those has come.

    All tokens are among them: rules compare one with another, and one that came later than the rest would be another.
    """
    t_ns = s.t_ns
    sig[g.FE_DEMAND] = s.demand
    if ARMED <= s.fe_state <= PAUSED:
        sig[g.FE_SPOT_TARGET_IONS] = s.target_cum - v[at.SPOT_CUM0]
        sig[g.FE_SPOT_LIMIT_US] = spots[s.spot, 7]
    else:
        sig[g.FE_SPOT_TARGET_IONS] = 0.0
        sig[g.FE_SPOT_LIMIT_US] = 0.0
    sig[g.IC1_HV_REL] = v[at.IC_VOLT_REL]
    sig[g.IC2_HV_REL] = v[at.IC_VOLT_REL + 1]
    sig[g.IC1_OK] = faulted(s, faults, fp.IC1_OK, 1.0, t_ns) + v[at.IC_BAD]
    sig[g.IC2_OK] = faulted(s, faults, fp.IC2_OK, 1.0, t_ns) + v[at.IC_BAD + 1]
    sig[g.STRIP_VALID] = s.strip_valid
    sig[g.SCAN_DUE] = 1.0 if scan_due(s) else 0.0
    sig[g.SPILL_CMD] = s.spill_cmd
    sig[g.FE_TOKEN] = s.fe_token
    sig[g.RING_TOKEN] = faulted(s, faults, fp.RING_TOKEN, float(s.ring_token), t_ns)
    sig[g.TIMING_TOKEN] = faulted(s, faults, FIRST_SLOW - g.FIRST_SLOW + g.TIMING_TOKEN, float(s.ring_token), t_ns)
    sig[g.HEBT_TOKEN] = faulted(s, faults, fp.HEBT_TOKEN, float(s.hebt_token), t_ns)
    sig[g.SCAN_OK] = faulted(s, faults, fp.SCAN_OK, 1.0, t_ns)
    sig[g.STRIP_OK] = faulted(s, faults, fp.STRIP_OK, 1.0, t_ns)
    sig[g.GATE_OPEN] = 1.0 if (s.gating == 0 or s.gate_open == 1) else 0.0
    sig[g.LINK_P_OK] = s.link_ok
    sig[g.OFF_CONFIRMED] = 1.0 - s.unconfirmed
    sig[g.P_PERMIT] = s.p_permit
    sig[g.P_HOLD] = s.p_hold


@kernel
def publish_slow(
    p: Record, q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray, etab: np.ndarray
) -> None:
    """Signals that change at 1 ms steps or on commands."""
    t_ns = s.t_ns
    sig[g.FE_STATE] = s.fe_state
    sig[g.FE_ACTIVE] = 1.0 if ARMED <= s.fe_state <= PAUSED else 0.0
    sig[g.FE_SPOT] = s.spot
    sig[g.FE_FIELD] = faulted(s, faults, fp.FIELD_NUMBER, float(s.field), t_ns)
    actuator_signals(p, s, sig, faults)
    sig[g.FE_LEVEL] = s.level
    ok = 1.0 if p.external == 0 or external_ok(q, s, v) else 0.0
    sig[g.EXTERNAL_OK] = faulted(s, faults, fp.EXTERNAL_OK, ok, t_ns)
    sig[g.RING_PHASE] = s.phase
    sig[g.RING_FLAT_TOP] = 1.0 if s.phase == FLAT_TOP else 0.0
    sig[g.RING_IONS] = s.stored
    if s.fe_code >= 0 and s.ring_code >= 0:
        true_brho = etab[s.ring_code, E_BRHO] * faulted(s, faults, fp.RING_BRHO, 1.0, t_ns)
        sig[g.RING_BRHO_REL] = true_brho / etab[s.fe_code, E_BRHO]
    else:
        sig[g.RING_BRHO_REL] = 1.0
    sig[g.HEBT_SET] = s.hebt_set
    sig[g.STOPPER_IN] = s.stopper_in
    publish_room(s, sig, faults)
    sig[g.RANGE_SHIFTER] = faulted(s, faults, fp.RS_READBACK, float(s.rs_code), t_ns)
    sig[g.RANGE_SHIFTER_PLAN] = s.rs_plan
    sig[g.KEY_A] = faulted(s, faults, fp.KEY_A, float(s.key), t_ns)
    sig[g.KEY_B] = faulted(s, faults, fp.KEY_B, float(s.key), t_ns)
    sig[g.GATE_AGE_MS] = faulted(s, faults, fp.GATE_AGE, 0.0, t_ns) if s.gating == 1 else 0.0
    sig[g.PACING_LATE_MS] = s.late_ms
    sig[g.FE_HEARTBEAT] = s.fe_heartbeat & 0xFFFFF
    sig[g.H_HEARTBEAT] = s.h_heartbeat & 0xFFFFF
    publish_proof(s, v, sig)
    utilities_ms(p, q, s, v, sig, faults, etab)
    if p.external != 0:
        external_slow(q, s, v, sig, faults)
    second_line_ms(p, q, s, v, sig, faults, etab)


@kernel
def publish_latch(sig: np.ndarray, latch: np.ndarray) -> None:
    """What the fast tier tells the safety controller."""
    sig[g.H_LATCHED] = latch[0] & ((1 << g.MASK_BITS) - 1)
    sig[g.H_LATCHED_HIGH] = latch[0] >> g.MASK_BITS
    sig[g.H_PRESENT] = latch[1] & ((1 << g.MASK_BITS) - 1)
    sig[g.H_PRESENT_HIGH] = latch[1] >> g.MASK_BITS
    sig[g.H_FIRST] = latch[2]
    sig[g.H_PERMIT] = 1.0 if latch[3] < 3 else 0.0
