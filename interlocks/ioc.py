"""The safety IOC: the PVs of the safety controller, from the catalogue and from the rules.  Thin: it maps names.

Commands are judged by a `CommandVerifier` before the controller sees them, and by the controller again.  Values are
published when they change, at most ten times a second; permit, action and first fault among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from caproto import ChannelData, SkipWrite

from channels.command import RESULT_MAX, CommandResult
from channels.command_server import CommandVerifier, Refusal, Repeated
from channels.protocol import Severity, Value
from channels.publish import publish
from channels.pv_groups import CataloguedGroup, declared, group_of
from facility.events import canonical_json
from facility.states import Action
from facility.timebase import Clock
from interlocks import pvs
from interlocks.controller import SafetyController
from interlocks.snapshot import RuleView, SafetySnapshot

PUBLISH_NS = 100_000_000
"""Shortest time between two updates."""
HEARTBEAT_NS = 250_000_000
"""Time between two changes of SAFE:Heartbeat-RB, where nothing else is said."""
VALUES_NS = 1_000_000_000
"""Values and limits of a rule are shown when it changes its mind, and as often as this."""
_HEARTBEAT_MAX = 2**31


def _bytes(value: Any) -> bytes:
    return bytes(bytearray(value))


async def _put_command(group: Any, _channel: Any, value: Any) -> Any:
    """The command is consumed: nobody can read a signed reset from the PV."""
    group.ioc.on_command(_bytes(value))
    raise SkipWrite


async def _put_keep_alive(group: Any, _channel: Any, value: Any) -> Any:
    group.ioc.on_keep_alive(_bytes(value))
    return value


async def _put_lines(group: Any, _channel: Any, value: Any) -> Any:
    group.ioc.on_lines(_bytes(value))
    return value


class SafetyGroup(CataloguedGroup):
    """PVs of the safety controller that the catalogue declares."""

    permit = declared("SAFE:Permit-Sts")
    action = declared("SAFE:Action-Sts")
    first_fault = declared("SAFE:FirstFault-RB")
    latched = declared("SAFE:Latched-RB")
    bypassed = declared("SAFE:Bypassed-RB")
    mode = declared("SAFE:Mode-Sts")
    key = declared("SAFE:Key-Sts")
    field = declared("SAFE:Field-RB")
    field_state = declared("SAFE:Field-Sts")
    pauses = declared("SAFE:Pauses-RB")
    proof = declared("SAFE:Proof-Sts")
    proofs = declared("SAFE:Proof-RB")
    heartbeat = declared("SAFE:Heartbeat-RB")
    link = declared("SAFE:Link-RB")
    keep_alive = declared("SAFE:KeepAlive", _put_keep_alive)
    lines = declared("SAFE:TcsKeepAlive", _put_lines)
    command = declared("SAFE:Cmd", _put_command)
    result = declared("SAFE:Cmd-Result")

    ioc: SafetyIoc


class SafetyIoc:
    """PVs of a safety controller in a pvdb, and how they are kept up to date.

    Args:
        prefix: the facility's PV prefix.
        controller: whose state is shown and who gets keep-alives and commands.
        verifier: judges commands; make it with `interlocks.verbs.VERBS`.
        clock: facility time.
        heartbeat_ns: time between two changes of SAFE:Heartbeat-RB.
        values_ns: time between two looks at values and limits of rules that have not changed their minds.
    """

    def __init__(
        self, prefix: str, controller: SafetyController, verifier: CommandVerifier, clock: Clock,
        heartbeat_ns: int = HEARTBEAT_NS, values_ns: int = VALUES_NS,
    ) -> None:  # fmt: skip
        self.controller = controller
        self._verifier = verifier
        self._heartbeat_ns = heartbeat_ns
        self._values_period_ns = values_ns
        self._clock = clock
        self._group = SafetyGroup(prefix, clock)
        self._group.ioc = self
        rules = controller.rules.rules
        self._rule_group = group_of(pvs.entries(rules), "SafetyRuleGroup", prefix, clock)
        self.pvdb: dict[str, ChannelData] = {**self._group.pvdb, **self._rule_group.pvdb}
        self._channels = {name.removeprefix(f"{prefix}:"): channel for name, channel in self.pvdb.items()}
        self._shown: dict[str, tuple[Value, int]] = {}
        self._revision = -1
        self._published_ns: int | None = None
        self._first_shown = ""
        self._proofs_shown: tuple[Mapping[str, Any], ...] | None = None
        self._beat_ns: int | None = None
        self._beats = 0
        self._values_ns: int | None = None
        self._told: dict[str, RuleView] = {}
        """Rules as they were shown last."""
        self._linked: tuple[float, ...] = (0.0,)

    # --- from clients ------------------------------------------------------------------------------------------
    def on_keep_alive(self, frame: bytes) -> None:
        """Bytes written to SAFE:KeepAlive."""
        self.controller.keep_alive(frame.rstrip(b"\0"), self._clock.now_ns())

    def on_lines(self, frame: bytes) -> bool:
        """Bytes written to SAFE:TcsKeepAlive; True if they change what the rules see."""
        return self.controller.lines(frame.rstrip(b"\0"), self._clock.now_ns())

    def on_command(self, frame: bytes) -> None:
        """Bytes written to SAFE:Cmd; the answer goes to SAFE:Cmd-Result."""
        verdict = self._verifier.verify(frame)
        if isinstance(verdict, Refusal):
            self._answer(verdict.result())
        elif isinstance(verdict, Repeated):
            self._answer(verdict.result)
        else:
            result = self.controller.command(verdict.command, self._clock.now_ns())
            self._verifier.record(result)
            self._answer(result)

    def _answer(self, result: CommandResult) -> None:
        self._put("SAFE:Cmd-Result", result.encode(), Severity.NO_ALARM)

    def show_link(self, values: tuple[float, ...]) -> None:
        """What SAFE:Link-RB says: LINK_STATUS without seq; for owners that measure the link."""
        if self._linked[1:] != values:
            self._linked = (self._linked[0] + 1.0, *values)
            self._put("SAFE:Link-RB", np.array(self._linked), Severity.NO_ALARM)

    # --- to clients --------------------------------------------------------------------------------------------
    def refresh(self) -> int:
        """Publish what has changed, unless that was done less than PUBLISH_NS ago; when to call again, ns.

        Another first fault is published at once: who records a trip reads it a few ms later.
        """
        now_ns = self._clock.now_ns()
        for result in self.controller.take_results():
            self._verifier.record(result)
            self._answer(result)
        waits = self._published_ns is not None and now_ns - self._published_ns < PUBLISH_NS
        if waits and self.controller.first_fault == self._first_shown:  # which is put right within a frame or two
            return (self._published_ns or 0) + PUBLISH_NS
        values: dict[str, tuple[Value, int]] = {}
        if self.controller.revision != self._revision:
            self._revision = self.controller.revision
            snapshot = self.controller.snapshot(live=self._values_due(now_ns))
            self._first_shown = snapshot.first_fault
            values = {name: (value, severity) for name, value, severity in self._values(snapshot, now_ns)}
        values["SAFE:Heartbeat-RB"] = (self._heartbeat(now_ns), int(Severity.NO_ALARM))
        changed = [name for name, shown in values.items() if self._shown.get(name) != shown]
        for name in changed:
            self._shown[name] = values[name]
            self._put(name, *values[name])
        if changed:
            self._published_ns = now_ns
        return (self._beat_ns or 0) + self._heartbeat_ns

    def _heartbeat(self, now_ns: int) -> int:
        if self._beat_ns is None or now_ns - self._beat_ns >= self._heartbeat_ns:
            self._beat_ns = now_ns
            self._beats = (self._beats + 1) % _HEARTBEAT_MAX
        return self._beats

    def _values(self, snapshot: SafetySnapshot, now_ns: int) -> Iterator[tuple[str, Value, int]]:
        major = int(Severity.MAJOR)
        yield "SAFE:Permit-Sts", int(snapshot.permit), 0
        yield "SAFE:Action-Sts", int(snapshot.action), _severity_of(snapshot.action)
        yield "SAFE:FirstFault-RB", snapshot.first_fault, major if snapshot.first_fault else 0
        yield "SAFE:Latched-RB", latched_json(snapshot), 0
        yield "SAFE:Bypassed-RB", bypassed_json(snapshot), int(Severity.MINOR) if snapshot.bypassed else 0
        yield "SAFE:Mode-Sts", list(type(snapshot.mode)).index(snapshot.mode), 0
        yield "SAFE:Key-Sts", int(snapshot.key_agrees), 0 if snapshot.key_agrees else major
        yield "SAFE:Field-RB", snapshot.session, 0
        yield "SAFE:Field-Sts", 2 if snapshot.unresolved else int(snapshot.begun), major if snapshot.unresolved else 0
        yield "SAFE:Pauses-RB", snapshot.pauses, 0
        valid = all(row["valid"] for row in snapshot.proofs)
        yield "SAFE:Proof-Sts", 1 if snapshot.proofs_running else 2 if valid else 0, 0
        if snapshot.proofs is not self._proofs_shown:
            self._proofs_shown = snapshot.proofs
            yield "SAFE:Proof-RB", canonical_json(list(snapshot.proofs)), 0
        due = self._values_due(now_ns)
        if due:
            self._values_ns = now_ns
        for view in snapshot.rules:
            told = self._told.get(view.rule.id)
            if view is told:
                continue
            moved = (
                told is None
                or told.present != view.present
                or told.latched != view.latched
                or told.bypassed != view.bypassed
            )
            if moved:
                yield from _rule_states(view)
            if moved or (due and told is not None and (told.value, told.limit) != (view.value, view.limit)):
                yield from _rule_values(view)
                self._told[view.rule.id] = view

    def _values_due(self, now_ns: int) -> bool:
        return self._values_ns is None or now_ns - self._values_ns >= self._values_period_ns

    def _put(self, name: str, value: Value, severity: int) -> None:
        if isinstance(value, bytes):
            value = np.frombuffer(value, dtype=np.uint8)
        publish(self._channels[name], value, self._clock.now_ns(), severity)


def _severity_of(action: Action) -> int:
    if action >= Action.PAUSE:
        return int(Severity.MAJOR)
    return int(Severity.MINOR) if action > Action.NONE else int(Severity.NO_ALARM)


def _rule_states(view: RuleView) -> Iterator[tuple[str, Value, int]]:
    base = pvs.base_name(view.rule)
    severity = _severity_of(view.rule.strength)
    yield f"{base}:Present-Sts", int(view.present), severity if view.present else 0
    yield f"{base}:Latched-Sts", int(view.latched), severity if view.latched else 0
    yield f"{base}:Bypassed-Sts", int(view.bypassed), int(Severity.MINOR) if view.bypassed else 0


def _rule_values(view: RuleView) -> Iterator[tuple[str, Value, int]]:
    """The value has the severity of the rule while it is beyond its limit, whatever became of the latch."""
    base = pvs.base_name(view.rule)
    beyond = _severity_of(view.rule.strength) if view.present else int(Severity.NO_ALARM)
    for name, value in (("Value", view.value), ("Limit", view.limit)):
        known = math.isfinite(value)
        severity = beyond if name == "Value" else int(Severity.NO_ALARM)
        yield f"{base}:{name}-RB", value if known else 0.0, severity if known else int(Severity.INVALID)


def latched_json(snapshot: SafetySnapshot) -> bytes:
    """Latched rules as canonical JSON, the first fault first; as many as fit into the PV."""
    return _fitting([view.to_data() for view in snapshot.latched])


def bypassed_json(snapshot: SafetySnapshot) -> bytes:
    """Bypasses as canonical JSON; as many as fit into the PV."""
    return _fitting([
        {"id": view.rule.id, "reason": view.bypass_reason, "by": view.bypass_by, "until_ns": view.bypass_until_ns}
        for view in snapshot.bypassed
    ])  # fmt: skip


def _fitting(rows: list[dict[str, Any]]) -> bytes:
    while len(data := canonical_json(rows)) > RESULT_MAX:
        rows.pop()
    return data
