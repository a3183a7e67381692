"""The rack alone: dose and position by truth, holds, remainders, voltages, determinism."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from facility import signals as g
from facility.config import change_facility, load_facility
from facility.errors import CommandRefused
from facility.signals import SCAN_SETTLE_MS
from facility.states import FrontEndState, HoldReason, RingPhase
from interlocks.rules import load_rules
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, S, Spots, check_truth, go, grid, new_plant, run_until, start

LEVEL = 1e7


def test_layer_within_tolerance_by_truth() -> None:
    plant = new_plant()
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "LAYER_DONE")
    error = check_truth(plant, spots, LEVEL)
    assert abs(error.sum()) / spots.ions.sum() < 2e-3
    truth = plant.truth_spots()[77]
    off = np.hypot(truth[:, 1] / truth[:, 0] - spots.x, truth[:, 2] / truth[:, 0] - spots.y)
    assert np.percentile(off, 99) < 0.3
    register = plant.register()
    assert register[:, 9].all()
    assert abs(register[:, 3].sum() / spots.ions.sum() - 1.0) < 2e-3


@pytest.mark.parametrize("name", ["wuwei", "lanzhou", "pimms", "himm-mee"])
def test_asymmetric_field_arrives_unmirrored_in_every_room(name: str) -> None:
    facility = load_facility(name)
    x = np.array([-20.0, -20.0, -20.0, -20.0, -14.0, -8.0, -14.0, 30.0])
    y = np.array([-24.0, -12.0, 0.0, 12.0, 12.0, 12.0, 0.0, 41.0])
    spots = Spots(x, y, np.full(8, 3e5))
    for room in facility.rooms:
        plant = new_plant(name, room)
        table_energy = len(plant.table) // 2
        start(plant, spots, code=table_energy, level=LEVEL)
        run_until(plant, "LAYER_DONE")
        truth = plant.truth_spots()[77]
        np.testing.assert_allclose(truth[:, 1] / truth[:, 0], x, atol=0.9)
        np.testing.assert_allclose(truth[:, 2] / truth[:, 0], y, atol=0.9)


@pytest.mark.parametrize("volt", [400.0, 1500.0])
def test_chamber_voltage_does_not_change_what_is_delivered(volt: float) -> None:
    facility = change_facility(load_facility("wuwei"), {"chambers.ic1.voltage_v": volt, "chambers.ic2.voltage_v": volt})
    plant = new_plant(facility=facility)
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, LEVEL)


def test_wrong_gain_shows_as_a_difference_between_truth_and_monitor() -> None:
    plant = new_plant()
    plant.inject(Fault("ic1.gain", FaultKind.SCALE, 1.03))
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "LAYER_DONE")
    ratio = plant.truth_spots()[77][:, 0].sum() / spots.ions.sum()
    assert ratio == pytest.approx(1 / 1.03, abs=3e-3)
    status = plant.status
    assert status.ic1_ions / status.ic2_ions == pytest.approx(1.03, abs=3e-3)


def test_empty_ring_goes_on_in_the_next_cycle_at_the_remainder() -> None:
    plant = new_plant()
    plant.inject(Fault("ring.fill", FaultKind.SCALE, 0.004))
    spots = grid()
    start(plant, spots, level=LEVEL)
    events = run_until(plant, "LAYER_DONE", seconds=120)
    assert sum(1 for e in events if e.kind == "HELD" and e.data["reason"] == "RING_EMPTY") >= 1
    assert max(int(e.data["cycle"]) for e in events if e.kind == "PHASE") >= 3
    check_truth(plant, spots, LEVEL)


def test_closed_gate_holds_while_the_flat_top_lasts() -> None:
    plant = new_plant()
    plant.set_gating(True)
    spots = grid(half_mm=30.0)
    start(plant, spots, level=LEVEL)
    events = run_until(plant, "LAYER_DONE", seconds=120)
    assert any(e.kind == "HELD" and e.data["reason"] == "GATE" for e in events)
    check_truth(plant, spots, LEVEL)


def test_pause_and_resume_in_the_middle_of_a_spot() -> None:
    plant = new_plant()
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 50 * MS)
    plant.pause()
    go(plant, plant._now_ns + 10 * MS)
    assert plant.status.state == FrontEndState.PAUSED
    before = plant.truth_total_ions
    go(plant, plant._now_ns + 500 * MS)
    assert plant.truth_total_ions == before
    plant.resume(plant.status.permit_epoch)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, LEVEL)


def test_start_ions_are_not_delivered_again() -> None:
    plant = new_plant()
    spots = grid(half_mm=6.0)
    begin = spots.ions * np.linspace(0.0, 1.0, len(spots.ions))
    start(plant, spots, level=LEVEL, begin=begin)
    run_until(plant, "LAYER_DONE")
    truth = plant.truth_spots()[77][:, 0]
    assert truth.sum() == pytest.approx((spots.ions - begin).sum(), rel=5e-3)
    assert truth[-1] == 0


def test_same_seed_is_the_same_run_however_it_is_sliced() -> None:
    traces = []
    for slice_ns in (S, 7_777_777, 300_000):
        plant = new_plant(seed=11)
        spots = grid(half_mm=6.0)
        start(plant, spots, level=LEVEL)
        run_until(plant, "LAYER_DONE", slice_ns=slice_ns)
        traces.append((plant.trace.tobytes(), plant.register().tobytes(), plant.truth_spots()[77].tobytes()))
    assert traces[0] == traces[1] == traces[2]
    other = new_plant(seed=12)
    start(other, grid(half_mm=6.0), level=LEVEL)
    run_until(other, "LAYER_DONE")
    assert other.trace.tobytes() != traces[0][0]
    check_truth(other, grid(half_mm=6.0), LEVEL)


def test_lost_safety_permit_takes_the_beam_and_the_ring_is_dumped() -> None:
    plant = new_plant()
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 20 * MS)
    plant.set_safety_lines(False, False, True, personnel=True)
    t_cut = plant._now_ns
    go(plant, t_cut + 200 * MS)
    trace = plant.trace[: plant.truth_count]
    late = trace[(trace["t_ns"] > t_cut + 180_000)]
    assert late["ions"].sum() == 0
    assert plant.status.state == FrontEndState.PAUSED
    assert plant.status.stored_ions == 0.0


def test_queued_cycle_with_a_lower_energy_steps_within_the_flat_top() -> None:
    plant = new_plant("himm-mee")
    spots = grid(half_mm=6.0)
    start(plant, spots, code=150, token=1, level=LEVEL)
    plant.request_cycle(1, 150)
    go(plant, plant._now_ns + 100 * MS)
    plant.request_cycle(2, 140)
    run_until(plant, "LAYER_DONE")
    plant.load_layer(2, 140, LEVEL, spots.table(plant, 140))
    plant.arm(2, plant.status.permit_epoch)
    events = run_until(plant, "LAYER_DONE")
    phases = [e.data["phase"] for e in events if e.kind == "PHASE"]
    assert RingPhase.ENERGY_STEP.name in phases
    assert RingPhase.INJECTION.name not in phases
    check_truth(plant, spots, LEVEL, token=2)


@pytest.mark.parametrize("into_ns", [0, 100_000, 500_000, 960_000])
def test_a_layer_that_begins_within_a_millisecond_has_the_tokens_of_its_cycle(into_ns: int) -> None:
    plant = new_plant(rules=load_rules(load_facility("wuwei"), "1", "carbon").fast())
    spots = Spots(np.zeros(2), np.zeros(2), np.full(2, 1e6))
    start(plant, spots, token=1)
    run_until(plant, "BEAM_ON")
    plant.request_cycle(2, 150)
    run_until(plant, "LAYER_DONE")
    go(plant, plant.t_ns // MS * MS + 2 * MS + into_ns)
    assert plant.status.ring_token == 2
    plant.load_layer(2, 150, LEVEL, spots.table(plant, 150))
    plant.arm(2, plant.status.permit_epoch)
    events = go(plant, plant.t_ns + 3 * MS)
    begun = next(event for event in events if event.kind == "BEAM_ON")
    assert begun.t_ns % MS < into_ns + 40_000  # before anything that is published each millisecond
    assert [event for event in events if event.kind in ("TRIP", "ABORTED")] == []
    tokens = [plant.signals[i] for i in (g.FE_TOKEN, g.RING_TOKEN, g.HEBT_TOKEN, g.TIMING_TOKEN)]
    assert tokens == [2.0] * 4


@pytest.mark.parametrize("into_ms", [100, 300])
def test_a_layer_that_is_resumed_while_the_ring_is_away_waits_for_the_ring(into_ms: int) -> None:
    plant = new_plant()
    start(plant, grid(half_mm=6.0), level=LEVEL)
    go(plant, plant._now_ns + into_ms * MS)
    assert plant.status.phase not in (RingPhase.STANDBY, RingPhase.FLAT_TOP)
    plant.pause()
    go(plant, plant._now_ns + 20 * MS)
    plant.resume(plant.status.permit_epoch)
    for _ in range(20):
        go(plant, plant._now_ns + 2 * MS)
        assert plant.status.hold_reason == HoldReason.RING_NOT_READY
        assert plant.signals[g.SCAN_SETTLE_MS] == 0.0
    run_until(plant, "LAYER_DONE")


def test_long_moves_are_made_without_beam() -> None:
    plant = new_plant()
    x = np.array([-40.0, 40.0, -40.0, 40.0])
    spots = Spots(x, np.zeros(4), np.full(4, 2e5))
    plant.request_cycle(77, 150)
    table = spots.table(plant, 150)
    table[1:, 6] = 1.0
    plant.load_layer(77, 150, LEVEL, table)
    plant.arm(77, plant.status.permit_epoch)
    run_until(plant, "LAYER_DONE")
    check_truth(plant, spots, LEVEL)
    trace = plant.trace[: plant.truth_count]
    between = (np.abs(trace["x_um"]) < 35_000) & (trace["ions"] > 0) & (trace["spot"] >= 0)
    assert trace["ions"][between].sum() < 0.002 * spots.ions.sum()


@pytest.mark.parametrize("hang_us", [20, 300, 8000])
def test_front_end_that_has_hung_ends_the_layer_and_knows_what_came(hang_us: int) -> None:
    plant = new_plant()
    spots = grid()
    start(plant, spots, level=1e8)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 40 * MS)
    hangs_ns = plant.t_ns
    plant.inject(Fault("fe.freeze", FaultKind.SET, 1.0, hangs_ns, hangs_ns + hang_us * 1000))
    run_until(plant, "ABORTED", seconds=0.1)
    assert plant.t_ns <= hangs_ns + hang_us * 1000 + 20_000
    assert plant.status.hold_reason is HoldReason.HANG
    go(plant, plant.t_ns + 20 * MS)
    truth = plant.truth_spots()[77]
    late_and_noise = 2000.0
    assert np.abs(plant.register()[:, 3] - truth[:, 0]).max() < late_and_noise
    assert not truth[plant.status.spot + 1 :, 0].any(), "nothing goes on by itself"


def test_register_of_a_paused_layer_holds_the_spot_that_was_cut() -> None:
    plant = new_plant()
    spots = grid()
    start(plant, spots, level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 53 * MS)
    plant.pause()
    go(plant, plant._now_ns + 20 * MS)
    truth = plant.truth_spots()[77][:, 0]
    np.testing.assert_allclose(plant.register()[:, 3], truth, atol=700.0)
    assert plant.register()[:, 3].sum() == pytest.approx(truth.sum(), rel=2e-3)


def test_a_resume_waits_for_the_ring_and_not_for_magnets() -> None:
    """After a permit that was away the ring is empty: nothing may count that as magnets that do not settle."""
    plant = new_plant()
    start(plant, grid(), level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + 20 * MS)
    plant.set_safety_lines(False, True, True, personnel=True)
    go(plant, plant._now_ns + 2 * S)
    plant.set_safety_lines(True, False, True, personnel=True)
    go(plant, plant._now_ns + 5 * MS)
    plant.request_cycle(77, 150)
    plant.resume(plant.status.permit_epoch)
    longest = 0.0
    while plant.status.state is not FrontEndState.IRRADIATING:
        go(plant, plant._now_ns + MS)
        longest = max(longest, plant.signals[SCAN_SETTLE_MS])
    assert longest == 0.0


def test_range_shifters_do_not_move_for_a_layer_that_was_armed_in_the_same_moment() -> None:
    plant = new_plant()
    spots = grid(half_mm=6.0)
    start(plant, spots, level=LEVEL)
    plant.insert_range_shifters(1)  # the layer is not armed yet: taken, and looked at once more when it acts
    run_until(plant, "LAYER_DONE")
    assert plant.signals[g.RANGE_SHIFTER] == plant.signals[g.RANGE_SHIFTER_PLAN] == 0.0
    check_truth(plant, spots, LEVEL)
    plant.insert_range_shifters(1)
    go(plant, plant._now_ns + 600 * MS)
    assert plant.signals[g.RANGE_SHIFTER] == 1.0


@pytest.mark.parametrize(("wanted", "inserted"), [(0, 1), (2, 1), (1, 0)])
def test_other_range_shifters_than_the_layer_s_get_no_beam(wanted: int, inserted: int) -> None:
    """Whoever moves the plates does not say which ones are right: that comes with the layer."""
    plant = new_plant()
    plant.insert_range_shifters(inserted)
    go(plant, plant._now_ns + 600 * MS)
    plant.request_cycle(77, 150)
    plant.load_layer(77, 150, LEVEL, grid(half_mm=6.0).table(plant, 150), range_shifter_code=wanted)
    plant.arm(77, plant.status.permit_epoch)
    go(plant, plant._now_ns + 5 * S)
    assert (plant.signals[g.RANGE_SHIFTER], plant.signals[g.RANGE_SHIFTER_PLAN]) == (inserted, wanted)
    assert plant.status.state in (FrontEndState.ARMED, FrontEndState.HELD)
    assert plant.truth_total_ions == 0.0


@pytest.mark.parametrize("code", [-1, 8])
def test_range_shifters_that_are_not_there_are_refused(code: int) -> None:
    plant = new_plant()
    table = grid(half_mm=6.0).table(plant, 150)
    with pytest.raises(CommandRefused, match="give 0 to"):
        plant.load_layer(77, 150, LEVEL, table, range_shifter_code=code)
    with pytest.raises(CommandRefused, match="give 0 to"):
        plant.insert_range_shifters(code)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1e-300, 0.99, 1.01e13, 9.3e15, 1e300, np.inf, np.nan])
def test_a_level_that_no_beam_has_is_refused_before_anything_is_loaded(level: float) -> None:
    """The dose register could not hold it, and the rack's thread would end in the attempt."""
    plant = new_plant()
    with pytest.raises(CommandRefused, match=r"level_ions_per_s .* give 1 to 1e\+13 ions/s"):
        plant.load_layer(77, 150, level, grid(half_mm=6.0).table(plant, 150))
    go(plant, plant._now_ns + MS)
    assert plant.status.token == 0


