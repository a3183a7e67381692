"""Tracking against the Kobayashi Hamiltonian, and the Hamiltonian against itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ioc_sim.extraction.kobayashi import Resonance, strength
from ioc_sim.extraction.separatrix import compare, fixed_points, stable_area
from tests.extraction.settings import setting

ONE = Resonance(s=10.0, psi=0.3)
DISTANCES = (0.002, -0.002)


def test_strength_in_the_convention_of_mad_x() -> None:
    """dx' = -k2l x^2 / 2 at beta = 4 m, x = 2 mm: dP = sqrt(beta) dx' = S X^2."""
    x, beta, k2l = 2e-3, 4.0, 1.5
    assert strength(beta, k2l) * (x / beta**0.5) ** 2 == pytest.approx(beta**0.5 * -0.5 * k2l * x * x)


@pytest.mark.parametrize("distance", DISTANCES)
def test_corners_stand_still_and_lie_on_one_line_of_equal_energy(distance: float) -> None:
    corners = ONE.corners(distance)
    assert np.abs(ONE.velocity(corners, distance)) == pytest.approx(np.zeros(3), abs=1e-15)
    energy = (2.0 / 3.0 * 6.0 * np.pi * distance) ** 3 / ONE.s**2  # (2 epsilon / 3)^3 / S^2: PIMMS I, 3.4
    assert ONE.hamiltonian(corners, distance) == pytest.approx(np.full(3, energy), rel=1e-12)
    a, b, c = corners
    area = 0.5 * abs(((b - a) * np.conj(c - a)).imag)
    assert area == pytest.approx(ONE.area(distance), rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("towards", [0.0, 2.0, np.pi])
def test_an_arm_solves_the_equation_of_motion(distance: float, towards: float) -> None:
    middle, out, rho0 = ONE.arm(distance, towards)
    assert np.abs(np.array([middle + rho0 * out]) - ONE.corners(distance)).min() < 1e-15, "it begins at a corner"
    rho = rho0 * np.array([1.05, 1.5, 3.0])
    by_steps = ONE.after(middle + rho * out, distance)
    assert by_steps == pytest.approx(middle + ONE.arm_after(rho, distance) * out, rel=1e-6)
    assert np.cos(np.angle(out) - towards) >= 0.5 - 1e-12, "one of three is within 60 degrees"
    first_order = 0.75 * ONE.s * (rho * rho - rho0 * rho0) * 1e-4
    assert ONE.arm_after(rho, distance, 3e-4) - rho == pytest.approx(first_order, rel=1e-3)


def test_what_diverges_within_the_time_is_infinite() -> None:
    assert np.isinf(ONE.arm_after(np.array([1.0]), 0.002))


def test_sextupoles_add_as_vectors_of_three_times_their_phase() -> None:
    alone = Resonance.of([(5.0, 0.2)])
    assert (alone.s, alone.psi) == pytest.approx((5.0, 0.2))
    pair = Resonance.of([(5.0, 0.2), (5.0, 0.2 + 2.0 * np.pi / 3.0)])
    assert (pair.s, pair.psi) == pytest.approx((10.0, 0.2))
    assert Resonance.of([(5.0, 0.2), (5.0, 0.2 + np.pi / 3.0)]).s == pytest.approx(0.0, abs=1e-12)


def test_tracking_agrees_with_theory_at_the_working_point() -> None:
    """5 %: area, corners, spiral step of the ring as its file has it."""
    found = compare(setting("wuwei").optics)
    assert abs(found.area_error) < 0.05
    assert found.corner_error < 0.05
    assert found.step_error < 0.05
    assert found.step_mm.size > 20
    assert 1.0 < found.step_mm.min() < found.step_mm.max() < 3.0


@pytest.mark.parametrize("distance", [0.001, -0.001])
def test_tracking_agrees_with_theory_in_a_ring_of_two_sextupoles(distance: float) -> None:
    found = compare(setting("pimms").optics.with_distance(distance))
    assert abs(found.area_error) < 0.05
    assert found.corner_error < 0.05
    assert found.step_error < 0.05


def test_the_deviation_is_of_first_order_in_the_tune_distance() -> None:
    """Theory averages over three turns: half the distance, half the error. No error of scale hides in it."""
    optics = setting("wuwei").optics
    errors = []
    for distance in (0.002, 0.001, 0.0005):
        ring = optics.with_distance(distance)
        area = stable_area(ring) / ring.resonance().area(distance) - 1.0
        corners = np.abs(fixed_points(ring) - ring.resonance().corners(distance)).max()
        errors.append((area, corners / ring.resonance().radius(distance)))
    for larger, smaller in pairwise(errors):
        assert np.array(smaller) / np.array(larger) == pytest.approx(np.full(2, 0.5), abs=0.06)
