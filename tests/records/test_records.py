"""The treatment record says what the journal says, in the plan's own unit; against the plan it tells what is wrong."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from control.layer_table import COLUMN
from control.plan.dicom_reader import read_dicom_plan
from control.plan.dicom_writer import dicom_bytes, write_dicom_plan
from control.plan.model import Plan
from facility.errors import JournalError, PlanError
from journal.store import open_journal
from records.account import Override, SessionAccount, facility_calendar, read_account
from records.compare import Comparison, compare
from records.dicom_record import record_bytes
from records.reader import Record, read_record
from rig.crashes import Crash, Crashes
from tests.records.delivered import compiled, deliver, facility, in_mu, plan, whole


def check(record: Record, *more: Record, of: Plan | None = None) -> Comparison:
    wanted = of or plan()
    return compare([record, *more], wanted, compiled(wanted))


def changed(data: bytes, change: Callable[[Dataset], None]) -> Record:
    dataset = pydicom.dcmread(io.BytesIO(data))
    change(dataset)
    out = io.BytesIO()
    dataset.save_as(out)
    return read_record(out.getvalue(), "changed.dcm")


def first_point(dataset: Dataset) -> Dataset:
    point: Dataset = dataset.TreatmentSessionIonBeamSequence[0].IonControlPointDeliverySequence[0]
    return point


def test_the_record_is_what_the_journal_says() -> None:
    _, account = whole()
    data = record_bytes(account)
    assert data == record_bytes(account)
    record = read_record(data, "record.dcm")
    assert (record.patient_id, record.plan_uid, record.unit) == ("QA-SMALL", plan().plan_uid, "NP")
    assert record.header["session"] == account.entry.session
    assert record.header["plan_hash"] == account.program.plan_hash
    (beam,) = record.beams
    assert (beam.termination, beam.delivery) == ("NORMAL", "TREATMENT")
    assert "delivered in mode qa" in beam.overrides
    assert len(beam.layers) == len(account.layers) == len(plan().beams[0].layers)
    for recorded, booked in zip(beam.layers, account.layers, strict=True):
        np.testing.assert_array_equal(recorded.spot, booked.layer.spot_index)
        ions = np.float32(booked.entry.rows[:, COLUMN["ic1_ions"]] / booked.layer.ions_per_unit)
        np.testing.assert_array_equal(recorded.meterset.astype(np.float32), ions)
        np.testing.assert_array_equal(np.float32(recorded.x_mm), np.float32(booked.entry.rows[:, COLUMN["x_mm"]]))
        assert recorded.control_point == booked.layer.control_point
    assert beam.meterset == pytest.approx(sum(float(one.given_ions.sum()) for one in account.layers), rel=1e-12)


def test_times_are_those_of_the_spots() -> None:
    _, account = whole()
    dataset = pydicom.dcmread(io.BytesIO(record_bytes(account)))
    points = dataset.TreatmentSessionIonBeamSequence[0].IonControlPointDeliverySequence
    assert len(points) == 2 * len(account.layers) == dataset.TreatmentSessionIonBeamSequence[0].NumberOfControlPoints
    told = [(point.TreatmentControlPointDate, float(point.TreatmentControlPointTime)) for point in points]
    assert told == sorted(told)
    rows = account.layers[0].entry.rows
    begins = rows[:, COLUMN["t_end_ns"]] - 1e3 * rows[:, COLUMN["beam_us"]]
    offsets = np.array(points[0].ScanSpotTimeOffset)
    assert offsets[0] == 0.0
    np.testing.assert_allclose(np.diff(offsets), np.diff(begins) * 1e-3, atol=1.0)


def test_times_of_a_layer_in_parts_are_those_of_the_plants_that_gave_them(tmp_path: Path) -> None:
    """The second plant is switched on when the first has died: its facility time begins anew, the calendar does not."""
    it = Crashes(facility(), compiled(plan()), tmp_path)
    first = whole()[0].summary
    assert first is not None
    begun_ns, done_ns = first.layers[1].t_first_beam_ns, first.layers[1].t_done_ns
    assert begun_ns is not None
    died_ns = (begun_ns + done_ns) // 2
    left = it.resume(it.deliver(1, Crash(died_ns)), 2, None)
    assert left.completed
    with closing(open_journal(left.url, facility().id)) as journal:
        account = read_account(journal, left.session(facility().id), compiled(plan()))
    died = facility_calendar(died_ns)
    times = [moment for one in account.layers for moment in (one.began, one.ended)]
    assert times == sorted(times)
    assert account.layers[0].ended < died
    assert account.layers[1].began < died < account.layers[1].ended
    assert account.layers[1].entry.loads == 2
    (beam,) = pydicom.dcmread(io.BytesIO(record_bytes(account))).TreatmentSessionIonBeamSequence
    assert "ScanSpotTimeOffset" not in beam.IonControlPointDeliverySequence[2]


def test_a_record_agrees_with_its_plan() -> None:
    found = check(read_record(record_bytes(whole()[1]), "record.dcm"))
    assert (found.good, found.complete, found.objections) == (True, True, ())
    assert sum(line.delivered for line in found.lines) == plan().n_spots


def double(dataset: Dataset) -> None:
    units = list(first_point(dataset).ScanSpotMetersetsDelivered)
    units[3] *= 2.0
    first_point(dataset).ScanSpotMetersetsDelivered = units


def move(dataset: Dataset) -> None:
    positions = list(first_point(dataset).ScanSpotPositionMap)
    positions[4] += 3.0
    first_point(dataset).ScanSpotPositionMap = positions


def lose(dataset: Dataset) -> None:
    units = list(first_point(dataset).ScanSpotMetersetsDelivered)
    units[0] = 0.0
    first_point(dataset).ScanSpotMetersetsDelivered = units


def shift(dataset: Dataset) -> None:
    first_point(dataset).ReferencedControlPointIndex = 99


def index(dataset: Dataset) -> None:
    count = first_point(dataset).NumberOfScanSpotPositions
    first_point(dataset).ScanSpotPrescribedIndices = [int(k) + 2 for k in range(count)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (double, "beam 1, layer 0, spot 3: "), (move, "a spot lies "), (lose, "and spots are missing"),
        (shift, "control point 99: the plan has no layer there"), (index, "is on record, the plan has none there"),
    ],
)  # fmt: skip
def test_what_contradicts_is_named(change: Callable[[Dataset], None], words: str) -> None:
    found = check(changed(record_bytes(whole()[1]), change))
    assert not found.good
    assert any(words in one for one in found.objections)


def test_the_same_record_twice_is_not_two_fractions() -> None:
    record = read_record(record_bytes(whole()[1]), "record.dcm")
    found = check(record, record)
    assert "record.dcm is on the list twice" in found.objections
    assert any("on record, planned" in one for one in found.objections)


def test_a_record_of_another_plan_is_refused() -> None:
    record = read_record(record_bytes(whole()[1]), "record.dcm")
    with pytest.raises(PlanError, match="patient QA-SMALL, the plan has P-9"):
        compare([record], dataclasses.replace(plan(), patient_id="P-9"), compiled(plan()))


def test_mu_and_particles_are_the_same_delivery_and_each_record_has_its_own_unit(tmp_path: Path) -> None:
    """MU to NP and back: identical truth, spot by spot, byte by byte."""
    mu = read_dicom_plan(dicom_bytes(in_mu(plan())), "mu.dcm")
    particles = compiled(plan())
    programs = {"MU": compiled(mu), "NP": particles}
    back = [ions.target_ions for ions in programs["MU"].layers]
    for layer, ions in zip(particles.layers, back, strict=True):
        np.testing.assert_allclose(ions, layer.target_ions, rtol=3e-7)  # FL in the file
    exact = dataclasses.replace(programs["MU"], layers=tuple(
        dataclasses.replace(one, target_ions=other.target_ions, token=other.token)
        for one, other in zip(programs["MU"].layers, particles.layers, strict=True)))  # fmt: skip
    left, journal = deliver(exact, tmp_path)
    account = read_account(journal, left.session(facility().id), exact)
    journal.close()
    for token, ions in whole()[0].truth.items():
        np.testing.assert_array_equal(left.truth[token], ions)
    record = read_record(record_bytes(account), "mu.dcm")
    assert record.unit == "MU"
    assert check(record, of=mu).complete
    for one, recorded in zip(account.layers, record.beams[0].layers, strict=True):
        np.testing.assert_allclose(recorded.meterset * one.layer.ions_per_unit, one.given_ions, rtol=1e-6)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> SessionAccount:
    """What the journal has of a session that died in its middle."""
    summary = whole()[0].summary
    assert summary is not None
    assert summary.t_started_ns is not None
    middle = (summary.t_started_ns + summary.t_ended_ns) // 2
    left, journal = deliver(compiled(plan()), tmp_path_factory.mktemp("died"), middle)
    account = read_account(journal, left.session(facility().id), compiled(plan()))
    journal.close()
    return account


def test_a_session_that_died_is_on_record_as_far_as_it_went(interrupted: SessionAccount) -> None:
    record = read_record(record_bytes(interrupted), "died.dcm")
    assert record.beams[0].termination == "UNKNOWN"
    assert len(record.header["unheard_layers"]) == 1
    found = check(record)
    assert (found.good, found.complete) == (True, False)
    assert any(line.missing == line.spots for line in found.lines)


def test_a_session_without_dose_has_no_record() -> None:
    with pytest.raises(JournalError, match="nothing was delivered"):
        record_bytes(dataclasses.replace(whole()[1], layers=()))


def reported(path: Path) -> list[str]:
    """Errors that dciodvfy finds."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy not installed")
    report = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    text = report.stdout + report.stderr
    assert "RTIonBeamsTreatmentRecord" in text or "RTIonPlan" in text
    return [line for line in text.splitlines() if line.startswith("Error")]


