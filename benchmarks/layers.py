"""One machine, one layer of spots, made the same way for every measurement of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from facility.config import load_facility
from facility.pv_catalogue import SPOT_COLUMNS
from interlocks.rules import load_rules
from ioc_sim.plant import Plant

FACILITY, ROOM, SPECIES = "wuwei", "1", "carbon"
TOKEN = 1
MS_NS = 1_000_000


def fast_rules() -> Any:
    """The H rules as production compiles them, nothing remembered."""
    return load_rules(load_facility(FACILITY), ROOM, SPECIES).fast()


def make_plant(rules: Any = None, seed: int = 1) -> Plant:
    """A plant with the beam token, a permit and a working link."""
    plant = Plant(load_facility(FACILITY), ROOM, SPECIES, seed=seed, rules=rules)
    plant.set_room_beam(True)
    plant.set_safety_lines(True, False, True, field=1, personnel=True)
    plant.open_field(1, 1e15, 1e9)
    plant.advance(MS_NS)
    plant.take_events()  # it has its permit
    return plant


def spot_table(plant: Plant, code: int, side: int, ions: float, pitch_mm: float = 2.0) -> np.ndarray:
    """A square raster of `side` x `side` spots, line by line, there and back."""
    facility = plant.facility
    room = facility.rooms[ROOM]
    brho = float(plant.table.rigidity_tm[code])
    index = np.arange(side * side)
    row, column = index // side, index % side
    column = np.where(row % 2 == 0, column, side - 1 - column)
    x_mm = (column - (side - 1) / 2) * pitch_mm
    y_mm = (row - (side - 1) / 2) * pitch_mm
    table = np.zeros((side * side, len(SPOT_COLUMNS)))
    table[:, 0], table[:, 1] = x_mm, y_mm
    table[:, 2] = x_mm * room.x_polarity * brho / (room.sad_x_mm * facility.scanning.x.tesla_metre_per_a)
    table[:, 3] = y_mm * room.y_polarity * brho / (room.sad_y_mm * facility.scanning.y.tesla_metre_per_a)
    table[:, 4] = ions
    table[:, 7] = 1e6
    return table
