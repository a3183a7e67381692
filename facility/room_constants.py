"""What an energy means in one treatment room: transport set points, scanning calibration, monitors, spot size.

The columns of the energy table that belong to a room. Control plans with them and the front end works with them;
neither works them out again. A set number stands for all set points of the transport line for one energy in one room:
control asks for it by that number, the devices of the line answer with the number of what they have taken up, and no
layer has beam while the two differ.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from facility.config import Facility, Room
from facility.config.machine import Species
from facility.physics.chamber import charge_per_ion_fc
from facility.physics.relativity import ArrayLike, FloatArray
from facility.physics.transport import deflection_mm, spot_sigma_mm

SET_MASK = 0x7FFF_FFFF
FORMATS = {
    "transport_set": "{:.0f}", "spot_sigma_mm": "{:.4f}",
    "x_mm_per_a": "{:.9f}", "y_mm_per_a": "{:.9f}", "x_source_mm": "{:.3f}", "y_source_mm": "{:.3f}",
    "charge_per_ion_ic1_fc": "{:.7f}", "charge_per_ion_ic2_fc": "{:.7f}", "charge_per_ion_backup_fc": "{:.7f}",
}  # fmt: skip
"""Columns of a room in the order of the table, and how they are written."""


@dataclass(frozen=True, eq=False)
class RoomConstants:
    """Columns of one room as read-only float64 arrays; index = energy code.

    - `transport_set`: number of the transport's set points, 1 to 2^31 - 1, of no other energy or room.
    - `spot_sigma_mm`: one sigma of the beam in air at the isocentre.
    - `x_mm_per_a`, `y_mm_per_a`: small displacement along that axis at the isocentre by the current of the supply that
      moves it, with the sign of its cable.
    - `x_source_mm`, `y_source_mm`: from the (virtual) source of that deflection to the isocentre.
    - charges per ion: at reference conditions, with the monitors' calibration by energy in them.

    `swap_xy`: supply x moves y here, and supply y moves x.
    """

    room_id: str
    swap_xy: bool
    transport_set: FloatArray
    spot_sigma_mm: FloatArray
    x_mm_per_a: FloatArray
    y_mm_per_a: FloatArray
    x_source_mm: FloatArray
    y_source_mm: FloatArray
    charge_per_ion_ic1_fc: FloatArray
    charge_per_ion_ic2_fc: FloatArray
    charge_per_ion_backup_fc: FloatArray

    def ions_per_count(self, code: int, quantum_fc: float) -> float:
        """Ions behind one count of chamber 1 at full collection, nominal gain and reference conditions."""
        return quantum_fc / float(self.charge_per_ion_ic1_fc[code])

    def set_number(self, code: int) -> int:
        """Number of the transport's set points for this energy."""
        return int(self.transport_set[code])


ROOM_COLUMNS = tuple(field.name for field in fields(RoomConstants))[2:]


def column_name(name: str, room_id: str) -> str:
    """How a room's column is called in the table."""
    return f"{name}@{room_id}"


def set_number(facility_id: str, species: str, version: int, room_id: str, code: int) -> int:
    """Number of the transport's set points, from all that they depend on."""
    text = f"ionctl.transport/1 {facility_id} {species} {version} {room_id} {code}"
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & SET_MASK) or 1


def room_sigma_mm(energy_mev_u: ArrayLike, ion: Species, room: Room) -> FloatArray:
    """One sigma of the beam in air at the isocentre of a room, mm, by its optics."""
    return np.asarray(spot_sigma_mm(energy_mev_u, ion) * room.spot_scale, dtype=np.float64)


def room_columns(
    facility: Facility, species: str, version: int, room_id: str, energy_mev_u: FloatArray, rigidity_tm: FloatArray
) -> dict[str, FloatArray]:
    """The columns of a room, computed from the facility's file, by name."""
    ion, room = facility.species_named(species), facility.room_named(room_id)
    x_supply, y_supply = facility.scanning.x, facility.scanning.y
    if room.swap_xy:
        x_supply, y_supply = y_supply, x_supply
    count = len(energy_mev_u)
    found = {
        "transport_set": np.array([set_number(facility.id, species, version, room_id, k) for k in range(count)], float),
        "spot_sigma_mm": room_sigma_mm(energy_mev_u, ion, room),
        "x_mm_per_a": room.x_polarity * deflection_mm(x_supply.tesla_metre_per_a, rigidity_tm, room.sad_x_mm),
        "y_mm_per_a": room.y_polarity * deflection_mm(y_supply.tesla_metre_per_a, rigidity_tm, room.sad_y_mm),
        "x_source_mm": np.full(count, room.sad_x_mm),
        "y_source_mm": np.full(count, room.sad_y_mm),
    }
    chambers = facility.chambers
    for name, monitor, scale in zip(
        ("ic1", "ic2", "backup"), (chambers.ic1, chambers.ic2, chambers.backup), room.monitor_scale, strict=True
    ):
        computed = charge_per_ion_fc(energy_mev_u, ion, monitor) * monitor.calibrated(energy_mev_u)
        found[f"charge_per_ion_{name}_fc"] = np.asarray(computed * scale, dtype=np.float64)
    return found


def rooms_inputs(facility: Facility) -> dict[str, list[object]]:
    """The figures of the facility file that the columns of its rooms depend on."""
    chambers, scanning = facility.chambers, facility.scanning
    return {
        "rooms": [
            [name, room.sad_x_mm, room.sad_y_mm, room.x_polarity, room.y_polarity, room.swap_xy, room.spot_scale,
             room.monitor_scale] for name, room in facility.rooms.items()
        ],
        "scanning": [scanning.x.tesla_metre_per_a, scanning.y.tesla_metre_per_a],
        "monitors": [
            [monitor.gas, monitor.gap_mm, monitor.w_ev, monitor.density_g_cm3, monitor.calibration]
            for monitor in (chambers.ic1, chambers.ic2, chambers.backup)
        ],
    }  # fmt: skip
