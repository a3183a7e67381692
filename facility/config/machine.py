"""Models of the accelerator: species, ring, extraction, beam-off devices, quality of the beam."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from facility.config.base import Fraction, NonNegative, Pair, Positive, Section, SmallRelative, Text


class FacilityInfo(Section):
    """Who this facility is. `pv_prefix` opens every PV name."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}$")]
    name: Text
    description: Text
    pv_prefix: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{1,5}$")]


class Species(Section):
    """An ion species as this machine accelerates it.

    Energies are kinetic, per nucleon. `mass_u` is the bare ion. `fill_ions` is the mean number stored in
    the ring after capture (`fill_jitter_rel`: one sigma from cycle to cycle); `transmission` is the share
    of the ions leaving the circulating beam that crosses the isocentre plane, so that a fill gives
    `fill_ions` x `transmission` at most. `mu_reference_fc` is the charge freed in the first chamber that
    is called one monitor unit. Intensity levels are ions per second at the isocentre.
    """

    mass_number: Annotated[int, Field(ge=1, le=40)]
    charge: Annotated[int, Field(ge=1, le=20)]
    mass_u: Positive
    energy_min_mev_u: Annotated[float, Field(ge=10.0, le=500.0)]
    energy_max_mev_u: Annotated[float, Field(ge=10.0, le=500.0)]
    range_step_mm: Annotated[float, Field(ge=1.0, le=2.0)]
    fill_ions: Positive
    fill_jitter_rel: SmallRelative
    transmission: Fraction
    mu_reference_fc: Positive
    intensity_levels_ions_per_s: Annotated[tuple[Positive, ...], Field(min_length=8)]
    spot_sigma: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=2)]


class RingPhases(Section):
    """Durations of the machine cycle, facility time.

    The ramp takes |B(flat top) - B(injection)| / `ramp_t_per_s`. `energy_step_ms` is the time from one
    flat-top energy to the next lower one within a cycle; it matters where `energies_per_flat_top` > 1.
    """

    injection_ms: Positive
    capture_ms: Positive
    ramp_t_per_s: Positive
    stabilise_ms: Positive
    resonance_ms: Positive
    flat_top_max_ms: Positive
    energy_step_ms: Positive
    dump_ms: Positive
    ramp_down_ms: Positive
    standardise_ms: Positive


class Ring(Section):
    """The synchrotron.

    Stripping injection goes on for `injection_lifetimes` times the time in which the foil would lose what is stored;
    `capture_loss_rel` is what does not fit into the bucket, `energy_step_loss_rel` what a step to the next energy
    within a flat top loses.
    """

    circumference_m: Positive
    bending_radius_m: Positive
    injection_energy_mev_u: Positive
    extraction: Literal["rfko", "betatron"]
    energies_per_flat_top: Annotated[int, Field(ge=1, le=64)]
    energy_step_loss_rel: SmallRelative
    injection_lifetimes: Annotated[float, Field(gt=0.0, le=10.0)]
    capture_loss_rel: Annotated[float, Field(ge=0.0, lt=1.0)]
    phases: RingPhases


