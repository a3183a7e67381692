"""A termination that a physicist has resolved: the field goes on, or is closed for good."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from facility.config import load_facility
from facility.errors import CommandRefused, IonctlError
from rig import remote
from rig.home import Home
from rig.operator_client import OperatorClient, OperatorLimits

FACILITY = load_facility("wuwei")
WORDS = "abandoned: the patient had to go"


class Client(OperatorClient):
    """An operator whose control answers as it is told."""

    def __init__(self, problem: IonctlError | None) -> None:
        self._problem = problem
        self.limits = OperatorLimits()
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    async def resolve(self, words: str, resume: bool = False) -> Mapping[str, Any]:
        return {"resolved": "S-1", "words": words, "resume": resume}

    async def ask(self, server: str, verb: str, args: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        self.asked.append((server, verb, args))
        if self._problem is not None:
            raise self._problem
        return {"account": "layer 3: 5 of 9 spots done"}


def resolved(client: Client, monkeypatch: pytest.MonkeyPatch, *, resume: bool) -> Mapping[str, Any]:
    @contextlib.asynccontextmanager
    async def operator_at(*_: object) -> AsyncIterator[Client]:
        yield client

    monkeypatch.setattr(remote, "running", lambda *_: None)
    monkeypatch.setattr(remote, "operator_at", operator_at)
    return remote.resolve_termination(FACILITY, Home(Path("nowhere")), WORDS, resume=resume)


def test_a_field_that_does_not_go_on_is_closed_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(None)
    answer = resolved(client, monkeypatch, resume=False)
    assert (answer["closed"], answer["account"]) == (True, "layer 3: 5 of 9 spots done")
    assert client.asked == [("TCS", "close_partial", {"session": "S-1", "reason": WORDS})]


def test_a_field_that_goes_on_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(None)
    assert "closed" not in resolved(client, monkeypatch, resume=True)
    assert client.asked == []


@pytest.mark.parametrize(
    ("code", "closed"), [("session.ended", True), ("recovery.journal", False), ("channel.disconnected", False)]
)
def test_what_the_journal_does_not_know_is_said(monkeypatch: pytest.MonkeyPatch, code: str, closed: bool) -> None:
    answer = resolved(Client(CommandRefused(code, "it is so", "close_partial")), monkeypatch, resume=False)
    assert answer["closed"] is closed
    assert ("it is so" in answer.get("not_closed", "")) is not closed
