"""Facilities and rules of scenarios, each read once for a process: a hundred scenarios share a few."""

from __future__ import annotations

import functools
from pathlib import Path

from facility.config import Facility, load_facility
from interlocks.rules import RuleSet, load_rules

_KEPT = 32


@functools.lru_cache(maxsize=_KEPT)
def facility_of(name: str, config_dir: Path | None) -> Facility:
    """`load_facility`."""
    return load_facility(name, config_dir)


@functools.lru_cache(maxsize=_KEPT)
def rules_of(name: str, room: str, species: str, config_dir: Path | None) -> RuleSet:
    """`load_rules` for a facility by name."""
    return load_rules(facility_of(name, config_dir), room, species, config_dir)
