"""When the beam was off, recomputed from raw ticks of the truth trace."""

from __future__ import annotations

import numpy as np

from interlocks.explain import MEAN_US, OFF_SHARE
from ioc_sim.plant import Plant

TICK_NS = 10_000
_MEAN_TICKS = round(MEAN_US / 10.0)


def ticks(plant: Plant) -> np.ndarray:
    """Truth records in order of time; refuses a ring that has lost some."""
    if plant.truth_count > len(plant.trace):
        raise AssertionError("the truth ring has wrapped: give the plant more trace_records")
    return plant.trace[: plant.truth_count]


def beam_off_ns(plant: Plant, cause_ns: int) -> int:
    """Last instant at which the 50 us mean is above 0.1 % of the mean rate of the 2 ms before ``cause_ns``.

    Stretches without records had no beam possible; their ions are zero by construction of the record.
    """
    record = ticks(plant)
    before = (record["t_ns"] > cause_ns - 2_000_000) & (record["t_ns"] <= cause_ns)
    if not before.any() or record["ions"][before].sum() == 0:
        raise AssertionError("no beam before the cause")
    threshold = OFF_SHARE * record["ions"][before].mean()
    t_ns, ions = record["t_ns"], record["ions"].astype(np.float64)
    grid = (t_ns - t_ns[0]) // TICK_NS
    dense = np.zeros(int(grid[-1]) + 1 + _MEAN_TICKS)
    dense[grid] = ions
    mean = np.convolve(dense, np.full(_MEAN_TICKS, 1.0 / _MEAN_TICKS))[: len(dense)]
    last = int(np.flatnonzero(mean > threshold)[-1])
    return int(t_ns[0]) + last * TICK_NS


def surplus_ions(plant: Plant, cause_ns: int) -> float:
    """Ions that came after ``cause_ns``."""
    record = ticks(plant)
    return float(record["ions"][record["t_ns"] > cause_ns].sum())
