"""Keys: owner only, stable, and none in the wrong hands."""

from __future__ import annotations

import pytest

from channels.keys import derived_private_key, sign, verify
from facility.errors import ConfigError
from rig.home import Home
from rig.keys import KeyStore, read_private, read_ring


@pytest.fixture
def store(tmp_path):
    return KeyStore(Home(tmp_path))


def test_private_keys_are_for_their_owner_alone(store):
    path = store.private_path("operator")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_keys_stay_the_same(store, tmp_path):
    text = store.private_path("control").read_text()
    assert KeyStore(Home(tmp_path)).private_path("control").read_text() == text


def test_open_key_file_is_refused(store):
    path = store.private_path("operator")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.private("operator")


def test_malformed_key_is_refused(tmp_path):
    path = tmp_path / "x.key"
    path.write_text("rubbish")
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        read_private(path)


def test_nobody_else_has_a_key(store):
    with pytest.raises(ConfigError, match="nobody"):
        store.private_path("stranger")


def test_rings_hold_public_keys_of_those_who_are_listened_to(store, tmp_path):
    store.write_rings(tmp_path)
    safety, plant = read_ring(tmp_path, "safety"), read_ring(tmp_path, "plant")
    known = safety.find("operator")
    assert known is not None
    assert verify(known.key, sign(store.private("operator"), b"text"), b"text")
    assert plant.find("operator") is None
    assert plant.find("control") is not None
    control = safety.find("control")
    assert control is not None
    assert control.roles == {"control"}
    private = store.private_path("operator").read_text().strip()
    assert private not in (tmp_path / "safety.keyring.json").read_text()


def test_what_this_process_has_signed_is_known_by_key_message_and_signature():
    key, other = derived_private_key(1, "operator"), derived_private_key(2, "operator")
    signature = sign(key, b"reset")
    assert verify(key.public_key(), signature, b"reset")
    assert not verify(other.public_key(), signature, b"reset")
    assert not verify(key.public_key(), signature, b"start")
    assert not verify(key.public_key(), sign(key, b"start"), b"reset")
    for count in range(200):  # long ago: found by arithmetic again
        sign(other, b"%d" % count)
    assert verify(key.public_key(), signature, b"reset")
