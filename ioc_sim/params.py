"""From a validated facility file to the records of the kernel: the only place where one becomes the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility.config import Facility, Room
from facility.constants import SPEED_OF_LIGHT_M_S
from facility.energy_table import EnergyTable
from facility.jit import COMPILED
from facility.landing import land_us
from facility.physics.chamber import drift_time_us
from facility.physics.relativity import beta, gamma, revolution_frequency_hz, rigidity_tm
from ioc_sim import layout as at
from ioc_sim.external import pack_external
from ioc_sim.extraction.core_transit import AMPLITUDE, LAGS, parts_of
from ioc_sim.extraction.rate_model import POWER, RISE, RateModel
from ioc_sim.intensity_loop import LOOP_TICKS, SLOW_HZ
from ioc_sim.layout import (
    E_ANSWER_TICKS,
    E_ANSWER_TURNS,
    E_BRHO,
    E_COLUMNS,
    E_ENERGY,
    E_FREV,
    E_LINE,
    E_MM_PER_A,
    E_Q1_FC,
    E_Q2_FC,
    E_QB_FC,
    E_RAMP_NS,
    E_SET,
    E_SIGMA,
    E_TICKS_PER_TURN,
    E_TRUE1,
    E_TRUE2,
    E_TRUEB,
    PARAM_DTYPE,
)
from ioc_sim.physics.spill import HELD_HZ, LINE_TICKS, THIN_SHARE, TICK_S
from ioc_sim.physics.strip_profile import Strips, spread_by_strip

TICK_US = 10.0
STRIP_SIGMA_MAX_MM = 0.3
"""A centroid that is known worse is not told: the rules of position take the beam at 2 mm, 6.7 of these."""
STRIP_WINDOWS_MOST = 10
"""Windows of the strips that are added up at most until they have ions enough: 1 ms, five times what the lowest level
takes for 200 ions."""
MS_NS = 1_000_000
CORE_AMPLITUDES = 25
"""A core's ions by amplitude; the taps of each are ions of this amplitude by lag."""
LINE_LEARN = 0.001
"""Of what is amiss the loop learns so much each time: a mains line in a third of a second."""
BLOCK_MARGIN_TICKS = 5
"""An ABORT waits this much longer than the slowest device should take before it says that none blocks."""


def record(dtype: np.dtype[Any]) -> Any:
    """A zeroed record array of one element, with fields as attributes."""
    return np.zeros(1, dtype).view(np.recarray)


def as_argument(records: Any, dtype: np.dtype[Any]) -> Any:
    """A record array as the kernel takes it fastest: compiled code needs no fields as attributes, and is called a
    hundred times faster with an array of one record than with the record."""
    return records.view(np.ndarray).view(dtype) if COMPILED else records


def _whole_ms(ms: float) -> int:
    return max(1, math.ceil(ms)) * MS_NS


def _decay(tau_us: float) -> float:
    return math.exp(-TICK_US / tau_us) if tau_us > 0.0 else 0.0


def _fall(fall_us: float) -> float:
    return min(1.0, TICK_US / fall_us) if fall_us > 0.0 else 1.0


