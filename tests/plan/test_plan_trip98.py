"""TRiP98 raster files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from control.plan.load import load_plan, read_plan
from facility.errors import PlanError

RST = """rstfile 20030630
sistable 20030305.0
patient_id tst
machine# 0
projectile 12C
charge 6
mass 12
gantryangle 0
couchangle -90
stereotacticcoordinates
bolus 0
ripplefilter
#submachines 2
#particles 1.0E+05 3.0E+05 9.0E+05
submachine# 1 120.20 1 4.0
#particles 1.0E+05 2.0E+05 3.0E+05
stepsize 3 3
#points 2
3 -3 1.0E+05
0 -3 2.0E+05
submachine# 2 122.10 1 4.0
#particles 3.0E+05 3.0E+05 6.0E+05
stepsize 3 3
#points 2
0 0 3.0E+05
3 0 3.0E+05
"""


def test_shared_plan_from_high_to_low(shared_plan: Callable[[str], Path]) -> None:
    plan = load_plan(shared_plan("tst003001.rst"))
    energies = [layer.energy_mev_u for layer in plan.beams[0].layers]
    assert (plan.unit, plan.n_layers, plan.n_spots) == ("NP", 17, 5491)
    assert energies == sorted(energies, reverse=True)
    assert (energies[0], energies[-1]) == (147.99, 120.20)
    assert plan.beams[0].meterset == pytest.approx(3.57576e10, rel=1e-5)
    assert plan.beams[0].support_angle_deg == 270.0


@pytest.mark.parametrize("name", ["TST003001.exec", "tst003001.bev.gd"])
def test_what_lies_beside_it_is_no_plan(shared_plan: Callable[[str], Path], name: str) -> None:
    with pytest.raises(PlanError, match="neither"):
        load_plan(shared_plan(name))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_small_file(newline: str) -> None:
    plan = read_plan(RST.replace("\n", newline).encode(), "a.rst")
    beam = plan.beams[0]
    assert (beam.species, beam.mass_number, beam.charge_state) == ("carbon", 12, 6)
    assert [layer.energy_mev_u for layer in beam.layers] == [122.1, 120.2]
    assert beam.layers[1].weight.tolist() == [1e5, 2e5]
    assert beam.layers[0].fwhm_mm == (4.0, 4.0)
    assert not beam.accessories


def test_a_bolus_is_kept_for_the_check_to_refuse() -> None:
    assert read_plan(RST.replace("bolus 0", "bolus 12.5").encode(), "a.rst").beams[0].accessories == ("bolus",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("3 -3 1.0E+05", "3 -3 nan", "layer 1, spot 0"),
        ("3 -3 1.0E+05", "3 inf 1.0E+05", "layer 1, spot 0"),
        ("0 0 3.0E+05", "0 0 -3.0E+05", "layer 0, spot 0"),
        ("0 0 3.0E+05", "0 0 4.0E+05", "700000 particles, 600000"),
        ("#points 2\n0 0", "#points 3\n0 0", "ends where a spot"),
        ("#points 2\n3", "#points x\n3", "no whole number"),
        ("#points 2\n3", "#points 1\n3", "where submachine# should be"),
        ("#submachines 2", "#submachines 3", "3 submachines are announced, 2"),
        ("projectile 12C", "projectile Xx", "no ion we know"),
        ("projectile 12C", "projectile 1H", "no ion we know"),
        ("projectile 12C\n", "", "no projectile"),
        ("120.20", "fast", "no number"),
    ],
)
def test_refusals(old: str, new: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(RST.replace(old, new, 1).encode(), "a.rst")
    assert words in str(caught.value)


def test_truncation_is_refused() -> None:
    data = RST.encode()
    for length in range(0, len(data) - 12, 5):
        with pytest.raises(PlanError):
            read_plan(data[:length], "cut.rst")


@pytest.mark.parametrize("seed", range(50))
def test_mutated_text_ends_in_a_plan_or_a_plan_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(RST.encode())
    for _ in range(3):
        at = int(rng.integers(8, len(data)))
        data[at : at + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 3)))
    with contextlib.suppress(PlanError):
        read_plan(bytes(data), "mutant.rst")
