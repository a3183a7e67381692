"""One frozen model of a treatment plan, whatever file it came from.

Indices are 0-based everywhere, in messages too. Positions are millimetres in the plane of the isocentre, energies
MeV per nucleon (MeV for protons), weights in the plan's own unit (MU or particles) and never zero: spots of weight
zero are dropped when a plan is read, and counted. Dose is absorbed dose; RBE never enters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from facility.errors import PlanError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
WeightUnit = Literal["MU", "NP"]

HASH_DOMAIN = "ionctl.plan/1"
#: (mass number, atomic number) to the name facility files use.
SPECIES = {(1, 1): "proton", (4, 2): "helium", (12, 6): "carbon", (16, 8): "oxygen"}


def place(beam_name: str, beam_number: int, layer: int | None = None, spot: int | None = None) -> str:
    """Words for a place in a plan: beam by number and name, layer and spot by 0-based index."""
    parts = [f"beam {beam_number} {beam_name!r}"]
    if layer is not None:
        parts.append(f"layer {layer}")
    if spot is not None:
        parts.append(f"spot {spot}")
    return ", ".join(parts)


@dataclass(frozen=True)
class RangeShifter:
    """A slab the plan wants in the beam. `wet_mm`: water equivalent thickness, None where the plan does not say."""

    shifter_id: str
    wet_mm: float | None


@dataclass(frozen=True, eq=False)
class Layer:
    """Spots of one energy in delivery order; arrays are read-only float64 of shape (n,), n >= 1.

    `spot_index` is each spot's index in the file it came from, before spots of weight zero were dropped.
    `fwhm_mm` (x, y) is what the plan says of the spot size, None where it is silent. Build with `make_layer`.
    """

    energy_mev_u: float
    x_mm: FloatArray
    y_mm: FloatArray
    weight: FloatArray
    spot_index: IntArray
    fwhm_mm: tuple[float, float] | None = None
    paintings: int = 1
    tune_id: str = ""
    dropped_zero: int = 0
    control_point: int = -1
    """Index of the control point that holds the weights; -1 where the file has none: two for each layer."""

    @property
    def n_spots(self) -> int:
        """Number of spots with weight."""
        return int(self.weight.size)


@dataclass(frozen=True, eq=False)
class Beam:
    """One field. `meterset` is the sum of the spot weights, in `meterset_unit`.

    `accessories` names what the plan puts in the beam and this product does not model (blocks, compensators,
    modulators): reading tolerates them, checking refuses them.
    """

    number: int
    name: str
    species: str
    mass_number: int
    charge_state: int
    gantry_angle_deg: float
    support_angle_deg: float
    range_shifters: tuple[RangeShifter, ...]
    meterset: float
    meterset_unit: WeightUnit
    layers: tuple[Layer, ...]
    isocentre_mm: tuple[float, float, float] | None = None
    machine_name: str = ""
    accessories: tuple[str, ...] = ()

    def where(self, layer: int | None = None, spot: int | None = None) -> str:
        """Words for this beam, or a layer (0-based) or a spot of it."""
        return place(self.name, self.number, layer, spot)

    @property
    def n_spots(self) -> int:
        """Spots with weight in all layers."""
        return sum(layer.n_spots for layer in self.layers)


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan. `source` says where it came from (`dicom`, `trip98`, `maker`).

    `prescribed_dose_gy` is absorbed dose to the target where the plan states it. `plan_hash` says what of all this
    makes two plans the same.
    """

    label: str
    patient_id: str
    plan_uid: str
    source: str
    unit: WeightUnit
    beams: tuple[Beam, ...]
    fractions: int = 1
    prescribed_dose_gy: float | None = None
    skipped_setup_beams: tuple[str, ...] = ()
    intent: str = ""
    """What the plan is for, in DICOM's words (PlanIntent), empty where it does not say."""

    @property
    def n_spots(self) -> int:
        """Spots with weight in all beams."""
        return sum(beam.n_spots for beam in self.beams)

    @property
    def n_layers(self) -> int:
        """Layers of all beams."""
        return sum(len(beam.layers) for beam in self.beams)

    @property
    def dropped_zero(self) -> int:
        """Spots of weight zero that were dropped on reading."""
        return sum(layer.dropped_zero for beam in self.beams for layer in beam.layers)


def read_only(values: npt.ArrayLike) -> FloatArray:
    """A read-only float64 copy of `values`, with -0.0 turned into 0.0 so that equal numbers have equal bytes."""
    array = np.array(values, dtype=np.float64, copy=True) + 0.0
    array.setflags(write=False)
    return array


