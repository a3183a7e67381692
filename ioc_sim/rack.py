"""The rack: physics, delivery front end and fast interlocks in one compiled loop.

Order within a 10 us tick: lines as they stand, actuators, extraction, magnets, chambers, front end, signals, dose
register, fast rules.
A trip decided at the end of a tick acts from the next.  Where no beam is possible the step is 1 ms on an absolute grid;
that depends on the plant's state alone, so every target and every way of slicing a run takes the same steps.
"""

from __future__ import annotations

import math

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from interlocks.fast import (
    FIRST,
    IN_FORCE,
    LATCHED,
    RULE_DTYPE,
    evaluate,
    new_history,
    new_latch,
    new_screen,
    new_seen,
    reset,
)
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import ARMED, DONE, FLAT_TOP, HELD, PAUSED
from ioc_sim.dose_estimate import estimate_ions, reset_estimate
from ioc_sim.dose_register import commit
from ioc_sim.external import gate_by_line
from ioc_sim.faults import faulted
from ioc_sim.front_end import (
    front_end_coarse,
    front_end_tick,
    position_feedback,
)
from ioc_sim.layout import DRIFT_RING, EV_IMAGE, EV_TRIP
from ioc_sim.physics.beam_off import actuators_tick, permit_lines
from ioc_sim.physics.chambers import chamber_idle, chamber_tick, read_counts, strip_window
from ioc_sim.physics.noise import device_noise, spill_noise
from ioc_sim.physics.programme import programme_ms
from ioc_sim.physics.proof import proof_ms
from ioc_sim.physics.ring import ring_ms
from ioc_sim.physics.room import personnel_ms, search_ms
from ioc_sim.physics.scanning import (
    field_a,
    position_mm,
    read_supplies,
    supplies_coarse,
    supply_step,
    true_current,
)
from ioc_sim.physics.spill import enter_fine, follow_drive, spill_tick
from ioc_sim.signals_tick import (
    count_chamber,
    lines_changed,
    no_layer,
    publish_latch,
    publish_lines,
    publish_slow,
    publish_tick,
)
from ioc_sim.spot_book import book_truth

__all__ = [
    "FIRST",
    "IN_FORCE",
    "LATCHED",
    "RULE_DTYPE",
    "new_history",
    "new_latch",
    "new_screen",
    "new_seen",
    "reset",
    "run",
]

MS_NS = 1_000_000
TICK_NS = 10_000
STAY_FINE_TICKS = 2000
"""10 us steps go on for 20 ms after the last moment at which the front end could have had beam."""


@kernel
def beam_possible(s: Record, v: np.ndarray, faults: np.ndarray) -> bool:
    """Whether ions can cross the isocentre plane, or their charge can still arrive."""
    if s.phase != FLAT_TOP or s.stored <= 0.0:
        return s.fine_age_ticks < STAY_FINE_TICKS
    if ARMED <= s.fe_state <= HELD or s.spill_off_ticks < STAY_FINE_TICKS:
        return True
    if faulted(s, faults, fp.RFKO, 0.0, s.t_ns) > 0.0:
        return True
    return s.fine_age_ticks < STAY_FINE_TICKS


@kernel
def gate_sample(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, trace_mm: np.ndarray) -> None:
    """The breathing surrogate and the gate line at this moment."""
    if p.gate_line == 1:
        s.gating = 1
        s.gate_open = 1 if faulted(s, faults, fp.GATE, 1.0 if gate_by_line(q, s, v) else 0.0, s.t_ns) == 1.0 else 0
        return
    if s.gating == 0:
        s.gate_open = 1
        return
    place = (s.t_ns % (p.gate_step_ns * p.gate_samples)) / p.gate_step_ns
    i = math.floor(place)
    j = (i + 1) % p.gate_samples
    s.gate_mm = trace_mm[i] + (trace_mm[j] - trace_mm[i]) * (place - i)
    inside = 1.0 if p.gate_low_mm <= s.gate_mm <= p.gate_high_mm else 0.0
    s.gate_open = 1 if faulted(s, faults, fp.GATE, inside, s.t_ns) == 1.0 else 0


