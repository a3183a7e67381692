"""Plans that must not be delivered: one clear message, the documented exit code, nothing built and nothing left."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from console.main import run
from control.plan.dicom_reader import RT_PLAN
from control.plan.dicom_writer import dicom_bytes
from control.plan.maker import make_plan, make_small_plan
from control.plan.model import Beam, Plan
from facility.config import load_facility

REFUSED = 4
LAYER, SPOT = 1, 2
PLACE = ("beam 1", f"layer {LAYER}", f"spot {SPOT}")


@functools.cache
def small() -> Plan:
    return make_small_plan(load_facility("wuwei"), "carbon")


@functools.cache
def protons() -> bytes:
    pimms = load_facility("pimms")
    return dicom_bytes(
        make_plan("cube", 10.0, 100.0, 1.0, "proton", pimms, lateral_spacing_mm=5.0, layer_spacing_mm=5.0)
    )


def with_layer(column: str | None = None, value: float = 0.0, **scalars: float) -> bytes:
    """The small plan with one spot's `column`, or scalars of the layer, changed."""
    beam = small().beams[0]
    layer = beam.layers[LAYER]
    if column is not None:
        values = np.array(getattr(layer, column))
        values[SPOT] = value
        scalars = {column: values}  # type: ignore[dict-item]
    return with_beam(layers=(*beam.layers[:LAYER], dataclasses.replace(layer, **scalars), *beam.layers[LAYER + 1 :]))  # type: ignore[arg-type]


def with_beam(**changes: object) -> bytes:
    beam: Beam = dataclasses.replace(small().beams[0], **changes)  # type: ignore[arg-type]
    meterset = float(sum(layer.weight.sum() for layer in beam.layers))
    return dicom_bytes(dataclasses.replace(small(), beams=(dataclasses.replace(beam, meterset=meterset),)))


