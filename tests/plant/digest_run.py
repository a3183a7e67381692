"""Prints digests of a short run: the same run compiled and as plain Python must print the same line."""

from __future__ import annotations

import hashlib

from facility.config import load_facility
from interlocks.rules import load_rules
from tests.plant.layers import S, go, grid, new_plant, start


def main() -> None:
    """Deliver nine spots under the fast rules and print what came out."""
    facility = load_facility("wuwei")
    plant = new_plant(facility=facility, rules=load_rules(facility, "1", "carbon").fast(), seed=9)
    start(plant, grid(half_mm=3.0, low=2e4, high=5e4), level=2e7)
    go(plant, 5 * S)  # long enough for the layer, and the end of it where a rule takes the beam
    digest = hashlib.sha256()
    for part in (plant.trace, plant.register(), plant.signals, plant.rule_rows):
        digest.update(part.tobytes())
    print(plant.status.state.name, plant.truth_count, digest.hexdigest())


if __name__ == "__main__":
    main()
