"""Keys of a home: who may command whom. Made when first needed, private ones readable by their owner alone.

The console holds the operator's and the physicist's private keys, control holds its own and no other, the plant and
the safety controller hold none: so control cannot sign a reset, whatever happens to it.  The key of the room's panel
stands for being there: with it the search is done and an emergency stop is let go, and with no other.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from channels.keys import KeyRing, private_key_from_text, private_key_text, random_private_key
from facility.errors import ConfigError
from rig.home import Home
from rig.wall_clock import entropy

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Issuer:
    """Somebody who signs: name, where the private key is, and the roles that go with it."""

    name: str
    folder: str
    roles: tuple[str, ...]


OPERATOR = Issuer("operator", "console", ("operator",))
PHYSICIST = Issuer("physicist", "console", ("physicist", "operator"))
CONTROL = Issuer("control", "control", ("control",))
ROOM = Issuer("room", "room", ("room",))
"""Whoever stands at the buttons, the door and the emergency stop of the treatment room."""
ISSUERS = (OPERATOR, PHYSICIST, CONTROL, ROOM)
LISTENS_TO = {"plant": (CONTROL, ROOM), "safety": (OPERATOR, PHYSICIST, CONTROL), "control": (OPERATOR, PHYSICIST)}
"""Whose public keys a process gets. Safety knows control too: it refuses its commands by role, not as a stranger's."""


class KeyStore:
    """The keys below one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def private_path(self, name: str) -> Path:
        """File of a private key; made if it is not there."""
        issuer = _issuer(name)
        folder = self.home.keys / issuer.folder
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.key"
        if not path.exists():
            _write_private(path, private_key_text(random_private_key(entropy)))
        return path

    def private(self, name: str) -> Ed25519PrivateKey:
        """A private key."""
        return read_private(self.private_path(name))

    def ring_for(self, process: str) -> KeyRing:
        """Public keys of those a process listens to."""
        ring = KeyRing()
        for issuer in LISTENS_TO[process]:
            ring.add(issuer.name, self.private(issuer.name).public_key(), issuer.roles)
        return ring

    def write_rings(self, folder: Path) -> None:
        """Write `<process>.keyring.json` for every process: public keys only."""
        for process in LISTENS_TO:
            text = json.dumps(self.ring_for(process).to_dict(), indent=1, sort_keys=True)
            (folder / f"{process}.keyring.json").write_text(text + "\n", encoding="utf-8")


def read_private(path: Path) -> Ed25519PrivateKey:
    """The private key in a file; ConfigError if others can read it, or it is none."""
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError("key.unreadable", f"cannot read the key: {problem}", str(path)) from problem
    if mode & 0o077:
        raise ConfigError("key.open", f"others may read it (mode {mode:o})", str(path), f"chmod 600 {path}")
    return private_key_from_text(text)


def read_ring(folder: Path, process: str) -> KeyRing:
    """The ring that `write_rings` wrote for a process."""
    path = folder / f"{process}.keyring.json"
    try:
        return KeyRing.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as problem:
        raise ConfigError("key.ring", f"cannot read the key ring: {problem}", str(path)) from problem


def _issuer(name: str) -> Issuer:
    for issuer in ISSUERS:
        if issuer.name == name:
            return issuer
    raise ConfigError("key.issuer", f"nobody is called {name!r}", "keys", ", ".join(i.name for i in ISSUERS))


def _write_private(path: Path, text: str) -> None:
    new = path.with_suffix(f".new{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text + "\n")
    try:
        os.link(new, path)  # fails if another console was quicker: its key stands
    except FileExistsError:
        pass
    finally:
        new.unlink()
