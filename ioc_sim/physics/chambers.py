"""Integral ionisation chambers, and the strip chamber.

Charge of a tick: half of what the ions free is induced by electrons at once (1 us), half by positive ions that drift
across the gap; uniform ionisation in a parallel-plate gap gives an ion current that falls linearly over the drift time
T = gap^2 / (mobility * voltage).  Sums over the drift are exact integers, so nothing is lost or invented.
"""

from __future__ import annotations

import math

import numpy as np

from facility import signals as g
from facility.external import SLOT, VOLTAGES
from facility.jit import Record, kernel
from facility.rng import bell, draw
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.faults import faulted
from ioc_sim.layout import DRIFT_RING, E_Q1_FC, E_Q2_FC, E_QB_FC, E_TRUE1, E_TRUE2, E_TRUEB
from ioc_sim.physics.strip_profile import PER_ION

KTP_1 = at.SLOW + g.IC1_KTP - g.FIRST_SLOW
"""In the state: correction of chamber 1 that its gas needs, over that of the room's air; chamber 2's follows."""
FIRST_VOLTAGE = SLOT[VOLTAGES[0]]
PA_FC_PER_TICK = 0.01
"""1 pA over a tick of 10 us, fC."""
STREAM_STRIP = 24
RECOMBINATION_SIGMA_MM = 1.7
"""Spot that ``recombination_rel_at_1e9`` is given for: carbon of 400 MeV/u."""
SIGMA_PER_ION = 0.2
"""Relative spread of the charge that one ion frees in the gap (straggling); its square adds up over the ions of a tick,
and all of it is in their own tick's charge, none in what drifts in later."""


@kernel
def free_charge(q: np.ndarray, s: Record, v: np.ndarray, etab: np.ndarray) -> None:
    """Charge that an ion of the energy in the ring frees in either chamber and in the backup counter, fC.

    Chambers are open to the air of the room, each with what warms or thins its own gas besides; the counter is sealed.
    """
    density = q[at.AIR_DENSITY]
    v[at.IC_FC_PER_ION] = etab[s.ring_code, E_Q1_FC] * etab[s.ring_code, E_TRUE1] * density / v[KTP_1]
    v[at.IC_FC_PER_ION + 1] = etab[s.ring_code, E_Q2_FC] * etab[s.ring_code, E_TRUE2] * density / v[KTP_1 + 1]
    v[at.BACKUP_FC_PER_ION] = etab[s.ring_code, E_QB_FC] * etab[s.ring_code, E_TRUEB]


@kernel
def recombination(q: np.ndarray, v: np.ndarray, k: int) -> None:
    """General recombination of chamber ``k``: as charge over the spot's area and the square of the voltage."""
    v[at.IC_LOSS + k] = q[at.IC_RECOMBINATION + k] * v[at.IC_LOSS_VOLT + k] * v[at.IC_LOSS_SPOT]


@kernel
def spot_constants(p: Record, q: np.ndarray, v: np.ndarray, sigma_mm: float) -> None:
    """What a spot of this size does in the chambers: density of its charge, and how well strips find its centre."""
    over = RECOMBINATION_SIGMA_MM / sigma_mm
    v[at.IC_LOSS_SPOT] = over * over
    recombination(q, v, 0)
    recombination(q, v, 1)
    share = p.strip_coefficient * p.strip_coefficient
    noise = p.strip_noise_fc / v[at.IC_FC_PER_ION + 1]
    v[at.STRIP_COUNTING] = share * PER_ION * (sigma_mm * sigma_mm + p.strip_pitch_mm * p.strip_pitch_mm / 12.0)
    cube = sigma_mm * sigma_mm * sigma_mm
    v[at.STRIP_ELECTRONICS] = noise * noise * 4.0 * math.sqrt(math.pi) * cube / p.strip_pitch_mm


@kernel
def drift_ticks(p: Record, q: np.ndarray, k: int, volt: float) -> int:
    """Ion drift time in ticks at ``volt``, at least 1, at most the length of the ring."""
    if not volt > 1.0:
        return DRIFT_RING - 1
    ticks = math.floor(q[at.IC_DRIFT_VOLT_TICKS + k] / volt + 0.5)
    if ticks < 1:
        return 1
    return ticks if ticks < DRIFT_RING - 1 else DRIFT_RING - 1