def make_layer(
    beam_name: str,
    beam_number: int,
    layer_index: int,
    *,
    energy_mev_u: float,
    x_mm: npt.ArrayLike,
    y_mm: npt.ArrayLike,
    weight: npt.ArrayLike,
    fwhm_mm: tuple[float, float] | None = None,
    paintings: int = 1,
    tune_id: str = "",
) -> Layer | None:
    """A checked layer without its zero-weight spots; None when no spot has weight.

    Arrays have shape (n,). Raises PlanError, naming beam, layer and spot, for lengths that differ and for values
    that are not finite or negative weights.
    """
    x, y, w = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (x_mm, y_mm, weight))
    where = place(beam_name, beam_number, layer_index)
    if not (x.shape == y.shape == w.shape) or x.ndim != 1:
        raise PlanError(
            "plan.spot-count",
            f"{x.size} x positions, {y.size} y positions and {w.size} weights do not belong together",
            where,
            "export the plan again: each spot needs one x, one y and one weight",
        )
    if not (np.isfinite(energy_mev_u) and energy_mev_u > 0.0):
        raise PlanError("plan.energy", f"energy {energy_mev_u!r} MeV/u is no energy", where, "correct the energy")
    if paintings < 1:
        raise PlanError("plan.paintings", f"{paintings} paintings", where, "state one painting or more")
    _refuse_bad_numbers(beam_name, beam_number, layer_index, {"x": x, "y": y, "weight": w})
    keep = np.flatnonzero(w > 0.0)
    if keep.size == 0:
        return None
    index = keep.astype(np.int64)
    index.setflags(write=False)
    return Layer(
        energy_mev_u=float(energy_mev_u),
        x_mm=read_only(x[keep]),
        y_mm=read_only(y[keep]),
        weight=read_only(w[keep]),
        spot_index=index,
        fwhm_mm=fwhm_mm,
        paintings=paintings,
        tune_id=tune_id,
        dropped_zero=int(w.size - keep.size),
    )


def _refuse_bad_numbers(name: str, number: int, layer: int, columns: dict[str, FloatArray]) -> None:
    for label, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            spot = int(bad[0])
            raise PlanError(
                "plan.not-finite",
                f"{label} is {values[spot]}",
                place(name, number, layer, spot),
                "correct the number; every position and weight must be finite",
            )
    negative = np.flatnonzero(columns["weight"] < 0.0)
    if negative.size:
        spot = int(negative[0])
        raise PlanError(
            "plan.negative-weight",
            f"weight {columns['weight'][spot]:g} is negative",
            place(name, number, layer, spot),
            "correct the weight; zero is dropped, less than zero is refused",
        )


def beam_meterset(layers: Iterable[Layer]) -> float:
    """Sum of all spot weights, plan unit."""
    return float(sum(float(np.sum(layer.weight)) for layer in layers))


def require_layers(beam_name: str, beam_number: int, layers: Sequence[Layer | None]) -> tuple[Layer, ...]:
    """The layers that have spots; raises PlanError when none has."""
    kept = tuple(layer for layer in layers if layer is not None)
    if not kept:
        raise PlanError(
            "plan.empty-beam",
            "no spot of this beam has weight",
            place(beam_name, beam_number),
            "remove the beam or give it spots",
        )
    return kept


def plan_hash(plan: Plan) -> str:
    """SHA-256 (hex) over what the machine would do and for whom, independent of the file format.

    In: patient, weight unit, and per beam, in order: number, species, charge, angles, isocentre, range shifters,
    accessories; per layer: energy, paintings, and every spot's x, y and weight as exact doubles. Out: labels, names,
    UIDs, dates, intent, fractions, tune ids, spot sizes, dropped zero-weight spots and where the plan came from.
    """
    digest = hashlib.sha256()
    _feed(digest, [HASH_DOMAIN, plan.patient_id, plan.unit, len(plan.beams)])
    for beam in plan.beams:
        _feed(digest, _beam_scalars(beam))
        for layer in beam.layers:
            _feed(digest, [_exact(layer.energy_mev_u), layer.paintings, layer.n_spots])
            for column in (layer.x_mm, layer.y_mm, layer.weight):
                digest.update(column.astype("<f8").tobytes())
    return digest.hexdigest()


def _beam_scalars(beam: Beam) -> list[Any]:
    iso = None if beam.isocentre_mm is None else [_exact(v) for v in beam.isocentre_mm]
    shifters = [[s.shifter_id, None if s.wet_mm is None else _exact(s.wet_mm)] for s in beam.range_shifters]
    angles = [_exact(beam.gantry_angle_deg), _exact(beam.support_angle_deg)]
    ion = [beam.species, beam.mass_number, beam.charge_state]
    return [beam.number, ion, angles, iso, shifters, list(beam.accessories), len(beam.layers)]


def _exact(value: float) -> str:
    return (float(value) + 0.0).hex()


def _feed(digest: Any, scalars: list[Any]) -> None:
    digest.update(json.dumps(scalars, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")
