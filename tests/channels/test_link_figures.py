"""The figures of docs/reference/link.md, computed anew: polynomials, Hamming distances, residual error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from channels.crc import CRC32C_POLYNOMIAL
from channels.frames import FRAME_MAX, OVERHEAD

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "link.md"
CRC32_POLYNOMIAL = 0x04C11DB7
CRC_BYTES = 4
BITS_MAX = 8 * (FRAME_MAX - 2 * CRC_BYTES)
"""What both CRCs protect, at most."""
BIT_ERROR = 1e-2
"""Bit error probability that IEC 61784-3 has one assume of a black channel."""
FRAMES_PER_HOUR = 2 * 1000 * 3600
"""Both directions, a frame a millisecond each."""
SIL3_SHARE_PER_HOUR = 1e-9
"""1 % of 1e-7 an hour, the upper end of SIL 3."""


def syndromes(polynomial: int, bits: int) -> np.ndarray:
    """Remainder of x^k by a generator of degree 32, for k below `bits`: what one wrong bit adds to the check."""
    found, register = np.empty(bits, dtype=np.uint32), 1
    for k in range(bits):
        found[k] = register
        register = (register << 1) ^ ((1 << 32 | polynomial) if register & 0x80000000 else 0)
    return found


def distance_at_least(polynomial: int, data_bits: int) -> int:
    """The Hamming distance that is certain, up to 6: every pattern of two, three and four wrong bits is tried.

    A generator with a constant term divides a pattern if it divides the shifted one, so the first wrong bit is at 0.
    One that is divisible by x + 1 finds every odd number of wrong bits.
    """
    single = syndromes(polynomial, data_bits + 32)
    odd_found = (polynomial.bit_count() + 1) % 2 == 0
    others = single[1:]
    if (others == single[0]).any():
        return 2
    if np.isin(others ^ single[0], others).any():
        return 3
    known = set(others.tolist())
    seen = np.zeros(1 << 20, dtype=bool)
    seen[others & 0xFFFFF] = True
    for k, one in enumerate(others):
        wanted = others[k + 1 :] ^ one ^ single[0]
        if not known.isdisjoint(wanted[seen[wanted & 0xFFFFF]].tolist()):
            return 4
    return 6 if odd_found else 5


def gf2_gcd(a: int, b: int) -> int:
    """Greatest common divisor of two polynomials over GF(2)."""
    while b:
        while a.bit_length() >= b.bit_length():
            a ^= b << (a.bit_length() - b.bit_length())
        a, b = b, a
    return a


def more_errors_than(fewest: int, bits: int, bit_error: float) -> float:
    """Probability of at least `fewest` wrong bits among `bits`."""
    fewer = sum(
        math.exp(
            math.lgamma(bits + 1) - math.lgamma(k + 1) - math.lgamma(bits - k + 1)
            + k * math.log(bit_error) + (bits - k) * math.log1p(-bit_error)
        )
        for k in range(fewest)
    )  # fmt: skip
    return 1.0 - fewer


def residual_per_hour(check_bits: int, distance: int, bits: int) -> float:
    """IEC 61784-3: residual error rate = 2^-r x sum over k >= d of C(n,k) Pe^k (1-Pe)^(n-k), times messages an hour."""
    return 2.0**-check_bits * more_errors_than(distance, bits, BIT_ERROR) * FRAMES_PER_HOUR


def rows() -> dict[str, str]:
    """The lines of the table of figures: name and value."""
    cells = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    return {row[0]: row[1] for row in cells if len(row) >= 2}


def test_no_pattern_of_up_to_five_bits_escapes_crc32c_in_the_longest_frame() -> None:
    assert distance_at_least(CRC32C_POLYNOMIAL, BITS_MAX) == 6
    assert rows()["Hamming distance of CRC-32C at that length"] == "6"


def test_crc32_alone_has_distance_four_in_the_longest_frame_and_five_in_a_permit() -> None:
    assert distance_at_least(CRC32_POLYNOMIAL, BITS_MAX) == 4
    assert distance_at_least(CRC32_POLYNOMIAL, 8 * (OVERHEAD - 2 * CRC_BYTES + 32)) == 5
    assert rows()["Hamming distance of CRC-32 at that length"] == "4"


def test_the_polynomials_have_no_common_factor() -> None:
    plain, castagnoli = 1 << 32 | CRC32_POLYNOMIAL, 1 << 32 | CRC32C_POLYNOMIAL
    assert gf2_gcd(plain, castagnoli) == 1
    assert gf2_gcd(castagnoli, 0b11) == 0b11  # divisible by x + 1
    assert rows()["CRC-32, polynomial"] == f"0x{CRC32_POLYNOMIAL:08X}, width 32"
    assert rows()["CRC-32C, polynomial"] == f"0x{CRC32C_POLYNOMIAL:08X}, width 32"


def test_lengths_and_rates_are_what_the_page_says() -> None:
    assert rows()["longest frame"] == f"{FRAME_MAX} bytes, of which {BITS_MAX} bits are checked"
    assert rows()["frames an hour, both ways"] == f"{FRAMES_PER_HOUR:.2e}"


@pytest.mark.parametrize(
    ("name", "check_bits"), [("residual errors an hour, one CRC", 32), ("residual errors an hour, both CRCs", 64)]
)
def test_residual_error_is_what_the_page_says(name: str, check_bits: int) -> None:
    rate = residual_per_hour(check_bits, 6, BITS_MAX + check_bits)
    assert rows()[name] == f"{rate:.1e}"
    assert (rate < SIL3_SHARE_PER_HOUR) is (check_bits == 64)
