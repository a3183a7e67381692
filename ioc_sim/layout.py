"""Memory of the rack: parameters, state, faults and the truth record, as aligned numpy records.

The kernel reads and writes these by field name; a C program can map the same bytes.  Units are in the field names.
``p_`` free parameters are fixed for a run; everything in ``STATE`` is what a snapshot has to hold.
"""

from __future__ import annotations

import numpy as np

DRIFT_RING = 64
"""Longest ion drift the rack can follow, in 10 us ticks (640 us, about 230 V over 5 mm)."""
MAX_LINES = 8

PARAM_DTYPE = np.dtype(
    [
        ("seed", "u8"),
        # ring, durations in ns, multiples of 1 ms
        ("injection_ns", "i8"), ("capture_ns", "i8"), ("stabilise_ns", "i8"), ("resonance_ns", "i8"),
        ("flat_top_ns", "i8"), ("energy_step_ns", "i8"), ("dump_ns", "i8"), ("ramp_down_ns", "i8"),
        ("standardise_ns", "i8"),
        ("energies_per_flat_top", "i8"), ("step_loss", "f8"), ("fill_ions", "f8"), ("fill_jitter", "f8"),
        ("transmission", "f8"),
        # extraction
        ("tail_w", "f8", (4,)), ("tail_decay", "f8", (4,)), ("tail_ticks", "f8", (4,)), ("tail_tau_us", "f8", (4,)),
        ("noise_decay", "f8"), ("noise_kick", "f8"),
        ("n_lines", "i8"), ("line_hz", "f8", (MAX_LINES,)), ("line_amplitude", "f8", (MAX_LINES,)),
        ("line_cos", "f8", (MAX_LINES,)), ("line_sin", "f8", (MAX_LINES,)),
        ("overshoot", "f8"), ("overshoot_decay", "f8"), ("sensitivity_spread", "f8"),
        # beam-off devices: dead time in ticks, then a linear fall (step per tick)
        ("chopper_present", "i8"), ("gate_by_chopper", "i8"),
        ("rfko_delay_ticks", "i8"), ("quad_present", "i8"), ("quad_delay_ticks", "i8"), ("quad_step", "f8"),
        ("chopper_delay_ticks", "i8"), ("chopper_step", "f8"), ("dump_delay_ticks", "i8"), ("dump_decay", "f8"),
        ("stopper_ns", "i8"), ("gate_tail_us", "f8"),
        # scanning supplies 0 (upstream) and 1 (downstream)
        ("supply_tm_per_a", "f8", (2,)), ("supply_omega2", "f8", (2,)), ("supply_damp", "f8", (2,)),
        ("supply_volt_per_l", "f8", (2,)), ("supply_r_per_l", "f8", (2,)), ("supply_max_a", "f8", (2,)),
        ("supply_step_a", "f8", (2,)), ("supply_noise_a", "f8", (2,)), ("supply_read_noise_a", "f8", (2,)),
        ("supply_probe_noise_a", "f8", (2,)),
        # room: axis 0 is x, 1 is y
        ("axis_supply", "i8", (2,)), ("axis_polarity", "f8", (2,)), ("axis_sad_mm", "f8", (2,)),
        ("strip_ratio", "f8", (2,)), ("room_index", "i8"),
        ("upstream_mm", "f8", (2,)), ("upstream_jitter_mm", "f8"), ("spill_drift_mm", "f8", (2,)),
        # chambers 0 and 1
        ("ic_quantum_fc", "f8", (2,)), ("ic_leak_fc_per_tick", "f8", (2,)), ("ic_noise_fc", "f8", (2,)),
        ("ic_gain", "f8", (2,)), ("ic_recombination", "f8", (2,)), ("ic_volt_set", "f8", (2,)),
        ("ic_volt_nominal", "f8", (2,)), ("ic_drift_volt_ticks", "f8", (2,)),
        # strip chamber
        ("strip_window_ticks", "i8"), ("strip_noise_mm", "f8"), ("strip_coefficient", "f8"), ("strip_min_ions", "f8"),
        # front end
        ("settle_ticks", "i8"), ("settle_mm", "f8"), ("settle_extra_ticks", "i8"), ("feedback_gain", "f8"),
        ("feedback_max_mm", "f8"), ("land_ticks", "f8"), ("land_floor", "f8"), ("loop_gain", "f8"),
        ("rate_alpha", "f8"), ("idle_grace_ticks", "i8"), ("quiet_ticks", "i8"),
        # gate
        ("gate_low_mm", "f8"), ("gate_high_mm", "f8"), ("gate_step_ns", "i8"), ("gate_samples", "i8"),
    ],
    align=True,
)  # fmt: skip

