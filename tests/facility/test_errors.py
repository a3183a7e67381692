"""Errors read as one line and keep their exit codes."""

from __future__ import annotations

import pickle

import pytest

from facility import errors
from facility.errors import ConfigError, ExitCode, IonctlError

CODES = {
    errors.ConfigError: 3,
    errors.PlanError: 4,
    errors.CommandRefused: 5,
    errors.ChannelError: 6,
    errors.JournalError: 7,
    errors.InternalError: 70,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_exit_codes_are_the_documented_ones(kind: type[IonctlError], code: int) -> None:
    error = kind("a.b", "it is wrong", "there", "do this")
    assert error.exit_code == code
    assert error.to_dict() == {
        "error": kind.__name__, "code": "a.b", "what": "it is wrong",
        "where": "there", "fix": "do this", "exit_code": code,
    }  # fmt: skip


def test_one_clear_line_with_and_without_parts() -> None:
    assert str(ConfigError("c", "what", "where", "fix")) == "what (where): fix"
    assert str(ConfigError("c", "what")) == "what"
    assert str(ConfigError("c", "what", fix="fix")) == "what: fix"
    assert ConfigError("c", "what").exit_code is ExitCode.CONFIGURATION


def test_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("c", "what", "where", "fix")))
    assert isinstance(error, ConfigError)
    assert error.to_dict() == ConfigError("c", "what", "where", "fix").to_dict()
