"""The spill of the live plant by truth: duty factor, waterbed, and its response against the calibrated model.

``python -m benchmarks.live_spill`` rewrites two tables of docs/physics/slow-extraction.md (some seconds). Nothing is
fitted here; energies and frequencies of the second one are none of the calibration's.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import write_part
from facility.config import change_facility, load_facility
from ioc_sim.studies.live_spill import Response, converter_response, line_response, live_spill, waterbed

PAGE = Path(__file__).resolve().parent.parent / "docs" / "physics" / "slow-extraction.md"
SEEDS = (1, 2, 3)
SECONDS = 1.0
DUTY = (("wuwei", 250.0, 1e8), ("wuwei", 150.0, 1e8), ("wuwei", 380.0, 1e8), ("lanzhou", 250.0, 1e8),
        ("himm-mee", 250.0, 1e8), ("pimms", 250.0, 5e7), ("wuwei", 250.0, 5e8), ("wuwei", 250.0, 3e7),
        ("wuwei", 250.0, 1e6))  # fmt: skip
LINES = (("wuwei", 180.0, 3e8, 437.0), ("wuwei", 330.0, 5e8, 620.0), ("lanzhou", 220.0, 2e8, 210.0),
         ("himm-mee", 350.0, 5e8, 333.0), ("pimms", 320.0, 1e8, 333.0), ("pimms", 180.0, 2e8, 520.0))  # fmt: skip
CONVERTERS = (("wuwei", 180.0, 2e8), ("pimms", 320.0, 1e8))


def duty_rows() -> list[str]:
    """With the loop and without, three seeds each; Markdown."""
    lines = [
        "| ring, MeV/u, level | duty factor, loop | no loop | counting alone | waterbed |",
        "|---|---|---|---|---|",
    ]
    for name, energy, level in DUTY:
        facility = load_facility(name)
        opened = change_facility(facility, {"extraction.loop_bandwidth_hz": 0.0})
        loop, none = ([live_spill(one, "carbon", energy, level, SECONDS, seed=seed) for seed in SEEDS]
                      for one in (facility, opened))  # fmt: skip
        hz, most = waterbed(facility, "carbon", energy, level, seed=1).peak
        figures = (", ".join(f"{found.duty_factor:.3f}" for found in some) for some in (loop, none))
        lines.append(f"| {name}, {energy:g}, {level:.0e}/s | {' | '.join(figures)} | {loop[0].poisson_limit:.4f} | "
                     f"{most:.2f} at {hz:.0f} Hz |")  # fmt: skip
    return lines


def response_rows() -> list[str]:
    """Height of a line and rms of converter noise, plant against model; Markdown."""
    lines = ["| ring, MeV/u, level; ripple | drive | rate over ripple of the supply, by truth | model | deviation |",
             "|---|---|---|---|---|"]  # fmt: skip
    found: list[tuple[str, Response]] = []
    for name, energy, level, hz in LINES:
        one = line_response(load_facility(name), "carbon", energy, level, hz, 5e-7)
        found.append((f"{name}, {energy:g}, {level:.0e}/s; {hz:g} Hz", one))
    for name, energy, level in CONVERTERS:
        noise = converter_response(load_facility(name), "carbon", energy, level)
        found.append((f"{name}, {energy:g}, {level:.0e}/s; converter noise, rms", noise))
    for title, one in found:
        lines.append(f"| {title} | {one.drive:.3f} | {one.truth:.3g} | {one.model:.3g} | "
                     f"{one.truth / one.model - 1.0:+.1%} |")  # fmt: skip
    return lines


def main() -> None:
    """Both tables."""
    write_part(PAGE, "live_spill", "live duty", duty_rows())
    write_part(PAGE, "live_spill", "live response", response_rows())


if __name__ == "__main__":
    main()
