"""Reading and writing RT Ion Plans: vendors' files, round trips, everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from control.plan.dicom_bytes import EXPLICIT_LE, IMPLICIT_LE
from control.plan.dicom_writer import dicom_bytes, write_dicom_plan
from control.plan.load import load_plan, read_plan
from control.plan.model import Plan, make_layer, plan_hash
from control.plan.uids import derived_uid
from facility.errors import PlanError

Find = Callable[[str], Path]


def edited(plan: Plan, edit: Callable[[Dataset], None]) -> bytes:
    """The plan as a file, after `edit` had its way with the dataset."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(plan)))
    edit(dataset)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def encoded(plan: Plan, *, explicit: bool, undefined: bool) -> bytes:
    """The plan in another encoding that DICOM allows: explicit value representations, sequences without length."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(plan)))
    if undefined:
        _drop_lengths(dataset)
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LE if explicit else IMPLICIT_LE
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=not explicit, little_endian=True)
    return out.getvalue()


def _drop_lengths(dataset: Dataset) -> None:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _drop_lengths(item)


def beam_of(dataset: Dataset) -> Dataset:
    return dataset.IonBeamSequence[0]


def point_of(dataset: Dataset, index: int = 0) -> Dataset:
    return beam_of(dataset).IonControlPointSequence[index]


# what vendors write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "beams", "layers", "spots", "meterset"),
    [
        ("DCPT_plan01_sobp_1Gy_Eclipse.dcm", 1, 12, 3468, 17571.2003),
        ("DCPT_plan02_mono160_Eclipse.dcm", 1, 1, 323, 58414.5492),
        ("DCPT_plan04_ramp_middle_RayStation.dcm", 2, 34, 15416, 40545.5),
        ("DCPT_plan05_sobp3d_RayStation.dcm", 1, 13, 5929, 52188.75),
        ("pymchelper_TR3QA_4fields_Eclipse.dcm", 4, 4, 468, 2340.0),
    ],
)
def test_vendor_plans_read_with_the_metersets_they_prescribe(
    shared_plan: Find, name: str, beams: int, layers: int, spots: int, meterset: float
) -> None:
    plan = load_plan(shared_plan(name))
    assert (len(plan.beams), plan.n_layers, plan.n_spots) == (beams, layers, spots)
    assert plan.unit == "MU"
    for beam in plan.beams:
        assert beam.species == "proton"
        assert beam.meterset == pytest.approx(meterset, rel=1e-6)
        assert not beam.accessories


def test_energy_absent_on_the_second_control_point(shared_plan: Find) -> None:
    plan = load_plan(shared_plan("DCPT_plan02_mono160_Eclipse.dcm"))
    assert [layer.energy_mev_u for layer in plan.beams[0].layers] == [160.0]


def test_the_script_written_plan_reads_but_keeps_what_stands_in_the_beam(shared_plan: Find) -> None:
    plan = load_plan(shared_plan("topasmc_rtip_demo.dcm"))
    beam = plan.beams[0]
    assert (plan.unit, plan.n_layers, plan.n_spots) == ("NP", 12, 246)
    assert beam.accessories == ("block",)
    assert [(shifter.shifter_id, shifter.wet_mm) for shifter in beam.range_shifters] == [("40mm", None)]


# round trip ---------------------------------------------------------------------------------------------------------


def test_write_then_read_gives_the_same_model(small_plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.dcm"
    write_dicom_plan(small_plan, path)
    back = load_plan(path)
    assert plan_hash(back) == plan_hash(small_plan)
    assert back.plan_uid == small_plan.plan_uid
    assert back.prescribed_dose_gy == small_plan.prescribed_dose_gy
    assert back.beams[0].layers[0].fwhm_mm == (5.0, 5.0)
    assert dicom_bytes(back) == dicom_bytes(dataclasses.replace(small_plan, source="dicom"))


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_every_encoding_reads_alike(small_plan: Plan, explicit: bool, undefined: bool) -> None:
    data = encoded(small_plan, explicit=explicit, undefined=undefined)
    assert plan_hash(read_plan(data, "file")) == plan_hash(small_plan)
    for length in range(200, len(data) - 20, 53):
        with pytest.raises(PlanError):
            read_plan(data[:length], "cut")


def test_other_transfer_syntaxes_are_refused(small_plan: Plan) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(small_plan)))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=True)
    with pytest.raises(PlanError, match="transfer syntax"):
        read_plan(out.getvalue(), "file")


def test_same_plan_same_bytes_and_date_is_given_not_taken(small_plan: Plan) -> None:
    assert dicom_bytes(small_plan) == dicom_bytes(small_plan)
    dated = pydicom.dcmread(io.BytesIO(dicom_bytes(small_plan, date="20270304")))
    assert dated.RTPlanDate == "20270304"


def test_uids_are_valid_and_derived() -> None:
    assert derived_uid("a", "b") == derived_uid("a", "b") != derived_uid("ab")
    assert pydicom.uid.UID(derived_uid("a")).is_valid


finite32 = st.floats(-100.0, 100.0, width=32)
weight32 = st.floats(0.0, 1e9, width=32)


@given(
    energy=st.floats(60.0, 430.0),
    spots=st.lists(st.tuples(finite32, finite32, weight32), min_size=1, max_size=30),
    paintings=st.integers(1, 5),
    proton=st.booleans(),
    unit=st.sampled_from(["MU", "NP"]),
)
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_plan(
    energy: float, spots: list[tuple[float, float, float]], paintings: int, proton: bool, unit: str
) -> None:
    x, y, w = (np.array(column) for column in zip(*spots, strict=True))
    layer = make_layer(
        "b", 1, 0, energy_mev_u=float(f"{energy:.8f}"), x_mm=x, y_mm=y, weight=w + 1.0, paintings=paintings
    )
    assert layer is not None
    layer = dataclasses.replace(layer, weight=layer.weight.astype(np.float32).astype(np.float64))
    plan = _one_beam(layer, proton, unit)
    back = read_plan(dicom_bytes(plan), "file")
    assert plan_hash(back) == plan_hash(plan)


def _one_beam(layer: object, proton: bool, unit: str) -> Plan:
    from control.plan.model import Beam

    species, mass, charge = ("proton", 1, 1) if proton else ("carbon", 12, 6)
    beam = Beam(1, "b", species, mass, charge, 0.0, 0.0, (), 0.0, unit, (layer,), (0.0, 0.0, 0.0))  # type: ignore[arg-type]
    return Plan("p", "id", "2.25.7", "maker", unit, (beam,))  # type: ignore[arg-type]


def test_doubles_come_back_within_single_precision(small_plan: Plan) -> None:
    beam = small_plan.beams[0]
    layer = beam.layers[0]
    odd = dataclasses.replace(layer, weight=layer.weight / 3.0, x_mm=layer.x_mm / 7.0, energy_mev_u=1000.0 / 3.0)
    plan = dataclasses.replace(small_plan, beams=(dataclasses.replace(beam, layers=(odd,)),))
    back = read_plan(dicom_bytes(plan), "file").beams[0].layers[0]
    np.testing.assert_allclose(back.weight, odd.weight, rtol=6e-8)
    np.testing.assert_allclose(back.x_mm, odd.x_mm, rtol=6e-8)
    assert back.energy_mev_u == pytest.approx(odd.energy_mev_u, rel=1e-13)


def test_a_layer_beyond_64_kilobytes_survives(small_plan: Plan) -> None:
    n = 9000
    layer = make_layer("b", 1, 0, energy_mev_u=200.0, x_mm=np.arange(n) % 50, y_mm=np.arange(n) % 70, weight=np.ones(n))
    assert layer is not None
    plan = dataclasses.replace(small_plan, beams=(dataclasses.replace(small_plan.beams[0], layers=(layer,)),))
    assert plan_hash(read_plan(dicom_bytes(plan), "file")) == plan_hash(plan)


@pytest.mark.parametrize("species", ["carbon", "proton"])
def test_dciodvfy_finds_no_error(small_plan: Plan, tmp_path: Path, species: str) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy not installed")
    beam = small_plan.beams[0]
    if species == "proton":
        beam = dataclasses.replace(beam, species="proton", mass_number=1, charge_state=1, range_shifters=())
    path = tmp_path / "plan.dcm"
    write_dicom_plan(dataclasses.replace(small_plan, beams=(beam,)), path)
    report = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    text = report.stdout + report.stderr
    assert "RTIonPlan" in text
    assert [line for line in text.splitlines() if line.startswith("Error")] == []


def test_accessories_are_not_silently_lost_on_writing(small_plan: Plan) -> None:
    beam = dataclasses.replace(small_plan.beams[0], accessories=("block",))
    with pytest.raises(PlanError, match="block"):
        dicom_bytes(dataclasses.replace(small_plan, beams=(beam,)))


# meterset scaling, setup beams, shifters ----------------------------------------------------------------------------


def test_weights_scale_with_beam_meterset(small_plan: Plan) -> None:
    def double(dataset: Dataset) -> None:
        reference = dataset.FractionGroupSequence[0].ReferencedBeamSequence[0]
        reference.BeamMeterset = str(2 * float(reference.BeamMeterset))

    back = read_plan(edited(small_plan, double), "file")
    np.testing.assert_allclose(back.beams[0].layers[0].weight, 2 * small_plan.beams[0].layers[0].weight, rtol=1e-12)


def test_setup_beams_are_skipped_and_named(small_plan: Plan) -> None:
    two = dataclasses.replace(
        small_plan, beams=(small_plan.beams[0], dataclasses.replace(small_plan.beams[0], number=2, name="setup"))
    )

    def make_setup(dataset: Dataset) -> None:
        dataset.IonBeamSequence[1].TreatmentDeliveryType = "SETUP"
        del dataset.IonBeamSequence[1].IonControlPointSequence

    back = read_plan(edited(two, make_setup), "file")
    assert [beam.name for beam in back.beams] == ["b"]
    assert back.skipped_setup_beams == ("setup",)


def test_range_shifter_out_is_out(small_plan: Plan) -> None:
    def out(dataset: Dataset) -> None:
        point_of(dataset).RangeShifterSettingsSequence[0].RangeShifterSetting = "OUT"

    assert read_plan(edited(small_plan, out), "file").beams[0].range_shifters == ()


def test_energy_and_scan_mode_type_may_be_absent(small_plan: Plan) -> None:
    def strip(dataset: Dataset) -> None:
        del beam_of(dataset).ModulatedScanModeType
        for point in beam_of(dataset).IonControlPointSequence[1::2]:
            del point.NominalBeamEnergy

    assert plan_hash(read_plan(edited(small_plan, strip), "file")) == plan_hash(small_plan)


# refusals -----------------------------------------------------------------------------------------------------------


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(beam_of(dataset), keyword, value)


def _delete(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(beam_of(dataset), keyword)


def _delete_in_point(keyword: str, index: int = 0) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(point_of(dataset, index), keyword)


def _nan_weight(dataset: Dataset) -> None:
    weights = list(point_of(dataset).ScanSpotMetersetWeights)
    weights[5] = float("nan")
    point_of(dataset).ScanSpotMetersetWeights = weights


def _heavy_weight(dataset: Dataset) -> None:
    weights = list(point_of(dataset).ScanSpotMetersetWeights)
    weights[5] *= 100.0
    point_of(dataset).ScanSpotMetersetWeights = weights


def _drop_meterset(dataset: Dataset) -> None:
    del dataset.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset


def _other_energy(index: int) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(point_of(dataset, index), "NominalBeamEnergy", "400")


def _moving_gantry(dataset: Dataset) -> None:
    point_of(dataset, 2).GantryAngle = "91"


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (_delete("RadiationMassNumber"), "plan.missing-tag", "RadiationMassNumber (300A,0302)"),
        (_delete("RadiationChargeState"), "plan.missing-tag", "beam 1 'b'"),
        (_delete("IonControlPointSequence"), "plan.missing-tag", "IonControlPointSequence (300A,03A8)"),
        (_delete("FinalCumulativeMetersetWeight"), "plan.missing-tag", "(300A,010E)"),
        (_delete_in_point("ScanSpotMetersetWeights", 2), "plan.missing-tag", "control point 2"),
        (_delete_in_point("ScanSpotPositionMap"), "plan.missing-tag", "(300A,0394)"),
        (_delete_in_point("NominalBeamEnergy"), "plan.missing-tag", "(300A,0114)"),
        (_delete_in_point("GantryAngle"), "plan.missing-tag", "(300A,011E)"),
        (_drop_meterset, "plan.missing-tag", "BeamMeterset (300A,0086)"),
        (_nan_weight, "plan.not-finite", "layer 0, spot 5"),
        (_heavy_weight, "plan.meterset", "control point 0"),
        (_moving_gantry, "plan.moving-angle", "GantryAngle"),
        (_other_energy(0), "plan.energy", "at the end of a layer of 400"),
        (_other_energy(1), "plan.energy", "control point 1"),
        (_set("ScanMode", "UNIFORM"), "plan.scan-mode", "UNIFORM"),
        (_set("RadiationType", "PHOTON"), "plan.radiation", "PHOTON"),
        (_set("PrimaryDosimeterUnit", "GY"), "plan.unit", "GY"),
        (_set("NumberOfControlPoints", 6), "plan.count", "says 6, there are 4"),
        (_set("TreatmentDeliveryType", "OPEN_PORTFILM"), "plan.delivery-type", "OPEN_PORTFILM"),
        (lambda dataset: dataset.IonBeamSequence.clear(), "plan.missing-tag", "IonBeamSequence"),
        (lambda dataset: beam_of(dataset).__setattr__("BeamNumber", 2), "plan.missing-tag", "BeamMeterset"),
    ],
)
def test_one_message_names_what_is_wrong(
    small_plan: Plan, edit: Callable[[Dataset], None], code: str, words: str
) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(edited(small_plan, edit), "file.dcm")
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_photon_plan_is_refused(small_plan: Plan) -> None:
    def photon(dataset: Dataset) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"

    with pytest.raises(PlanError, match="photons or electrons"):
        read_plan(edited(small_plan, photon), "file.dcm")


def test_a_lost_beam_is_noticed(small_plan: Plan) -> None:
    two = dataclasses.replace(
        small_plan, beams=(small_plan.beams[0], dataclasses.replace(small_plan.beams[0], number=2))
    )
    with pytest.raises(PlanError, match="needs beam 2"):
        read_plan(edited(two, lambda dataset: dataset.IonBeamSequence.pop()), "file.dcm")


def test_every_truncation_is_refused(small_plan: Plan) -> None:
    data = dicom_bytes(small_plan)
    last_element = data.rindex(b"\x0e\x30\x02\x00")  # ApprovalStatus: whole without it, as far as DICOM can tell
    for length in range(0, len(data), 13):
        if length == last_element:
            continue
        with pytest.raises(PlanError):
            read_plan(data[:length], "cut.dcm")


def test_not_a_plan_at_all(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\0" * 200, b"\0" * 128 + b"DICM"):
        with pytest.raises(PlanError):
            read_plan(content, "file")
    with pytest.raises(PlanError, match="cannot be opened"):
        load_plan(tmp_path / "absent.dcm")
    with pytest.raises(PlanError, match="cannot be opened"):
        load_plan(tmp_path)


@pytest.mark.parametrize("seed", range(200))
def test_mutated_bytes_end_in_a_plan_or_a_plan_error(small_plan: Plan, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(small_plan, explicit=seed % 2 == 1, undefined=seed % 3 == 1))
    for _ in range(int(rng.integers(1, 6))):
        start = int(rng.integers(132, len(data)))
        kind = int(rng.integers(0, 4))
        size = int(rng.integers(1, 9))
        if kind == 0:
            data[start : start + size] = rng.bytes(size)
        elif kind == 1:
            del data[start : start + size]
        elif kind == 2:
            data[start:start] = rng.bytes(size)
        else:
            data[start] ^= 1 << int(rng.integers(0, 8))
    try:
        plan = read_plan(bytes(data), "mutant.dcm")
    except PlanError:
        return
    for beam in plan.beams:
        for layer in beam.layers:
            assert np.all(np.isfinite(layer.weight) & (layer.weight > 0.0))