@pytest.mark.parametrize("level", [1.0, 1e13])
def test_the_dose_register_holds_every_level_that_is_taken(level: float) -> None:
    plant = new_plant()
    plant.load_layer(77, 150, level, grid(half_mm=6.0).table(plant, 150))
    go(plant, plant._now_ns + MS)
    assert [record.layer.level_ions_per_s for record in plant.dose_records()] == [level]


def test_a_drive_that_leaves_its_place_has_left_its_switch() -> None:
    """A layer that wants the plates as they were gets no beam while they go, however long that takes."""
    plant = new_plant()
    plant.request_cycle(77, 150)
    while plant.status.phase is not RingPhase.FLAT_TOP:
        go(plant, plant._now_ns + MS)
    plant.load_layer(77, 150, LEVEL, grid(half_mm=20.0).table(plant, 150))
    go(plant, plant._now_ns + MS)
    plant.insert_range_shifters(1)
    go(plant, plant._now_ns + MS)
    assert plant.signals[g.RANGE_SHIFTER] == -1.0
    plant.arm(77, plant.status.permit_epoch)
    go(plant, plant._now_ns + 700 * MS)
    assert plant.signals[g.RANGE_SHIFTER] == 1.0
    assert plant.truth_total_ions == 0.0
    plant.disarm()
    go(plant, plant._now_ns + MS)
    plant.insert_range_shifters(1)  # it is there
    go(plant, plant._now_ns + 2 * MS)
    assert plant.signals[g.RANGE_SHIFTER] == 1.0


