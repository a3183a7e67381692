"""Magnet currents for spot positions, and back, from true rigidity and the room's wiring.

A supply's current I deflects by the angle k I / (B rho), with k its `tesla_metre_per_a`. At the isocentre plane, along
the axis that the supply moves in this room:

    position_mm = polarity * sad_mm * tan(tesla_metre_per_a * current_a / rigidity_tm)

`polarity` and `sad_mm` belong to the axis. Supply x feeds the upstream magnet: it moves x in an ordinary room, y in a
room with `swap_xy`; supply y moves the other axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from control.plan.model import FloatArray
from facility.config import Facility, Room
from facility.physics.relativity import rigidity_tm


class _Axis(NamedTuple):
    polarity: int
    sad_mm: float


def _axes_by_supply(room: Room) -> tuple[_Axis, _Axis]:
    """The axes that supply x and supply y move."""
    x, y = _Axis(room.x_polarity, room.sad_x_mm), _Axis(room.y_polarity, room.sad_y_mm)
    return (y, x) if room.swap_xy else (x, y)


def set_points_a(
    x_mm: FloatArray, y_mm: FloatArray, energy_mev_u: float, species: str, facility: Facility, room: Room
) -> tuple[FloatArray, FloatArray]:
    """Currents (A) of supply x and supply y for spots at (x, y) mm at the isocentre; all of shape (n,)."""
    rigidity = float(rigidity_tm(energy_mev_u, facility.species_named(species)))
    first, second = _axes_by_supply(room)
    along_first, along_second = (y_mm, x_mm) if room.swap_xy else (x_mm, y_mm)
    return (
        _current_a(along_first, first, rigidity, facility.scanning.x.tesla_metre_per_a),
        _current_a(along_second, second, rigidity, facility.scanning.y.tesla_metre_per_a),
    )


def positions_mm(
    x_set_a: FloatArray, y_set_a: FloatArray, energy_mev_u: float, species: str, facility: Facility, room: Room
) -> tuple[FloatArray, FloatArray]:
    """Positions (mm, isocentre plane) that the currents of supply x and supply y give; inverse of `set_points_a`."""
    rigidity = float(rigidity_tm(energy_mev_u, facility.species_named(species)))
    first, second = _axes_by_supply(room)
    along_first = _position_mm(x_set_a, first, rigidity, facility.scanning.x.tesla_metre_per_a)
    along_second = _position_mm(y_set_a, second, rigidity, facility.scanning.y.tesla_metre_per_a)
    return (along_second, along_first) if room.swap_xy else (along_first, along_second)


def _current_a(position_mm: FloatArray, axis: _Axis, rigidity: float, tesla_metre_per_a: float) -> FloatArray:
    angle_rad = np.arctan(np.asarray(position_mm, dtype=np.float64) * (axis.polarity / axis.sad_mm))
    return np.asarray(angle_rad * (rigidity / tesla_metre_per_a), dtype=np.float64)


def _position_mm(current_a: FloatArray, axis: _Axis, rigidity: float, tesla_metre_per_a: float) -> FloatArray:
    angle_rad = np.asarray(current_a, dtype=np.float64) * (tesla_metre_per_a / rigidity)
    return np.asarray(axis.polarity * axis.sad_mm * np.tan(angle_rad), dtype=np.float64)