def energy_columns(facility: Facility, room_id: str, species: str, table: EnergyTable, spill: RateModel) -> np.ndarray:
    """Energy table as the kernel reads it in a room, shape (codes, E_COLUMNS)."""
    room = table.room(room_id)
    columns = np.zeros((len(table), E_COLUMNS))
    ion = facility.species_named(species)
    columns[:, E_BRHO] = table.rigidity_tm
    columns[:, E_FREV] = table.f_rev_hz
    columns[:, E_ENERGY] = table.energy_mev_u
    columns[:, E_Q1_FC] = room.charge_per_ion_ic1_fc
    columns[:, E_Q2_FC] = room.charge_per_ion_ic2_fc
    columns[:, E_QB_FC] = room.charge_per_ion_backup_fc
    chambers = facility.chambers
    for column, monitor in ((E_TRUE1, chambers.ic1), (E_TRUE2, chambers.ic2), (E_TRUEB, chambers.backup)):
        columns[:, column] = monitor.true_over_calibrated(table.energy_mev_u)
    columns[:, E_SIGMA] = room.spot_sigma_mm
    columns[:, E_SET] = room.transport_set
    columns[:, E_MM_PER_A], columns[:, E_MM_PER_A + 1] = room.x_mm_per_a, room.y_mm_per_a
    momentum = beta(table.energy_mev_u, ion) * gamma(table.energy_mev_u, ion)
    stretch = momentum**spill.momentum_power
    columns[:, E_TICKS_PER_TURN] = stretch / (table.f_rev_hz * TICK_US * 1e-6)
    columns[:, E_RAMP_NS] = np.maximum(np.ceil(table.ramp_ms), 1.0) * MS_NS
    for i, (hz, _) in enumerate(facility.extraction.supply_ripple):
        for number, drive in enumerate(_line_drives(facility, species, spill)):
            shape = _line_shape(spill, hz / table.f_rev_hz, drive, momentum)
            columns[:, E_LINE + number * at.MAX_LINES + i] = shape
    columns[:, E_ANSWER_TICKS] = columns[:, E_TICKS_PER_TURN]
    columns[:, E_ANSWER_TURNS] = spill.drive_delay_turns
    if spill.kind == "betatron":
        columns[:, E_ANSWER_TICKS] *= np.sqrt(momentum) / stretch
        columns[:, E_ANSWER_TURNS] -= spill.ripple_per_log * np.log(momentum)
    return columns


def _slow_drive(facility: Facility, model: RateModel, f_rev_hz: float) -> float:
    """Drive of a spill that lasts the whole flat top."""
    return model.drive_for(1e3 / facility.ring.phases.flat_top_max_ms / f_rev_hz)


def _line_drives(facility: Facility, species: str, model: RateModel) -> np.ndarray:
    """Drives for which lines have a height, from that of the slowest spill on; an exciter's depends on none."""
    energy, circumference = facility.species_named(species).energy_max_mev_u, facility.ring.circumference_m
    fastest = revolution_frequency_hz(energy, facility.species_named(species), circumference)
    slowest = _slow_drive(facility, model, float(fastest))
    drives = at.LINE_DRIVES if model.kind == "betatron" else 1
    return np.asarray(slowest * at.LINE_DRIVE_STEP ** np.arange(drives))


def _line_shape(model: RateModel, per_turn: np.ndarray, drive: float, momentum: np.ndarray) -> np.ndarray:
    """Response to ripple by energy, but for its gain; a core's at some energies, and on straight lines between."""
    every = np.arange(momentum.size)
    some = every if model.kind != "betatron" else np.unique(np.linspace(0, momentum.size - 1, 17).astype(int))
    shape = [abs(model.ripple(per_turn[i], drive, momentum[i])) * drive / model.ripple_gain for i in some]
    return np.asarray(np.interp(every, some, shape))


def _ring(p: Any, q: np.ndarray, facility: Facility, species: str) -> None:
    phases = facility.ring.phases
    ion = facility.species_named(species)
    p.injection_ns = _whole_ms(phases.injection_ms)
    p.capture_ns = _whole_ms(phases.capture_ms)
    p.stabilise_ns = _whole_ms(phases.stabilise_ms)
    p.resonance_ns = _whole_ms(phases.resonance_ms)
    p.flat_top_ns = _whole_ms(phases.flat_top_max_ms)
    p.energy_step_ns = _whole_ms(phases.energy_step_ms)
    p.dump_ns = _whole_ms(phases.dump_ms)
    p.ramp_down_ns = _whole_ms(phases.ramp_down_ms)
    p.standardise_ns = _whole_ms(phases.standardise_ms)
    p.energies_per_flat_top = facility.ring.energies_per_flat_top
    p.step_loss = facility.ring.energy_step_loss_rel
    p.accumulation = facility.ring.injection_lifetimes
    p.capture_loss = facility.ring.capture_loss_rel
    at_mev_u = facility.ring.injection_energy_mev_u
    p.injection_brho_tm = float(rigidity_tm(at_mev_u, ion))
    rise = 0.5 * p.standardise_ns * 1e-9 * phases.ramp_t_per_s * facility.ring.bending_radius_m
    p.standardise_tm = min(p.injection_brho_tm + rise, float(rigidity_tm(ion.energy_max_mev_u, ion)))
    p.beta_gamma_per_tm = float(beta(at_mev_u, ion) * gamma(at_mev_u, ion)) / p.injection_brho_tm
    p.f_per_beta_hz = SPEED_OF_LIGHT_M_S / facility.ring.circumference_m
    p.fill_ions = ion.fill_ions
    p.fill_jitter = ion.fill_jitter_rel
    p.transmission = ion.transmission
    p.flat_top_inverse = 1.0 / p.flat_top_ns
    p.thin_inverse = 1.0 / (THIN_SHARE * ion.fill_ions)
    p.ring_loss_per_rate = TICK_S / ion.transmission


