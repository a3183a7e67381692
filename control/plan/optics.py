"""Magnet currents for spot positions, and back, by the scanning calibration of a room's energy table.

At the isocentre plane, along each axis, with k its mm per ampere and s its source-to-axis distance at the energy:

    position_mm = s tan(k current_a / s)

k is k_supply polarity s / (B rho), so that k I / s is the angle of the deflection; the table has it from the magnets'
field per ampere, true rigidity and the room's wiring. Supply x moves x in an ordinary room, y in a room with
`swap_xy`; supply y moves the other axis.
"""

from __future__ import annotations

import numpy as np

from control.plan.model import FloatArray
from facility.room_constants import RoomConstants


def set_points_a(x_mm: FloatArray, y_mm: FloatArray, room: RoomConstants, code: int) -> tuple[FloatArray, FloatArray]:
    """Currents (A) of supply x and supply y for spots at (x, y) mm at the isocentre; all of shape (n,)."""
    for_x = _current_a(x_mm, float(room.x_mm_per_a[code]), float(room.x_source_mm[code]))
    for_y = _current_a(y_mm, float(room.y_mm_per_a[code]), float(room.y_source_mm[code]))
    return (for_y, for_x) if room.swap_xy else (for_x, for_y)


def positions_mm(
    x_set_a: FloatArray, y_set_a: FloatArray, room: RoomConstants, code: int
) -> tuple[FloatArray, FloatArray]:
    """Positions (mm, isocentre plane) that the currents of supply x and supply y give; inverse of `set_points_a`."""
    for_x, for_y = (y_set_a, x_set_a) if room.swap_xy else (x_set_a, y_set_a)
    return (
        _position_mm(for_x, float(room.x_mm_per_a[code]), float(room.x_source_mm[code])),
        _position_mm(for_y, float(room.y_mm_per_a[code]), float(room.y_source_mm[code])),
    )


def _current_a(position_mm: FloatArray, mm_per_a: float, source_mm: float) -> FloatArray:
    angle_rad = np.arctan(np.asarray(position_mm, dtype=np.float64) / source_mm)
    return np.asarray(angle_rad * (source_mm / mm_per_a), dtype=np.float64)


def _position_mm(current_a: FloatArray, mm_per_a: float, source_mm: float) -> FloatArray:
    angle_rad = np.asarray(current_a, dtype=np.float64) * (mm_per_a / source_mm)
    return np.asarray(source_mm * np.tan(angle_rad), dtype=np.float64)
