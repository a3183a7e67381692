"""The PIMMS ring element by element: its Twiss functions by matrices, and slow extraction by xtrack through all of it.

``python -m benchmarks.pimms_lattice`` holds the tracking of `ioc_sim.extraction`, which has one rotation a sector and a
thin element at its end, against xtrack's through bends, quadrupoles and sextupoles of their real lengths (some minutes,
most of them for xtrack's kernels). The lattice lies beside the repository, in ``../shared/data``; nothing is fitted to
it: figures of `configs/optics/pimms.toml` are its Twiss functions, which a test computes anew.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.reference_files import FOLDER
from ioc_sim.extraction.optics import Optics, load_optics
from ioc_sim.extraction.separatrix import compare

LATTICE = FOLDER / "lattice"
SEQUENCE, STRENGTHS = LATTICE / "PIMMS.seq", LATTICE / "pimms_optics.str"
DISTANCES = (0.0005, 0.001, 0.002, -0.001)
SEXTUPOLE_M = 0.2
KINETIC_EV = 250e6
ARM_FROM_SQRT_M, ARM_STARTS, ARM_RATIO, ARM_STEPS = 2e-4, 24, 0.04, 400
Matrix = np.ndarray


@dataclass(frozen=True)
class Twiss:
    """At the septum's marker; by sextupole its phase from there (turns) and beta (m)."""

    tune: float
    beta_m: float
    alpha: float
    dispersion_m: float
    sextupoles: dict[str, tuple[float, float]]


