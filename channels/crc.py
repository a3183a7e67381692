"""CRC-32C of messages of the safety link, by google-crc32c."""

from __future__ import annotations

import google_crc32c
from google_crc32c import extend

from facility.errors import ConfigError

CRC32C_POLYNOMIAL = 0x1EDC6F41
"""Castagnoli, normal form; G. Castagnoli et al., IEEE Trans. Comm. 41 (1993) 883."""


def crc32c(message: bytes, start: int = 0) -> int:
    """CRC-32C; `start` continues from an earlier value, or is a key.

    Check value: crc32c(b"123456789") == 0xE3069283.
    """
    value: int = extend(start, message)
    return value


def require_compiled_crc() -> None:
    """ConfigError 'crc.slow' where google-crc32c has fallen back to Python: right sums, too late for a link on time.

    Asked by each end of a link when it is opened; what only reads frames, or runs in virtual time, may be slow.
    """
    found = google_crc32c.implementation
    if found != "c":
        what = f"google_crc32c.implementation is {found!r}, not 'c': too slow for the safety link"
        fix = "install a google-crc32c wheel with its compiled part for this Python and machine"
        raise ConfigError("crc.slow", what, "google-crc32c", fix)