def _converter_rms(facility: Facility, species: str, model: RateModel) -> float:
    """Rms of the rate over that of the tune, drive and frequency of revolution 1 (in the middle of the energies, by the
    response of a slow spill)."""
    ion = facility.species_named(species)
    middle = 0.5 * (ion.energy_min_mev_u + ion.energy_max_mev_u)
    speed = float(beta(middle, ion))
    f_rev = speed * SPEED_OF_LIGHT_M_S / facility.ring.circumference_m
    momentum = speed * float(gamma(middle, ion))
    drive = _slow_drive(facility, model, f_rev)
    rms = model.converter_rms(f_rev, momentum, facility.extraction.duty_noise_tau_us * 1e-6, drive)
    return float(rms * drive * f_rev ** RISE[model.kind])


def _drive_answer(p: Any, q: np.ndarray, model: RateModel, lead: bool) -> None:
    """Response to ripple of the drive: 1 / (1 + (i omega tau)^1/2) is a mean of lags of rates tan^2(phi) / tau, phi
    even from 0 to a right angle; of a core the ions by amplitude, in parts of equal size."""
    p.is_exciter = 1 if model.kind == "rfko" else 0
    p.exciter_lead = 1 if lead or not p.is_exciter else 0
    angles = 0.5 * math.pi * (np.arange(at.LAYER_LAGS) + 0.5) / at.LAYER_LAGS
    q[at.LAYER_TURNS : at.LAYER_TURNS + at.LAYER_LAGS] = model.drive_edge_turns / np.tan(angles) ** 2
    p.answer_taps = 1 if p.is_exciter else at.ANSWER_TAPS
    slowness, extra = (np.ones(1), np.zeros(1)) if p.is_exciter else _core_taps(model)
    q[at.ANSWER_SLOWNESS : at.ANSWER_SLOWNESS + p.answer_taps] = slowness
    q[at.ANSWER_EXTRA : at.ANSWER_EXTRA + p.answer_taps] = extra
    p.answer_per_log = model.ripple_per_log
    p.answer_lag_turns = model.drive_lag_turns if p.is_exciter else 0.0


def _core_taps(model: RateModel) -> tuple[np.ndarray, np.ndarray]:
    """Ions in parts of equal size, by amplitude in the middle of a spill (where beta gamma is 1) and by lag: one over
    the amplitude, and turns that it is late beyond its share of the delay of the rms amplitude."""
    parts = np.cumsum(parts_of(model.stack_step)) - 0.5 * parts_of(model.stack_step)
    slowness = np.interp((np.arange(CORE_AMPLITUDES) + 0.5) / CORE_AMPLITUDES, parts, 1.0 / AMPLITUDE)
    grid = np.linspace(0.0, 40.0, 20_001)
    density = grid ** (LAGS - 1) * np.exp(-grid)
    each = at.ANSWER_TAPS // CORE_AMPLITUDES
    share = np.cumsum(density) / density.sum()
    lag = np.interp((np.arange(each) + 0.5) / each, share, grid) / LAGS
    extra = -2.0 * model.ripple_per_log * np.log(slowness)[:, None] + model.drive_lag_turns * lag
    return np.repeat(slowness, each), (slowness[:, None] * extra).ravel()