def drift(length: float) -> Matrix:
    """Of x, x', dp/p."""
    return np.array([[1.0, length, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def quadrupole(length: float, k1: float) -> Matrix:
    """Of the strength ``k1``, 1/m2."""
    root = math.sqrt(abs(k1))
    cos, sin = (math.cos, math.sin) if k1 > 0.0 else (math.cosh, math.sinh)
    sign = -1.0 if k1 > 0.0 else 1.0
    phase = root * length
    rows = [[cos(phase), sin(phase) / root, 0.0], [sign * root * sin(phase), cos(phase), 0.0], [0.0, 0.0, 1.0]]
    return np.array(rows)


def bend(length: float, angle: float, edge: float) -> Matrix:
    """A sector bend between two faces that are turned by ``edge``."""
    rho = length / angle
    face = np.array([[1.0, 0.0, 0.0], [math.tan(edge) / rho, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cos, sin = math.cos(angle), math.sin(angle)
    body = np.array([[cos, rho * sin, rho * (1.0 - cos)], [-sin / rho, cos, sin], [0.0, 0.0, 1.0]])
    return np.asarray(face @ body @ face)


def strengths() -> dict[str, float]:
    """Of the quadrupole families, as published."""
    text = STRENGTHS.read_text("utf-8")
    return {name: float(value) for name, value in re.findall(r"(\w+) *= *([-\d.e]+);", text)}


def pieces(k: dict[str, float]) -> list[tuple[str, Matrix]]:
    """From the septum's marker once around: half of each sextupole before its name, half behind; sextupoles off."""
    text = SEQUENCE.read_text("utf-8")
    kinds = {
        name: {"kind": kind, **dict(re.findall(r"(\w+) *:?= *([^,]+)", rest))}
        for name, kind, rest in re.findall(r"^(\w+): *(\w+), *([^;]+);", text, re.MULTILINE)
    }
    found: list[tuple[str, Matrix]] = []
    at = 0.0
    for name, kind, where in re.findall(r"(\w+(?:\.\d+)?)(?:: *(\w+))?, at=([-\d.+ ]+);", text):
        known = kinds.get(kind or name, {"kind": "marker"})
        long = float(np.prod([float(factor) for factor in known.get("l", "0").split("*")]))
        centre = sum(float(part) for part in re.findall(r"-?[\d.]+", where.replace(" ", "").replace("+", " ")))
        found.append(("", drift(centre - 0.5 * long - at)))
        if known["kind"] == "quadrupole":
            found.append((name, quadrupole(long, k[known["k1"]])))
        elif known["kind"] == "sbend":
            found.append((name, bend(long, float(known["angle"]), float(known["e1"]))))
        else:
            found += [("", drift(0.5 * long)), (name, drift(0.5 * long))]
        at = centre + 0.5 * long
    return [*found, ("", drift(float(re.findall(r"sequence,.*l=([\d.]+)", text)[0]) - at))]


def twiss(k: dict[str, float]) -> Twiss:
    """Of the ring with these strengths, sextupoles off."""
    ring = pieces(k)
    turn = np.eye(3)
    for _, matrix in ring:
        turn = matrix @ turn
    cos = 0.5 * (turn[0, 0] + turn[1, 1])
    sin = math.copysign(math.sqrt(1.0 - cos * cos), turn[0, 1])
    beta, alpha = turn[0, 1] / sin, 0.5 * (turn[0, 0] - turn[1, 1]) / sin
    dispersion = np.linalg.solve(np.eye(2) - turn[:2, :2], turn[:2, 2])
    advance, here, seen = 0.0, np.eye(3), {}
    for name, matrix in ring:
        along = beta * here[0, 0] - alpha * here[0, 1]
        seen[name] = advance, float((along * along + here[0, 1] ** 2) / beta)
        before, behind = (math.atan2(m[0, 1], beta * m[0, 0] - alpha * m[0, 1]) for m in (here, matrix @ here))
        advance += (behind - before) % (2.0 * math.pi) / (2.0 * math.pi)
        here = matrix @ here
    return Twiss(
        advance, float(beta), float(alpha), float(dispersion[0]), {name: seen[name] for name in ("se1", "se2")}
    )


def tuned(distance: float) -> tuple[dict[str, float], Twiss]:
    """Strengths and Twiss functions with both focusing families scaled until the tune lies so far from 5/3."""
    low, high = 0.98, 1.05
    for _ in range(60):
        scale = 0.5 * (low + high)
        k = {name: value * (scale if name.startswith("kqf") else 1.0) for name, value in strengths().items()}
        found = twiss(k)
        low, high = (scale, high) if found.tune < 5.0 / 3.0 + distance else (low, scale)
    return k, found


def optics_of(found: Twiss) -> Optics:
    """Those of pimms with the Twiss functions of another tune; no chromaticity, as the lattice's sextupoles are off."""
    optics = load_optics("pimms")
    known = {"tune": found.tune, "beta_m": found.beta_m, "alpha": found.alpha, "chromaticity": 0.0}
    sextupoles = tuple(
        one.model_copy(update=dict(zip(("phase_turns", "beta_m"), found.sextupoles[one.name], strict=True)))
        for one in optics.sextupoles
    )
    return optics.model_copy(update={"lattice": optics.lattice.model_copy(update=known), "sextupoles": sextupoles})


class Xtrack:
    """The real ring in xtrack; places are those of `ioc_sim.extraction`, X + iP in sqrt(m) at the septum."""

    def __init__(self) -> None:
        import xobjects as xo
        import xtrack as xt

        xo.settings.allow_kernel_compilation = True
        self._particles = xt.Particles
        self._env: Any = xt.load([str(SEQUENCE), str(STRENGTHS)], format="madx")
        self._line = self._env["pimms"]
        self._line.particle_ref = xt.Particles(mass0=xt.PROTON_MASS_EV, q0=1, kinetic_energy0=KINETIC_EV)
        self._line.build_tracker()
        self._at = twiss(strengths())

    def set(self, k: dict[str, float], found: Twiss, optics: Optics) -> None:
        """Take up these strengths, and the extraction sextupoles of the optics."""
        self._at = found
        for name, value in {**k, "ksd": 0.0, "ksf": 0.0}.items():
            self._env[name] = value
        for one in optics.sextupoles:
            self._env[f"k{one.name}"] = one.k2l_per_m2 / SEXTUPOLE_M

    def track(self, place: np.ndarray, turns: int) -> np.ndarray:
        """Places after so many turns."""
        root, alpha = math.sqrt(self._at.beta_m), self._at.alpha
        reference = self._line.particle_ref
        beam = self._particles(mass0=reference.mass0, q0=1, p0c=float(reference.p0c[0]), x=place.real * root,
                               px=(place.imag - alpha * place.real) / root)  # fmt: skip
        self._line.track(beam, num_turns=turns)
        order = np.argsort(beam.particle_id)
        x, px = beam.x[order], beam.px[order]
        return np.asarray(x / root + 1j * (px * root + alpha * x / root))

    def corner(self, near: complex) -> tuple[complex, np.ndarray]:
        """The fixed point of three turns near a place, by Newton's method, and the map's derivatives there."""
        tiny, at = 1e-6, near
        for _ in range(8):
            here = self.track(np.array([at, at + tiny, at + 1j * tiny]), 3)
            slopes = np.array([[(c - here[0]).real, (c - here[0]).imag] for c in here[1:]]).T / tiny
            step = np.linalg.solve(slopes - np.eye(2), [(at - here[0]).real, (at - here[0]).imag])
            at += complex(*step)
            if np.hypot(*step) < 1e-10:
                break
        return at, slopes

    def steps(self, corner: complex, slopes: np.ndarray, from_x: float, to_x: float) -> np.ndarray:
        """(x, step of three turns) in sqrt(m) along the arm that leaves a corner, between two places; (n, 2)."""
        values, vectors = np.linalg.eig(slopes)
        out = complex(*np.real(vectors[:, int(np.argmax(np.abs(values)))]))
        out *= math.copysign(1.0, out.real) / abs(out)
        place = corner + out * ARM_FROM_SQRT_M * np.exp(ARM_RATIO * np.arange(ARM_STARTS))
        rows = []
        for _ in range(ARM_STEPS):
            after = self.track(place, 3)
            inside = (place.real >= from_x) & (place.real <= to_x)
            rows += list(zip(place.real[inside], (after - place).real[inside], strict=True))
            place = np.where(after.real < to_x, after, corner)
            if (place == corner).all():
                break
        return np.array(rows).reshape(-1, 2)


def against_xtrack(distance: float, ring: Xtrack) -> dict[str, float]:
    """Ours over xtrack's, less 1: triangle's area, largest distance of a corner over the radius, step to the septum."""
    k, found = tuned(distance)
    optics = optics_of(found)
    ring.set(k, found, optics)
    ours = compare(optics)
    there = [ring.corner(complex(one)) for one in ours.corners]
    theirs = np.array([one for one, _ in there])
    root_mm = math.sqrt(found.beta_m) * 1e3
    order = np.argsort(ours.start_mm)
    x_mm, step_mm = ours.start_mm[order], ours.step_mm[order]
    leaving = max(there, key=lambda one: one[0].real)
    steps = ring.steps(*leaving, x_mm[0] / root_mm, x_mm[-1] / root_mm) * root_mm
    same = np.interp(steps[:, 0], x_mm, step_mm)
    return {
        "distance": distance,
        "area": _triangle(ours.corners) / _triangle(theirs) - 1.0,
        "corner": float(np.abs(ours.corners - theirs).max() / np.abs(theirs).mean()),
        "step": float(np.abs(same / steps[:, 1] - 1.0).max()),
        "steps": float(steps.shape[0]),
        "theory_area": ours.area_theory / np.pi / (_triangle(theirs) / np.pi) - 1.0,
    }


def _triangle(corners: np.ndarray) -> float:
    return 0.5 * abs(float(((corners[1] - corners[0]) * np.conj(corners[2] - corners[0])).imag))


def main() -> None:
    """Print all distances."""
    ring = Xtrack()
    for distance in DISTANCES:
        found = against_xtrack(distance, ring)
        print(", ".join(f"{name} {value:.3g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
