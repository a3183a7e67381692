"""Whether the safety link of a facility that is up keeps time: measured at both ends, beside half the watchdog."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from channels.protocol import Channel, ChannelProvider, Sample
from facility.errors import ChannelError
from facility.pv_catalogue import LINK_STATUS
from rig.paced_rules import WALL_WATCHDOG_MS

ENDS = {"rack": "PLANT:Link-RB", "safety": "SAFE:Link-RB"}
LIMIT_MS = 0.5 * WALL_WATCHDOG_MS
"""Longest gap between good frames, wall time, that a speed may have."""
PATIENCE_S = 6.0
"""A quiet second within this time is enough: processes that start make each other late."""
_CONNECT_S = 10.0


@dataclass(frozen=True)
class LinkReading:
    """The link as one end hears the other, ms of wall time."""

    gap_ms: float
    worst_ms: float
    p999_ms: float
    watchdog_ms: float
    windows: int
    bad_frames: int
    trips: int


def read_link(value: object) -> LinkReading | None:
    """What a Link-RB says; None before the first whole second."""
    try:
        numbers = dict(zip(LINK_STATUS, (float(x) for x in value), strict=True))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    if numbers["windows"] < 1:
        return None
    whole = {name: int(numbers[name]) for name in ("windows", "bad_frames", "trips")}
    return LinkReading(numbers["gap_ms"], numbers["worst_ms"], numbers["p999_ms"], numbers["watchdog_ms"], **whole)


def refusal(readings: dict[str, LinkReading], speed: float) -> ChannelError | None:
    """Why this speed is refused; None if the link keeps time at both ends."""
    silent = [end for end in ENDS if end not in readings]
    if silent:
        return ChannelError(
            "link.silent", f"no frames of the safety link are heard at {' and '.join(silent)}", "safety link",
            "ionctl down, and look at the logs: ionctl status",
        )  # fmt: skip
    worst = max(one.gap_ms for one in readings.values())
    if worst <= LIMIT_MS:
        return None
    gaps = ", ".join(f"{end} {one.gap_ms:.0f} ms" for end, one in readings.items())
    return ChannelError(
        "link.jitter",
        f"frames of the safety link come up to {worst:.0f} ms apart at speed {speed:g} ({gaps}); at most "
        f"{LIMIT_MS:.0f} ms, half the watchdog",
        "safety link",
        f"let this machine do less, or take a speed of at most {_slower(speed, worst):g}: "
        "ionctl down, ionctl up --speed",
    )


def _slower(speed: float, worst_ms: float) -> float:
    """A speed at which the gaps would be within the limit if they are the plant's own work, to two digits."""
    return float(f"{speed * LIMIT_MS / worst_ms:.1g}")


async def link_readings(
    provider: ChannelProvider, prefix: str, timeout_s: float = _CONNECT_S
) -> dict[str, LinkReading]:
    """What both ends say now; an end that has measured nothing is left out."""
    channels = await provider.connect([f"{prefix}:{name}" for name in ENDS.values()], timeout_s)
    return _readings(channels, prefix)


def _readings(channels: dict[str, Channel], prefix: str) -> dict[str, LinkReading]:
    found = {}
    for end, name in ENDS.items():
        sample = channels[f"{prefix}:{name}"].latest()
        reading = None if sample is None else read_link(sample.value)
        if reading is not None:
            found[end] = reading
    return found


async def require_link(provider: ChannelProvider, prefix: str, speed: float) -> dict[str, LinkReading]:
    """The readings of a second in which the link kept time at both ends.

    ChannelError 'link.jitter' or 'link.silent' if there is none in PATIENCE_S.
    """
    channels = await provider.connect([f"{prefix}:{name}" for name in ENDS.values()], _CONNECT_S)
    changed = asyncio.Event()

    def look(_channel: Channel, _sample: Sample) -> None:
        changed.set()

    forget = [channel.subscribe(look) for channel in channels.values()]
    problem: ChannelError | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                changed.clear()
                readings = _readings(channels, prefix)
                problem = refusal(readings, speed)
                if problem is None:
                    return readings
                await changed.wait()
    except TimeoutError:
        raise problem or ChannelError("link.silent", "nothing is heard of the safety link", prefix) from None
    finally:
        for one in forget:
            one()
