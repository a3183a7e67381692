"""Signed commands of somebody who has the keys of the console, or control's, and means no good.

Half of them are what a person might send: a verb with all that it takes and nothing else, each value one that could be
meant (`WELL_FORMED`). The others have arguments that nobody should give, or none that fit. Verbs that only stop the
beam are left out: they would end what is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from channels.command import Signer
from facility.timebase import Clock

SESSION = "the session that is shown"
"""Stands for what `SAFE:Field-RB` says."""
PLAN = "the plan that is delivered"
HELD = "control"
"""Issuer of control's key: it is tried where people command, for the machine believes it by design."""
Choices = dict[str, tuple[Any, ...]]
WELL_FORMED: dict[str, dict[str, Choices]] = {
    "SAFE": {
        "reset": {},
        "set_mode": {"mode": ("service", "qa", "clinical")},
        "bypass": {
            "rule": ("gate", "chamber-drift", "position-x", "patient-position", "proof-tests"),
            "reason": ("looked at", "it chatters"),
            "seconds": (60.0, 3600.0),
        },
        "unbypass": {"rule": ("gate", "chamber-drift")},
        "open_field": {"session": ("S-another", SESSION)},
        "close_field": {"session": (SESSION, "S-another")},
        "resolve": {"session": (SESSION,), "words": ("looked at",), "resume": (True, False)},
        "prove": {"tests": (["scan-zero-x"], ["permit-loop-raise", "permit-loop-drop"], ["beam-off-dump"])},
    },
    "TCS": {
        "load": {"plan": (PLAN,), "room": ("2", "9"), "qa": (True, False)},  # its own room would be another delivery
        "prepare": {},
        "start": {"session": (SESSION, "S-another")},
        "resume": {"session": (SESSION,)},
        "close": {},
    },
    "FE": {
        "open_field": {"field": (77,), "preset_ions": (1e12,), "expected_ms": (1e9,), "plan_hash": ("",)},
        "load_layer": {
            "token": (77,), "energy_code": (100,), "level_ions_per_s": (1e8,), "n": (50,), "crc32": (0,),
            "range_shifter_code": (0,), "transport_set": (1,),
        },
        "arm": {"token": (1, 77), "permit_epoch": (1, 3)},
        "resume": {"permit_epoch": (1, 3)},
    },
    "RING": {"request_cycle": {"token": (77,), "energy_code": (100,), "transport_set": (1,)}, "end_cycle": {}},
    "RS": {"insert": {"code": (0, 1)}},
}  # fmt: skip
"""(server, verb) -> argument -> what could be meant."""
_UNKNOWN = {"SAFE": ("inhibit",), "TCS": ("fly",), "FE": ("set_limit",), "RING": (), "RS": ()}
_JUNK: Choices = {
    "rule": ("no-such-rule", 7, None),
    "reason": ("", "x" * 300),
    "seconds": (1e9, -1.0, "long", 10**30),
    "mode": ("god", 3),
    "session": ("", 12, "x" * 300),
    "words": ("",),
    "resume": ("yes",),
    "tests": ([], ["no-such-test"], "all"),
    "latched": ("all", {"door": 0}),
    "plan": ("/nonexistent.dcm", 3),
    "room": ("9",),
    "qa": ("yes",),
    "token": (2**40, -1),
    "permit_epoch": (-1,),
    "field": (-1,),
    "preset_ions": (-1.0,),
    "expected_ms": (0.0,),
    "energy_code": (10**6,),
    "level_ions_per_s": (1e12, -1.0),
    "n": (10**9,),
    "code": (99,),
}
_WELL, _ODD = 0.5, 0.2


class RogueCommands:
    """Draws commands; every choice follows from the generator.

    Args:
        rng: draws.
        signers: whose keys are at hand, in which role.
        clock: the clock that issuers sign with.
        session: the session that is shown, when a command is made.
        plan: path of the plan that is delivered.
    """

    def __init__(
        self, rng: np.random.Generator, signers: list[Signer], clock: Clock, session: Callable[[], str], plan: str
    ) -> None:
        self._rng = rng
        self._signers = signers
        self._clock = clock
        self._session = session
        self._plan = plan

    def next(self) -> tuple[str, str, bytes]:
        """Server, verb and signed frame of another command."""
        rng = self._rng
        signer = self._signers[int(rng.integers(len(self._signers)))]
        servers = ("SAFE", "TCS") if signer.issuer == HELD else tuple(WELL_FORMED)
        server = str(rng.choice(servers))
        verb = str(rng.choice([*WELL_FORMED[server], *_UNKNOWN[server]]))
        command = signer.command(verb, self._arguments(server, verb), self._clock)
        return server, verb, signer.sign(command)

    def _arguments(self, server: str, verb: str) -> dict[str, Any]:
        rng = self._rng
        takes = WELL_FORMED[server].get(verb, {})
        found = {name: self._meant(_one(rng, choices)) for name, choices in takes.items()}
        if rng.random() < _WELL:
            return found
        odd = [name for name in _JUNK if name in takes or rng.random() < _ODD / len(_JUNK)]
        return found | {name: _one(rng, _JUNK[name]) for name in odd if rng.random() < _WELL}

    def _meant(self, value: Any) -> Any:
        if isinstance(value, str):
            return {SESSION: self._session(), PLAN: self._plan}.get(value, value)
        return value


def _one(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))]
