"""Nonces that outlive a process: a captured command stays refused, whatever the calendar clock says."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.command import Signer
from channels.command_server import CommandVerifier, Refusal, Verified
from channels.keys import KeyRing, derived_private_key
from facility.errors import ConfigError
from facility.timebase import ManualClock
from rig.clocks import command_age_ns
from rig.nonce_file import NonceFile, nonces_in

KEY = derived_private_key(1, "operator")


def verifier(folder: Path, clock: ManualClock) -> CommandVerifier:
    """A server that has just started, its calendar clock set back to the beginning."""
    ring = KeyRing()
    ring.add("operator", KEY.public_key(), ("operator",))
    permissions = {"start": ("operator",)}
    return CommandVerifier(
        ring, permissions, clock, nonces=nonces_in(folder, "control"), nonce_floor=0, max_age_ns=command_age_ns(2.0)
    )


def test_a_captured_command_stays_refused_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    signer = Signer("operator", "operator", KEY)
    frame = signer.sign(signer.command("start", {}, clock))
    assert isinstance(verifier(tmp_path, clock).verify(frame), Verified)
    again = verifier(tmp_path, clock).verify(frame)
    assert isinstance(again, Refusal)
    assert again.code == "command.replayed"
    later = signer.sign(signer.command("start", {}, clock))
    assert isinstance(verifier(tmp_path, clock).verify(later), Verified)


def test_a_start_that_waited_for_a_process_that_hung_has_expired(tmp_path: Path) -> None:
    clock = ManualClock()
    signer = Signer("operator", "operator", KEY)
    frame = signer.sign(signer.command("start", {}, clock))
    clock.advance_ns(20_000_000_001)  # 10 s on the wall at speed 2
    found = verifier(tmp_path, clock).verify(frame)
    assert isinstance(found, Refusal)
    assert found.code == "command.stale"


def test_it_is_a_mapping_that_remembers(tmp_path: Path) -> None:
    nonces = NonceFile(tmp_path / "n.json")
    nonces["a"], nonces["b"] = 3, 4
    del nonces["a"]
    assert dict(NonceFile(tmp_path / "n.json")) == {"b": 4}
    assert len(nonces) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema": "ionctl.nonces/1", "nonces": {"a": -1}}']
)
def test_a_damaged_file_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(ConfigError, match=r"nonces|old command"):
        NonceFile(tmp_path / "n.json")
