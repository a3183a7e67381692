"""A session as a DICOM RT Ion Beams Treatment Record (PS3.3 A.52, C.8.8.26); the same account gives the same bytes.

Control points are those of the plan: two for each layer, the first with what was delivered from there to the second.
A spot is named by its place in the plan (`ScanSpotPrescribedIndices`, from 1); its position is the measured one, the
planned one where nothing was measured. Metersets are in the plan's own unit, FL, that is to 6e-8; cumulative ones DS.
Layers of which nothing was delivered are left out. What DICOM has no place for is one private JSON element.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from control.layer_table import COLUMN, FloatArray, measured
from control.plan.dicom_bytes import IMPLICIT_LE
from control.plan.dicom_reader import RT_ION_PLAN
from control.plan.dicom_writer import MANUFACTURER, ds
from control.plan.model import SPECIES
from control.plan.uids import derived_uid
from facility.errors import JournalError
from facility.events import canonical_json
from records.account import LayerAccount, Override, SessionAccount

RT_ION_RECORD = "1.2.840.10008.5.1.4.1.1.481.9"
PRIVATE_GROUP, PRIVATE_CREATOR = 0x3009, "IONCTL RECORD"
RECORD_SCHEMA = "ionctl.record/1"
_CONCERNED = {
    "": ("TreatmentVerificationStatus", "TreatmentSessionIonBeamSequence"),
    "GantryAngle": ("GantryAngle", "IonControlPointDeliverySequence"),
}
"""Parameter of an override, and the sequence it is in. A bypass or a mode concerns what was verified, and how."""
_ION = {name: numbers for numbers, name in SPECIES.items()}


def record_bytes(account: SessionAccount) -> bytes:
    """The file. JournalError 'record.empty' for a session that has delivered nothing."""
    layers = [one for one in account.layers if one.begun.size]
    if not layers:
        raise JournalError("record.empty", "nothing was delivered: there is nothing to put on record",
                           account.entry.session)  # fmt: skip
    dataset = _dataset(account, layers)
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return out.getvalue()


def _dataset(account: SessionAccount, layers: list[LayerAccount]) -> Dataset:
    entry, program = account.entry, account.program
    dataset = Dataset()
    dataset.file_meta = _file_meta(account.uid)
    _add_identity(dataset, account)
    dataset.InstanceNumber = max(entry.fraction, 1)
    began = layers[0].began
    dataset.TreatmentDate, dataset.TreatmentTime = _date(began), _time(began)
    plan = Dataset()
    plan.ReferencedSOPClassUID, plan.ReferencedSOPInstanceUID = UID(RT_ION_PLAN), UID(program.plan_uid)
    dataset.ReferencedRTPlanSequence = Items([plan])
    if account.earlier:
        dataset.ReferencedTreatmentRecordSequence = Items([_reference(uid) for uid in account.earlier])
    machine = Dataset()
    machine.TreatmentMachineName = entry.facility[:16]
    machine.Manufacturer = machine.ManufacturerModelName = MANUFACTURER
    machine.InstitutionName = machine.DeviceSerialNumber = ""
    dataset.TreatmentMachineSequence = Items([machine])
    dataset.OperatorsName = f"{entry.operator}^"  # an issuer of commands, no person
    dataset.ReferencedFractionGroupNumber = 1
    dataset.NumberOfFractionsPlanned = program.fractions
    dataset.PrimaryDosimeterUnit = program.unit
    numbers = sorted({one.layer.beam_number for one in layers})
    dataset.TreatmentSessionIonBeamSequence = Items(
        [_beam(account, [one for one in layers if one.layer.beam_number == number]) for number in numbers]
    )
    dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True).add_new(0x01, "UT", _header(account))
    return dataset


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID(RT_ION_RECORD), UID(uid)
    return item


def _header(account: SessionAccount) -> str:
    entry = account.entry
    data = {
        "schema": RECORD_SCHEMA, "session": entry.session, "status": entry.status, "plan_hash": entry.plan_hash,
        "facility": entry.facility, "config_hash": entry.config_hash, "energy_table": entry.energy_table,
        "room": entry.room, "mode": entry.mode, "qa": entry.qa, "fraction": entry.fraction,
        "verified": account.verified,
        "continues": entry.continues, "journal_seq": account.last_seq, "unheard_layers": list(account.unheard),
        "uncertain_ions": {str(one.index): float(one.entry.uncertain.sum()) for one in account.layers
                           if one.entry.uncertain.any()},
    }  # fmt: skip
    return canonical_json(data).decode("utf-8")


def _file_meta(instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(RT_ION_RECORD)
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = UID(IMPLICIT_LE)
    meta.ImplementationClassUID = UID(derived_uid("ionctl", "implementation"))
    meta.ImplementationVersionName = "IONCTL"
    return meta


def _add_identity(dataset: Dataset, account: SessionAccount) -> None:
    entry = account.entry
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = _date(account.opened), _time(account.opened)
    dataset.SOPClassUID = UID(RT_ION_RECORD)
    dataset.SOPInstanceUID = UID(account.uid)
    dataset.StudyDate, dataset.StudyTime = _date(account.opened), _time(account.opened)
    dataset.AccessionNumber = ""
    dataset.Modality = "RTRECORD"
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = ""  # identifiers only
    dataset.PatientID = entry.patient
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.SoftwareVersions = MANUFACTURER
    dataset.StudyInstanceUID = UID(derived_uid("study", entry.plan_hash))
    dataset.SeriesInstanceUID = UID(derived_uid("records", entry.facility, entry.plan_hash))
    dataset.StudyID = entry.plan_hash[:16]
    dataset.SeriesNumber = 1


def _beam(account: SessionAccount, layers: list[LayerAccount]) -> Dataset:
    program, first = account.program, layers[0].layer
    item = Dataset()
    item.ReferencedBeamNumber = first.beam_number
    item.BeamName = f"beam {first.beam_number}"
    item.BeamType = "STATIC"
    _add_radiation(item, first.species)
    item.ScanMode, item.ModulatedScanModeType = "MODULATED", "STATIONARY"
    item.NumberOfWedges = item.NumberOfCompensators = item.NumberOfBoli = item.NumberOfBlocks = 0
    item.NumberOfRangeShifters = len(first.range_shifter_ids)
    if first.range_shifter_ids:
        item.RecordedRangeShifterSequence = Items([_shifter(n, x) for n, x in enumerate(first.range_shifter_ids, 1)])
    item.NumberOfLateralSpreadingDevices = item.NumberOfRangeModulators = 0
    item.PatientSupportType = "TABLE"
    item.CurrentFractionNumber = account.entry.fraction or None
    item.TreatmentDeliveryType = account.entry.delivery
    item.TreatmentTerminationStatus = account.termination
    if account.reason:
        item.TreatmentTerminationDescription = account.reason[:1024]
    # type 2; dciodvfy knows VERIFIED_OVR alone of its three words, so the others are in the private header
    item.TreatmentVerificationStatus = "VERIFIED_OVR" if account.verified and account.overrides else ""
    mine = [layer for layer in program.layers if layer.beam_number == first.beam_number]
    item.SpecifiedPrimaryMeterset = ds(sum(float(one.target_ions.sum()) / one.ions_per_unit for one in mine))
    for name, column in (("Primary", "ic1_ions"), ("Secondary", "ic2_ions")):
        total = sum(float(one.entry.rows[:, COLUMN[column]].sum()) / one.layer.ions_per_unit for one in layers)
        setattr(item, f"Delivered{name}Meterset", ds(total))
    item.DeliveredTreatmentTime = ds(sum(float(one.entry.rows[:, COLUMN["beam_us"]].sum()) for one in layers) * 1e-6)
    item.NumberOfControlPoints = 2 * len(layers)
    item.IonControlPointDeliverySequence = Items(_control_points(account, layers))
    return item


def _add_radiation(item: Dataset, species: str) -> None:
    if species == "proton":
        item.RadiationType = "PROTON"
        return
    mass, atomic = _ION[species]
    item.RadiationType = "ION"
    item.RadiationMassNumber, item.RadiationAtomicNumber, item.RadiationChargeState = mass, atomic, atomic


def _shifter(number: int, shifter_id: str) -> Dataset:
    item = Dataset()
    item.ReferencedRangeShifterNumber = number
    item.RangeShifterID = shifter_id[:16]
    return item


def _control_points(account: SessionAccount, layers: list[LayerAccount]) -> list[Dataset]:
    points: list[Dataset] = []
    planned = given = 0.0
    for one in layers:
        index, spots = one.layer.control_point, one.begun
        units = one.given_ions[spots] / one.layer.ions_per_unit
        start = _control_point(one, index, one.began, (planned, given), units)
        if not points:
            _add_geometry(start, account, one)
        if one.entry.loads <= 1:  # more loads may be of several runs, each with a time of its own
            _add_floats(start, "ScanSpotTimeOffset", _offsets_us(one, spots))
        planned += float(one.layer.target_ions.sum()) / one.layer.ions_per_unit
        given += float(units.sum())
        points += [start, _control_point(one, index + 1, one.ended, (planned, given), np.zeros(spots.size))]
    return points


def _control_point(
    one: LayerAccount, index: int, at: datetime, metersets: tuple[float, float], units: FloatArray
) -> Dataset:
    layer, spots = one.layer, one.begun
    item = Dataset()
    item.set_original_encoding(True, True, default_encoding)  # so that bytes are written as they are
    indices = layer.spot_index[spots] + 1
    whole = np.array_equal(indices, np.arange(1, indices.size + 1)) and spots.size == layer.n_spots
    _add_texts(
        item, ReferencedControlPointIndex=index, TreatmentControlPointDate=_date(at),
        TreatmentControlPointTime=_time(at), SpecifiedMeterset=ds(metersets[0]), DeliveredMeterset=ds(metersets[1]),
        NominalBeamEnergy=ds(layer.energy_mev_u), ScanSpotTuneID=layer.energy_code,
        NumberOfScanSpotPositions=int(spots.size), ScanSpotReordered="NO" if whole else "YES",
        NumberOfPaintings=layer.paintings,
    )  # fmt: skip
    if not whole:
        item.ScanSpotPrescribedIndices = indices.tolist()
    _add_floats(item, "ScanSpotPositionMap", positions_mm(one)[spots].ravel())
    _add_floats(item, "ScanSpotMetersetsDelivered", units)
    return item


def _add_texts(item: Dataset, **values: object) -> None:
    """Short texts and whole numbers, ASCII, as the bytes that they are: for the reason of `_add_floats`."""
    for keyword, value in values.items():
        tag, kind = _known_tag(keyword)
        data = str(value).encode("ascii")
        data += b" " * (len(data) % 2)
        item[tag] = RawDataElement(tag, kind, len(data), data, 0, True, True)


@functools.cache
def _known_tag(keyword: str) -> tuple[BaseTag, str]:
    tag = Tag(keyword)
    return tag, dictionary_VR(tag)


def _add_floats(item: Dataset, keyword: str, values: FloatArray) -> None:
    """An FL of many values as the bytes that it is: pydicom looks at each number, ten times as long as all the rest."""
    tag, data = _known_tag(keyword)[0], np.ascontiguousarray(values, dtype="<f4").tobytes()
    item[tag] = RawDataElement(tag, "FL", len(data), data, 0, True, True)


def positions_mm(one: LayerAccount) -> FloatArray:
    """Spot centres (n, 2) at the isocentre: measured, else planned."""
    rows = one.entry.rows
    seen = measured(rows)[:, None]
    found = rows[:, [COLUMN["x_mm"], COLUMN["y_mm"]]]
    return np.where(seen, found, np.column_stack([one.layer.x_mm, one.layer.y_mm]))


def _offsets_us(one: LayerAccount, spots: np.ndarray[tuple[int], np.dtype[np.intp]]) -> FloatArray:
    """From the layer's first beam to the beginning of each spot, us."""
    rows = one.entry.rows[spots]
    begin = 1e-3 * (rows[:, COLUMN["t_end_ns"]] - one.first_ns) - rows[:, COLUMN["beam_us"]]
    offsets: FloatArray = np.maximum(begin, 0.0)
    return offsets