def edited(edit: Callable[[Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(small())))
    edit(dataset)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def point(dataset: Dataset) -> Dataset:
    return dataset.IonBeamSequence[0].IonControlPointSequence[2 * LAYER]


def put(keyword: str, index: int, value: float) -> bytes:
    """One number of a list at the control point of the layer, written past every check of ours."""

    def edit(dataset: Dataset) -> None:
        values = [float(v) for v in getattr(point(dataset), keyword)]
        values[index] = value
        setattr(point(dataset), keyword, values)

    return edited(edit)


def negative_weight() -> bytes:
    """A spot of less than nothing; sums and meterset are right."""

    def edit(dataset: Dataset) -> None:
        weights = [float(v) for v in point(dataset).ScanSpotMetersetWeights]
        lost = weights[SPOT] + 1e5
        weights[SPOT] = -1e5
        point(dataset).ScanSpotMetersetWeights = weights
        beam = dataset.IonBeamSequence[0]
        for later in beam.IonControlPointSequence[2 * LAYER + 1 :]:
            later.CumulativeMetersetWeight = float(later.CumulativeMetersetWeight) - lost
        beam.FinalCumulativeMetersetWeight = float(beam.FinalCumulativeMetersetWeight) - lost

    return edited(edit)


def photons() -> bytes:
    """An RT Plan of another kind: beams in BeamSequence, no ion in it."""

    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID = RT_PLAN
        dataset.file_meta.MediaStorageSOPClassUID = RT_PLAN
        beam = Dataset()
        beam.BeamNumber = 1
        beam.RadiationType = "PHOTON"
        dataset.BeamSequence = [beam]
        del dataset.IonBeamSequence

    return edited(edit)


class Case(NamedTuple):
    data: Callable[[], bytes]
    words: tuple[str, ...]
    """All of them are in the message."""
    arguments: tuple[str, ...] = ()


NAN, INFINITE = float("nan"), float("inf")
FILE = ("plan.dcm",)
CASES = {
    "protons at a carbon facility": Case(protons, ("beam 1", "proton", "carbon")),
    "protons at a carbon facility, QA": Case(protons, ("beam 1", "proton", "carbon"), ("--qa",)),
    "energy above the table": Case(lambda: with_layer(energy_mev_u=455.0), ("beam 1", f"layer {LAYER}", "455")),
    "energy below the table": Case(lambda: with_layer(energy_mev_u=60.0), ("beam 1", f"layer {LAYER}", "60 MeV/u")),
    "spot outside the field in x": Case(lambda: with_layer("x_mm", 150.0), (*PLACE, "150.00")),
    "spot outside the field in y": Case(lambda: with_layer("y_mm", -101.0), (*PLACE, "-101.00")),
    "spot below the monitor's resolution": Case(lambda: with_layer("weight", 100.0), (*PLACE, "counts")),
    "position is not a number": Case(lambda: put("ScanSpotPositionMap", 2 * SPOT, NAN), PLACE),
    "position is infinite": Case(lambda: put("ScanSpotPositionMap", 2 * SPOT + 1, INFINITE), PLACE),
    "weight is not a number": Case(lambda: put("ScanSpotMetersetWeights", SPOT, NAN), PLACE),
    "weight is infinite": Case(lambda: put("ScanSpotMetersetWeights", SPOT, INFINITE), PLACE),
    "weight is negative": Case(negative_weight, PLACE),
    "angle that the room does not have": Case(lambda: with_beam(gantry_angle_deg=45.0), ("beam 1", "45", "QA")),
    "table angle that the room does not have": Case(lambda: with_beam(support_angle_deg=90.0), ("beam 1", "90", "QA")),
    "truncated in the header": Case(lambda: dicom_bytes(small())[:400], FILE),
    "truncated in the middle": Case(lambda: dicom_bytes(small())[: len(dicom_bytes(small())) // 2], FILE),
    "truncated by a byte": Case(lambda: dicom_bytes(small())[:-1], FILE),
    "empty": Case(lambda: b"", FILE),
    "photon plan": Case(photons, (*FILE, "photons")),
    "no plan at all": Case(lambda: b"\x00" * 4096, (*FILE, "DICOM")),
}


@pytest.fixture(autouse=True)
def no_plant(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every plant that is built and every process that is started is noted; there must be none."""
    built: list[str] = []

    def note(what: str) -> Callable[..., None]:
        def refuse(*_: object, **__: object) -> None:
            built.append(what)
            raise AssertionError(f"{what} for a plan that cannot be delivered")

        return refuse

    monkeypatch.setattr("ioc_sim.plant.Plant.__init__", note("a plant was built"))
    monkeypatch.setattr("subprocess.Popen.__init__", note("a process was started"))
    return built


@pytest.mark.parametrize(
    "command", [("deliver", "--target", "virtual"), ("deliver", "--target", "ca"), ("plan", "check")]
)
@pytest.mark.parametrize("name", CASES)
def test_refused(
    name: str, command: tuple[str, ...], no_plant: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = CASES[name]
    path, home = tmp_path / "plan.dcm", tmp_path / "home"
    path.write_bytes(case.data())
    code = run(("--home", str(home), *command, str(path), "--facility", "wuwei", "--room", "1", *case.arguments))
    said = capsys.readouterr()
    assert code == REFUSED, said.err
    assert said.err.startswith("ionctl: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    for words in case.words:
        assert words in said.err
    if command[0] == "deliver":
        assert said.out == ""
    assert no_plant == []
    assert not home.exists()


def test_the_same_plan_unspoilt_is_accepted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.dcm"
    path.write_bytes(dicom_bytes(small()))
    assert run(("plan", "check", str(path), "--facility", "wuwei", "--room", "1")) == 0


def test_qa_mode_takes_the_angle_that_was_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.dcm"
    path.write_bytes(with_beam(gantry_angle_deg=45.0))
    assert run(("plan", "check", str(path), "--facility", "wuwei", "--room", "1", "--qa")) == 0
    assert "45" in capsys.readouterr().out