class Extraction(Section):
    """Structure of the slow-extracted spill, intensity loop closed.

    - `tail`: what safety and landing reckon with after the drive has stopped, a sum of fraction x exp(-t / tau_us);
      it ends no sooner than the plant's own tail, which is that of the facility's spill table.
    - noise: relative, Gaussian, first-order correlated (`duty_noise_tau_us`), rms of the 10 us rate. `duty_noise_rms`
      is what safety and trials reckon with; the plant's is `exciter_noise_rms` and, by the calibrated response,
      `converter_noise` of the supplies: rms over the current, 1 / f behind magnets and chamber of that time constant.
    - `supply_ripple`: (Hz, amplitude over the current) of the quadrupoles' supplies; `tune_per_supply` is dQ over that.
      What it does to the rate is calibrated (spill table). `channelling`: a core's ions cross the resonance so many
      times faster (empty bucket), ripple does as much less; 1 is none.
    - `ripple_lines`: (Hz, relative amplitude) of the rate that safety and trials reckon with, the loop closed; the
      plant stays within them.
    - `loop_bandwidth_hz`: of the intensity loop, where its gain is 1; 0: no loop. `feed_forward`: share of the mains
      lines that the loop knows of before it has seen any.
    - `exciter_lead`: the exciter's generator knows the calibrated response and sets its amplitude so that the rate
      asked for comes (`ioc_sim.physics.drive_answer`); without, the amplitude is the root of what is asked for.
    - `start_overshoot_rel` decays with `start_overshoot_tau_ms` at each spill start.
    """

    tail: Annotated[tuple[tuple[Fraction, Positive], ...], Field(min_length=1, max_length=4)]
    duty_noise_rms: Annotated[float, Field(ge=0.0, le=0.8)]
    exciter_noise_rms: Annotated[float, Field(ge=0.0, le=0.8)]
    converter_noise: Annotated[float, Field(ge=0.0, le=1e-5)]
    duty_noise_tau_us: Positive
    ripple_lines: tuple[tuple[Positive, Annotated[float, Field(ge=0.0, lt=1.0)]], ...]
    supply_ripple: Annotated[tuple[tuple[Positive, Annotated[float, Field(ge=0.0, le=1e-4)]], ...], Field(max_length=8)]
    tune_per_supply: Positive
    channelling: Annotated[float, Field(ge=1.0, le=1000.0)]
    loop_bandwidth_hz: Annotated[float, Field(ge=0.0, le=500.0)]
    feed_forward: Annotated[float, Field(ge=0.0, le=1.0)]
    exciter_lead: bool = True
    start_overshoot_rel: Annotated[float, Field(ge=0.0, le=2.0)]
    start_overshoot_tau_ms: Positive

    def tail_us(self, share: float = 0.001) -> float:
        """How long the rate takes to fall to `share` of itself after the drive has stopped, us."""
        from math import exp

        low, high = 0.0, 1e6
        for _ in range(60):
            middle = 0.5 * (low + high)
            left = sum(part * exp(-middle / tau) for part, tau in self.tail)
            low, high = (middle, high) if left > share else (low, middle)
        return high

    def expected_duty_factor(self, bin_s: float = 1e-4) -> float:
        """Duty factor <I>^2 / <I^2> in bins of `bin_s` that noise and lines give, without Poisson noise."""
        from math import exp, pi, sin

        ratio = bin_s / (self.duty_noise_tau_us * 1e-6)
        variance = self.duty_noise_rms**2 * 2.0 * (ratio - 1.0 + exp(-ratio)) / ratio**2
        for hz, amplitude in self.ripple_lines:
            angle = pi * hz * bin_s
            variance += 0.5 * (amplitude * sin(angle) / angle) ** 2
        return 1.0 / (1.0 + variance)


class BeamOffDevice(Section):
    """One way to take the beam away: dead time `delay_us`, then a linear fall to zero within `fall_us`.

    `present = false`: the facility has no such device, its figures are ignored.
    """

    present: bool
    delay_us: NonNegative
    fall_us: NonNegative
    note: Text


class BeamOff(Section):
    """All beam-off devices. `spill_gate` is the one that gates spots and layers in normal delivery."""

    spill_gate: Literal["rfko", "chopper"]
    rfko: BeamOffDevice
    fast_quad: BeamOffDevice
    chopper: BeamOffDevice
    ring_dump: BeamOffDevice
    source_inhibit: BeamOffDevice
    stopper: BeamOffDevice


class BeamQuality(Section):
    """First-order errors of the beam upstream of the scanning magnets, mm at the isocentre, (x, y).

    `upstream_offset_mm` is constant, `upstream_jitter_mm` is one sigma redrawn at every spill start,
    `spill_drift_mm` is the motion from the first to the last moment of a full flat top.
    """

    upstream_offset_mm: Pair
    upstream_jitter_mm: NonNegative
    spill_drift_mm: Pair