STATE_DTYPE = np.dtype(
    [
        ("t_ns", "i8"), ("events", "i8"), ("fine", "i8"), ("tick", "i8"), ("fine_age_ticks", "i8"),
        # ring
        ("phase", "i8"), ("phase_end_ns", "i8"), ("ring_token", "i8"), ("ring_code", "i8"), ("hebt_token", "i8"),
        ("queued", "i8"), ("queued_token", "i8"), ("queued_code", "i8"), ("end_cycle", "i8"), ("cycle", "i8"),
        ("steps_done", "i8"), ("stored", "f8"), ("sensitivity", "f8"), ("spill_start_ns", "i8"),
        # extraction
        ("tail_state", "f8", (4,)), ("noise", "f8"), ("line_c", "f8", (MAX_LINES,)), ("line_s", "f8", (MAX_LINES,)),
        ("overshoot", "f8"), ("rate", "f8"),
        # actuators
        ("spill_cmd", "i8"), ("spill_on_ticks", "i8"), ("spill_off_ticks", "i8"), ("rfko_on", "i8"),
        ("quad_cmd", "i8"), ("quad_ticks", "i8"), ("quad_open", "f8"),
        ("chopper_cmd", "i8"), ("chopper_ticks", "i8"), ("chopper_open", "f8"),
        ("dump_cmd", "i8"), ("dump_ticks", "i8"), ("no_permit_ticks", "i8"),
        ("stopper_cmd", "i8"), ("stopper_in", "i8"), ("stopper_done_ns", "i8"),
        ("action", "i8"), ("permit_line", "i8"), ("hold_line", "i8"),
        # magnets, by supply
        ("set_a", "f8", (2,)), ("current_a", "f8", (2,)), ("speed_a", "f8", (2,)), ("read_a", "f8", (2,)),
        ("probe_tm", "f8", (2,)), ("offset_mm", "f8", (2,)), ("drift_mm", "f8", (2,)),
        # chambers
        ("ic_ring", "i8", (2, DRIFT_RING)), ("ic_box", "i8", (2,)), ("ic_ramp", "i8", (2,)), ("ic_drift", "i8", (2,)),
        ("ic_charge_fc", "f8", (2,)), ("ic_counts", "f8", (2,)), ("ic_read", "f8", (2,)), ("ic_volt", "f8", (2,)),
        ("ic_ions", "f8", (2,)), ("ic_layer_ions", "f8", (2,)), ("ic_nominal_us", "f8", (2,)),
        ("ic_idle_ions", "f8", (2,)), ("ic_ions_per_count", "f8", (2,)), ("ic_fc_per_ion", "f8", (2,)),
        ("ring_pos", "i8"), ("ic_efficiency", "f8", (2,)),
        # front-end estimate of ions, late charge taken out
        ("est_ring", "f8", (2, DRIFT_RING)), ("est_box", "f8", (2,)), ("est_ramp", "f8", (2,)), ("est_drift", "i8", (2,)),
        ("est_leak", "f8", (2,)), ("est_ions", "f8", (2,)),
        # strip chamber
        ("strip_ticks", "i8"), ("strip_n", "f8"), ("strip_x", "f8"), ("strip_y", "f8"), ("strip_clean", "i8"),
        ("strip_seq", "i8"), ("strip_valid", "i8"), ("strip_mm", "f8", (2,)), ("strip_err_mm", "f8", (2,)),
        # front end
        ("fe_state", "i8"), ("hold_reason", "i8"), ("fe_token", "i8"), ("fe_code", "i8"), ("level", "f8"),
        ("n_spots", "i8"), ("spot", "i8"), ("done_spots", "i8"), ("target_cum", "f8"), ("spot_cum0", "f8", (2,)),
        ("demand", "i8"), ("stop_spot", "i8"), ("stopping", "i8"), ("stop_ticks", "i8"), ("moving", "i8"),
        ("move_ticks", "i8"), ("move_allow_ticks", "i8"), ("settled_ticks", "i8"), ("spot_beam_ticks", "i8"),
        ("spot_x", "f8"), ("spot_y", "f8"), ("spot_w", "f8"), ("trim_mm", "f8", (2,)), ("a_per_mm", "f8", (2,)),
        ("mm_per_a", "f8", (2,)), ("drive", "f8"), ("scale", "f8"), ("model_tail", "f8", (4,)), ("rate_meas", "f8"),
        ("rate_model", "f8"), ("dry_ticks", "i8"), ("layer_beam_ticks", "i8"), ("beam_on_ticks", "i8"),
        ("fe_heartbeat", "i8"), ("h_heartbeat", "i8"), ("rs_code", "i8"), ("rs_plan", "i8"), ("rs_moving_ns", "i8"),
        ("range_shifter", "i8"),
        # lines and room
        ("p_permit", "i8"), ("p_hold", "i8"), ("link_ok", "i8"), ("room_token", "i8"), ("door_a", "i8"), ("door_b", "i8"),
        ("estop_a", "i8"), ("estop_b", "i8"), ("gating", "i8"), ("gate_open", "i8"), ("gate_mm", "f8"), ("late_ms", "f8"),
        # image watch
        ("watch", "i8"), ("fe_beat_seen", "i8"), ("h_beat_seen", "i8"), ("beats_alive", "i8"), ("image_side", "i8"),
        # truth
        ("trace_count", "i8"), ("truth_total", "f8"), ("unbooked_ions", "f8"),
    ],
    align=True,
)  # fmt: skip

