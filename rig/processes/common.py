"""What the three processes share: arguments, configuration by hash, the ready line, an orderly end.

A process says exactly one line on stdout, `READY {json}` or `FAILED {json}`; everything else is log, on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from facility.config import Facility
from facility.config.loader import facility_from_json
from facility.errors import ConfigError, ExitCode, InternalError, IonctlError
from rig.children import FAILED_PREFIX, READY_PREFIX
from rig.hang_watch import HangWatch
from rig.logs import bind, configure_logs
from rig.priority import hurry
from rig.run_dir import CONFIG_FILE, Lock

if TYPE_CHECKING:
    from channels.caproto_server import CaServer

SWITCH_INTERVAL_S = 0.0005
"""How long a Python thread keeps the interpreter from another: pacing and link must not wait 5 ms for the server."""
HANG_S = 20
"""A process whose event loop has not turned for so long ends: it has lost its links long before, and looks alive. Time
in which it was stopped, and could not turn, does not count."""
_TURN_S = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Launch:
    """What every process is started with."""

    name: str
    folder: Path
    facility: Facility
    room: str
    species: str
    seed: int
    speed: float
    options: argparse.Namespace


Main = Callable[[Launch], Coroutine[Any, Any, None]]
AddArguments = Callable[[argparse.ArgumentParser], None]


def run_process(
    name: str, add_arguments: AddArguments, main: Main, arguments: Sequence[str] | None = None, *, first: bool = False
) -> int:
    """Run one process to its end and return the exit code; `first`: it is scheduled before others, once it runs."""
    options = _parse(name, add_arguments, arguments)
    configure_logs(json_lines=options.log_json, level="info")
    bind(process=name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the memory of a process that aborts holds a private key
    faulthandler.enable()  # a crash, or the end of a process that hangs, says in its log where the threads stood
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        lock = Lock(options.run_dir, name)
        launch = Launch(
            name,
            options.run_dir,
            _facility(options),
            options.room,
            options.species,
            options.seed,
            options.speed,
            options,
        )
        bind(facility=launch.facility.id)
        if first:
            hurry()
        try:
            asyncio.run(main(launch))
            lock.note_end()
        finally:
            lock.release()
    except IonctlError as problem:
        _say(FAILED_PREFIX, problem.to_dict())
        _log.error("failed", problem=str(problem))
        return int(problem.exit_code)
    except Exception as problem:  # noqa: BLE001 - the supervisor must be told whatever ended the process
        error = InternalError("process.defect", f"{type(problem).__name__}: {problem}", name, "see its log")
        _say(FAILED_PREFIX, error.to_dict())
        traceback.print_exc()
        return int(ExitCode.INTERNAL)
    _log.info("ended")
    return int(ExitCode.OK)


def _parse(name: str, add_arguments: AddArguments, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"rig.processes.{name}")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--config-hash", required=True)
    parser.add_argument("--room", required=True)
    parser.add_argument("--species", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--log-json", action="store_true")
    add_arguments(parser)
    return parser.parse_args(arguments)


def _facility(options: argparse.Namespace) -> Facility:
    path: Path = options.run_dir / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ConfigError("run.no-config", f"cannot read the configuration: {problem}", str(path)) from problem
    facility = facility_from_json(text, str(path))
    if facility.hash != options.config_hash:
        raise ConfigError(
            "run.config-hash",
            f"the configuration has hash {facility.hash}",
            str(path),
            f"expected {options.config_hash}",
        )
    return facility


def say_ready(launch: Launch, **data: Any) -> None:
    """Say READY with process id, configuration hash and `data`; stdout is log from here on."""
    _say(READY_PREFIX, {"pid": os.getpid(), "config_hash": launch.facility.hash, **data})
    _log.info("ready", **data)


def _say(prefix: str, data: dict[str, Any]) -> None:
    try:
        os.write(1, (prefix + json.dumps(data, sort_keys=True) + "\n").encode())
        os.dup2(2, 1)
    except OSError:
        return  # nobody listens any more


@contextlib.asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def until_one_ends(stop: asyncio.Event, server: CaServer, work: asyncio.Task[Any]) -> None:
    """Wait for `stop`; or for the end of `work` or of the server, whose process must not look alive without them.

    What ended them is not raised here: take the beam away first, then ask `server.check` and `work`. A loop that hangs
    meanwhile ends the process.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    watch = HangWatch(HANG_S)
    turning = asyncio.create_task(_turn_for_ever(watch), name="turn")
    try:
        await asyncio.wait({stopping, server.task, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        turning.cancel()
        watch.end()


async def _turn_for_ever(watch: HangWatch) -> None:
    """Tell the watch, as often as the loop turns, that it does: who watches ends a process that hangs."""
    while True:
        if not watch.turned():
            _log.error("nobody watches any more whether this process hangs")
            return
        await asyncio.sleep(_TURN_S)
