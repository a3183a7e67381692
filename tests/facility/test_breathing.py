"""Breathing traces: the packaged one is what its maker makes, bad files are refused."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from facility.breathing import load_trace, make_trace, render_trace
from facility.config import list_facilities, load_facility
from facility.errors import ConfigError


def test_packaged_trace_is_reproducible() -> None:
    packaged = resources.files("configs").joinpath("breathing/free-breathing.csv").read_text(encoding="utf-8")
    assert packaged == render_trace()


def test_trace_breathes() -> None:
    trace = load_trace("free-breathing.csv")
    assert trace.duration_s >= 60.0
    assert trace.step_s == pytest.approx(0.04)
    # 15 breaths a minute, give or take
    inhaled = trace.amplitude_mm > 6.0
    breaths = int(np.count_nonzero(inhaled[1:] & ~inhaled[:-1]))
    assert 10 <= breaths / trace.duration_s * 60.0 <= 20
    # it plays in a loop without a jump
    assert abs(trace.amplitude_mm[-1] - trace.amplitude_mm[0]) < 0.6
    with pytest.raises(ValueError, match="read-only"):
        trace.amplitude_mm[0] = 1.0


def test_seeds_matter() -> None:
    assert np.array_equal(make_trace(1)[1], make_trace(1)[1])
    assert not np.array_equal(make_trace(1)[1], make_trace(2)[1])


@pytest.mark.parametrize("name", list_facilities(env={}))
def test_every_facility_names_a_trace_that_opens_its_gate(name: str) -> None:
    gate = load_facility(name).gate
    amplitude = load_trace(gate.trace).amplitude_mm
    open_share = float(np.mean((amplitude >= gate.window_low_mm) & (amplitude <= gate.window_high_mm)))
    assert 0.2 < open_share < 0.7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a breathing trace"),
        ("# schema: ionctl.breathing/1\na,b\n", "must be t_s,amplitude_mm"),
        ("# schema: ionctl.breathing/1\nt_s,amplitude_mm\n0,1\n", "two rows or more"),
        ("# schema: ionctl.breathing/1\nt_s,amplitude_mm\n0,1\n1,x\n", "not a table of numbers"),
        ("# schema: ionctl.breathing/1\nt_s,amplitude_mm\n0,1\n1,nan\n", "finite"),
        ("# schema: ionctl.breathing/1\nt_s,amplitude_mm\n0,1\n1,1\n3,1\n", "evenly spaced"),
        ("# schema: ionctl.breathing/1\nt_s,amplitude_mm\n0,1\n0,1\n", "evenly spaced"),
    ],
)
def test_bad_traces_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "breathing").mkdir()
    (tmp_path / "breathing" / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_trace("x.csv", tmp_path, {})


def test_missing_trace() -> None:
    with pytest.raises(ConfigError, match=r"no breathing trace 'nope\.csv'"):
        load_trace("nope.csv", env={})