TRUTH_DTYPE = np.dtype(
    [
        ("t_ns", "<i8"), ("ions", "<i4"), ("ions_previous_spot", "<i4"), ("spot", "<i4"), ("token", "<i4"),
        ("x_um", "<i4"), ("y_um", "<i4"), ("flags", "<u4"), ("stored_k", "<u4"),
    ]
)  # fmt: skip
"""One record for each 10 us tick in which beam is possible.  ``t_ns`` is the end of the tick; ``ions`` crossed the
isocentre plane within it, ``ions_previous_spot`` of them before the set point moved to ``spot``."""

FLAG_PERMIT, FLAG_DEMAND, FLAG_SPILL, FLAG_RFKO, FLAG_QUAD, FLAG_CHOPPER, FLAG_GATE, FLAG_HOLD = range(8)
FLAG_STATE_SHIFT = 8
FLAG_ACTION_SHIFT = 12
FLAG_P_PERMIT = 16
FLAG_LINK = 17
FLAG_DUMP = 18

# columns of the energy table that the kernel sees
E_BRHO, E_FREV, E_ENERGY, E_Q1_FC, E_Q2_FC, E_SIGMA, E_RAMP_NS = range(7)
E_COLUMNS = 7

# columns of the per-spot truth
T_IONS, T_SUM_X, T_SUM_Y, T_FIRST_NS, T_LAST_NS = range(5)
T_COLUMNS = 5

# event bits
EV_PHASE = 1
EV_LAYER_DONE = 2
EV_HELD = 4
EV_BEAM_ON = 8
EV_TRIP = 16
EV_IMAGE = 32
EV_SPILL_END = 64
EV_ABORTED = 128
EV_PAUSED = 256
EV_STATE = 512
