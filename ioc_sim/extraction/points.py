"""Operating points of the calibration of the spill: its inputs, which its table is hashed with."""

from __future__ import annotations

from dataclasses import dataclass

RIPPLE_PER_TURN = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
"""Frequencies of calibration: some 400 Hz to 6 kHz."""

START_FILL = {"rfko": 0.1, "betatron": 0.25}
"""Share of the ions with which a ring fills the edge of its beam before the spill is offered."""


@dataclass(frozen=True)
class Effort:
    """Size of a measurement: particles, seeds, turns at the operating point, stops within them."""

    particles: int
    seeds: int
    turns: int
    stops: int


@dataclass(frozen=True)
class Point:
    """An operating point of calibration: energy as a share of the way from the lowest to the highest, drive, effort
    for stops, for ripple, and for a first start (None: none is looked at)."""

    energy_share: float
    drive: float
    stop: Effort
    ripple: Effort
    start: Effort | None = None


POINTS = {
    "rfko": (
        Point(0.9, 1.0, Effort(16_000, 6, 20_000, 80), Effort(1500, 160, 20_000, 1), Effort(2500, 120, 32_000, 1)),
        Point(0.5, 0.5, Effort(16_000, 6, 40_000, 80), Effort(2000, 60, 60_000, 1), Effort(2500, 60, 128_000, 1)),
        Point(0.1, 0.25, Effort(20_000, 6, 60_000, 80), Effort(6000, 26, 80_000, 1), Effort(2500, 24, 512_000, 1)),
    ),
    "betatron": (
        Point(0.9, 1.0, Effort(16_000, 3, 8000, 40), Effort(6000, 16, 7000, 1)),
        Point(0.5, 0.4, Effort(16_000, 3, 20_000, 60), Effort(6000, 16, 20_000, 1)),
        Point(0.1, 1.0, Effort(16_000, 3, 8000, 40), Effort(6000, 16, 7000, 1)),
        Point(0.9, 0.15, Effort(16_000, 3, 40_000, 60), Effort(6000, 12, 40_000, 1)),
        Point(0.1, 0.004, Effort(60_000, 3, 250_000, 100), Effort(60_000, 5, 250_000, 1)),
        Point(0.9, 0.0007, Effort(60_000, 2, 900_000, 100), Effort(60_000, 5, 900_000, 1)),
    ),
}
"""Ripple wants many seeds of few particles: what scatters is how an exciter's sweeps, or a core's density, go by."""