@kernel
def voltage_changed(p: Record, q: np.ndarray, s: Record, v: np.ndarray, k: int, volt: float) -> None:
    """Rebuild the running sums of chamber ``k`` for the drift time at ``volt``."""
    v[at.IC_VOLT + k] = volt
    ticks = drift_ticks(p, q, k, volt)
    box = 0.0
    ramp = 0.0
    for j in range(ticks):
        n = v[at.IC_RING + at.DRIFT_RING * k + ((s.ring_pos - 1 - j) & (DRIFT_RING - 1))]
        box += n
        ramp += (ticks - j) * n
    v[at.IC_BOX + k] = box
    v[at.IC_RAMP + k] = ramp
    v[at.IC_DRIFT + k] = ticks
    v[at.IC_RAMP_SHARE + k] = 1.0 / (ticks * (ticks + 1.0))
    v[at.IC_VOLT_REL + k] = volt / q[at.IC_VOLT_SET + k]
    # collection: 1 - (V0/V)^2 * loss, small at the set voltage (general recombination goes with 1/V^2)
    ratio = q[at.IC_VOLT_NOMINAL + k] / volt if volt > 1.0 else 1e3
    v[at.IC_LOSS_VOLT + k] = ratio * ratio
    recombination(q, v, k)
    loss = 0.002 * ratio * ratio
    v[at.IC_EFFICIENCY + k] = (1.0 - loss) / (1.0 - 0.002) if loss < 1.0 else 0.0


@kernel
def chamber_tick(
    p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, k: int, ions: float, i: int
) -> None:
    """Collect the charge of one tick, ``i`` of its millisecond, in chamber ``k`` and turn it into counts."""
    volt = faulted(s, faults, fp.IC1_HV + k, v[at.IC_VOLT_SUPPLY + k], s.t_ns)
    if volt != v[at.IC_VOLT + k]:
        voltage_changed(p, q, s, v, k, volt)
    ticks = v[at.IC_DRIFT + k]
    pos = s.ring_pos
    oldest = v[at.IC_RING + at.DRIFT_RING * k + ((pos - int(ticks)) & (DRIFT_RING - 1))]
    v[at.IC_RAMP + k] = v[at.IC_RAMP + k] - v[at.IC_BOX + k] + ticks * ions
    v[at.IC_BOX + k] += ions - oldest
    v[at.IC_RING + at.DRIFT_RING * k + (pos)] = ions
    seen = 0.5 * ions + v[at.IC_RAMP + k] * v[at.IC_RAMP_SHARE + k]
    loss = v[at.IC_LOSS + k] * v[at.IC_FC_PER_ION + k] * seen
    charge = v[at.IC_FC_PER_ION + k] * v[at.IC_EFFICIENCY + k] * seen * (1.0 - loss)
    noise = v[at.NOISE_IC + at.NOISE_BLOCK * k + i]
    spread = SIGMA_PER_ION * s.ion_root * v[at.IC_FC_PER_ION + k]
    gain = faulted(s, faults, fp.IC1_GAIN + k, q[at.IC_GAIN + k], s.t_ns)
    leak = q[at.IC_LEAK_FC_PER_TICK + k]
    if s.faults != 0:
        leak += faulted(s, faults, fp.IC1_LEAKAGE + k, 0.0, s.t_ns) * PA_FC_PER_TICK
    total = (charge + spread * noise) * gain + leak
    total = total if total == total else 0.0
    # the amplifier's noise is in the reading, not in the charge: it does not add up; the counter never falls
    reading = v[at.IC_CHARGE_FC + k] + q[at.IC_NOISE_FC + k] * noise + total
    v[at.IC_CHARGE_FC + k] += total
    counts = np.floor(reading * q[at.IC_COUNTS_PER_FC + k])
    if counts > v[at.IC_COUNTS + k]:
        v[at.IC_COUNTS + k] = counts


