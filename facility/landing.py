"""How a front end lands on a spot that ends with beam off, and how long that takes; figures of this project [D]."""

from __future__ import annotations

from facility.config.models import Facility

LAND_TAILS = 2.5
"""The drive falls over so many times the slowest time constant of the extraction's tail."""
STOP_LANDINGS = 3.3
"""A stop takes ln(1 / 0.1) + 1 times the landing time: the drive falls exponentially to a tenth."""


def land_us(facility: Facility) -> float:
    """Landing time, us."""
    return LAND_TAILS * max(tau_us for _, tau_us in facility.extraction.tail)


def stop_ms(facility: Facility) -> float:
    """What a stop adds to the time with the spill commanded, ms."""
    return STOP_LANDINGS * land_us(facility) * 1e-3
