"""Fixtures of the plan tests: shared data where it is present, small plans made on the spot elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from control.plan.model import Beam, Layer, Plan, RangeShifter, make_layer

SHARED_PLANS = Path(__file__).resolve().parents[3] / "shared" / "data" / "plans"


@pytest.fixture
def shared_plan() -> Callable[[str], Path]:
    """Path of a file in ../shared/data/plans; skips where that folder is not there."""

    def find(name: str) -> Path:
        path = SHARED_PLANS / name
        if not path.is_file():
            pytest.skip("../shared/data is not here")
        return path

    return find


def layer_of(energy: float, seed: int, n: int = 12, **more: object) -> Layer:
    """A layer with positions and weights that 32 bits hold."""
    rng = np.random.default_rng(seed)
    columns = {
        "x_mm": rng.uniform(-40, 40, n).astype(np.float32),
        "y_mm": rng.uniform(-40, 40, n).astype(np.float32),
        "weight": rng.uniform(1e4, 1e6, n).astype(np.float32),
    }
    layer = make_layer("b", 1, 0, energy_mev_u=energy, fwhm_mm=(5.0, 5.0), tune_id="1", **columns, **more)  # type: ignore[arg-type]
    if layer is None:
        raise ValueError("no weight")
    return layer


@pytest.fixture
def small_plan() -> Plan:
    """A carbon plan: one beam, two layers of twelve and one spot, a range shifter."""
    layers = (layer_of(250.5, 1), layer_of(248.25, 2, n=1))
    return Plan(
        label="small",
        patient_id="QA-1",
        plan_uid="2.25.123456789",
        source="maker",
        unit="NP",
        beams=(
            Beam(
                number=1,
                name="b",
                species="carbon",
                mass_number=12,
                charge_state=6,
                gantry_angle_deg=90.0,
                support_angle_deg=0.0,
                range_shifters=(RangeShifter("RS10", 10.0),),
                meterset=float(sum(layer.weight.sum() for layer in layers)),
                meterset_unit="NP",
                layers=layers,
                isocentre_mm=(0.0, 0.0, 0.0),
            ),
        ),
        fractions=1,
        prescribed_dose_gy=2.0,
    )
