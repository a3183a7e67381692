"""All that one ring and energy tell about their spill, in one go; as plain data with units for files and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ioc_sim.extraction.separatrix import Comparison
from ioc_sim.extraction.spill import (
    Interruption,
    Response,
    Setting,
    Spill,
    Start,
    default_stops,
    interrupt,
    ripple_response,
    run_spill,
    start_response,
    transit_distribution,
)

RIPPLE_HZ = (300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 19200.0)
RIPPLE_SEEDS = 4
RATE_BIN_S = 2e-4
START_BIN_S = 5e-4
OFF_RESONANCE = 0.001
"""Tune distance at which a ring is shown whose reference ion is on the resonance."""


@dataclass(frozen=True)
class Study:
    """A spill, how it starts, the same one interrupted, and the same one with ripple of the tune."""

    spill: Spill
    start: Start
    interruption: Interruption
    response: Response


def study(setting: Setting, tune_ripple: float = 2e-5) -> Study:
    """Track all four; some 6e9 particle-turns for 6,000 particles and 60,000 turns."""
    return Study(
        run_spill(setting),
        start_response(setting, START_BIN_S, setting.turns // 20),
        interrupt(setting, default_stops(setting)),
        ripple_response(setting, RIPPLE_HZ, tune_ripple, setting.turns // 2, RIPPLE_SEEDS),
    )


def _known(value: float) -> float | None:
    """None for what could not be said: JSON has no NaN."""
    return value if np.isfinite(value) else None


def figures(found: Study) -> dict[str, Any]:
    """Numbers and arrays; the suffix of a key is its unit, `_rel` a ratio."""
    spill, pause, ripple = found.spill, found.interruption, found.response
    setting = spill.setting
    time_s, rate = spill.rate(RATE_BIN_S)
    transit_s, density = transit_distribution(spill)
    known = spill.transit_s[np.isfinite(spill.transit_s)]
    return {
        "schema": "ionctl.spill-study/1",
        "ring": setting.optics.name,
        "drive": setting.optics.drive.model_dump(),
        "f_rev_hz": setting.f_rev_hz,
        "particles": setting.particles,
        "turns": setting.turns,
        "seed": setting.seed,
        "counts": spill.counts,
        "efficiency": _known(spill.efficiency()),
        "spill": {"time_s": time_s.tolist(), "rate_share_per_s": rate.tolist()},
        "transit": {
            "time_s": transit_s.tolist(),
            "density_per_s": density.tolist(),
            "quantiles_s": {str(q): float(np.quantile(known, q)) for q in (0.05, 0.5, 0.95)},
            "never_seen_inside": int(spill.transit_s.size - known.size),
        },
        "start": {
            "time_s": found.start.time_s.tolist(),
            "rate_rel": found.start.rate_rel.tolist(),
            "overshoot_rel": _known(found.start.overshoot_rel),
            "overshoot_error": _known(found.start.overshoot_error),
            "delay_s": _known(found.start.delay_s),
        },
        "stop": {
            "time_s": pause.time_s.tolist(),
            "rate_rel": pause.tail_rel.tolist(),
            "ions_after_stop_s": pause.tail_s,
            "left_s": {str(q): t for q, t in pause.left_s.items()},
        },
        "restart": {
            "time_s": pause.restart_time_s.tolist(),
            "rate_rel": pause.restart_rel.tolist(),
            "overshoot_rel": _known(pause.overshoot_rel),
            "overshoot_error": _known(pause.overshoot_error),
            "delay_s": _known(pause.delay_s),
        },
        "ripple": {
            "frequency_hz": ripple.frequency_hz.tolist(),
            "tune_amplitude": ripple.tune_amplitude.tolist(),
            "modulation_rel": ripple.modulation_rel.tolist(),
            "gain_per_tune": ripple.gain.tolist(),
            "phase_rad": ripple.phase_rad.tolist(),
            "floor_rel": _known(ripple.floor_rel),
        },
    }


def comparison_figures(found: Comparison) -> dict[str, Any]:
    """Tracking against theory as plain data."""
    return {
        "schema": "ionctl.separatrix/1",
        "tune_distance": found.distance,
        "area_m_rad": found.area,
        "area_theory_m_rad": found.area_theory,
        "area_error_rel": found.area_error,
        "corner_error_rel": found.corner_error,
        "corners_sqrt_m": [[z.real, z.imag] for z in found.corners],
        "corners_theory_sqrt_m": [[z.real, z.imag] for z in found.corners_theory],
        "step_from_mm": found.start_mm.tolist(),
        "step_mm": found.step_mm.tolist(),
        "step_theory_mm": found.step_theory_mm.tolist(),
        "step_error_rel": _known(found.step_error),
    }
