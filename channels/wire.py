"""Values on their way to a PV: the same checks and conversions for every provider."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from caproto import ChannelData, ChannelType
from numpy.typing import NDArray

from channels.protocol import Putable
from channels.publish import NUMBER_DTYPES
from facility.errors import ChannelError

_STRING_MAX = 39


def bad_value(name: str, what: str, fix: str = "") -> ChannelError:
    """The error for a value that a PV cannot hold."""
    return ChannelError(code="channel.bad-value", what=what, where=name, fix=fix)


def wire_value(entry: ChannelData, value: Putable, name: str) -> Any:
    """What a client's put of `value` hands to the server's PV; ChannelError 'channel.bad-value'."""
    kind = entry.data_type
    if kind == ChannelType.ENUM:
        return [enum_index(value, list(entry.enum_strings), name)]
    if kind == ChannelType.STRING:
        return [string_bytes(value, name)]
    if kind == ChannelType.CHAR:
        return char_array(value, entry.max_length, name)
    return number_array(value, np.dtype(NUMBER_DTYPES[kind]), entry.max_length, name)


def enum_index(value: Putable, states: list[str], name: str) -> int:
    """Index of an enum's state from index or name."""
    if isinstance(value, str):
        if value not in states:
            raise bad_value(name, f"no state {value!r}", f"one of {', '.join(states)}")
        return states.index(value)
    if isinstance(value, bool | int | np.integer) and 0 <= int(value) < len(states):
        return int(value)
    raise bad_value(name, f"no state {value!r}", f"0 to {len(states) - 1}, or one of {', '.join(states)}")


def string_bytes(value: Putable, name: str) -> bytes:
    """A string's bytes; EPICS strings hold 39 of them."""
    if not isinstance(value, str):
        raise bad_value(name, f"{value!r} is no string")
    try:
        data = value.encode("latin-1")  # what caproto decodes with
    except UnicodeEncodeError as problem:
        raise bad_value(name, f"{value!r}", "characters of Latin-1") from problem
    if len(data) > _STRING_MAX:
        raise bad_value(name, f"{len(data)} bytes", f"at most {_STRING_MAX}")
    return data


def char_array(value: Putable, length: int, name: str) -> NDArray[np.uint8]:
    """Bytes (or a string, as UTF-8) as an array of octets."""
    if isinstance(value, str):
        value = value.encode("utf-8")
    if isinstance(value, int) and length == 1:
        value = bytes([value & 0xFF])
    if not isinstance(value, bytes):
        raise bad_value(name, f"{type(value).__name__} for bytes")
    if not 0 < len(value) <= length:
        raise bad_value(name, f"{len(value)} bytes", f"1 to {length}")
    return np.frombuffer(value, dtype=np.uint8)


def number_array(value: Putable, dtype: np.dtype[Any], length: int, name: str) -> NDArray[Any]:
    """Numbers as a 1-D array of the PV's type; fractions and overflow of integers are refused, not cut off."""
    try:
        given = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError) as problem:
        raise bad_value(name, f"{value!r} is no number") from problem
    if given.ndim != 1 or not 0 < len(given) <= length:
        raise bad_value(name, f"shape {given.shape}", f"1 to {length} numbers")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = all(math.isfinite(x) and x == int(x) and limits.min <= x <= limits.max for x in given.tolist())
        if not whole:
            raise bad_value(name, f"{value!r}", f"whole numbers from {limits.min} to {limits.max}")
    return given.astype(dtype)
