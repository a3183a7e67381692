"""What the console reads of devices in the loop and of the plant's pace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from channels.protocol import Channel, ChannelProvider
from facility.config import Facility
from facility.errors import ChannelError, UsageError
from facility.pv_catalogue import LATENESS_STATUS, PACING_STATUS
from interlocks.explain import bound, is_fast
from interlocks.rules import load_rules

DEVICES_PV, PACING_PV, LATENESS_PV = "PLANT:External-RB", "PLANT:Pacing-RB", "PLANT:Lateness-RB"
PATIENCE_S = 10.0
"""So long a device may take to be there, event-loop s."""
CONNECT_S = 10.0


def require_target(facility: Facility, target: str, speed: float | None) -> None:
    """UsageError unless the target is the one for this facility, at a speed that it can have."""
    names = ", ".join(facility.fitted)
    if facility.fitted and target != "hil":
        raise UsageError("target.external", f"{facility.id} gives {names} to hardware, which target {target} has not",
                         "--target", "give --target hil")  # fmt: skip
    if target == "hil" and not facility.fitted:
        raise UsageError("target.external", f"{facility.id} gives no device to an external IOC", "--target",
                         "name a facility file with [external.NAME] or [lines], or give --target ca")  # fmt: skip
    if target == "hil":
        require_real_time(facility, 1.0 if speed is None else speed)


def require_real_time(facility: Facility, speed: float) -> None:
    """UsageError unless facility time runs as the time of the hardware does."""
    if facility.fitted and speed != 1.0:
        raise UsageError("run.speed", f"a speed of {speed:g}, and {', '.join(facility.fitted)} of {facility.id} is "
                         "hardware", "--speed", "leave it out: hardware knows one speed, 1")  # fmt: skip


def read_devices(value: object) -> list[dict[str, Any]]:
    """What PLANT:External-RB says."""
    try:
        found = json.loads(value.rstrip(b"\0 ") or b"[]") if isinstance(value, bytes) else []
    except ValueError:
        return []
    return found if isinstance(found, list) else []


async def devices(provider: ChannelProvider, prefix: str) -> list[dict[str, Any]]:
    """Devices in the loop as the rack sees them now."""
    name = f"{prefix}:{DEVICES_PV}"
    sample = (await provider.connect([name], CONNECT_S))[name].latest()
    return read_devices(None if sample is None else sample.value)


async def require_devices(provider: ChannelProvider, facility: Facility) -> None:
    """Wait until every device in the loop gives good readings in time; ChannelError 'external.silent' if not."""
    if not facility.fitted:
        return
    name = f"{facility.pv_prefix}:{DEVICES_PV}"
    channel = (await provider.connect([name], CONNECT_S))[name]
    changed = asyncio.Event()
    forget = channel.subscribe(lambda _channel, _sample: changed.set())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while _missing(channel, facility):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        missing = _missing(channel, facility)
        raise ChannelError(
            "external.silent", f"no good reading in time of {', '.join(missing)}", facility.id,
            "look whether its IOC runs, at which address and how often it gives a reading",
        ) from None  # fmt: skip
    finally:
        forget()


def _missing(channel: Channel, facility: Facility) -> list[str]:
    sample = channel.latest()
    good = {one.get("device") for one in read_devices(None if sample is None else sample.value) if one.get("ok")}
    return [name for name in facility.fitted if name not in good]


async def pace(provider: ChannelProvider, prefix: str) -> dict[str, Any]:
    """How the plant has kept its pace: late ticks, worst lateness, slip, and slices by lateness."""
    names = [f"{prefix}:{PACING_PV}", f"{prefix}:{LATENESS_PV}"]
    channels = await provider.connect(names, CONNECT_S)
    pacing = _packed(channels[names[0]], PACING_STATUS)
    lateness = _packed(channels[names[1]], LATENESS_STATUS)
    return {
        "late_ticks": lateness.pop("late_ticks"),
        "late_slices": pacing["late_slices"],
        "worst_late_ms": pacing["worst_late_ms"],
        "slip_ms": pacing["slip_ms"],
        "slices_by_lateness": lateness,
    }


def _packed(channel: Channel, fields: tuple[str, ...]) -> dict[str, float]:
    sample = channel.latest()
    values = [float(x) for x in sample.value] if sample is not None else []  # type: ignore[union-attr]
    if len(values) != len(fields):
        raise ChannelError("channel.value", f"{len(values)} values", channel.name, f"{len(fields)} are expected")
    return {name: value for name, value in zip(fields, values, strict=True) if name != "seq"}


def not_fast(facility: Facility, room: str, species: str) -> list[Mapping[str, Any]]:
    """Rules that read a device in the loop, with their bounds, ms."""
    rules = load_rules(facility, room, species)
    return [
        {"rule": rule.id, "bound_ms": round(bound(rule, rules, facility).total_us * 1e-3, 3)}
        for rule in rules.rules
        if not is_fast(rule, facility)
    ]
