"""The console's interlock desk at a facility that is up: what the safety controller shows, and signed commands to it.

No keep-alives are sent here: another console may be vouching for a delivery, and a second source of them would look
like a restarted one and silence the first.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from channels.command import Signer
from channels.command_client import CommandClient
from channels.epics_bridge import EpicsProvider, configure_libca
from channels.protocol import Channel, Sample, Severity
from facility.config import Facility
from facility.errors import ChannelError, CommandRefused
from facility.pv_catalogue import entries
from interlocks import pvs
from interlocks.live_values import is_live
from interlocks.model import Rule
from rig.caller import Caller
from rig.clocks import NominalClock
from rig.facility_time import FacilityTime
from rig.home import Home
from rig.keys import KeyStore
from rig.remote import running
from rig.run_dir import RunFile, is_alive
from rig.trip_history import PLANT_LOG, read_events
from rig.wall_clock import RisingNonces

_CONNECT_S = 10.0
_ANSWER_S = 5.0
_OWN = ("SAFE:Permit-Sts", "SAFE:Action-Sts", "SAFE:FirstFault-RB", "SAFE:Mode-Sts", "SAFE:Latched-RB",
        "SAFE:Bypassed-RB")  # fmt: skip
_STATES = {entry.name: entry.states for entry in entries("safety")}
_OF_RULE = ("Present-Sts", "Latched-Sts", "Bypassed-Sts", "Value-RB", "Limit-RB")


@dataclass(frozen=True)
class LiveRule:
    """A rule as the safety controller shows it."""

    present: bool
    latched: bool
    value: float
    """Last value compared; where `live` is false, at the last trip; NaN where it is not told."""
    limit: float
    trip: Mapping[str, Any] = field(default_factory=dict)
    """At the trip, while latched: value, limit, t_ns."""
    bypass: Mapping[str, Any] = field(default_factory=dict)
    """While bypassed: reason, by, until_ns."""
    bypassed: bool = False
    live: bool = True
    """Value and limit are told at any time, and not at a trip alone."""
    tripped_ns: int | None = None
    """While latched: the time of the trip as the safety controller tells it; None where it is not told."""

    def state(self) -> str:
        """In a word or two, for a table."""
        words = [word for word, on in (("LATCHED", self.latched), ("PRESENT", self.present),
                                       ("BYPASSED", self.bypassed)) if on]  # fmt: skip
        return " ".join(words)

    def to_data(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "present": self.present,
            "latched": self.latched,
            "bypassed": self.bypassed,
            "value": _number(self.value),
            "limit": _number(self.limit),
            "live": self.live,
            "trip": dict(self.trip) or None,
            "bypass": dict(self.bypass) or None,
        }


@dataclass(frozen=True)
class LiveInterlocks:
    """The safety controller as it shows itself."""

    permit: bool
    action: str
    first_fault: str
    mode: str
    t_ns: int
    """Facility time at the look, as all times here."""
    rules: Mapping[str, LiveRule]

    def to_data(self) -> dict[str, Any]:
        """JSON values, without the rules."""
        return {"permit": self.permit, "action": self.action, "first_fault": self.first_fault, "mode": self.mode,
                "t_ns": self.t_ns}  # fmt: skip


def is_up(home: Home, facility: Facility) -> bool:
    """Whether the facility's safety controller runs below this home."""
    return is_alive(home.run_dir(facility.id), "safety")


def look(facility: Facility, home: Home, rules: Iterable[Rule]) -> LiveInterlocks:
    """Read everything once; ChannelError if the facility is not up or does not answer."""
    run = running(facility, home)
    return asyncio.run(_look(facility, run, tuple(rules), facility_time(facility, home)))


def facility_time(facility: Facility, home: Home) -> FacilityTime:
    """Facility time of the run that is up, or was the latest."""
    return FacilityTime(read_events(home.run_dir(facility.id) / PLANT_LOG))


async def _look(facility: Facility, run: RunFile, rules: tuple[Rule, ...], told: FacilityTime) -> LiveInterlocks:
    configure_libca(run.ca_addresses)
    clock = _clock(run)
    provider = EpicsProvider(clock)
    prefix = facility.pv_prefix
    names = [*_OWN, *(f"{pvs.base_name(rule)}:{signal}" for rule in rules for signal in _OF_RULE)]
    try:
        found = await provider.connect([f"{prefix}:{name}" for name in names], _CONNECT_S)
        samples = {name.removeprefix(f"{prefix}:"): channel.latest() for name, channel in found.items()}
    finally:
        await provider.close()
    latched = _by_id(samples["SAFE:Latched-RB"], "t_ns", told)
    bypassed = _by_id(samples["SAFE:Bypassed-RB"], "until_ns", told)
    tripped_ns = trip_times(samples["SAFE:Latched-RB"])
    return LiveInterlocks(
        _int(samples["SAFE:Permit-Sts"]) == 1,
        _state("SAFE:Action-Sts", samples["SAFE:Action-Sts"]),
        str(_value(samples["SAFE:FirstFault-RB"]) or ""),
        _state("SAFE:Mode-Sts", samples["SAFE:Mode-Sts"]),
        told.of(clock.now_ns()),
        {
            rule.id: _live(rule, samples, latched.get(rule.id, {}), bypassed.get(rule.id, {}), tripped_ns.get(rule.id))
            for rule in rules
        },
    )


