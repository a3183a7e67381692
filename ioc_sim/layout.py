"""Memory of the rack: parameters, state and the truth record.

Scalars live in two aligned numpy records (``p`` parameters, ``s`` state), everything with an index in two float64
vectors (``q`` parameters, ``v`` state) at the offsets below: an array inside a record costs a reference count at each
access in compiled code.  A C program can map the same bytes.  Units are in the field names.
Parameters are fixed for a run; ``s`` and ``v`` are what a snapshot has to hold.
"""

from __future__ import annotations

import numpy as np

from facility.external import SLOTS
from facility.physics.chamber import LONGEST_DRIFT_US

DRIFT_RING = round(LONGEST_DRIFT_US / 10.0)
"""Longest ion drift the rack can follow, in 10 us ticks; a power of two."""
MAX_LINES = 8
TRANSIT_RING = 64
"""Longest dead time of the extraction, in ticks; a power of two, as long as the drift rings, whose place it shares."""

PARAM_DTYPE = np.dtype(
    [
        ("seed", "u8"),
        # ring, durations in ns, multiples of 1 ms
        ("injection_ns", "i8"), ("capture_ns", "i8"), ("stabilise_ns", "i8"), ("resonance_ns", "i8"),
        ("flat_top_ns", "i8"), ("energy_step_ns", "i8"), ("dump_ns", "i8"), ("ramp_down_ns", "i8"),
        ("standardise_ns", "i8"),
        ("energies_per_flat_top", "i8"), ("step_loss", "f8"), ("accumulation", "f8"), ("capture_loss", "f8"),
        ("injection_brho_tm", "f8"), ("standardise_tm", "f8"), ("beta_gamma_per_tm", "f8"), ("f_per_beta_hz", "f8"),
        ("fill_ions", "f8"), ("fill_jitter", "f8"),
        ("transmission", "f8"), ("flat_top_inverse", "f8"),
        # extraction
        ("n_stages", "i8"), ("last_stage", "i8"), ("transit_turns", "f8"), ("transit_per_log", "f8"),
        ("stage_turns", "f8"),
        ("is_exciter", "i8"), ("exciter_lead", "i8"), ("answer_taps", "i8"),
        ("answer_per_log", "f8"), ("answer_lag_turns", "f8"),
        ("share_inverse", "f8"), ("drive_root", "f8"), ("thin_inverse", "f8"), ("ring_loss_per_rate", "f8"),
        ("noise_decay", "f8"), ("noise_kick", "f8"),
        ("n_lines", "i8"), ("line_mask", "i8"), ("line_rise", "f8"),
        ("line_log", "f8"), ("full_fill_s", "f8"), ("line_learn", "f8"),
        ("feed_forward", "f8"), ("loop_lead_ticks", "f8"), ("loop_late_s", "f8"), ("loop_fast", "f8"),
        ("loop_leak", "f8"), ("converter_kick", "f8"),
        ("overshoot", "f8"), ("overshoot_decay", "f8"), ("sensitivity_spread", "f8"),
        ("begun_left", "f8"), ("edge_inverse", "f8"),
        # beam-off devices: dead time in ticks, then a linear fall (step per tick)
        ("chopper_present", "i8"), ("gate_by_chopper", "i8"),
        ("rfko_delay_ticks", "i8"), ("quad_present", "i8"), ("quad_delay_ticks", "i8"), ("quad_step", "f8"),
        ("chopper_delay_ticks", "i8"), ("chopper_step", "f8"), ("dump_delay_ticks", "i8"), ("dump_fall_ticks", "i8"),
        ("block_ticks", "i8"), ("confirm_ticks", "i8"), ("source_delay_ticks", "i8"),
        ("stopper_ns", "i8"), ("gate_ticks", "f8"),
        # room
        ("room_index", "i8"), ("search_press_ns", "i8"), ("search_leave_ns", "i8"), ("search_delay_ns", "i8"),
        ("upstream_jitter_mm", "f8"),
        # strip chamber
        ("strip_window_ticks", "i8"), ("strip_most_ticks", "i8"),
        ("strip_noise_mm", "f8"), ("strip_coefficient", "f8"), ("strip_min_ions", "f8"),
        ("strip_max_mm2", "f8"),
        ("strips", "i8"), ("strip_pitch_mm", "f8"), ("strip_noise_fc", "f8"),
        # front end
        ("settle_ticks", "i8"), ("settle_mm", "f8"), ("settle_extra_ticks", "i8"), ("feedback_gain", "f8"),
        ("feedback_max_mm", "f8"), ("land_ticks", "f8"), ("land_floor", "f8"), ("loop_gain", "f8"),
        ("rate_alpha", "f8"), ("idle_grace_ticks", "i8"), ("quiet_ticks", "i8"),
        # gate
        ("stop_us", "f8"),
        ("gate_low_mm", "f8"), ("gate_high_mm", "f8"), ("gate_step_ns", "i8"), ("gate_samples", "i8"),
        # devices behind an external IOC, lines of an I/O card
        ("external", "i8"), ("ext_readbacks", "i8"), ("ext_proof_ms", "i8"), ("gate_line", "i8"),
    ],
    align=True,
)  # fmt: skip