def _extraction(p: Any, q: np.ndarray, facility: Facility, species: str, model: RateModel) -> None:
    extraction = facility.extraction
    p.n_stages, p.last_stage = model.stages, at.STAGE + model.stages - 1
    p.transit_turns, p.transit_per_log = model.mean_turns, model.mean_per_log
    p.stage_turns = model.spread_turns / math.sqrt(model.stages)
    p.share_inverse = 1.0 / (facility.species_named(species).transmission * model.share_per_turn)
    p.drive_root = 1.0 / POWER[model.kind]
    _drive_answer(p, q, model, extraction.exciter_lead)
    p.noise_decay = _decay(extraction.duty_noise_tau_us)
    kick = math.sqrt(1.0 - p.noise_decay**2)
    p.noise_kick = extraction.exciter_noise_rms * kick
    p.n_lines = len(extraction.supply_ripple)
    line_ticks = LINE_TICKS if max((hz for hz, _ in extraction.supply_ripple), default=0.0) <= HELD_HZ else 1
    p.line_mask = line_ticks - 1
    p.line_rise = RISE[model.kind]
    first_drive = float(_line_drives(facility, species, model)[0])
    p.line_log = -math.log(first_drive) if model.kind == "betatron" else 0.0
    p.full_fill_s = facility.ring.phases.flat_top_max_ms * 1e-3 / facility.species_named(species).transmission
    p.feed_forward, p.line_learn = extraction.feed_forward, LINE_LEARN
    # the loop sees the mean of ``LOOP_TICKS``, and of a line what it was at the beginning of the last half of them
    p.loop_late_s = 0.5 * (LOOP_TICKS - 2 * LINE_TICKS + line_ticks) * TICK_S
    p.loop_lead_ticks = LOOP_TICKS + model.stages - 1.0
    per_step = 2.0 * math.pi * TICK_S * LOOP_TICKS
    p.loop_fast = per_step * extraction.loop_bandwidth_hz
    p.loop_gain = p.loop_leak = per_step * min(SLOW_HZ, extraction.loop_bandwidth_hz)
    tune = extraction.tune_per_supply / extraction.channelling
    per_supply = tune * model.ripple_gain
    p.converter_kick = kick * tune * extraction.converter_noise * _converter_rms(facility, species, model)
    for i, (hz, amplitude) in enumerate(extraction.supply_ripple):
        step = 2.0 * math.pi * hz * TICK_US * 1e-6 * line_ticks
        q[at.LINE_HZ + i], q[at.LINE_WEIGHT + i] = hz, amplitude * per_supply
        q[at.LINE_COS + i], q[at.LINE_SIN + i] = math.cos(step), math.sin(step)
    p.overshoot = extraction.start_overshoot_rel
    p.overshoot_decay = _decay(extraction.start_overshoot_tau_ms * 1e3)
    p.sensitivity_spread = 0.05
    p.begun_left = 1.0 - model.fill_share
    p.edge_inverse = 1.0 / model.edge_share if model.edge_share > 0.0 else 0.0


def _beam_off(p: Any, q: np.ndarray, facility: Facility) -> None:
    off = facility.beam_off
    p.gate_by_chopper = 1 if off.spill_gate == "chopper" else 0
    p.rfko_delay_ticks = round(off.rfko.delay_us / TICK_US)
    p.quad_present = int(off.fast_quad.present)
    p.quad_delay_ticks = round(off.fast_quad.delay_us / TICK_US)
    p.quad_step = _fall(off.fast_quad.fall_us)
    p.chopper_present = int(off.chopper.present)
    p.chopper_delay_ticks = round(off.chopper.delay_us / TICK_US)
    p.chopper_step = _fall(off.chopper.fall_us)
    p.dump_delay_ticks = round(off.ring_dump.delay_us / TICK_US)
    p.dump_fall_ticks = max(1, round(off.ring_dump.fall_us / TICK_US))
    blocks = [device.delay_us + device.fall_us for device in (off.fast_quad, off.chopper) if device.present]
    p.block_ticks = round(max(blocks, default=off.ring_dump.delay_us) / TICK_US) + BLOCK_MARGIN_TICKS
    p.confirm_ticks = math.ceil(facility.confirm_after_us() / TICK_US)
    p.source_delay_ticks = round((off.source_inhibit.delay_us + off.source_inhibit.fall_us) / TICK_US)
    p.stopper_ns = _whole_ms((off.stopper.delay_us + off.stopper.fall_us) * 1e-3)
    # what of the tail a chopper lets pass; 0: there is none
    p.gate_ticks = (off.chopper.delay_us + off.chopper.fall_us / 2.0) / TICK_US if off.chopper.present else 0.0


