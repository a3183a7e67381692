"""Deliver over Channel Access: real processes, real sockets; the processes that are up, or some for this once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from control.plan.program import MachineProgram
from facility.errors import ChannelError, CommandRefused, IonctlError
from rig.control_stack import require_room
from rig.deliver import (
    EVENTS_FILE,
    FILE_KINDS,
    RECORD_FILE,
    SAMPLES_FILE,
    SPOTS_FILE,
    SUMMARY_FILE,
    DeliveryRequest,
    OnProgress,
    species_of,
)
from rig.external.watch import not_fast
from rig.facility_time import FacilityTime
from rig.home import PARTS
from rig.operator_client import ENDED, OperatorClient
from rig.part_truth import judged
from rig.parts import Earlier
from rig.remote import operator_at
from rig.remote_room import make_ready
from rig.result import DeliveryResult
from rig.run_dir import RunFile, is_alive
from rig.supervisor import RunOptions, Supervisor
from rig.trip_history import PLANT_LOG, read_events
from rig.truth_file import SpotTruth, TruthNow, gained, read_now, read_spots
from rig.truth_log import TRUTH_LOG_FILE
from rig.wall_clock import monotonic_s

MQTT_ENV = "IONCTL_MQTT"
_SLOWEST = 10.0
_GRACE_S = 120.0
_RESETS, _NEXT_IMAGES_S = 5, 0.2
_TRUTH_S = 10.0
_POLL_S = 0.05
_RECORD_S = 3.0


def deliver_ca(
    request: DeliveryRequest, program: MachineProgram, on_progress: OnProgress | None, target: str = "ca"
) -> DeliveryResult:
    """Deliver with the processes that are up; starts and stops them where none is."""
    supervisor = Supervisor(request.home, request.facility.id)
    run = supervisor.running()
    if run is not None:
        _require_same(run, request, program)
        return asyncio.run(_deliver(request, program, run, supervisor.folder, on_progress, target))
    options = RunOptions(
        request.room, species_of(program), request.first_seed, request.first_speed, os.environ.get(MQTT_ENV, "")
    )
    run = supervisor.up(request.facility, options)
    try:
        return asyncio.run(_deliver(request, program, run, supervisor.folder, on_progress, target))
    finally:
        supervisor.down()


def _require_same(run: RunFile, request: DeliveryRequest, program: MachineProgram) -> None:
    if run.config_hash != request.facility.hash:
        raise ChannelError(
            "target.config", "the running facility has another configuration", run.facility, "ionctl down"
        )
    require_room(run.room, request.room)
    if run.species != species_of(program):
        raise ChannelError(
            "target.species", f"the running facility accelerates {run.species}", run.facility,
            f"ionctl down, then ionctl up --species {species_of(program)}",
        )  # fmt: skip
    for name, wanted, found in (("seed", request.seed, run.seed), ("speed", request.speed, run.speed)):
        if wanted is not None and wanted != found:
            raise ChannelError(
                f"target.{name}", f"the running facility has {name} {found:g}, not {wanted:g}", run.facility,
                f"leave --{name} out, or: ionctl down, then ionctl up --{name} {wanted:g}",
            )  # fmt: skip


async def _deliver(
    request: DeliveryRequest,
    program: MachineProgram,
    run: RunFile,
    folder: Path,
    on_progress: OnProgress | None,
    target: str,
) -> DeliveryResult:
    started_s = monotonic_s()
    async with operator_at(request.facility, request.home, run) as client:
        await client.require_link(run.speed)
        await client.require_devices(request.facility)
        await _tidy(client)
        await make_ready(request.facility, request.home, run, client)
        await _reset(client)
        before = await truth_at(folder, 0)
        session = await _opened(client, request, program)
        earlier = Earlier(request.home.session_dir(session), 0)
        if request.going_on is not None:
            earlier = request.going_on.earlier
            earlier.keep()
        recorded = _changed(earlier.folder / RECORD_FILE)
        left = await client.prepare("" if request.going_on is None else session)
        part = earlier.parts + 1
        if left and request.going_on is not None:
            request.going_on.shown()
        if left:
            await client.start()
        async with _interruptible(client):
            longest_s = _SLOWEST * program.expected_s / run.speed + _GRACE_S
            summary = await client.ended(session, longest_s, _shower(client, on_progress))
        wall_s = monotonic_s() - started_s
        after = await truth_at(folder, int(summary["t_ended_ns"])) if is_alive(folder, "plant") else None
        came = None if before is None or after is None else gained(after, before)
        truth, truth_words = judged(request.facility, session, program, earlier, part, came)
        if summary["status"] != "interrupted":
            await client.ask("TCS", "close")
        pacing = await client.pace() if is_alive(folder, "plant") else None
        if summary["layers"]:
            await _written(earlier.folder / RECORD_FILE, recorded)
    told = FacilityTime(read_events(folder / PLANT_LOG))
    summary = {**summary, "interlocks": [_dated(one, told) for one in summary["interlocks"]]}
    if earlier.parts:
        summary = earlier.joined(summary, part)
    result = DeliveryResult(
        target, request.facility.id, request.room, run.seed, run.speed, summary, truth, wall_s,
        _files(earlier.folder), pacing, part, earlier.session_s(summary["facility_s"]), truth_words,
        not_fast(request.facility, request.room, run.species), program.notes,
    )  # fmt: skip
    result.write(earlier.folder / SUMMARY_FILE)
    return result


async def _opened(client: OperatorClient, request: DeliveryRequest, program: MachineProgram) -> str:
    """Open a new session, or one of the journal again; its id."""
    plan, going_on = str(request.plan.resolve()), request.going_on
    if going_on is None:
        return await client.load(
            plan, request.room, request.qa, program.plan_hash, request.fraction, request.continues, request.new_limits
        )
    await client.recover(
        going_on.session, plan, request.room, request.qa, going_on.reason, new_limits=going_on.new_limits
    )
    return going_on.session


def deliver_at(
    request: DeliveryRequest, program: MachineProgram, run: RunFile, on_progress: OnProgress | None
) -> DeliveryResult:
    """Deliver with the processes of this run."""
    _require_same(run, request, program)
    folder = Supervisor(request.home, request.facility.id).folder
    return asyncio.run(_deliver(request, program, run, folder, on_progress, "ca"))


def _dated(interlock: dict[str, Any], told: FacilityTime) -> dict[str, Any]:
    """With the safety controller's own time of the trip as facility time."""
    detail = interlock["detail"]
    return {**interlock, "detail": {**detail, "t_ns": told.of(int(detail["t_ns"]))} if "t_ns" in detail else detail}


