"""Integral ionisation chambers, and the strip chamber.

Charge of a tick: half of what the ions free is induced by electrons at once (1 us), half by positive ions that drift
across the gap; uniform ionisation in a parallel-plate gap gives an ion current that falls linearly over the drift time
T = gap^2 / (mobility * voltage).  Sums over the drift are exact integers, so nothing is lost or invented.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import kernel
from facility.rng import bell, draw
from ioc_sim import faults as fp
from ioc_sim.faults import faulted
from ioc_sim.layout import DRIFT_RING

STREAM_IC = 20
STREAM_STRIP = 24
SIGMA_PER_ION = 0.2
"""Relative spread of the charge that one ion frees in the gap (straggling); its square adds up over ions."""


@kernel
def drift_ticks(p: np.record, k: int, volt: float) -> int:
    """Ion drift time in ticks at ``volt``, at least 1, at most the length of the ring."""
    if not volt > 1.0:
        return DRIFT_RING - 1
    ticks = math.floor(p.ic_drift_volt_ticks[k] / volt + 0.5)
    if ticks < 1:
        return 1
    return ticks if ticks < DRIFT_RING - 1 else DRIFT_RING - 1


@kernel
def voltage_changed(p: np.record, s: np.record, k: int, volt: float) -> None:
    """Rebuild the running sums of chamber ``k`` for the drift time at ``volt``."""
    s.ic_volt[k] = volt
    ticks = drift_ticks(p, k, volt)
    box = 0
    ramp = 0
    for j in range(ticks):
        n = s.ic_ring[k, (s.ring_pos - 1 - j) % DRIFT_RING]
        box += n
        ramp += (ticks - j) * n
    s.ic_box[k] = box
    s.ic_ramp[k] = ramp
    s.ic_drift[k] = ticks
    # collection: 1 - (V0/V)^2 * loss, small at the set voltage (general recombination goes with 1/V^2)
    ratio = p.ic_volt_nominal[k] / volt if volt > 1.0 else 1e3
    loss = 0.002 * ratio * ratio
    s.ic_efficiency[k] = (1.0 - loss) / (1.0 - 0.002) if loss < 1.0 else 0.0


@kernel
def chamber_tick(p: np.record, s: np.record, faults: np.record, k: int, ions: int) -> None:
    """Collect the charge of one tick in chamber ``k`` and turn it into counts."""
    volt = faulted(faults, fp.IC1_HV + k, p.ic_volt_set[k], s.t_ns)
    if volt != s.ic_volt[k]:
        voltage_changed(p, s, k, volt)
    ticks = s.ic_drift[k]
    pos = s.ring_pos
    oldest = s.ic_ring[k, (pos - ticks) % DRIFT_RING]
    s.ic_ramp[k] += ticks * ions - s.ic_box[k]
    s.ic_box[k] += ions - oldest
    s.ic_ring[k, pos] = ions
    seen = 0.5 * ions + s.ic_ramp[k] / (ticks * (ticks + 1.0))
    loss = p.ic_recombination[k] * seen * s.ic_fc_per_ion[k]
    charge = seen * s.ic_fc_per_ion[k] * s.ic_efficiency[k] * (1.0 - loss)
    noise = bell(draw(p.seed, STREAM_IC + k, s.tick))
    spread = SIGMA_PER_ION * math.sqrt(seen) * s.ic_fc_per_ion[k]
    gain = faulted(faults, fp.IC1_GAIN + k, p.ic_gain[k], s.t_ns)
    total = (charge + spread * noise) * gain + p.ic_leak_fc_per_tick[k]
    s.ic_charge_fc[k] += total if total == total else 0.0
    # the amplifier's noise is in the reading, not in the charge: it does not add up; the counter never falls
    counts = math.floor((s.ic_charge_fc[k] + p.ic_noise_fc[k] * noise) / p.ic_quantum_fc[k])
    if counts > s.ic_counts[k]:
        s.ic_counts[k] = counts


@kernel
def chamber_idle(p: np.record, s: np.record, faults: np.record, k: int, ticks: int) -> None:
    """Chamber ``k`` over ``ticks`` ticks without any beam: leakage only, the drift has emptied."""
    volt = faulted(faults, fp.IC1_HV + k, p.ic_volt_set[k], s.t_ns)
    if volt != s.ic_volt[k]:
        voltage_changed(p, s, k, volt)
    s.ic_charge_fc[k] += p.ic_leak_fc_per_tick[k] * ticks
    s.ic_counts[k] = max(s.ic_counts[k], math.floor(s.ic_charge_fc[k] / p.ic_quantum_fc[k]))


@kernel
def read_counts(s: np.record, faults: np.record, k: int) -> float:
    """The cumulative register as the electronics give it (a failed one may be stuck, dead or not-a-number)."""
    return faulted(faults, fp.IC1_COUNTS + k, s.ic_counts[k], s.t_ns)


@kernel
def strip_window(p: np.record, s: np.record, faults: np.record, sigma_mm: float) -> None:
    """Close a window of the strip chamber: centroid at isocentre, or an invalid window."""
    s.strip_seq += 1
    s.strip_valid = 0
    if s.strip_clean == 1 and s.strip_n >= p.strip_min_ions:
        sd = math.sqrt(p.strip_noise_mm * p.strip_noise_mm
                       + p.strip_coefficient * p.strip_coefficient * sigma_mm * sigma_mm / s.strip_n)  # fmt: skip
        x = s.strip_x / s.strip_n + sd * bell(draw(p.seed, STREAM_STRIP, s.tick))
        y = s.strip_y / s.strip_n + sd * bell(draw(p.seed, STREAM_STRIP + 1, s.tick))
        s.strip_mm[0] = faulted(faults, fp.STRIP_X, x / p.strip_ratio[0], s.t_ns)
        s.strip_mm[1] = faulted(faults, fp.STRIP_Y, y / p.strip_ratio[1], s.t_ns)
        s.strip_valid = 1
    s.strip_n = 0.0
    s.strip_x = 0.0
    s.strip_y = 0.0
    s.strip_ticks = 0
    s.strip_clean = 1
