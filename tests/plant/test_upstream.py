"""Position errors from upstream with their drift, by truth; quantisation of set points' readbacks."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.states import FrontEndState
from tests.plant.layers import S, Spots, go, new_plant, run_until, start

WUWEI = load_facility("wuwei")
SPILL_S = 4.0
OFF = {"front_end.position_feedback_gain": 0.0, "beam_quality.upstream_jitter_mm": 0.0}


def position_mm(changes: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the beam began and where it was by truth, (2, n), one spot on the axis for four seconds."""
    plant = new_plant(facility=change_facility(WUWEI, changes), trace_records=1 << 19)
    start(plant, Spots(np.zeros(1), np.zeros(1), np.full(1, 1e9)), level=1e8)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + round(SPILL_S * S))
    record = plant.trace[: plant.truth_count]
    record = record[record["ions"] > 0]
    return (record["t_ns"] - record["t_ns"][0]) * 1e-9, 1e-3 * np.array([record["x_um"], record["y_um"]])


def test_beam_from_upstream_is_off_and_drifts_over_the_flat_top() -> None:
    quality, flat_top_s = WUWEI.beam_quality, WUWEI.ring.phases.flat_top_max_ms * 1e-3
    t_s, at_mm = position_mm(OFF)
    for axis in range(2):
        slope, begin = np.polyfit(t_s, at_mm[axis], 1)
        assert slope == pytest.approx(quality.spill_drift_mm[axis] / flat_top_s, rel=0.1)
        assert begin == pytest.approx(quality.upstream_offset_mm[axis], abs=0.01)


def test_the_front_end_takes_offset_and_drift_away() -> None:
    """By its strips: what is left in the last second is a tenth of a millimetre's fifth."""
    t_s, at_mm = position_mm({"beam_quality.spill_drift_mm": [2.0, -2.0]})
    assert np.abs(at_mm[:, t_s > SPILL_S - 1.0].mean(axis=1)).max() < 0.02


def test_readbacks_are_whole_steps_of_their_converter() -> None:
    plant = new_plant()
    axis = WUWEI.scanning.x
    step = 2.0 * axis.max_current_a / 2**axis.dac_bits
    read = []
    for _ in range(50):
        plant.advance(plant.t_ns + 1_000_000)
        read.append(plant.read("READ_A") / step)
    assert np.array(read) == pytest.approx(np.rint(read), abs=1e-6)
    assert len(set(np.rint(read))) > 1, "noise moves it by more than a step"


def test_set_points_are_whole_steps_too_and_the_beam_follows_them() -> None:
    """A converter of ten bits has steps of 1.07 A, 0.27 mm: spots between two steps come to lie on one of them."""
    facility = change_facility(WUWEI, OFF | {"scanning.x.dac_bits": 10, "beam_quality.upstream_offset_mm": [0.0, 0.0],
                                             "beam_quality.spill_drift_mm": [0.0, 0.0]})  # fmt: skip
    plant = new_plant(facility=facility)
    wanted = np.linspace(-2.0, 2.0, 12)
    start(plant, Spots(wanted, np.zeros(12), np.full(12, 4e5)), level=1e7)
    aims = set()
    for _ in range(2000):
        plant.advance(plant.t_ns + 1_000_000)
        aims.add(plant.read("SET_A"))
        if plant.status.state is FrontEndState.DONE:
            break
    step = 2.0 * facility.scanning.x.max_current_a / 2**10
    whole = np.array(sorted(aims)) / step
    assert whole.size > 5
    assert whole == pytest.approx(np.rint(whole), abs=1e-9)
    ions, sum_x = next(iter(plant.truth_spots().values()))[:, :2].T
    off = sum_x / ions - wanted
    step_mm = step * plant.read("MM_PER_A")
    assert 0.25 * step_mm < np.abs(off).max() < 0.6 * step_mm
