"""Read a DICOM RT Ion Beams Treatment Record, ours or another vendor's. PlanError for all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from control.plan import dicom_tags as tags
from control.plan.dicom_bytes import UNREADABLE, load_dataset
from control.plan.model import FloatArray, IntArray, WeightUnit
from facility.errors import PlanError
from records.dicom_record import PRIVATE_CREATOR, PRIVATE_GROUP, RT_ION_RECORD

MAX_BYTES = 512 * 1024 * 1024
_FIX = "ask whoever wrote it for another one"


@dataclass(frozen=True, eq=False)
class RecordedLayer:
    """What was delivered from one control point to the next; arrays of shape (n,), positions in mm at the isocentre."""

    control_point: int
    """Of the plan, 0-based."""
    energy_mev_u: float
    spot: IntArray
    """Index in the plan's control point, 0-based; a painted spot comes several times."""
    meterset: FloatArray
    """Delivered, in the record's unit."""
    x_mm: FloatArray
    y_mm: FloatArray


@dataclass(frozen=True, eq=False)
class RecordedBeam:
    """One beam of a record."""

    number: int
    delivery: str
    termination: str
    reason: str
    meterset: float | None
    """Delivered, as the beam says it."""
    overrides: tuple[str, ...]
    layers: tuple[RecordedLayer, ...]


@dataclass(frozen=True, eq=False)
class Record:
    """A treatment record."""

    name: str
    """Of the file."""
    uid: str
    patient_id: str
    plan_uid: str
    unit: WeightUnit
    fraction: int
    """0: none."""
    beams: tuple[RecordedBeam, ...]
    header: Mapping[str, Any]
    """What ionctl writes beside it (`docs/reference/formats.md`); empty in another's record."""

    @property
    def complete(self) -> bool:
        """It says that all went as planned, from the beginning to the end."""
        return all(beam.termination == "NORMAL" and beam.delivery != "CONTINUATION" for beam in self.beams)


def read_record(data: bytes, name: str) -> Record:
    """The record in the bytes of a DICOM file; `name` is used in messages."""
    if len(data) > MAX_BYTES:
        raise PlanError("record.unreadable", "the file is too large for a record", name, _FIX)
    dataset = load_dataset(data, name)
    sop_class = tags.required_text(dataset, "SOPClassUID", name)
    if sop_class != RT_ION_RECORD:
        raise PlanError("record.class", f"of SOP class {sop_class}, no RT Ion Beams Treatment Record", name, _FIX)
    unit = tags.required_text(dataset, "PrimaryDosimeterUnit", name)
    if unit not in ("MU", "NP"):
        raise PlanError("record.unit", f"{tags.tag_name('PrimaryDosimeterUnit')} is {unit}", name, "use MU or NP")
    beams = tags.items(dataset, "TreatmentSessionIonBeamSequence", name)
    plans = tags.items(dataset, "ReferencedRTPlanSequence", name, required=False)
    fractions = {tags.optional_integer(beam, "CurrentFractionNumber", name) or 0 for beam in beams}
    return Record(
        name=name,
        uid=tags.required_text(dataset, "SOPInstanceUID", name),
        patient_id=tags.text(dataset, "PatientID", name),
        plan_uid=tags.text(plans[0], "ReferencedSOPInstanceUID", name) if plans else "",
        unit="MU" if unit == "MU" else "NP",
        fraction=max(fractions),
        beams=tuple(_beam(beam, name) for beam in beams),
        header=_header(dataset, name),
    )


def _header(dataset: Dataset, name: str) -> Mapping[str, Any]:
    try:
        text = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[0x01].value
    except KeyError:
        return {}
    except UNREADABLE as problem:
        raise PlanError("record.header", f"its own header cannot be read: {problem}", name, _FIX) from problem
    try:
        found = json.loads(text)
    except UNREADABLE as problem:
        raise PlanError("record.header", "its own header is no JSON", name, _FIX) from problem
    if not isinstance(found, dict):
        raise PlanError("record.header", "its own header is no JSON object", name, _FIX)
    return found


def _beam(item: Dataset, name: str) -> RecordedBeam:
    number = tags.integer(item, "ReferencedBeamNumber", name)
    where = f"{name}, beam {number}"
    points = tags.items(item, "IonControlPointDeliverySequence", where)
    overrides = [
        tags.text(one, "OverrideReason", where)
        for point in points
        for one in tags.items(point, "OverrideSequence", where, required=False)
    ]
    return RecordedBeam(
        number=number,
        delivery=tags.text(item, "TreatmentDeliveryType", where, "TREATMENT"),
        termination=tags.required_text(item, "TreatmentTerminationStatus", where),
        reason=tags.text(item, "TreatmentTerminationDescription", where),
        meterset=tags.optional_number(item, "DeliveredPrimaryMeterset", where),
        overrides=tuple(overrides),
        layers=_layers(points, where),
    )


def _layers(points: list[Dataset], where: str) -> tuple[RecordedLayer, ...]:
    layers, energy = [], 0.0
    for place, point in enumerate(points):
        here = f"{where}, control point {place}"
        said = tags.optional_integer(point, "ReferencedControlPointIndex", here)
        energy = tags.optional_number(point, "NominalBeamEnergy", here) or energy
        units = tags.numbers(point, "ScanSpotMetersetsDelivered", here)
        if not np.any(units != 0.0):
            continue
        layers.append(_layer(point, place if said is None else said, energy, units, here))
    return tuple(layers)


def _layer(point: Dataset, index: int, energy: float, units: FloatArray, where: str) -> RecordedLayer:
    positions = tags.numbers(point, "ScanSpotPositionMap", where)
    if positions.size != 2 * units.size or not np.all(np.isfinite(units)) or not np.all(np.isfinite(positions)):
        what = f"{units.size} metersets and {positions.size} coordinates do not belong together, or are no numbers"
        raise PlanError("record.spots", what, where, _FIX)
    spot = np.arange(units.size, dtype=np.int64)
    indices = tags.optional_numbers(point, "ScanSpotPrescribedIndices", where)
    if indices is not None:
        if (
            indices.size != units.size
            or not np.all(np.isfinite(indices))
            or (indices < 1).any()
            or (indices > 1e9).any()
        ):
            raise PlanError("record.indices", f"{indices.size} indices from 1 for {units.size} spots", where, _FIX)
        spot = indices.astype(np.int64) - 1
    return RecordedLayer(index, energy, spot, units, positions[0::2], positions[1::2])
