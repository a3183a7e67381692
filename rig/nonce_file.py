"""The last nonce of each issuer, in a file: what was once carried out stays refused after a restart of the process.

A floor at the start of a process refuses what was signed before it, unless the calendar clock was set back; this
does so then too. Written in one step before a command is carried out. It survives the death of the process, not of the
machine's power: it is not forced to the disk, since the floor holds there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from facility.errors import ConfigError

NONCES_SCHEMA = "ionctl.nonces/1"
_ISSUERS_MAX = 1_000


class NonceFile(MutableMapping[str, int]):
    """Last nonce by issuer. ConfigError 'nonces.unreadable' for a file that is none: it must not be taken for empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def __getitem__(self, issuer: str) -> int:
        return self._known[issuer]

    def __setitem__(self, issuer: str, nonce: int) -> None:
        self._known[issuer] = nonce
        self._write()

    def __delitem__(self, issuer: str) -> None:
        del self._known[issuer]
        self._write()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _write(self) -> None:
        text = json.dumps({"schema": NONCES_SCHEMA, "nonces": self._known}, sort_keys=True)
        new = self._path.with_suffix(".new")
        new.write_text(text + "\n", encoding="utf-8")
        new.replace(self._path)


def nonces_in(folder: Path, server: str) -> NonceFile:
    """The nonces of a server (`safety`, `control`, `plant.FE`, ...) in a run directory."""
    return NonceFile(folder / f"{server}.nonces.json")


def _read(path: Path) -> dict[str, int]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise _unreadable(path, str(problem)) from problem
    found = data.get("nonces") if isinstance(data, dict) and data.get("schema") == NONCES_SCHEMA else None
    if not isinstance(found, dict) or len(found) > _ISSUERS_MAX:
        raise _unreadable(path, f"not {NONCES_SCHEMA}")
    if not all(type(nonce) is int and nonce >= 0 for nonce in found.values()):
        raise _unreadable(path, "a nonce is no whole number")
    return found


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "nonces.unreadable", f"cannot read the nonces: {why}", str(path),
        "make sure that no old command can come again, then remove the file",
    )  # fmt: skip
