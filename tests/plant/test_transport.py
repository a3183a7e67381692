"""The transport line takes up one set of set points per energy and room; beam only with the one that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from facility import signals as g
from facility.config import load_facility
from facility.energy_table import load_energy_table
from facility.errors import CommandRefused
from facility.states import FrontEndState, HoldReason, RingPhase
from ioc_sim import layout as at
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from tests.plant.layers import S, check_truth, go, grid, new_plant, run_until, start

CODE = 150
TABLE = load_energy_table(load_facility("wuwei"), "carbon")


def test_the_devices_say_which_set_they_hold() -> None:
    plant = new_plant()
    start(plant, grid(), CODE)
    seen = {}
    while plant.status.phase is not RingPhase.FLAT_TOP:
        go(plant, plant.t_ns + 20_000_000)
        seen[plant.status.phase] = (int(plant.signals[g.HEBT_SET]), int(plant.signals[g.HEBT_TOKEN]))
    assert seen[RingPhase.RAMP] == (0, 0)
    assert seen[RingPhase.FLAT_TOP] == (TABLE.room("1").set_number(CODE), 77)
    run_until(plant, "LAYER_DONE")
    plant.end_cycle()
    go(plant, plant.t_ns + S)
    assert plant.signals[g.HEBT_SET] == plant.signals[g.HEBT_TOKEN] == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (TABLE.room("2").set_number(CODE), f"is that of energy code {CODE} in room 2"),
        (TABLE.room("1").set_number(CODE + 1), f"is that of energy code {CODE + 1} in room 1"),
        (12345, "is in no room of the energy table"),
        (0, "is in no room of the energy table"),
    ],
)
def test_a_program_of_another_rooms_table_is_refused(number: int, words: str) -> None:
    plant = new_plant()
    own = f"has set {TABLE.room('1').set_number(CODE)} by version {TABLE.version}"
    with pytest.raises(CommandRefused, match=f"{words}.*{own}") as caught:
        plant.request_cycle(77, CODE, number)
    assert caught.value.code == "ring.transport-set"
    table = grid().table(plant, CODE)
    with pytest.raises(CommandRefused, match=words) as caught:
        plant.load_layer(77, CODE, 1e7, table, 0, number)
    assert caught.value.code == "fe.transport-set"
    go(plant, plant.t_ns + S)
    assert plant.status.phase is RingPhase.STANDBY
    assert plant.status.state is FrontEndState.IDLE


def held_with(plant: Plant) -> HoldReason:
    """Three seconds on: no ion has come, and why not."""
    go(plant, plant.t_ns + 3 * S)
    assert plant.status.phase is RingPhase.FLAT_TOP
    assert plant.truth_total_ions == 0.0
    return plant.status.hold_reason


@pytest.mark.parametrize(
    ("kind", "taken"),
    [(FaultKind.SET, float(TABLE.room("3").set_number(CODE))), (FaultKind.DEAD, 0.0), (FaultKind.NAN, 0.0),
     (FaultKind.SET, -1.0), (FaultKind.SET, 1e12)],
)  # fmt: skip
def test_no_beam_with_another_set_than_the_one_asked_for(kind: FaultKind, taken: float) -> None:
    plant = new_plant()
    plant.inject(Fault("hebt.set", kind, taken))
    start(plant, grid(), CODE)
    assert held_with(plant) is HoldReason.RING_NOT_READY
    assert plant.signals[g.HEBT_TOKEN] == 0.0
    plant.clear_faults()
    run_until(plant, "LAYER_DONE")
    check_truth(plant, grid(), 1e7)


def test_a_set_that_changes_under_the_beam_ends_it() -> None:
    plant = new_plant()
    start(plant, grid(), CODE)
    run_until(plant, "BEAM_ON")
    go(plant, plant.t_ns + 20_000_000)
    plant.inject(Fault("hebt.set", FaultKind.SET, float(TABLE.room("2").set_number(CODE))))
    go(plant, plant.t_ns + 5_000_000)
    assert plant.status.state is FrontEndState.HELD
    assert plant.signals[g.HEBT_TOKEN] == 0.0  # with rules, energy-token-transport: the tokens differ


@pytest.mark.parametrize("room", ["1", "4"])
def test_the_front_end_works_with_the_calibration_of_its_room(room: str) -> None:
    """Room 4 is crossed: supply x moves y there."""
    plant = new_plant(room=room)
    plant.load_layer(77, CODE, 1e7, grid().table(plant, CODE))
    go(plant, plant.t_ns + 1_000_000)
    own = TABLE.room(room)
    x, y = own.x_mm_per_a[CODE], own.y_mm_per_a[CODE]
    used = [plant.read("MM_PER_A", k) for k in range(2)]
    assert used == ([y, x] if own.swap_xy else [x, y])
    quantum = plant.facility.chambers.ic1.count_quantum_fc
    assert plant.read("IC_IONS_PER_COUNT") == pytest.approx(own.ions_per_count(CODE, quantum), rel=1e-12)
    assert np.all(plant._etab[:, at.E_SIGMA] == own.spot_sigma_mm)
