"""The pictures of docs/physics/cycle-and-scanning.md and monitors.md: ``python -m benchmarks.machine_pictures``."""

from __future__ import annotations

from pathlib import Path

from console.machine_picture import draw_cycle, draw_monitors, draw_scan
from facility.config import load_facility
from facility.energy_table import load_energy_table
from ioc_sim.studies.cycle import cycle_study
from ioc_sim.studies.monitors import monitor_study
from ioc_sim.studies.scan import scan_study

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
FACILITY, ROOM, SPECIES, SEED = "wuwei", "1", "carbon", 1
SEVERAL = "himm-mee"
MIDDLE_MEV_U = 250.0


def main() -> None:
    """Draw all four."""
    facility = load_facility(FACILITY)
    table = load_energy_table(facility, SPECIES)
    energy = float(table.energy_mev_u[table.nearest(MIDDLE_MEV_U)])
    draw_cycle(cycle_study(facility, ROOM, SPECIES, energy, SEED), IMAGES / f"cycle-{FACILITY}.png")
    several = cycle_study(load_facility(SEVERAL), ROOM, SPECIES, energy, SEED)
    draw_cycle(several, IMAGES / f"cycle-{SEVERAL}.png")
    draw_scan(scan_study(facility, ROOM, SPECIES, energy), IMAGES / f"scan-{FACILITY}.png")
    draw_monitors(monitor_study(facility, ROOM, SPECIES, energy), IMAGES / f"monitors-{FACILITY}.png")


if __name__ == "__main__":
    main()
