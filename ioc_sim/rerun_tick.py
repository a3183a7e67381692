"""The rack, one step at a time, with everything written down: what a post-mortem runs over a stretch of the past."""

from __future__ import annotations

from typing import Any

import numpy as np

from facility.jit import Record, kernel
from ioc_sim.rack import MS_NS, TICK_NS, run

ROW_DTYPE = np.dtype(
    [
        ("t_ns", "<i8"),
        # beam-off devices and lines, as they are: the share that lets beam through, 0 to 1
        ("rfko_on", "<f8"), ("quad_open", "<f8"), ("chopper_open", "<f8"),
        ("dump", "<i4"), ("permit", "<i4"), ("hold", "<i4"), ("demand", "<i4"), ("action", "<i4"), ("state", "<i4"),
        ("latched", "<i8"), ("present", "<i8"),
        # truth
        ("truth_ions", "<i4"), ("truth_x_um", "<i4"), ("truth_y_um", "<i4"), ("truth_spot", "<i4"),
        ("stored_ions", "<f8"),
    ],
    align=True,
)  # fmt: skip
"""What is written down of a step beside the signals; a step is 10 us with beam possible, 1 ms without."""
STANDING = {
    "t_ns": "t_ns", "rfko_on": "rfko_on", "quad_open": "quad_open", "chopper_open": "chopper_open", "dump": "dump_cmd",
    "permit": "permit_line", "hold": "hold_line", "demand": "demand", "action": "action", "state": "fe_state",
    "stored_ions": "stored", "truth_spot": "spot",
}  # fmt: skip
"""Of ROW_DTYPE, what is a field of the plant's state."""


@kernel
def run_recorded(
    args: Any, s: Record, sig: np.ndarray, latch: np.ndarray, trace: np.ndarray, until_ns: int, rows: np.ndarray,
    signals: np.ndarray, first: int,
) -> int:  # fmt: skip
    """Step to ``until_ns`` or until ``rows`` is full, from row ``first`` on; the number of rows then written.

    ``args`` are those of ``ioc_sim.rack.run`` without its last one; ``rows`` is of ROW_DTYPE, shape (n,), ``signals``
    float64, shape (n, N_SIGNALS).  Events are dropped: whoever ran this stretch first has had them.
    """
    n = first
    while n < rows.shape[0] and s.t_ns < until_ns:
        began_ns = s.t_ns
        ticks = s.trace_count
        run(*(args + (min(began_ns + TICK_NS, until_ns),)))  # noqa: RUF005 - what the compiler understands
        if s.t_ns == began_ns:
            run(*(args + (min(began_ns + MS_NS, until_ns),)))  # noqa: RUF005 - as above
        s.events = 0
        if s.t_ns == began_ns:
            return n  # the next step would end beyond until_ns
        row = rows[n]
        row["t_ns"] = s.t_ns
        row["rfko_on"] = s.rfko_on
        row["quad_open"] = s.quad_open
        row["chopper_open"] = s.chopper_open
        row["dump"] = s.dump_cmd
        row["permit"] = s.permit_line
        row["hold"] = s.hold_line
        row["demand"] = s.demand
        row["action"] = s.action
        row["state"] = s.fe_state
        row["latched"] = latch[0]
        row["present"] = latch[1]
        row["stored_ions"] = s.stored
        if s.trace_count > ticks:
            record = trace[ticks & (trace.shape[0] - 1)]
            row["truth_ions"] = record["ions"]
            row["truth_x_um"] = record["x_um"]
            row["truth_y_um"] = record["y_um"]
            row["truth_spot"] = record["spot"]
        else:
            row["truth_ions"] = 0
            row["truth_x_um"] = 0
            row["truth_y_um"] = 0
            row["truth_spot"] = s.spot
        for k in range(sig.shape[0]):
            signals[n, k] = sig[k]
        n += 1
    return n
