"""The process image: what the safety controller sees of the rack, as fixed-point numbers with a resolution each.

Not-a-number, infinity and anything beyond 32 bits travel as one reserved code and come out as NaN, which is outside
every limit.  The payload of a link frame is the image followed by the first fault of the fast tier and by those of
its rules that latched last, big-endian: value and limit of every rule that trips arrive with its latch.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facility.errors import InternalError
from facility.signals import IMAGE, MASK_BITS, SIGNALS

INVALID = -(2**31)
"""The code of a value that is none."""
MAX_CODE = 2**31 - 1
N_IMAGE = len(IMAGE)
RESOLUTION: NDArray[np.float64] = np.array([SIGNALS[i].resolution for i in IMAGE])
PLACE: dict[str, int] = {SIGNALS[i].name: k for k, i in enumerate(IMAGE)}
"""Place of a signal in the image, by name."""
_SCALE = 1.0 / RESOLUTION
_PER_UNIT: NDArray[np.float64] = np.where(RESOLUTION < 1.0, np.rint(_SCALE), 1.0)
_UNITS: NDArray[np.float64] = np.where(RESOLUTION < 1.0, 1.0, RESOLUTION)
STEPS: list[float] = RESOLUTION.tolist()
_FACTORS: list[tuple[float, float]] = list(zip(_UNITS.tolist(), _PER_UNIT.tolist(), strict=True))
"""A code stands for code x units / per unit: divided, not multiplied, so that 95000 / 100000 is the 0.95 of a limit."""
_INDEX = np.array(IMAGE, dtype=np.intp)
_CODES = np.dtype(">i4")
_FAULT = struct.Struct(">iddq")
_OTHER = struct.Struct(">hffi")
"""Another fault: rule, value and limit in single precision, time after the first fault in ticks."""
MAX_OTHERS = 3
_TICK_NS = 10_000
_LATEST = 2**31 - 1
_BIGGEST = float(np.finfo(np.float32).max)
PAYLOAD_BYTES = N_IMAGE * _CODES.itemsize + _FAULT.size + MAX_OTHERS * _OTHER.size


class OtherFault(NamedTuple):
    """Another rule of the fast tier that is latched; as `FastFault`."""

    rule: int
    value: float
    limit: float
    t_ns: int


class FastFault(NamedTuple):
    """The first rule of the fast tier that latched: what it compared, with what, when (ns)."""

    rule: int
    """Position among the H rules, -1: none has latched."""
    value: float
    limit: float
    t_ns: int
    others: tuple[OtherFault, ...] = ()
    """Rules that latched after it, the latest MAX_OTHERS of them."""


NO_FAULT = FastFault(-1, math.nan, math.nan, 0)


def encode(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Codes of the image signals `values`, in the order of IMAGE."""
    if values.shape != (N_IMAGE,):
        raise InternalError("image.shape", f"{values.shape}, not ({N_IMAGE},)", "interlocks.process_image")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * _SCALE)
    sound = np.abs(scaled) <= MAX_CODE
    return np.where(sound, scaled, INVALID).astype(np.int32)


def decode(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Values of the codes; NaN for the reserved one."""
    values = codes * _UNITS / _PER_UNIT
    values[codes == INVALID] = math.nan
    return values


def value_of(code: int, place: int) -> float:
    """Value of one code, as `decode` gives it."""
    units, per_unit = _FACTORS[place]
    return code * units / per_unit


def image_of(signals: NDArray[np.float64]) -> NDArray[np.int32]:
    """Codes of the image out of the whole signal vector."""
    return encode(signals[_INDEX])


def pack(codes: NDArray[np.int32], fault: FastFault = NO_FAULT) -> bytes:
    """The payload of a frame from the rack."""
    if codes.shape != (N_IMAGE,):
        raise InternalError("image.shape", f"{codes.shape}, not ({N_IMAGE},)", "interlocks.process_image")
    others = b"".join(_OTHER.pack(*_packed(other, fault.t_ns)) for other in fault.others[:MAX_OTHERS])
    empty = _OTHER.pack(-1, math.nan, math.nan, 0) * (MAX_OTHERS - min(len(fault.others), MAX_OTHERS))
    return codes.astype(_CODES).tobytes() + _FAULT.pack(*fault[:4]) + others + empty


def _packed(other: OtherFault, first_ns: int) -> tuple[int, float, float, int]:
    """Single precision and ticks; what does not fit is the largest there is."""
    value, limit = np.clip((other.value, other.limit), -_BIGGEST, _BIGGEST)
    return other.rule, float(value), float(limit), max(0, min((other.t_ns - first_ns) // _TICK_NS, _LATEST))


def unpack(payload: bytes) -> tuple[NDArray[np.int32], FastFault] | None:
    """Codes and faults of a payload; None if it has the wrong length."""
    if len(payload) != PAYLOAD_BYTES:
        return None
    codes = np.frombuffer(payload, dtype=_CODES, count=N_IMAGE).astype(np.int32)
    at = N_IMAGE * _CODES.itemsize
    first = FastFault(*_FAULT.unpack_from(payload, at))
    told = [OtherFault(*_OTHER.unpack_from(payload, at + _FAULT.size + i * _OTHER.size)) for i in range(MAX_OTHERS)]
    others = tuple(other._replace(t_ns=first.t_ns + other.t_ns * _TICK_NS) for other in told if other.rule >= 0)
    return codes, first._replace(others=others)


def mask_of(codes: NDArray[np.int32], name: str) -> int:
    """A bit mask of the image, of the words `name` and `name`_high; all bits of a word set if it is invalid."""
    return _word(codes[PLACE[name]]) | _word(codes[PLACE[f"{name}_high"]]) << MASK_BITS


def _word(code: int) -> int:
    whole = (1 << MASK_BITS) - 1
    return int(code) if 0 <= code <= whole else whole
