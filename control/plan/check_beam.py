"""Checks of a beam as a whole: ion, angle, range shifters, and what else the plan puts in its way."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.plan.model import Beam, RangeShifter
from facility.config import Facility, Room

ANGLE_TOLERANCE_DEG = 0.1
SHIFTER_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class Problem:
    """One reason not to deliver; `count` is how many spots share it."""

    code: str
    what: str
    where: str
    fix: str
    count: int = 1


@dataclass(frozen=True)
class BeamCheck:
    """How a beam will be delivered. `range_shifter_code` has bit k set for the facility's k-th range shifter."""

    beam_index: int
    planned_angle_deg: float
    delivered_angle_deg: float
    range_shifter_ids: tuple[str, ...]
    range_shifter_code: int


@dataclass
class Findings:
    """What a check has found so far: problems refuse the plan, notes go with it."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, code: str, what: str, where: str, fix: str, count: int = 1) -> None:
        """Add a problem."""
        self.problems.append(Problem(code, what, where, fix, count))


@dataclass(frozen=True)
class Place:
    """Where a plan is to be delivered, and whether in QA mode."""

    facility: Facility
    room_id: str
    room: Room
    qa: bool


def check_beam(beam: Beam, index: int, place: Place, findings: Findings) -> BeamCheck:
    """Angle and range shifters of a beam; what does not fit is added to the findings."""
    for accessory in beam.accessories:
        findings.add(
            "plan.accessory",
            f"the plan puts a {accessory} in the beam",
            beam.where(),
            f"{place.facility.id} has none; plan without it",
        )
    angle = _angle(beam, place, findings)
    ids, code = _shifters(beam, place.facility, findings)
    return BeamCheck(index, beam.gantry_angle_deg, angle, ids, code)


def _apart_deg(a: float, b: float) -> float:
    """Smallest angle between two directions; NaN stays NaN."""
    return abs((a - b + 180.0) % 360.0 - 180.0)


def _angle(beam: Beam, place: Place, findings: Findings) -> float:
    """The angle the beam will come from."""
    room = place.room
    matching = [a for a in room.beam_angle_deg if _apart_deg(beam.gantry_angle_deg, a) <= ANGLE_TOLERANCE_DEG]
    support_fits = _apart_deg(beam.support_angle_deg, room.patient_support_deg) <= ANGLE_TOLERANCE_DEG
    delivered = matching[0] if matching else room.beam_angle_deg[0]
    if matching and support_fits:
        return delivered
    angles = " and ".join(f"{a:g}" for a in room.beam_angle_deg)
    wanted = f"gantry {beam.gantry_angle_deg:g} and support {beam.support_angle_deg:g} degrees"
    if place.qa:
        findings.notes.append(
            f"QA: {beam.where()} is planned for {wanted}, delivered at the fixed {delivered:g} degrees of room "
            f"{place.room_id}, support {room.patient_support_deg:g} degrees"
        )
        return delivered
    findings.add(
        "plan.angle",
        f"the beam is planned for {wanted}",
        beam.where(),
        f"room {place.room_id} has gantry {angles} and support {room.patient_support_deg:g} degrees; another room, or "
        "QA mode, which delivers at the room's fixed angle",
    )
    return delivered


def _shifters(beam: Beam, facility: Facility, findings: Findings) -> tuple[tuple[str, ...], int]:
    """The facility's range shifters for this beam: ids and bit mask."""
    code = 0
    for wanted in beam.range_shifters:
        bit = _matching_shifter(wanted, facility)
        if bit is None or code & (1 << bit):
            known = ", ".join(f"{s.id} ({s.water_equivalent_mm:g} mm)" for s in facility.range_shifters) or "none"
            thickness = "thickness not stated" if wanted.wet_mm is None else f"{wanted.wet_mm:g} mm of water"
            twice = "twice " if bit is not None else ""
            findings.add(
                "plan.range-shifter",
                f"the plan wants range shifter {wanted.shifter_id!r} ({thickness}) {twice}in the beam",
                beam.where(),
                f"{facility.id} has: {known}",
            )
            continue
        code |= 1 << bit
    return tuple(s.id for k, s in enumerate(facility.range_shifters) if code & (1 << k)), code


def _matching_shifter(wanted: RangeShifter, facility: Facility) -> int | None:
    """By id; the thickness has to agree where it is stated. An unknown id may match by thickness alone."""
    for k, shifter in enumerate(facility.range_shifters):
        same = wanted.wet_mm is None or abs(wanted.wet_mm - shifter.water_equivalent_mm) <= SHIFTER_TOLERANCE_MM
        if shifter.id == wanted.shifter_id:
            return k if same else None
    for k, shifter in enumerate(facility.range_shifters):
        if wanted.wet_mm is not None and abs(wanted.wet_mm - shifter.water_equivalent_mm) <= SHIFTER_TOLERANCE_MM:
            return k
    return None


def species_fits(beam: Beam, facility: Facility, findings: Findings) -> bool:
    """Whether the facility accelerates this ion, charge state included."""
    ion = facility.species.get(beam.species)
    if ion is not None and (ion.mass_number, ion.charge) == (beam.mass_number, beam.charge_state):
        return True
    has = ", ".join(f"{name} ({s.charge}+)" for name, s in facility.species.items())
    what = f"the beam is of {beam.species} ({beam.charge_state}+)"
    findings.add("plan.species", what, beam.where(), f"{facility.id} delivers {has}")
    return False
