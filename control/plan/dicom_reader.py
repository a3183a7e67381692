"""DICOM RT Ion Plan (PS3.3 A.49, C.8.8.25 to C.8.8.27) to the plan model, as vendors write it.

Read: ION and PROTON, modulated scanning, meterset in MU or NP. The meterset of a spot is
weight x BeamMeterset / FinalCumulativeMetersetWeight; a planning system may write weights that are no MU. Weights of a
control point are delivered from there to the next one, so the last control point carries none. What a control point
leaves out (energy, angles) holds on from the one before. ModulatedScanModeType is not asked for: vendors leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

from control.plan import dicom_tags as tags
from control.plan.dicom_beam import accessories, ion_of, range_shifters, steady_angle
from control.plan.dicom_bytes import load_dataset
from control.plan.model import Beam, Layer, Plan, WeightUnit, beam_meterset, make_layer, place, require_layers
from facility.errors import PlanError

RT_ION_PLAN = "1.2.840.10008.5.1.4.1.1.481.8"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
#: Weights and cumulative metersets are rounded by vendors; the largest difference seen in five plans is 7e-5.
METERSET_TOLERANCE = 1e-3
#: Energies of a layer's two control points may be rounded apart by so much of themselves.
ENERGY_TOLERANCE = 1e-3
_SCAN_MODES = ("MODULATED", "MODULATED_SPEC")
_DELIVERED_TYPES = ("", "TREATMENT", "CONTINUATION")


@dataclass(frozen=True)
class _BeamContext:
    name: str
    number: int
    scale: float | None  # None: meterset equals the final weight, nothing to scale

    def where(self, layer: int | None = None) -> str:
        return place(self.name, self.number, layer)

    def control_point(self, index: int) -> str:
        return f"{self.where()}, control point {index}"


def read_dicom_plan(data: bytes, name: str) -> Plan:
    """The plan in the bytes of a DICOM file; `name` is used in messages. Raises PlanError for all that is wrong."""
    dataset = load_dataset(data, name)
    _require_ion_plan(dataset, name)
    metersets, fractions = _metersets(dataset, name)
    beams: list[Beam] = []
    setup: list[str] = []
    for item in tags.items(dataset, "IonBeamSequence", name):
        number = tags.integer(item, "BeamNumber", name)
        beam_name = tags.text(item, "BeamName", name, f"beam {number}")
        if tags.text(item, "TreatmentDeliveryType", name) == "SETUP":
            setup.append(beam_name)
            continue
        beams.append(_read_beam(item, beam_name, number, metersets))
    _require_every_beam(beams, setup, dataset, metersets, name)
    return Plan(
        label=tags.text(dataset, "RTPlanLabel", name),
        patient_id=tags.text(dataset, "PatientID", name),
        plan_uid=tags.required_text(dataset, "SOPInstanceUID", name),
        source="dicom",
        unit=_one_unit(beams, name),
        beams=tuple(beams),
        fractions=fractions,
        prescribed_dose_gy=_prescribed_dose_gy(dataset, name),
        skipped_setup_beams=tuple(setup),
        intent=tags.text(dataset, "PlanIntent", name).upper(),
    )


def _require_ion_plan(dataset: Dataset, name: str) -> None:
    sop_class = tags.required_text(dataset, "SOPClassUID", name)
    if sop_class == RT_ION_PLAN:
        return
    what = "an RT Plan of photons or electrons" if sop_class == RT_PLAN else f"of SOP class {sop_class}"
    raise PlanError(
        "plan.not-ion",
        f"the file is {what}, not an RT Ion Plan ({tags.tag_name('SOPClassUID')})",
        name,
        "give an RT Ion Plan",
    )


def _metersets(dataset: Dataset, name: str) -> tuple[dict[int, float | None], int]:
    """Beam number to BeamMeterset (None when left empty), and the number of fractions."""
    found: dict[int, float | None] = {}
    fractions = 1
    for group in tags.items(dataset, "FractionGroupSequence", name):
        fractions = tags.optional_integer(group, "NumberOfFractionsPlanned", name) or fractions
        for reference in tags.items(group, "ReferencedBeamSequence", name):
            number = tags.integer(reference, "ReferencedBeamNumber", name)
            meterset = tags.optional_number(reference, "BeamMeterset", f"{name}, beam {number}")
            if number in found and found[number] != meterset:
                raise PlanError(
                    "plan.ambiguous-meterset",
                    f"two fraction groups give beam {number} different metersets",
                    name,
                    "export a plan with one fraction group",
                )
            found[number] = meterset
    return found, fractions


def _prescribed_dose_gy(dataset: Dataset, name: str) -> float | None:
    """The target's prescribed dose, where the plan names exactly one."""
    references = tags.items(dataset, "DoseReferenceSequence", name, required=False)
    doses = [tags.optional_number(reference, "TargetPrescriptionDose", name) for reference in references]
    stated = [dose for dose in doses if dose is not None]
    return stated[0] if len(stated) == 1 else None


