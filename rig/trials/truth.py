"""Beam off and surplus dose, recomputed from raw ticks of the plant's truth trace. No monitor and no rule is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dose.curves import depth_dose
from facility.config import Facility
from facility.constants import TICK_NS
from facility.errors import InternalError
from facility.room_constants import room_sigma_mm
from interlocks.explain import MEAN_US, OFF_SHARE
from ioc_sim.plant import Plant

BEFORE_NS = 2_000_000
"""The rate before is the mean of so long."""
GY_PER_MEV_G = 1.602176634e-10
DRIVE_MAX = 3.0
"""The front end's intensity loop drives the extraction at most so far above the level when it measures too little."""
SIGMAS = 5.0
_MEAN_TICKS = round(MEAN_US * 1000.0 / TICK_NS)


@dataclass(frozen=True)
class Ticks:
    """Truth of a stretch: end of each tick (ns), ions in it, flags, spot; shape (n,)."""

    t_ns: npt.NDArray[np.int64]
    ions: npt.NDArray[np.int64]
    flags: npt.NDArray[np.int64]
    spot: npt.NDArray[np.int64]

    def between(self, after_ns: int, to_ns: int) -> Ticks:
        """Ticks that end after one instant and not after another."""
        return self.kept((self.t_ns > after_ns) & (self.t_ns <= to_ns))

    def kept(self, which: npt.NDArray[np.bool_]) -> Ticks:
        """Some of them."""
        return Ticks(self.t_ns[which], self.ions[which], self.flags[which], self.spot[which])


def ticks(plant: Plant, after_ns: int) -> Ticks:
    """Raw ticks since an instant; InternalError if the ring no longer holds them all."""
    count, size = plant.truth_count, len(plant.trace)
    held = plant.trace[np.arange(max(0, count - size), count) % size]
    if count > size and held["t_ns"][0] > after_ns:
        raise InternalError("truth.wrapped", f"the truth ring holds {size} ticks", "rig.trials", "give it more")
    held = held[held["t_ns"] > after_ns]
    fields: list[Any] = [held[name].astype(np.int64) for name in ("t_ns", "ions", "flags", "spot")]
    return Ticks(*fields)


def rate_before(found: Ticks, t_ns: int) -> float:
    """Mean ions a tick over the 2 ms before an instant; 0 without beam."""
    return float(found.between(t_ns - BEFORE_NS, t_ns).ions.sum()) / (BEFORE_NS / TICK_NS)


def beam_off_ns(found: Ticks, cause_ns: int, until_ns: int, per_tick: float) -> int | None:
    """Last instant at which the 50 us mean is above 0.1 % of `per_tick`; None if it never is after the cause.

    Stretches without records had no beam possible: no ions, by construction of the record.
    """
    part = found.between(cause_ns - _MEAN_TICKS * TICK_NS, until_ns)
    if part.t_ns.size == 0:
        return None
    grid = (part.t_ns - part.t_ns[0]) // TICK_NS
    dense = np.zeros(int(grid[-1]) + 1 + _MEAN_TICKS)
    dense[grid] = part.ions
    mean = np.convolve(dense, np.full(_MEAN_TICKS, 1.0 / _MEAN_TICKS))[: len(dense)]
    above = np.flatnonzero(mean > OFF_SHARE * per_tick)
    last = min(until_ns, int(part.t_ns[0]) + int(above[-1]) * TICK_NS) if above.size else cause_ns
    return last if last > cause_ns else None


def peak_mgy_per_ion(facility: Facility, room: str, species: str, energy_mev_u: float) -> float:
    """Dose in water on the axis at the depth of the maximum for each ion of one spot, mGy.

    The depth dose is the engine's (`dose.curves`, with the facility's ripple filter), the width the beam's at the
    isocentre of the room in air; scattering in water would only widen it. With ions of several spots counted as one
    it is an upper bound.
    """
    ion = facility.species_named(species)
    peak = float(depth_dose(energy_mev_u, ion, facility.ripple_filter.sigma_mm).total.max())
    sigma_cm = 0.1 * float(room_sigma_mm(energy_mev_u, ion, facility.room_named(room)))
    return 1e3 * peak * GY_PER_MEV_G / (2.0 * math.pi * sigma_cm**2)


def ions_at_most(duration_us: float, level: float, factor: float, facility: Facility) -> float:
    """Most ions that a spill of this level can bring in a time: ripple at its crest, overshoot, 5 sigma of noise.

    Args:
        duration_us: the time.
        level: ions per second.
        factor: what the cause or the intensity loop multiplies the rate by.
    """
    spill = facility.extraction
    ratio = duration_us / spill.duty_noise_tau_us
    variance = spill.duty_noise_rms**2 * (2.0 * (ratio - 1.0 + math.exp(-ratio)) / ratio**2 if ratio > 0.0 else 1.0)
    crest = sum(_mean_of_crest(amplitude, hz, duration_us) for hz, amplitude in spill.ripple_lines)
    share = 1.0 + spill.start_overshoot_rel + crest + SIGMAS * math.sqrt(variance)
    mean = level * factor * share * duration_us * 1e-6
    return mean + SIGMAS * math.sqrt(mean)


def _mean_of_crest(amplitude: float, hz: float, duration_us: float) -> float:
    """Mean of a sinusoid over a time around its crest."""
    angle = math.pi * hz * duration_us * 1e-6
    return amplitude * abs(math.sin(angle)) / angle if angle > math.pi / 2.0 else amplitude
