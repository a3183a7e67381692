"""Write a plan as a DICOM RT Ion Plan (PS3.3 A.49); the same plan gives the same bytes.

Positions and weights are FL (32-bit) in DICOM, energies and metersets DS (16 characters). A plan whose numbers fit
these, as every made plan's do, comes back exactly; other positions and weights within 6e-8 relative, energies within
1e-13. BeamMeterset and FinalCumulativeMetersetWeight are written alike, so a reader scales by one. Implicit VR little
endian, because an explicit FL value ends at 64 kB, which is 8,191 spots.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import DSfloat, format_number_as_ds

from control.plan.dicom_bytes import IMPLICIT_LE
from control.plan.dicom_reader import RT_ION_PLAN
from control.plan.model import SPECIES, Beam, FloatArray, Layer, Plan, RangeShifter, plan_hash
from control.plan.uids import derived_uid
from facility.errors import PlanError

#: Written where no date is given: a file must not depend on the day it is made.
DEFAULT_DATE = "20260101"
DEFAULT_TIME = "120000"
MANUFACTURER = "ionctl"
MACHINE = "IONCTL"
VIRTUAL_SOURCE_AXIS_DISTANCES_MM = (7000.0, 6500.0)
_ATOMIC_NUMBER = {name: atomic for (_, atomic), name in SPECIES.items()}


def write_dicom_plan(plan: Plan, path: Path | str, *, date: str = DEFAULT_DATE, time: str = DEFAULT_TIME) -> None:
    """Write `plan` to `path`. `date` is YYYYMMDD, `time` HHMMSS. Raises PlanError as `dicom_bytes` does."""
    data = dicom_bytes(plan, date=date, time=time)
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise PlanError(
            "plan.not-written", f"cannot be written: {error.strerror or error}", str(path), "check the folder"
        ) from error


def dicom_bytes(plan: Plan, *, date: str = DEFAULT_DATE, time: str = DEFAULT_TIME) -> bytes:
    """The plan as bytes of a DICOM file. Raises PlanError for beams with accessories, which the model does not hold."""
    for beam in plan.beams:
        if beam.accessories:
            what = f"accessories ({', '.join(beam.accessories)}) cannot be written"
            raise PlanError("plan.not-written", what, beam.where(), "remove them from the plan")
    dataset = _dataset(plan, date, time)
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return out.getvalue()


def _dataset(plan: Plan, date: str, time: str) -> Dataset:
    content = plan_hash(plan)
    dataset = Dataset()
    dataset.file_meta = _file_meta(plan.plan_uid)
    _add_identity(dataset, plan, content, date, time)
    dataset.RTPlanLabel = plan.label[:16] or "PLAN"
    dataset.RTPlanDate, dataset.RTPlanTime = date, time
    if plan.intent:
        dataset.PlanIntent = plan.intent
    dataset.RTPlanGeometry = "TREATMENT_DEVICE"
    dataset.DoseReferenceSequence = Sequence([_dose_reference(plan)])
    dataset.FractionGroupSequence = Sequence([_fraction_group(plan)])
    dataset.PatientSetupSequence = Sequence([_patient_setup()])
    dataset.IonBeamSequence = Sequence([_beam(beam) for beam in plan.beams])
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _file_meta(instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(RT_ION_PLAN)
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = UID(IMPLICIT_LE)
    meta.ImplementationClassUID = UID(derived_uid("ionctl", "implementation"))
    meta.ImplementationVersionName = "IONCTL"
    return meta


def _add_identity(dataset: Dataset, plan: Plan, content: str, date: str, time: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SOPClassUID = UID(RT_ION_PLAN)
    dataset.SOPInstanceUID = UID(plan.plan_uid)
    dataset.StudyDate, dataset.StudyTime = date, time
    dataset.AccessionNumber = ""
    dataset.Modality = "RTPLAN"
    dataset.Manufacturer = MANUFACTURER
    dataset.ReferringPhysicianName = ""
    dataset.OperatorsName = ""
    dataset.ManufacturerModelName = MANUFACTURER
    dataset.PatientName = f"{plan.patient_id or 'QA'}^"
    dataset.PatientID = plan.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.SoftwareVersions = MANUFACTURER
    dataset.StudyInstanceUID = UID(derived_uid("study", content))
    dataset.SeriesInstanceUID = UID(derived_uid("series", content))
    dataset.StudyID = content[:16]
    dataset.SeriesNumber = 1
    dataset.FrameOfReferenceUID = UID(derived_uid("frame", content))
    dataset.PositionReferenceIndicator = ""


def _dose_reference(plan: Plan) -> Dataset:
    item = Dataset()
    item.DoseReferenceNumber = 1
    item.DoseReferenceStructureType = "SITE"
    item.DoseReferenceDescription = "Absorbed dose in water"
    item.DoseReferenceType = "TARGET"
    if plan.prescribed_dose_gy is not None:
        item.TargetPrescriptionDose = ds(plan.prescribed_dose_gy)
    return item


def _fraction_group(plan: Plan) -> Dataset:
    item = Dataset()
    item.FractionGroupNumber = 1
    item.NumberOfFractionsPlanned = plan.fractions
    item.NumberOfBeams = len(plan.beams)
    item.NumberOfBrachyApplicationSetups = 0
    references = []
    for beam in plan.beams:
        reference = Dataset()
        reference.ReferencedBeamNumber = beam.number
        reference.BeamMeterset = ds(_stored_meterset(beam))
        references.append(reference)
    item.ReferencedBeamSequence = Sequence(references)
    return item


def _patient_setup() -> Dataset:
    item = Dataset()
    item.PatientSetupNumber = 1
    item.PatientPosition = "HFS"
    return item


def _beam(beam: Beam) -> Dataset:
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.TreatmentMachineName = beam.machine_name[:16] or MACHINE
    item.PrimaryDosimeterUnit = beam.meterset_unit
    item.BeamNumber = beam.number
    item.BeamName = beam.name[:64]
    item.BeamType = "STATIC"
    _add_radiation(item, beam)
    item.TreatmentDeliveryType = "TREATMENT"
    item.NumberOfWedges = 0
    item.NumberOfCompensators = 0
    item.NumberOfBoli = 0
    item.NumberOfBlocks = 0
    item.FinalCumulativeMetersetWeight = ds(_stored_meterset(beam))
    item.NumberOfControlPoints = 2 * len(beam.layers)
    item.ScanMode = "MODULATED"
    item.ModulatedScanModeType = "STATIONARY"
    item.VirtualSourceAxisDistances = list(VIRTUAL_SOURCE_AXIS_DISTANCES_MM)
    item.NumberOfRangeShifters = len(beam.range_shifters)
    if beam.range_shifters:
        item.RangeShifterSequence = Sequence([_shifter(n, s) for n, s in enumerate(beam.range_shifters, start=1)])
    item.NumberOfLateralSpreadingDevices = 0
    item.NumberOfRangeModulators = 0
    item.PatientSupportType = "TABLE"
    item.IonControlPointSequence = Sequence(_control_points(beam))
    item.ReferencedPatientSetupNumber = 1
    return item


def _add_radiation(item: Dataset, beam: Beam) -> None:
    if beam.species == "proton":
        item.RadiationType = "PROTON"
        return
    atomic = _ATOMIC_NUMBER.get(beam.species)
    item.RadiationType = "ION"
    item.RadiationMassNumber = beam.mass_number
    item.RadiationAtomicNumber = beam.charge_state if atomic is None else atomic
    item.RadiationChargeState = beam.charge_state


def _shifter(number: int, shifter: RangeShifter) -> Dataset:
    item = Dataset()
    item.RangeShifterNumber = number
    item.RangeShifterID = shifter.shifter_id[:16]
    item.RangeShifterType = "BINARY"
    return item


def _control_points(beam: Beam) -> list[Dataset]:
    """Two per layer: the first with the weights, the second with the same spots and none."""
    points: list[Dataset] = []
    cumulative = 0.0
    for layer in beam.layers:
        stored = _stored(layer.weight)
        start = _control_point(len(points), layer, cumulative, stored)
        if not points:
            _add_geometry(start, beam)
        points.append(start)
        cumulative += float(np.sum(stored))
        points.append(_control_point(len(points), layer, cumulative, np.zeros_like(stored)))
    return points


def _control_point(index: int, layer: Layer, cumulative: float, weights: FloatArray) -> Dataset:
    item = Dataset()
    item.ControlPointIndex = index
    item.NominalBeamEnergy = ds(layer.energy_mev_u)
    item.CumulativeMetersetWeight = ds(cumulative)
    item.ScanSpotTuneID = layer.tune_id[:16] or "1"
    item.NumberOfScanSpotPositions = layer.n_spots
    item.ScanSpotPositionMap = np.column_stack((layer.x_mm, layer.y_mm)).ravel().tolist()
    item.ScanSpotMetersetWeights = weights.tolist()
    if layer.fwhm_mm is not None:
        item.ScanningSpotSize = list(layer.fwhm_mm)
    item.NumberOfPaintings = layer.paintings
    return item


def _add_geometry(item: Dataset, beam: Beam) -> None:
    item.GantryAngle = ds(beam.gantry_angle_deg)
    item.GantryRotationDirection = "NONE"
    item.GantryPitchAngle = 0.0
    item.GantryPitchRotationDirection = "NONE"
    item.BeamLimitingDeviceAngle = 0
    item.BeamLimitingDeviceRotationDirection = "NONE"
    item.PatientSupportAngle = ds(beam.support_angle_deg)
    item.PatientSupportRotationDirection = "NONE"
    item.TableTopPitchAngle = 0.0
    item.TableTopPitchRotationDirection = "NONE"
    item.TableTopRollAngle = 0.0
    item.TableTopRollRotationDirection = "NONE"
    item.TableTopVerticalPosition = None
    item.TableTopLongitudinalPosition = None
    item.TableTopLateralPosition = None
    item.IsocenterPosition = [ds(v) for v in (beam.isocentre_mm or (0.0, 0.0, 0.0))]
    if beam.range_shifters:
        settings = [_shifter_setting(n, s) for n, s in enumerate(beam.range_shifters, start=1)]
        item.RangeShifterSettingsSequence = Sequence(settings)


def _shifter_setting(number: int, shifter: RangeShifter) -> Dataset:
    item = Dataset()
    item.ReferencedRangeShifterNumber = number
    item.RangeShifterSetting = "IN"
    if shifter.wet_mm is not None:
        item.RangeShifterWaterEquivalentThickness = shifter.wet_mm
    return item


def _stored(values: FloatArray) -> FloatArray:
    """What FL keeps of the values."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _stored_meterset(beam: Beam) -> float:
    return float(sum(float(np.sum(_stored(layer.weight))) for layer in beam.layers))


def ds(value: float) -> DSfloat:
    """A number in the 16 characters of a DS."""
    return DSfloat(format_number_as_ds(float(value)))
