"""Child processes of the supervisor: start, wait for the ready line, stop. Every wait is finite."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facility.errors import (
    ChannelError,
    CommandRefused,
    ConfigError,
    ExitCode,
    InternalError,
    IonctlError,
    JournalError,
    PlanError,
    UsageError,
)
from rig.run_dir import has_noted_end, is_alive
from rig.wall_clock import monotonic_s, sleep_s

READY_PREFIX = "READY "
FAILED_PREFIX = "FAILED "
START_TIMEOUT_S = 120.0
"""The first start on a machine compiles the kernel."""
STOP_TIMEOUT_S = 10.0
ABORT_TIMEOUT_S = 2.0
KILL_TIMEOUT_S = 5.0
GONE = "was gone"
"""What became of a process that ended before it was stopped."""
_POLL_S = 0.02
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_ERRORS = {
    int(kind.exit_code): kind
    for kind in (UsageError, ConfigError, PlanError, ChannelError, CommandRefused, JournalError, InternalError)
}


def start(name: str, arguments: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m rig.processes.<name>`, detached from the terminal; what it logs goes to `log`."""
    env = dict(os.environ)
    paths = [str(_PACKAGE_ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", f"rig.processes.{name}", *arguments]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            start_new_session=True,
            cwd=folder,
            env=env,
        )


def tell_line(child: subprocess.Popen[bytes], line: str, *, last: bool = True) -> None:
    """Say one line to the child on its stdin, which is closed after the last one."""
    if child.stdin is None:
        raise InternalError("child.no-pipe", "the child was started without a pipe")
    try:
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()
        if last:
            child.stdin.close()
    except OSError as problem:
        raise ChannelError("child.deaf", f"it does not listen: {problem}", line) from problem


def wait_line(child: subprocess.Popen[bytes], word: str, timeout_s: float) -> None:
    """Wait until the child has said a line with this word; ChannelError 'child.slow' or 'child.died'."""
    if child.stdout is None:
        raise InternalError("child.no-pipe", "the child was started without a pipe")
    deadline = monotonic_s() + timeout_s
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while word.encode() + b"\n" not in text:
            left_s = deadline - monotonic_s()
            if left_s <= 0.0 or not selector.select(left_s):
                raise ChannelError("child.slow", f"not {word} after {timeout_s:g} s", str(child.args))
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                raise ChannelError("child.died", f"ended before it was {word}", str(child.args))
            text += chunk


def wait_ready(child: subprocess.Popen[bytes], name: str, log: Path, timeout_s: float) -> dict[str, Any]:
    """What the child says when it is ready; the error it failed with, otherwise."""
    if child.stdout is None:
        raise InternalError("child.no-pipe", f"{name} was started without a pipe")
    deadline = monotonic_s() + timeout_s
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while b"\n" not in text:
            left_s = deadline - monotonic_s()
            if left_s <= 0.0 or not selector.select(left_s):
                raise ChannelError("child.slow", f"{name} was not ready after {timeout_s:g} s", str(log))
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                raise _died(child, name, log)
            text += chunk
    return _parse(text.split(b"\n", 1)[0].decode("utf-8", "replace"), name, log)


def _parse(line: str, name: str, log: Path) -> dict[str, Any]:
    if line.startswith(FAILED_PREFIX):
        raise error_from_dict(json.loads(line.removeprefix(FAILED_PREFIX)))
    if not line.startswith(READY_PREFIX):
        raise ChannelError("child.babble", f"{name} said {line[:80]!r} instead of READY", str(log))
    ready = json.loads(line.removeprefix(READY_PREFIX))
    if not isinstance(ready, dict):
        raise ChannelError("child.babble", f"{name} said READY without an object", str(log))
    return ready


def error_from_dict(data: dict[str, Any]) -> IonctlError:
    """The error that another process wrote down with `IonctlError.to_dict`."""
    kind = _ERRORS.get(int(data.get("exit_code", ExitCode.INTERNAL)), InternalError)
    fields = [str(data.get(key, "")) for key in ("code", "what", "where", "fix")]
    return kind(*fields)


def _died(child: subprocess.Popen[bytes], name: str, log: Path) -> ChannelError:
    try:
        code: int | str = child.wait(KILL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        code = "none"
    return ChannelError("child.died", f"{name} ended before it was ready, exit code {code}: {last_line(log)}", str(log))


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1].strip() if lines else "the log is empty"


def stop(folder: Path, name: str, pid: int, child: subprocess.Popen[bytes] | None = None) -> str:
    """End a process that holds its lock: asked first, then killed. Returns 'stopped' for an orderly end.

    Other ends are told in words, with the log to look at: killed, gone before (GONE), or ended by a signal or with an
    exit code, which only a `child` of this process is known by. One that does not listen is told to abort, which writes
    into its log where each of its threads stands.
    """
    if not is_alive(folder, name):
        return GONE + _not_orderly(folder, name, child)
    if _ends(folder, name, pid, signal.SIGTERM, STOP_TIMEOUT_S, child):
        return "stopped" + _not_orderly(folder, name, child)
    for number, timeout_s in ((signal.SIGABRT, ABORT_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        if _ends(folder, name, pid, number, timeout_s, child):
            return f"killed, for it did not listen: see {folder / name}.log"
    raise ChannelError("child.immortal", f"{name} (process {pid}) does not end", str(folder))


def _ends(
    folder: Path, name: str, pid: int, number: signal.Signals, timeout_s: float, child: subprocess.Popen[bytes] | None
) -> bool:
    """Send a signal, wake it, and wait; whether the process ends."""
    _signal(pid, number)
    _signal(pid, signal.SIGCONT)
    return gone(folder, name, timeout_s, child)


def _not_orderly(folder: Path, name: str, child: subprocess.Popen[bytes] | None) -> str:
    """How a process has ended, and where to look; empty if it came to its orderly end."""
    code = None if child is None else child.poll()
    if code == 0 or (code is None and has_noted_end(folder, name)):
        return ""
    how = "not by an orderly end" if code is None else f"exit code {code}" if code > 0 else _signal_name(-code)
    return f", {how}: see {folder / name}.log"


def _signal_name(number: int) -> str:
    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:  # a real-time signal has no name of its own
        return f"ended by signal {number}"


def gone(folder: Path, name: str, timeout_s: float, child: subprocess.Popen[bytes] | None = None) -> bool:
    """Wait until a process holds its lock no more, `timeout_s` of wall time at most; whether it has let go."""
    deadline = monotonic_s() + timeout_s
    while is_alive(folder, name):
        if monotonic_s() > deadline:
            return False
        sleep_s(_POLL_S)
    if child is not None:
        child.wait(KILL_TIMEOUT_S)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
