"""Two thousand broken plans and records; a hundred thousand are in the long counts (`benchmarks/soak_fuzz.py`)."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from benchmarks import soak_fuzz
from facility.errors import PlanError


@pytest.mark.parametrize("part", range(4))
def test_whatever_the_bytes_a_reader_has_an_answer(part: int) -> None:
    soak_fuzz.seeds()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = [problem for k in range(500 * part, 500 * (part + 1)) if (problem := soak_fuzz.objection(k))]
    assert found == []
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) < soak_fuzz.MEMORY_BYTES


def test_the_seeds_are_whole_and_most_of_what_is_broken_is_refused() -> None:
    for name, reader, data in soak_fuzz.seeds():
        try:
            reader(data, name)
        except PlanError:
            assert "topasmc" in name  # the one real file that is no plan
    refused = 0
    for k in range(100):
        name, reader, data = soak_fuzz.damaged(k)
        try:
            reader(data, name)
        except PlanError:
            refused += 1
    assert 30 < refused <= 100
    assert soak_fuzz.damaged(7)[2] == soak_fuzz.damaged(7)[2]
    assert len({len(soak_fuzz.damaged(k)[2]) for k in np.arange(50)}) > 10
