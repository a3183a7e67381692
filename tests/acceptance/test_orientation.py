"""A letter F arrives as it was planned in every room of every facility: not mirrored, not turned, axes not swapped."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from control.plan.dicom_writer import write_dicom_plan
from control.plan.load import load_plan
from control.plan.maker import make_f_plan
from control.plan.program import compile_program
from facility.config import Facility, list_facilities, load_facility
from tests.acceptance.deliveries import Delivery, deliver

TURNS = {
    "mirrored in x": (-1, 0, 0, 1),
    "mirrored in y": (1, 0, 0, -1),
    "turned by half": (-1, 0, 0, -1),
    "axes swapped": (0, 1, 1, 0),
    "axes swapped and mirrored": (0, -1, -1, 0),
    "turned left": (0, -1, 1, 0),
    "turned right": (0, 1, -1, 0),
}
"""Every way to lay the field on itself but the right one: (a, b, c, d) for x' = a x + b y, y' = c x + d y."""
POSITION_MM = 1.0
"""Far more than the position error, far less than the strokes of the F are apart."""


@functools.cache
def facility(name: str) -> Facility:
    return load_facility(name)


def rooms() -> list[tuple[str, str, str]]:
    return [(n, r, s) for n in list_facilities() for r in facility(n).rooms for s in facility(n).species]


def furthest_mm(points: np.ndarray, others: np.ndarray) -> float:
    """The largest distance from any of `points` (n, 2) to the nearest of `others` (m, 2), taken both ways."""
    apart = np.hypot(*(points[:, None, :] - others[None, :, :]).transpose(2, 0, 1))
    return float(max(apart.min(axis=1).max(), apart.min(axis=0).max()))


def arrived(delivery: Delivery) -> tuple[np.ndarray, np.ndarray]:
    """Planned and true positions (n, 2) of the layer that shows the whole F."""
    layer = max(delivery.program.layers, key=lambda one: one.n_spots)
    truth = delivery.counter.layer(layer)
    return np.column_stack((layer.x_mm, layer.y_mm)), truth[:, 1:]


@pytest.mark.parametrize(("name", "room", "species"), rooms())
def test_f_arrives_as_planned(name: str, room: str, species: str, tmp_path: Path) -> None:
    angle = facility(name).rooms[room].beam_angle_deg[-1]
    path = tmp_path / "f.dcm"
    write_dicom_plan(make_f_plan(facility(name), species, gantry_angle_deg=angle), path)
    delivery = deliver(compile_program(load_plan(path), facility(name), room, qa=True), facility(name))
    assert delivery.summary.status == "completed", delivery.summary.reason
    assert delivery.judged.missed == ()
    planned, true = arrived(delivery)
    assert np.hypot(*(true - planned).T).max() < POSITION_MM
    assert furthest_mm(true, planned) < POSITION_MM
    for words, (a, b, c, d) in TURNS.items():
        turned = planned @ np.array([[a, c], [b, d]], dtype=np.float64)
        assert furthest_mm(true, turned) > 5.0 * POSITION_MM, f"the field also fits the plan {words}"
