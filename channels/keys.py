"""Keys of those who command: Ed25519 pairs, and the ring of public keys with the roles each may take."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from facility.errors import ConfigError

_KEY_BYTES = 32
SIGNATURE_BYTES = 64
_OWN_MAX = 64


def derived_private_key(seed: int, issuer: str) -> Ed25519PrivateKey:
    """The key of an issuer in a virtual run: a function of seed and name, so never for a real installation."""
    material = hashlib.sha256(f"ionctl/key/{seed}/{issuer}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(material)


def random_private_key(entropy: Callable[[int], bytes]) -> Ed25519PrivateKey:
    """A fresh key from `entropy(n)`, which returns n unpredictable bytes; the rig brings the system's."""
    material = entropy(_KEY_BYTES)
    if len(material) != _KEY_BYTES:
        raise ConfigError(code="key.entropy", what=f"{len(material)} bytes of entropy, {_KEY_BYTES} needed")
    return Ed25519PrivateKey.from_private_bytes(material)


def private_key_text(key: Ed25519PrivateKey) -> str:
    """Base64 of the raw key, for a file that only its owner reads."""
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return base64.b64encode(raw).decode("ascii")


def private_key_from_text(text: str) -> Ed25519PrivateKey:
    """The key behind `private_key_text`; ConfigError 'key.malformed'."""
    return Ed25519PrivateKey.from_private_bytes(_raw_key(text, "private key"))


_own: OrderedDict[tuple[str, bytes], Ed25519PrivateKey] = OrderedDict()
"""What this process has signed last, and with which key."""


def sign(key: Ed25519PrivateKey, message: bytes) -> str:
    """Signature, base64."""
    signature = base64.b64encode(key.sign(message)).decode("ascii")
    _own[signature, message] = key
    if len(_own) > _OWN_MAX:
        _own.popitem(last=False)
    return signature


@functools.lru_cache(maxsize=64)
def _public(key: Ed25519PrivateKey) -> Ed25519PublicKey:
    return key.public_key()


def verify(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    """Whether a base64 signature is the key's signature of the message.

    What this very process has just signed with the private key needs no arithmetic: in virtual time issuer and server
    live in one process, and a check costs twice what a signature does.
    """
    own = _own.get((signature, message))
    if own is not None and _public(own) == key:
        return True
    try:
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _raw_key(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ConfigError(code="key.malformed", what="not base64 of 32 bytes", where=where, fix="make the keys anew")
    return raw


@dataclass(frozen=True, slots=True)
class Known:
    """One issuer: public key, and the roles it may act in."""

    key: Ed25519PublicKey
    roles: frozenset[str]


class KeyRing:
    """Public keys by issuer."""

    def __init__(self, known: Mapping[str, Known] | None = None) -> None:
        self._known = dict(known or {})

    def __contains__(self, issuer: str) -> bool:
        return issuer in self._known

    def add(self, issuer: str, key: Ed25519PublicKey, roles: Iterable[str]) -> None:
        """Let an issuer act in these roles."""
        self._known[issuer] = Known(key, frozenset(roles))

    def find(self, issuer: str) -> Known | None:
        """The issuer's key and roles; None for a stranger."""
        return self._known.get(issuer)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """JSON-ready: by issuer, base64 of the public key and sorted roles."""
        return {
            issuer: {
                "key": base64.b64encode(known.key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode("ascii"),
                "roles": sorted(known.roles),
            }
            for issuer, known in sorted(self._known.items())
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, object]]) -> KeyRing:
        """The ring behind `to_dict`; ConfigError 'key.malformed'."""
        ring = cls()
        for issuer, entry in data.items():
            roles = entry.get("roles")
            if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
                raise ConfigError(code="key.malformed", what="roles must be a list of names", where=issuer)
            raw = _raw_key(str(entry.get("key")), issuer)
            ring.add(issuer, Ed25519PublicKey.from_public_bytes(raw), roles)
        return ring
