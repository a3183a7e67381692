"""Figures of `ionctl machine calibrate`: the table that is stored, and the operating points it was made of."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from console.tables import print_table
from facility.config import Facility, config_roots, load_facility
from facility.errors import ConfigError
from facility.table_approval import SPILL, next_version, read_approvals, refusal
from ioc_sim.extraction.calibration import Measured, calibrate
from ioc_sim.extraction.first_start import FirstStart
from ioc_sim.extraction.optics import Optics, load_optics
from ioc_sim.extraction.points import POINTS
from ioc_sim.extraction.rate_model import RateModel
from ioc_sim.extraction.table import (
    UNITS,
    inputs_hash,
    load_spill_table,
    read_spill_table,
    render_spill_table,
    table_name,
)

SCHEMA = "ionctl.spill-calibration/1"


@dataclass(frozen=True)
class RingFigures:
    """A ring's model; `points` only where it has just been calibrated, `path` where it was stored."""

    facility: str
    ring: str
    model: RateModel
    points: tuple[Measured, ...]
    path: Path | None
    version: int
    refused: str
    """Why the table is not used; empty: it is on record."""

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON; times in turns, errors one sigma."""
        return {
            "schema": SCHEMA, "facility": self.facility, "ring": self.ring, "model": asdict(self.model),
            "stored": None if self.path is None else str(self.path), "version": self.version,
            "refused": self.refused, "points": [_point(p) for p in self.points],
        }  # fmt: skip


def _point(point: Measured) -> dict[str, Any]:
    stop, ripple, driven = point.stop, point.ripple, point.drive_ripple
    return {
        "energy_mev_u": point.energy_mev_u, "drive": point.drive, "share_per_turn": stop.share_per_turn,
        "transit_mean_turns": stop.mean_turns, "transit_mean_error": stop.mean_error,
        "transit_sd_turns": stop.sd_turns, "restart_rel": stop.restart_rel, "restart_error": stop.restart_error,
        "roughness": list(stop.roughness), "ions_after_stops": stop.ions,
        "ripple": {"per_turn": ripple.per_turn.tolist(), "gain_per_tune": np.abs(ripple.gain).tolist(),
                   "phase_rad": np.angle(ripple.gain).tolist(), "error_per_tune": ripple.error.tolist()},
        "drive_ripple": {"per_turn": driven.per_turn.tolist(), "gain": np.abs(driven.gain).tolist(),
                         "phase_rad": np.angle(driven.gain).tolist(), "error": driven.error.tolist()},
        "first_start": _start(point.start),
    }  # fmt: skip


def _start(start: FirstStart | None) -> dict[str, Any] | None:
    """In bins of turns: rate over the ions stored, and share of the ions that has left; None: not looked at."""
    if start is None:
        return None
    return {
        "turns": start.turns.tolist(), "share_per_turn": start.share_per_turn.tolist(), "error": start.error.tolist(),
        "out": start.out.tolist(), "fill_turns": start.fill_turns, "begun_out": start.begun_out,
    }  # fmt: skip


def calibrate_ring(
    facility: Facility, config_dir: Path | None, output: Path | None, like: str | None = None
) -> RingFigures:
    """Track, fit and store; or store what was found for `like`, a facility whose ring has the same optics.

    ConfigError where the table cannot be written, before anything is tracked, or where the optics are not the same.
    """
    optics = load_optics(facility.id, config_dir)
    path = _writable(output or Path(str(config_roots(config_dir)[0])) / table_name(facility.id))
    points = POINTS[facility.ring.extraction]
    version = next_version(facility.id, SPILL, read_approvals(config_dir))
    if like is None:
        found = calibrate(facility, config_dir, points, tell=lambda line: click.echo(line, err=True))
        model, measured = found.model, found.points
    else:
        model, measured = _model_of(like, facility, optics, config_dir), ()
    path.write_text(render_spill_table(facility, model, optics, points, version), encoding="utf-8")
    refused = f"not approved yet: ionctl table approve --facility {facility.id} --species {SPILL} --by WHO --reason WHY"
    return RingFigures(facility.id, optics.name, model, measured, path, version, refused)


def _writable(path: Path) -> Path:
    with contextlib.suppress(OSError):  # said below, in the same words
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError("spill-table.write", f"'{path}' cannot be written", "",
                          "give a file with --output, or a folder of your own with --config-dir")  # fmt: skip
    return path


def _model_of(like: str, facility: Facility, optics: Optics, config_dir: Path | None) -> RateModel:
    """What was found for another facility: tracking knows of a ring what its optics say, so it would find it again."""
    other = load_facility(like, config_dir)
    model = load_spill_table(other, config_dir)
    mine = inputs_hash(optics, POINTS[facility.ring.extraction])
    if mine != inputs_hash(load_optics(other.id, config_dir), POINTS[other.ring.extraction]):
        raise ConfigError("spill-table.unlike", f"the optics of {facility.id} are not those of {like}", "--like",
                          f"track them, some minutes: ionctl machine calibrate --facility {facility.id}")  # fmt: skip
    return model


def checked_ring(facility: Facility, config_dir: Path | None) -> RingFigures:
    """The stored table, verified."""
    table, where = read_spill_table(facility, config_dir)
    refused = refusal(table, read_approvals(config_dir), where)
    name = load_optics(facility.id, config_dir).name
    return RingFigures(facility.id, name, table.model, (), None, table.version, refused)


def print_ring(found: RingFigures) -> None:
    """The table, and below it what it was made of."""
    values = asdict(found.model)
    rows = [(name, values[name] if isinstance(values[name], str) else f"{values[name]:.5g}", unit)
            for name, unit in UNITS.items()]  # fmt: skip
    print_table(f"{found.facility}, {found.ring}", ("", "value", "unit"), rows, right=(1,))
    if found.points:
        lines = [
            (f"{p.energy_mev_u:.0f}", f"{p.drive:g}", f"{p.stop.mean_turns:.0f} +- {p.stop.mean_error:.0f}",
             f"{p.stop.sd_turns:.0f}", f"{p.stop.restart_rel:.2f} +- {p.stop.restart_error:.2f}",
             f"{p.stop.share_per_turn:.3g}")
            for p in found.points
        ]  # fmt: skip
        heads = ("MeV/u", "drive", "transit, turns", "spread", "restart", "share a turn")
        print_table("Operating points", heads, lines, right=range(6))
    if found.path is not None:
        print(f"stored in {found.path}")
    print(f"version {found.version}, " + (f"refused: {found.refused}" if found.refused else "approved"))
