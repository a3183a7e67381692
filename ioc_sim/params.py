"""From a validated facility file to the records of the kernel: the only place where one becomes the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility.config import Facility, Room
from facility.energy_table import EnergyTable
from facility.physics.chamber import drift_time_us
from ioc_sim.layout import (
    E_BRHO,
    E_COLUMNS,
    E_ENERGY,
    E_FREV,
    E_Q1_FC,
    E_Q2_FC,
    E_RAMP_NS,
    E_SIGMA,
    MAX_LINES,
    PARAM_DTYPE,
)

TICK_US = 10.0
MS_NS = 1_000_000


def record(dtype: np.dtype[Any]) -> Any:
    """A zeroed record array of one element, with fields as attributes."""
    return np.zeros(1, dtype).view(np.recarray)


def _whole_ms(ms: float) -> int:
    return max(1, math.ceil(ms)) * MS_NS


def _decay(tau_us: float) -> float:
    return math.exp(-TICK_US / tau_us) if tau_us > 0.0 else 0.0


def _fall(fall_us: float) -> float:
    return min(1.0, TICK_US / fall_us) if fall_us > 0.0 else 1.0


def energy_columns(facility: Facility, species: str, table: EnergyTable) -> np.ndarray:
    """Energy table as the kernel reads it, shape (codes, E_COLUMNS)."""
    columns = np.zeros((len(table), E_COLUMNS))
    columns[:, E_BRHO] = table.rigidity_tm
    columns[:, E_FREV] = table.f_rev_hz
    columns[:, E_ENERGY] = table.energy_mev_u
    columns[:, E_Q1_FC] = table.charge_per_ion_ic1_fc
    columns[:, E_Q2_FC] = table.charge_per_ion_ic2_fc
    columns[:, E_SIGMA] = table.spot_sigma_mm
    columns[:, E_RAMP_NS] = [_whole_ms(facility.ramp_ms(species, float(e))) for e in table.energy_mev_u]
    return columns


def _ring(p: Any, facility: Facility, species: str) -> None:
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
    p.step_loss = 0.05
    p.fill_ions = ion.fill_ions
    p.fill_jitter = ion.fill_jitter_rel
    p.transmission = ion.transmission


def _extraction(p: Any, facility: Facility) -> None:
    extraction = facility.extraction
    for i, (share, tau_us) in enumerate(extraction.tail):
        decay = _decay(tau_us)
        p.tail_w[i] = share
        p.tail_decay[i] = decay
        p.tail_ticks[i] = decay / (1.0 - decay) if decay < 1.0 else 0.0
        p.tail_tau_us[i] = tau_us
    p.noise_decay = _decay(extraction.duty_noise_tau_us)
    p.noise_kick = extraction.duty_noise_rms * math.sqrt(1.0 - p.noise_decay**2)
    p.n_lines = min(len(extraction.ripple_lines), MAX_LINES)
    for i, (hz, amplitude) in enumerate(extraction.ripple_lines[:MAX_LINES]):
        step = 2.0 * math.pi * hz * TICK_US * 1e-6
        p.line_hz[i], p.line_amplitude[i] = hz, amplitude
        p.line_cos[i], p.line_sin[i] = math.cos(step), math.sin(step)
    p.overshoot = extraction.start_overshoot_rel
    p.overshoot_decay = _decay(extraction.start_overshoot_tau_ms * 1e3)
    p.sensitivity_spread = 0.05


def _beam_off(p: Any, facility: Facility) -> None:
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
    p.dump_decay = _decay(off.ring_dump.fall_us / 3.0)
    p.stopper_ns = _whole_ms((off.stopper.delay_us + off.stopper.fall_us) * 1e-3)
    p.gate_tail_us = off.chopper.delay_us + off.chopper.fall_us / 2.0 if off.chopper.present else 1e6


def _scanning(p: Any, facility: Facility, room: Room) -> None:
    for k, axis in enumerate((facility.scanning.x, facility.scanning.y)):
        omega = 2.0 * math.pi * axis.bandwidth_hz
        p.supply_tm_per_a[k] = axis.tesla_metre_per_a
        p.supply_omega2[k] = omega * omega
        p.supply_damp[k] = 2.0 * axis.damping * omega
        p.supply_volt_per_l[k] = axis.max_voltage_v / axis.inductance_h
        p.supply_r_per_l[k] = axis.resistance_ohm / axis.inductance_h
        p.supply_max_a[k] = axis.max_current_a
        p.supply_step_a[k] = 2.0 * axis.max_current_a / 2**axis.dac_bits
        p.supply_noise_a[k] = axis.noise_a_rms
        p.supply_read_noise_a[k] = axis.readback_noise_a_rms
        p.supply_probe_noise_a[k] = axis.probe_noise_a_rms
    p.axis_supply[:] = (1, 0) if room.swap_xy else (0, 1)
    p.axis_polarity[:] = (room.x_polarity, room.y_polarity)
    p.axis_sad_mm[:] = (room.sad_x_mm, room.sad_y_mm)
    p.strip_ratio[:] = (1.0 - room.strip_distance_mm / room.sad_x_mm, 1.0 - room.strip_distance_mm / room.sad_y_mm)
    quality = facility.beam_quality
    p.upstream_mm[:] = quality.upstream_offset_mm
    p.upstream_jitter_mm = quality.upstream_jitter_mm
    p.spill_drift_mm[:] = quality.spill_drift_mm


def _monitors(p: Any, facility: Facility) -> None:
    for k, chamber in enumerate((facility.chambers.ic1, facility.chambers.ic2)):
        p.ic_quantum_fc[k] = chamber.count_quantum_fc
        p.ic_leak_fc_per_tick[k] = chamber.leakage_fc_per_s * TICK_US * 1e-6
        p.ic_noise_fc[k] = chamber.noise_counts_rms * chamber.count_quantum_fc
        p.ic_gain[k] = chamber.gain_true
        # loss of charge, linear in the current, per fC of charge in a tick; given at the current of 1e9 ions/s of
        # 400 MeV/u carbon, about 0.25 fC each
        p.ic_recombination[k] = chamber.recombination_rel_at_1e9 / (1e9 * 0.25 * TICK_US * 1e-6)
        p.ic_volt_set[k] = chamber.voltage_v
        p.ic_volt_nominal[k] = chamber.voltage_v
        p.ic_drift_volt_ticks[k] = drift_time_us(chamber, chamber.voltage_v) * chamber.voltage_v / TICK_US
    p.strip_window_ticks = round(facility.strip.window_us / TICK_US)
    p.strip_noise_mm = facility.strip.noise_mm
    p.strip_coefficient = facility.strip.resolution_coefficient
    p.strip_min_ions = 200.0


def _front_end(p: Any, facility: Facility) -> None:
    front_end = facility.front_end
    p.settle_ticks = front_end.settle_ticks
    p.settle_mm = front_end.position_tolerance_mm
    p.settle_extra_ticks = 40
    p.feedback_gain = front_end.position_feedback_gain
    p.feedback_max_mm = front_end.position_feedback_max_mm
    p.land_ticks = 100.0
    p.land_floor = 0.1
    p.loop_gain = 2.0 * math.pi * 50.0 * TICK_US * 1e-6
    p.rate_alpha = 0.03
    p.idle_grace_ticks = 250
    p.quiet_ticks = 400


def pack_parameters(facility: Facility, room_id: str, species: str, seed: int, gate_samples: int, gate_step_ns: int) -> Any:
    """Parameter record (one element) for one room and one species; ``seed`` is taken modulo 2^64."""
    parameters = record(PARAM_DTYPE)
    p = parameters[0]
    p.seed = np.uint64(seed % 2**64)
    room = facility.room_named(room_id)
    _ring(p, facility, species)
    _extraction(p, facility)
    _beam_off(p, facility)
    _scanning(p, facility, room)
    _monitors(p, facility)
    _front_end(p, facility)
    p.room_index = list(facility.rooms).index(room_id)
    p.gate_low_mm = facility.gate.window_low_mm
    p.gate_high_mm = facility.gate.window_high_mm
    p.gate_samples = gate_samples
    p.gate_step_ns = gate_step_ns
    return parameters