def _live(
    rule: Rule, samples: Mapping[str, Sample | None], trip: Mapping[str, Any], bypass: Mapping[str, Any],
    tripped_ns: int | None,
) -> LiveRule:  # fmt: skip
    present, latched, bypassed, value, limit = (samples[f"{pvs.base_name(rule)}:{signal}"] for signal in _OF_RULE)
    kept = {key: trip.get(key) for key in ("value", "limit", "t_ns")} if trip else {}
    return LiveRule(
        _int(present) == 1,
        _int(latched) == 1,
        _float(value),
        _float(limit),
        kept,
        bypass,
        _int(bypassed) == 1,
        is_live(rule),
        tripped_ns,
    )


def ask_safety(facility: Facility, home: Home, verb: str, args: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    """A command to the safety controller, signed with the console's key of this role; the data of its result.

    Raises CommandRefused with the controller's words, ChannelError where nobody answers.
    """
    run = running(facility, home)
    return asyncio.run(_ask(facility, home, run, verb, args, role))


async def _ask(
    facility: Facility, home: Home, run: RunFile, verb: str, args: Mapping[str, Any], role: str
) -> Mapping[str, Any]:
    configure_libca(run.ca_addresses)
    clock = _clock(run)
    provider = EpicsProvider(clock)
    command, answer = f"{facility.pv_prefix}:SAFE:Cmd", f"{facility.pv_prefix}:SAFE:Cmd-Result"
    signer = Signer(role, role, KeyStore(home).private(role), RisingNonces())
    try:
        found: Mapping[str, Channel] = await provider.connect([command, answer], _CONNECT_S, monitor={answer})
        caller = Caller(CommandClient(found[command], found[answer], signer, clock))
        result = await caller.call(verb, args, _ANSWER_S)
    finally:
        await provider.close()
    return result.data


def reset_only(live: LiveInterlocks, only: Iterable[str]) -> dict[str, int | None]:
    """Arguments `latched` of a reset: the trips of these rules. CommandRefused unless they, and no others, are latched:
    nobody resets what he has not looked at."""
    wanted = set(only)
    latched = {name for name, rule in live.rules.items() if rule.latched}
    others = sorted(latched - wanted)
    if others:
        raise CommandRefused("safety.others", f"also latched: {', '.join(others)}", "reset",
                             "look at them: ionctl interlocks show ID; a reset lets go of all or of none")  # fmt: skip
    missing = sorted(wanted - latched)
    if missing:
        raise CommandRefused("safety.not-latched", f"not latched: {', '.join(missing)}", "reset")
    return {name: live.rules[name].tripped_ns for name in sorted(wanted)}


def _clock(run: RunFile) -> NominalClock:
    try:
        return NominalClock(int(run.processes["plant"]["epoch_ns"]), run.speed)
    except KeyError:
        raise ChannelError("run.not-ready", "plant reported no epoch_ns", run.facility) from None


def _value(sample: Sample | None) -> Any:
    return None if sample is None else sample.value


def _int(sample: Sample | None) -> int:
    value = _value(sample)
    return -1 if value is None else int(value)


def _float(sample: Sample | None) -> float:
    if sample is None or sample.severity == Severity.INVALID or not isinstance(sample.value, int | float):
        return math.nan
    return float(sample.value)


def _state(name: str, sample: Sample | None) -> str:
    states, index = _STATES[name], _int(sample)
    return states[index] if 0 <= index < len(states) else ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_id(sample: Sample | None, key: str, told: FacilityTime) -> dict[str, dict[str, Any]]:
    """Rows by their rule, with the time of `key` as facility time."""
    return {str(row.get("id")): row | {key: told.of(int(row.get(key) or 0))} for row in _rows(sample)}


def trip_times(sample: Sample | None) -> dict[str, int]:
    """When each rule tripped, as the safety controller tells it, which a reset has to repeat."""
    return {str(row["id"]): row["t_ns"] for row in _rows(sample) if "id" in row and isinstance(row.get("t_ns"), int)}


def _rows(sample: Sample | None) -> list[dict[str, Any]]:
    """The rows of a PV that holds a JSON list; none where it is not (yet) one."""
    raw = _value(sample)
    try:
        data = json.loads(raw.rstrip(b"\0 ") or b"[]") if isinstance(raw, bytes) else []
    except ValueError:
        return []
    return [row for row in data if isinstance(row, dict)]
