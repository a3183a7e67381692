"""The third-integer resonance by theory: the Kobayashi Hamiltonian, its triangle, its arms.

Sources: Y. Kobayashi, H. Takahashi, Proc. 6th Int. Conf. High Energy Accelerators (1967) 347; P. J. Bryant et al.,
Proton-Ion Medical Machine Study (PIMMS) part I, CERN/PS 99-010 (1999), chapter 3.

Normalised coordinates at the place of observation, X = x / sqrt(beta) and P (sqrt(m)). A thin sextupole gives
dP = S X^2; in the convention of MAD-X, dx' = -k2l x^2 / 2, so S = -beta^1.5 k2l / 2 (1/sqrt(m)). With
epsilon = 6 pi dQ, dQ the distance of the particle's tune from the resonance, and time in units of three turns:

    H = (epsilon / 2)(X^2 + P^2) + (S / 4)(3 X P^2 - X^3)

Several sextupoles act as one, S exp(-3 i psi) = sum S_n exp(-3 i mu_n), mu_n their phase advance from the place of
observation (PIMMS I, section 3.6); Z = X + i P is then turned by psi. First order in S and dQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]


def strength(beta_m: float, k2l_per_m2: float) -> float:
    """Normalised strength S of a thin sextupole, 1/sqrt(m): dP = S X^2."""
    return float(-0.5 * beta_m**1.5 * k2l_per_m2)


@dataclass(frozen=True)
class Resonance:
    """All sextupoles of a ring as one, seen from the place of observation.

    Attributes:
        s: strength, 1/sqrt(m), positive.
        psi: how far Z is turned against a sextupole at the place of observation, rad.
    """

    s: float
    psi: float

    @classmethod
    def of(cls, sextupoles: Sequence[tuple[float, float]]) -> Resonance:
        """From (S_n, mu_n): strength in 1/sqrt(m), phase advance from the place of observation in rad."""
        total = sum(s * np.exp(-3j * mu) for s, mu in sextupoles)
        return cls(float(abs(total)), float(-np.angle(total) / 3.0))

    def radius(self, distance: float) -> float:
        """From the centre to a corner, 8 pi dQ / S, sqrt(m); negative where the triangle points the other way."""
        return 8.0 * np.pi * distance / self.s

    def area(self, distance: float) -> float:
        """Stable area 48 sqrt(3) pi^2 (dQ / S)^2, m rad (of X and P: an emittance times pi)."""
        return float(48.0 * np.sqrt(3.0) * (np.pi * distance / self.s) ** 2)

    def corners(self, distance: float) -> ComplexArray:
        """The three unstable fixed points, Z = X + i P, sqrt(m)."""
        turned = self.psi + 2.0 * np.pi * np.arange(3) / 3.0
        return np.asarray(self.radius(distance) * np.exp(1j * turned), dtype=np.complex128)

    def hamiltonian(self, z: ComplexArray, distance: float) -> FloatArray:
        """H at Z, m rad per three turns."""
        cubic = (z * np.exp(-1j * self.psi)) ** 3
        return np.asarray(3.0 * np.pi * distance * np.abs(z) ** 2 - 0.25 * self.s * cubic.real, dtype=np.float64)

    def velocity(self, z: ComplexArray, distance: float) -> ComplexArray:
        """dZ per three turns: dX = dH/dP, dP = -dH/dX."""
        turn = np.exp(-1j * self.psi)
        own = z * turn
        inner = -6j * np.pi * distance * own + 0.75j * self.s * np.conj(own) ** 2
        return np.asarray(inner / turn, dtype=np.complex128)

    def after(self, z: ComplexArray, distance: float, turns: float = 3.0, steps: int = 60) -> ComplexArray:
        """Where the flow of H has carried Z after so many turns (Runge-Kutta of fourth order)."""
        h = turns / 3.0 / steps
        for _ in range(steps):
            a = self.velocity(z, distance)
            b = self.velocity(z + 0.5 * h * a, distance)
            c = self.velocity(z + 0.5 * h * b, distance)
            d = self.velocity(z + h * c, distance)
            z = z + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
        return z

    def growth_per_turn(self, distance: float) -> float:
        """Rate at which a particle leaves a corner along the arm: 2 sqrt(3) pi |dQ| per turn.

        From d rho / dn3 = (3/4) S (rho^2 - rho0^2) along an arm (PIMMS I, 3.5), rho0 = radius sqrt(3) / 2.
        """
        return float(2.0 * np.sqrt(3.0) * np.pi * abs(distance))

    def arm(self, distance: float, towards: float = 0.0) -> tuple[complex, complex, float]:
        """The arm that leads out closest to the direction `towards` (rad): Z = middle + rho out for rho > rho0.

        In the frame of the one sextupole it is the line X = -radius / 2 below the corner at P = -rho0 (PIMMS I,
        3.5), and its two images turned by a third. Middle and rho0 in sqrt(m).
        """
        turned = np.exp(1j * (self.psi + 2.0 * np.pi * np.arange(3) / 3.0))
        nearest = int(np.argmax((-1j * turned * np.exp(-1j * towards)).real))
        half = 0.5 * self.radius(distance)
        return complex(-half * turned[nearest]), complex(-1j * turned[nearest]), float(np.sqrt(3.0) * abs(half))

    def arm_after(self, rho: FloatArray, distance: float, turns: float = 3.0) -> FloatArray:
        """Where on its arm a particle is after so many turns; infinite where it has diverged before.

        d rho / dn3 = (3/4) S (rho^2 - rho0^2), solved: (rho - rho0) / (rho + rho0) grows by exp(sqrt(3) epsilon n3).
        For small steps this is the spiral step of PIMMS I, (3/4) S (rho^2 - rho0^2).
        """
        rho0 = 0.5 * np.sqrt(3.0) * abs(self.radius(distance))
        w = (rho - rho0) / (rho + rho0) * np.exp(turns * self.growth_per_turn(distance))
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(w < 1.0, rho0 * (1.0 + w) / (1.0 - w), np.inf), dtype=np.float64)
