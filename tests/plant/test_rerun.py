"""The past run again: the same, bit for bit, whatever was done to the plant in between; and told where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from facility import signals as g
from facility.config import load_facility
from facility.errors import InternalError
from facility.states import FrontEndState
from interlocks.rules import load_rules
from ioc_sim import rerun
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from ioc_sim.rerun import Block, Rerun, RunLog
from tests.plant.layers import MS, S, go, grid, new_plant, run_until, start

RULES = load_rules(load_facility("wuwei"), "1", "carbon")


def logged(**kwargs: object) -> Plant:
    plant = new_plant(rules=RULES.fast(), seed=4, **kwargs)
    plant.log = RunLog(S)
    return plant


def twin() -> Plant:
    return new_plant(rules=RULES.fast(), seed=4, trace_records=rerun.TWIN_TRACE)


def again(plant: Plant, from_ns: int, to_ns: int | None = None) -> tuple[Rerun, Block]:
    """The past from `from_ns` on, in one block."""
    assert plant.log is not None
    run = Rerun(twin(), plant.log.cut(plant, from_ns), from_ns, plant._now_ns if to_ns is None else to_ns)
    blocks = list(run.blocks())
    rows = np.concatenate([block.rows for block in blocks])
    return run, Block(rows, np.concatenate([block.signals for block in blocks]))


def test_a_trip_is_run_again_bit_for_bit() -> None:
    plant = logged()
    start(plant, grid(half_mm=20.0, low=4e5, high=1e6), level=1e8)
    run_until(plant, "BEAM_ON", slice_ns=137 * MS)
    go(plant, plant._now_ns + 700 * MS)
    at_ns = plant._now_ns + 333 * MS + 4_321
    plant.inject(Fault("beam.x", FaultKind.OFFSET, 5.0, at_ns=at_ns))
    go(plant, at_ns + 50 * MS)
    plant.set_late_ms(3.0)
    plant.set_safety_lines(False, False, True, personnel=True)
    go(plant, at_ns + 60 * MS + 123_456)
    plant.reset_fast(0)
    go(plant, at_ns + 70 * MS)
    from_ns = at_ns - 900 * MS
    run, block = again(plant, from_ns)
    assert run.differences == ()
    rows = block.rows
    assert rows["t_ns"][0] - from_ns <= 10_000
    assert rows["t_ns"][-1] == plant.t_ns
    assert set(np.diff(rows["t_ns"])) <= {10_000, 1_000_000}
    assert block.signals[-1].tobytes() == plant.signals.tobytes()
    first = rows[rows["latched"] != 0]
    i = RULES.fast().ids.index("position-x")
    assert first["t_ns"][0] == plant.rule_rows["t_decision_ns"][i]
    assert first["latched"][0] == 1 << i
    error_mm = block.signals[rows["t_ns"] == plant.rule_rows["t_condition_ns"][i], g.STRIP_ERR_X_MM]
    assert error_mm == plant.rule_rows["bad_value"][i]
    kept = plant.trace[(np.arange(plant.truth_count - 50_000, plant.truth_count)) & (len(plant.trace) - 1)]
    again_ions = rows["truth_ions"][np.searchsorted(rows["t_ns"], kept["t_ns"])]
    assert np.array_equal(again_ions, kept["ions"])
    short, part = again(plant, from_ns, at_ns)
    assert short.differences == ()
    assert at_ns - 10_000 < part.rows["t_ns"][-1] <= at_ns
    assert part.rows.tobytes() == rows[: len(part.rows)].tobytes()


def test_layers_commands_and_coarse_steps_in_between_are_done_again() -> None:
    plant = logged()
    spots = grid(half_mm=3.0)
    for token in (7, 8):
        plant.request_cycle(token, 150)
        plant.load_layer(token, 150, 1e8, spots.table(plant, 150))
        plant.arm(token, plant.status.permit_epoch)
        run_until(plant, "LAYER_DONE", slice_ns=71 * MS)
        assert plant.status.state == FrontEndState.DONE
        plant.disarm()
    assert plant.log is not None
    plant.insert_range_shifters(2)
    plant.advance(plant._now_ns)  # done, at the very moment of a snapshot: it must not be done twice
    plant.log.take(plant)
    go(plant, plant._now_ns + 300 * MS)
    plant.set_door(False, True)
    go(plant, plant._now_ns + 400_500_000)
    first_ns = plant.log._snapshots[0].now_ns
    for from_ns in (first_ns, plant._now_ns - 600 * MS):
        run, block = again(plant, from_ns)
        assert run.differences == ()
    assert (np.diff(block.rows["t_ns"]) > 0).all()
    assert block.signals[-1, g.DOOR_A] == 0.0


def test_a_twin_that_went_another_way_says_so() -> None:
    plant = logged()
    start(plant, grid(half_mm=20.0, low=4e5, high=1e6), level=1e8)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + 200 * MS)
    assert plant.log is not None
    plant.log.take(plant)
    plant._state[0].noise += 0.1  # not through any door that the log knows
    go(plant, plant._now_ns + 200 * MS)
    run, _ = again(plant, plant._now_ns - 100 * MS)
    assert {"state", "v", "truth"} <= set(run.differences)


def test_the_log_keeps_a_second_of_beam_and_no_more() -> None:
    plant = logged()
    log = plant.log
    assert log is not None
    for _ in range(40):  # no beam possible
        plant.set_late_ms(0.0)
        go(plant, plant._now_ns + 250 * MS)
    assert len(log._snapshots) == 1
    start(plant, grid(half_mm=40.0, step_mm=2.0, low=4e5, high=1e6), level=1e8)
    run_until(plant, "BEAM_ON", slice_ns=100 * MS)
    kept = []
    for _ in range(16):
        plant.set_late_ms(0.0)
        go(plant, plant._now_ns + 250 * MS)
        kept.append([shot.now_ns for shot in log._snapshots])
    assert plant.status.state == FrontEndState.IRRADIATING
    assert all(len(times) <= 4 and times[0] <= plant._now_ns - S for times in kept[-4:])
    assert len(log._deeds) <= 12
    run, _ = again(plant, plant._now_ns - 900 * MS)
    assert run.differences == (), "memory that was used before holds nothing of what it was used for"


def test_a_snapshot_that_is_being_run_again_is_not_written_over() -> None:
    plant = logged()
    start(plant, grid(half_mm=40.0, step_mm=2.0, low=4e5, high=1e6), level=1e8)
    run_until(plant, "BEAM_ON", slice_ns=100 * MS)
    go(plant, plant._now_ns + 1500 * MS)
    assert plant.log is not None
    from_ns = plant._now_ns - 900 * MS
    cut = plant.log.cut(plant, from_ns)
    before = cut.start.arrays["_v"].copy()
    for _ in range(12):
        go(plant, plant._now_ns + 250 * MS)
    assert np.array_equal(cut.start.arrays["_v"], before, equal_nan=True)
    late = Rerun(twin(), cut, from_ns, cut.end.now_ns)
    list(late.blocks())
    assert set(late.differences) <= {"truth"}, "the ring has moved on, nothing else has"


def test_a_log_without_a_snapshot_or_with_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(S)
    with pytest.raises(InternalError, match="no snapshot"):
        log.cut(twin(), 0)
    monkeypatch.setattr(rerun, "MAX_DEEDS", 2)
    log.note(0, print, ())
    log.note(0, print, ())
    with pytest.raises(InternalError, match="2 deeds"):
        log.note(0, print, ())
