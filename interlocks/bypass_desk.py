"""Bypasses as the safety controller keeps them: commands in, answers, events and masks out; `bypass` has the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from channels.command import Command, CommandResult, Status
from interlocks import bypass as steps
from interlocks.answers import refused
from interlocks.bypass import NS_PER_S, BypassState, Effect, Event, Kind
from interlocks.model import PolicySettings, Rule
from interlocks.snapshot import RuleView

Emit = Callable[..., None]
REASON_MAX = 300
"""Longest reason, characters."""
SECONDS_MAX = 1_000_000
"""Longest time that is looked at as one, s; `[policy]` allows far less."""
_EVENTS = {
    Kind.BEGUN: "bypass.begun",
    Kind.ENDED: "bypass.ended",
    Kind.EXPIRED: "bypass.ended",
    Kind.MODE_LEFT: "bypass.ended",
}


class BypassDesk:
    """All bypasses.

    Args:
        rules: every rule, in the order of the file.
        settings: `[policy]`.
        emit: takes kind and data of an event.
    """

    def __init__(self, rules: Sequence[Rule], settings: PolicySettings, emit: Emit) -> None:
        self.spec = steps.spec_of(rules, settings)
        self.state = BypassState()
        self._emit = emit
        self._h_ids = tuple(rule.id for rule in rules if rule.tier == "H")
        self._policy = {policy.rule: policy for policy in self.spec.policies}

    # --- commands -----------------------------------------------------------------------------------------------
    def bypass(self, command: Command, mode: str, now_ns: int) -> CommandResult:
        """Verb `bypass` {rule, reason, seconds} with `mode` in force."""
        rule, reason, seconds = (command.args.get(name) for name in ("rule", "reason", "seconds"))
        if not isinstance(rule, str):
            return refused(command, "safety.no-rule", "give the id of a rule as rule")
        if not isinstance(reason, str) or len(reason) > REASON_MAX:
            return refused(command, "bypass.reason", f"give a reason of at most {REASON_MAX} characters")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) <= SECONDS_MAX:
            return refused(command, "bypass.time", f"give seconds as a number, at most {self.spec.max_ns // NS_PER_S}")
        event = steps.Wanted(rule, command.issuer, reason, round(seconds * NS_PER_S), mode)
        effect = self._step(event, now_ns)
        if effect.kind is not Kind.BEGUN:
            return refused(command, f"bypass.{effect.kind.value}", self._why(effect, mode))
        entry = self.state.of(rule)
        return CommandResult(command.id, Status.DONE, data={"rule": rule, "until_ns": entry.until_ns if entry else 0})

    def unbypass(self, command: Command, now_ns: int) -> CommandResult:
        """Verb `unbypass` {rule}."""
        rule = str(command.args.get("rule"))
        if self._step(steps.Unwanted(rule), now_ns, command.issuer).kind is not Kind.ENDED:
            return refused(command, "bypass.none", f"{rule} is not bypassed")
        return CommandResult(command.id, Status.DONE, data={"rule": rule})

    def _why(self, effect: Effect, mode: str) -> str:
        rule, kind = effect.rule, effect.kind
        policy = self._policy.get(rule)
        words = {
            Kind.REFUSED_UNKNOWN: f"no rule {rule!r}; see: ionctl interlocks list",
            Kind.REFUSED_NEVER: f"{rule} is never bypassed",
            Kind.REFUSED_CRITICAL: f"{rule} is never bypassed in clinical mode",
            Kind.REFUSED_REASON: "give a reason",
            Kind.REFUSED_TIME: f"give more than 0 and at most {self.spec.max_ns // NS_PER_S} seconds",
            Kind.REFUSED_TWICE: f"{rule} is bypassed already; end that one first",
            Kind.REFUSED_MANY: f"{self.spec.most} rules are bypassed, no more can be at once",
        }
        wanted = "" if policy is None else policy.bypass
        now = f"the mode is {mode}" if mode else "key switch and mode do not agree"
        return words.get(kind, f"{rule} is bypassed only in mode {wanted} or after it; {now}")

    # --- time and mode ------------------------------------------------------------------------------------------
    def pass_time(self, mode: str, now_ns: int) -> bool:
        """End what has expired or is not allowed with `mode` in force; True if there was something."""
        return bool(self.state.entries) and self._moved(steps.Passed(mode), now_ns)

    def end_all(self, now_ns: int) -> None:
        """Another mode has been set."""
        self._moved(steps.ModeChanged(), now_ns)

    def deadline_ns(self) -> int | None:
        """When the next bypass ends by itself."""
        return steps.deadline_ns(self.state)

    def _moved(self, event: Event, now_ns: int) -> bool:
        before = self.state
        self._step_all(event, now_ns, "")
        return self.state != before

    def _step(self, event: Event, now_ns: int, by: str = "") -> Effect:
        """The last effect: what became of a person's wish."""
        return self._step_all(event, now_ns, by)[-1]

    def _step_all(self, event: Event, now_ns: int, by: str) -> tuple[Effect, ...]:
        before = self.state
        self.state, effects = steps.step(self.spec, before, event, now_ns)
        for effect in effects:
            kind = _EVENTS.get(effect.kind)
            entry = self.state.of(effect.rule) or before.of(effect.rule)
            if kind is not None and entry is not None:
                self._emit(kind, **_data(entry), **({"why": effect.kind.value} if kind.endswith("ended") else {}),
                           **({"ended_by": by} if by else {}))  # fmt: skip
        return effects

    # --- what follows -------------------------------------------------------------------------------------------
    @property
    def rules(self) -> frozenset[str]:
        """Ids of the rules that are bypassed."""
        return frozenset(entry.rule for entry in self.state.entries)

    @property
    def fast_mask(self) -> int:
        """The same for the fast tier, by position in the rule file."""
        return sum(1 << place for place, rule in enumerate(self._h_ids) if self.state.of(rule) is not None)

    def shown(self, view: RuleView) -> RuleView:
        """A rule's view with its bypass in it."""
        entry = self.state.of(view.rule.id)
        if entry is None:
            return view
        return replace(
            view, bypassed=True, bypass_until_ns=entry.until_ns, bypass_reason=entry.reason, bypass_by=entry.by
        )


def _data(entry: steps.Entry) -> dict[str, Any]:
    return {"id": entry.rule, "by": entry.by, "reason": entry.reason, "until_ns": entry.until_ns}
