"""Figures of the PIMMS ring are those of its published lattice, and xtrack goes the same way through the real ring."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.pimms_lattice import LATTICE, Xtrack, against_xtrack, strengths, twiss
from ioc_sim.extraction.optics import load_optics


@pytest.fixture(autouse=True)
def at_hand() -> None:
    if not LATTICE.is_dir():
        pytest.skip("../shared/data is not here")


def test_optics_are_those_of_the_published_lattice() -> None:
    found, optics = twiss(strengths()), load_optics("pimms")
    lattice = optics.lattice
    assert found.beta_m == pytest.approx(lattice.beta_m, abs=5e-4)
    assert found.alpha == pytest.approx(lattice.alpha, abs=5e-5)
    assert found.dispersion_m == pytest.approx(lattice.dispersion_m, abs=5e-4)
    assert found.tune == pytest.approx(1.6395, abs=5e-5)
    for sextupole in optics.sextupoles:
        phase, beta = found.sextupoles[sextupole.name]
        assert beta == pytest.approx(sextupole.beta_m, abs=5e-4)
        assert phase / found.tune * lattice.tune % 1.0 == pytest.approx(sextupole.phase_turns, abs=2e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_xtrack_through_the_real_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corners, area and step of three turns within half a per cent, though here a sector is one rotation."""
    if find_spec("xtrack") is None:
        pytest.skip("xtrack not installed")
    monkeypatch.chdir(tmp_path)  # its compiler reads the pyproject.toml of the working directory
    found = against_xtrack(0.001, Xtrack())
    assert found["steps"] > 5
    assert max(abs(found[name]) for name in ("area", "corner", "step")) < 0.005
    assert abs(found["theory_area"]) < 0.05
