"""Read `configs/proof_tests.toml`: the pre-beam proof tests, resolved for a facility."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from facility.config import BeamOff, Facility, find_config
from facility.config.base import NonNegative, Positive, Section, Text
from facility.errors import ConfigError
from facility.states import ProofAction
from interlocks.proof import Proof

SCHEMA = "ionctl.proofs/1"
FILE_NAME = "proof_tests.toml"
_PLACES = ("a", "b", "c", "d")
_NS_PER_S = 1_000_000_000
_PER_US = {"us": 1.0, "ms": 1e-3}


class ProofEntry(Section):
    """One `[[proof]]` of the file.

    With `device` the limits come from the facility: its figure (`start`: the dead time; `end`: dead time and fall),
    give or take `tolerance`, and `high` bounds it from above.  A facility without the device has no such test.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}$")]
    title: Text
    hazard: Text
    action: Literal[
        "counts", "leakage", "charge", "voltage", "scan_step", "scan_zero", "beam_off", "stopper", "permit_loop"
    ]
    value: Literal["a", "b", "c", "d"]
    low: float | None = None
    high: float | Literal["watchdog"]
    unit: Annotated[str, Field(min_length=1, max_length=7)]
    device: Literal["rfko", "fast_quad", "chopper", "ring_dump", "source_inhibit", "stopper"] | None = None
    to: Literal["start", "end"] = "end"
    tolerance: NonNegative = 0.0
    valid_s: Positive
    citation: Text


def load_proofs(facility: Facility, watchdog_ms: float, config_dir: Path | None = None) -> tuple[Proof, ...]:
    """The proof tests of a facility, in the order of the file; `watchdog_ms` of the safety link limits the permit loop.

    Raises ConfigError that names file, test and key.
    """
    source = find_config(FILE_NAME, config_dir)
    if source is None:
        raise ConfigError("proofs.no-file", f"no {FILE_NAME}", "", "give a --config-dir that holds one")
    return proofs_from_toml(source.read_text(encoding="utf-8"), facility, watchdog_ms, str(source))


@lru_cache(maxsize=1)
def _parsed(text: str) -> Mapping[str, Any]:
    return tomllib.loads(text)


def proofs_from_toml(text: str, facility: Facility, watchdog_ms: float, where: str = FILE_NAME) -> tuple[Proof, ...]:
    """The proof tests from the text of a file."""
    try:
        data = _parsed(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError("proofs.syntax", str(problem), where) from problem
    if data.get("schema") != SCHEMA or set(data) != {"schema", "proof"}:
        raise ConfigError("proofs.schema", f"keys {sorted(data)}, schema {data.get('schema')!r}", where,
                          f"give schema = {SCHEMA!r} and tables [[proof]]")  # fmt: skip
    found: dict[str, Proof] = {}
    for entry in data["proof"]:
        name = entry.get("id", "without id")
        at = f"{where}, proof {name}"
        try:
            known = ProofEntry.model_validate(entry)
        except ValidationError as problem:
            first = problem.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError("proofs.bad-value", f"{key}: {first['msg']}", f"{at}, key {key}") from problem
        if known.id in found:
            raise ConfigError("proofs.repeated-id", "two tests have this id", f"{at}, key id")
        proof = _resolved(known, facility.beam_off, watchdog_ms, at)
        if proof is not None:
            found[known.id] = proof
    return tuple(found.values())


def _resolved(entry: ProofEntry, devices: BeamOff, watchdog_ms: float, where: str) -> Proof | None:
    low = -math.inf if entry.low is None else entry.low
    high = watchdog_ms if isinstance(entry.high, str) else entry.high
    if entry.device is not None:
        device = getattr(devices, entry.device)
        if not device.present:
            return None
        if entry.unit not in _PER_US:
            raise ConfigError(
                "proofs.bad-value", f"a device is timed in us or ms, not {entry.unit}", f"{where}, key unit"
            )
        figure = (device.delay_us + (device.fall_us if entry.to == "end" else 0.0)) * _PER_US[entry.unit]
        low, high = figure - entry.tolerance, min(high, figure + entry.tolerance)
    if low > high:
        raise ConfigError("proofs.bad-value", f"no value lies between {low:g} and {high:g}", f"{where}, key high")
    action = ProofAction[entry.action.upper()]
    return Proof(entry.id, entry.title, entry.hazard, action, _PLACES.index(entry.value), low, high, entry.unit,
                 round(entry.valid_s * _NS_PER_S))  # fmt: skip