async def _reset(client: OperatorClient) -> None:
    """As an operator: what only a physicist may let go of is for a physicist.  What has just been made ready, the
    search of the room, is missing until the safety controller has its next images."""
    for left in reversed(range(_RESETS)):
        try:
            await client.reset("operator")
            return
        except CommandRefused as problem:
            if problem.code != "safety.present" or not left:
                raise
            await asyncio.sleep(_NEXT_IMAGES_S)


async def _tidy(client: OperatorClient) -> None:
    """Let go of a session that an earlier console left: ended, interrupted, or not yet started when it died."""
    state = client.state
    if state not in ENDED:
        if state.name in ("STANDBY", "LOADED"):
            return
        if state.name in ("PREPARED", "READY"):
            await client.ask("TCS", "close")
            return
        raise CommandRefused("target.busy", f"control is {state.name}", "TCS", "wait for that session's end")
    if state.name == "INTERRUPTED":
        await client.ask("TCS", "stop")
        await client.until(lambda: client.state.name == "TERMINATED", client.limits.ready_s, "end of the old session")
    await client.ask("TCS", "close")


def _shower(client: OperatorClient, on_progress: OnProgress | None) -> Callable[[], None] | None:
    if on_progress is None:
        return None
    return lambda: on_progress(client.progress())


@contextlib.asynccontextmanager
async def _interruptible(client: OperatorClient) -> AsyncIterator[None]:
    """Ctrl-C and SIGTERM pause the delivery: beam off, session interrupted, record written."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()

    async def pause() -> None:
        with contextlib.suppress(IonctlError):  # it may have ended in this very moment
            await client.ask("TCS", "pause")

    def interrupt() -> None:
        if not tasks:
            tasks.add(loop.create_task(pause(), name="operator-pause"))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await asyncio.gather(*tasks)


async def truth_at(folder: Path, t_ns: int) -> SpotTruth | None:
    """The table per spot by token, once the plant has written down all of it up to `t_ns`; None if it never does."""
    deadline = monotonic_s() + _TRUTH_S
    while monotonic_s() < deadline:
        with contextlib.suppress(ChannelError):
            spots_now, spots = read_spots(folder)
            if _complete(read_now(folder), spots_now, t_ns):
                return spots
        await asyncio.sleep(_POLL_S)
    return None


def _changed(path: Path) -> int:
    """When a file was written last, as the file system counts; -1 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


async def _written(path: Path, before: int) -> None:
    """Give control a moment for a file that it writes beside everything else, and which was last written at `before`;
    it may come later, too."""
    deadline = monotonic_s() + _RECORD_S
    while monotonic_s() < deadline:
        if await asyncio.to_thread(_changed, path) != before:
            return
        await asyncio.sleep(_POLL_S)


def _complete(now: TruthNow, spots: TruthNow, ended_ns: int) -> bool:
    return now.t_ns >= ended_ns and spots.total_ions == now.total_ions


def _files(folder: Path) -> dict[str, str]:
    """Paths of what a session has left, by what they are."""
    there = {FILE_KINDS[name]: str(folder / name) for name in (SPOTS_FILE, SAMPLES_FILE, EVENTS_FILE, RECORD_FILE,
             TRUTH_LOG_FILE) if (folder / name).exists()}  # fmt: skip
    earlier = {"earlier parts": str(folder / PARTS)} if (folder / PARTS).exists() else {}
    return {**there, FILE_KINDS[SUMMARY_FILE]: str(folder / SUMMARY_FILE), **earlier}
