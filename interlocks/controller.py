"""The safety controller (tier P): scans the process image, remembers what tripped, holds the permit.

Synchronous and without I/O: whoever owns it brings images, keep-alives and verified commands, and carries the permit.
The permit begins away.  It comes by a person's reset when the link is good, the operator's console lives and no rule
stands against it; it comes again after every PAUSE and ABORT only the same way.  Fast rules latch in the rack; what is
latched there is mirrored here and let go through `reset_mask` and `reset_seq`.

`next_deadline_ns` and `thresholds` say how long scans may be left out: until that instant, and while the image stays
within those values, a scan would change nothing.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import chain

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from channels import keepalive
from channels.command import Command, CommandResult, Status
from channels.keepalive import Beat, KeepAliveState
from facility.errors import ConfigError
from facility.states import Action
from interlocks import latch, permit, process_image
from interlocks.evaluator import code_limits
from interlocks.fast_mirror import FastMirror
from interlocks.latch import RANK
from interlocks.link import PermitCommand
from interlocks.model import CONSOLE_INPUT
from interlocks.process_image import NO_FAULT, FastFault
from interlocks.rules import RuleSet
from interlocks.scanner import Scanner
from interlocks.snapshot import Mode, RuleView, SafetyEvent, SafetySnapshot

NS_PER_MS = 1_000_000
MAX_EVENTS = 10_000
"""Events kept for whoever takes them; older ones are lost."""
VERBS: dict[str, frozenset[str]] = {
    "reset": frozenset({"operator", "physicist"}),
    "set_mode": frozenset({"physicist"}),
}
"""Roles that may use each verb; control has none."""


class Console:
    """Who must show signs of life, and with what key."""

    def __init__(self, source: str, key: Ed25519PublicKey) -> None:
        self.source = source
        self.key = key


class SafetyController:
    """Tier P.

    Args:
        rules: rules of facility, room and species.
        mode: operating mode.
        console: the operator's console.
        now_ns: facility time of the start.
    """

    def __init__(self, rules: RuleSet, mode: Mode, console: Console, now_ns: int) -> None:
        self.rules = rules
        self.mode = mode
        self._scanner = Scanner(rules.p)
        self._fast = FastMirror(rules.h)
        self._permit = permit.PermitState()
        self._max_age_ms = rules.link.watchdog_ms
        self._console = KeepAliveState(console.source, console.key, _silence_ns(rules), now_ns)
        self._console_alive = False
        self._link_ok = False
        self._first = ""
        self.revision = 0
        """Rises whenever something may have changed that a snapshot shows."""
        self._now_ns = now_ns
        self._due = True
        self._waiting_command = ""
        self._events: deque[SafetyEvent] = deque(maxlen=MAX_EVENTS)
        self._results: deque[CommandResult] = deque(maxlen=MAX_EVENTS)

    # --- scan --------------------------------------------------------------------------------------------------
    def scan(
        self,
        image: NDArray[np.int32] | None,
        image_t_ns: int,
        now_ns: int,
        link_ok: bool,
        fault: FastFault = NO_FAULT,
    ) -> PermitCommand:
        """Judge all rules on an image (codes, `interlocks.process_image`) and say what the rack must do.

        Without a link, or with an image older than the watchdog, the link rules trip and the others keep what they last
        saw; before the first image everything is unknown, and unknown is a trip.
        """
        self.revision += 1
        self._now_ns = now_ns
        fresh = link_ok and image is not None and self._is_fresh(image_t_ns, now_ns)
        self._link_ok = fresh
        if fresh and image is not None:
            self._scanner.take(process_image.decode(image), image_t_ns)
            self._note_fast(image, fault)
        self._judge(now_ns)
        self._step_permit(now_ns)
        self._due = False
        return self.command_to_rack()

    def _is_fresh(self, image_t_ns: int, now_ns: int) -> bool:
        age_ms = (now_ns - image_t_ns) / NS_PER_MS
        return -self._max_age_ms <= age_ms <= self._max_age_ms

    def _note_fast(self, image: NDArray[np.int32], fault: FastFault) -> None:
        for rule_id in self._fast.take(image, fault, self._now_ns):
            view = self._fast.view(rule_id)
            self._trip(view)

    def _judge(self, now_ns: int) -> None:
        own = (1.0 if self._link_ok else 0.0, self._console_age_ms(now_ns))
        for rule_id, effect in self._scanner.judge(own, self._link_ok, now_ns):
            if effect is latch.Effect.TRIPPED:
                self._trip(self._scanner.view(rule_id))

    def _console_age_ms(self, now_ns: int) -> float:
        if not self._console_alive:
            return math.inf
        return (now_ns - self._console.since_ns) / NS_PER_MS

    def _trip(self, view: RuleView) -> None:
        self._first = self._first or view.rule.id
        self._emit("interlock.trip", **view.to_data(), words=view.words(), mode=self.mode.value)

    def _step_permit(self, now_ns: int) -> None:
        seen = permit.Observed(
            self._scanner.action, self._scanner.inhibited, self._fast.latched_mask, self._fast.latched_action
        )
        self._permit, effects = permit.step(self._permit, seen, now_ns)
        self._apply(effects)

    def _apply(self, effects: tuple[permit.Effect, ...]) -> None:
        for effect in effects:
            if effect is permit.Effect.RELEASED:
                self._first = ""
                self._emit("permit.released", mode=self.mode.value)
                self._answer_waiting(Status.DONE, "", "the permit is given")
            elif effect is permit.Effect.DROPPED:
                self._emit("permit.dropped", first=self._first, action=self._permit.action.name)
            elif effect is permit.Effect.RESET_INCOMPLETE:
                self._emit("reset.incomplete", latched=list(self._latched_ids()))
                self._answer_waiting(
                    Status.FAILED, "safety.reset-incomplete", "the fast tier did not let go, or tripped"
                )

    def command_to_rack(self) -> PermitCommand:
        """What the rack is told as things stand."""
        lines = permit.lines(self._permit)
        return PermitCommand(lines.permit, lines.hold, self._permit.reset_mask, self._permit.reset_seq)

    # --- keep-alives and commands -------------------------------------------------------------------------------
    def keep_alive(self, frame: bytes, now_ns: int) -> bool:
        """A keep-alive frame of the console has come; True if it was a sign of life."""
        self._console, outcome = keepalive.check(self._console, frame, now_ns)
        if not isinstance(outcome, Beat):
            return False
        self._console_alive = True
        self._due = self._due or self._scanner.is_present_on(CONSOLE_INPUT)
        return True

    def command(self, command: Command, now_ns: int) -> CommandResult:
        """Carry out a verified command; control has no role that may."""
        allowed = VERBS.get(command.verb)
        if allowed is None:
            return _refused(command, "safety.verb", f"no verb {command.verb!r}; there are {', '.join(sorted(VERBS))}")
        if command.role not in allowed:
            return _refused(
                command, "safety.role", f"{command.verb} is for {', '.join(sorted(allowed))}, not {command.role}"
            )
        self.revision += 1
        self._now_ns = now_ns
        if command.verb == "set_mode":
            return self._set_mode(command)
        return self._reset(command)

    def _set_mode(self, command: Command) -> CommandResult:
        wanted = command.args.get("mode")
        known = {mode.value: mode for mode in Mode}
        if wanted not in known:
            return _refused(command, "safety.mode", f"no mode {wanted!r}; there are {', '.join(known)}")
        if self._permit.released:
            return _refused(command, "safety.permit", "the mode changes only without a permit")
        self.mode = known[str(wanted)]
        self._emit("mode", mode=self.mode.value, by=command.issuer)
        return CommandResult(command.id, Status.DONE, data={"mode": self.mode.value})

    def _reset(self, command: Command) -> CommandResult:
        """Let go of all latches at once, and release the permit; or say which rule stands against it and why.

        A person's signed reset is a sign of life of the console, and admits one that has restarted.
        """
        self._console = keepalive.admit(self._console, self._now_ns)
        self._console_alive = True
        self._judge(self._now_ns)
        refusal = self._objection(command)
        self._step_permit(self._now_ns)
        if refusal is not None:
            return refusal
        cleared = self._latched_ids()
        self._scanner.reset(command.role, self._now_ns)
        self._step_permit(self._now_ns)
        self._permit, effects = permit.step(self._permit, permit.Granted(self._fast.latched_mask), self._now_ns)
        for rule_id in cleared:
            self._emit("interlock.cleared", id=rule_id, by=command.issuer, role=command.role)
        self._apply(effects)
        self._due = True
        data = {"cleared": list(cleared), "latched": [], "permit": self._permit.released}
        if permit.Effect.RESET_FAST in effects:
            self._waiting_command = command.id
            return CommandResult(command.id, Status.ACCEPTED, words="waits for the fast tier", data=data)
        return CommandResult(command.id, Status.DONE, data=data)

    def _objection(self, command: Command) -> CommandResult | None:
        views = self._views()
        standing = [view for view in views if view.present and self._blocks(view)]
        if standing:
            words = "; ".join(view.words() if view.latched else f"{view.rule.title}: present" for view in standing[:5])
            return _refused(command, "safety.present", words, standing)
        beyond = [view for view in views if view.latched and RANK[view.rule.reset] > RANK[command.role]]
        if beyond:
            words = f"{', '.join(view.rule.id for view in beyond)}: a physicist must reset it"
            return _refused(command, "safety.role", words, beyond)
        return None

    @staticmethod
    def _blocks(view: RuleView) -> bool:
        """Present rules that stand against a permit: not a gate, and not the rack's echo of this very permit."""
        if view.rule.strength == Action.INHIBIT:
            return True
        return view.rule.latches

    def _answer_waiting(self, status: Status, code: str, words: str) -> None:
        command_id, self._waiting_command = self._waiting_command, ""
        if command_id:
            data = {"latched": list(self._latched_ids()), "permit": self._permit.released}
            self._results.append(CommandResult(command_id, status, code, words, data))

    # --- leaving scans out --------------------------------------------------------------------------------------
    def next_deadline_ns(self, now_ns: int, *, beats_watched: bool = False) -> int | None:
        """When time alone can change the outcome; `now_ns` if a scan is due already, None if never.

        `beats_watched`: the heartbeats live, and somebody watches them who brings an image as soon as one does not.
        The link's own watchdog is with the link's end: its owner scans with `link_ok` False when it runs out.
        """
        if self._due:
            return now_ns
        times = list(self._scanner.deadlines(now_ns, beats=not beats_watched))
        if self._permit.waits_until_ns is not None:
            times.append(self._permit.waits_until_ns)
        if self._console_alive and not self._scanner.is_present_on(CONSOLE_INPUT):
            times.append(self._console.since_ns + self._console.max_age_ns + 1)
        return max(now_ns, min(times)) if times else None

    def thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest value of each image signal, in units of its resolution, within which no rule changes its
        mind: the arguments of `Plant.watch_image`."""
        return code_limits(chain(self._scanner.boxes(), self._fast.boxes()))

    # --- what there is to see -----------------------------------------------------------------------------------
    def snapshot(self) -> SafetySnapshot:
        """Everything as it stands."""
        lines = permit.lines(self._permit)
        views = self._views()
        in_force = (view.rule.strength for view in views if view.latched or (view.present and not self._is_echo(view)))
        return SafetySnapshot(
            self._now_ns,
            lines.permit,
            lines.hold,
            self._permit.released,
            max(in_force, default=Action.NONE),
            self._first,
            self.mode,
            self._link_ok,
            views,
        )

    @staticmethod
    def _is_echo(view: RuleView) -> bool:
        """The rack's answer to the lines from here, not a finding of its own."""
        return view.rule.tier == "H" and view.rule.inputs[0].startswith("p.")

    def take_events(self) -> list[SafetyEvent]:
        """Events since the last call, in order."""
        events = list(self._events)
        self._events.clear()
        return events

    def take_results(self) -> list[CommandResult]:
        """Final results of commands that were only accepted before."""
        results = list(self._results)
        self._results.clear()
        return results

    def _views(self) -> tuple[RuleView, ...]:
        return tuple(
            self._fast.view(rule.id) if rule.tier == "H" else self._scanner.view(rule.id) for rule in self.rules.rules
        )

    def _latched_ids(self) -> tuple[str, ...]:
        return tuple(view.rule.id for view in self._views() if view.latched)

    def _emit(self, kind: str, **data: object) -> None:
        self._events.append(SafetyEvent(self._now_ns, kind, data))


def _refused(command: Command, code: str, words: str, views: list[RuleView] | None = None) -> CommandResult:
    data = {"latched": [view.rule.id for view in views]} if views else {}
    return CommandResult(command.id, Status.REFUSED, code, words[:1000], data)


def _silence_ns(rules: RuleSet) -> int:
    """Longest silence of the console, from the rule that watches it."""
    for rule in rules.p:
        if CONSOLE_INPUT in rule.inputs and rule.high is not None:
            return round(rule.high * NS_PER_MS)
    raise ConfigError("interlocks.no-console", f"no rule of tier P watches {CONSOLE_INPUT}", "interlocks.toml")
