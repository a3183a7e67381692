"""CRC-32C for short messages without a loop over bytes.

A CRC is linear: the remainder of a message is the exclusive or of what each byte contributes from its position.
One table holds the contribution of every byte value at every distance from the end.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

CRC32C_POLYNOMIAL = 0x1EDC6F41
"""Castagnoli, normal form; G. Castagnoli et al., IEEE Trans. Comm. 41 (1993) 883."""
_REFLECTED = 0x82F63B78
LENGTH_MAX = 640
"""Longest message, bytes."""


def _byte_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), np.uint32(_REFLECTED), np.uint32(0))
    return table


def _position_table() -> NDArray[np.uint32]:
    """Row k, column b: remainder of byte b followed by k zero bytes, from a zero register."""
    bytes_ = _byte_table()
    rows = [bytes_]
    for _ in range(LENGTH_MAX - 1):
        rows.append((rows[-1] >> np.uint32(8)) ^ bytes_[rows[-1] & np.uint32(0xFF)])
    return np.array(rows)


_TABLE = _position_table()
_FLAT = _TABLE.reshape(-1)
_OFFSETS = np.arange(LENGTH_MAX - 1, -1, -1, dtype=np.intp) * 256
"""Offset of the row for each byte of a message of the greatest length; shorter ones use the tail."""


def crc32c(message: bytes, start: int = 0) -> int:
    """CRC-32C of at most LENGTH_MAX bytes; `start` continues from an earlier value, or is a key.

    Check value: crc32c(b"123456789") == 0xE3069283. Raises ValueError for a longer message.
    """
    length = len(message)
    if length > LENGTH_MAX:
        raise ValueError(f"{length} bytes, at most {LENGTH_MAX}")
    octets = np.frombuffer(message, dtype=np.uint8)
    places = _OFFSETS[LENGTH_MAX - length :] + octets
    return int(np.bitwise_xor.reduce(_FLAT.take(places))) ^ _start_share(start, length)


@functools.lru_cache(maxsize=4096)
def _start_share(start: int, length: int) -> int:
    """What the register's start and the final inversion contribute after `length` bytes."""
    register = start ^ 0xFFFFFFFF
    for _ in range(length):
        register = register >> 8 ^ int(_TABLE[0][register & 0xFF])
    return register ^ 0xFFFFFFFF
