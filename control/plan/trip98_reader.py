"""TRiP98 raster scan file (`.rst`, `rstfile 20030630`) to the plan model.

A `.rst` lists its energies from low to high, in MeV per nucleon, and weights in particles; the model has them from
high to low, as DICOM has. Format as GSI's TRiP98 writes it (Kraemer et al., Phys. Med. Biol. 45 (2000) 3299) and as
pytrip's test data show it. Printed sums carry six digits, so they are checked to one part in 10,000.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from control.plan.model import SPECIES, Beam, Layer, Plan, beam_meterset, make_layer, place, require_layers
from facility.errors import PlanError

MAGIC = b"rstfile"
SUM_TOLERANCE = 1e-4
_ATOMIC_NUMBER = {"H": 1, "He": 2, "Li": 3, "Be": 4, "B": 5, "C": 6, "N": 7, "O": 8}
_FIX = "write the .rst again from the planning system"


@dataclass
class _Lines:
    """Non-empty lines with their numbers; `take` moves on."""

    rows: list[tuple[int, list[str]]]
    name: str
    at: int = 0

    def peek(self) -> str:
        return self.rows[self.at][1][0] if self.at < len(self.rows) else ""

    def where(self) -> str:
        if self.at < len(self.rows):
            return f"{self.name}, line {self.rows[self.at][0]}"
        return f"{self.name}, end of file"

    def take(self, key: str | None, fields: int) -> list[str]:
        """The fields of the next line (after the key word, if one is asked for); PlanError if it is another line."""
        if self.at >= len(self.rows):
            raise PlanError("plan.truncated", f"the file ends where {key or 'a spot'} should be", self.name, _FIX)
        words = self.rows[self.at][1]
        values = words if key is None else words[1:]
        if (key is not None and words[0] != key) or len(values) < fields:
            what = f"{' '.join(words)[:60]!r} where {key or 'a spot'} should be"
            raise PlanError("plan.syntax", what, self.where(), _FIX)
        self.at += 1
        return values

    def number(self, word: str) -> float:
        try:
            return float(word)
        except ValueError as error:
            raise PlanError("plan.syntax", f"{word[:40]!r} is no number", self.where(), _FIX) from error

    def integer(self, word: str) -> int:
        if not word.lstrip("+-").isdecimal() or not word.isascii() or len(word) > 12:
            raise PlanError("plan.syntax", f"{word[:40]!r} is no whole number", self.where(), _FIX)
        return int(word)


def read_trip98_plan(data: bytes, name: str) -> Plan:
    """The plan in the bytes of a `.rst` file; `name` is used in messages. Raises PlanError for all that is wrong."""
    text = data.decode("latin-1")
    rows = [(n, line.split()) for n, line in enumerate(text.splitlines(), start=1) if line.split()]
    lines = _Lines(rows, name)
    lines.take(MAGIC.decode(), 1)
    header = _read_header(lines)
    species, mass_number, charge = _ion(header, lines)
    beam_name = header.get("patient_id", ["rst"])[0] if header.get("patient_id") else "rst"
    layers = _read_layers(lines, beam_name)
    kept = require_layers(beam_name, 1, layers)
    beam = Beam(
        number=1,
        name=beam_name,
        species=species,
        mass_number=mass_number,
        charge_state=charge,
        gantry_angle_deg=_header_number(header, "gantryangle", lines) % 360.0,
        support_angle_deg=_header_number(header, "couchangle", lines) % 360.0,
        range_shifters=(),
        meterset=beam_meterset(kept),
        meterset_unit="NP",
        layers=kept,
        accessories=("bolus",) if _header_number(header, "bolus", lines) != 0.0 else (),
    )
    uid = "2.25." + str(int.from_bytes(hashlib.sha256(data).digest()[:16], "big"))
    return Plan(beam_name, beam_name, uid, "trip98", "NP", (beam,))


def _read_header(lines: _Lines) -> dict[str, list[str]]:
    header: dict[str, list[str]] = {}
    while lines.peek() != "submachine#":
        if not lines.peek():
            raise PlanError("plan.truncated", "the file has no submachine (energy layer)", lines.name, _FIX)
        words = lines.rows[lines.at][1]
        header[words[0]] = words[1:]
        lines.at += 1
    return header


def _header_number(header: dict[str, list[str]], key: str, lines: _Lines) -> float:
    values = header.get(key) or ["0"]
    value = lines.number(values[0])
    if not abs(value) < 1e6:
        raise PlanError("plan.syntax", f"{key} is {values[0]}", lines.name, _FIX)
    return value


def _ion(header: dict[str, list[str]], lines: _Lines) -> tuple[str, int, int]:
    """Species, mass number and charge from `projectile` (such as 12C), `mass` and `charge`, which must agree."""
    words = header.get("projectile")
    if not words:
        raise PlanError("plan.syntax", "the header has no projectile", lines.name, _FIX)
    symbol = words[0].lstrip("0123456789")
    atomic = _ATOMIC_NUMBER.get(symbol, 0)
    digits = words[0][: len(words[0]) - len(symbol)]
    mass = lines.integer(digits or "0")
    said = (_header_number(header, "mass", lines), _header_number(header, "charge", lines))
    if not atomic or not mass or ("mass" in header and said[0] != mass) or ("charge" in header and said[1] != atomic):
        what = f"projectile {words[0]} with mass {said[0]:g} and charge {said[1]:g} is no ion we know"
        raise PlanError("plan.radiation", what, lines.name, "correct projectile, mass and charge")
    return SPECIES.get((mass, atomic), f"ion-{mass}-{atomic}"), mass, atomic


def _read_layers(lines: _Lines, beam_name: str) -> list[Layer | None]:
    """Layers from high to low energy; indices in messages count in that order."""
    blocks = []
    while lines.peek() == "submachine#":
        blocks.append(_read_block(lines))
    if lines.peek():
        lines.take("submachine#", 2)
    said = [row[1] for _, row in lines.rows if row[0] == "#submachines" and len(row) > 1]
    if said and lines.integer(said[0]) != len(blocks):
        what = f"{said[0]} submachines are announced, {len(blocks)} are there"
        raise PlanError("plan.truncated", what, lines.name, _FIX)
    blocks.sort(key=lambda block: -block.energy_mev_u)
    return [_layer(block, index, beam_name) for index, block in enumerate(blocks)]


@dataclass(frozen=True)
class _Block:
    energy_mev_u: float
    fwhm_mm: float | None
    total: float | None
    points: list[tuple[float, float, float]]


def _read_block(lines: _Lines) -> _Block:
    values = lines.take("submachine#", 2)
    energy = lines.number(values[1])
    fwhm = lines.number(values[3]) if len(values) > 3 else None
    total = None
    if lines.peek() == "#particles":
        total = lines.number(lines.take("#particles", 3)[2])
    if lines.peek() == "stepsize":
        lines.take("stepsize", 2)
    count = lines.integer(lines.take("#points", 1)[0])
    points = []
    for _ in range(count):
        words = lines.take(None, 3)
        points.append((lines.number(words[0]), lines.number(words[1]), lines.number(words[2])))
    return _Block(energy, fwhm, total, points)


def _layer(block: _Block, index: int, beam_name: str) -> Layer | None:
    x, y, weight = zip(*block.points, strict=True) if block.points else ((), (), ())
    layer = make_layer(
        beam_name,
        1,
        index,
        energy_mev_u=block.energy_mev_u,
        x_mm=x,
        y_mm=y,
        weight=weight,
        fwhm_mm=None if block.fwhm_mm is None else (block.fwhm_mm, block.fwhm_mm),
    )
    total = 0.0 if layer is None else float(layer.weight.sum())
    if block.total is not None and not abs(total - block.total) <= SUM_TOLERANCE * max(abs(block.total), 1.0):
        what = f"the spots add up to {total:g} particles, {block.total:g} are announced"
        raise PlanError("plan.meterset", what, place(beam_name, 1, index), _FIX)
    return layer
