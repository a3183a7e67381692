"""The console at a facility that is up: an operator over Channel Access, with the console's own keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from channels.command import Signer
from channels.epics_bridge import EpicsProvider, configure_libca
from channels.keepalive import KeepAliveMaker
from facility.config import Facility
from facility.errors import ChannelError, IonctlError
from rig.clocks import NominalClock
from rig.external.watch import devices
from rig.home import Home
from rig.keys import KeyStore
from rig.link_check import LinkReading, link_readings, require_link
from rig.operator_client import OperatorClient, OperatorLimits
from rig.run_dir import RunFile
from rig.supervisor import Supervisor
from rig.wall_clock import MonotonicClock, RisingNonces, boot_identity

T = TypeVar("T")
KEEP_ALIVE_SOURCE = "operator"
_READ_S = 5.0


def running(facility: Facility, home: Home) -> RunFile:
    """The run of this very configuration that is up; ChannelError if there is none."""
    run = Supervisor(home, facility.id).running()
    if run is None:
        raise ChannelError("target.down", f"{facility.id} is not up", "", f"ionctl up --facility {facility.id}")
    if run.config_hash != facility.hash:
        raise ChannelError(
            "target.config",
            f"{facility.id} runs with another configuration",
            str(run.config_hash),
            "ionctl down, ionctl up",
        )
    return run


@contextlib.asynccontextmanager
async def operator_at(
    facility: Facility, home: Home, run: RunFile, limits: OperatorLimits | None = None
) -> AsyncIterator[OperatorClient]:
    """An operator connected to a run; keep-alives flow inside the block."""
    configure_libca(run.ca_addresses)
    clock = NominalClock(int(run.processes["plant"]["epoch_ns"]), run.speed)
    keys = KeyStore(home)
    nonces = RisingNonces()
    provider = EpicsProvider(clock)
    client = OperatorClient(
        provider,
        facility.pv_prefix,
        clock,
        Signer("operator", "operator", keys.private("operator"), nonces),
        Signer("physicist", "physicist", keys.private("physicist"), nonces),
        KeepAliveMaker(KEEP_ALIVE_SOURCE, boot_identity(), keys.private("operator"), clock),
        limits or OperatorLimits(),
    )
    try:
        async with client:
            yield client
    finally:
        await provider.close()


def check_link(facility: Facility, home: Home) -> dict[str, LinkReading]:
    """The safety link's figures at both ends; ChannelError 'link.jitter' if it does not keep time at this speed."""
    run = running(facility, home)

    async def check(provider: EpicsProvider) -> dict[str, LinkReading]:
        return await require_link(provider, facility.pv_prefix, run.speed)

    return asyncio.run(_reading(run, check))


def link_state(facility: Facility, home: Home) -> dict[str, LinkReading]:
    """The safety link's figures as they are, whatever they are."""
    run = running(facility, home)

    async def read(provider: EpicsProvider) -> dict[str, LinkReading]:
        return await link_readings(provider, facility.pv_prefix, _READ_S)

    return asyncio.run(_reading(run, read))


def device_state(facility: Facility, home: Home) -> list[dict[str, Any]]:
    """Devices in the loop as the rack sees them; empty where there are none."""
    run = running(facility, home)

    async def read(provider: EpicsProvider) -> list[dict[str, Any]]:
        return await devices(provider, facility.pv_prefix)

    return asyncio.run(_reading(run, read)) if facility.fitted else []


async def _reading(run: RunFile, work: Callable[[EpicsProvider], Awaitable[T]]) -> T:
    """Do something that only reads, with a provider of its own."""
    configure_libca(run.ca_addresses)
    provider = EpicsProvider(MonotonicClock())
    try:
        return await work(provider)
    finally:
        await provider.close()


def resolve_termination(facility: Facility, home: Home, words: str, *, resume: bool) -> Mapping[str, Any]:
    """Account for the termination at the facility that is up; the answer, with its session in `resolved`.

    A field that does not go on is closed in the journal, too (`closed`), so that nobody resumes it; where that cannot
    be, `not_closed` says why.
    """
    run = running(facility, home)

    async def resolve() -> Mapping[str, Any]:
        async with operator_at(facility, home, run) as client:
            answer = await client.resolve(words, resume)
            return answer if resume or not answer["resolved"] else {**answer, **await _closed(client, answer, words)}

    return asyncio.run(resolve())


async def _closed(client: OperatorClient, answer: Mapping[str, Any], words: str) -> dict[str, Any]:
    """Close the field's session as partial, unless it has ended already."""
    try:
        found = await client.close_partial(answer["resolved"], words)
    except IonctlError as problem:
        return {"closed": True} if problem.code == "session.ended" else {"closed": False, "not_closed": str(problem)}
    return {"closed": True, "account": found.account}