@kernel
def image_watch(
    s: Record,
    v: np.ndarray,
    sig: np.ndarray,
    image_index: np.ndarray,
    image_scale: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Raise EV_IMAGE when a watched signal has left its thresholds, or a heartbeat has stopped or come back.

    Thresholds that are NaN are those of a signal that was NaN: it leaves them by becoming a number. Infinite ones are
    those of a signal that nobody looks at.
    """
    fe_beat = int(sig[g.FE_HEARTBEAT])
    h_beat = int(sig[g.H_HEARTBEAT])
    alive = 1 if (fe_beat != s.fe_beat_seen and h_beat != s.h_beat_seen) else 0
    s.fe_beat_seen = fe_beat
    s.h_beat_seen = h_beat
    if alive != s.beats_alive:
        s.beats_alive = alive
        s.events |= EV_IMAGE
    for i in range(image_index.shape[0]):
        value = sig[image_index[i]] * image_scale[i]
        if not (low[i] <= value <= high[i]) and (value == value or math.isfinite(low[i]) or math.isfinite(high[i])):
            s.events |= EV_IMAGE
            return


@kernel
def millisecond(
    p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, etab: np.ndarray, trace_mm: np.ndarray
) -> None:
    """Everything that is judged once a millisecond, at its beginning."""
    ring_ms(p, q, s, v, faults, etab)
    programme_ms(p, s, v, etab)
    gate_sample(p, q, s, v, faults, trace_mm)
    if faulted(s, faults, fp.FRONT_END, 0.0, s.t_ns) == 0.0:
        s.fe_heartbeat += 1
    if faulted(s, faults, fp.FAST_TIER, 0.0, s.t_ns) == 0.0:
        s.h_heartbeat += 1
    search_ms(p, s, faults)
    personnel_ms(p, s, faults)
    if s.rs_code != s.range_shifter and s.t_ns >= s.rs_moving_ns:
        s.rs_code = s.range_shifter


@kernel
def fine_tick(
    p: Record,
    q: np.ndarray,
    s: Record,
    v: np.ndarray,
    faults: np.ndarray,
    sig: np.ndarray,
    spots: np.ndarray,
    reg: np.ndarray,
    truth: np.ndarray,
    trace: np.ndarray,
    etab: np.ndarray,
) -> None:
    """Physics and front end over one 10 us tick."""
    permit_lines(s, v)
    actuators_tick(p, q, s, v, faults, 1)
    i = s.tick % at.NOISE_BLOCK
    ions = spill_tick(p, q, s, v, faults, i)
    supply_step(p, q, s, v, 0, 1e-5)
    supply_step(p, q, s, v, 1, 1e-5)
    current0 = true_current(s, v, faults, 0, i)
    current1 = true_current(s, v, faults, 1, i)
    field0 = field_a(q, v, 0, current0)
    field1 = field_a(q, v, 1, current1)
    x = 0.0
    y = 0.0
    if s.ring_code >= 0:
        brho = faulted(s, faults, fp.RING_BRHO, 1.0, s.t_ns)
        drift = (s.t_ns - s.spill_start_ns) * p.flat_top_inverse
        a0 = field0 if q[at.AXIS_SUPPLY] == 0 else field1
        a1 = field1 if q[at.AXIS_SUPPLY] == 0 else field0
        x = faulted(
            s,
            faults,
            fp.BEAM_X,
            position_mm(q, v, 0, a0, brho) + v[at.OFFSET_MM] + drift * q[at.SPILL_DRIFT_MM],
            s.t_ns,
        )
        y = faulted(
            s,
            faults,
            fp.BEAM_Y,
            position_mm(q, v, 1, a1, brho) + v[at.OFFSET_MM + 1] + drift * q[at.SPILL_DRIFT_MM + 1],
            s.t_ns,
        )
    read_supplies(q, s, v, faults, current0, current1, field0, field1, i)
    chamber_tick(p, q, s, v, faults, 0, ions, i)
    chamber_tick(p, q, s, v, faults, 1, ions, i)
    observed0 = count_chamber(p, q, s, v, 0, read_counts(s, v, faults, 0), 1)
    observed1 = count_chamber(p, q, s, v, 1, read_counts(s, v, faults, 1), 1)
    s.strip_n += ions
    s.strip_x += ions * x
    s.strip_y += ions * y
    s.strip_ticks += 1
    if s.move_ticks <= s.move_allow_ticks or s.spill_cmd == 0:
        s.strip_clean = 0
    spot = s.spot
    before = ions
    # the chamber electronics go on counting while the front end hangs; it finds what has come in the meantime
    v[at.EST_UNREAD] += estimate_ions(p, q, s, v, 0, observed0)
    v[at.EST_UNREAD + 1] += estimate_ions(p, q, s, v, 1, observed1)
    s.t_ns += TICK_NS
    s.tick += 1
    if faulted(s, faults, fp.FRONT_END, 0.0, s.t_ns) == 0.0:
        closed = s.strip_ticks >= p.strip_window_ticks and strip_window(p, q, s, v, faults) == 1
        if closed and s.strip_valid == 1 and s.spot >= 0 and s.fe_state < DONE:
            position_feedback(p, q, s, v, spots)
        share = front_end_tick(p, q, s, v, spots, reg, v[at.EST_UNREAD], v[at.EST_UNREAD + 1])
        v[at.EST_UNREAD] = 0.0
        v[at.EST_UNREAD + 1] = 0.0
        if share < 1.0:
            before = np.floor(share * ions + 0.5)
            supply_step(p, q, s, v, 0, (1.0 - share) * 1e-5)
            supply_step(p, q, s, v, 1, (1.0 - share) * 1e-5)
    else:
        s.missed_ticks += 1
    book_truth(s, v, truth, spot, before, x, y)
    if before < ions:
        book_truth(s, v, truth, s.spot, ions - before, x, y)
    s.truth_total += ions
    record = trace[s.trace_count & (trace.shape[0] - 1)]
    record["t_ns"] = s.t_ns
    record["ions"] = int(ions)
    record["ions_previous_spot"] = int(before)
    record["spot"] = s.spot
    record["token"] = s.fe_token
    record["x_um"] = math.floor(x * 1000.0 + 0.5)
    record["y_um"] = math.floor(y * 1000.0 + 0.5)
    record["flags"] = (
        s.permit_line | (s.demand << 1) | (s.spill_cmd << 2) | (s.rfko_on << 3)
        | ((1 if s.quad_open < 0.5 else 0) << 4) | ((1 if s.chopper_open < 0.5 else 0) << 5)
        | (s.gate_open << 6) | (s.hold_line << 7) | (s.fe_state << 8) | (s.action << 12) | (s.p_permit << 16)
        | (s.link_ok << 17) | (s.dump_cmd << 18)
    )  # fmt: skip
    record["stored_k"] = math.floor(s.stored * 1e-3) if s.stored > 0.0 else 0
    s.trace_count += 1
    s.ring_pos = (s.ring_pos + 1) & (DRIFT_RING - 1)
    publish_tick(p, q, s, v, sig)


@kernel
def coarse_step(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, sig: np.ndarray) -> None:
    """1 ms without beam: magnets, leakage of the chambers, signals."""
    permit_lines(s, v)
    if not proof_ms(p, q, s, v, faults):
        actuators_tick(p, q, s, v, faults, 100)
    s.rate_model = 0.0
    s.rate_meas = 0.0
    s.rate = 0.0
    supplies_coarse(p, q, s, v)
    device_noise(p, q, v, s.tick, 1)
    current0 = true_current(s, v, faults, 0, 0)
    current1 = true_current(s, v, faults, 1, 0)
    field0 = field_a(q, v, 0, current0)
    field1 = field_a(q, v, 1, current1)
    read_supplies(q, s, v, faults, current0, current1, field0, field1, 0)
    chamber_idle(p, q, s, v, faults, 0, 100)
    chamber_idle(p, q, s, v, faults, 1, 100)
    count_chamber(p, q, s, v, 0, read_counts(s, v, faults, 0), 100)
    count_chamber(p, q, s, v, 1, read_counts(s, v, faults, 1), 100)
    s.move_ticks += 100
    s.stop_ticks += 100
    s.strip_valid = 0
    s.t_ns += MS_NS
    s.tick += 100
    publish_tick(p, q, s, v, sig)


@kernel
def run(
    parameters: np.ndarray,
    q: np.ndarray,
    state: np.ndarray,
    v: np.ndarray,
    faults: np.ndarray,
    sig: np.ndarray,
    spots: np.ndarray,
    reg: np.ndarray,
    slots: np.ndarray,
    rows: np.ndarray,
    truth: np.ndarray,
    trace: np.ndarray,
    etab: np.ndarray,
    rules: np.ndarray,
    hist: np.ndarray,
    hist_state: np.ndarray,
    hist_index: np.ndarray,
    screen: np.ndarray,
    parts: np.ndarray,
    seen: np.ndarray,
    latch: np.ndarray,
    trace_mm: np.ndarray,
    image_index: np.ndarray,
    image_scale: np.ndarray,
    image_low: np.ndarray,
    image_high: np.ndarray,
    until_ns: int,
) -> None:
    """Advance to the last tick that ends at or before ``until_ns``, or to the first tick with an event.

    ``parameters`` and ``state`` are arrays of one record, ``PARAM_DTYPE`` and ``STATE_DTYPE``.
    """
    p = parameters[0]
    s = state[0]
    fresh = True  # a command or a line may have changed anything since the last call
    into_ns = s.t_ns % MS_NS
    while s.t_ns + TICK_NS <= until_ns:
        if into_ns == 0:
            fine = 1 if beam_possible(s, v, faults) else 0
            if fine == 0:
                s.fine = 0
                if s.t_ns + MS_NS > until_ns:
                    return
            elif s.fine == 0:
                enter_fine(p, q, s, v)
                reset_estimate(p, q, s, v)
                hist_state[1] = 0
                s.fine_age_ticks = 0
            s.fine = fine
            if fine == 1:
                device_noise(p, q, v, s.tick, at.NOISE_BLOCK)
                spill_noise(p, q, s, v)
            millisecond(p, q, s, v, faults, etab, trace_mm)
            if fine == 1 and s.demand == 0:
                follow_drive(p, q, s, v, etab)
            fresh = True
        if s.fine == 1:
            fine_tick(p, q, s, v, faults, sig, spots, reg, truth, trace, etab)
            busy = s.spill_cmd == 1 or (s.phase == FLAT_TOP and ARMED <= s.fe_state <= HELD)
            s.fine_age_ticks = 0 if busy else s.fine_age_ticks + 1
            dt_ticks = 1
            into_ns += TICK_NS
            if into_ns == MS_NS:
                into_ns = 0
        else:
            coarse_step(p, q, s, v, faults, sig)
            if faulted(s, faults, fp.FRONT_END, 0.0, s.t_ns) == 0.0:
                front_end_coarse(s, v, reg)
                if not ARMED <= s.fe_state <= PAUSED:  # it may have ended the layer after the signals were published
                    no_layer(sig)
            dt_ticks = 100
        if s.register_kept == 1:
            commit(p, s, v, reg, slots, rows)
        boundary = into_ns == 0
        if boundary:
            publish_slow(p, q, s, v, sig, faults, etab)
        published = lines_changed(s) or fresh
        if published:
            publish_lines(s, v, sig, spots, faults)
            fresh = False
        if faulted(s, faults, fp.FAST_TIER, 0.0, s.t_ns) == 0.0:
            held = latch[0]
            s.action = evaluate(
                rules,
                screen,
                parts,
                seen,
                sig,
                hist,
                hist_state,
                hist_index,
                latch,
                s.t_ns,
                dt_ticks,
                published or boundary,
            )
            if latch[0] != held:
                s.events |= EV_TRIP
        if boundary:
            publish_latch(sig, latch)
            if s.watch == 1:
                image_watch(s, v, sig, image_index, image_scale, image_low, image_high)
        if s.events != 0:
            return