def _add_geometry(item: Dataset, account: SessionAccount, one: LayerAccount) -> None:
    beam = account.program.beams[one.layer.beam_index]
    item.GantryAngle = ds(beam.delivered_angle_deg)
    item.GantryRotationDirection = "NONE"
    item.GantryPitchAngle = 0.0
    item.GantryPitchRotationDirection = "NONE"
    item.BeamLimitingDeviceAngle = 0
    item.BeamLimitingDeviceRotationDirection = "NONE"
    item.PatientSupportAngle = 0
    item.PatientSupportRotationDirection = "NONE"
    item.TableTopPitchAngle = item.TableTopRollAngle = 0.0
    item.TableTopPitchRotationDirection = item.TableTopRollRotationDirection = "NONE"
    item.TableTopVerticalPosition = item.TableTopLongitudinalPosition = item.TableTopLateralPosition = None
    if one.layer.range_shifter_ids:
        item.RangeShifterSettingsSequence = Items(
            [_shifter_setting(n) for n in range(1, 1 + len(one.layer.range_shifter_ids))]
        )
    if account.overrides:
        item.OverrideSequence = Items(_overrides(account.overrides))


def _shifter_setting(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedRangeShifterNumber = number
    item.RangeShifterSetting = "IN"
    return item


def _overrides(overrides: Sequence[Override]) -> list[Dataset]:
    items = []
    for one in overrides:
        item = Dataset()
        parameter, sequence = _CONCERNED.get(one.parameter, _CONCERNED[""])
        item.ParameterSequencePointer = tag_for_keyword(sequence)
        item.OverrideParameterPointer = tag_for_keyword(parameter)
        item.ParameterItemIndex = 1
        item.OperatorsName = f"{one.by}^"
        item.OverrideReason = one.reason[:1024]
        items.append(item)
    return items


def _date(at: datetime) -> str:
    return at.strftime("%Y%m%d")


def _time(at: datetime) -> str:
    return at.strftime("%H%M%S.%f")
