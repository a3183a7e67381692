"""Identities derived from run seed and counter: the same run gives the same ids, and no two kinds collide."""

from __future__ import annotations

import hashlib
import zlib

_HEX_DIGITS = 12


def derived_hex(seed: int, kind: str, counter: int, digits: int = _HEX_DIGITS) -> str:
    """First `digits` hex digits of SHA-256 over seed, kind and counter; at most 64."""
    text = f"ionctl/{kind}/{seed}/{counter}"
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def field_number(session: str) -> int:
    """A session's field as the front end and the safety controller know it: 31 bits, not 0; 0 for no session."""
    return (zlib.crc32(session.encode()) & 0x7FFFFFFF or 1) if session else 0


class IdSource:
    """Hands out ids of one run.

    The counter per kind is part of the state that a snapshot keeps: `state()` and `restore()`.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counters: dict[str, int] = {}

    def next(self, prefix: str, of: str = "") -> str:
        """`<prefix>-<12 hex>`, another one at every call, and another one for another thing that it is the id `of`."""
        kind = f"{prefix}/{of}" if of else prefix
        return f"{prefix}-{derived_hex(self._seed, kind, self._take(prefix))}"

    def session(self, of: str = "") -> str:
        """Id of a treatment session of this program: S-<12 hex>."""
        return self.next("S", of)

    def command(self) -> str:
        """Id of a command: C-<12 hex>."""
        return self.next("C")

    def event(self) -> str:
        """Id of something that happened and is referred to by name, a trip for instance: E-<12 hex>."""
        return self.next("E")

    def boot_identity(self, source: str) -> int:
        """64-bit boot identity of a link end, higher at every call: the number of the boot, then 32 bits of hash.

        A restarted process must go on from the stored counter, or take its identity from the rig.
        """
        kind = f"boot:{source}"
        boot = self._take(kind)
        return (boot + 1) << 32 | int(derived_hex(self._seed, kind, boot, digits=8), 16)

    def state(self) -> dict[str, int]:
        """Counters by kind."""
        return dict(self._counters)

    def restore(self, state: dict[str, int]) -> None:
        """Go back to counters taken with `state()`."""
        self._counters = dict(state)

    def _take(self, kind: str) -> int:
        counter = self._counters.get(kind, 0)
        self._counters[kind] = counter + 1
        return counter


def run_id(seed: int, configuration_hash: str) -> str:
    """Id of a run: R-<12 hex> of seed and configuration hash."""
    return f"R-{derived_hex(seed, f'run:{configuration_hash}', 0)}"