STATE_DTYPE = np.dtype(
    [
        ("t_ns", "i8"), ("events", "i8"), ("fine", "i8"), ("tick", "i8"), ("fine_age_ticks", "i8"),
        # ring
        ("phase", "i8"), ("phase_end_ns", "i8"), ("ring_token", "i8"), ("ring_code", "i8"), ("hebt_token", "i8"),
        ("ring_set", "i8"), ("hebt_set", "i8"),
        ("queued", "i8"), ("queued_token", "i8"), ("queued_code", "i8"), ("queued_set", "i8"),
        ("end_cycle", "i8"), ("cycle", "i8"),
        ("steps_done", "i8"), ("stored", "f8"), ("sensitivity", "f8"), ("spill_start_ns", "i8"),
        ("begun_ions", "f8"), ("cycle_gain", "f8"),
        # extraction
        ("dead_ticks", "i8"), ("stage_ticks", "f8"), ("stage_share", "f8"), ("ticks_per_turn", "f8"),
        ("f_rev_hz", "f8"),
        ("noise", "f8"), ("overshoot", "f8"), ("rate", "f8"), ("ripple", "f8"), ("ion_root", "f8"),
        ("line_scale", "f8"), ("converter_rise", "f8"), ("answer_ticks", "f8"), ("answer_turns", "f8"),
        ("answering", "i8"), ("drive_factor", "f8"), ("drive_answer", "f8"),
        # actuators
        ("spill_cmd", "i8"), ("spill_on_ticks", "i8"), ("spill_off_ticks", "i8"), ("rfko_on", "i8"),
        ("quad_cmd", "i8"), ("quad_ticks", "i8"), ("quad_open", "f8"),
        ("chopper_cmd", "i8"), ("chopper_ticks", "i8"), ("chopper_open", "f8"),
        ("dump_wanted", "i8"), ("dump_cmd", "i8"), ("dump_ticks", "i8"), ("dump_step", "f8"), ("no_permit_ticks", "i8"),
        ("abort_ticks", "i8"), ("off_since_ticks", "i8"), ("unconfirmed", "i8"), ("escalated", "i8"),
        ("source_ticks", "i8"), ("source_inhibited", "i8"),
        ("stopper_cmd", "i8"), ("stopper_in", "i8"), ("stopper_done_ns", "i8"), ("stopper_asked", "i8"),
        ("personnel", "i8"),
        ("action", "i8"), ("permit_line", "i8"), ("hold_line", "i8"), ("permit_epoch", "i8"), ("lost_tick", "i8"),
        ("armed_epoch", "i8"), ("field", "i8"), ("field_told", "i8"),
        # chambers: place in their drift rings
        ("ring_pos", "i8"),
        # strip chamber
        ("strip_ticks", "i8"), ("strip_n", "f8"), ("strip_x", "f8"), ("strip_y", "f8"), ("strip_clean", "i8"),
        ("strip_seq", "i8"), ("strip_valid", "i8"),
        # front end
        ("fe_state", "i8"), ("hold_reason", "i8"), ("fe_token", "i8"), ("fe_code", "i8"), ("level", "f8"),
        ("level_inverse", "f8"), ("missed_ticks", "i8"),
        ("n_spots", "i8"), ("spot", "i8"), ("done_spots", "i8"), ("done_token", "i8"), ("target_cum", "f8"),
        ("demand", "i8"), ("stop_spot", "i8"), ("stopping", "i8"), ("stop_ticks", "i8"), ("moving", "i8"),
        ("move_ticks", "i8"), ("move_allow_ticks", "i8"), ("settled_ticks", "i8"), ("spot_beam_ticks", "i8"),
        ("spot_x", "f8"), ("spot_y", "f8"), ("spot_w", "f8"), ("drive", "f8"), ("scale", "f8"), ("rate_meas", "f8"),
        ("rate_model", "f8"), ("dry_ticks", "i8"), ("track", "f8"), ("track_gain", "f8"),
        ("answer", "f8"), ("answer_gain", "f8"),
        ("ring_gain", "f8"), ("rest_drive", "f8"), ("loop_fast", "f8"),
        ("loop_ions", "f8"), ("loop_model", "f8"), ("lead_stage", "f8"),
        ("lead_dead", "i8"),
        ("layer_beam_ticks", "i8"), ("beam_on_ticks", "i8"),
        ("fe_heartbeat", "i8"), ("h_heartbeat", "i8"), ("rs_code", "i8"), ("rs_plan", "i8"), ("rs_moving_ns", "i8"),
        ("range_shifter", "i8"),
        # lines and room
        ("p_permit", "i8"), ("p_hold", "i8"), ("link_ok", "i8"), ("room_token", "i8"), ("door_a", "i8"),
        ("door_b", "i8"),
        ("estop_a", "i8"), ("estop_b", "i8"),
        ("press_far", "i8"), ("press_exit", "i8"), ("was_far", "i8"), ("was_exit", "i8"),
        ("search_a", "i8"), ("search_b", "i8"), ("search_a_ns", "i8"), ("search_b_ns", "i8"),
        ("was_open_a", "i8"), ("was_open_b", "i8"),
        ("proof_action", "i8"), ("proof_step", "i8"), ("proof_want", "i8"), ("proof_done", "i8"),
        ("proof_next_ns", "i8"), ("proof_stopper", "i8"),
        ("key", "i8"), ("gating", "i8"), ("gate_open", "i8"), ("gate_mm", "f8"),
        ("late_ms", "f8"),
        ("faults", "i8"), ("line_key", "i8"),
        # dose register
        ("register_kept", "i8"), ("register_seq", "i8"), ("load_seq", "i8"), ("last_load", "i8"), ("book_from", "i8"),
        ("book_to", "i8"),
        # image watch
        ("watch", "i8"), ("fe_beat_seen", "i8"), ("h_beat_seen", "i8"), ("beats_alive", "i8"),
        # truth
        ("trace_count", "i8"), ("truth_total", "f8"), ("unbooked_ions", "f8"),
    ],
    align=True,
)  # fmt: skip