def _scanning(p: Any, q: np.ndarray, facility: Facility, room: Room) -> None:
    for k, axis in enumerate((facility.scanning.x, facility.scanning.y)):
        omega = 2.0 * math.pi * axis.bandwidth_hz
        q[at.SUPPLY_TM_PER_A + k] = axis.tesla_metre_per_a
        q[at.SUPPLY_A_PER_TM + k] = 1.0 / axis.tesla_metre_per_a
        q[at.SUPPLY_OMEGA2 + k] = omega * omega
        q[at.SUPPLY_DAMP + k] = 2.0 * axis.damping * omega
        q[at.SUPPLY_VOLT_PER_L + k] = axis.max_voltage_v / axis.inductance_h
        q[at.SUPPLY_R_PER_L + k] = axis.resistance_ohm / axis.inductance_h
        q[at.SUPPLY_MAX_A + k] = axis.max_current_a
        q[at.SUPPLY_STEP_A + k] = 2.0 * axis.max_current_a / 2**axis.dac_bits
        q[at.SUPPLY_STEPS_PER_A + k] = 1.0 / q[at.SUPPLY_STEP_A + k]
        q[at.SUPPLY_NOISE_A + k] = axis.noise_a_rms
        q[at.SUPPLY_READ_NOISE_A + k] = axis.readback_noise_a_rms
        q[at.SUPPLY_PROBE_NOISE_A + k] = axis.probe_noise_a_rms
        q[at.EDDY_S + k] = axis.eddy_tau_us * 1e-6
        q[at.HYSTERESIS_A + k] = axis.hysteresis_a
        q[at.HYSTERESIS_SPAN_A + k] = axis.hysteresis_span_a
    q[at.AXIS_SUPPLY : at.AXIS_SUPPLY + 2] = (1, 0) if room.swap_xy else (0, 1)
    q[at.AXIS_POLARITY : at.AXIS_POLARITY + 2] = (room.x_polarity, room.y_polarity)
    q[at.AXIS_SAD_MM : at.AXIS_SAD_MM + 2] = (room.sad_x_mm, room.sad_y_mm)
    q[at.STRIP_RATIO : at.STRIP_RATIO + 2] = (
        1.0 - room.strip_distance_mm / room.sad_x_mm,
        1.0 - room.strip_distance_mm / room.sad_y_mm,
    )
    quality = facility.beam_quality
    q[at.UPSTREAM_MM : at.UPSTREAM_MM + 2] = quality.upstream_offset_mm
    p.upstream_jitter_mm = quality.upstream_jitter_mm
    q[at.SPILL_DRIFT_MM : at.SPILL_DRIFT_MM + 2] = quality.spill_drift_mm


