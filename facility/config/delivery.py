"""Models of the treatment line: rooms, scanning, monitors, front end, passive elements, gate."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from facility.config.base import NonNegative, Positive, Section, Text
from facility.physics.relativity import ArrayLike, FloatArray

Polarity = Literal[-1, 1]
NearOne = Annotated[float, Field(gt=0.8, lt=1.25)]
ByEnergy = Annotated[tuple[tuple[Positive, NearOne], ...], Field(min_length=1)]
REFERENCE_KPA, REFERENCE_K, ZERO_C_K = 101.325, 293.15, 273.15
"""Conditions that charge per ion and densities of gases are given for."""


class Room(Section):
    """A treatment room.

    Two scanning supplies serve every room: `scanning.x` feeds the upstream magnet, `scanning.y` the one
    downstream of it. In an ordinary room the upstream magnet deflects along x; with `swap_xy` it deflects
    along y, and supply y along x. A positive current deflects towards positive coordinates times the
    polarity of that **axis** (`x_polarity`, `y_polarity`: how the cable is laid). `sad_x_mm`, `sad_y_mm`
    are the distances from the (virtual) source of the deflection along that axis to the isocentre.
    `strip_distance_mm` is how far the strip chamber sits upstream of the isocentre.

    Every room has a nozzle and optics of its own: `spot_scale` is the size of its spots over that of the species'
    table, `monitor_scale` the charge that its chamber 1, its chamber 2 and its backup counter give over that of
    `chambers`, as measured.
    """

    name: Text
    beam_angle_deg: Annotated[tuple[Annotated[float, Field(ge=0.0, lt=360.0)], ...], Field(min_length=1)]
    patient_support_deg: Annotated[float, Field(ge=0.0, lt=360.0)]
    field_half_mm: tuple[Positive, Positive]
    sad_x_mm: Positive
    sad_y_mm: Positive
    strip_distance_mm: Positive
    x_polarity: Polarity
    y_polarity: Polarity
    swap_xy: bool
    air_gap_mm: NonNegative
    spot_scale: Annotated[float, Field(gt=0.5, lt=2.0)]
    monitor_scale: tuple[NearOne, NearOne, NearOne]
    note: Text


class RoomSearch(Section):
    """Last-man-out search of a treatment room, facility time.

    The searcher presses the button at the far end, presses the one at the exit within `press_within_s`, leaves and
    closes the door within `leave_within_s`; after `delay_s` of warning the search is done.
    """

    press_within_s: Positive
    leave_within_s: Positive
    delay_s: Positive


class ScanningAxis(Section):
    """One scanning magnet with its supply: V = L dI/dt + R I within +-`max_voltage_v`, +-`max_current_a`.

    Second-order response of `bandwidth_hz` and `damping`; `noise_a_rms` is real current noise, the other
    noises belong to the read-back and to the independent field probe. Set points and read-back come in whole steps of
    `dac_bits` over +-`max_current_a`. `latency_us`, from the front end to the supply, is in a plan's times alone.

    The field follows the current behind eddy currents of `eddy_tau_us`. It remembers where the current has come from:
    by at most +-`hysteresis_a`, turned round by a current that goes back by `hysteresis_span_a`. The magnets are
    standardised when the ring is.
    """

    max_current_a: Positive
    max_voltage_v: Positive
    inductance_h: Positive
    resistance_ohm: Positive
    tesla_metre_per_a: Positive
    bandwidth_hz: Positive
    damping: Annotated[float, Field(ge=0.3, le=2.0)]
    dac_bits: Annotated[int, Field(ge=10, le=24)]
    eddy_tau_us: Annotated[float, Field(ge=0.0, le=300.0)]
    hysteresis_a: Annotated[float, Field(ge=0.0, le=5.0)]
    hysteresis_span_a: Positive
    noise_a_rms: NonNegative
    readback_noise_a_rms: NonNegative
    probe_noise_a_rms: NonNegative
    latency_us: NonNegative

    def slew_a_per_s(self) -> float:
        """Fastest change of current the supply can drive at zero current, A/s."""
        return self.max_voltage_v / self.inductance_h


class Scanning(Section):
    """Both scanning magnets: `x` upstream, `y` downstream (see `Room` for which axis they move)."""

    x: ScanningAxis
    y: ScanningAxis


class Air(Section):
    """The air of the treatment room, as it is: chambers that are open to it free less charge the thinner it is.

    Nobody but the plant reads this; what the correction is made from are the chambers' own sensors.
    """

    temperature_c: Annotated[float, Field(ge=5.0, le=45.0)]
    pressure_kpa: Annotated[float, Field(ge=60.0, le=110.0)]

    def density_rel(self) -> float:
        """Density over that of the reference conditions, 20 degrees and 101.325 kPa."""
        return self.pressure_kpa / REFERENCE_KPA * REFERENCE_K / (ZERO_C_K + self.temperature_c)


class Response(Section):
    """What a monitor gives, by energy: rows of (MeV/u, charge over the computed one), straight between, even beyond.

    - `calibration`: as measured, with stopping power and W of its gas in it; the energy table holds it.
    - `response_true`: as it is. Nobody but the plant reads this.
    """

    calibration: ByEnergy
    response_true: ByEnergy

    def calibrated(self, energy_mev_u: ArrayLike) -> FloatArray:
        """Factor on the computed charge that control believes in, same shape as the energy."""
        return _between(self.calibration, energy_mev_u)

    def true_over_calibrated(self, energy_mev_u: ArrayLike) -> FloatArray:
        """True charge over the one that control believes in."""
        return np.asarray(_between(self.response_true, energy_mev_u) / self.calibrated(energy_mev_u), dtype=np.float64)


def _between(curve: ByEnergy, energy_mev_u: ArrayLike) -> FloatArray:
    at, factor = np.asarray(curve, dtype=np.float64).T
    return np.asarray(np.interp(np.asarray(energy_mev_u, dtype=np.float64), at, factor), dtype=np.float64)


class Counter(Response):
    """What gas, gap and converter of a monitor are made of.

    `gain_true` is the electronics' real gain relative to what control believes (1.0 unless a fault says otherwise).
    """

    gap_mm: Positive
    gas: Literal["N2", "air"]
    w_ev: Annotated[float, Field(gt=10.0, lt=100.0)]
    density_g_cm3: Annotated[float, Field(gt=0.0, lt=0.01)]
    count_quantum_fc: Positive
    gain_true: Positive


class Chamber(Counter):
    """An integral ionisation chamber, open to the air of the room, and its electronics.

    `density_g_cm3` is that of its gas at reference conditions (`Air`).
    `recombination_rel_at_1e9` is the loss of charge at 1e9 carbon-equivalent charge per
    second (the signal of 1e9 carbon ions a second at 400 MeV/u), linear in the current. Control's
    nominal voltage is `voltage_v`, allowed between `voltage_min_v` and `voltage_max_v`.
    """

    voltage_v: Positive
    voltage_min_v: Positive
    voltage_max_v: Positive
    mobility_cm2_v_s: Positive
    leakage_fc_per_s: NonNegative
    noise_counts_rms: NonNegative
    recombination_rel_at_1e9: Annotated[float, Field(ge=0.0, le=0.1)]
    water_equivalent_mm: NonNegative


class BackupCounter(Counter):
    """The backup counter: a sealed chamber with a supply, a converter and a register of its own.

    The air of the room does not reach its gas: nothing of it is corrected for temperature and pressure.
    """


class Chambers(Section):
    """The two integral chambers and the backup counter: they share nothing but the beam."""

    ic1: Chamber
    ic2: Chamber
    backup: BackupCounter


class Strip(Section):
    """The strip chamber: `strips` of `pitch_mm` in either plane, centroid and width by fit, once per `window_us`.

    Variance of a centroid of N ions: noise_mm^2 + resolution_coefficient^2 x counting / N + electronics / N^2, with
    counting and electronics (`noise_fc_rms` of a strip and window; charge per ion as in chamber 2) as a fit to the
    strips has them (`ioc_sim.physics.strip_profile`); resolution_coefficient 1 is nothing but that. `noise_mm` is what
    unequal strips leave. `dead_x`, `dead_y` are strips that are known to give nothing, counted from 0; the fit leaves
    them out.
    """

    strips: Annotated[int, Field(ge=16, le=256)]
    pitch_mm: Positive
    window_us: Positive
    resolution_coefficient: Positive
    noise_mm: NonNegative
    noise_fc_rms: NonNegative
    dead_x: tuple[Annotated[int, Field(ge=0)], ...]
    dead_y: tuple[Annotated[int, Field(ge=0)], ...]


class FrontEnd(Section):
    """Limits and loops of the delivery front end.

    - `min_spot_ticks`, `min_spot_counts`: the shortest and the smallest spot it holds.
    - `min_percent_share`: so much of a layer's dose is to lie in spots held to 1 % when its intensity level is chosen;
      less allows higher levels, at which a spot is held to two counts and two ticks of the level instead.
    - `beam_off_move_mm`: a longer move between spots is made without beam.
    - `settle_ticks`: the magnet must stay within `position_tolerance_mm` this long before beam.
    - `spot_timeout_factor`: a spot may last this many times its expected time, at least
      `spot_timeout_min_ms`.
    - `position_feedback_gain`: share of the measured centroid error that corrects the next set point,
      at most `position_feedback_max_mm` in all.
    """

    min_spot_ticks: Annotated[int, Field(ge=1, le=10_000)]
    min_spot_counts: Annotated[int, Field(ge=1, le=10_000)]
    min_percent_share: Annotated[float, Field(ge=0.0, le=1.0)]
    max_spots_per_layer: Annotated[int, Field(ge=1, le=100_000)]
    beam_off_move_mm: Positive
    position_feedback_gain: Annotated[float, Field(ge=0.0, le=1.0)]
    position_feedback_max_mm: NonNegative
    position_tolerance_mm: Positive
    settle_ticks: Annotated[int, Field(ge=1, le=1000)]
    spot_timeout_factor: Annotated[float, Field(gt=1.0, le=100.0)]
    spot_timeout_min_ms: Positive


class RangeShifter(Section):
    """A plate in the beam; `id` is what a plan calls it."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")]
    water_equivalent_mm: Positive


class RippleFilter(Section):
    """Widens the Bragg peak by a Gaussian of this sigma along the depth; 0: none installed."""

    sigma_mm: Annotated[float, Field(ge=0.0, le=10.0)]


class Gate(Section):
    """Respiratory gate input: beam allowed while the trace lies within the window, both ends included.

    `trace` is a file of `breathing/` in the configuration folder.
    """

    enabled: bool
    trace: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*\.csv$")]
    window_low_mm: float
    window_high_mm: float