def test_what_is_asked_in_the_moment_of_an_arm_is_refused_or_done() -> None:
    plant = new_plant()
    table = grid(half_mm=6.0).table(plant, 150)
    plant.load_layer(77, 150, LEVEL, table)
    plant.load_layer(78, 150, LEVEL, table)
    with pytest.raises(CommandRefused, match="LOADED with token 78"):
        plant.arm(77, plant.status.permit_epoch)
    plant.arm(78, plant.status.permit_epoch)
    with pytest.raises(CommandRefused, match="about to be ARMED"):
        plant.load_layer(79, 150, LEVEL, table)
    with pytest.raises(CommandRefused, match="about to be ARMED"):
        plant.open_field(2, 1e9, 1e6)
    go(plant, plant._now_ns + MS)
    assert (plant.status.state, plant.status.token) == (FrontEndState.ARMED, 78)


def test_what_is_asked_for_as_a_flat_top_begins_is_carried_out_at_the_next_tick_however_time_is_sliced() -> None:
    """The flat top begins and 4 ns later something is asked for; beam comes on, an event, three ticks later."""
    traces = []
    for slice_ns in (2 * MS, MS, 23_000, 10_000):
        plant = new_plant()
        start(plant, grid(half_mm=3.0), level=LEVEL)
        while plant.status.phase is not RingPhase.FLAT_TOP:
            run_until(plant, "PHASE")
        begins_ns = plant.t_ns
        go(plant, begins_ns + 4)
        steps = _counted_steps(plant)
        plant.set_gating(True)
        plant.set_gating(False)
        now_ns = begins_ns + 4
        while now_ns < begins_ns + 2 * MS:
            now_ns = min(now_ns + slice_ns, begins_ns + 2 * MS)
            go(plant, now_ns)
        assert next(steps) < 1_000
        trace = plant.trace[: plant.truth_count]
        assert trace["t_ns"][trace["flags"] & 2 > 0][0] == begins_ns + 30_000  # beam is asked for
        traces.append(trace.tobytes())
    assert len(set(traces)) == 1


def _counted_steps(plant: Plant) -> Iterator[int]:
    """Calls of the kernel from now on; one that is called for ever is told."""
    count = itertools.count()
    step = plant._step

    def counted(until_ns: int) -> None:
        if next(count) > 10_000:
            raise AssertionError(f"the plant stands still at {plant.t_ns} ns")
        step(until_ns)

    plant._step = counted  # type: ignore[method-assign]
    return count
