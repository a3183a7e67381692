"""The triangle and its arms as the tracking has them, to be held against `kobayashi`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ioc_sim.extraction.kobayashi import ComplexArray, FloatArray
from ioc_sim.extraction.optics import Optics
from ioc_sim.extraction.tracking import Particles, Programme, Tracker

FAR_MM = 1e6
"""A septum and an aperture that nothing reaches before it has diverged."""
MOST_STEPS = 2000
"""Of three turns each, for the way from a corner to the septum."""


@dataclass(frozen=True)
class Comparison:
    """Tracking against theory at one tune distance.

    Attributes:
        distance: of the tune from the resonance.
        area, area_theory: stable area at the septum, m rad.
        corners, corners_theory: unstable fixed points of three turns, X + i P in sqrt(m), sqrt(m).
        start_mm, step_mm, step_theory_mm: x on the way out just before the septum, and what three turns add.
    """

    distance: float
    area: float
    area_theory: float
    corners: ComplexArray
    corners_theory: ComplexArray
    start_mm: FloatArray
    step_mm: FloatArray
    step_theory_mm: FloatArray

    @property
    def area_error(self) -> float:
        """Relative deviation of the area."""
        return self.area / self.area_theory - 1.0

    @property
    def corner_error(self) -> float:
        """Largest distance of a corner from its place by theory, over the distance of the corners from the centre."""
        return float(np.max(np.abs(self.corners - self.corners_theory)) / np.abs(self.corners_theory[0]))

    @property
    def size_error(self) -> float:
        """Relative deviation of the corners' mean distance from the centre."""
        return float(np.mean(np.abs(self.corners)) / np.abs(self.corners_theory[0]) - 1.0)

    @property
    def step_error(self) -> float:
        """Largest relative deviation of the length of the spiral step; NaN where the septum is inside the triangle."""
        if not self.step_mm.size:
            return float("nan")
        return float(np.max(np.abs(self.step_mm / self.step_theory_mm - 1.0)))


def bare(optics: Optics) -> Optics:
    """The ring without septum, aperture or momentum spread."""
    septum = optics.septum.model_copy(update={"position_mm": FAR_MM, "aperture_mm": FAR_MM, "gap_mm": FAR_MM})
    lattice = optics.lattice.model_copy(update={"dispersion_m": 0.0})
    return optics.model_copy(update={"septum": septum, "lattice": lattice})


def turn_by_turn(optics: Optics, z: ComplexArray, turns: int) -> ComplexArray:
    """Where particles of dp/p = 0 that start at Z (sqrt(m)) are after each of so many turns; drive off.

    Shape (turns + 1, particles); one that has left stays where it left.
    """
    beam = Particles(z.real.copy(), z.imag.copy(), np.zeros(z.size))
    tracker = Tracker(optics, beam, Programme(drive_off=0), seed=0)
    places = [z.astype(np.complex128)]
    for _ in range(turns):
        tracker.advance(1)
        places.append(beam.x + 1j * beam.p)
    return np.array(places)


def boundary(optics: Optics, angles: FloatArray, turns: int = 3000, halvings: int = 14) -> FloatArray:
    """How far from the centre a particle may start in each direction and still be there after `turns`; sqrt(m)."""
    ring = bare(optics)
    largest = 2.0 * abs(optics.resonance().radius(optics.lattice.distance))
    ring = ring.model_copy(update={"septum": ring.septum.model_copy(update=_limits(ring, 4.0 * largest))})
    low, high = np.zeros(angles.size), np.full(angles.size, largest)
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        z = middle * np.exp(1j * angles)
        beam = Particles(z.real.copy(), z.imag.copy(), np.zeros(angles.size))
        Tracker(ring, beam, Programme(drive_off=0), seed=0).advance(turns)
        stable = beam.status == 0
        low, high = np.where(stable, middle, low), np.where(stable, high, middle)
    return np.asarray(0.5 * (low + high), dtype=np.float64)


def _limits(ring: Optics, reach: float) -> dict[str, float]:
    reach_mm = reach * float(np.sqrt(ring.lattice.beta_m)) * 1e3
    return {"position_mm": reach_mm, "aperture_mm": reach_mm}


def stable_area(optics: Optics, rays: int = 360) -> float:
    """Area of the stable region, m rad."""
    radius = boundary(optics, 2.0 * np.pi * (np.arange(rays) + 0.5) / rays)
    return float(np.mean(radius**2) * np.pi)


