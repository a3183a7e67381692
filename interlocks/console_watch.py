"""The operator's console as the safety controller hears it: whose keep-alives count, and how long there were none."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from channels import keepalive
from channels.keepalive import Beat, KeepAliveState
from facility.errors import ConfigError
from interlocks.own_inputs import CONSOLE_INPUT
from interlocks.process_image import INVALID
from interlocks.rules import RuleSet

NS_PER_MS = 1_000_000


class Console:
    """Who must show signs of life, and with what key."""

    def __init__(self, source: str, key: Ed25519PublicKey) -> None:
        self.source = source
        self.key = key


class ConsoleWatch:
    """Signs of life of one console.

    Args:
        console: whose.
        rules: the rule on `console.age_ms` says how long it may be silent; ConfigError if there is none.
        now_ns: facility time of the start.
    """

    def __init__(self, console: Console, rules: RuleSet, now_ns: int) -> None:
        self._state = KeepAliveState(console.source, console.key, silence_ns(rules, CONSOLE_INPUT), now_ns)
        self.alive = False
        """There has been a sign of life."""

    def heard(self, frame: bytes, now_ns: int) -> bool:
        """A keep-alive frame has come; True if it was a sign of life."""
        self._state, outcome = keepalive.check(self._state, frame, now_ns)
        if not isinstance(outcome, Beat):
            return False
        self.alive = True
        return True

    def admit(self, now_ns: int) -> None:
        """A person has signed a reset: a sign of life, and a console that has restarted is admitted.

        Not while the present one is heard: a second console may reset, but does not take its place.
        """
        heard = self.alive and now_ns - self._state.since_ns <= self._state.max_age_ns // 2
        self._state = self._state._replace(since_ns=now_ns) if heard else keepalive.admit(self._state, now_ns)
        self.alive = True

    def age_ns(self, now_ns: int) -> int:
        """Time since the last sign of life; INVALID before the first."""
        return now_ns - self._state.since_ns if self.alive else INVALID

    def deadline_ns(self) -> int:
        """When the console has been silent for too long."""
        return self._state.since_ns + self._state.max_age_ns + 1


def silence_ns(rules: RuleSet, name: str) -> int:
    """Longest silence of the console or of control, from the rule that watches it by the input `name`."""
    for rule in rules.scanned:
        if name in rule.inputs and rule.high is not None:
            return round(rule.high * NS_PER_MS)
    raise ConfigError("interlocks.no-watch", f"no rule of the safety controller watches {name}", "interlocks.toml")
