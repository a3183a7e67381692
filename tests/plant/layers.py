"""Layers and runs for the tests of the plant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from control.plan.optics import set_points_a
from facility.config import Facility, load_facility
from facility.intensity import spot_tolerance_ions
from facility.pv_catalogue import SPOT_COLUMNS
from ioc_sim.plant import Plant, PlantEvent

MS = 1_000_000
S = 1_000_000_000


@dataclass
class Spots:
    """A layer as a test wants it: positions in mm, ions."""

    x: np.ndarray
    y: np.ndarray
    ions: np.ndarray

    def table(self, plant: Plant, code: int, start: np.ndarray | None = None) -> np.ndarray:
        """Layer table for this plant's room."""
        sx, sy = set_points_a(self.x, self.y, plant.table.room(plant.room_id), code)
        table = np.zeros((len(self.x), len(SPOT_COLUMNS)))
        start = np.zeros(len(self.x)) if start is None else start
        for name, column in (("x_mm", self.x), ("y_mm", self.y), ("x_set_a", sx), ("y_set_a", sy),
                             ("target_ions", self.ions), ("start_ions", start)):  # fmt: skip
            table[:, SPOT_COLUMNS.index(name)] = column
        far = np.hypot(np.diff(self.x), np.diff(self.y)) > plant.facility.front_end.beam_off_move_mm
        table[1:, SPOT_COLUMNS.index("beam_off_move")] = far
        table[:, SPOT_COLUMNS.index("limit_us")] = 1e6
        return table


def grid(half_mm: float = 12.0, step_mm: float = 3.0, low: float = 4e4, high: float = 2e5, seed: int = 1) -> Spots:
    """A square grid in serpentine order with unequal weights."""
    axis = np.arange(-half_mm, half_mm + 0.5 * step_mm, step_mm)
    x, y = np.meshgrid(axis, axis)
    x[1::2] = x[1::2, ::-1]
    ions = np.random.default_rng(seed).uniform(low, high, x.size)
    return Spots(x.ravel(), y.ravel(), ions)


def new_plant(name: str = "wuwei", room: str | None = None, seed: int = 3, facility: Facility | None = None,
              species: str = "carbon", **kwargs: object) -> Plant:  # fmt: skip
    """A plant with permit and room beam, one second after it was switched on."""
    facility = facility or load_facility(name)
    plant = Plant(facility, room or next(iter(facility.rooms)), species, seed=seed, allow_faults=True, **kwargs)  # type: ignore[arg-type]
    plant.set_safety_lines(True, False, True, field=1, personnel=True)
    plant.set_room_beam(True)
    plant.open_field(1, 1e15, 1e9)
    plant.advance(S)
    plant.take_events()
    return plant


def open_field(plant: Plant, field: int, preset_ions: float, expected_ms: float, plan_hash: str = "") -> None:
    """Open a field at a front end with a permit, as soon as the safety controller has said which."""
    plant.set_safety_lines(True, False, True, field=field, personnel=True)
    plant.open_field(field, preset_ions, expected_ms, plan_hash)


def start(plant: Plant, spots: Spots, code: int = 150, level: float = 1e7, token: int = 77,
          begin: np.ndarray | None = None) -> None:  # fmt: skip
    """Request a cycle, load the layer, arm it."""
    plant.request_cycle(token, code)
    plant.load_layer(token, code, level, spots.table(plant, code, begin))
    plant.arm(token, plant.status.permit_epoch)


def run_until(plant: Plant, *kinds: str, seconds: float = 60.0, slice_ns: int = S) -> list[PlantEvent]:
    """Advance until an event of one of these kinds; all events on the way."""
    events: list[PlantEvent] = []
    end = plant.t_ns + int(seconds * S)
    now = plant._now_ns
    while now < end:
        now = plant.advance(min(now + slice_ns, end))
        for event in plant.take_events():
            events.append(event)
            if event.kind in kinds:
                return events
    raise AssertionError(f"none of {kinds} within {seconds} s; last: {events[-3:]}, {plant.status}")


def check_truth(plant: Plant, spots: Spots, level: float, token: int = 77) -> np.ndarray:
    """Every spot within the tolerance by truth; returns the errors in ions."""
    truth = plant.truth_spots()[token]
    error: np.ndarray = truth[:, 0] - spots.ions
    tolerance, _ = spot_tolerance_ions(spots.ions, level, plant.ions_per_count, float(spots.ions.max()))
    worst = int(np.argmax(np.abs(error) - tolerance))
    if abs(error[worst]) > tolerance[worst]:
        raise AssertionError(
            f"spot {worst}: {error[worst]:.0f} of {spots.ions[worst]:.0f}, allowed {tolerance[worst]:.0f}"
        )
    return error


def go(plant: Plant, until_ns: int) -> list[PlantEvent]:
    """Advance to ``until_ns`` whatever happens on the way; all events."""
    events: list[PlantEvent] = []
    while plant.advance(until_ns) < until_ns:
        events += plant.take_events()
    return events + plant.take_events()
