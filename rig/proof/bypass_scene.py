"""Scene `bypass`: `interlocks.bypass.step` against people who want everything, for any time, in any mode.

One rule stands for each policy (strictest mode, critical or not).  Time goes in steps of half the longest bypass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from interlocks import bypass
from interlocks.bypass import NO_MODE, BypassSpec, BypassState, Passed, RulePolicy
from interlocks.model import MODES
from interlocks.rules import RuleSet
from rig.proof.explore import Always, Occurs, Property, Recurs, Step

TICK_NS = 1_000_000_000
MAX_TICKS = 2
MOST = 2
MAY = {
    ("never", False): (), ("never", True): (), ("qa", False): ("qa", "service"), ("qa", True): ("qa", "service"),
    ("service", False): ("service",), ("service", True): ("service",),
    ("clinical", False): ("clinical", "qa", "service"), ("clinical", True): ("qa", "service"),
}  # fmt: skip
"""Modes in which a rule may be bypassed, by policy; written down apart from the code that is proven."""


class State(NamedTuple):
    """Bypasses with their ends counted from now, and the mode in force."""

    entries: BypassState
    mode: str


class BypassScene:
    """See the module."""

    name = "bypass"
    words = "bypasses; people want any, for any time; modes and keys change at any moment"

    def __init__(self, rules: RuleSet) -> None:
        policies = {
            (rule.bypass, rule.critical): RulePolicy(rule.id, rule.bypass, rule.critical) for rule in rules.rules
        }
        self._spec = BypassSpec(tuple(policies.values()), MAX_TICKS * TICK_NS, MOST)

    def initial(self) -> Iterable[tuple[str, State]]:
        """A controller that has just started, in any mode."""
        for mode in MODES:
            yield f"start mode={mode}", State(BypassState(), mode)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Somebody wants a bypass or its end, the mode changes, time passes."""
        for policy in self._spec.policies:
            for ticks in range(MAX_TICKS + 2):
                wanted = bypass.Wanted(policy.rule, "somebody", "because", ticks * TICK_NS, state.mode)
                yield f"bypass {policy.rule} ticks={ticks}", self._step(state, wanted, 0)
            silent = bypass.Wanted(policy.rule, "somebody", " ", TICK_NS, state.mode)
            yield f"bypass {policy.rule} without a reason", self._step(state, silent, 0)
            yield f"unbypass {policy.rule}", self._step(state, bypass.Unwanted(policy.rule), 0)
        yield "time", self._step(state, Passed(state.mode), TICK_NS)
        for mode in (*MODES, NO_MODE):
            if mode != state.mode:
                yield f"mode {mode or 'none'}", self._step(state._replace(mode=mode), bypass.ModeChanged(), 0)
                yield f"key {mode or 'none'}", self._step(state._replace(mode=mode), Passed(mode), 0)

    def _step(self, state: State, event: bypass.Event, t_ns: int) -> State:
        found, _ = bypass.step(self._spec, state.entries, event, t_ns)
        entries = tuple(one._replace(since_ns=0, until_ns=one.until_ns - t_ns) for one in found.entries)
        return state._replace(entries=BypassState(tuple(sorted(entries))))

    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Always("a bypass ends within the longest time", _ends),
            Step("nothing prolongs a bypass", _not_prolonged),
            Always("a rule is bypassed only where its policy lets it be", self._allowed),
            Always("no more bypasses at once than there may be", lambda state: len(state.entries.entries) <= MOST),
            Step("a bypass begins with a person and a reason", _asked_for),
            Recurs("every bypass can be gone", lambda state: not state.entries.entries),
            Occurs(
                "a bypass begins",
                lambda before, _label, after: len(after.entries.entries) > len(before.entries.entries),
            ),
            Occurs("a bypass ends by time", _gone_by("time")),
            Occurs("a bypass ends with its mode", _gone_by("key")),
        )

    def _allowed(self, state: State) -> bool:
        policies = {policy.rule: policy for policy in self._spec.policies}
        return all(
            state.mode in MAY[policies[one.rule].bypass, policies[one.rule].critical] for one in state.entries.entries
        )

    def describe(self, state: State) -> str:
        """One line."""
        held = ", ".join(f"{one.rule} for {one.until_ns // TICK_NS}" for one in state.entries.entries)
        return f"mode={state.mode or 'none'} bypassed={held or 'none'}"


def _ends(state: State) -> bool:
    return all(0 < one.until_ns <= MAX_TICKS * TICK_NS for one in state.entries.entries)


def _not_prolonged(before: State, label: str, after: State) -> bool:
    passed = TICK_NS if label == "time" else 0
    return all(
        (was := before.entries.of(one.rule)) is None or one.until_ns == was.until_ns - passed
        for one in after.entries.entries
    )


def _asked_for(before: State, label: str, after: State) -> bool:
    new = [one.rule for one in after.entries.entries if before.entries.of(one.rule) is None]
    return not new or (label.startswith(f"bypass {new[0]} ticks=") and len(new) == 1)


def _gone_by(cause: str):  # type: ignore[no-untyped-def]
    return lambda before, label, after: (
        label.startswith(cause) and len(after.entries.entries) < len(before.entries.entries)
    )
