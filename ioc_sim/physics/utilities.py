"""Slow devices around the beam: supplies, vacuum, cooling, gas, monitors, patient and timing, judged once each 1 ms.

Each is a quantity with the value of a good machine, a first-order lag and noise of its readback.  A fault acts on what
drives the quantity, before the lag: a pump that stops lets the pressure rise, it does not make a gauge lie.  Signal and
fault point have the same name.  Model, named: nothing here acts back on the beam; losses of a good line are background,
to which a source in the monitor adds, so that a good monitor never reads zero and a dead one is seen.
The gas of a chamber acts on its charge (`chambers.free_charge`); what is shown of it is the correction that it needs,
over the one in use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from facility.rng import draw, triangle
from ioc_sim import layout as at
from ioc_sim.codes import FLAT_TOP
from ioc_sim.faults import FIRST_SLOW, faulted
from ioc_sim.layout import E_FREV
from ioc_sim.physics.chambers import free_charge

STREAM_SLOW = 40


class SlowDevice(NamedTuple):
    """One slow quantity; all figures are design defaults of this project."""

    signal: int
    nominal: float
    """Value of a good machine, in the unit of the signal."""
    tau_ms: float = 0.0
    """First-order lag behind what drives it; 0: none."""
    noise: float = 0.0
    """One sigma of the readback, white at 1 ms; its distribution ends at 2.45 sigma."""


DEVICES: tuple[SlowDevice, ...] = (
    SlowDevice(g.RF_FREQUENCY_REL, 1.0, 1.0, 1e-5),
    SlowDevice(g.HEBT_DIPOLE_REL, 1.0, 20.0, 5e-5),
    SlowDevice(g.HEBT_QUAD_REL, 1.0, 20.0, 2e-4),
    SlowDevice(g.SEPTUM_HV_REL, 1.0, 2.0, 1e-3),
    SlowDevice(g.BUMP_CURRENT_REL, 1.0, 2.0, 1e-3),
    SlowDevice(g.IC1_KTP, 1.0, 100.0, 2e-4),
    SlowDevice(g.IC2_KTP, 1.0, 100.0, 2e-4),
    SlowDevice(g.GAS_FLOW_REL, 1.0, 100.0, 0.01),
    SlowDevice(g.COOLING_FLOW_REL, 1.0, 100.0, 0.01),
    SlowDevice(g.COOLING_TEMPERATURE, 25.0, 500.0, 0.1),
    SlowDevice(g.VACUUM_RING, 1e-9, 10.0, 5e-11),
    SlowDevice(g.VACUUM_HEBT, 1e-7, 10.0, 5e-9),
    # monitors of radiation: with or without beam the reading of the background and of the source in the monitor itself
    SlowDevice(g.LOSS_HEBT, 1.0, 10.0, 0.05),
    SlowDevice(g.STRAY_ROOM, 50.0, 10.0, 2.5),
    SlowDevice(g.AREA_DOSE, 0.1, 100.0, 0.005),
    SlowDevice(g.PATIENT_SHIFT, 0.0, 10.0, 0.05),
    SlowDevice(g.PATIENT_ROTATION, 0.0, 10.0, 0.05),
    SlowDevice(g.GATE_DRIFT, 0.0, 0.0, 0.05),
    SlowDevice(g.TIMING_LATE, 0.0, 0.0, 0.5),
    SlowDevice(g.SNOUT_SPEED, 0.0, 10.0, 0.05),
    *(SlowDevice(signal, 1.0) for signal in range(g.UPS_OK, g.RIPPLE_CODE + 1)),
    # of these the good value follows the machine
    SlowDevice(g.ROUTE_A, -1.0),
    SlowDevice(g.ROUTE_B, -1.0),
    SlowDevice(g.RANGE_SHIFTER_B, 0.0),
    SlowDevice(g.TIMING_TOKEN, 0.0),
)
N_ANALOGUE = sum(device.noise > 0.0 for device in DEVICES)
"""The noisy ones come first."""
_NOMINAL = np.array([device.nominal for device in DEVICES])
_NOISE = np.array([device.noise for device in DEVICES])
_GAIN = np.array([1.0 if device.tau_ms == 0.0 else 1.0 - np.exp(-1.0 / device.tau_ms) for device in DEVICES])


def initial_slow(v: np.ndarray) -> None:
    """Every slow quantity as in a good machine."""
    v[at.SLOW : at.SLOW + N_ANALOGUE] = _NOMINAL[:N_ANALOGUE]


@kernel
def utilities_ms(
    p: Record, q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray, etab: np.ndarray
) -> None:
    """One millisecond of all slow devices, and their signals."""
    t_ns = s.t_ns
    bits = np.uint64(0)
    for i in range(N_ANALOGUE):
        driven = faulted(s, faults, FIRST_SLOW + i, _NOMINAL[i], t_ns)
        if i & 1 == 0:
            bits = draw(p.seed, STREAM_SLOW + i, s.tick)
        if driven == driven:
            v[at.SLOW + i] += _GAIN[i] * (driven - v[at.SLOW + i])
            driven = v[at.SLOW + i] + _NOISE[i] * triangle(bits, i & 1 == 1)
        sig[g.FIRST_SLOW + i] = driven
    for i in range(N_ANALOGUE, g.RIPPLE_CODE + 1 - g.FIRST_SLOW):
        sig[g.FIRST_SLOW + i] = faulted(s, faults, FIRST_SLOW + i, _NOMINAL[i], t_ns)
    if s.ring_code >= 0:
        free_charge(q, s, v, etab)
    sig[g.IC1_KTP] /= v[at.KTP_USED]
    sig[g.IC2_KTP] /= v[at.KTP_USED + 1]
    if s.demand == 1 and s.phase == FLAT_TOP and s.fe_code >= 0 and s.ring_code != s.fe_code:
        sig[g.RF_FREQUENCY_REL] *= etab[s.ring_code, E_FREV] / etab[s.fe_code, E_FREV]
    first = FIRST_SLOW - g.FIRST_SLOW
    sig[g.ROUTE_A] = faulted(s, faults, first + g.ROUTE_A, float(s.room_token), t_ns)
    sig[g.ROUTE_B] = faulted(s, faults, first + g.ROUTE_B, float(s.room_token), t_ns)
    sig[g.RANGE_SHIFTER_B] = faulted(s, faults, first + g.RANGE_SHIFTER_B, float(s.rs_code), t_ns)
    sig[g.RIPPLE_PLAN] = 1.0
