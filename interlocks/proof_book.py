"""The proof tests as the safety controller keeps them: commands and images in, answers, events and requests out.

The step is in `proof`.  What the rack measures is judged here, so that nothing but the safety controller can say that a
test has passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from channels.command import Command, CommandResult, Status
from interlocks import proof
from interlocks.answers import WORDS_MAX, refused
from interlocks.process_image import PLACE
from interlocks.proof import Effect, Outcome, Proof, ProofState

Emit = Callable[..., None]
VALUE_SIGNALS = ("proof.a", "proof.b", "proof.c", "proof.d")
WATCHED = ("proof.seq", "p.permit", "p.hold")
LONGEST_MS = 5000.0
"""Longest time an action may take, beside the delays of the link."""
WATCHDOGS = 20.0


class _Standing(NamedTuple):
    """What the outcomes say, until one of them expires."""

    outcomes: tuple[Outcome | None, ...]
    until_ns: float
    missing: int
    rows: tuple[dict[str, Any], ...]


class ProofBook:
    """Proof tests and what they gave.

    Args:
        proofs: tests of the facility; none: nothing is missing.
        watchdog_ms: of the safety link.
        emit: takes events.
    """

    def __init__(self, proofs: tuple[Proof, ...], watchdog_ms: float, emit: Emit) -> None:
        self.proofs = proofs
        self._state = ProofState((None,) * len(proofs))
        self._longest_ns = round((LONGEST_MS + WATCHDOGS * watchdog_ms) * proof.NS_PER_MS)
        self._emit = emit
        self._command_id = ""
        self._ran: frozenset[int] = frozenset()
        self._begins_ns: int | None = None
        self._rack: int | None = None
        self._standing = self._stand(0)

    def _stand(self, t_ns: int) -> _Standing:
        rows = tuple(_row(known, outcome, t_ns) for known, outcome in self._pairs())
        ends = proof.expiries(self.proofs, self._state, t_ns)
        missing = proof.missing(self.proofs, self._state, t_ns)
        return _Standing(self._state.outcomes, min(ends, default=math.inf), missing, rows)

    def _stands(self, t_ns: int) -> _Standing:
        """As it is now; the same object as long as nothing has changed, since every scan asks."""
        if self._standing.outcomes is not self._state.outcomes or t_ns >= self._standing.until_ns:
            self._standing = self._stand(t_ns)
        return self._standing

    @property
    def request(self) -> tuple[int, int]:
        """Action and number for the rack; action 0 where there is none."""
        return int(self._state.action or 0), self._state.seq

    @property
    def running(self) -> bool:
        """Tests are being run, or are about to be."""
        return self._state.action is not None or self._begins_ns is not None

    @property
    def raises(self) -> bool:
        """The lines are to be raised to permit and hold."""
        return proof.raises(self._state)

    def measured_by(self, rack: int | None) -> None:
        """Which start of the rack is heard now, None for nobody: what another one has passed is forgotten."""
        if rack is None or rack == self._rack:
            return
        if self._rack is not None:
            self._state = self._state._replace(outcomes=(None,) * len(self.proofs))
            self._emit("proof.forgotten", why="the rack has been started anew")
        self._rack = rack

    def missing(self, t_ns: int) -> float:
        """Tests that have not been run, have failed or have expired."""
        found = self._stands(t_ns).missing
        return float(found if self._begins_ns is None else max(found, len(self._ran)))

    def begin(self, command: Command, objection: str, t_ns: int) -> CommandResult:
        """Start the tests that a command names, or all; `objection` says why none may run now."""
        names = command.args.get("tests", [known.id for known in self.proofs])
        ids = {known.id: i for i, known in enumerate(self.proofs)}
        if not isinstance(names, list) or not names:
            return refused(command, "proof.tests", f"tests is {str(names)[:60]!r}: give a list of ids, or leave it out")
        for name in names:
            if not isinstance(name, str) or name not in ids:
                return refused(command, "proof.no-test", f"no test {str(name)[:60]!r}; there are {', '.join(ids)}")
        if self.running:
            return refused(command, "proof.running", "proof tests are being run")
        if objection:
            return refused(command, "proof.not-now", objection)
        self._command_id = command.id
        self._ran = frozenset(ids[name] for name in names)
        self._emit("proof.begun", tests=sorted(names), by=command.issuer, role=command.role)
        self._begins_ns = t_ns
        return CommandResult(command.id, Status.ACCEPTED, words=f"{len(self._ran)} proof tests")

    def observe(
        self, value: Callable[[str], float], image_t_ns: int, fresh: bool, t_ns: int, *, tripped: bool
    ) -> CommandResult | None:
        """Follow an image, `value(name)`; the answer to the command when its tests are over.  `tripped`: a PAUSE or an
        ABORT is in force, which ends the test of the permit loop as failed.

        Tests begin with the first image that is not older than the command, whether or not scans are left out.
        """
        if self._begins_ns is not None:
            if not fresh or image_t_ns >= self._begins_ns:
                self._begins_ns = None
                self._step(proof.Begin(self._ran), t_ns)
            return None
        event: proof.Event = proof.Blind()
        if fresh:
            quiet = not tripped and value("ring.flat_top") == 0.0 and value("fe.active") == 0.0
            values = tuple(value(name) for name in VALUE_SIGNALS)
            event = proof.Seen(value("proof.seq"), values, value("p.permit"), value("p.hold"), quiet)
        return self._answer() if Effect.FINISHED in self._step(event, t_ns) else None

    def _step(self, event: proof.Event, t_ns: int) -> tuple[Effect, ...]:
        before = self._state.outcomes
        self._state, effects = proof.step(self.proofs, self._longest_ns, self._state, event, t_ns)
        if Effect.JUDGED in effects:
            for known, earlier, now in zip(self.proofs, before, self._state.outcomes, strict=True):
                if now is not None and now is not earlier:
                    self._emit("proof.judged", **_data(known, now))
        return effects

    def _answer(self) -> CommandResult:
        """What became of the tests of the last command."""
        results = [(known, outcome) for i, (known, outcome) in enumerate(self._pairs()) if i in self._ran]
        failed = [(known, outcome) for known, outcome in results if outcome is not None and not outcome.passed]
        data = {"passed": len(results) - len(failed), "failed": [known.id for known, _ in failed]}
        self._emit("proof.ended", **data)
        if failed:
            words = "; ".join(words_of(known, outcome) for known, outcome in failed)[:WORDS_MAX]
            return CommandResult(self._command_id, Status.FAILED, "safety.proof-failed", words, data)
        return CommandResult(self._command_id, Status.DONE, data=data)

    def _pairs(self) -> Iterator[tuple[Proof, Outcome | None]]:
        return zip(self.proofs, self._state.outcomes, strict=True)

    def words(self, t_ns: int) -> str:
        """What is missing, in words; empty if nothing is."""
        bad = [(known, outcome) for known, outcome in self._pairs() if not proof.valid(known, outcome, t_ns)]
        return "; ".join(words_of(known, outcome) for known, outcome in bad)[:WORDS_MAX]

    def rows(self, t_ns: int) -> tuple[dict[str, Any], ...]:
        """All tests with what they gave, JSON values; the same object as long as they are the same."""
        return self._stands(t_ns).rows

    def deadline_ns(self, t_ns: int) -> int | None:
        """When time alone changes something; tests that have been asked for wait for the next image, whatever an older
        one on its way has had scanned."""
        if self._begins_ns is not None:
            return self._begins_ns
        return proof.deadline_ns(self.proofs, self._longest_ns, self._state, t_ns)

    def boxes(self, value: Callable[[str], float]) -> Iterator[tuple[int, float, float]]:
        """While tests are run: image values within which nothing changes here."""
        if self.running:
            for name in WATCHED:
                now = value(name)
                if math.isfinite(now):
                    yield PLACE[name], now, now


def _row(known: Proof, outcome: Outcome | None, t_ns: int) -> dict[str, Any]:
    data = {"id": known.id} if outcome is None else _data(known, outcome)
    return {**data, "valid": proof.valid(known, outcome, t_ns)}


def _data(known: Proof, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": known.id,
        "value": outcome.value if math.isfinite(outcome.value) else None,
        "low": known.low if math.isfinite(known.low) else None,
        "high": known.high,
        "unit": known.unit,
        "pass": outcome.passed,
        "t_ns": outcome.t_ns,
    }


def words_of(known: Proof, outcome: Outcome | None) -> str:
    """A test and what it gave, for people: name, value, limits."""
    if outcome is None:
        return f"{known.title} ({known.id}): not run"
    if not outcome.passed:
        unit = "" if known.unit == "1" else f" {known.unit}"
        value = f"{outcome.value:.6g}{unit}" if math.isfinite(outcome.value) else "no value"
        return f"{known.title} ({known.id}): {value}, limit {known.limits()}"
    return f"{known.title} ({known.id}): expired"