def _require_every_beam(
    beams: list[Beam], setup: list[str], dataset: Dataset, metersets: dict[int, float | None], name: str
) -> None:
    numbers = [tags.integer(item, "BeamNumber", name) for item in tags.items(dataset, "IonBeamSequence", name)]
    lost = sorted(set(metersets) - set(numbers))
    doubled = len(set(numbers)) != len(numbers)
    if lost or doubled:
        what = f"the fraction group needs beam {lost[0]}, which is not there" if lost else "a beam number is used twice"
        raise PlanError("plan.beams", what, name, "export the plan again, whole")
    if not beams:
        what = f"only setup beams ({', '.join(setup)})" if setup else "no beam"
        raise PlanError("plan.no-beam", f"the plan has {what}", name, "give a plan with a treatment beam")


def _one_unit(beams: list[Beam], name: str) -> WeightUnit:
    units = {beam.meterset_unit for beam in beams}
    if len(units) != 1:
        raise PlanError("plan.mixed-units", "some beams are in MU, others in NP", name, "use one dosimeter unit")
    return beams[0].meterset_unit


def _read_beam(item: Dataset, name: str, number: int, metersets: dict[int, float | None]) -> Beam:
    where = place(name, number)
    _require_scanned(item, where)
    species, mass_number, charge_state = ion_of(item, where)
    points = tags.items(item, "IonControlPointSequence", where)
    _require_count(item, "NumberOfControlPoints", len(points), where)
    context = _BeamContext(name, number, _scale(item, number, metersets, where))
    layers = require_layers(name, number, _read_layers(item, points, context))
    isocentre = tags.optional_numbers(points[0], "IsocenterPosition", where)
    return Beam(
        number=number,
        name=name,
        species=species,
        mass_number=mass_number,
        charge_state=charge_state,
        gantry_angle_deg=steady_angle(points, "GantryAngle", where, required=True),
        support_angle_deg=steady_angle(points, "PatientSupportAngle", where, required=False),
        range_shifters=range_shifters(item, points, where),
        meterset=beam_meterset(layers),
        meterset_unit=_unit(item, where),
        layers=layers,
        isocentre_mm=_triple(isocentre, where),
        machine_name=tags.text(item, "TreatmentMachineName", where),
        accessories=accessories(item, points, where),
    )


def _triple(values: np.ndarray | None, where: str) -> tuple[float, float, float] | None:
    if values is None:
        return None
    if values.size != 3 or not np.all(np.isfinite(values)):
        what = f"{tags.tag_name('IsocenterPosition')} is not three numbers"
        raise PlanError("plan.bad-tag", what, where, "correct it")
    return float(values[0]), float(values[1]), float(values[2])


def _require_scanned(item: Dataset, where: str) -> None:
    mode = tags.required_text(item, "ScanMode", where)
    if mode not in _SCAN_MODES:
        what = f"{tags.tag_name('ScanMode')} is {mode}; only modulated scanning is delivered here"
        raise PlanError("plan.scan-mode", what, where, "plan the beam as MODULATED")
    kind = tags.text(item, "TreatmentDeliveryType", where)
    if kind not in _DELIVERED_TYPES:
        what = f"{tags.tag_name('TreatmentDeliveryType')} is {kind}, which is no treatment"
        raise PlanError("plan.delivery-type", what, where, "remove the beam or make it a TREATMENT beam")


def _require_count(item: Dataset, keyword: str, found: int, where: str) -> None:
    said = tags.optional_integer(item, keyword, where)
    if said is not None and said != found:
        what = f"{tags.tag_name(keyword)} says {said}, there are {found}"
        raise PlanError("plan.count", what, where, "export the plan again, whole")


def _unit(item: Dataset, where: str) -> WeightUnit:
    unit = tags.required_text(item, "PrimaryDosimeterUnit", where)
    if unit == "MU":
        return "MU"
    if unit == "NP":
        return "NP"
    what = f"{tags.tag_name('PrimaryDosimeterUnit')} is {unit}"
    raise PlanError("plan.unit", what, where, "use MU or NP")


def _scale(item: Dataset, number: int, metersets: dict[int, float | None], where: str) -> float | None:
    final = tags.number(item, "FinalCumulativeMetersetWeight", where)
    meterset = metersets.get(number)
    if meterset is None:
        what = f"{tags.tag_name('BeamMeterset')} of this beam is missing in the fraction group"
        raise PlanError("plan.missing-tag", what, where, "export the plan with metersets, not only dose weights")
    if final <= 0.0 or meterset < 0.0:
        what = f"meterset {meterset:g} with final cumulative weight {final:g}"
        raise PlanError("plan.meterset", what, where, "both must be above zero")
    return None if meterset == final else meterset / final


