"""The process image: what the safety controller sees of the rack, as fixed-point numbers with a resolution each.

Not-a-number, infinity and anything beyond 32 bits travel as one reserved code and come out as NaN, which is outside
every limit.  The payload of a link frame is the image followed by the first fault of the fast tier, big-endian.
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
_CODES = np.dtype(">i4")
_FAULT = struct.Struct(">iddq")
PAYLOAD_BYTES = N_IMAGE * _CODES.itemsize + _FAULT.size


class FastFault(NamedTuple):
    """The first rule of the fast tier that latched: what it compared, with what, when (ns)."""

    rule: int
    """Position among the H rules, -1: none has latched."""
    value: float
    limit: float
    t_ns: int


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
    values = codes * RESOLUTION
    values[codes == INVALID] = math.nan
    return values


def image_of(signals: NDArray[np.float64]) -> NDArray[np.int32]:
    """Codes of the image out of the whole signal vector."""
    return encode(signals[list(IMAGE)])


def pack(codes: NDArray[np.int32], fault: FastFault = NO_FAULT) -> bytes:
    """The payload of a frame from the rack."""
    if codes.shape != (N_IMAGE,):
        raise InternalError("image.shape", f"{codes.shape}, not ({N_IMAGE},)", "interlocks.process_image")
    return codes.astype(_CODES).tobytes() + _FAULT.pack(*fault)


def unpack(payload: bytes) -> tuple[NDArray[np.int32], FastFault] | None:
    """Codes and first fault of a payload; None if it has the wrong length."""
    if len(payload) != PAYLOAD_BYTES:
        return None
    codes = np.frombuffer(payload, dtype=_CODES, count=N_IMAGE).astype(np.int32)
    return codes, FastFault(*_FAULT.unpack_from(payload, N_IMAGE * _CODES.itemsize))


def mask_of(codes: NDArray[np.int32], name: str) -> int:
    """A bit mask of the image, of the words `name` and `name`_high; all bits of a word set if it is invalid."""
    return _word(codes[PLACE[name]]) | _word(codes[PLACE[f"{name}_high"]]) << MASK_BITS


def _word(code: int) -> int:
    whole = (1 << MASK_BITS) - 1
    return int(code) if 0 <= code <= whole else whole
