"""Optics of slow extraction: typed, read from `configs/optics/*.toml`, found by the facility it is meant for."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from facility.config.base import NonNegative, Positive, Section, SmallRelative, Text, tuples
from facility.config.loader import config_roots
from facility.errors import ConfigError
from ioc_sim.extraction.kobayashi import Resonance, strength

SCHEMA = "ionctl.optics/1"
Phase = Annotated[float, Field(ge=0.0, le=20.0)]
"""Phase advance from the septum in units of 2 pi."""


class Lattice(Section):
    """Linear optics, Twiss functions at the entrance of the electrostatic septum; chromaticity dQ / (dp/p)."""

    tune: Annotated[float, Field(gt=0.0, lt=20.0)]
    resonance_tune_times_3: Annotated[int, Field(ge=1, le=60)]
    chromaticity: Annotated[float, Field(ge=-50.0, le=50.0)]
    beta_m: Positive
    alpha: float
    dispersion_m: float

    @property
    def distance(self) -> float:
        """Tune distance from the resonance at dp/p = 0."""
        return self.tune - self.resonance_tune_times_3 / 3.0


class Sextupole(Section):
    """A thin sextupole; k2l as in MAD-X, dx' = -k2l x^2 / 2."""

    name: Text
    phase_turns: Phase
    beta_m: Positive
    k2l_per_m2: float


class Septum(Section):
    """Electrostatic septum: wires at `side` x `position_mm`, `gap_mm` behind them the cathode.

    `aperture_mm`: half aperture of the ring on the other side.
    """

    side: Literal[1, -1]
    position_mm: Positive
    wire_mm: NonNegative
    gap_mm: Positive
    aperture_mm: Positive


class KnockOut(Section):
    """Radio-frequency knock-out: a transverse kick that sweeps through a band of fractional tunes.

    `kick_urad` is the amplitude. The frequency rises from `tune_low` to `tune_high` in `sweep_turns` and begins
    again, each time at another phase.
    """

    kind: Literal["rfko"]
    phase_turns: Phase
    beta_m: Positive
    kick_urad: NonNegative
    tune_low: Annotated[float, Field(gt=0.0, lt=1.0)]
    tune_high: Annotated[float, Field(gt=0.0, lt=1.0)]
    sweep_turns: Annotated[int, Field(ge=10, le=10_000_000)]


class Core(Section):
    """Betatron core: every ion gains dp/p by the same amount each turn."""

    kind: Literal["betatron"]
    delta_per_turn: Annotated[float, Field(gt=-1e-3, lt=1e-3)]


class Beam(Section):
    """The beam as it circulates: Gaussian; the emittance is normalised, one sigma, mm mrad."""

    emittance_um: Positive
    momentum_spread: SmallRelative
    momentum_offset: Annotated[float, Field(ge=-0.05, le=0.05)]


class Optics(Section):
    """All that the tracking needs to know of a ring; `facilities` are the ids it is meant for."""

    name: Text
    facilities: tuple[Text, ...]
    lattice: Lattice
    sextupoles: Annotated[tuple[Sextupole, ...], Field(min_length=1, max_length=12)]
    septum: Septum
    drive: Annotated[KnockOut | Core, Field(discriminator="kind")]
    beam: Beam

    def resonance(self) -> Resonance:
        """All sextupoles as one, seen from the septum.

        Phases are those of an ion on the resonance, where the theory averages: scaled by its tune over the ring's.
        """
        scale = self.lattice.resonance_tune_times_3 / 3.0 / self.lattice.tune
        return Resonance.of(
            [(strength(s.beta_m, s.k2l_per_m2), 2.0 * np.pi * s.phase_turns * scale) for s in self.sextupoles]
        )

    def with_distance(self, distance: float) -> Optics:
        """The same ring with another tune distance; phase advances stay the same share of the tune."""
        tune = self.lattice.resonance_tune_times_3 / 3.0 + distance
        ratio = tune / self.lattice.tune
        moved = tuple(s.model_copy(update={"phase_turns": s.phase_turns * ratio}) for s in self.sextupoles)
        drive = self.drive
        if isinstance(drive, KnockOut):
            drive = drive.model_copy(update={"phase_turns": drive.phase_turns * ratio})
        lattice = self.lattice.model_copy(update={"tune": tune})
        return self.model_copy(update={"lattice": lattice, "sextupoles": moved, "drive": drive})


def load_optics(facility_id: str, config_dir: Path | None = None) -> Optics:
    """The optics whose `facilities` name this one; ConfigError that says what is wrong, or that there is none."""
    return find_optics(facility_id, config_dir)[1]


def find_optics(facility_id: str, config_dir: Path | None = None) -> tuple[Traversable, Optics]:
    """The same, and the file that they are read from."""
    for root in config_roots(config_dir):
        folder = root.joinpath("optics")
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            if entry.name.endswith(".toml"):
                optics = read_optics(entry.read_text(encoding="utf-8"), f"optics/{entry.name}")
                if facility_id in optics.facilities:
                    return entry, optics
    fix = (
        f"put a file into optics/ of your configuration folder that names it under `facilities`; one to begin with, "
        f"of a ring like wuwei's: ionctl facility copy wuwei {facility_id} --to FOLDER"
    )
    raise ConfigError("optics.none", f"no optics for facility '{facility_id}'", "", fix)


def read_optics(text: str, where: str) -> Optics:
    """Optics from TOML; ConfigError names the first bad key and its value."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("config.not-toml", f"not valid TOML: {error}", where) from error
    if data.pop("schema", None) != SCHEMA:
        raise ConfigError("config.schema", "not a file of optics", where, f'schema = "{SCHEMA}"')
    try:
        optics = Optics.model_validate(tuples(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError("config.bad-value", f"{key} = {first['input']!r}: {first['msg']}", where) from None
    _check(optics, where)
    return optics


def _check(optics: Optics, where: str) -> None:
    """What no single key can say."""
    places = [("sextupoles.phase_turns", s.phase_turns) for s in optics.sextupoles]
    if isinstance(optics.drive, KnockOut):
        places.append(("drive.phase_turns", optics.drive.phase_turns))
        if optics.drive.tune_high < optics.drive.tune_low:
            raise ConfigError("config.contradiction", f"drive.tune_high = {optics.drive.tune_high}", where,
                              f"at least drive.tune_low, {optics.drive.tune_low}")  # fmt: skip
    for key, phase in places:
        if phase > optics.lattice.tune:
            raise ConfigError("config.contradiction", f"{key} = {phase}", where,
                              f"at most lattice.tune, {optics.lattice.tune}")  # fmt: skip
    if optics.resonance().s <= 0.0:
        raise ConfigError("config.contradiction", "sextupoles.k2l_per_m2: they cancel, nothing drives the resonance",
                          where)  # fmt: skip