def fixed_points(optics: Optics, steps: int = 8) -> ComplexArray:
    """Unstable fixed points of three turns, by Newton's method from where theory has them; sqrt(m)."""
    ring = bare(optics)
    z = optics.resonance().corners(optics.lattice.distance)
    h = 1e-6 * float(np.abs(z[0]))

    def three(start: ComplexArray) -> ComplexArray:
        return np.asarray(turn_by_turn(ring, start, 3)[-1], dtype=np.complex128)

    for _ in range(steps):
        error = three(z) - z
        by_x, by_p = (three(z + h) - z - error - h) / h, (three(z + 1j * h) - z - error - 1j * h) / h
        a, b, c, d = by_x.real, by_p.real, by_x.imag, by_p.imag
        inverse = 1.0 / (a * d - b * c)
        z = z - inverse * ((d * error.real - b * error.imag) + 1j * (a * error.imag - c * error.real))
    return np.asarray(z, dtype=np.complex128)


def arm(optics: Optics, starts: int = 24) -> ComplexArray:
    """Particles on the way out to the septum, three turns apart: shape (steps, starts).

    NaN once beyond twice the septum's place.

    They start beside the corner, spread over the growth of three turns, so that they cover the arm evenly.
    """
    ring, resonance, distance = bare(optics), optics.resonance(), optics.lattice.distance
    reach = 2.0 * optics.septum.position_mm * 1e-3 / float(np.sqrt(optics.lattice.beta_m))
    middle, out, rho0 = resonance.arm(distance, towards_septum(optics))
    corners = fixed_points(optics)
    corner = complex(corners[int(np.argmin(np.abs(corners - (middle + rho0 * out))))])
    growth = np.exp(3.0 * resonance.growth_per_turn(distance))
    z = corner + 1e-3 * abs(corner) * _direction(ring, corner) * growth ** (np.arange(starts) / starts)
    steps: list[ComplexArray] = [z]
    while np.abs(z).min() < reach and len(steps) < MOST_STEPS:
        z = turn_by_turn(ring, np.where(np.abs(z) < reach, z, reach), 3)[-1]
        steps.append(z)
    found = np.array(steps)
    return np.where(np.cumsum(np.abs(found) >= reach, axis=0) > 0, np.nan, found)


def towards_septum(optics: Optics) -> float:
    """Direction of the septum in normalised phase space, rad."""
    return 0.0 if optics.septum.side > 0 else float(np.pi)


def spiral_step(optics: Optics) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Last step of three turns towards the septum: from where (mm), how far by tracking, how far by theory (mm).

    Theory starts on its own arm at the same x. Nine tenths of the septum's place and more.
    """
    side, root = optics.septum.side, float(np.sqrt(optics.lattice.beta_m)) * 1e3
    x = side * arm(optics).real * root
    here, there = x[:-1], x[1:]
    last = (here > 0.9 * optics.septum.position_mm) & (here <= optics.septum.position_mm) & np.isfinite(there)
    here, there = here[last], there[last]
    resonance, distance = optics.resonance(), optics.lattice.distance
    middle, out, _ = resonance.arm(distance, towards_septum(optics))
    base, slope = side * middle.real * root, side * out.real * root
    after = base + slope * resonance.arm_after((here - base) / slope, distance)
    return here, there - here, after - here


def compare(optics: Optics) -> Comparison:
    """Area, corners and spiral step of this ring at dp/p = 0, tracked and by theory."""
    resonance, distance = optics.resonance(), optics.lattice.distance
    here, step, theory = spiral_step(optics)
    return Comparison(distance, stable_area(optics), resonance.area(distance), fixed_points(optics),
                      resonance.corners(distance), here, step, theory)  # fmt: skip


def _direction(ring: Optics, corner: complex) -> complex:
    """Unit vector of the unstable direction at a corner, on the side that leads away from the triangle."""
    h = 1e-6 * abs(corner)
    start = np.array([corner, corner + h, corner + 1j * h])
    moved = (turn_by_turn(ring, start, 3)[-1] - corner) / h
    matrix = np.array([[moved[1].real, moved[2].real], [moved[1].imag, moved[2].imag]])
    values, vectors = np.linalg.eig(matrix)
    out = complex(*vectors[:, int(np.argmax(values.real))].real)
    return out if (out * np.conj(corner)).real > 0.0 else -out
