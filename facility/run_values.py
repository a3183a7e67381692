"""What a run may be given: speed and seed, checked in one place for the command line and for processes."""

from __future__ import annotations

from facility.errors import UsageError

MIN_SPEED, MAX_SPEED = 0.01, 100.0
"""Facility seconds per second of wall time."""
MAX_SEED = 2**63 - 1
"""Seeds are 64-bit words to the kernels; half of them are enough, and none is negative."""


def require_speed(speed: float) -> float:
    """The speed; UsageError if it is not finite or out of range."""
    if not MIN_SPEED <= speed <= MAX_SPEED:  # NaN is not
        raise UsageError("run.speed", f"a speed of {speed:g}", "--speed", f"give {MIN_SPEED:g} to {MAX_SPEED:g}")
    return speed


def require_seed(seed: int) -> int:
    """The seed; UsageError if it is out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError("run.seed", f"a seed of {seed}", "--seed", f"give 0 to {MAX_SEED}")
    return seed
