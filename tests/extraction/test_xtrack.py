"""The same particles by an established tracker, where it is installed: it compiles for most of a minute."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.slow_extraction import against_xtrack


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_xtrack_has_every_particle_at_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("xtrack") is None:
        pytest.skip("xtrack not installed")
    monkeypatch.chdir(tmp_path)  # its compiler reads the pyproject.toml of the working directory
    found = against_xtrack()
    assert found["stay"] > 1900
    assert max(found["x_sqrt_m"], found["p_sqrt_m"]) < 1e-12
    assert 5.0 * found["ours_ns"] < found["xtrack_ns"]