# offsets in the parameter vector ``q``; the number of elements stands behind each.  Pairs: supply 0 upstream and 1
# downstream, axis 0 x and 1 y, chamber 0 and 1
LAYER_TURNS = 0  # LAYER_LAGS
LAYER_LAGS = 8
"""Lags of the layer at the side of an exciter's triangle."""
LINE_HZ = 16  # 8; what stands below is free
LINE_WEIGHT = 24  # 8
LINE_COS = 32  # 8
LINE_SIN = 40  # 8
SUPPLY_TM_PER_A = 48  # 2
SUPPLY_A_PER_TM = 50  # 2
SUPPLY_OMEGA2 = 52  # 2
SUPPLY_DAMP = 54  # 2
SUPPLY_VOLT_PER_L = 56  # 2
SUPPLY_R_PER_L = 58  # 2
SUPPLY_MAX_A = 60  # 2
SUPPLY_STEP_A = 62  # 2
SUPPLY_STEPS_PER_A = 64  # 2
SUPPLY_NOISE_A = 66  # 2
SUPPLY_READ_NOISE_A = 68  # 2
SUPPLY_PROBE_NOISE_A = 70  # 2
AXIS_SUPPLY = 72  # 2
AXIS_POLARITY = 74  # 2
AXIS_SAD_MM = 76  # 2
STRIP_RATIO = 78  # 2
UPSTREAM_MM = 80  # 2
SPILL_DRIFT_MM = 82  # 2
IC_QUANTUM_FC = 84  # 2
IC_COUNTS_PER_FC = 86  # 2
IC_LEAK_FC_PER_TICK = 88  # 2
IC_NOISE_FC = 90  # 2
IC_GAIN = 92  # 2
IC_RECOMBINATION = 94  # 2
IC_VOLT_SET = 96  # 2
IC_VOLT_NOMINAL = 98  # 2
IC_DRIFT_VOLT_TICKS = 100  # 2
AIR_DENSITY = 102  # 1
BACKUP_QUANTUM_FC = 103  # 1
BACKUP_GAIN = 104  # 1
EDDY_S = 105  # 2
HYSTERESIS_A = 107  # 2
HYSTERESIS_SPAN_A = 109  # 2
N_EXT = len(SLOTS)
"""External devices: places by `facility.external.SLOT`."""
EXT_AGE_NS = 111  # N_EXT; 0: not external
MOST_STRIPS = 256
STRIP_SPREAD = EXT_AGE_NS + N_EXT  # 2 x MOST_STRIPS
"""By plane and strip: how much wider a centroid there spreads because of dead strips, squared."""
ANSWER_SLOWNESS = STRIP_SPREAD + 2 * MOST_STRIPS  # ANSWER_TAPS
ANSWER_TAPS = 200
"""Ions of a core: one over their amplitude, in units of the beam's rms."""
ANSWER_EXTRA = ANSWER_SLOWNESS + ANSWER_TAPS  # ANSWER_TAPS
"""Turns that they are late beyond that share of what the rms is late."""
N_Q = ANSWER_EXTRA + ANSWER_TAPS

