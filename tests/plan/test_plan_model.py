"""The plan model: what it refuses, what it drops, what its hash is about."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from control.plan.load import load_plan
from control.plan.model import Plan, make_layer, plan_hash, require_layers
from facility.errors import PlanError


def test_zero_weights_are_dropped_and_counted() -> None:
    layer = make_layer("b", 1, 0, energy_mev_u=200.0, x_mm=[0, 1, 2], y_mm=[5, 6, 7], weight=[1.0, 0.0, 2.0])
    assert layer is not None
    assert layer.n_spots == 2
    assert layer.dropped_zero == 1
    assert layer.spot_index.tolist() == [0, 2]
    assert layer.y_mm.tolist() == [5.0, 7.0]


def test_a_layer_without_weight_is_no_layer_and_a_beam_needs_one() -> None:
    layer = make_layer("b", 7, 0, energy_mev_u=200.0, x_mm=[0.0], y_mm=[0.0], weight=[0.0])
    assert layer is None
    with pytest.raises(PlanError, match="beam 7 'b'"):
        require_layers("b", 7, [layer])


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("x_mm", np.nan, "plan.not-finite"),
        ("y_mm", -np.inf, "plan.not-finite"),
        ("weight", np.inf, "plan.not-finite"),
        ("weight", np.nan, "plan.not-finite"),
        ("weight", -1e-9, "plan.negative-weight"),
    ],
)
def test_bad_numbers_are_refused_by_beam_layer_and_spot(column: str, value: float, code: str) -> None:
    columns = {"x_mm": [0.0, 1.0, 2.0], "y_mm": [0.0, 1.0, 2.0], "weight": [1.0, 1.0, 1.0]}
    columns[column][2] = value
    with pytest.raises(PlanError) as caught:
        make_layer("field", 3, 4, energy_mev_u=200.0, **columns)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.where == "beam 3 'field', layer 4, spot 2"


@pytest.mark.parametrize("energy", [np.nan, 0.0, -1.0, np.inf])
def test_bad_energy_is_refused(energy: float) -> None:
    with pytest.raises(PlanError, match="layer 2"):
        make_layer("b", 1, 2, energy_mev_u=energy, x_mm=[0.0], y_mm=[0.0], weight=[1.0])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(PlanError, match="2 x positions, 1 y positions and 2 weights"):
        make_layer("b", 1, 0, energy_mev_u=200.0, x_mm=[0.0, 1.0], y_mm=[0.0], weight=[1.0, 1.0])


def test_arrays_are_read_only_copies(small_plan: Plan) -> None:
    layer = small_plan.beams[0].layers[0]
    for column in (layer.x_mm, layer.y_mm, layer.weight, layer.spot_index):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1.0


def test_hash_ignores_names_and_source_but_nothing_that_is_delivered(small_plan: Plan) -> None:
    same = dataclasses.replace(small_plan, label="other", source="dicom", plan_uid="2.25.1", fractions=30)
    assert plan_hash(same) == plan_hash(small_plan)
    beam = small_plan.beams[0]
    layer = beam.layers[0]
    moved = layer.x_mm.copy()
    moved[3] = np.nextafter(moved[3], 1e9)
    others = [
        dataclasses.replace(beam, gantry_angle_deg=0.0),
        dataclasses.replace(beam, species="proton"),
        dataclasses.replace(beam, range_shifters=()),
        dataclasses.replace(beam, layers=beam.layers[::-1]),
        dataclasses.replace(beam, layers=(dataclasses.replace(layer, x_mm=moved), beam.layers[1])),
        dataclasses.replace(beam, layers=(dataclasses.replace(layer, paintings=2), beam.layers[1])),
    ]
    hashes = {plan_hash(dataclasses.replace(small_plan, beams=(other,))) for other in others}
    hashes |= {plan_hash(dataclasses.replace(small_plan, unit="MU")), plan_hash(small_plan)}
    hashes.add(plan_hash(dataclasses.replace(small_plan, patient_id="QA-2")))
    assert len(hashes) == len(others) + 3


def test_hash_is_the_same_today_and_tomorrow(small_plan: Plan) -> None:
    flipped = dataclasses.replace(small_plan.beams[0], support_angle_deg=-0.0)
    assert plan_hash(dataclasses.replace(small_plan, beams=(flipped,))) == plan_hash(small_plan)


def test_a_device_is_no_plan() -> None:
    with pytest.raises(PlanError, match="device or a pipe"):
        load_plan("/dev/zero")
