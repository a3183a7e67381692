"""The ring through its cycles: programmes, injection, several energies in a flat top, a supply that trips."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from facility import signals as g
from facility.config import Facility, change_facility, load_facility
from facility.physics import revolution_frequency_hz, rigidity_tm
from facility.states import FrontEndState, RingPhase
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import MS, S, check_truth, go, grid, new_plant, open_field, run_until, start

CODE = 150
MEE = load_facility("himm-mee")
SPOTS = grid(half_mm=4.0, step_mm=4.0, low=2e5, high=4e5)


@dataclass
class Log:
    """What the ring did, a millisecond a row."""

    phase: list[RingPhase] = field(default_factory=list)
    brho: list[float] = field(default_factory=list)
    hz: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)

    def of(self, phase: RingPhase, column: str) -> np.ndarray:
        return np.array([value for at, value in zip(self.phase, getattr(self, column), strict=True) if at is phase])


def watched(plant: Plant, ms: int) -> Log:
    log = Log()
    for _ in range(ms):
        go(plant, plant.t_ns + MS)
        plant.take_events()
        log.phase.append(plant.status.phase)
        log.brho.append(plant.read("RING_TM"))
        log.hz.append(plant.read("RING_HZ"))
        log.stored.append(float(plant.signals[g.RING_IONS]))
    return log


def one_cycle() -> tuple[Plant, Log]:
    plant = new_plant()
    start(plant, SPOTS, CODE)
    log = watched(plant, 1600)
    assert plant.status.state is FrontEndState.DONE
    plant.end_cycle()
    more = watched(plant, 800)
    for name in ("phase", "brho", "hz", "stored"):
        getattr(log, name).extend(getattr(more, name))
    return plant, log


def test_field_and_frequency_follow_their_programmes() -> None:
    plant, log = one_cycle()
    facility, table = plant.facility, plant.table
    ion = facility.species["carbon"]
    low = float(rigidity_tm(facility.ring.injection_energy_mev_u, ion))
    first = float(revolution_frequency_hz(facility.ring.injection_energy_mev_u, ion, facility.ring.circumference_m))
    assert log.of(RingPhase.INJECTION, "brho") == pytest.approx(low)
    assert set(log.of(RingPhase.INJECTION, "hz")) == {0.0}
    assert log.of(RingPhase.CAPTURE, "hz") == pytest.approx(first, rel=1e-9)
    ramp = log.of(RingPhase.RAMP, "brho")
    assert np.all(np.diff(ramp) > 0.0)
    assert ramp.size == pytest.approx(table.ramp_ms[CODE], abs=1.5)
    steps = np.diff(ramp)
    assert steps == pytest.approx(steps.mean(), rel=1e-6)
    assert log.of(RingPhase.FLAT_TOP, "brho") == pytest.approx(table.rigidity_tm[CODE], rel=1e-12)
    assert log.of(RingPhase.FLAT_TOP, "hz") == pytest.approx(table.f_rev_hz[CODE], rel=1e-6)
    assert np.all(np.diff(log.of(RingPhase.RAMP_DOWN, "brho")) < 0.0)
    cycle = log.of(RingPhase.STANDARDISE, "brho")
    phases = facility.ring.phases
    rise = 0.5e-3 * phases.standardise_ms * phases.ramp_t_per_s * facility.ring.bending_radius_m
    assert cycle.max() == pytest.approx(low + rise, rel=0.01)
    assert cycle.max() < table.rigidity_tm[-1]
    assert cycle[[0, -1]] == pytest.approx(low, rel=0.05)
    assert set(log.of(RingPhase.STANDARDISE, "hz")) == {0.0}


def test_injection_goes_towards_a_balance_and_capture_loses() -> None:
    plant, log = one_cycle()
    ring = plant.facility.ring
    injected, captured = log.of(RingPhase.INJECTION, "stored"), log.of(RingPhase.CAPTURE, "stored")
    fill = log.of(RingPhase.RAMP, "stored")[0]
    assert np.all(np.diff(injected) > 0.0)
    assert np.diff(injected)[-1] / np.diff(injected)[0] == pytest.approx(
        np.exp(-ring.injection_lifetimes * (injected.size - 2) / ring.phases.injection_ms), rel=0.02
    )
    assert captured[0] * (1.0 - ring.capture_loss_rel) == pytest.approx(fill, rel=0.02)
    assert np.all(np.diff(captured) < 0.0)
    assert fill == pytest.approx(plant.facility.species["carbon"].fill_ions, rel=0.2)


def test_an_inhibited_source_injects_nothing() -> None:
    plant = new_plant()
    start(plant, SPOTS, CODE)
    go(plant, plant.t_ns + 8 * MS)
    plant.set_safety_lines(True, False, True, field=1, personnel=False)
    go(plant, plant.t_ns + 4 * MS)
    assert plant.status.phase is RingPhase.INJECTION
    before = plant.status.stored_ions
    assert before > 0.0
    log = watched(plant, 60)
    assert set(log.of(RingPhase.INJECTION, "stored")) == {before}
    assert log.phase[-1] is RingPhase.RAMP
    assert log.stored[-1] == 0.0


def loaded(facility: Facility, *codes: int) -> tuple[Plant, list[int]]:
    """A plant in the flat top of the first of several energies, its layer done; their tokens."""
    plant = new_plant(facility=facility)
    tokens = [100 + k for k in range(len(codes))]
    start(plant, SPOTS, codes[0], token=tokens[0])
    run_until(plant, "LAYER_DONE")
    return plant, tokens


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_a_step_to_the_next_lower_energy_loses_its_share(loss: float) -> None:
    plant, tokens = loaded(change_facility(MEE, {"ring.energy_step_loss_rel": loss}), CODE, CODE - 10)
    cycle, before = plant.status.cycle, plant.status.stored_ions
    plant.request_cycle(tokens[1], CODE - 10)
    log = watched(plant, 400)
    assert plant.status.cycle == cycle
    assert log.of(RingPhase.ENERGY_STEP, "brho")[1:-1].min() > plant.table.rigidity_tm[CODE - 10]
    step = log.of(RingPhase.ENERGY_STEP, "brho")
    assert np.all(np.diff(step) <= 0.0)
    assert np.unique(step).size > 0.9 * MEE.ring.phases.energy_step_ms
    assert log.of(RingPhase.FLAT_TOP, "stored")[-1] == pytest.approx(before * (1.0 - loss), rel=1e-6)
    assert log.of(RingPhase.FLAT_TOP, "brho")[-1] == plant.table.rigidity_tm[CODE - 10]


@pytest.mark.parametrize(("code", "left"), [(CODE + 10, 1.0), (CODE - 10, 0.03)])
def test_a_higher_energy_or_too_few_ions_mean_dump_and_a_new_fill(code: int, left: float) -> None:
    plant, tokens = loaded(MEE, CODE, code)
    plant._state[0].stored = plant.status.stored_ions * left
    cycle = plant.status.cycle
    plant.request_cycle(tokens[1], code)
    log = watched(plant, 2000)
    wanted = [RingPhase.DUMP, RingPhase.RAMP_DOWN, RingPhase.STANDARDISE, RingPhase.INJECTION, RingPhase.CAPTURE]
    assert [phase for phase in dict.fromkeys(log.phase) if phase is not RingPhase.FLAT_TOP][:5] == wanted
    assert plant.status.cycle == cycle + 1
    assert plant.status.energy_code == code


def test_a_supply_that_trips_ends_the_cycle_and_the_interrupted_energy_is_filled_again() -> None:
    """In the second energy of a flat top, in the middle of its layer: not a spot gets more or less than it should."""
    plant, tokens = loaded(MEE, CODE, CODE - 10)
    open_field(plant, 2, 1e15, 1e9)
    plant.request_cycle(tokens[1], CODE - 10)
    go(plant, plant.t_ns + 10 * MS)
    plant.load_layer(tokens[1], CODE - 10, 1e7, SPOTS.table(plant, CODE - 10))
    plant.arm(tokens[1], plant.status.permit_epoch)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 60 * MS)
    cycle = plant.status.cycle
    plant.inject(Fault("ring.supply", FaultKind.DEAD))
    go(plant, plant.t_ns + 100 * MS)
    assert plant.status.phase is RingPhase.FAULT
    assert plant.status.stored_ions == 0.0
    assert plant.status.state is FrontEndState.HELD
    assert (plant.signals[g.HEBT_SET], plant.signals[g.HEBT_TOKEN]) == (0.0, 0.0)
    plant.clear_faults()
    log = watched(plant, 900)
    after = [phase for phase in dict.fromkeys(log.phase) if phase is not RingPhase.FAULT][:3]
    assert after == [RingPhase.STANDARDISE, RingPhase.INJECTION, RingPhase.CAPTURE]
    run_until(plant, "LAYER_DONE")
    assert plant.status.cycle == cycle + 1
    assert (plant.status.ring_token, plant.status.energy_code) == (tokens[1], CODE - 10)
    check_truth(plant, SPOTS, 1e7, tokens[1])


def test_a_ring_that_has_tripped_while_nothing_was_asked_for_stands_by_again() -> None:
    plant = new_plant()
    plant.inject(Fault("ring.supply", FaultKind.DEAD))
    go(plant, plant.t_ns + S)
    assert plant.status.phase is RingPhase.FAULT
    plant.clear_faults()
    go(plant, plant.t_ns + S)
    assert plant.status.phase is RingPhase.STANDBY


@pytest.mark.parametrize("name", ["wuwei", "pimms"])
@pytest.mark.parametrize(
    ("kind", "value"), [("NAN", 0.0), ("SCALE", 5e-324), ("SCALE", 1e-300), ("SCALE", 1e200), ("SCALE", 1e308)]
)
def test_a_fill_of_any_number_leaves_finite_numbers(name: str, kind: str, value: float) -> None:
    """What is stored is divided by, and its logarithm taken; nothing of it ends the plant."""
    plant = new_plant(name)
    plant.inject(Fault("ring.fill", FaultKind[kind], value))
    start(plant, SPOTS, CODE)
    state = plant._state[0]
    seen = []
    for _ in range(25):
        go(plant, plant.t_ns + 100 * MS)
        seen.append((float(state.stored), float(state.line_scale), float(state.drive), float(state.stage_ticks)))
    assert np.isfinite(seen).all()
    assert min(scale for _, scale, *_ in seen) > 1e-15
    assert max(stored for stored, *_ in seen) <= 1.5e3 * plant.facility.species["carbon"].fill_ions