@kernel
def chamber_idle(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray, k: int, ticks: int) -> None:
    """Chamber ``k`` over ``ticks`` ticks without any beam: leakage only, the drift has emptied."""
    volt = v[at.IC_VOLT_SUPPLY + k]
    if q[at.EXT_AGE_NS + FIRST_VOLTAGE + k] == 0.0:  # an external supply follows its test by itself
        volt *= v[at.IC_VOLT_TEST + k]
    volt = faulted(s, faults, fp.IC1_HV + k, volt, s.t_ns)
    if volt != v[at.IC_VOLT + k]:
        voltage_changed(p, q, s, v, k, volt)
    leak = q[at.IC_LEAK_FC_PER_TICK + k] + faulted(s, faults, fp.IC1_LEAKAGE + k, 0.0, s.t_ns) * PA_FC_PER_TICK
    v[at.IC_CHARGE_FC + k] += leak * ticks if leak == leak else 0.0
    v[at.IC_COUNTS + k] = max(v[at.IC_COUNTS + k], math.floor(v[at.IC_CHARGE_FC + k] * q[at.IC_COUNTS_PER_FC + k]))


@kernel
def read_counts(s: Record, v: np.ndarray, faults: np.ndarray, k: int) -> float:
    """The cumulative register as the electronics give it (a failed one may be stuck, dead or not-a-number)."""
    return faulted(s, faults, fp.IC1_COUNTS + k, v[at.IC_COUNTS + k], s.t_ns)


@kernel
def strip_spread(p: Record, q: np.ndarray, axis: int, at_chamber_mm: float) -> float:
    """Share by which dead strips widen the variance of a centroid that lies here; 1 where all are alive."""
    if not abs(at_chamber_mm) < 1e4:
        return 1.0
    k = int(at_chamber_mm / p.strip_pitch_mm + 0.5 * p.strips)
    k = min(p.strips - 1, max(0, k))
    return q[at.STRIP_SPREAD + at.MOST_STRIPS * axis + k]


@kernel
def strip_window(p: Record, q: np.ndarray, s: Record, v: np.ndarray, faults: np.ndarray) -> int:
    """Close a window of the strip chamber: centroid at isocentre as a fit to strips has it, or an invalid window.

    Windows on one spot that have brought too few ions for a centroid to be judged by (`strip_min_ions`, and what a fit
    says of its own uncertainty, `strip_max_mm2`) are added up, `strip_most_ticks` in all. Invalid: still too few then,
    or beam was not on one spot all the time. 1 if it was closed, 0 if it goes on.
    """
    valid = 0
    if s.strip_clean == 1:
        if s.strip_n >= p.strip_min_ions:
            each = 1.0 / s.strip_n
            electronics = v[at.STRIP_ELECTRONICS] * (s.strip_ticks / p.strip_window_ticks)
            fitted = (v[at.STRIP_COUNTING] + electronics * each) * each
            fixed = p.strip_noise_mm * p.strip_noise_mm
            x = s.strip_x * each * q[at.STRIP_RATIO]
            y = s.strip_y * each * q[at.STRIP_RATIO + 1]
            variance_x = fixed + fitted * strip_spread(p, q, 0, x)
            variance_y = fixed + fitted * strip_spread(p, q, 1, y)
            if variance_x <= p.strip_max_mm2 and variance_y <= p.strip_max_mm2:
                x += math.sqrt(variance_x) * bell(draw(p.seed, STREAM_STRIP, s.tick))
                y += math.sqrt(variance_y) * bell(draw(p.seed, STREAM_STRIP + 1, s.tick))
                v[at.STRIP_MM] = faulted(s, faults, fp.STRIP_X, x / q[at.STRIP_RATIO], s.t_ns)
                v[at.STRIP_MM + 1] = faulted(s, faults, fp.STRIP_Y, y / q[at.STRIP_RATIO + 1], s.t_ns)
                valid = 1
        if valid == 0 and s.strip_ticks < p.strip_most_ticks:
            return 0
    s.strip_seq += 1
    s.strip_valid = valid
    s.strip_n = 0.0
    s.strip_x = 0.0
    s.strip_y = 0.0
    s.strip_ticks = 0
    s.strip_clean = 1
    return 1
