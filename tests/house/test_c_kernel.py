"""The kernel once more, compiled by another compiler from the same source: all bytes of a delivery agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_kernel import COMPARED, deliver, largest_difference
from benchmarks.c_kernel import CKernel, NotTranslatableError, translate
from ioc_sim import rack


def test_c_and_numba_deliver_the_same_bytes(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc not installed")
    c = deliver(CKernel(rack.run, tmp_path), with_rules=True, side=12)
    ours = deliver(rack.run, with_rules=True, side=12)
    assert ours.ticks > 1000
    assert float(ours.plant._state[0].truth_total) > 1e6
    for name in COMPARED:
        left, right = getattr(ours.plant, name), getattr(c.plant, name)
        assert left.tobytes() == right.tobytes(), f"{name} differs by {largest_difference(ours.plant, c.plant)}"


def half(values: np.ndarray) -> None:
    values[0] = sorted([values[0] * 0.5])[0]


def test_what_the_translator_does_not_know_is_refused() -> None:
    with pytest.raises(NotTranslatableError):
        translate(half, [np.zeros(1)])