def carried(account: SessionAccount) -> SessionAccount:
    entry = dataclasses.replace(account.entry, delivery="CONTINUATION", continues="S-1", fraction=2, status="partial")
    bypass = Override("", "rule gate bypassed: phantom", "physicist")
    return dataclasses.replace(account, entry=entry, overrides=(*account.overrides, bypass), termination="MACHINE",
                               reason="position-x; closed", earlier=("2.25.77",))  # fmt: skip


def plain(account: SessionAccount) -> SessionAccount:
    return dataclasses.replace(account, overrides=())


def otherwise(account: SessionAccount) -> SessionAccount:
    """Protons, through a range shifter."""
    layers = tuple(
        dataclasses.replace(one, layer=dataclasses.replace(one.layer, species="proton", range_shifter_ids=("RS30",)))
        for one in account.layers
    )
    return dataclasses.replace(account, layers=layers)


@pytest.mark.parametrize("of", [lambda one: one, carried, plain, otherwise])
def test_dciodvfy_finds_no_error_in_a_record(of: Callable[[SessionAccount], SessionAccount], tmp_path: Path) -> None:
    path = tmp_path / "record.dcm"
    path.write_bytes(record_bytes(of(whole()[1])))
    assert reported(path) == []


def test_dciodvfy_finds_no_error_in_the_record_of_a_session_that_died(
    interrupted: SessionAccount, tmp_path: Path
) -> None:
    path = tmp_path / "record.dcm"
    path.write_bytes(record_bytes(interrupted))
    assert reported(path) == []


@pytest.mark.parametrize("unit", ["NP", "MU"])
def test_dciodvfy_finds_no_error_in_a_plan(unit: str, tmp_path: Path) -> None:
    write_dicom_plan(plan() if unit == "NP" else in_mu(plan()), tmp_path / "plan.dcm")
    assert reported(tmp_path / "plan.dcm") == []


def test_a_broken_record_is_refused_in_words() -> None:
    data = record_bytes(whole()[1])
    for seed in range(150):
        rng = np.random.default_rng(seed)
        broken = bytearray(data)
        for place in rng.integers(132, len(data), size=int(rng.integers(1, 8))):
            broken[place] = int(rng.integers(0, 256))
        cut = bytes(broken[: int(rng.integers(140, len(data)))] if seed % 3 == 0 else broken)
        try:
            check(read_record(cut, "broken.dcm"))
        except PlanError as problem:
            assert str(problem)  # noqa: PT017 - any other error fails
