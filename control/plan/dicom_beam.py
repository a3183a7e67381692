"""What a beam of an RT Ion Plan says besides its spots: the ion, angles, range shifters, what else is in the way."""

from __future__ import annotations

from pydicom.dataset import Dataset

from control.plan import dicom_tags as tags
from control.plan.model import SPECIES, RangeShifter
from facility.errors import PlanError

_ANGLE_TOLERANCE_DEG = 1e-6
_COUNTED = (
    ("NumberOfBlocks", "block"),
    ("NumberOfCompensators", "compensator"),
    ("NumberOfBoli", "bolus"),
    ("NumberOfWedges", "wedge"),
    ("NumberOfRangeModulators", "range modulator"),
)


def ion_of(item: Dataset, where: str) -> tuple[str, int, int]:
    """Species, mass number and charge state. PROTON needs no more; ION has to say which."""
    kind = tags.required_text(item, "RadiationType", where)
    if kind == "PROTON":
        return "proton", 1, 1
    if kind != "ION":
        what = f"{tags.tag_name('RadiationType')} is {kind}"
        raise PlanError("plan.radiation", what, where, "only ION and PROTON are delivered here")
    mass = tags.integer(item, "RadiationMassNumber", where)
    atomic = tags.integer(item, "RadiationAtomicNumber", where)
    charge = tags.integer(item, "RadiationChargeState", where)
    return SPECIES.get((mass, atomic), f"ion-{mass}-{atomic}"), mass, charge


def steady_angle(points: list[Dataset], keyword: str, where: str, *, required: bool) -> float:
    """An angle in degrees that must not change during the beam; 0 when absent and not required."""
    if required:
        tags.number(points[0], keyword, where)
    said = [tags.optional_number(point, keyword, where) for point in points]
    angles = [angle for angle in said if angle is not None]
    if not angles:
        return 0.0
    if any(abs(angle - angles[0]) > _ANGLE_TOLERANCE_DEG for angle in angles):
        raise PlanError(
            "plan.moving-angle",
            f"{tags.tag_name(keyword)} changes during the beam",
            where,
            "plan a beam for each angle; nothing moves while the beam is on",
        )
    return angles[0] % 360.0


def range_shifters(item: Dataset, points: list[Dataset], where: str) -> tuple[RangeShifter, ...]:
    """Range shifters the beam wants in, in the order declared; a declared one without a setting has no thickness."""
    declared = {
        tags.integer(shifter, "RangeShifterNumber", where): tags.text(shifter, "RangeShifterID", where)
        for shifter in tags.items(item, "RangeShifterSequence", where, required=False)
    }
    settings = [_settings(point, where) for point in points]
    first = settings[0]
    if any(later and later != first for later in settings[1:]):
        raise PlanError(
            "plan.range-shifter", "the range shifters change during the beam", where, "plan a beam for each setting"
        )
    unknown = sorted(set(first) - set(declared))
    if unknown:
        what = f"range shifter {unknown[0]} is set, but {tags.tag_name('RangeShifterSequence')} does not declare it"
        raise PlanError("plan.range-shifter", what, where, "export the plan again")
    wanted = []
    for number, shifter_id in declared.items():
        inside, wet_mm = first.get(number, (True, None))
        if inside:
            wanted.append(RangeShifter(shifter_id or str(number), wet_mm))
    return tuple(wanted)


def _settings(point: Dataset, where: str) -> dict[int, tuple[bool, float | None]]:
    """Range shifter number to (in the beam, water equivalent thickness in mm)."""
    found: dict[int, tuple[bool, float | None]] = {}
    for setting in tags.items(point, "RangeShifterSettingsSequence", where, required=False):
        number = tags.integer(setting, "ReferencedRangeShifterNumber", where)
        inside = tags.required_text(setting, "RangeShifterSetting", where).upper() != "OUT"
        found[number] = (inside, tags.optional_number(setting, "RangeShifterWaterEquivalentThickness", where))
    return found


def accessories(item: Dataset, points: list[Dataset], where: str) -> tuple[str, ...]:
    """Names of things in the beam that this product does not model; scanning magnets of no thickness are not named."""
    found = []
    for keyword, word in _COUNTED:
        count = tags.optional_integer(item, keyword, where) or 0
        if count:
            found.append(word if count == 1 else f"{count} x {word}")
    found += [
        "lateral spreading device"
        for point in points
        for device in tags.items(point, "LateralSpreadingDeviceSettingsSequence", where, required=False)
        if tags.optional_number(device, "LateralSpreadingDeviceWaterEquivalentThickness", where)
    ]
    return tuple(dict.fromkeys(found))
