"""Devices behind somebody else's IOC, as the rack sees them: the last reading of each, how old it is, what it is for.

Readings are handed in from outside (`Plant.external_reading`) with the facility time at which they were taken; all
judgement is here, in the rack's own time.  Nothing outside has to notice that readings have ceased: they grow old.

- The signal ``external.ok`` is 0 from the millisecond on in which any reading is older than its device's limit, not a
  number, or bad by what the device itself says.  The fast rule ``external-device`` takes the beam.
- A bad reading, or a lost connection, counts for `BAD_HOLD_NS` whatever comes after it: readings arrive in batches at
  one tick boundary, and the good one behind a bad one must not hide it.
- The front end starts a spot only after so many readings in its window, one after the other, all taken after the
  device has acknowledged the very set point of the spot.
- An external supply moves by nothing but its readings; the simulated beam goes where the device says that it stands.

Where no device is external all of this is one comparison a millisecond, and none in the tick.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility import signals as g
from facility.config import Facility
from facility.external import LINES, SCANNERS, SLOT, SLOW, VOLTAGES
from facility.jit import Record, kernel
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.faults import faulted

FIRST_VOLTAGE = SLOT[VOLTAGES[0]]
LINE_SLOT = SLOT[LINES]
FIRST_SLOW_SLOT = SLOT[SLOW[0]]
MS_TICKS = 100
NEVER_NS = -1e18
BAD_HOLD_NS = 2_000_000.0
"""A device that was bad stays bad for so long, facility time: ``external.ok`` is judged twice meanwhile."""


def pack_external(p: Any, q: np.ndarray, facility: Facility) -> None:
    """Parameters of the external devices of a facility; those of supplies that are not simulated any more."""
    for name in facility.fitted:
        q[at.EXT_AGE_NS + SLOT[name]] = facility.max_age_us(name) * 1e3
    p.external = len(facility.fitted)
    p.gate_line = int(facility.lines is not None and "gate" in facility.lines.inputs)
    scanners = [facility.external[name] for name in SCANNERS if name in facility.external]
    if scanners:
        p.feedback_gain = 0.0  # one set point a spot: the strip chamber watches, it does not steer
        p.settle_extra_ticks = max(round(device.settle_ms * MS_TICKS) for device in scanners)
        p.ext_readbacks = max(device.readbacks for device in scanners)
    for k, name in enumerate(SCANNERS):
        if name in facility.external:
            for place in (at.SUPPLY_OMEGA2, at.SUPPLY_DAMP, at.SUPPLY_NOISE_A, at.SUPPLY_READ_NOISE_A):
                q[place + k] = 0.0
    waits_ms = [device.settle_ms for name, device in facility.external.items() if name not in SLOW]
    p.ext_proof_ms = round(max(waits_ms, default=0.0))


def initial_external(q: np.ndarray, v: np.ndarray) -> None:
    """No reading of any device yet; chambers at their set voltage."""
    v[at.EXT_T_NS : at.EXT_T_NS + at.N_EXT] = NEVER_NS
    v[at.EXT_BAD_NS : at.EXT_BAD_NS + at.N_EXT] = NEVER_NS
    v[at.EXT_FOR : at.EXT_FOR + 4] = math.nan
    v[at.IC_VOLT_SUPPLY : at.IC_VOLT_SUPPLY + 2] = q[at.IC_VOLT_SET : at.IC_VOLT_SET + 2]


def mark_bad(v: np.ndarray, slot: int, now_ns: int) -> None:
    """Nothing of this device is good for `BAD_HOLD_NS`, and its readings of a set point count from none again."""
    v[at.EXT_GOOD + slot] = 0.0
    v[at.EXT_BAD_NS + slot] = now_ns
    if slot < FIRST_VOLTAGE:
        v[at.EXT_COUNT + slot] = 0.0


def take_reading(
    p: Any, q: np.ndarray, v: np.ndarray, slot: int, reading: tuple[float, float, bool, float], now_ns: int
) -> None:
    """Book a reading: value in the unit of the rack, when it was taken (ns), whether the device calls it good, and the
    set point that the device had acknowledged by then (NaN: none).  ``now_ns``: when it is booked."""
    value, t_ns, good, acknowledged = reading
    v[at.EXT_T_NS + slot] = t_ns
    if not (good and math.isfinite(value)):
        mark_bad(v, slot, now_ns)
    good = good and now_ns - v[at.EXT_BAD_NS + slot] >= BAD_HOLD_NS
    v[at.EXT_GOOD + slot] = 1.0 if good else 0.0
    if not math.isfinite(value):
        return
    v[at.EXT_VALUE + slot] = value
    if slot < FIRST_VOLTAGE:
        v[at.CURRENT_A + slot] = value
        v[at.EXT_FOR + slot] = acknowledged
        off_mm = abs((value - v[at.SET_A + slot]) * v[at.MM_PER_A + slot])
        counts = good and acknowledged == v[at.SET_A + slot] and off_mm <= p.settle_mm
        v[at.EXT_COUNT + slot] = v[at.EXT_COUNT + slot] + 1.0 if counts else 0.0
    elif slot < LINE_SLOT:
        v[at.IC_VOLT_SUPPLY + slot - FIRST_VOLTAGE] = value
        v[at.EXT_FOR + slot] = acknowledged


@kernel
def fresh(q: np.ndarray, s: Record, v: np.ndarray, slot: int) -> bool:
    """The reading in ``slot`` is good and not too old; one from further ahead than it may be old is none."""
    return v[at.EXT_GOOD + slot] == 1.0 and abs(s.t_ns - v[at.EXT_T_NS + slot]) <= q[at.EXT_AGE_NS + slot]


@kernel
def external_ok(q: np.ndarray, s: Record, v: np.ndarray) -> bool:
    """Every external device gives good readings in time."""
    lost = 0
    for slot in range(at.N_EXT):
        if q[at.EXT_AGE_NS + slot] > 0.0 and not fresh(q, s, v, slot):
            lost += 1
    return lost == 0


@kernel
def external_settled(p: Record, q: np.ndarray, s: Record, v: np.ndarray) -> bool:
    """Every external supply has taken the set point of the spot and stands there, by enough readings since."""
    for k in range(2):
        taken = v[at.EXT_FOR + k] == v[at.SET_A + k] and v[at.EXT_COUNT + k] >= p.ext_readbacks
        if q[at.EXT_AGE_NS + k] > 0.0 and not taken:
            return False
    return external_ok(q, s, v)


@kernel
def gate_by_line(q: np.ndarray, s: Record, v: np.ndarray) -> bool:
    """The gate line of the I/O card, closed when nothing has been heard of it in time."""
    return fresh(q, s, v, LINE_SLOT) and v[at.EXT_VALUE + LINE_SLOT] == 1.0


@kernel
def external_slow(q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray) -> None:
    """Signals of slow devices that are external: their readings, not a number where those are bad or too old."""
    for i in range(at.N_EXT - FIRST_SLOW_SLOT):
        slot = FIRST_SLOW_SLOT + i
        if q[at.EXT_AGE_NS + slot] > 0.0:
            value = v[at.EXT_VALUE + slot] if fresh(q, s, v, slot) else math.nan
            sig[g.FIRST_SLOW + i] = faulted(s, faults, fp.FIRST_SLOW + i, value, s.t_ns)
