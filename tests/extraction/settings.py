"""Small settings that the tests of extraction share."""

from __future__ import annotations

from dataclasses import replace

from facility.config import load_facility
from ioc_sim.extraction.spill import Setting, setting_of, with_drive

ENERGY_MEV_U = {"wuwei": 250.0, "pimms": 250.0}


def setting(
    name: str = "wuwei", particles: int = 2000, turns: int = 20_000, drive: float = 1.0, seed: int = 1
) -> Setting:
    """Carbon at 250 MeV/u; `drive` scales exciter or core."""
    made = setting_of(load_facility(name), "carbon", ENERGY_MEV_U[name], particles, turns, seed)
    return with_drive(replace(made), drive)
