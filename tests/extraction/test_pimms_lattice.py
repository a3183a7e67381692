"""Figures of the PIMMS ring in `configs/optics/pimms.toml` are those of its published lattice, by plain matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ioc_sim.extraction.optics import load_optics

LATTICE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lattice"
Matrix = np.ndarray


def drift(length: float) -> Matrix:
    return np.array([[1.0, length, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def quadrupole(length: float, k1: float) -> Matrix:
    root = math.sqrt(abs(k1))
    cos, sin = (math.cos, math.sin) if k1 > 0.0 else (math.cosh, math.sinh)
    sign = -1.0 if k1 > 0.0 else 1.0
    phase = root * length
    block = [[cos(phase), sin(phase) / root, 0.0], [sign * root * sin(phase), cos(phase), 0.0], [0.0, 0.0, 1.0]]
    return np.array(block)


def bend(length: float, angle: float, edge: float) -> Matrix:
    """A sector bend between two faces that are turned by ``edge``."""
    rho = length / angle
    face = np.array([[1.0, 0.0, 0.0], [math.tan(edge) / rho, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cos, sin = math.cos(angle), math.sin(angle)
    body = np.array([[cos, rho * sin, rho * (1.0 - cos)], [-sin / rho, cos, sin], [0.0, 0.0, 1.0]])
    return np.asarray(face @ body @ face)


def read() -> tuple[dict[str, float], dict[str, dict[str, str]], list[tuple[str, str, float]], float]:
    """Strengths, kinds of elements, (name, kind, centre) along the ring, its length."""
    if not LATTICE.is_dir():
        pytest.skip("../shared/data is not here")
    strengths = {
        name: float(value)
        for name, value in re.findall(r"(\w+) *= *([-\d.e]+);", (LATTICE / "pimms_optics.str").read_text("utf-8"))
    }
    text = (LATTICE / "PIMMS.seq").read_text("utf-8")
    kinds = {
        name: {"kind": kind, **dict(re.findall(r"(\w+) *:?= *([^,]+)", rest))}
        for name, kind, rest in re.findall(r"^(\w+): *(\w+), *([^;]+);", text, re.MULTILINE)
    }
    placed = [
        (name, kind, sum(float(part) * sign for part, sign in terms(where)))
        for name, kind, where in re.findall(r"(\w+(?:\.\d+)?)(?:: *(\w+))?, at=([-\d.+ ]+);", text)
    ]
    return strengths, kinds, placed, float(re.findall(r"sequence,.*l=([\d.]+)", text)[0])


def terms(text: str) -> Iterator[tuple[str, float]]:
    for sign, number in re.findall(r"([-+]?) *([\d.]+)", text):
        yield number, -1.0 if sign == "-" else 1.0


def number(text: str) -> float:
    return float(np.prod([float(factor) for factor in text.split("*")]))


def pieces() -> list[tuple[str, Matrix]]:
    """From the septum's marker once around: half of each sextupole before its name, half behind; sextupoles off."""
    strengths, kinds, placed, length = read()
    found: list[tuple[str, Matrix]] = []
    at = 0.0
    for name, kind, centre in placed:
        known = kinds.get(kind or name, {"kind": "marker"})
        long = number(known.get("l", "0"))
        found.append(("", drift(centre - 0.5 * long - at)))
        if known["kind"] == "quadrupole":
            found.append((name, quadrupole(long, strengths[known["k1"]])))
        elif known["kind"] == "sbend":
            found.append((name, bend(long, float(known["angle"]), float(known["e1"]))))
        else:
            found += [("", drift(0.5 * long)), (name, drift(0.5 * long))]
        at = centre + 0.5 * long
    return [*found, ("", drift(length - at))]


def test_optics_are_those_of_the_published_lattice() -> None:
    turn = np.eye(3)
    for _, matrix in pieces():
        turn = matrix @ turn
    cos = 0.5 * (turn[0, 0] + turn[1, 1])
    sin = math.copysign(math.sqrt(1.0 - cos * cos), turn[0, 1])
    beta, alpha = turn[0, 1] / sin, 0.5 * (turn[0, 0] - turn[1, 1]) / sin
    dispersion = np.linalg.solve(np.eye(2) - turn[:2, :2], turn[:2, 2])
    optics = load_optics("pimms")
    lattice = optics.lattice
    assert beta == pytest.approx(lattice.beta_m, abs=5e-4)
    assert alpha == pytest.approx(lattice.alpha, abs=5e-5)
    assert dispersion[0] == pytest.approx(lattice.dispersion_m, abs=5e-4)

    advance, here, at = 0.0, np.eye(3), {}
    for name, matrix in pieces():
        at[name] = advance, here
        # phase from the septum on: tan = b / (beta a - alpha b) of the matrix that leads here
        before, behind = (math.atan2(m[0, 1], beta * m[0, 0] - alpha * m[0, 1]) for m in (here, matrix @ here))
        advance += (behind - before) % (2.0 * math.pi) / (2.0 * math.pi)
        here = matrix @ here
    tune = advance
    assert tune == pytest.approx(1.6395, abs=5e-5)
    for sextupole in optics.sextupoles:
        phase, way = at[sextupole.name]
        its_beta = (beta * way[0, 0] - alpha * way[0, 1]) ** 2 / beta + way[0, 1] ** 2 / beta
        assert its_beta == pytest.approx(sextupole.beta_m, abs=5e-4)
        assert phase / tune * lattice.tune % 1.0 == pytest.approx(sextupole.phase_turns, abs=2e-4)
