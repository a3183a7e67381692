"""The spill as a rate: what a few calibrated numbers say of transit, stop, restart and ripple.

Times are in turns of the ring, for in turns one energy is like another; `drive` is the exciter's amplitude or the
core's voltage over that of the ring's file.

- **Transit**: a dead time and a row of equal first-order lags (Erlang). The mean goes with the logarithm of the drive,
  because an ion that is pushed out of the triangle by little grows exponentially along the arm. With an exciter it is
  the same number of turns at every energy; ions that a core carries leave a triangle of the size of the beam, which
  shrinks as the momentum grows: the times go with a power of it.
- **Share**: of the stored ions that leave in a turn: the square of an exciter's amplitude (diffusion), or the core's
  voltage.
- **Ripple with an exciter.** The tune's moves the triangle's side through the beam: where ions diffuse to the side the
  flux follows the root of i omega (the layer that answers is sqrt(D / omega) thick). The exciter's makes ions diffuse
  faster (its square) and leave the layer at the side faster (its amplitude): 1 at once, 2 when the layer has followed,
  and the layer is one of diffusion, so that it is a root that leads from one to the other.
- **Ripple with a core.** Speeds of ions and side add up, so that ripple of the tune gives i omega over the speed. The
  core's own is ripple of the same tune, its integral. What arrives of either is late by what the ion needs
  (`core_transit`).
- **A first start** (`first_start`): an exciter has to fill the edge of the beam, and the rate is low until it has.
- Ions on their way feel ripple too, so that its delay is not that of a stop; it grows with the drive's logarithm as
  that one does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ioc_sim.extraction.core_transit import core_answer, late_turns, parts_of
from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray

RIPPLE_LAGS = 3
POWER = {"rfko": 2.0, "betatron": 1.0}
"""Share per turn goes with this power of the drive."""
RISE = {"rfko": 0.5, "betatron": 1.0}
"""Response to ripple of the tune goes with this power of i omega."""


@dataclass(frozen=True)
class Transit:
    """Turns: dead time, then `stages` first-order lags of `stage_turns` each."""

    dead_turns: float
    stage_turns: float
    stages: int

    @property
    def mean_turns(self) -> float:
        """Ions still to come after a stop, as turns of the rate before it."""
        return self.dead_turns + self.stages * self.stage_turns

    def survival(self, turns: FloatArray) -> FloatArray:
        """Rate after a stop over the rate before."""
        x = np.maximum(np.asarray(turns, np.float64) - self.dead_turns, 0.0) / self.stage_turns
        total = sum(x**k / math.factorial(k) for k in range(self.stages))
        return np.asarray(np.exp(-x) * total, np.float64)

    def response(self, per_turn: FloatArray) -> ComplexArray:
        """Transfer function at frequencies per turn."""
        omega = 2.0 * np.pi * np.asarray(per_turn, np.float64)
        return np.asarray(np.exp(-1j * omega * self.dead_turns) / (1.0 + 1j * omega * self.stage_turns) ** self.stages)

    def left_turns(self, share: float) -> float:
        """When the ions still to come have fallen to this share of all that came after the stop."""
        grid = np.linspace(0.0, self.dead_turns + 40.0 * self.stage_turns, 20_001)
        alive = self.survival(grid)
        left = 1.0 - np.concatenate([[0.0], np.cumsum(0.5 * (alive[1:] + alive[:-1]))]) / np.sum(
            0.5 * (alive[1:] + alive[:-1])
        )
        return float(np.interp(-share, -left, grid))


@dataclass(frozen=True)
class RateModel:
    """Calibrated numbers of one ring.

    Attributes:
        kind: "rfko" or "betatron".
        share_per_turn: of the stored ions, at full drive.
        mean_turns, mean_per_log: mean transit at full drive, and what it loses when the drive grows by e.
        spread_turns: its standard deviation.
        momentum_power: all times of a stop go with this power of beta gamma.
        stages: lags behind the dead time.
        ripple_gain: modulation per dQ at full drive is this times (omega in rad per turn) to the power of the model.
        ripple_delay_turns, ripple_lag_turns: of the response to ripple of the tune at full drive: delay, and each of
            its lags. With a core: delay of an ion of the rms amplitude where beta gamma is 1, and the sum of its lags.
        drive_delay_turns, drive_lag_turns: of the response to ripple of the drive, as above; an exciter's has one lag.
        drive_edge_turns: in which the layer at the triangle's side follows an exciter.
        ripple_per_log: what those delays lose when the drive grows by e.
        stack_step: as `core_transit.stack_step`.
        restart_rel: rate once the transit has filled again after a stop, over that of a spill without a stop.
        rough_short, rough_long: relative variance of the rate of an open loop in bins of `measure.WINDOWS` turns.
        fill_share: of the ions, gone when the full drive has filled the edge of the beam before a first start.
        edge_share: of the ions, in which an exciter's edge fills; 0: the rate goes by a core's stack from the first on.
    """

    kind: str
    share_per_turn: float
    mean_turns: float
    mean_per_log: float
    spread_turns: float
    momentum_power: float
    stages: int
    ripple_gain: float
    ripple_delay_turns: float
    ripple_lag_turns: float
    drive_delay_turns: float
    drive_lag_turns: float
    drive_edge_turns: float
    ripple_per_log: float
    stack_step: float
    restart_rel: float
    rough_short: float
    rough_long: float
    fill_share: float
    edge_share: float

    def edge_level(self, out: float) -> float:
        """Rate over ions and drive once this share of the ions has left, over that of an edge that is full."""
        return 1.0 - math.exp(-out / self.edge_share) if self.edge_share > 0.0 else 1.0

    def drive_for(self, share_per_turn: float) -> float:
        """Drive that extracts this share of the stored ions in a turn."""
        return float((share_per_turn / self.share_per_turn) ** (1.0 / POWER[self.kind]))

    def stretch(self, beta_gamma: float) -> float:
        """What all times are multiplied with at a momentum (over the rest mass)."""
        return float(beta_gamma**self.momentum_power)

    def transit(self, drive: float, beta_gamma: float) -> Transit:
        """Transit at a drive and momentum; no dead time is shorter than none."""
        scale = self.stretch(beta_gamma)
        mean = scale * (self.mean_turns - self.mean_per_log * math.log(drive))
        stage = min(scale * self.spread_turns / math.sqrt(self.stages), mean / self.stages)
        return Transit(mean - self.stages * stage, stage, self.stages)

    @property
    def rise(self) -> float:
        """Response to ripple of the tune goes with this power of frequency, before transit."""
        return RISE[self.kind]

    def ripple(
        self, per_turn: FloatArray, drive: float, beta_gamma: float, stack: tuple[float, float] | None = None
    ) -> ComplexArray:  # fmt: skip
        """Relative modulation of the rate per dQ; negative at rest, for a larger triangle keeps ions.

        `stack`: way of a core that it is the mean of (`core_transit.parts_of`); None: the middle of the spill.
        """
        if self.kind == "betatron":
            arrives = self._core(per_turn, self.ripple_delay_turns, self.ripple_lag_turns, drive, beta_gamma, stack)
            return np.asarray(-2j * np.pi * np.asarray(per_turn) * arrives * (self.ripple_gain / drive))
        delay = self._delay(self.ripple_delay_turns, drive)
        return np.asarray(ripple_shape(per_turn, delay, self.ripple_lag_turns) * (self.ripple_gain / drive))

    def _core(
        self, per_turn: FloatArray, delay: float, lag: float, drive: float, beta_gamma: float,
        stack: tuple[float, float] | None,
    ) -> ComplexArray:  # fmt: skip
        late, y = late_turns(delay, self.ripple_per_log, drive, beta_gamma)
        return core_answer(per_turn, late, lag * y, parts_of(self.stack_step / math.sqrt(beta_gamma), stack))

    def _delay(self, at_full_drive: float, drive: float) -> float:
        """Turns at a drive, of an exciter."""
        return max(0.0, at_full_drive - self.ripple_per_log * math.log(drive))

    def converter_rms(self, f_rev_hz: float, beta_gamma: float, lag_s: float, drive: float) -> float:
        """Relative rms of the rate over the rms of the tune, by noise of power converters.

        Its spectrum is 1 / f from 1 Hz on, behind the lag of magnets and vacuum chamber.
        """
        hz = np.geomspace(1.0, 1e5, 2001)
        power = 1.0 / (1.0 + (2.0 * np.pi * hz * lag_s) ** 2)  # of equal steps of the logarithm
        answer = np.abs(self.ripple(hz / f_rev_hz, drive, beta_gamma)) ** 2
        return math.sqrt(float(np.sum(power * answer) / np.sum(power)))

    def drive_ripple(
        self, per_turn: FloatArray, drive: float, beta_gamma: float, stack: tuple[float, float] | None = None
    ) -> ComplexArray:  # fmt: skip
        """Relative modulation of the rate per relative modulation of the drive; `stack`: as `ripple`."""
        if self.kind == "betatron":
            return self._core(per_turn, self.drive_delay_turns, self.drive_lag_turns, drive, beta_gamma, stack)
        return drive_shape(per_turn, self._delay(self.drive_delay_turns, drive), self.drive_lag_turns,
                           self.drive_edge_turns)  # fmt: skip


def ripple_shape(per_turn: FloatArray, delay_turns: FloatArray | float, lag_turns: FloatArray | float) -> ComplexArray:
    """Response of an exciter's spill to ripple of the tune, but for its gain."""
    omega = 2.0 * np.pi * np.asarray(per_turn, np.float64)
    lags = (1.0 + 1j * omega * lag_turns) ** RIPPLE_LAGS
    return np.asarray(-((1j * omega) ** RISE["rfko"]) * np.exp(-1j * omega * delay_turns) / lags)


def drive_shape(
    per_turn: FloatArray, delay_turns: FloatArray | float, lag_turns: FloatArray | float,
    edge_turns: FloatArray | float,
) -> ComplexArray:  # fmt: skip
    """Response of an exciter's spill to ripple of its amplitude."""
    omega = 2.0 * np.pi * np.asarray(per_turn, np.float64)
    edge = 1.0 + 1.0 / (1.0 + np.sqrt(1j * omega * edge_turns))
    return np.asarray(edge * np.exp(-1j * omega * delay_turns) / (1.0 + 1j * omega * lag_turns))