# offsets in the state vector ``v``
STAGE = 0  # 4
LINE_C = 4  # 8
LINE_S = 12  # 8
SET_A = 20  # 2
CURRENT_A = 22  # 2
SPEED_A = 24  # 2
READ_A = 26  # 2
PROBE_TM = 28  # 2
OFFSET_MM = 30  # 2
DRIFT_MM = 32  # 2
IC_RING = 34  # 128
IC_BOX = 162  # 2
IC_RAMP = 164  # 2
IC_DRIFT = 166  # 2
IC_CHARGE_FC = 168  # 2
IC_COUNTS = 170  # 2
IC_READ = 172  # 2
IC_VOLT = 174  # 2
IC_IONS = 176  # 2
IC_LAYER_IONS = 178  # 2
IC_NOMINAL_US = 180  # 2
IC_IDLE_IONS = 182  # 2
IC_IONS_PER_COUNT = 184  # 2
IC_FC_PER_ION = 186  # 2
IC_EFFICIENCY = 188  # 2
IC_RAMP_SHARE = 190  # 2
IC_VOLT_REL = 192  # 2
EST_RING = 194  # 128
EST_BOX = 322  # 2
EST_RAMP = 324  # 2
EST_DRIFT = 326  # 2
EST_LEAK = 328  # 2
EST_LATE_SHARE = 330  # 2
EST_GAIN = 332  # 2
EST_IONS = 334  # 2
STRIP_MM = 336  # 2
STRIP_ERR_MM = 338  # 2
SPOT_CUM0 = 340  # 2
TRIM_MM = 342  # 2
A_PER_MM = 344  # 2
MM_PER_A = 346  # 2
MODEL_STAGE = 348  # 4
IC_BAD = 352  # 2
EST_UNREAD = 354  # 2
SLOW = 356  # 32
ANGLE_PER_A = 388  # 2
BACKUP_FC = 390  # 1
BACKUP_COUNTS = 391  # 1
BACKUP_LAYER_COUNTS = 392  # 1
LAYER_PRESET_IONS = 393  # 1
LAYER_EXPECTED_MS = 394  # 1
LAYER_TIMER_MS = 395  # 1
IONS_SEEN = 396  # 1
IC_SEEN = 397  # 2
STRIP_SUM = 399  # 2
BACKUP_SUM = 401  # 2
RATE_SUM = 403  # 2
WIDTH_REL = 405  # 2
SETTLE_MS = 407  # 1
OFF_IONS = 408  # 2
FIELD_PRESET_IONS = 410  # 1
FIELD_EXPECTED_MS = 411  # 1
FIELD_IONS = 412  # 1
FIELD_TIMER_MS = 413  # 1
LEASE_IONS = 414  # 1
LEASE_NEXT_IONS = 415  # 1
KTP_USED = 416  # 2
"""Correction of either chamber for temperature and pressure that is in use, over that of the room's air."""
BACKUP_FC_PER_ION = 418  # 1
REMANENCE_A = 420  # 2
"""What hysteresis adds to the field of either scanning magnet, as a current."""
PLAY_A = 422  # 2
"""Current that the hysteresis remembers."""
FIELD_IC2_IONS = 424  # 1
"""Of the open field by chamber 2; what it had had when it was opened is by the backup counter."""
BACKUP_FC_SEEN = 419  # 1
"""Charge per ion that the backup counter has counted with in the last millisecond, its gain in it."""
RING_TM = 496  # 1
RING_HZ = 497  # 1
RING_FROM_TM = 498  # 1
RING_SEEN = 499  # 1
STRIP_COUNTING = 500  # 1
STRIP_ELECTRONICS = 501  # 1
"""Variance of a centroid is counting / N + electronics / N^2, mm^2."""
IC_LOSS = 502  # 2
"""Loss of charge by recombination for each fC of a tick, at the voltage and spot size of the moment."""
IC_LOSS_VOLT = 504  # 2
IC_LOSS_SPOT = 506  # 1
# random numbers of the present millisecond, 100 a column; they stand last, behind some free places
NOISE_BLOCK = 100
NOISE_SPILL = 512  # 100
NOISE_POISSON = 612  # 100
NOISE_IC = 712  # 200
NOISE_CURRENT = 912  # 200
NOISE_READ = 1112  # 200
NOISE_PROBE = 1312  # 200
IC_VOLT_TEST = 1512  # 2
PROOF_VALUE = 1514  # 4
PROOF_FROM = 1518  # 4
PROOF_KEPT = 1522  # 2
EXT_T_NS = 1524  # N_EXT
EXT_GOOD = EXT_T_NS + N_EXT  # N_EXT
EXT_VALUE = EXT_GOOD + N_EXT  # N_EXT
EXT_FOR = EXT_VALUE + N_EXT  # 4
EXT_COUNT = EXT_FOR + 4  # 2
IC_VOLT_SUPPLY = EXT_COUNT + 2  # 2
EXT_BAD_NS = IC_VOLT_SUPPLY + 2  # N_EXT
TRANSIT = EXT_BAD_NS + N_EXT  # TRANSIT_RING
MODEL_TRANSIT = TRANSIT + TRANSIT_RING  # TRANSIT_RING
LINE_HEIGHT = MODEL_TRANSIT + TRANSIT_RING  # 8
"""Modulation of the rate by each mains line, where ``line_scale`` is 1."""
MAINS = LINE_HEIGHT + MAX_LINES  # 16 x 16
"""Phase of the mains, every ``LINE_TICKS``: cosines, sines."""
LOOP_C = MAINS + 16 * 2 * MAX_LINES  # 8
LOOP_S = LOOP_C + MAX_LINES  # 8
"""What the front end has learned of each line, where ``line_scale`` is 1."""
LEAD_C = LOOP_S + MAX_LINES  # 8
LEAD_S = LEAD_C + MAX_LINES  # 8
"""A line's phase when what is driven now arrives."""
LAYER = LEAD_S + MAX_LINES  # LAYER_LAGS
ANSWER_RING = 256
"""Ticks in which a core's slowest ions have answered; a power of two."""
ANSWER = LAYER + LAYER_LAGS  # ANSWER_RING
"""What the amplitude of exciter or core made of the rate when ions left the triangle."""
N_V = ANSWER + ANSWER_RING


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
(
    E_BRHO, E_FREV, E_ENERGY, E_Q1_FC, E_Q2_FC, E_QB_FC, E_TRUE1, E_TRUE2, E_TRUEB, E_SIGMA, E_RAMP_NS,
    E_TICKS_PER_TURN, E_SET, E_MM_PER_A,
) = range(14)  # fmt: skip
E_LINE = 15
LINE_DRIVES, LINE_DRIVE_STEP = 5, 4.0
"""Drives for which a core's lines have a height, each so many times the one before."""
E_ANSWER_TICKS = E_LINE + LINE_DRIVES * MAX_LINES
E_ANSWER_TURNS = E_ANSWER_TICKS + 1
E_COLUMNS = E_ANSWER_TURNS + 1
"""``E_Q*_FC``: charge per ion as it is believed (chambers 1 and 2, backup counter); ``E_TRUE*``: true one over that.
``E_SET``: number of the transport's set points.  ``E_MM_PER_A``: calibration of the axes x and y, as it is believed.
``E_LINE``: response to ripple at the frequency of each mains line, but for its gain; ``MAX_LINES`` for each drive.
``E_ANSWER_*``: ticks of a turn of the response to the drive, and its delay at full drive, turns."""

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
EV_ROOM = 1024