def _monitors(p: Any, q: np.ndarray, facility: Facility, species: str) -> None:
    for k, chamber in enumerate((facility.chambers.ic1, facility.chambers.ic2)):
        q[at.IC_QUANTUM_FC + k] = chamber.count_quantum_fc
        q[at.IC_COUNTS_PER_FC + k] = 1.0 / chamber.count_quantum_fc
        q[at.IC_LEAK_FC_PER_TICK + k] = chamber.leakage_fc_per_s * TICK_US * 1e-6
        q[at.IC_NOISE_FC + k] = chamber.noise_counts_rms * chamber.count_quantum_fc
        q[at.IC_GAIN + k] = chamber.gain_true
        # loss of charge, linear in the current, per fC of charge in a tick; given at the current of 1e9 ions/s of
        # 400 MeV/u carbon, about 0.25 fC each
        q[at.IC_RECOMBINATION + k] = chamber.recombination_rel_at_1e9 / (1e9 * 0.25 * TICK_US * 1e-6)
        q[at.IC_VOLT_SET + k] = chamber.voltage_v
        q[at.IC_VOLT_NOMINAL + k] = chamber.voltage_v
        q[at.IC_DRIFT_VOLT_TICKS + k] = drift_time_us(chamber, chamber.voltage_v) * chamber.voltage_v / TICK_US
    q[at.AIR_DENSITY] = facility.air.density_rel()
    q[at.BACKUP_QUANTUM_FC] = facility.chambers.backup.count_quantum_fc
    q[at.BACKUP_GAIN] = facility.chambers.backup.gain_true
    p.strip_window_ticks = round(facility.strip.window_us / TICK_US)
    p.strip_most_ticks = STRIP_WINDOWS_MOST * p.strip_window_ticks
    p.strip_noise_mm = facility.strip.noise_mm
    p.strip_coefficient = facility.strip.resolution_coefficient
    p.strip_min_ions = 200.0
    p.strip_max_mm2 = STRIP_SIGMA_MAX_MM**2
    _strips(p, q, facility, species)


def _strips(p: Any, q: np.ndarray, facility: Facility, species: str) -> None:
    """Strips of either plane, and what dead ones cost at the smallest spot, where they cost most."""
    strip = facility.strip
    p.strips, p.strip_pitch_mm, p.strip_noise_fc = strip.strips, strip.pitch_mm, strip.noise_fc_rms
    ion = facility.species_named(species)
    sigma = min(size for _, size in ion.spot_sigma)
    noise_ions = strip.noise_fc_rms / facility.charge_per_ion_fc(species, ion.energy_max_mev_u, "ic2")
    for axis, dead in enumerate((strip.dead_x, strip.dead_y)):
        spread = spread_by_strip(Strips.of(strip.strips, strip.pitch_mm, dead, noise_ions), sigma)
        q[at.STRIP_SPREAD + at.MOST_STRIPS * axis :][: strip.strips] = spread**2


def _front_end(p: Any, q: np.ndarray, facility: Facility) -> None:
    front_end = facility.front_end
    p.stop_us = facility.stop_us()
    p.settle_ticks = front_end.settle_ticks
    p.settle_mm = front_end.position_tolerance_mm
    p.settle_extra_ticks = 40
    p.feedback_gain = front_end.position_feedback_gain
    p.feedback_max_mm = front_end.position_feedback_max_mm
    # the drive falls over 2.5 times the slowest lag of the extraction, so that the rate can follow it down
    p.land_ticks = land_us(facility) / TICK_US
    p.land_floor = 0.1
    p.rate_alpha = 0.03
    p.idle_grace_ticks = 250
    p.quiet_ticks = 400


def pack_parameters(
    facility: Facility, room_id: str, species: str, spill: RateModel, seed: int, gate_samples: int, gate_step_ns: int
) -> tuple[Any, np.ndarray]:
    """Parameter record (one element) and parameter vector for a room and a species; ``seed`` counts modulo 2^64."""
    parameters = record(PARAM_DTYPE)
    p = parameters[0]
    q = np.zeros(at.N_Q)
    p.seed = np.uint64(seed % 2**64)
    room = facility.room_named(room_id)
    _ring(p, q, facility, species)
    _beam_off(p, q, facility)
    _extraction(p, q, facility, species, spill)
    _scanning(p, q, facility, room)
    _monitors(p, q, facility, species)
    _front_end(p, q, facility)
    p.room_index = list(facility.rooms).index(room_id)
    search = facility.room_search
    p.search_press_ns = _whole_ms(search.press_within_s * 1e3)
    p.search_leave_ns = _whole_ms(search.leave_within_s * 1e3)
    p.search_delay_ns = _whole_ms(search.delay_s * 1e3)
    p.gate_low_mm = facility.gate.window_low_mm
    p.gate_high_mm = facility.gate.window_high_mm
    p.gate_samples = gate_samples
    p.gate_step_ns = gate_step_ns
    pack_external(p, q, facility)
    return parameters, q
