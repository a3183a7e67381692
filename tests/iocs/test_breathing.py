"""The breathing trace as functions of time: what the window says, where the edges are, and that the rack agrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facility.breathing import BreathingTrace, load_trace
from facility.config import load_facility
from facility.errors import ConfigError
from ioc_sim import layout
from ioc_sim.breathing import Breathing, GateEdge
from ioc_sim.params import record
from ioc_sim.rack import gate_sample


def trace(*amplitudes: float, step_s: float = 0.1) -> BreathingTrace:
    values = np.array(amplitudes, dtype=np.float64)
    return BreathingTrace(np.arange(values.size) * step_s, values, step_s)


def test_amplitude_is_linear_and_repeats() -> None:
    breathing = Breathing(trace(0.0, 10.0), -1.0, 4.0)
    assert breathing.period_ns == 200_000_000
    for periods in (0, 1, 1000):
        base = periods * breathing.period_ns
        assert breathing.amplitude_mm(base) == 0.0
        assert breathing.amplitude_mm(base + 25_000_000) == pytest.approx(2.5)
        assert breathing.amplitude_mm(base + 150_000_000) == pytest.approx(5.0), "the last runs into the first"


def test_edges_are_the_first_ns_of_the_new_state() -> None:
    breathing = Breathing(trace(0.0, 10.0), -1.0, 4.0)
    assert breathing.edges == (GateEdge(40_000_001, False), GateEdge(160_000_000, True))
    assert breathing.next_edge(0) == GateEdge(40_000_001, False)
    assert breathing.next_edge(40_000_001) == GateEdge(160_000_000, True)
    assert breathing.next_edge(160_000_000) == GateEdge(240_000_001, False), "in the next period"


def test_a_gate_that_never_changes() -> None:
    assert Breathing(trace(0.0, 1.0), -5.0, 5.0).next_edge(0) is None
    assert Breathing(trace(0.0, 1.0), 3.0, 5.0).edges == ()


def test_a_window_that_a_breath_flies_through() -> None:
    breathing = Breathing(trace(0.0, 10.0), 4.0, 6.0)
    assert [edge.is_open for edge in breathing.edges] == [True, False, True, False]


def test_an_edge_across_the_seam() -> None:
    breathing = Breathing(trace(0.0, 0.0, 10.0, 10.0), -1.0, 5.0)
    assert [edge.is_open for edge in breathing.edges] == [False, True]
    assert breathing.gate_open(breathing.edges[1].t_ns)
    assert not breathing.gate_open(breathing.edges[1].t_ns - 1)


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (3.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_a_bad_window_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="window"):
        Breathing(trace(0.0, 1.0), low, high)


def test_a_step_below_a_nanosecond_is_refused() -> None:
    with pytest.raises(ConfigError, match="apart"):
        Breathing(trace(0.0, 1.0, step_s=1e-10), 0.0, 1.0)


@pytest.fixture(scope="module")
def real() -> Breathing:
    return Breathing.of(load_facility("wuwei", env={}))


def test_edges_of_the_real_trace_alternate_and_are_exact(real: Breathing) -> None:
    states = [edge.is_open for edge in real.edges]
    assert len(states) > 20
    assert all(a != b for a, b in zip(states, states[1:] + states[:1], strict=True))
    for edge in real.edges:
        assert real.gate_open(edge.t_ns) is edge.is_open
        assert real.gate_open(edge.t_ns - 1) is not edge.is_open


@given(t_ns=st.integers(0, 10**13))
def test_between_two_edges_the_state_does_not_change(real: Breathing, t_ns: int) -> None:
    edge = real.next_edge(t_ns)
    assert edge is not None
    assert edge.t_ns > t_ns
    state = real.gate_open(t_ns)
    assert edge.is_open is not state
    for k in range(20):
        assert real.gate_open(t_ns + (edge.t_ns - 1 - t_ns) * k // 20) is state


def test_the_rack_plays_the_same_trace_bit_for_bit(real: Breathing) -> None:
    facility = load_facility("wuwei", env={})
    samples = np.ascontiguousarray(load_trace(facility.gate.trace).amplitude_mm, dtype=np.float64)
    p, s = record(layout.PARAM_DTYPE), record(layout.STATE_DTYPE)
    p[0].gate_step_ns, p[0].gate_samples = real.period_ns // samples.size, samples.size
    p[0].gate_low_mm, p[0].gate_high_mm = real.low_mm, real.high_mm
    s[0].gating = 1
    faults, q, v = np.zeros((64, 5)), np.zeros(layout.N_Q), np.zeros(layout.N_V)
    for ms in range(0, 250_000, 37):
        s[0].t_ns = ms * 1_000_000
        gate_sample(p[0], q, s[0], v, faults, samples)
        assert float(s[0].gate_mm) == real.amplitude_mm(ms * 1_000_000)
        assert bool(s[0].gate_open) is real.gate_open(ms * 1_000_000)