def _read_layers(item: Dataset, points: list[Dataset], context: _BeamContext) -> list[Layer | None]:
    final = tags.number(item, "FinalCumulativeMetersetWeight", context.where())
    layers: list[Layer | None] = []
    energy: float | None = None
    for index, point in enumerate(points):
        where = context.control_point(index)
        energy = _energy(point, energy, where)
        weights = tags.numbers(point, "ScanSpotMetersetWeights", where)
        _require_cumulative(points, index, float(np.sum(weights)), final, context)
        if not np.any(weights != 0.0):
            continue
        _require_one_energy(points, index, energy, context)
        layer = _read_layer(point, energy, weights, len(layers), where, context)
        layers.append(None if layer is None else replace(layer, control_point=index))
    return layers


def _energy(point: Dataset, before: float | None, where: str) -> float:
    unit = tags.text(point, "NominalBeamEnergyUnit", where)
    if unit not in ("", "MEV"):
        what = f"{tags.tag_name('NominalBeamEnergyUnit')} is {unit}"
        raise PlanError("plan.unit", what, where, "state energies in MeV per nucleon (MEV)")
    energy = tags.optional_number(point, "NominalBeamEnergy", where)
    if energy is not None:
        return energy
    if before is None:
        return tags.number(point, "NominalBeamEnergy", where)
    return before


def _require_one_energy(points: list[Dataset], index: int, energy: float, context: _BeamContext) -> None:
    """The control point that ends a layer has no spots; where it states an energy, it is that of the layer."""
    if index + 1 == len(points):
        return
    where = context.control_point(index + 1)
    if np.any(tags.numbers(points[index + 1], "ScanSpotMetersetWeights", where) != 0.0):
        return
    said = tags.optional_number(points[index + 1], "NominalBeamEnergy", where)
    if said is not None and not abs(said - energy) <= ENERGY_TOLERANCE * energy:
        what = f"{tags.tag_name('NominalBeamEnergy')} is {said:g} at the end of a layer of {energy:g}"
        raise PlanError(
            "plan.energy", what, where, "both control points of a layer have one energy; export the plan again"
        )


def _require_cumulative(points: list[Dataset], index: int, total: float, final: float, context: _BeamContext) -> None:
    """The weights of a control point are what the cumulative weight grows by until the next one."""
    where = context.control_point(index)
    here = tags.optional_number(points[index], "CumulativeMetersetWeight", where)
    if index + 1 < len(points):
        following = tags.optional_number(
            points[index + 1], "CumulativeMetersetWeight", context.control_point(index + 1)
        )
    else:
        following = final if here is not None and abs(here - final) > METERSET_TOLERANCE * final else here
    if not np.isfinite(total) or here is None or following is None:
        return  # a spot that is not finite is named later; a vendor may leave the cumulative weight empty
    if abs((following - here) - total) > METERSET_TOLERANCE * max(abs(total), abs(following - here), 1e-3 * final):
        what = f"the spot weights add up to {total:g}, the cumulative meterset weight grows by {following - here:g}"
        raise PlanError("plan.meterset", what, where, "export the plan again, whole")


def _read_layer(
    point: Dataset, energy: float, weights: np.ndarray, layer: int, where: str, context: _BeamContext
) -> Layer | None:
    positions = tags.numbers(point, "ScanSpotPositionMap", where)
    place_of_layer = context.where(layer)
    _require_count(point, "NumberOfScanSpotPositions", weights.size, place_of_layer)
    if positions.size != 2 * weights.size:
        what = (
            f"{tags.tag_name('ScanSpotPositionMap')} holds {positions.size} numbers for {weights.size} "
            f"{tags.tag_name('ScanSpotMetersetWeights')}"
        )
        raise PlanError("plan.spot-count", what, place_of_layer, "each spot needs one x, one y and one weight")
    size = tags.optional_numbers(point, "ScanningSpotSize", where)
    paintings = tags.optional_integer(point, "NumberOfPaintings", where)
    return make_layer(
        context.name,
        context.number,
        layer,
        energy_mev_u=energy,
        x_mm=positions[0::2],
        y_mm=positions[1::2],
        weight=weights if context.scale is None else weights * context.scale,
        fwhm_mm=(float(size[0]), float(size[-1])) if size is not None else None,
        paintings=1 if paintings is None else paintings,
        tune_id=tags.text(point, "ScanSpotTuneID", where),
    )
