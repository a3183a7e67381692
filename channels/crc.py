"""CRC-32C of messages of the safety link, by google-crc32c."""

from __future__ import annotations

from google_crc32c import extend

CRC32C_POLYNOMIAL = 0x1EDC6F41
"""Castagnoli, normal form; G. Castagnoli et al., IEEE Trans. Comm. 41 (1993) 883."""


def crc32c(message: bytes, start: int = 0) -> int:
    """CRC-32C; `start` continues from an earlier value, or is a key.

    Check value: crc32c(b"123456789") == 0xE3069283.
    """
    value: int = extend(start, message)
    return value
